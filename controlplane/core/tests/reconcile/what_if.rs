//! What would happen, beside what does.

use bulkhead_controlplane_core::State;
use bulkhead_controlplane_core::what_if::{
    AddedNodes, Advice, AdviceQuestion, Answer, Expander, Fate, NODES_ADDED_MAX, NodeShape, Question, advise,
    ask,
};
use bulkhead_types::{
    Command, DisruptionBound, IntOrPercent, Kind, LABEL_NODE_POOL, Name, NodeFacts, NodePhase, Object,
    Rejection, RejectionCode, Resources, StringMap, Taint, TaintEffect, UnhealthyPodEvictionPolicy,
};
use proptest::prelude::*;

use crate::budgets::budget;
use crate::device_kit::{cards, gpu_pod};
use crate::kit::{Cluster, GIB, deployment, facts, map, name, pod, pod_spec, reference, template};
use crate::sets::daemon_set;

fn drain(nodes: &[&str]) -> Question {
    Question { drained: nodes.iter().map(|node| name(node)).collect(), ..Question::default() }
}

fn submit(cluster: &Cluster, command: Command) -> Question {
    let stamped = cluster.stamped("user:test", vec![command]);
    Question { submission: Some(stamped), ..Question::default() }
}

fn add(count: u32, shape: NodeShape) -> Question {
    Question { added: vec![AddedNodes { count, shape }], ..Question::default() }
}

fn of(cpu_millis: u64) -> NodeShape {
    let allocatable =
        Resources { cpu_millis, memory_bytes: 64 * GIB, ephemeral_storage_bytes: GIB, ..Resources::ZERO };
    NodeShape::Of { allocatable, pods_max: 10, labels: StringMap::new(), taints: Vec::new() }
}

fn tried(state: &State, question: &Question) -> Result<Answer, Rejection> {
    let before = state.digest();
    let answer = ask(state, question, state.now_ms(), &mut || true);
    assert_eq!(state.digest(), before, "a question changes nothing");
    answer
}

/// How many pods would end, be placed, wait and stay; and the first reason to wait or stay.
fn counts(answer: &Answer) -> ([usize; 4], String) {
    let (mut counts, mut why) = ([0; 4], String::new());
    for pod in &answer.pods {
        let at = match &pod.fate {
            Fate::Ends { .. } => 0,
            Fate::Placed { .. } => 1,
            Fate::Waits { .. } => 2,
            Fate::Stays { .. } => 3,
        };
        counts[at] += 1;
        if let (true, Fate::Waits { reason } | Fate::Stays { reason, .. }) = (why.is_empty(), &pod.fate) {
            why.clone_from(reason);
        }
    }
    (counts, why)
}

fn check(cluster: &Cluster, question: &Question, expected: [usize; 4], reason: &str) -> Answer {
    let answer = tried(cluster.state(), question).unwrap();
    assert!(answer.at_rest);
    let (found, why) = counts(&answer);
    assert_eq!(found, expected, "{answer:#?}");
    assert!(why.contains(reason), "{why:?} lacks {reason:?}");
    answer
}

fn refused(cluster: &Cluster, question: &Question, code: RejectionCode, reason: &str) {
    let rejection = tried(cluster.state(), question).unwrap_err();
    assert_eq!(rejection.code, code, "{rejection}");
    assert!(rejection.to_string().contains(reason), "{rejection}");
}

/// Two nodes of four pods each, with a Deployment of so many.
fn two_nodes(replicas: u32) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.node("node-0", facts(4000, 64 * GIB, 10));
    cluster.node("node-1", facts(4000, 64 * GIB, 10));
    let web = template("web", pod_spec("web:1", 1000, 64 << 20));
    cluster.ok(Command::Create(deployment("web", replicas, |spec| spec.template = web)));
    cluster.converge();
    cluster
}

#[test]
fn a_drain_moves_what_has_room_elsewhere() {
    let cluster = two_nodes(4);
    let answer = check(&cluster, &drain(&["node-0"]), [2, 2, 0, 0], "");
    let shown: Vec<_> = answer.nodes.iter().map(|n| (n.name.as_str(), n.before.pods, n.after.pods)).collect();
    assert_eq!(shown, [("node-0", 2, 0), ("node-1", 2, 4)]);
    assert!(
        answer
            .pods
            .iter()
            .filter(|pod| pod.is_new)
            .all(|pod| { matches!(&pod.fate, Fate::Placed { node } if node.as_str() == "node-1") })
    );
    check(&two_nodes(6), &drain(&["node-0"]), [3, 1, 2, 0], "1 Insufficient cpu");
    check(&two_nodes(6), &drain(&["node-0", "node-1"]), [6, 0, 6, 0], "2 node(s) were unschedulable");
}

#[test]
fn budgets_keep_pods_where_they_are() {
    let mut cluster = two_nodes(6);
    let bound = DisruptionBound::MinAvailable(IntOrPercent::Int(5));
    cluster.ok(Command::Create(budget("web", bound, UnhealthyPodEvictionPolicy::IfHealthyBudget)));
    cluster.converge();
    // One may go at a time: the second only goes when the first is back, and then there is no room.
    check(&cluster, &drain(&["node-0"]), [2, 1, 1, 1], "PodDisruptionBudget web does not allow it");
    let all = DisruptionBound::MinAvailable(IntOrPercent::Int(6));
    cluster.ok(Command::Delete {
        object: reference(Kind::PodDisruptionBudget, "web"),
        grace_ms: None,
        force: false,
    });
    cluster.ok(Command::Create(budget("all", all, UnhealthyPodEvictionPolicy::IfHealthyBudget)));
    cluster.converge();
    check(&cluster, &drain(&["node-0"]), [0, 0, 0, 3], "6 must stay");
}

#[test]
fn what_nobody_starts_elsewhere_stays() {
    let mut cluster = two_nodes(0);
    cluster.ok(Command::Create(daemon_set("agent", |_| {})));
    cluster.ok(Command::Create(pod("alone", pod_spec("web:1", 100, 64 << 20))));
    cluster.converge();
    let answer = tried(cluster.state(), &drain(&["node-0", "node-1"])).unwrap();
    let stays = |needle: &str| {
        let found = |fate: &Fate| matches!(fate, Fate::Stays { reason, .. } if reason.contains(needle));
        answer.pods.iter().filter(|pod| found(&pod.fate)).count()
    };
    assert_eq!((counts(&answer).0, stays("--force"), stays("DaemonSet")), ([0, 0, 0, 3], 1, 2));
}

#[test]
fn nodes_that_come_take_what_waits() {
    let cluster = two_nodes(12);
    check(&cluster, &Question::default(), [0, 0, 4, 0], "2 Insufficient cpu");
    let answer = check(&cluster, &add(1, of(3000)), [0, 3, 1, 0], "3 Insufficient cpu");
    assert_eq!((answer.nodes.len(), answer.nodes[0].is_new, answer.nodes[0].after.pods), (1, true, 3));
    check(&cluster, &add(1, NodeShape::Like(name("node-0"))), [0, 4, 0, 0], "");
    let NodeShape::Of { allocatable, pods_max, .. } = of(9000) else { unreachable!() };
    let taints = vec![Taint { key: "gpu".into(), value: "".into(), effect: TaintEffect::NoSchedule }];
    let shape = NodeShape::Of { allocatable, pods_max, labels: map(&[("disk", "ssd")]), taints };
    check(&cluster, &add(2, shape), [0, 0, 4, 0], "2 node(s) had untolerated taint");
}

#[test]
fn nodes_like_one_with_devices_have_the_same() {
    let mut cluster = Cluster::new();
    cluster.device_node("node-0", cards(2));
    for named in ["a", "b", "c"] {
        cluster.ok(Command::Create(gpu_pod(named, 1)));
    }
    cluster.converge();
    check(&cluster, &Question::default(), [0, 0, 1, 0], "Insufficient nvidia.com/gpu");
    check(&cluster, &add(1, of(8000)), [0, 0, 1, 0], "Insufficient nvidia.com/gpu");
    check(&cluster, &add(1, NodeShape::Like(name("node-0"))), [0, 1, 0, 0], "");
}

#[test]
fn a_file_is_placed_or_told_why_not() {
    let cluster = two_nodes(6);
    let web = |replicas, cpu| {
        let spec = template("web", pod_spec("web:2", cpu, 64 << 20));
        deployment("api", replicas, |found| {
            found.selector = bulkhead_types::LabelSelector::from_labels(map(&[("app", "web")]));
            found.template = spec;
        })
    };
    check(&cluster, &submit(&cluster, Command::Create(web(2, 1000))), [0, 2, 0, 0], "");
    check(&cluster, &submit(&cluster, Command::Create(web(3, 1000))), [0, 2, 1, 0], "Insufficient cpu");
    let taken = Command::Create(deployment("web", 1, |_| {}));
    refused(&cluster, &submit(&cluster, taken), RejectionCode::AlreadyExists, "web");
    // All at once: the new node takes what the file and the drain need.
    let mut question = submit(&cluster, Command::Create(web(2, 1000)));
    question.added = vec![AddedNodes { count: 1, shape: of(4000) }];
    question.drained = vec![name("node-0")];
    check(&cluster, &question, [3, 5, 0, 0], "");
}

#[test]
fn a_rollout_is_seen_to_its_end() {
    let cluster = two_nodes(4);
    let web = template("web", pod_spec("web:2", 1500, 64 << 20));
    let next = deployment("web", 4, |spec| {
        spec.template = web;
        spec.min_ready_ms = 30_000;
    });
    check(&cluster, &submit(&cluster, Command::Apply(next)), [4, 4, 0, 0], "");
}

#[test]
fn what_cannot_be_asked_is_refused() {
    let cluster = two_nodes(1);
    refused(&cluster, &drain(&["node-9"]), RejectionCode::NotFound, "Node node-9");
    refused(&cluster, &add(1, NodeShape::Like(name("node-9"))), RejectionCode::NotFound, "Node node-9");
    refused(&cluster, &add(NODES_ADDED_MAX + 1, of(1)), RejectionCode::Invalid, "at most 5000");
}

#[test]
fn of_silent_nodes_nobody_hears() {
    let mut cluster = two_nodes(4);
    let node = cluster.state().find(Kind::Node, None, &name("node-0")).unwrap();
    let incarnation = cluster.state().nodes().get(node).unwrap().status.incarnation;
    cluster.ok(Command::SetNodePhase { node, incarnation, phase: NodePhase::Unreachable });
    // They are asked to go, others start; whether they went is not known.
    check(&cluster, &drain(&["node-0"]), [2, 2, 0, 0], "");
}

#[test]
fn a_trial_ends_when_it_must() {
    let cluster = two_nodes(12);
    let mut left = 3;
    let answer = ask(cluster.state(), &drain(&["node-0"]), cluster.now_ms, &mut || {
        left -= 1;
        left > 0
    });
    assert!(!answer.unwrap().at_rest);
}

/// Drains as `bulkhead drain` does, one eviction after the other, until nothing more happens.
fn really_drain(cluster: &mut Cluster, node: &Name) {
    cluster.ok(Command::SetUnschedulable { node: node.clone(), unschedulable: true });
    let id = cluster.state().find(Kind::Node, None, node).unwrap();
    loop {
        cluster.converge();
        let pods: Vec<_> = cluster.state().pods_on(id).cloned().collect();
        let evicted = pods.into_iter().filter(|pod| {
            let pod = Object::Pod(pod.clone()).object_ref();
            cluster.submit(vec![Command::Evict { pod, grace_ms: None, autoscaler: None }]).is_ok()
        });
        if evicted.count() == 0 {
            return;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// What would happen is what does.
    #[test]
    fn a_drain_ends_as_foretold(
        replicas in prop::collection::vec((1u32..6, 1u64..4), 1..4),
        least in 0u32..5,
        nodes in 2usize..5,
    ) {
        let mut cluster = Cluster::new();
        for n in 0..nodes {
            cluster.node(&format!("node-{n}"), facts(6000, 64 * GIB, 10));
        }
        for (at, (replicas, cpu)) in replicas.iter().enumerate() {
            let spec = template("web", pod_spec("web:1", cpu * 1000, 64 << 20));
            let app = format!("web-{at}");
            cluster.ok(Command::Create(deployment(&app, *replicas, |found| {
                found.selector = bulkhead_types::LabelSelector::from_labels(map(&[("app", "web")]));
                found.template = spec;
            })));
        }
        let bound = DisruptionBound::MinAvailable(IntOrPercent::Int(least));
        cluster.ok(Command::Create(budget("web", bound, UnhealthyPodEvictionPolicy::IfHealthyBudget)));
        cluster.converge();
        let answer = tried(cluster.state(), &drain(&["node-0"])).unwrap();
        really_drain(&mut cluster, &name("node-0"));
        let waiting = cluster.active_pods().iter().filter(|pod| pod.node.is_none()).count();
        let id = cluster.state().find(Kind::Node, None, &name("node-0")).unwrap();
        let stays = cluster.state().pods_on(id).count();
        let [_, _, waits, foretold] = counts(&answer).0;
        prop_assert_eq!((waits, foretold), (waiting, stays));
    }
}

/// Nodes of a pool, all with so much.
fn pool(cluster: &mut Cluster, pool: &str, count: usize, cpu_millis: u64) {
    for n in 0..count {
        let labels = map(&[(LABEL_NODE_POOL, pool)]);
        cluster.node(&format!("{pool}-{n}"), NodeFacts { labels, ..facts(cpu_millis, 64 * GIB, 50) });
    }
}

fn advice(cluster: &Cluster, question: &AdviceQuestion) -> Advice {
    let before = cluster.state().digest();
    let advice = advise(cluster.state(), question, cluster.now_ms, &mut || true).unwrap();
    assert_eq!(cluster.state().digest(), before, "advice changes nothing");
    assert!(advice.is_whole);
    advice
}

/// `pool +nodes: pods placed, left, waste`, and which nodes could go.
fn shown(advice: &Advice) -> String {
    let growth = advice.growth.iter().map(|one| {
        format!("{} +{}: {} placed, {} left, {}", one.pool, one.nodes, one.pods, one.left, one.waste_permille)
    });
    let removals = advice.removals.iter().map(|one| match &one.obstacle {
        None => format!("{} could go, {} move", one.node, one.pods),
        Some(reason) => format!("{} stays: {}", one.node, reason.split(':').next().unwrap_or_default()),
    });
    growth.chain(removals).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_pool_with_least_waste_is_grown_by_as_few_as_help() {
    let mut cluster = Cluster::new();
    pool(&mut cluster, "small", 1, 4000);
    pool(&mut cluster, "large", 1, 16_000);
    pool(&mut cluster, "tiny", 1, 1000);
    let web = template("web", pod_spec("web:1", 2000, 2 * GIB));
    cluster.ok(Command::Create(deployment("web", 16, |spec| spec.template = web)));
    // Full: 2 on small, 8 on large, none on tiny; 6 wait.
    cluster.converge();
    let question = AdviceQuestion::default();
    assert_eq!(advice(&cluster, &question).waiting, 6);
    let expected =
        "small +3: 6 placed, 0 left, 467\nlarge +1: 6 placed, 0 left, 526\ntiny-0 could go, 0 move";
    assert_eq!(shown(&advice(&cluster, &question)), expected);
    let priorities = [("large".into(), 5)].into_iter().collect();
    let question = AdviceQuestion { expander: Expander::Priority(priorities), ..question };
    assert!(shown(&advice(&cluster, &question)).starts_with("large +1"));
    // A bound on growth: what has room in that.
    let question = AdviceQuestion { growth_max: 1, idle_percent: 1, ..AdviceQuestion::default() };
    let expected = "large +1: 6 placed, 0 left, 526\nsmall +1: 2 placed, 4 left, 467";
    let found = shown(&advice(&cluster, &AdviceQuestion { expander: Expander::MostPods, ..question }));
    assert_eq!(found, format!("{expected}\ntiny-0 could go, 0 move"));
}

#[test]
fn nodes_go_whose_pods_have_room_elsewhere() {
    let mut cluster = Cluster::new();
    pool(&mut cluster, "a", 3, 4000);
    let web = template("web", pod_spec("web:1", 1000, GIB));
    cluster.ok(Command::Create(deployment("web", 3, |spec| spec.template = web)));
    cluster.converge();
    // One pod each: two nodes could go, not all three.
    let found = advice(&cluster, &AdviceQuestion::default());
    assert_eq!(found.removals.iter().filter(|one| one.obstacle.is_none()).count(), 2, "{found:#?}");
    assert_eq!(found.removals.iter().map(|one| one.pods).sum::<u32>(), 2);
    let last = found.removals.iter().find_map(|one| one.obstacle.as_ref()).unwrap();
    assert!(last.contains("would wait") && last.contains("unschedulable"), "{last}");
    // A pod that nobody would start again keeps its node.
    let mut cluster = Cluster::new();
    pool(&mut cluster, "a", 2, 4000);
    cluster.ok(Command::Create(pod("alone", pod_spec("web:1", 100, GIB))));
    cluster.converge();
    let found = advice(&cluster, &AdviceQuestion::default());
    let stays: Vec<_> = found.removals.iter().filter_map(|one| one.obstacle.as_deref()).collect();
    assert_eq!(stays, ["Pod default/alone stays: nobody would start it elsewhere: draining needs --force"]);
    // Where nothing waits no pool is to grow, and without time nothing is said.
    assert_eq!(found.growth, []);
    let none = advise(cluster.state(), &AdviceQuestion::default(), cluster.now_ms, &mut || false).unwrap();
    assert_eq!(none, Advice::default());
}
