//! Nodes that fall silent, taints that evict, and what is left behind.

use bulkhead_controlplane_core::reconcile::ReconcileConfig;
use bulkhead_types::{
    Command, Kind, Namespace, NodeFacts, NodePhase, NodePrecondition, NodePreconditions, Object, ObjectId,
    ObjectMeta, PRECONDITIONS_LEVEL, PodPhase, PodReport, PodSpec, PodStatus, PreconditionNeed,
    PreconditionOutcome, Rare, Taint, TaintEffect, Toleration, TolerationOperator,
};

use crate::kit::{Cluster, GIB, Say, deployment, facts, map, name, pod, pod_spec, reference, replica_set};

fn phase(cluster: &Cluster, node: ObjectId) -> NodePhase {
    cluster.state().nodes().get(node).unwrap().status.phase
}

fn taint(cluster: &mut Cluster, node: &str, taints: &[(&str, TaintEffect)]) {
    let Some(Object::Node(mut found)) = cluster.state().find_object(&reference(Kind::Node, node)) else {
        panic!("no node {node}")
    };
    let taint =
        |(key, effect): &(&str, TaintEffect)| Taint { key: (*key).into(), value: "".into(), effect: *effect };
    std::sync::Arc::make_mut(&mut found).spec.taints = taints.iter().map(taint).collect();
    cluster.ok(Command::Apply(Object::Node(found)));
}

fn tolerating(key: &str, toleration_ms: Option<u64>) -> PodSpec {
    let toleration = Toleration {
        key: key.into(),
        operator: TolerationOperator::Exists,
        value: "".into(),
        effect: Some(TaintEffect::NoExecute),
        toleration_ms,
    };
    PodSpec { tolerations: vec![toleration], ..pod_spec("web:1", 100, 64 << 20) }
}

/// Servers of an older level are not told, and what was told before goes with the next registration.
#[test]
fn preconditions_are_told_from_their_level_on() {
    let mut cluster = Cluster::at_level(ReconcileConfig::default(), PRECONDITIONS_LEVEL - 1);
    let one = |outcome| NodePrecondition {
        name: "iommu".into(),
        need: PreconditionNeed::Devices,
        outcome,
        found: "what was found".into(),
        remedy: "".into(),
    };
    let telling = |outcome| NodeFacts {
        preconditions: Rare::some(NodePreconditions { preconditions: vec![one(outcome)] }),
        ..facts(4000, 8 * GIB, 10)
    };
    let register = |facts| Command::RegisterNode { name: name("a"), facts };
    let missing = register(telling(PreconditionOutcome::Missing));
    assert_eq!(missing.feature_level(), PRECONDITIONS_LEVEL);
    let told = |cluster: &Cluster, node| {
        let facts = &cluster.state().nodes().get(node).expect("a node").status.facts;
        facts.preconditions.get().map(|told| told.preconditions[0].outcome)
    };
    let below = telling(PreconditionOutcome::Missing).at_level(PRECONDITIONS_LEVEL - 1);
    assert!(register(below.clone()).feature_level() < PRECONDITIONS_LEVEL);
    let node = cluster.node("a", below);
    assert_eq!(told(&cluster, node), None);
    cluster.ok(Command::RaiseFeatureLevel { level: PRECONDITIONS_LEVEL });
    for outcome in [PreconditionOutcome::Missing, PreconditionOutcome::Met] {
        cluster.ok(register(telling(outcome).at_level(PRECONDITIONS_LEVEL)));
        assert_eq!(told(&cluster, node), Some(outcome));
    }
    let twice = NodePreconditions { preconditions: vec![one(PreconditionOutcome::Met); 2] };
    let facts = NodeFacts { preconditions: Rare::some(twice), ..facts(4000, 8 * GIB, 10) };
    let refused = cluster.submit(vec![register(facts)]).expect_err("refused").to_string();
    assert!(refused.contains("facts.preconditions") && refused.contains("name of another"), "{refused}");
    assert_eq!(told(&cluster, node), Some(PreconditionOutcome::Met), "as it was");
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn a_silent_node_is_unreachable_after_its_lease_and_back_when_heard() {
    let mut cluster = Cluster::new();
    let node = cluster.node("a", facts(4000, 8 * GIB, 10));
    cluster.advance(30_000);
    assert_eq!(phase(&cluster, node), NodePhase::Ready);
    cluster.silent.push(node);
    cluster.advance(9000);
    assert_eq!(phase(&cluster, node), NodePhase::Ready);
    cluster.advance(2000);
    assert_eq!(phase(&cluster, node), NodePhase::Unreachable);
    cluster.silent.clear();
    cluster.advance(1000);
    assert_eq!(phase(&cluster, node), NodePhase::Ready);
}

#[test]
fn a_new_leader_waits_one_whole_lease() {
    let mut cluster = Cluster::new();
    let node = cluster.node("a", facts(4000, 8 * GIB, 10));
    cluster.advance(3000);
    cluster.silent.push(node);
    cluster.advance(9000);
    cluster.new_leader();
    cluster.advance(9000);
    assert_eq!(phase(&cluster, node), NodePhase::Ready, "18 seconds of silence, but only 9 of them heard");
    cluster.advance(2000);
    assert_eq!(phase(&cluster, node), NodePhase::Unreachable);
}

#[test]
fn pods_of_a_lost_node_are_replaced_and_stay_in_the_ledger() {
    let mut cluster = Cluster::new();
    cluster.nodes(2);
    cluster.ok(Command::Apply(deployment("web", 4, |_| ())));
    cluster.ok(Command::Apply(replica_set("stay", 2, tolerating("node.kubernetes.io/unreachable", None))));
    let quick = tolerating("node.kubernetes.io/unreachable", Some(20_000));
    cluster.ok(Command::Apply(replica_set("quick", 2, quick)));
    cluster.converge();
    let lost = cluster.state().find(Kind::Node, None, &name("node-0")).unwrap();
    let there = |cluster: &Cluster, app: &str| {
        let pods = cluster.active_pods();
        let is_there = |pod: &&std::sync::Arc<bulkhead_types::Pod>| {
            pod.node == Some(lost) && pod.meta.labels["app"] == app
        };
        pods.iter().filter(is_there).count()
    };
    assert_eq!((there(&cluster, "web"), there(&cluster, "stay"), there(&cluster, "quick")), (2, 1, 1));
    cluster.silent.push(lost);
    cluster.advance(20_000);
    assert_eq!((there(&cluster, "web"), there(&cluster, "quick")), (2, 1));
    cluster.advance(15_000);
    assert_eq!((there(&cluster, "web"), there(&cluster, "quick")), (2, 0), "20 seconds after it was lost");
    cluster.advance(300_000);
    assert_eq!((there(&cluster, "web"), there(&cluster, "stay")), (0, 1));
    cluster.converge();
    assert_eq!(cluster.sets("web"), "1:4/4/4");
    assert_eq!(cluster.state().node_usage(lost).pods, 4, "nobody said that they are gone");
    cluster.ok(Command::Delete { object: reference(Kind::Node, "node-0"), grace_ms: None, force: false });
    cluster.converge();
    assert_eq!(cluster.state().pods().len(), 8);
}

#[test]
fn a_taint_evicts_those_who_do_not_tolerate_it() {
    let mut cluster = Cluster::new();
    cluster.node("a", facts(4000, 8 * GIB, 10));
    cluster.ok(Command::Create(pod("plain", pod_spec("web:1", 100, 1 << 20))));
    cluster.ok(Command::Create(pod("for-ever", tolerating("maintenance", None))));
    cluster.ok(Command::Create(pod("for-a-while", tolerating("maintenance", Some(60_000)))));
    cluster.converge();
    taint(&mut cluster, "a", &[("maintenance", TaintEffect::NoExecute)]);
    cluster.converge();
    let names = |cluster: &Cluster| -> Vec<String> {
        cluster.active_pods().iter().map(|pod| pod.meta.name.to_string()).collect()
    };
    assert_eq!(names(&cluster), ["for-ever", "for-a-while"]);
    cluster.advance(59_000);
    assert_eq!(names(&cluster), ["for-ever", "for-a-while"]);
    cluster.advance(2000);
    assert_eq!(names(&cluster), ["for-ever"]);
    let late = tolerating("maintenance", Some(5000));
    cluster.ok(Command::Create(pod("late", late)));
    cluster.converge();
    assert_eq!(names(&cluster), ["for-ever", "late"], "it may stay from when it came");
    cluster.advance(6000);
    assert_eq!(names(&cluster), ["for-ever"]);
}

#[test]
fn a_namespace_takes_everything_with_it() {
    let mut cluster = Cluster::new();
    cluster.nodes(1);
    let meta = ObjectMeta::new(None, name("team"));
    cluster.ok(Command::Create(Object::Namespace(std::sync::Arc::new(Namespace { meta }))));
    for mut object in [deployment("web", 3, |_| ()), pod("one", pod_spec("web:1", 100, 1 << 20))] {
        object.meta_mut().namespace = Some(name("team"));
        cluster.ok(Command::Create(object));
    }
    cluster.converge();
    assert_eq!(cluster.state().pods().len(), 4);
    cluster.ok(Command::Delete { object: reference(Kind::Namespace, "team"), grace_ms: None, force: false });
    cluster.settle();
    assert_eq!(cluster.active_pods().len(), 0);
    assert_eq!(cluster.state().namespaces().len(), 2, "its pods' agents have not answered yet");
    cluster.converge();
    assert_eq!(cluster.state().pods().len(), 0);
    assert_eq!(cluster.state().namespaces().len(), 1);
}

#[test]
fn orphans_are_found_by_a_new_leader_too() {
    let mut cluster = Cluster::new();
    cluster.nodes(1);
    cluster.ok(Command::Apply(deployment("web", 3, |_| ())));
    cluster.converge();
    cluster.ok(Command::Delete { object: reference(Kind::Deployment, "web"), grace_ms: None, force: false });
    cluster.new_leader();
    cluster.converge();
    assert_eq!((cluster.state().replica_sets().len(), cluster.state().pods().len()), (0, 0));
}

#[test]
fn ended_pods_are_kept_up_to_a_number() {
    let mut cluster = Cluster::with(ReconcileConfig { terminated_pods_max: 2, ..ReconcileConfig::default() });
    cluster.nodes(1);
    for n in 0..5 {
        cluster.ok(Command::Create(pod(&format!("job-{n}"), pod_spec("web:1", 100, 1 << 20))));
    }
    cluster.settle();
    let pods: Vec<_> = cluster.state().pods().iter().map(|pod| pod.meta.id).collect();
    pods.iter().for_each(|pod| cluster.say(*pod, Say::Failed));
    cluster.converge();
    let left: Vec<_> = cluster.state().pods().iter().map(|pod| pod.meta.id).collect();
    assert_eq!(left, pods[3..], "the oldest went");
}

#[test]
fn a_set_whose_pods_fail_at_once_slows_down() {
    let mut cluster = Cluster::new();
    cluster.nodes(2);
    cluster.ok(Command::Apply(deployment("web", 2, |_| ())));
    cluster.settle();
    let mut created = Vec::new();
    for _ in 0..60 {
        for pod in cluster.active_pods() {
            cluster.say(pod.meta.id, Say::Failed);
        }
        cluster.advance(1000);
        created.push(cluster.state().pods().len());
    }
    assert!(created[59] < 20, "pods after each second: {created:?}");
    assert!(cluster.conditions("web").contains("ReplicaFailure=True(PodsFailing)"));
    cluster.advance(300_000);
    cluster.converge();
    assert_eq!(cluster.sets("web"), "1:2/2/2");
    assert!(!cluster.conditions("web").contains("ReplicaFailure"), "{}", cluster.conditions("web"));
}

#[test]
fn a_report_that_comes_late_says_nothing_also_when_the_pod_is_as_it_was() {
    let mut cluster = Cluster::new();
    let node = cluster.node("a", facts(4000, 8 * GIB, 10));
    cluster.ok(Command::Create(pod("web", pod_spec("web:1", 100, 64 << 20))));
    cluster.settle();
    let id = cluster.state().pods().iter().next().unwrap().meta.id;
    let mut hear = |sequence, ready| {
        let status = PodStatus { phase: PodPhase::Running, ready, ..PodStatus::default() };
        let reports = vec![PodReport { pod: id, sequence, status, gone: false }];
        cluster.ok(Command::ReportPods { node, incarnation: 1, reports });
        cluster.state().pods().get(id).unwrap().status.ready
    };
    assert!(hear(1, true));
    assert!(hear(3, true), "it was unready in between");
    assert!(hear(2, false), "which is over");
    assert!(!hear(4, false));
}

/// Nodes by zone, of which some fall silent at once.
struct Outage {
    cluster: Cluster,
    /// Those of them that have pods.
    lost: Vec<ObjectId>,
}

impl Outage {
    fn begin(zones: &[(&str, usize, usize)]) -> Self {
        let mut cluster = Cluster::with(ReconcileConfig { eviction_ms: 1000, ..ReconcileConfig::default() });
        let mut lost = Vec::new();
        for (zone, nodes, silent) in zones {
            for n in 0..*nodes {
                let labels = map(&[("topology.kubernetes.io/zone", zone)]);
                let facts = NodeFacts { labels, ..facts(16_000, 64 * GIB, 100) };
                let id = cluster.node(&format!("{zone}-{n}"), facts);
                lost.extend((n < *silent).then_some(id));
            }
        }
        let nodes = zones.iter().map(|(_, nodes, _)| *nodes as u32).sum();
        cluster.ok(Command::Apply(replica_set("web", nodes, pod_spec("web:1", 100, 64 << 20))));
        cluster.converge();
        cluster.silent.clone_from(&lost);
        let pods = cluster.active_pods();
        lost.retain(|node| pods.iter().any(|pod| pod.node == Some(*node)));
        // By then they are unreachable, and their pods' time is up.
        cluster.advance(15_000);
        Self { cluster, lost }
    }

    /// After so long, of so many lost nodes the pods are replaced.
    fn check(&mut self, ms: u64, expected: usize) {
        self.cluster.advance(ms);
        let pods = self.cluster.active_pods();
        let is_left = |node: &&ObjectId| !pods.iter().any(|pod| pod.node == Some(**node));
        let found = self.lost.iter().filter(is_left).count();
        assert_eq!(found, expected, "of {} lost nodes, {ms} ms later", self.lost.len());
    }
}

#[test]
fn nodes_are_given_up_one_after_the_other() {
    let mut outage = Outage::begin(&[("a", 6, 3)]);
    outage.check(0, 1);
    outage.check(12_000, 2);
    outage.check(12_000, 3);
}

#[test]
fn in_a_zone_that_lost_most_nodes_nothing_is_given_up_until_some_are_back() {
    let mut outage = Outage::begin(&[("a", 4, 3), ("b", 1, 0)]);
    outage.check(300_000, 0);
    let back = outage.lost.pop().expect("three are lost");
    outage.cluster.silent.retain(|node| *node != back);
    outage.check(9000, 1);
    outage.check(12_000, 2);
}

#[test]
fn a_zone_that_is_lost_as_a_whole_is_given_up_unless_all_are() {
    let mut outage = Outage::begin(&[("a", 3, 3), ("b", 2, 0)]);
    outage.check(0, 1);
    outage.check(24_000, 3);
    Outage::begin(&[("a", 3, 3), ("b", 2, 2)]).check(300_000, 0);
}

#[test]
fn in_a_large_zone_it_goes_slowly() {
    let mut outage = Outage::begin(&[("a", 51, 40)]);
    outage.check(90_000, 1);
    outage.check(30_000, 2);
}
