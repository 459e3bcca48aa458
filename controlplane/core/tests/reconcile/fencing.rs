//! Pods that must be unique on nodes that are lost: over when the node is fenced, and not before.

use bulkhead_controlplane_core::reconcile::ReconcileConfig;
use bulkhead_controlplane_core::reconcile::fencing::fence_after_ms;
use bulkhead_types::{
    ANNOTATION_UNIQUE, Command, FENCING_LEVEL, Kind, LABEL_FENCE_GUARD, NodeFacts, NodePhase, Object,
    ObjectId, Pod, PodPhase, RejectionCode,
};

use crate::kit::{Cluster, GIB, facts, map, name, pod, pod_spec, reference, replica_set};

const LEASE_MS: u64 = 10_000;

/// Facts of a node whose agent guards what must be unique.
fn guarding() -> NodeFacts {
    NodeFacts { labels: map(&[(LABEL_FENCE_GUARD, "true")]), ..facts(4000, 8 * GIB, 10) }
}

/// A cluster with the nodes `a` and `b`, a set `db` of one unique pod and a unique pod `alone`, both on `a`.
fn cluster_with_pods() -> (Cluster, ObjectId) {
    let mut cluster = Cluster::new();
    let a = cluster.node("a", guarding());
    let Object::ReplicaSet(mut set) = replica_set("db", 1, pod_spec("db:1", 100, 1 << 20)) else { panic!() };
    std::sync::Arc::make_mut(&mut set).spec.template.annotations = map(&[(ANNOTATION_UNIQUE, "true")]);
    cluster.ok(Command::Apply(Object::ReplicaSet(set)));
    cluster.ok(Command::Create(unique("alone")));
    cluster.converge();
    cluster.node("b", guarding());
    (cluster, a)
}

fn unique(text: &str) -> Object {
    let mut object = pod(text, pod_spec("db:1", 100, 1 << 20));
    object.meta_mut().annotations = map(&[(ANNOTATION_UNIQUE, "true")]);
    object
}

fn phase(cluster: &Cluster, node: ObjectId) -> NodePhase {
    cluster.state().nodes().get(node).unwrap().status.phase
}

fn fence_ms() -> u64 {
    let config = ReconcileConfig::default();
    fence_after_ms(config.lease_ms, config.fence_kill_ms)
}

/// Where pods are, as `name@node phase reason`, those of sets by their set's name, in order.
fn pods(cluster: &Cluster) -> Vec<String> {
    let node = |pod: &Pod| {
        let node = pod.node.and_then(|id| cluster.state().nodes().get(id));
        node.map_or_else(String::new, |node| node.meta.name.to_string())
    };
    let shown = |pod: &std::sync::Arc<Pod>| {
        let owner = pod.meta.owner.and_then(|owner| cluster.state().replica_sets().get(owner.id));
        let name = owner.map_or(&pod.meta.name, |set| &set.meta.name);
        format!("{name}@{} {:?} {}", node(pod), pod.status.phase, pod.status.reason).trim_end().to_owned()
    };
    let mut pods: Vec<String> = cluster.state().pods().iter().map(shown).collect();
    pods.sort();
    pods
}

#[test]
fn a_unique_pod_comes_back_elsewhere_once_its_node_is_fenced() {
    let (mut cluster, a) = cluster_with_pods();
    assert_eq!(pods(&cluster), ["alone@a Running", "db@a Running"]);
    let since_ms = cluster.now_ms;
    cluster.silent.push(a);
    while phase(&cluster, a) != NodePhase::Fenced {
        assert_eq!(pods(&cluster), ["alone@a Running", "db@a Running"], "{:?}", phase(&cluster, a));
        cluster.advance(500);
        assert!(cluster.now_ms < since_ms + 2 * fence_ms(), "it is never fenced");
    }
    assert!(cluster.now_ms - since_ms > fence_ms(), "{} ms", cluster.now_ms - since_ms);
    cluster.converge();
    assert_eq!(pods(&cluster), ["alone@a Running NodeFenced", "db@a Failed NodeFenced", "db@b Running"]);
    assert_eq!(cluster.state().node_usage(a).pods, 1, "the room of what failed is free");
    let alone = cluster.state().find_object(&reference(Kind::Pod, "alone"));
    assert!(matches!(alone, Some(Object::Pod(pod)) if !pod.status.ready));
    // It waits for its node; somebody who does not deletes it, and it is gone at once.
    cluster.ok(Command::Delete { object: reference(Kind::Pod, "alone"), grace_ms: None, force: false });
    cluster.ok(Command::Create(unique("alone")));
    cluster.converge();
    assert_eq!(pods(&cluster), ["alone@b Running", "db@a Failed NodeFenced", "db@b Running"]);
}

#[test]
fn a_fenced_node_comes_back_by_registering_only() {
    let (mut cluster, a) = cluster_with_pods();
    cluster.silent.push(a);
    cluster.advance(2 * fence_ms());
    assert_eq!(phase(&cluster, a), NodePhase::Fenced);
    cluster.silent.clear();
    cluster.advance(LEASE_MS);
    assert_eq!(phase(&cluster, a), NodePhase::Fenced, "its old session is over");
    let report = |incarnation| Command::ReportPods { node: a, incarnation, reports: Vec::new() };
    let refused = cluster.submit(vec![report(1)]).unwrap_err();
    assert_eq!(refused.code, RejectionCode::StaleIncarnation, "{refused}");
    cluster.node("a", guarding());
    assert_eq!(phase(&cluster, a), NodePhase::Ready);
    cluster.ok(report(2));
    cluster.converge();
    assert_eq!(pods(&cluster), ["alone@a Running", "db@a Failed NodeFenced", "db@b Running"]);
}

#[test]
fn a_new_leader_waits_until_what_an_earlier_one_renewed_is_over() {
    let (mut cluster, a) = cluster_with_pods();
    cluster.silent.push(a);
    cluster.advance(LEASE_MS + 1000);
    assert_eq!(phase(&cluster, a), NodePhase::Unreachable);
    // The node may have been heard, and its lease renewed, until the last moment.
    cluster.new_leader();
    cluster.advance(fence_ms() - 500);
    assert_eq!(phase(&cluster, a), NodePhase::Unreachable);
    cluster.advance(2000);
    assert_eq!(phase(&cluster, a), NodePhase::Fenced);
}

#[test]
fn a_calendar_that_is_set_ahead_fences_nobody() {
    let (mut cluster, a) = cluster_with_pods();
    cluster.silent.push(a);
    cluster.advance(1000);
    // Only the calendar jumps: what the leader counts on for fences does not.
    let up_ms = cluster.now_ms;
    cluster.now_ms += 3_600_000;
    cluster.lag_ms = cluster.now_ms - up_ms;
    cluster.settle();
    assert_eq!(phase(&cluster, a), NodePhase::Unreachable, "the lease is over by the calendar");
    cluster.advance(fence_ms() - 2000);
    assert_eq!(phase(&cluster, a), NodePhase::Unreachable);
    cluster.advance(2000);
    assert_eq!(phase(&cluster, a), NodePhase::Fenced);
}

#[test]
fn nodes_that_guard_nothing_and_clusters_of_an_older_level_fence_nobody() {
    let mut cluster = Cluster::new();
    let plain = cluster.node("plain", facts(4000, 8 * GIB, 10));
    cluster.silent.push(plain);
    cluster.advance(3 * fence_ms());
    assert_eq!(phase(&cluster, plain), NodePhase::Unreachable);
    let refused = set_phase(&mut cluster, plain, NodePhase::Fenced).unwrap_err();
    assert!(refused.contains("does not guard"), "{refused}");

    let mut old = Cluster::at_level(ReconcileConfig::default(), FENCING_LEVEL - 1);
    let node = old.node("a", guarding());
    old.silent.push(node);
    old.advance(3 * fence_ms());
    assert_eq!(phase(&old, node), NodePhase::Unreachable);
    let refused = set_phase(&mut old, node, NodePhase::Fenced).unwrap_err();
    assert!(refused.contains("needs level 3"), "{refused}");
}

fn set_phase(cluster: &mut Cluster, node: ObjectId, phase: NodePhase) -> Result<u64, String> {
    let command = Command::SetNodePhase { node, incarnation: 1, phase };
    cluster.submit(vec![command]).map_err(|refused| refused.to_string())
}

#[test]
fn only_a_lost_node_is_fenced_and_only_its_agent_ends_it() {
    let (mut cluster, a) = cluster_with_pods();
    let refused = set_phase(&mut cluster, a, NodePhase::Fenced).unwrap_err();
    assert!(refused.contains("is Ready and cannot become Fenced"), "{refused}");
    set_phase(&mut cluster, a, NodePhase::Unreachable).unwrap();
    set_phase(&mut cluster, a, NodePhase::Fenced).unwrap();
    for phase in [NodePhase::Ready, NodePhase::Unreachable] {
        assert!(set_phase(&mut cluster, a, phase).is_err());
    }
}

#[test]
fn force_waits_for_the_fence_where_a_unique_pod_may_live() {
    let (mut cluster, a) = cluster_with_pods();
    let force =
        |what: &str| Command::Delete { object: reference(Kind::Pod, what), grace_ms: None, force: true };
    cluster.silent.push(a);
    cluster.advance(LEASE_MS + 1000);
    cluster.ok(force("alone"));
    let marked = cluster.state().find_object(&reference(Kind::Pod, "alone")).unwrap();
    assert_eq!(
        marked.meta().deletion.as_ref().map(|deletion| deletion.grace_ms),
        Some(0),
        "its agent kills it if it can"
    );
    let delete = |force| Command::Delete { object: reference(Kind::Node, "a"), grace_ms: None, force };
    let refused = cluster.submit(vec![delete(false)]).unwrap_err().to_string();
    assert!(refused.contains("2 pods that must be unique") && refused.contains("--force"), "{refused}");
    cluster.advance(fence_ms());
    cluster.converge();
    assert_eq!(pods(&cluster), ["db@a Failed NodeFenced", "db@b Running"]);
    cluster.ok(delete(false));
    assert_eq!(pods(&cluster), ["db@b Running"]);
}

#[test]
fn an_operator_who_knows_that_a_machine_is_off_need_not_wait() {
    let (mut cluster, a) = cluster_with_pods();
    cluster.silent.push(a);
    cluster.advance(LEASE_MS + 1000);
    cluster.ok(Command::Delete { object: reference(Kind::Node, "a"), grace_ms: None, force: true });
    cluster.converge();
    assert_eq!(pods(&cluster), ["db@b Running"]);
}

#[test]
fn what_need_not_be_unique_is_forced_away_as_before() {
    let (mut cluster, a) = cluster_with_pods();
    let spec = bulkhead_types::PodSpec { node_name: Some("a".into()), ..pod_spec("web:1", 100, 1 << 20) };
    cluster.ok(Command::Create(pod("plain", spec)));
    cluster.converge();
    cluster.silent.push(a);
    cluster.advance(LEASE_MS + 1000);
    cluster.ok(Command::Delete { object: reference(Kind::Pod, "plain"), grace_ms: None, force: true });
    assert_eq!(pods(&cluster), ["alone@a Running", "db@a Running"]);
}

#[test]
fn whether_a_pod_is_unique_is_said_once() {
    let (mut cluster, _) = cluster_with_pods();
    let mut plain = pod("alone", pod_spec("db:1", 100, 1 << 20));
    plain.meta_mut().labels = map(&[("a", "b")]);
    let refused = cluster.submit(vec![Command::Apply(plain)]).unwrap_err();
    assert!(refused.field.contains(ANNOTATION_UNIQUE), "{refused}");
    cluster.ok(Command::Apply(unique("alone")));
}

#[test]
fn a_fenced_pod_is_no_failure_of_its_set() {
    let (mut cluster, a) = cluster_with_pods();
    let b = cluster.state().find(Kind::Node, None, &name("b")).unwrap();
    // Every node is lost and comes back, again and again: the set never slows down for it.
    for _ in 0..4 {
        for node in [a, b] {
            cluster.silent = vec![node];
            cluster.advance(2 * fence_ms());
            cluster.converge();
            let running = cluster.active_pods().iter().filter(|pod| pod.meta.owner.is_some()).count();
            assert_eq!(running, 1, "{:?}", pods(&cluster));
            cluster.silent.clear();
            let text = if node == a { "a" } else { "b" };
            cluster.node(text, guarding());
            cluster.converge();
        }
    }
    let failed = cluster.state().pods().iter().filter(|pod| pod.status.phase == PodPhase::Failed).count();
    assert!(failed >= 4, "{:?}", pods(&cluster));
}
