//! Devices for which pods of lower priority end, and devices of pods that are placed together.

use std::sync::Arc;

use bulkhead_types::{Command, LABEL_POD_GROUP, LABEL_POD_GROUP_MIN_AVAILABLE, Object, Pod, PodSpec};

use crate::device_kit::{asking, cards, sick};
use crate::kit::{Cluster, Say, map, pod, replica_set};
use crate::preemption::{class, find, of_class};

fn gpus(class: &str, count: u64) -> PodSpec {
    PodSpec { options: of_class(class, 0).options, ..asking(&[("nvidia.com/gpu", count)]) }
}

/// A node with two cards, each of which a pod of the lowest class has.
fn full() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.ok(Command::Create(class("high", 100, None)));
    cluster.ok(Command::Create(class("low", 10, None)));
    cluster.device_node("node-0", cards(2));
    cluster.ok(Command::Apply(replica_set("low", 2, gpus("low", 1))));
    cluster.converge();
    assert_eq!(cluster.active_pods().iter().filter(|pod| pod.node.is_some()).count(), 2);
    cluster
}

fn ending(cluster: &Cluster) -> Vec<Arc<Pod>> {
    cluster.state().pods().iter().filter(|pod| pod.meta.is_deleting()).cloned().collect()
}

/// Pain 8: cards that were freed for a pod are its own, and no other takes the first of them.
#[test]
fn pain_08_cards_are_kept_for_whom_others_end() {
    let mut cluster = full();
    cluster.ok(Command::Create(pod("big", gpus("high", 2))));
    cluster.settle();
    let victims = ending(&cluster);
    assert_eq!(victims.len(), 2);
    assert!(find(&cluster, "big").status.nominated_node.get().is_some());
    // One card is free before the other, and pods of the lower class wait for one.
    cluster.say(victims[0].meta.id, Say::Gone);
    cluster.settle();
    assert_eq!(
        cluster.state().pending_pods().len(),
        3,
        "the big one, and two in the place of those that end"
    );
    cluster.say(victims[1].meta.id, Say::Gone);
    cluster.settle();
    assert_eq!(cluster.holds("big"), "node-0: GPU-0+GPU-1");
    cluster.converge();
    assert_eq!((cluster.state().pending_pods().len(), ending(&cluster).len()), (2, 0));
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn one_card_costs_one_pod() {
    let mut cluster = full();
    cluster.ok(Command::Create(pod("small", gpus("high", 1))));
    cluster.settle();
    assert_eq!(ending(&cluster).len(), 1);
    cluster.converge();
    assert!(cluster.holds("small").starts_with("node-0: GPU-"), "{}", cluster.holds("small"));
}

#[test]
fn nobody_ends_for_cards_that_would_not_be_enough() {
    let mut cluster = full();
    let node = cluster.state().nodes().iter().next().map(|node| node.meta.id).expect("a node");
    cluster.tell_changes(node, vec![sick(1)], &[]);
    cluster.ok(Command::Create(pod("big", gpus("high", 2))));
    cluster.ok(Command::Create(pod("huge", gpus("high", 3))));
    cluster.converge();
    assert_eq!(ending(&cluster).len(), 0);
    assert_eq!(find(&cluster, "big").status.nominated_node.get(), None);
}

#[test]
fn a_group_gets_its_cards_together() {
    let member = |named: &str| {
        let Object::Pod(mut member) = pod(named, gpus("", 1)) else { unreachable!() };
        Arc::make_mut(&mut member).meta.labels =
            map(&[(LABEL_POD_GROUP, "g"), (LABEL_POD_GROUP_MIN_AVAILABLE, "3")]);
        Command::Create(Object::Pod(member))
    };
    let mut cluster = Cluster::new();
    cluster.device_node("node-0", cards(2));
    ["a", "b", "c"].into_iter().for_each(|named| cluster.ok(member(named)));
    cluster.settle();
    assert_eq!(cluster.state().pending_pods().len(), 3, "two of three have no card");
    cluster.device_node("node-1", cards(1));
    cluster.settle();
    let mut held: Vec<_> = ["a", "b", "c"].iter().map(|named| cluster.holds(named)).collect();
    held.sort();
    assert_eq!(held, ["node-0: GPU-0", "node-0: GPU-1", "node-1: GPU-0"]);
}
