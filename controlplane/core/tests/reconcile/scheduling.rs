//! Which pods get which nodes, and what the others are told.

use bulkhead_controlplane_core::State;
use bulkhead_controlplane_core::placement::check_fit;
use bulkhead_types::{
    Command, Kind, Object, ObjectId, PodSpec, Taint, TaintEffect, Toleration, TolerationOperator,
};
use proptest::prelude::*;

use crate::kit::{Cluster, GIB, Say, facts, map, pod, pod_spec, reference, replica_set};

fn change_node(cluster: &mut Cluster, node: &str, change: impl FnOnce(&mut bulkhead_types::Node)) {
    let Some(Object::Node(mut found)) = cluster.state().find_object(&reference(Kind::Node, node)) else {
        panic!("no node {node}")
    };
    change(std::sync::Arc::make_mut(&mut found));
    cluster.ok(Command::Apply(Object::Node(found)));
}

fn taint(key: &str, effect: TaintEffect) -> Taint {
    Taint { key: key.into(), value: "".into(), effect }
}

fn node_of(cluster: &Cluster, pod: &str) -> Option<String> {
    let Some(Object::Pod(pod)) = cluster.state().find_object(&reference(Kind::Pod, pod)) else {
        panic!("no pod {pod}")
    };
    pod.node.map(|node| cluster.state().nodes().get(node).unwrap().meta.name.to_string())
}

fn message(cluster: &Cluster, pod: &str) -> String {
    let Some(Object::Pod(pod)) = cluster.state().find_object(&reference(Kind::Pod, pod)) else {
        panic!("no pod {pod}")
    };
    format!("{}: {}", pod.status.reason, pod.status.message)
}

#[test]
fn a_pod_without_a_node_is_told_why_once() {
    let mut cluster = Cluster::new();
    cluster.ok(Command::Create(pod("a", pod_spec("web:1", 2000, GIB))));
    cluster.settle();
    assert_eq!(message(&cluster, "a"), "Unschedulable: no nodes available to schedule pods");
    for n in 0..3 {
        cluster.node(&format!("small-{n}"), facts(1000, 8 * GIB, 10));
    }
    for n in 0..9 {
        cluster.node(&format!("gpu-{n}"), facts(8000, 8 * GIB, 10));
        change_node(&mut cluster, &format!("gpu-{n}"), |node| {
            node.spec.taints.push(taint("gpu", TaintEffect::NoSchedule));
        });
    }
    cluster.advance(60_000);
    let expected = "Unschedulable: 0/12 nodes are available: 3 Insufficient cpu, 9 node(s) had untolerated taint {gpu: }.";
    assert_eq!(message(&cluster, "a"), expected);
    let told = |cluster: &Cluster| {
        let told = |p: &&bulkhead_controlplane_core::reconcile::Proposal| {
            matches!(p.command, Command::SetPodsUnschedulable { .. })
        };
        cluster.proposals.iter().filter(told).count()
    };
    let before = told(&cluster);
    cluster.advance(300_000);
    assert_eq!(told(&cluster), before, "nothing new to tell");
    change_node(&mut cluster, "gpu-4", |node| node.spec.taints.clear());
    cluster.settle();
    assert_eq!(node_of(&cluster, "a").as_deref(), Some("gpu-4"));
}

#[test]
fn every_filter_is_heard() {
    let mut cluster = Cluster::new();
    cluster.node("a", facts(4000, 8 * GIB, 2));
    cluster.node("b", facts(4000, 8 * GIB, 10));
    change_node(&mut cluster, "b", |node| {
        node.meta.labels.insert("disk".into(), "ssd".into());
    });
    let create = |cluster: &mut Cluster, name: &str, spec: PodSpec| {
        cluster.ok(Command::Create(pod(name, spec)));
        cluster.settle();
    };
    create(&mut cluster, "by-name", PodSpec { node_name: Some("a".into()), ..pod_spec("web:1", 1, 1) });
    assert_eq!(node_of(&cluster, "by-name").as_deref(), Some("a"));
    let ssd = PodSpec { node_selector: map(&[("disk", "ssd")]), ..pod_spec("web:1", 1, 1) };
    create(&mut cluster, "by-label", ssd.clone());
    assert_eq!(node_of(&cluster, "by-label").as_deref(), Some("b"));
    cluster.ok(Command::SetUnschedulable { node: "b".try_into().unwrap(), unschedulable: true });
    create(&mut cluster, "cordoned", ssd);
    let expected = "Unschedulable: 0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) were unschedulable.";
    assert_eq!(message(&cluster, "cordoned"), expected);
    create(&mut cluster, "second", pod_spec("web:1", 1, 1));
    assert_eq!(node_of(&cluster, "second").as_deref(), Some("a"));
    create(&mut cluster, "third", pod_spec("web:1", 1, 1));
    let expected = "Unschedulable: 0/2 nodes are available: 1 Too many pods, 1 node(s) were unschedulable.";
    assert_eq!(message(&cluster, "third"), expected);
    cluster.ok(Command::SetUnschedulable { node: "b".try_into().unwrap(), unschedulable: false });
    cluster.settle();
    assert_eq!(node_of(&cluster, "third").as_deref(), Some("b"));
    assert_eq!(node_of(&cluster, "cordoned").as_deref(), Some("b"));
    create(&mut cluster, "huge", pod_spec("web:1", 1, 9 * GIB));
    let expected = "Unschedulable: 0/2 nodes are available: 1 Insufficient memory, 1 Too many pods.";
    assert_eq!(message(&cluster, "huge"), expected);
}

#[test]
fn freed_room_wakes_who_waits() {
    let mut cluster = Cluster::new();
    cluster.node("a", facts(1000, 8 * GIB, 10));
    cluster.ok(Command::Create(pod("first", pod_spec("web:1", 800, GIB))));
    cluster.settle();
    cluster.ok(Command::Create(pod("second", pod_spec("web:1", 800, GIB))));
    cluster.settle();
    assert_eq!(node_of(&cluster, "second"), None);
    let first = cluster.state().pods().iter().next().unwrap().meta.id;
    cluster.ok(Command::Delete { object: reference(Kind::Pod, "first"), grace_ms: None, force: false });
    cluster.settle();
    assert_eq!(node_of(&cluster, "second"), None, "its room is held until its agent says that it is gone");
    cluster.say(first, Say::Gone);
    cluster.settle();
    assert_eq!(node_of(&cluster, "second").as_deref(), Some("a"));
}

#[test]
fn a_taint_to_avoid_is_used_last() {
    let mut cluster = Cluster::new();
    cluster.node("full", facts(1000, 8 * GIB, 10));
    cluster.node("avoid", facts(64_000, 64 * GIB, 100));
    change_node(&mut cluster, "avoid", |node| {
        node.spec.taints.push(taint("old", TaintEffect::PreferNoSchedule));
    });
    for n in 0..3 {
        cluster.ok(Command::Create(pod(&format!("p{n}"), pod_spec("web:1", 400, GIB))));
        cluster.settle();
    }
    assert_eq!(node_of(&cluster, "p0").as_deref(), Some("full"));
    assert_eq!(node_of(&cluster, "p1").as_deref(), Some("full"));
    assert_eq!(node_of(&cluster, "p2").as_deref(), Some("avoid"));
}

#[test]
fn pods_of_one_owner_are_spread() {
    let mut cluster = Cluster::new();
    cluster.nodes(10);
    cluster.ok(Command::Apply(replica_set("other", 37, pod_spec("web:1", 70, 1 << 20))));
    cluster.settle();
    cluster.ok(Command::Apply(replica_set("web", 10, pod_spec("web:2", 100, 1 << 20))));
    cluster.settle();
    let pods = cluster.active_pods();
    let of_web = pods.iter().filter(|pod| pod.meta.labels["app"] == "web").filter_map(|pod| pod.node);
    assert_eq!(of_web.collect::<std::collections::BTreeSet<_>>().len(), 10, "one on each node");
}

#[test]
fn what_was_lost_on_its_way_comes_back() {
    let mut cluster = Cluster::new();
    cluster.node("a", facts(1000, 8 * GIB, 10));
    cluster.settle();
    for n in 0..4 {
        cluster.ok(Command::Create(pod(&format!("p{n}"), pod_spec("web:1", 300, 1 << 20))));
    }
    for _ in 0..3 {
        cluster.lose();
        cluster.now_ms += 10_000;
    }
    cluster.lose();
    assert_eq!(cluster.state().pending_pods().len(), 4);
    cluster.advance(60_000);
    assert_eq!(cluster.state().pending_pods().len(), 1, "three fit, as if nothing had been reserved before");
    assert!(message(&cluster, "p3").contains("1 Insufficient cpu"), "{}", message(&cluster, "p3"));
}

/// Whether any node can take the pod: every node is asked.
fn fits_somewhere(state: &State, pod: ObjectId) -> bool {
    let pod = state.pods().get(pod).unwrap();
    let request = pod.spec.scheduling_request();
    state
        .nodes()
        .iter()
        .any(|node| check_fit(&pod.spec, request, node, state.node_usage(node.meta.id)).is_ok())
}

#[derive(Clone, Debug)]
enum Op {
    Create { cpu: u64, zone: Option<u8>, tolerates: bool },
    Node { cpu: u64, pods: u32 },
    Taint(usize, Option<TaintEffect>),
    Zone(usize, u8),
    Cordon(usize, bool),
    End(usize),
    NewLeader,
}

fn any_op() -> impl Strategy<Value = Op> {
    let effect = prop_oneof![
        Just(None),
        Just(Some(TaintEffect::NoSchedule)),
        Just(Some(TaintEffect::PreferNoSchedule)),
    ];
    prop_oneof![
        6 => (1u64..10, prop::option::of(0u8..2), any::<bool>())
            .prop_map(|(cpu, zone, tolerates)| Op::Create { cpu: cpu * 100, zone, tolerates }),
        2 => (1u64..20, 1u32..5).prop_map(|(cpu, pods)| Op::Node { cpu: cpu * 100, pods }),
        1 => (0usize..8, effect).prop_map(|(node, effect)| Op::Taint(node, effect)),
        1 => (0usize..8, 0u8..2).prop_map(|(node, zone)| Op::Zone(node, zone)),
        1 => (0usize..8, any::<bool>()).prop_map(|(node, cordon)| Op::Cordon(node, cordon)),
        3 => (0usize..20).prop_map(Op::End),
        1 => Just(Op::NewLeader),
    ]
}

fn perform(cluster: &mut Cluster, number: usize, op: &Op) {
    let nodes: Vec<_> = cluster.state().nodes().iter().map(|node| node.meta.name.to_string()).collect();
    let node = |at: &usize| nodes.get(at % nodes.len().max(1)).cloned();
    match op {
        Op::Create { cpu, zone, tolerates } => {
            let mut spec = pod_spec("web:1", *cpu, 1 << 20);
            if let Some(zone) = zone {
                spec.node_selector = map(&[("zone", &zone.to_string())]);
            }
            if *tolerates {
                spec.tolerations.push(Toleration {
                    key: "key".into(),
                    operator: TolerationOperator::Exists,
                    value: "".into(),
                    effect: None,
                    toleration_ms: None,
                });
            }
            cluster.ok(Command::Create(pod(&format!("pod-{number}"), spec)));
        }
        Op::Node { cpu, pods } => _ = cluster.node(&format!("node-{number}"), facts(*cpu, GIB, *pods)),
        Op::Taint(at, effect) => {
            let taints = effect.iter().map(|effect| taint("key", *effect)).collect();
            if let Some(name) = node(at) {
                change_node(cluster, &name, |node| node.spec.taints = taints);
            }
        }
        Op::Zone(at, zone) => {
            node(at).into_iter().for_each(|name| {
                change_node(cluster, &name, |node| {
                    node.meta.labels.insert("zone".into(), zone.to_string().into());
                });
            });
        }
        Op::Cordon(at, unschedulable) => node(at).into_iter().for_each(|name| {
            let node = name.as_str().try_into().unwrap();
            cluster.ok(Command::SetUnschedulable { node, unschedulable: *unschedulable });
        }),
        Op::End(at) => {
            let pods = cluster.active_pods();
            if let Some(pod) = pods.get(at % pods.len().max(1)) {
                let object = reference(Kind::Pod, pod.meta.name.as_str());
                cluster.ok(Command::Delete { object, grace_ms: None, force: false });
                cluster.say(pod.meta.id, Say::Gone);
            }
        }
        Op::NewLeader => cluster.new_leader(),
    }
}

proptest! {
    #![proptest_config(crate::play::cases(96))]

    /// Compared with asking every node about every pod: nobody waits who could run, and everybody who waits
    /// knows why. That nobody runs who may not is checked after each step, by the ledger's own invariants
    /// and by `decide`.
    #[test]
    fn nobody_waits_for_nothing(ops in prop::collection::vec(any_op(), 1..60)) {
        let mut cluster = Cluster::new();
        for (number, op) in ops.iter().enumerate() {
            perform(&mut cluster, number, op);
            cluster.settle();
            let state = cluster.state();
            for pod in state.pending_pods() {
                prop_assert!(!fits_somewhere(state, *pod), "{} waits although it fits", pod);
                prop_assert_eq!(&state.pods().get(*pod).unwrap().status.reason, "Unschedulable");
            }
        }
        let dropped = cluster.proposals.iter().filter(|p| p.reconciler == "scheduler").filter_map(|p| match &p.command {
            Command::BindPods { bindings } => Some(bindings),
            _ => None,
        });
        let bound = dropped.flatten().count();
        let events = cluster.transactions.iter().flat_map(|t| &t.events);
        let happened = events.filter(|e| matches!(e.kind, bulkhead_types::EventKind::PodBound(_))).count();
        prop_assert_eq!(bound, happened, "decide agrees with every placement");
    }
}
