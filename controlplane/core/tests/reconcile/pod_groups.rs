//! Pods of a group are placed together or not at all.

use std::sync::Arc;

use bulkhead_controlplane_core::decide;
use bulkhead_types::{
    Binding, Command, LABEL_POD_GROUP, LABEL_POD_GROUP_MIN_AVAILABLE, Object, ObjectId, PodSpec,
};

use crate::kit::{Cluster, GIB, Say, facts, map, pod, pod_spec};
use crate::preemption::{class, find, of_class};

/// A pod of a group of which so many are placed together.
fn member(named: &str, group: &str, least: u32, spec: PodSpec) -> Command {
    let Object::Pod(mut object) = pod(named, spec) else { unreachable!() };
    let least = least.to_string();
    Arc::make_mut(&mut object).meta.labels =
        map(&[(LABEL_POD_GROUP, group), (LABEL_POD_GROUP_MIN_AVAILABLE, &least)]);
    Command::Create(Object::Pod(object))
}

fn cpus(cpu_millis: u64) -> PodSpec {
    pod_spec("web:1", cpu_millis, 1 << 20)
}

/// Names of the pods that have a node.
fn placed(cluster: &Cluster) -> String {
    let pods = cluster.state().pods().iter().filter(|pod| pod.node.is_some());
    let mut names: Vec<_> = pods.map(|pod| pod.meta.name.to_string()).collect();
    names.sort();
    names.join(" ")
}

fn message(cluster: &Cluster, named: &str) -> String {
    find(cluster, named).status.message.clone()
}

/// Members by name and thousandths of a core, so many together on nodes of so many; who has a node then.
fn check(nodes: &[u64], least: u32, members: &[(&str, u64)], expected: &str) -> Cluster {
    let mut cluster = Cluster::new();
    for (number, cpu_millis) in nodes.iter().enumerate() {
        cluster.node(&format!("n{number}"), facts(*cpu_millis, 64 * GIB, 20));
    }
    for (named, cpu_millis) in members {
        cluster.ok(member(named, "g", least, cpus(*cpu_millis)));
        cluster.settle();
    }
    cluster.advance(60_000);
    assert_eq!(placed(&cluster), expected, "{nodes:?} {least} {members:?}");
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
    cluster
}

/// TV-08: room for two, three are needed: all wait until there is room for three.
#[test]
fn tv_08_nobody_is_placed_before_all_can_be() {
    let members = [("a", 1000), ("b", 1000), ("c", 1000)];
    let mut cluster = check(&[2000], 3, &members, "");
    assert_eq!(
        message(&cluster, "a"),
        "pod group g: 0/1 nodes are available: there is room for 2 of 3 pods that are placed together"
    );
    // Nothing is held meanwhile.
    cluster.ok(Command::Create(pod("x", cpus(2000))));
    cluster.settle();
    assert_eq!(placed(&cluster), "x");
    cluster.node("more", facts(2000, 64 * GIB, 20));
    cluster.settle();
    assert_eq!(placed(&cluster), "x");
    cluster.node("most", facts(1000, 64 * GIB, 20));
    cluster.settle();
    assert_eq!(placed(&cluster), "a b c x");
}

/// TV-09: one master of 500m and three workers of 1000m, four together.
#[test]
fn tv_09_roles_of_one_group_are_placed_together() {
    let members = [("master", 500), ("w0", 1000), ("w1", 1000), ("w2", 1000)];
    check(&[3500], 4, &members, "master w0 w1 w2");
    check(&[3400], 4, &members, "");
    check(&[2000, 1500], 4, &members, "master w0 w1 w2");
    // The master would fit, but is not placed where a worker must be.
    check(&[1000, 1000, 1000, 500], 4, &members, "master w0 w1 w2");
    check(&[1000, 1000, 1400], 4, &members, "");
}

/// TV-11: room for four pods of 4 CPU; `low` comes before `medium`, and yet `medium` is placed when `high` has gone.
#[test]
fn tv_11_groups_go_by_priority() {
    let mut cluster = Cluster::new();
    for (named, value) in [("high", 100), ("medium", 50), ("low", 10)] {
        cluster.ok(Command::Create(class(named, value, None)));
    }
    cluster.node("n0", facts(40_000, 64 * GIB, 20));
    let create = |cluster: &mut Cluster, job: &str| {
        for number in 0..4 {
            cluster.ok(member(&format!("{job}-{number}"), job, 4, of_class(job, 10)));
        }
        cluster.converge();
    };
    create(&mut cluster, "high");
    create(&mut cluster, "low");
    create(&mut cluster, "medium");
    assert_eq!(placed(&cluster), "high-0 high-1 high-2 high-3");
    for number in 0..4 {
        let pod = find(&cluster, &format!("high-{number}"));
        let object = Object::Pod(pod).object_ref();
        cluster.ok(Command::Delete { object, grace_ms: None, force: false });
    }
    cluster.converge();
    assert_eq!(placed(&cluster), "medium-0 medium-1 medium-2 medium-3");
}

#[test]
fn more_than_the_least_come_one_by_one() {
    let mut cluster = check(&[2000], 2, &[("a", 1000), ("b", 1000), ("c", 1000)], "a b");
    assert!(message(&cluster, "c").starts_with("0/1 nodes are available: 1 Insufficient cpu"));
    cluster.node("more", facts(1000, 64 * GIB, 20));
    cluster.settle();
    assert_eq!(placed(&cluster), "a b c");
    // One that failed is no part of the group any more: its replacement waits for nobody else.
    cluster.converge();
    cluster.say(find(&cluster, "a").meta.id, Say::Failed);
    cluster.ok(member("d", "g", 2, cpus(1000)));
    cluster.settle();
    assert_eq!(placed(&cluster), "a b c d");
    check(&[2000], 1, &[("a", 1000), ("b", 1000), ("c", 1000)], "a b");
}

#[test]
fn who_waits_for_its_group_is_told() {
    let mut cluster = check(&[9000], 3, &[("a", 1000), ("b", 1000)], "");
    let expected = "pod group g: 2 of 3 pods that are placed together are there";
    assert_eq!((message(&cluster, "a").as_str(), message(&cluster, "b").as_str()), (expected, expected));
    cluster.ok(Command::Create(class("high", 100, None)));
    cluster.ok(member("c", "g", 3, of_class("high", 1)));
    cluster.settle();
    let expected = "pod group g: its pods are not of the same priority";
    assert_eq!((placed(&cluster).as_str(), message(&cluster, "a").as_str()), ("", expected));
    let object = Object::Pod(find(&cluster, "c")).object_ref();
    cluster.ok(Command::Delete { object, grace_ms: None, force: false });
    cluster.ok(member("d", "g", 3, cpus(1000)));
    cluster.settle();
    assert_eq!(placed(&cluster), "a b d");
}

#[test]
fn a_leader_that_is_lost_takes_no_part_of_a_group_along() {
    let mut cluster = Cluster::new();
    cluster.node("n0", facts(3000, 64 * GIB, 20));
    for named in ["a", "b", "c"] {
        cluster.ok(member(named, "g", 3, cpus(1000)));
    }
    cluster.lose();
    cluster.new_leader();
    cluster.settle();
    assert_eq!(placed(&cluster), "a b c");
}

#[test]
fn a_group_is_bound_as_a_whole_or_not_at_all() {
    let mut cluster = check(&[2500], 3, &[("a", 1000), ("b", 1000), ("c", 1000)], "");
    let node = cluster.state().nodes().iter().next().unwrap().meta.id;
    let id = |named: &str| find(&cluster, named).meta.id;
    let bind = |pod: ObjectId| Binding {
        pod,
        node,
        nodes_considered: 1,
        score: 0,
        devices: vec![],
        networks: vec![],
        cpus: Default::default(),
    };
    let refused = |bindings: Vec<Binding>| {
        let stamped = cluster.stamped("system:scheduler", vec![Command::BindPodGroup { bindings }]);
        decide(cluster.state(), &stamped).unwrap_err().reason
    };
    let (a, b, c) = (bind(id("a")), bind(id("b")), bind(id("c")));
    assert_eq!(refused(vec![a.clone(), b.clone()]), "3 more must be placed together, these are 2");
    let third = format!("pod {}: Insufficient cpu", id("c"));
    assert_eq!(refused(vec![a.clone(), b.clone(), c.clone()]), third);
    let twice = format!("pod {} is not of it, or named twice", id("a"));
    assert_eq!(refused(vec![a.clone(), b.clone(), a.clone()]), twice);
    assert_eq!(refused(vec![]), "the first is of no pod of a group");
    // Nor one by one.
    let stamped = cluster.stamped("system:scheduler", vec![Command::BindPods { bindings: vec![a, b, c] }]);
    assert_eq!(decide(cluster.state(), &stamped), Ok(vec![]));
    cluster.node("more", facts(2500, 64 * GIB, 20));
    cluster.settle();
    assert_eq!(placed(&cluster), "a b c");
}

#[test]
fn below_its_level_labels_are_labels() {
    let mut cluster = Cluster::at_level(Default::default(), 7);
    cluster.node("n0", facts(2000, 64 * GIB, 20));
    for named in ["a", "b", "c"] {
        cluster.ok(member(named, "g", 3, cpus(1000)));
    }
    cluster.settle();
    assert_eq!(placed(&cluster), "a b");
    let Object::Pod(mut odd) = pod("odd", cpus(1)) else { unreachable!() };
    Arc::make_mut(&mut odd).meta.labels = map(&[(LABEL_POD_GROUP, "g")]);
    cluster.ok(Command::Create(Object::Pod(odd.clone())));
    cluster.ok(Command::RaiseFeatureLevel { level: 8 });
    Arc::make_mut(&mut odd).meta.name = "odder".try_into().unwrap();
    let refusal = cluster.submit(vec![Command::Create(Object::Pod(odd))]).unwrap_err().to_string();
    assert!(refusal.contains("min-available"), "{refusal}");
}
