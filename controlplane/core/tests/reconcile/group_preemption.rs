//! Groups of higher priority that wait and fit nowhere, and others that end for them: all in one decision, or nobody.

use std::sync::Arc;

use bulkhead_controlplane_core::evolve::evolve;
use bulkhead_controlplane_core::placement::reference::preemption::{judge, priority};
use bulkhead_controlplane_core::{State, decide, invariant};
use bulkhead_types::{
    ANNOTATION_POD_GROUP, ANNOTATION_TASK_SPEC, Command, Kind, LABEL_POD_GROUP,
    LABEL_POD_GROUP_MIN_AVAILABLE, Nomination, Object, ObjectId, POD_GROUP_PODS_MAX, PodGroupSpec,
    PodPlacement, PodSpec, QueueState, Rare,
};
use expect_test::{Expect, expect};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::device_kit::{asking, cards};
use crate::kit::{Cluster, GIB, Say, facts, map, name, pod, reference};
use crate::placement::{required, term};
use crate::preemption::{budget, cluster, find, of_class, pods, relabel, run};
use crate::queues::{amounts, group, noted, queue};

/// A pod of the PodGroup `g`, of so many tenths of a node.
fn member(named: &str, class: &str, tenths: u64) -> Command {
    noted(named, &[(ANNOTATION_POD_GROUP, "g")], of_class(class, tenths))
}

/// A pod of a group by labels, on a node.
fn labelled(named: &str, of: &str, least: usize, node: &str, spec: PodSpec) -> Command {
    let Object::Pod(mut object) = pod(named, PodSpec { node_name: Some(node.into()), ..spec }) else {
        unreachable!()
    };
    let least = least.to_string();
    Arc::make_mut(&mut object).meta.labels =
        map(&[(LABEL_POD_GROUP, of), (LABEL_POD_GROUP_MIN_AVAILABLE, &least)]);
    Command::Create(Object::Pod(object))
}

/// The PodGroup `g` with members of one class and these sizes, of which all must be placed together.
fn come(cluster: &mut Cluster, class: &str, tenths: &[u64], change: impl FnOnce(&mut PodGroupSpec)) {
    cluster.ok(Command::Create(group("g", u32::try_from(tenths.len()).unwrap(), change)));
    for (number, tenths) in tenths.iter().enumerate() {
        cluster.ok(member(&format!("g{number}"), class, *tenths));
    }
    cluster.settle();
}

fn check_pods(cluster: &Cluster, expected: &str) {
    assert_eq!(pods(cluster), expected);
    assert_eq!(invariant::check(cluster.state()), []);
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

/// Pods that are there, a group that comes, and all of them then, before anybody has ended.
fn check(
    nodes: usize,
    there: &[(&str, &str, u64)],
    (class, tenths): (&str, &[u64]),
    expected: &str,
) -> Cluster {
    let mut cluster = cluster(nodes);
    run(&mut cluster, there);
    come(&mut cluster, class, tenths, |_| ());
    check_pods(&cluster, expected);
    cluster
}

fn check_message(cluster: &Cluster, named: &str, expected: Expect) {
    expected.assert_eq(&find(cluster, named).status.message);
}

#[test]
fn all_of_a_group_get_room_in_one_decision() {
    let there = [("a@n0", "low", 10), ("b@n1", "low", 10), ("c@n2", "low", 10)];
    let mut one = check(3, &there, ("high", &[10, 10]), "a@n0 b@n1- c@n2- g0?n2 g1?n1");
    check_message(
        &one,
        "g1",
        expect![
            "pod group g: room is kept for 2 of its pods, for this one on node n1, where 1 pods end; 2 are preempted for the group"
        ],
    );
    let ends = one.transactions.iter().filter(|transaction| {
        transaction
            .events
            .iter()
            .any(|e| matches!(&e.kind, bulkhead_types::EventKind::DeletionRequested { .. }))
    });
    assert_eq!(ends.count(), 1);
    assert_eq!(find(&one, "b").meta.deletion.as_ref().unwrap().preemptor, Some(find(&one, "g1").meta.id));
    one.converge();
    check_pods(&one, "a@n0 g0@n1 g1@n2");
}

#[test]
fn nobody_ends_for_a_group_that_would_not_fit() {
    let there = [("a@n0", "low", 10), ("b@n1", "high", 10)];
    let one = check(2, &there, ("high", &[10, 10]), "a@n0 b@n1 g0 g1");
    check_message(
        &one,
        "g0",
        expect![
            "pod group g: 0/2 nodes are available: there is room for 0 of 2 pods that are placed together preemption: No preemption victims found for all of the group."
        ],
    );
    // Equal ones stay, and so do all before a class that makes nobody end.
    check(1, &[("a", "mid", 10)], ("mid", &[5, 5]), "a@n0 g0 g1");
    let one = check(1, &[("a", "low", 10)], ("polite", &[5, 5]), "a@n0 g0 g1");
    check_message(
        &one,
        "g0",
        expect![
            "pod group g: 0/1 nodes are available: there is room for 0 of 2 pods that are placed together preemption: not eligible due to preemptionPolicy=Never."
        ],
    );
}

#[test]
fn the_fewest_and_lowest_end_over_all_of_them() {
    // What is free is used first.
    check(2, &[("a@n0", "low", 5), ("b@n1", "low", 10)], ("high", &[5, 5]), "a@n0 b@n1- g0?n0 g1?n1");
    // The lower ones.
    let there = [("a@n0", "mid", 10), ("b@n1", "low", 10), ("c@n2", "low", 10)];
    check(3, &there, ("high", &[10, 10]), "a@n0 b@n1- c@n2- g0?n2 g1?n1");
    // A place that one of them makes is enough for more than one.
    check(
        2,
        &[("a@n0", "low", 10), ("b@n1", "mid", 10)],
        ("high", &[3, 3, 3]),
        "a@n0- b@n1 g0?n0 g1?n0 g2?n0",
    );
    // One by one: `c` would be the first to end, and is not needed once `b` has for the second.
    let there = [("h@n0", "high", 6), ("b@n1", "low", 10), ("c@n0", "low", 4)];
    check(2, &there, ("high", &[4, 4]), "b@n1- c@n0 g0?n1 g1?n1 h@n0");
    // One that ended for the first is not needed once another has ended for the second.
    let there = [("a@n0", "low", 10), ("b@n1", "low", 3), ("c@n1", "low", 7)];
    check(2, &there, ("high", &[7, 3]), "a@n0 b@n1- c@n1- g0?n1 g1?n1");
}

#[test]
fn what_ends_already_is_waited_for() {
    let mut cluster = cluster(2);
    run(&mut cluster, &[("a@n0", "low", 10), ("b@n1", "low", 10)]);
    cluster.ok(Command::Delete { object: reference(Kind::Pod, "a"), grace_ms: None, force: false });
    come(&mut cluster, "high", &[5, 5], |_| ());
    check_pods(&cluster, "a@n0- b@n1 g0?n0 g1?n0");
}

#[test]
fn minimums_of_roles_and_resources_are_asked_for() {
    let mut cluster = cluster(2);
    run(&mut cluster, &[("a@n0", "low", 10), ("b@n1", "low", 10)]);
    cluster.ok(Command::Create(group("g", 2, |spec| {
        spec.min_task_member = [("lead".into(), 1)].into();
        spec.min_resources = amounts(&[("cpu", 10_000)]);
    })));
    let of_role = |named: &str, role: &str, tenths| {
        noted(named, &[(ANNOTATION_POD_GROUP, "g"), (ANNOTATION_TASK_SPEC, role)], of_class("high", tenths))
    };
    for (named, role) in [("w0", "work"), ("w1", "work"), ("w2", "work")] {
        cluster.ok(of_role(named, role, 2));
    }
    cluster.settle();
    check_pods(&cluster, "a@n0 b@n1 w0 w1 w2");
    // With one that leads two are enough; who is more than that waits.
    cluster.ok(of_role("lead", "lead", 6));
    cluster.settle();
    check_pods(&cluster, "a@n0 b@n1- lead?n1 w0?n1 w1 w2");
    cluster.converge();
    // As one more it makes others end like any pod.
    check_pods(&cluster, "lead@n1 w0@n1 w1@n1 w2@n0");
}

#[test]
fn a_group_that_needs_more_than_would_be_free_ends_nobody() {
    let mut cluster = cluster(2);
    run(&mut cluster, &[("a@n0", "low", 10), ("b@n1", "low", 10)]);
    come(&mut cluster, "high", &[5, 5], |spec| spec.min_resources = amounts(&[("cpu", 15_000)]));
    check_pods(&cluster, "a@n0 b@n1 g0 g1");
}

#[test]
fn budgets_are_kept() {
    let mut cluster = cluster(2);
    run(&mut cluster, &[("a@n0", "low", 10), ("b@n1", "low", 10)]);
    relabel(&mut cluster, "a");
    relabel(&mut cluster, "b");
    cluster.ok(Command::Create(budget(1)));
    come(&mut cluster, "high", &[10, 10], |_| ());
    check_pods(&cluster, "a@n0 b@n1 g0 g1");
    check_message(
        &cluster,
        "g0",
        expect![
            "pod group g: 0/2 nodes are available: there is room for 0 of 2 pods that are placed together preemption: Preemption would go below a PodDisruptionBudget."
        ],
    );
    cluster.ok(Command::Apply(budget(0)));
    cluster.settle();
    check_pods(&cluster, "a@n0- b@n1- g0?n1 g1?n0");
}

#[test]
fn groups_of_victims_end_whole_or_spare_some() {
    let of_low = |cluster: &mut Cluster, least: usize, places: &[(&str, &str, u64)]| {
        for (named, node, tenths) in places {
            cluster.ok(labelled(named, "v", least, node, of_class("low", *tenths)));
        }
        cluster.converge();
    };
    // Two of three must stay, so all of them end; the other node's place is free with that.
    let mut one = cluster(3);
    of_low(&mut one, 3, &[("v0", "n0", 10), ("v1", "n1", 10), ("v2", "n2", 10)]);
    come(&mut one, "high", &[10, 10], |_| ());
    let shown = pods(&one);
    assert!(shown.ends_with("v0@n0- v1@n1- v2@n2-") && shown.matches('?').count() == 2, "{shown}");
    // One is enough.
    let mut one = cluster(3);
    of_low(&mut one, 1, &[("v0", "n0", 10), ("v1", "n1", 10), ("v2", "n2", 10)]);
    come(&mut one, "high", &[10, 10], |_| ());
    assert_eq!(pods(&one).matches('-').count(), 2, "{}", pods(&one));
    let mut one = cluster(3);
    of_low(&mut one, 2, &[("v0", "n0", 10), ("v1", "n1", 10), ("v2", "n2", 10)]);
    come(&mut one, "high", &[10], |_| ());
    assert_eq!(pods(&one).matches('-').count(), 1, "{}", pods(&one));
    let (_, replayed) = (one.settle(), one.replayed());
    assert_eq!(replayed.digest(), one.state().digest());
}

#[test]
fn room_is_kept_for_all_of_them_until_they_are_placed() {
    let mut one =
        check(2, &[("a@n0", "low", 10), ("b@n1", "low", 10)], ("high", &[6, 6]), "a@n0- b@n1- g0?n1 g1?n0");
    // Neither a lower nor an equal one gets any of it, and what is left may be had.
    for (named, class, tenths) in [("l", "mid", 6), ("e", "polite", 6), ("s", "low", 4)] {
        one.ok(Command::Create(pod(named, of_class(class, tenths))));
    }
    one.settle();
    one.say(find(&one, "a").meta.id, Say::Gone);
    one.settle();
    check_pods(&one, "b@n1- e g0?n1 g1?n0 l s@n0");
    one.say(find(&one, "b").meta.id, Say::Gone);
    one.settle();
    check_pods(&one, "e g0@n1 g1@n0 l s@n0");
}

#[test]
fn room_is_given_up_as_a_whole() {
    let there = [("a@n0", "low", 10), ("b@n1", "low", 10)];
    let expected = "a@n0- b@n1- g0?n1 g1?n0";
    // One of them goes.
    let mut one = check(2, &there, ("high", &[10, 10]), expected);
    one.ok(Command::Delete { object: reference(Kind::Pod, "g0"), grace_ms: None, force: false });
    one.settle();
    check_pods(&one, "a@n0- b@n1- g1");
    // One of the nodes takes nobody any more.
    let mut one = check(2, &there, ("high", &[10, 10]), expected);
    one.ok(Command::SetUnschedulable { node: name("n0"), unschedulable: true });
    one.settle();
    check_pods(&one, "a@n0- b@n1- g0 g1");
    one.ok(Command::SetUnschedulable { node: name("n0"), unschedulable: false });
    one.settle();
    assert_eq!(pods(&one).matches('?').count(), 2);
    // A higher one takes the place of one of them.
    let mut one = cluster(2);
    run(&mut one, &there);
    come(&mut one, "mid", &[10, 10], |_| ());
    check_pods(&one, expected);
    one.ok(Command::Create(pod("x", of_class("high", 10))));
    one.settle();
    let shown = pods(&one);
    assert!(shown.contains("x?") && shown.matches('?').count() == 1, "{shown}");
    one.converge();
    let shown = pods(&one);
    assert!(shown.contains("x@") && shown.starts_with("g0 g1"), "{shown}");
}

#[test]
fn a_group_that_is_put_off_holds_nothing() {
    let mut cluster = cluster(2);
    run(&mut cluster, &[("a@n0", "low", 10), ("b@n1", "low", 10)]);
    come(&mut cluster, "high", &[10, 10], |spec| spec.schedule_timeout_ms = Some(5000));
    check_pods(&cluster, "a@n0- b@n1- g0?n1 g1?n0");
    // Its victims take longer than it waits.
    cluster.advance(6000);
    check_pods(&cluster, "a@n0- b@n1- g0 g1");
    cluster.advance(11_000);
    assert_eq!(pods(&cluster).matches('?').count(), 2, "{}", pods(&cluster));
    cluster.converge();
    assert_eq!(pods(&cluster).matches('@').count(), 2, "{}", pods(&cluster));
}

#[test]
fn a_queue_that_has_no_room_ends_nobody() {
    let mut cluster = cluster(2);
    cluster.ok(Command::Create(queue("q", 1, &[("cpu", 15_000)], QueueState::Open)));
    run(&mut cluster, &[("a@n0", "low", 10), ("b@n1", "low", 10)]);
    come(&mut cluster, "high", &[10, 10], |spec| spec.queue = name("q"));
    check_pods(&cluster, "a@n0 b@n1 g0 g1");
    cluster.ok(Command::Apply(queue("q", 1, &[("cpu", 25_000)], QueueState::Open)));
    cluster.settle();
    check_pods(&cluster, "a@n0- b@n1- g0?n1 g1?n0");
}

/// With anti-affinity within the group, and to what is there.
#[test]
fn pods_that_look_at_others_get_room_too() {
    let apart = |spec: PodSpec| {
        let placement = PodPlacement {
            pod_anti_affinity: required(term("web", "kubernetes.io/hostname")),
            ..PodPlacement::default()
        };
        let mut options = spec.options.get().cloned().unwrap_or_default();
        options.placement = Rare::some(placement);
        PodSpec { options: Rare::some(options), ..spec }
    };
    let mut cluster = cluster(3);
    run(&mut cluster, &[("a@n0", "low", 1), ("b@n1", "low", 1), ("c@n2", "mid", 1)]);
    for named in ["a", "b", "c"] {
        relabel(&mut cluster, named);
    }
    cluster.ok(Command::Create(group("g", 2, |_| ())));
    for named in ["g0", "g1"] {
        let Command::Create(Object::Pod(mut object)) =
            noted(named, &[(ANNOTATION_POD_GROUP, "g")], apart(of_class("high", 1)))
        else {
            unreachable!()
        };
        Arc::make_mut(&mut object).meta.labels = map(&[("app", "web")]);
        cluster.ok(Command::Create(Object::Pod(object)));
    }
    cluster.settle();
    check_pods(&cluster, "a@n0- b@n1- c@n2 g0?n1 g1?n0");
    cluster.converge();
    check_pods(&cluster, "c@n2 g0@n1 g1@n0");
}

#[test]
fn devices_are_room_as_well() {
    let of_class = |class: &str, count| {
        let spec = asking(&[("nvidia.com/gpu", count)]);
        let mut options = spec.options.get().cloned().unwrap_or_default();
        options.priority_class = Some(class.into()).into();
        PodSpec { options: Rare::some(options), ..spec }
    };
    let mut cluster = cluster(0);
    cluster.device_node("d0", cards(4));
    cluster.device_node("d1", cards(4));
    for named in ["a", "b"] {
        cluster.ok(Command::Create(pod(named, of_class("low", 4))));
        cluster.converge();
    }
    cluster.ok(Command::Create(group("g", 3, |_| ())));
    for named in ["g0", "g1", "g2"] {
        cluster.ok(noted(named, &[(ANNOTATION_POD_GROUP, "g")], of_class("high", 2)));
    }
    cluster.settle();
    assert_eq!(pods(&cluster).matches('-').count(), 2, "{}", pods(&cluster));
    // One more card is free than they need, but it is of a node where devices are kept for them.
    cluster.ok(Command::Create(pod("x", of_class("polite", 1))));
    cluster.settle();
    cluster.say(find(&cluster, "a").meta.id, Say::Gone);
    cluster.settle();
    assert!(find(&cluster, "x").node.is_none());
    cluster.converge();
    for named in ["g0", "g1", "g2", "x"] {
        assert!(find(&cluster, named).node.is_some(), "{named}: {}", pods(&cluster));
    }
}

#[test]
fn it_is_asked_again_when_it_is_applied() {
    let mut cluster = cluster(2);
    run(&mut cluster, &[("a@n0", "low", 10), ("b@n1", "mid", 5), ("c@n1", "high", 5)]);
    cluster.ok(labelled("v0", "v", 2, "n0", of_class("low", 0)));
    cluster.ok(labelled("v1", "v", 2, "n1", of_class("low", 0)));
    cluster.converge();
    cluster.ok(Command::Create(group("g", 2, |_| ())));
    cluster.ok(member("g0", "high", 10));
    cluster.ok(member("g1", "high", 5));
    cluster.ok(Command::Create(pod("x", of_class("high", 10))));
    let id = |named: &str| find(&cluster, named).meta.id;
    let node = |named: &str| find(&cluster, named).node.unwrap();
    let refused = |seats: &[(&str, ObjectId)], victims: &[&str]| {
        let nominations = seats.iter().map(|(pod, node)| Nomination { pod: id(pod), node: *node }).collect();
        let victims = victims.iter().map(|victim| id(victim)).collect();
        let stamped =
            cluster.stamped("system:scheduler", vec![Command::PreemptForGroup { nominations, victims }]);
        decide(cluster.state(), &stamped).map(|_| ()).map_err(|rejection| rejection.reason)
    };
    let (n0, n1) = (node("a"), node("b"));
    let whole = [("g0", n0), ("g1", n1)];
    let check = |seats: &[(&str, ObjectId)], victims: &[&str], expected: &str| {
        assert_eq!(refused(seats, victims), Err(expected.to_owned()), "{seats:?} {victims:?}");
    };
    check(&[], &[], "the first is of no pod of a group");
    check(&[("x", n0)], &[], "the first is of no pod of a group");
    check(&[("v0", n0)], &[], "it has all that it must have");
    check(&[("g0", n0)], &["a"], "2 more must be placed together, these are 1");
    let odd = format!("pod {} is not of it, or named twice, or does not wait", id("x"));
    check(&[("g0", n0), ("x", n1)], &["a"], &odd);
    check(&whole, &["a"], "Insufficient cpu");
    check(&whole, &["a", "c"], "pod c is not of lower priority");
    check(&whole, &["a", "a"], &format!("pod {} does not stay there", id("a")));
    check(&whole, &["a", "b", "v0"], "pod group v would be left with fewer pods than it must have");
    check(&whole, &["a", "b", "v0", "v1"], "pod v0 need not end");
    assert_eq!(refused(&whole, &["a", "b"]), Ok(()));
    // Nor does one of them get room by itself.
    let stamped = cluster.stamped(
        "system:scheduler",
        vec![Command::Preempt { pod: id("g0"), node: n0, victims: vec![id("a")] }],
    );
    let reason = decide(cluster.state(), &stamped).unwrap_err().reason;
    assert_eq!(reason, "it is placed with others of its group");
}

#[test]
fn below_its_level_nobody_ends_for_a_group() {
    let mut cluster = Cluster::at_level(Default::default(), 10);
    cluster.ok(Command::Create(crate::preemption::class("high", 100, None)));
    cluster.node("n0", facts(10_000, 64 * GIB, 20));
    run(&mut cluster, &[("a", "", 10)]);
    come(&mut cluster, "high", &[5, 5], |_| ());
    check_pods(&cluster, "a@n0 g0 g1");
    let command = Command::PreemptForGroup { nominations: vec![], victims: vec![] };
    let reason = cluster.submit(vec![command]).unwrap_err().reason;
    assert_eq!(reason, "needs level 11, the cluster runs at level 10");
    let (pod, node) = (find(&cluster, "g0").meta.id, find(&cluster, "a").node.unwrap());
    let many = Command::Preempt { pod, node, victims: vec![pod; 129] };
    assert!(cluster.submit(vec![many]).unwrap_err().reason.starts_with("needs level 11"));
    cluster.ok(Command::RaiseFeatureLevel { level: 11 });
    cluster.advance(60_000);
    check_pods(&cluster, "a@n0- g0?n0 g1?n0");
}

/// A leader that is lost takes nothing along, and the next one does not do the same again.
#[test]
fn a_new_leader_goes_on() {
    let there = [("a@n0", "low", 10), ("b@n1", "low", 10)];
    let mut one = check(2, &there, ("high", &[10, 10]), "a@n0- b@n1- g0?n1 g1?n0");
    let before = one.proposals.len();
    one.new_leader();
    one.settle();
    assert!(one.proposals[before..].iter().all(|one| one.reconciler != "scheduler"));
    one.converge();
    assert_eq!(pods(&one).matches('@').count(), 2, "{}", pods(&one));
    // What was on its way is lost.
    let mut one = cluster(2);
    run(&mut one, &there);
    one.ok(Command::Create(group("g", 2, |_| ())));
    one.ok(member("g0", "high", 10));
    one.ok(member("g1", "high", 10));
    one.lose();
    one.new_leader();
    one.converge();
    assert_eq!(pods(&one).matches('@').count(), 2, "{}", pods(&one));
}

/// A group of more than 128 ends whole: for a pod, and for a group.
#[test]
fn groups_of_any_size_end_whole() {
    for is_group in [false, true] {
        let mut cluster = cluster(0);
        for node in ["n0", "n1"] {
            cluster.node(node, facts(10_000, 64 * GIB, 200));
        }
        for number in 0..150 {
            let node = if number % 2 == 0 { "n0" } else { "n1" };
            let spec = crate::kit::pod_spec("web:1", 100, 1 << 20);
            let class = of_class("low", 0).options;
            let spec = PodSpec { options: class, ..spec };
            cluster.ok(labelled(&format!("v{number}"), "v", 150, node, spec));
        }
        cluster.converge();
        assert_eq!(pods(&cluster).matches('@').count(), 150);
        match is_group {
            false => cluster.ok(Command::Create(pod("x", of_class("high", 10)))),
            true => come(&mut cluster, "high", &[10, 10], |_| ()),
        }
        cluster.settle();
        assert_eq!(pods(&cluster).matches('-').count(), 150);
        cluster.converge();
        assert_eq!(pods(&cluster).matches('@').count(), if is_group { 2 } else { 1 });
    }
}

/// No group ever has more pods than can end in one command.
#[test]
fn a_group_holds_no_more_than_can_end_together() {
    let most = POD_GROUP_PODS_MAX as usize;
    let mut cluster = cluster(0);
    cluster.node("n0", facts(10_000, 4096 * GIB, 2 * POD_GROUP_PODS_MAX));
    cluster.ok(Command::Create(group("g", 1, |_| ())));
    let commands = |from: usize, to: usize| (from..to).map(|n| member(&format!("g{n}"), "low", 0)).collect();
    cluster.submit(commands(0, most / 2)).unwrap();
    cluster.submit(commands(most / 2, most - 1)).unwrap();
    cluster.settle();
    cluster.submit(commands(most - 1, most + 2)).unwrap();
    cluster.settle();
    assert_eq!(cluster.state().pending_pods().len(), 2);
    let waiting = *cluster.state().pending_pods().iter().next().unwrap();
    let message = cluster.state().pods().get(waiting).unwrap().status.message.clone();
    assert_eq!(message, "pod group g: 2048 of its pods have a node, and no more may have one");
    // Nor by anybody else's command.
    let node = cluster.state().nodes().iter().next().unwrap().meta.id;
    let binding = bulkhead_types::Binding {
        pod: waiting,
        node,
        nodes_considered: 1,
        score: 0,
        devices: vec![],
        networks: vec![],
        cpus: Default::default(),
    };
    let stamped = cluster.stamped("system:scheduler", vec![Command::BindPods { bindings: vec![binding] }]);
    assert_eq!(decide(cluster.state(), &stamped), Ok(vec![]));
}

/// How many pods of a size would fit when all below a priority had gone: what nobody can do better than.
fn fit_at_best(state: &State, rank: i32, tenths: u64) -> u64 {
    let of_node = |node: &Arc<bulkhead_types::Node>| {
        let stays = state.pods_on(node.meta.id).filter(|pod| {
            !pod.meta.is_deleting() && !pod.status.phase.is_terminal() && priority(state, pod) >= Some(rank)
        });
        let request = |pod: &Arc<bulkhead_types::Pod>| pod.spec.scheduling_request().cpu_millis;
        let used: u64 = stays.map(request).sum();
        (node.status.facts.allocatable.cpu_millis - used) / (tenths * 1000)
    };
    state.nodes().iter().map(of_node).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever is there, the slow reference agrees with who ends for a group; of pods that are all alike nobody is missed who
    /// could have ended, and what gets room is placed.
    #[test]
    fn a_group_gets_room_where_there_can_be_any_and_nobody_ends_without_need(
        nodes in vec(4u64..11, 1..5),
        there in vec((select(vec!["low", "low", "mid", "high"]), 1u64..7, prop::option::weighted(0.3, 0u8..2)), 1..14),
        class in select(vec!["high", "high", "mid"]),
        tenths in prop_oneof![(1u64..6, 1usize..6).prop_map(|(size, count)| vec![size; count]), vec(1u64..6, 1..5)],
        least in prop::option::of(0u32..3),
        later in vec((select(vec!["low", "mid", "high"]), 1u64..5), 0..4),
    ) {
        let mut cluster = cluster(0);
        for (number, tenths) in nodes.iter().enumerate() {
            cluster.node(&format!("n{number}"), facts(tenths * 1000, 64 * GIB, 20));
        }
        let mut before = cluster.state().clone();
        let seen = cluster.transactions.len();
        for (number, (class, tenths, of)) in there.iter().enumerate() {
            let mut object = pod(&format!("p{number}"), of_class(class, *tenths));
            let labels = &mut object.meta_mut().labels;
            labels.insert("app".into(), "web".into());
            if let Some(of) = of {
                labels.insert(LABEL_POD_GROUP.into(), format!("v{of}-{class}").into());
                labels.insert(LABEL_POD_GROUP_MIN_AVAILABLE.into(), "2".into());
            }
            cluster.ok(Command::Create(object));
            cluster.converge();
        }
        if let Some(least) = least {
            cluster.ok(Command::Create(budget(least)));
        }
        come(&mut cluster, class, &tenths, |_| ());
        let state = cluster.state();
        let of_group: Vec<_> = (0..tenths.len()).map(|number| find(&cluster, &format!("g{number}"))).collect();
        let kept = of_group.iter().filter(|pod| pod.status.nominated_node.get().is_some()).count();
        let bound = of_group.iter().filter(|pod| pod.node.is_some()).count();
        prop_assert!(kept + bound == 0 || kept + bound == tenths.len(), "{}", pods(&cluster));
        let are_alike = tenths.iter().all(|size| *size == tenths[0]);
        if kept + bound == 0 && are_alike && least.is_none() && there.iter().all(|(.., of)| of.is_none()) {
            let best = fit_at_best(state, priority(state, &of_group[0]).unwrap(), tenths[0]);
            prop_assert!(best < tenths.len() as u64, "{} would fit: {}", best, pods(&cluster));
        }
        for (number, (class, tenths)) in later.iter().enumerate() {
            cluster.ok(Command::Create(pod(&format!("l{number}"), of_class(class, *tenths))));
        }
        cluster.settle();
        cluster.converge();
        let has_higher = later.iter().any(|(other, _)| *other == "high" && class == "mid");
        for pod in of_group.iter().filter(|_| kept > 0 && !has_higher) {
            prop_assert!(find(&cluster, pod.meta.name.as_str()).node.is_some(), "{}", pods(&cluster));
        }
        for transaction in &cluster.transactions[seen..] {
            prop_assert_eq!(judge(&before, transaction), Ok(()));
            evolve(&mut before, transaction);
        }
        prop_assert_eq!(invariant::check(cluster.state()), vec![]);
        prop_assert_eq!(cluster.replayed().digest(), cluster.state().digest());
    }
}
