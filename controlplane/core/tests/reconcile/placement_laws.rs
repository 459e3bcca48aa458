//! Whatever happens: nobody is where others do not let it be, nobody waits who could be somewhere, and what is counted is
//! what a count from scratch gives.

use std::sync::Arc;

use bulkhead_controlplane_core::State;
use bulkhead_controlplane_core::invariant;
use bulkhead_controlplane_core::placement::check_fit;
use bulkhead_controlplane_core::placement::reference::Scene;
use bulkhead_types::{
    Command, EventKind, Kind, LabelSelector, Namespace, NodeAffinity, NodeInclusionPolicy, NodePhase,
    NodeSelectorOperator, NodeSelectorRequirement, NodeSelectorTerm, Object, ObjectMeta, Pod, PodAffinity,
    PodAffinityTerm, PodPlacement, PodSpec, Rare, TopologySpreadConstraint, WeightedPodAffinityTerm,
    WhenUnsatisfiable,
};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use crate::kit::{Cluster, GIB, Say, facts, map, name, pod_spec, reference};
use crate::placement::{constraint, labelled, placed, term};

const APPS: [&str; 3] = ["web", "db", "log"];
const KEYS: [&str; 3] = ["zone", "rack", "kubernetes.io/hostname"];
const NAMESPACES: [&str; 2] = ["default", "team"];

#[derive(Clone, Debug)]
enum Op {
    Create { app: &'static str, namespace: &'static str, spec: PodSpec },
    Node { zone: u8, rack: Option<u8>, pods: u32 },
    Label(usize, &'static str, Option<u8>),
    Cordon(usize, bool),
    Relabel(usize, &'static str),
    Team(u8),
    Ask(usize),
    Gone(usize),
    DropNode(usize),
    NewLeader,
    Lose,
}

fn any_term() -> impl Strategy<Value = PodAffinityTerm> {
    (select(&APPS[..]), select(&KEYS[..]), 0u8..6).prop_map(|(app, key, which)| {
        let mut term = term(app, key);
        match which {
            0 => term.namespaces = vec!["team".into()],
            1 => term.namespace_selector = Some(LabelSelector::from_labels(map(&[("tier", "1")]))),
            2 => term.namespace_selector = Some(LabelSelector::default()),
            3 => {
                term.label_selector = Some(LabelSelector::default());
                term.match_label_keys = vec!["app".into()];
            }
            4 => {
                term.label_selector = Some(LabelSelector::default());
                term.mismatch_label_keys = vec!["app".into()];
            }
            _ => {}
        }
        term
    })
}

fn any_affinity() -> impl Strategy<Value = Rare<PodAffinity>> {
    let wish = (1u32..100, any_term())
        .prop_map(|(weight, pod_affinity_term)| WeightedPodAffinityTerm { weight, pod_affinity_term });
    (vec(any_term(), 0..2), vec(wish, 0..2))
        .prop_map(|(required, preferred)| Rare::unless_default(PodAffinity { required, preferred }))
}

fn any_constraint() -> impl Strategy<Value = TopologySpreadConstraint> {
    let when = select(vec![WhenUnsatisfiable::DoNotSchedule, WhenUnsatisfiable::ScheduleAnyway]);
    let policy = || select(vec![NodeInclusionPolicy::Honor, NodeInclusionPolicy::Ignore]);
    (select(&APPS[..]), select(&KEYS[..]), when, 1u32..3, of(1u32..4), policy(), policy()).prop_map(
        |(app, key, when, max_skew, min_domains, node_affinity_policy, node_taints_policy)| {
            let min_domains = min_domains.filter(|_| when == WhenUnsatisfiable::DoNotSchedule);
            let one = constraint(app, key, when);
            TopologySpreadConstraint {
                max_skew,
                min_domains,
                node_affinity_policy,
                node_taints_policy,
                ..one
            }
        },
    )
}

fn any_spec() -> impl Strategy<Value = PodSpec> {
    let zone = (0u8..3).prop_map(|zone| {
        let requirement = NodeSelectorRequirement {
            key: "zone".into(),
            operator: NodeSelectorOperator::NotIn,
            values: vec![zone.to_string().into()],
        };
        let term = NodeSelectorTerm { match_expressions: vec![requirement], match_fields: vec![] };
        NodeAffinity { required: vec![term], preferred: vec![] }
    });
    let placement = (of(zone), any_affinity(), any_affinity(), vec(any_constraint(), 0..3));
    let placement = placement.prop_map(|(nodes, pod_affinity, pod_anti_affinity, mut spread)| {
        spread.sort_by_key(|one| (one.topology_key.clone(), one.when_unsatisfiable));
        spread.dedup_by_key(|one| (one.topology_key.clone(), one.when_unsatisfiable));
        PodPlacement {
            node_affinity: nodes.into(),
            pod_affinity,
            pod_anti_affinity,
            topology_spread_constraints: spread,
        }
    });
    prop_oneof![2 => Just(pod_spec("web:1", 10, 1 << 20)), 3 => placement.prop_map(placed)]
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        10 => (select(&APPS[..]), select(&NAMESPACES[..]), any_spec())
            .prop_map(|(app, namespace, spec)| Op::Create { app, namespace, spec }),
        4 => (0u8..3, of(0u8..3), 1u32..6).prop_map(|(zone, rack, pods)| Op::Node { zone, rack, pods }),
        2 => (0usize..9, select(&KEYS[..2]), of(0u8..3)).prop_map(|(node, key, value)| Op::Label(node, key, value)),
        1 => (0usize..9, any::<bool>()).prop_map(|(node, cordon)| Op::Cordon(node, cordon)),
        2 => (0usize..20, select(&APPS[..])).prop_map(|(pod, app)| Op::Relabel(pod, app)),
        1 => (0u8..3).prop_map(Op::Team),
        2 => (0usize..20).prop_map(Op::Ask),
        3 => (0usize..20).prop_map(Op::Gone),
        1 => (0usize..9).prop_map(Op::DropNode),
        1 => Just(Op::NewLeader),
        1 => Just(Op::Lose),
    ]
}

fn pod_at(cluster: &Cluster, at: usize) -> Option<Arc<Pod>> {
    let pods = cluster.state().pods();
    pods.iter().nth(at % pods.len().max(1)).cloned()
}

fn node_at(cluster: &Cluster, at: usize) -> Option<Arc<bulkhead_types::Node>> {
    let nodes = cluster.state().nodes();
    nodes.iter().nth(at % nodes.len().max(1)).cloned()
}

fn team(tier: u8) -> Object {
    let mut meta = ObjectMeta::new(None, name("team"));
    meta.labels = map(&[("tier", &tier.to_string())]);
    Object::Namespace(Arc::new(Namespace { meta }))
}

fn perform(cluster: &mut Cluster, number: usize, op: &Op) {
    match op {
        Op::Create { app, namespace, spec } => {
            cluster.ok(Command::Create(labelled(&format!("p{number}"), app, namespace, spec.clone())));
        }
        Op::Node { zone, rack, pods } => {
            cluster.node(&format!("n{number}"), facts(8000, 8 * GIB, *pods));
            let mut node = node_at(cluster, cluster.state().nodes().len() - 1).unwrap();
            let labels = &mut Arc::make_mut(&mut node).meta.labels;
            labels.insert("zone".into(), zone.to_string().into());
            labels.extend(rack.map(|rack| ("rack".into(), rack.to_string().into())));
            cluster.ok(Command::Apply(Object::Node(node)));
        }
        Op::Label(at, key, value) => {
            let Some(mut node) = node_at(cluster, *at) else { return };
            let labels = &mut Arc::make_mut(&mut node).meta.labels;
            match value {
                Some(value) => _ = labels.insert((*key).into(), value.to_string().into()),
                None => _ = labels.remove(*key),
            }
            cluster.ok(Command::Apply(Object::Node(node)));
        }
        Op::Cordon(at, unschedulable) => {
            if let Some(node) = node_at(cluster, *at) {
                let (node, unschedulable) = (node.meta.name.clone(), *unschedulable);
                cluster.ok(Command::SetUnschedulable { node, unschedulable });
            }
        }
        Op::Relabel(at, app) => {
            let Some(mut pod) = pod_at(cluster, *at).filter(|pod| !pod.meta.is_deleting()) else { return };
            Arc::make_mut(&mut pod).meta.labels = map(&[("app", app)]);
            cluster.ok(Command::Apply(Object::Pod(pod)));
        }
        Op::Team(tier) => cluster.ok(Command::Apply(team(*tier))),
        Op::Ask(at) => {
            let Some(pod) = pod_at(cluster, *at) else { return };
            let object = Object::Pod(pod).object_ref();
            cluster.ok(Command::Delete { object, grace_ms: None, force: false });
        }
        Op::Gone(at) => {
            let Some(pod) = pod_at(cluster, *at) else { return };
            let object = Object::Pod(pod.clone()).object_ref();
            cluster.ok(Command::Delete { object, grace_ms: None, force: false });
            if pod.node.is_some_and(|node| cluster.state().nodes().get(node).is_some()) {
                cluster.say(pod.meta.id, Say::Gone);
            }
        }
        Op::DropNode(at) => {
            if let Some(node) = node_at(cluster, *at) {
                let (phase, incarnation) = (NodePhase::Unreachable, node.status.incarnation);
                cluster.ok(Command::SetNodePhase { node: node.meta.id, incarnation, phase });
                let object = reference(Kind::Node, node.meta.name.as_str());
                cluster.ok(Command::Delete { object, grace_ms: None, force: true });
            }
        }
        Op::NewLeader => cluster.new_leader(),
        Op::Lose => {
            cluster.lose();
            cluster.advance(60_000);
        }
    }
}

/// Every node is asked about every pod that waits, and every binding is judged on what was when it was applied.
fn judge(cluster: &Cluster, seen: &mut usize, before: &State) -> Result<(), TestCaseError> {
    let state = cluster.state();
    prop_assert_eq!(invariant::check(state), vec![]);
    let mut past = before.clone();
    for transaction in &cluster.transactions[*seen..] {
        let mut bound = Vec::new();
        for event in &transaction.events {
            let EventKind::PodBound(binding) = &event.kind else { continue };
            let pod = past.pods().get(binding.pod).unwrap();
            let node = past.nodes().get(binding.node).unwrap();
            let verdict = Scene::of(&past, &bound).check(pod, node);
            prop_assert!(verdict.is_ok(), "{} on {}: {:?}", pod.meta.name, node.meta.name, verdict);
            bound.push((binding.pod, binding.node));
        }
        bulkhead_controlplane_core::evolve::evolve(&mut past, transaction);
    }
    *seen = cluster.transactions.len();
    let scene = Scene::of(state, &[]);
    for id in state.pending_pods() {
        let pod = state.pods().get(*id).unwrap();
        let request = pod.spec.scheduling_request();
        for node in state.nodes().iter() {
            let fits = check_fit(&pod.spec, request, node, state.node_usage(node.meta.id)).is_ok();
            let suits = fits && scene.check(pod, node).is_ok();
            prop_assert!(!suits, "{} waits although {} suits", pod.meta.name, node.meta.name);
        }
        prop_assert_eq!(&pod.status.reason, "Unschedulable");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn every_placement_is_right_and_nobody_waits_for_nothing(ops in vec(any_op(), 1..60)) {
        let mut cluster = Cluster::new();
        cluster.ok(Command::Create(team(0)));
        let (mut seen, mut before) = (cluster.transactions.len(), cluster.state().clone());
        for (number, op) in ops.iter().enumerate() {
            perform(&mut cluster, number, op);
            cluster.settle();
            judge(&cluster, &mut seen, &before)?;
            before = cluster.state().clone();
        }
        let proposed = cluster.proposals.iter().filter_map(|p| match &p.command {
            Command::BindPods { bindings } if p.reconciler == "scheduler" => Some(bindings.len()),
            _ => None,
        });
        let lost = ops.iter().any(|op| matches!(op, Op::Lose));
        let events = cluster.transactions.iter().flat_map(|t| &t.events);
        let happened = events.filter(|e| matches!(e.kind, EventKind::PodBound(_))).count();
        prop_assert!(lost || proposed.sum::<usize>() == happened, "decide agrees with every placement");
    }
}
