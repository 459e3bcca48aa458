//! Whatever happens: only lower ones end, only as many as are needed and as low as can be, no budget is gone below, room that
//! is kept is used or given up, and nobody waits for whom others would end. And of a group as many are placed together as it
//! says.

use std::collections::BTreeSet;
use std::sync::Arc;

use bulkhead_controlplane_core::placement::reference::group_preemption::is_of_waiting_group;
use bulkhead_controlplane_core::placement::reference::preemption::{
    fits_without, highest_needed, judge, preempts, priority,
};
use bulkhead_controlplane_core::{State, evolve::evolve, invariant};
use bulkhead_types::{
    Command, EventKind, Kind, LABEL_POD_GROUP, LABEL_POD_GROUP_MIN_AVAILABLE, NodePhase, Object, ObjectId,
    Pod, PodGroupKey, PodPhase, PodPlacement, Rare,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::kit::{Cluster, GIB, Say, facts, reference};
use crate::placement::{labelled, required, term};
use crate::preemption::{budget, class, cluster, of_class};

const CLASSES: [&str; 6] = ["high", "mid", "low", "polite", "late", ""];

#[derive(Clone, Debug)]
enum Op {
    Create { class: &'static str, tenths: u64, apart: bool },
    Member { group: u8, class: &'static str, tenths: u64 },
    Node { tenths: u64, pods: u32 },
    Cordon(usize, bool),
    Gone(usize),
    Ask(usize),
    Class(bool),
    Budget(Option<u32>),
    DropNode(usize),
    Agents,
    NewLeader,
    Lose,
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (select(&CLASSES[..]), 1u64..8, prop::bool::weighted(0.15))
            .prop_map(|(class, tenths, apart)| Op::Create { class, tenths, apart }),
        6 => (0u8..GROUPS, select(vec!["high", "high", "mid", "mid", "low", "polite"]), 1u64..4)
            .prop_map(|(group, class, tenths)| Op::Member { group, class, tenths }),
        3 => (4u64..11, 1u32..6).prop_map(|(tenths, pods)| Op::Node { tenths, pods }),
        1 => (0usize..5, any::<bool>()).prop_map(|(node, cordon)| Op::Cordon(node, cordon)),
        3 => (0usize..20).prop_map(Op::Gone),
        1 => (0usize..20).prop_map(Op::Ask),
        1 => any::<bool>().prop_map(Op::Class),
        1 => prop::option::of(0u32..4).prop_map(Op::Budget),
        1 => (0usize..5).prop_map(Op::DropNode),
        3 => Just(Op::Agents),
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

fn perform(cluster: &mut Cluster, number: usize, op: &Op) {
    let exists =
        |cluster: &Cluster, kind, text| cluster.state().find_object(&reference(kind, text)).is_some();
    match op {
        Op::Create { class, tenths, apart } => {
            let mut spec = of_class(class, *tenths);
            if *apart {
                let away = required(term("web", "kubernetes.io/hostname"));
                let placement = PodPlacement { pod_anti_affinity: away, ..PodPlacement::default() };
                let mut options = spec.options.get().cloned().unwrap_or_default();
                options.placement = Rare::some(placement);
                spec.options = Rare::some(options);
            }
            cluster.ok(Command::Create(labelled(&format!("p{number}"), "web", "default", spec)));
        }
        Op::Member { group, class, tenths } => {
            let mut pod = labelled(&format!("p{number}"), "web", "default", of_class(class, *tenths));
            let labels = &mut pod.meta_mut().labels;
            labels.insert(LABEL_POD_GROUP.into(), format!("g{group}").into());
            labels.insert(LABEL_POD_GROUP_MIN_AVAILABLE.into(), (group + 2).to_string().into());
            cluster.ok(Command::Create(pod));
        }
        Op::Node { tenths, pods } => {
            _ = cluster.node(&format!("x{number}"), facts(tenths * 1000, 8 * GIB, *pods));
        }
        Op::Cordon(at, unschedulable) => {
            if let Some(node) = node_at(cluster, *at) {
                let (node, unschedulable) = (node.meta.name.clone(), *unschedulable);
                cluster.ok(Command::SetUnschedulable { node, unschedulable });
            }
        }
        Op::Gone(at) | Op::Ask(at) => {
            let Some(pod) = pod_at(cluster, *at) else { return };
            let object = Object::Pod(pod.clone()).object_ref();
            cluster.ok(Command::Delete { object, grace_ms: None, force: false });
            if matches!(op, Op::Gone(_))
                && pod.node.is_some_and(|node| cluster.state().nodes().get(node).is_some())
            {
                cluster.say(pod.meta.id, Say::Gone);
            }
        }
        Op::Class(late) => {
            let object = reference(Kind::PriorityClass, if *late { "late" } else { "mid" });
            if exists(cluster, Kind::PriorityClass, object.name.as_str()) {
                cluster.ok(Command::Delete { object, grace_ms: None, force: false });
            } else {
                cluster.ok(Command::Create(class(object.name.as_str(), 70, None)));
            }
        }
        Op::Budget(Some(least)) => cluster.ok(Command::Apply(budget(*least))),
        Op::Budget(None) => {
            let object = reference(Kind::PodDisruptionBudget, "web");
            if exists(cluster, Kind::PodDisruptionBudget, "web") {
                cluster.ok(Command::Delete { object, grace_ms: None, force: false });
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
        Op::Agents => _ = cluster.agents(),
        Op::NewLeader => cluster.new_leader(),
        Op::Lose => {
            cluster.lose();
            cluster.advance(31_000);
        }
    }
}

/// Whether nothing reaches over nodes, so that which node is best depends on the node alone. A group whose pods are of different
/// priorities does: it ends whole, and so up to its highest.
fn is_plain(state: &State) -> bool {
    let says = |pod: &Arc<Pod>| pod.spec.placement().is_some();
    let is_even = |group: u8| ranks(state, &of_group(state, &key_of(group))).len() <= 1;
    state.pod_disruption_budgets().is_empty() && !state.pods().iter().any(says) && (0..GROUPS).all(is_even)
}

/// Groups that pods name.
const GROUPS: u8 = 3;

fn key_of(group: u8) -> PodGroupKey {
    PodGroupKey { namespace: "default".try_into().ok(), name: format!("g{group}").into() }
}

/// The highest of those that end for a pod is as low as on any node.
fn judge_choice(before: &State, events: &[bulkhead_types::Event]) -> Result<(), TestCaseError> {
    for event in events {
        let EventKind::PodStatusChanged { id, status } = &event.kind else { continue };
        let Some(pod) = before.pods().get(*id) else { continue };
        let is_new = status.nominated_node.get().is_some() && pod.status.nominated_node.get().is_none();
        // Of a group all are chosen for together, and one victim is named for one of them.
        if !is_new || !is_plain(before) || is_of_waiting_group(before, pod) {
            continue;
        }
        let victims = events.iter().filter_map(|event| match &event.kind {
            EventKind::DeletionRequested { id: victim, deletion, .. } if deletion.preemptor == Some(*id) => {
                before.pods().get(*victim)
            }
            _ => None,
        });
        let highest = victims.filter_map(|victim| priority(before, victim)).max();
        let best = before.nodes().iter().filter_map(|node| highest_needed(before, pod, node)).min();
        prop_assert_eq!(Some(highest), best, "{}", &pod.meta.name);
    }
    Ok(())
}

fn judge_all(cluster: &Cluster, seen: &mut usize, before: &State) -> Result<(), TestCaseError> {
    prop_assert_eq!(invariant::check(cluster.state()), vec![]);
    let mut past = before.clone();
    for transaction in &cluster.transactions[*seen..] {
        prop_assert_eq!(judge(&past, transaction), Ok(()));
        judge_choice(&past, &transaction.events)?;
        let former = past.clone();
        evolve(&mut past, transaction);
        judge_groups(&former, &past, &transaction.events)?;
    }
    *seen = cluster.transactions.len();
    Ok(())
}

/// The pods of a group that count for it.
fn of_group(state: &State, key: &PodGroupKey) -> Vec<Arc<Pod>> {
    let is_of = |pod: &&Arc<Pod>| pod.group().is_some_and(|(group, _)| group == *key);
    let counts = |pod: &&Arc<Pod>| !pod.meta.is_deleting() && pod.status.phase != PodPhase::Failed;
    state.pods().iter().filter(is_of).filter(counts).cloned().collect()
}

fn ranks(state: &State, pods: &[Arc<Pod>]) -> BTreeSet<Option<i32>> {
    pods.iter().map(|pod| priority(state, pod)).collect()
}

/// Whoever of a group gets a node, gets it with so many that they are enough.
fn judge_groups(
    before: &State,
    after: &State,
    events: &[bulkhead_types::Event],
) -> Result<(), TestCaseError> {
    for event in events {
        let EventKind::PodBound(binding) = &event.kind else { continue };
        let Some((key, least)) = before.pods().get(binding.pod).and_then(|pod| pod.group()) else { continue };
        let placed = |state| of_group(state, &key).iter().filter(|pod| pod.node.is_some()).count();
        let (was, is) = (placed(before), placed(after));
        prop_assert!(is >= least as usize, "{} of {} have a node, there were {}", is, key.name, was);
        let ranks = ranks(after, &of_group(after, &key));
        prop_assert!(ranks.len() == 1 || was >= least as usize, "{}: priorities {:?}", key.name, ranks);
    }
    Ok(())
}

/// A group that lacks one pod more waits only while no node has room for any of those that wait. (With more of them it
/// matters how they are packed, and no search over all ways is promised.)
fn judge_waiting_groups(state: &State) -> Result<(), TestCaseError> {
    for group in 0..GROUPS {
        let pods = of_group(state, &key_of(group));
        let waiting: Vec<_> = pods.iter().filter(|pod| pod.node.is_none()).collect();
        let ranks = ranks(state, &pods);
        let lacks_one = pods.len() - waiting.len() + 1 == usize::from(group) + 2;
        if !lacks_one || ranks.len() != 1 || ranks.contains(&None) {
            continue;
        }
        for (pod, node) in waiting.iter().flat_map(|pod| state.nodes().iter().map(move |node| (pod, node))) {
            let has_room = fits_without(state, pod, node, &[]);
            prop_assert!(!has_room, "{} waits, {} has room", pod.meta.name, node.meta.name);
        }
    }
    Ok(())
}

/// Whether a pod waits for more than a node for itself: its group lacks others, or more than this one.
fn waits_for_group(state: &State, pod: &Pod) -> bool {
    let Some((key, least)) = pod.group() else { return false };
    let pods = of_group(state, &key);
    let placed = pods.iter().filter(|pod| pod.node.is_some()).count();
    placed + 1 < least as usize || ranks(state, &pods).len() != 1
}

/// Once everything has ended that shall, nobody waits with room that is kept, or for whom others would end.
fn judge_rest(state: &State) -> Result<(), TestCaseError> {
    let waiting: Vec<ObjectId> = state.pending_pods().iter().copied().collect();
    for pod in waiting.iter().filter_map(|id| state.pods().get(*id)) {
        prop_assert!(pod.status.nominated_node.get().is_none(), "room is kept for {}", pod.meta.name);
        if waits_for_group(state, pod)
            || priority(state, pod).is_none()
            || !preempts(state, pod)
            || !state.pod_disruption_budgets().is_empty()
        {
            continue;
        }
        for node in state.nodes().iter() {
            let needed = highest_needed(state, pod, node);
            prop_assert!(needed.is_none(), "{} waits: {:?} on {}", pod.meta.name, needed, node.meta.name);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn only_who_must_ends_and_nobody_waits_for_nothing(ops in vec(any_op(), 1..50)) {
        let mut cluster = cluster(2);
        let (mut seen, mut before) = (cluster.transactions.len(), cluster.state().clone());
        for (number, op) in ops.iter().enumerate() {
            perform(&mut cluster, number, op);
            cluster.settle();
            judge_all(&cluster, &mut seen, &before)?;
            before = cluster.state().clone();
        }
        // Refused proposals have had their time.
        cluster.converge();
        cluster.advance(62_000);
        cluster.converge();
        judge_all(&cluster, &mut seen, &before)?;
        judge_rest(cluster.state())?;
        judge_waiting_groups(cluster.state())?;
        let replayed = cluster.replayed();
        prop_assert_eq!(replayed.digest(), cluster.state().digest());
    }
}
