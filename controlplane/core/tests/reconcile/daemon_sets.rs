//! DaemonSets: which nodes, and from one template to the next.

use bulkhead_types::{
    Command, DaemonSetSpec, DaemonSetUpdateStrategy, Kind, OwnerRef, PodStamp, Shared, TaintEffect,
    Toleration, TolerationOperator,
};

use crate::kit::{Cluster, GIB, Say, facts, name, reference};
use crate::sets::{daemon_set, image, node_by_node, taint};

fn cluster(nodes: usize, change: impl FnOnce(&mut DaemonSetSpec)) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.nodes(nodes);
    cluster.ok(Command::Apply(daemon_set("log", change)));
    cluster.settle();
    cluster
}

fn log() -> bulkhead_types::ObjectRef {
    reference(Kind::DaemonSet, "log")
}

fn on(spec: &mut DaemonSetSpec, key: &str, value: &str) {
    let mut pod = (*spec.template.spec).clone();
    pod.node_selector.insert(key.into(), value.into());
    spec.template.spec = Shared::new(pod);
}

#[test]
fn every_node_gets_one_pod_and_those_that_join_too() {
    let mut cluster = cluster(2, |_| ());
    assert_eq!(cluster.daemons("log"), "0=1! 1=1!");
    cluster.converge();
    cluster.node("node-2", facts(16_000, 64 * GIB, 100));
    cluster.converge();
    assert_eq!(cluster.daemons("log"), "0=1 1=1 2=1");
    let status = cluster.get_daemon_set("log").status.clone();
    assert_eq!((status.desired_number_scheduled, status.current_number_scheduled), (3, 3));
    assert_eq!((status.number_available, status.number_unavailable, status.number_misscheduled), (3, 0, 0));
    assert_eq!(status.updated_number_scheduled, 3);
}

#[test]
fn a_cordon_does_not_matter_to_what_tolerates_it() {
    let mut cluster = Cluster::new();
    cluster.nodes(2);
    cluster.ok(Command::SetUnschedulable { node: name("node-1"), unschedulable: true });
    cluster.ok(Command::Apply(daemon_set("log", |_| ())));
    cluster.converge();
    assert_eq!(cluster.daemons("log"), "0=1 1=1");
    // So for every pod that has the toleration, as in Kubernetes.
    cluster.ok(Command::SetUnschedulable { node: name("node-0"), unschedulable: true });
    let tolerant = Toleration {
        key: "node.kubernetes.io/unschedulable".into(),
        operator: TolerationOperator::Exists,
        value: "".into(),
        effect: None,
        toleration_ms: None,
    };
    let mut spec = crate::kit::pod_spec("web:1", 1, 1);
    cluster.ok(Command::Create(crate::kit::pod("intolerant", spec.clone())));
    spec.tolerations.push(tolerant);
    cluster.ok(Command::Create(crate::kit::pod("tolerant", spec)));
    cluster.converge();
    let bound = |pod: &str| {
        let id = cluster.state().find(Kind::Pod, Some(&name("default")), &name(pod)).unwrap();
        cluster.state().pods().get(id).unwrap().node.is_some()
    };
    assert_eq!((bound("intolerant"), bound("tolerant")), (false, true));
}

#[test]
fn labels_and_the_selector_choose_nodes() {
    let mut cluster = cluster(3, |spec| on(spec, "disk", "fast"));
    assert_eq!(cluster.daemons("log"), "");
    let label = |value: &'static str| {
        move |node: &mut bulkhead_types::Node| _ = node.meta.labels.insert("disk".into(), value.into())
    };
    cluster.change_node("node-1", label("fast"));
    cluster.converge();
    assert_eq!(cluster.daemons("log"), "1=1");
    cluster.change_node("node-1", label("slow"));
    cluster.change_node("node-2", label("fast"));
    cluster.settle();
    assert_eq!(cluster.daemons("log"), "1=1~ 2=1!");
    assert_eq!(cluster.get_daemon_set("log").status.number_misscheduled, 1);
    cluster.converge();
    assert_eq!(cluster.daemons("log"), "2=1");
}

#[test]
fn taints_keep_away_and_only_no_execute_drives_out() {
    let mut cluster = cluster(2, |_| ());
    cluster.converge();
    let tainted =
        |effect| move |node: &mut bulkhead_types::Node| node.spec.taints = vec![taint("gpu", effect)];
    cluster.change_node("node-0", tainted(TaintEffect::NoSchedule));
    cluster.converge();
    assert_eq!(cluster.daemons("log"), "0=1 1=1");
    let status = cluster.get_daemon_set("log").status.clone();
    assert_eq!((status.desired_number_scheduled, status.number_misscheduled), (1, 1));
    cluster.change_node("node-0", tainted(TaintEffect::NoExecute));
    cluster.converge();
    assert_eq!(cluster.daemons("log"), "1=1");
    cluster.change_node("node-0", |node| node.spec.taints.clear());
    cluster.converge();
    assert_eq!(cluster.daemons("log"), "0=1 1=1");
}

#[test]
fn a_lost_node_keeps_its_pod_and_takes_it_along_when_it_is_deleted() {
    let mut cluster = cluster(2, |_| ());
    cluster.converge();
    let lost = cluster.state().find(Kind::Node, None, &name("node-1")).unwrap();
    cluster.silent.push(lost);
    cluster.advance(3_600_000);
    assert_eq!(cluster.daemons("log"), "0=1 1=1");
    cluster.ok(Command::Delete { object: reference(Kind::Node, "node-1"), grace_ms: None, force: false });
    cluster.converge();
    assert_eq!(cluster.daemons("log"), "0=1");
    assert_eq!(cluster.get_daemon_set("log").status.desired_number_scheduled, 1);
}

#[test]
fn a_pod_that_waits_for_a_node_that_goes_is_not_left_behind() {
    let mut cluster = Cluster::new();
    cluster.node("node-0", facts(10, 64 * GIB, 100));
    cluster.ok(Command::Apply(daemon_set("log", |_| ())));
    cluster.settle();
    assert_eq!(cluster.daemons("log"), "0=1!", "no room");
    cluster.ok(Command::Delete { object: reference(Kind::Node, "node-0"), grace_ms: None, force: false });
    cluster.settle();
    assert_eq!(cluster.daemons("log"), "");
}

#[test]
fn failed_pods_are_replaced_later_and_later_on_their_node_only() {
    let mut cluster = cluster(2, |_| ());
    cluster.converge();
    let fail = |cluster: &mut Cluster| {
        let set = cluster.get_daemon_set("log").meta.id;
        let node_0 =
            |pod: &&std::sync::Arc<bulkhead_types::Pod>| pod.spec.node_name.as_deref() == Some("node-0");
        let pod = cluster.state().pods_of(set).find(node_0).unwrap().meta.id;
        cluster.say(pod, Say::Failed);
        pod
    };
    for _ in 0..4 {
        let pod = fail(&mut cluster);
        cluster.advance(20_000);
        assert_eq!(cluster.daemons("log"), "0=1~ 1=1");
        cluster.say(pod, Say::Gone);
        cluster.settle();
        assert_eq!(cluster.daemons("log"), "0=1! 1=1");
    }
    fail(&mut cluster);
    cluster.settle();
    assert_eq!(cluster.daemons("log"), "0=1x 1=1");
    cluster.advance(9000);
    assert_eq!(cluster.daemons("log"), "0=1~ 1=1");
}

#[test]
fn a_rollout_leaves_no_more_nodes_without_a_pod_than_allowed() {
    let mut cluster = cluster(4, |spec| spec.update_strategy = node_by_node(2, 0));
    cluster.converge();
    cluster.change_daemon_set("log", |spec| spec.template = image("log", 2));
    cluster.settle();
    assert_eq!(cluster.daemons("log"), "0=1~ 1=1~ 2=1 3=1");
    let pod = cluster.state().pods().iter().find(|pod| pod.meta.is_deleting()).unwrap().meta.id;
    cluster.say(pod, Say::Gone);
    cluster.settle();
    assert_eq!(cluster.daemons("log"), "0=2! 1=1~ 2=1 3=1");
    cluster.converge();
    assert_eq!(cluster.daemons("log"), "0=2 1=2 2=2 3=2");
}

#[test]
fn what_is_not_available_is_replaced_first_and_costs_nothing() {
    let mut cluster = cluster(3, |_| ());
    cluster.converge();
    let last = cluster.state().pods().iter().find(|pod| pod.spec.node_name.as_deref() == Some("node-2"));
    let last = last.unwrap().meta.id;
    cluster.say(last, Say::NotReady);
    cluster.change_daemon_set("log", |spec| spec.template = image("log", 2));
    cluster.settle();
    assert_eq!(cluster.daemons("log"), "0=1 1=1 2=1~");
}

#[test]
fn with_a_surge_the_old_pod_goes_when_the_new_one_is_available() {
    let mut cluster = cluster(3, |spec| {
        spec.update_strategy = node_by_node(0, 1);
        spec.min_ready_ms = 5000;
    });
    cluster.converge();
    cluster.advance(5000);
    cluster.change_daemon_set("log", |spec| spec.template = image("log", 2));
    cluster.settle();
    assert_eq!(cluster.daemons("log"), "0=1 0=2! 1=1 2=1");
    cluster.converge();
    assert_eq!(cluster.daemons("log"), "0=1 0=2 1=1 2=1", "ready, but not available yet");
    cluster.advance(6000);
    assert_eq!(cluster.daemons("log"), "0=1~ 0=2 1=1 2=1", "two of a node are still there");
    for _ in 0..6 {
        cluster.converge();
        cluster.advance(6000);
    }
    assert_eq!(cluster.daemons("log"), "0=2 1=2 2=2");
}

#[test]
fn a_surge_on_a_node_that_no_longer_suits_counts_and_ends() {
    let mut cluster = cluster(2, |spec| spec.update_strategy = node_by_node(0, 1));
    cluster.converge();
    cluster.change_daemon_set("log", |spec| spec.template = image("log", 2));
    cluster.settle();
    assert_eq!(cluster.daemons("log"), "0=1 0=2! 1=1");
    cluster.change_node("node-0", |node| node.spec.taints = vec![taint("gpu", TaintEffect::NoSchedule)]);
    cluster.settle();
    assert_eq!(cluster.daemons("log"), "0=1 0=2! 1=1", "one node at a time");
    cluster.converge();
    assert_eq!(cluster.daemons("log"), "0=2 1=2");
}

#[test]
fn on_delete_waits_for_somebody_to_delete() {
    let mut cluster = cluster(2, |spec| spec.update_strategy = DaemonSetUpdateStrategy::OnDelete);
    cluster.converge();
    cluster.change_daemon_set("log", |spec| spec.template = image("log", 2));
    cluster.converge();
    assert_eq!(cluster.daemons("log"), "0=1 1=1");
    let first = cluster.state().pods().iter().next().unwrap().meta.name.to_string();
    cluster.ok(Command::Delete { object: reference(Kind::Pod, &first), grace_ms: None, force: false });
    cluster.converge();
    assert_eq!(cluster.daemons("log"), "0=2 1=1");
}

#[test]
fn undo_and_restart_roll_and_scale_is_refused() {
    let mut cluster = cluster(1, |spec| spec.revision_history_limit = 1);
    for version in [1, 2, 3] {
        cluster.change_daemon_set("log", |spec| spec.template = image("log", version));
        cluster.converge();
    }
    assert_eq!(cluster.history(), "2:2 3:3");
    cluster.ok(Command::UndoRollout { deployment: log(), to_revision: None });
    cluster.converge();
    assert_eq!((cluster.daemons("log").as_str(), cluster.history().as_str()), ("0=2", "3:3 4:2"));
    let before = cluster.active_pods()[0].meta.id;
    cluster.ok(Command::RestartRollout { deployment: log(), restarted_at: "2026-01-01T00:00:00Z".into() });
    cluster.converge();
    assert_ne!(cluster.active_pods()[0].meta.id, before);
    let refused = cluster.submit(vec![Command::Scale { object: log(), replicas: 2 }]).unwrap_err();
    assert_eq!(refused.reason, "cannot be scaled: a DaemonSet has one pod on every node that suits");
}

#[test]
fn what_it_owns_goes_with_it() {
    let mut cluster = cluster(2, |_| ());
    cluster.converge();
    cluster.ok(Command::Delete { object: log(), grace_ms: None, force: false });
    cluster.converge();
    assert_eq!((cluster.state().pods().len(), cluster.state().controller_revisions().len()), (0, 0));
}

/// What a leader that looked at another State might ask for.
#[test]
fn stale_words_do_no_harm() {
    let mut cluster = cluster(2, |_| ());
    cluster.converge();
    let set = cluster.get_daemon_set("log");
    let owner = OwnerRef { kind: Kind::DaemonSet, id: set.meta.id };
    let generation = set.meta.generation;
    let revision = cluster.state().controller_revisions().iter().next().unwrap().meta.id;
    let node = cluster.state().find(Kind::Node, None, &name("node-0"));
    let stamp = PodStamp { name: name("log-x"), index: None, node, revision: Some(revision) };
    let create = |stamp: &PodStamp| Command::CreateOwnedPods { owner, generation, pods: vec![stamp.clone()] };
    cluster.ok(create(&stamp));
    assert_eq!(cluster.daemons("log"), "0=1 1=1", "a pod is there already");
    let pods: Vec<_> = cluster.state().pods().iter().map(|pod| pod.meta.id).collect();
    cluster.ok(Command::DeleteOwnedPods { owner, generation, pods, reason: "X".into() });
    assert_eq!(cluster.daemons("log"), "0=1 1=1", "both are wanted as they are");
    cluster.change_node("node-0", |node| node.spec.taints = vec![taint("gpu", TaintEffect::NoExecute)]);
    cluster.converge();
    cluster.ok(create(&stamp));
    assert_eq!(cluster.daemons("log"), "1=1", "the node does not suit any more");
}
