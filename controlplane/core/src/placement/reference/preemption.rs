//! Whether others may end for a pod, asked of every pod: slow, obvious, and without any of the code that chooses.

use bulkhead_types::{
    DisruptionBound, EventKind, IntOrPercent, Kind, Node, ObjectId, Pod, PodPhase, PreemptionPolicy,
    Resources, Transaction,
};

use super::{Scene, elastic, group_preemption, ports};
use crate::State;
use crate::cpus::{self, Asks};
use crate::devices::{self, Needs, NodeDevices, Policies, ledger_of};
use crate::placement::{check_node, check_numa};

/// The priority of a pod; `None` when its class is not there.
#[must_use]
pub fn priority(state: &State, pod: &Pod) -> Option<i32> {
    let classes = || state.priority_classes().iter();
    match pod.spec.priority_class().map(|name| name.as_str()) {
        Some("system-node-critical") => Some(2_000_001_000),
        Some("system-cluster-critical") => Some(2_000_000_000),
        Some(name) => classes().find(|class| class.meta.name.as_str() == name).map(|class| class.value),
        None => Some(classes().find(|class| class.global_default).map_or(0, |class| class.value)),
    }
}

/// Whether a pod's class lets it make others end.
#[must_use]
pub fn preempts(state: &State, pod: &Pod) -> bool {
    let name = pod.spec.priority_class();
    let mut classes = state.priority_classes().iter();
    let class = classes.find(|class| match name {
        Some(name) => class.meta.name.as_str() == *name,
        None => class.global_default,
    });
    class.is_none_or(|class| class.preemption_policy != Some(PreemptionPolicy::Never))
}

/// Whether a pod may be on a node once certain pods have gone, beside the room that is kept for others.
#[must_use]
pub fn fits_without(state: &State, pod: &Pod, node: &Node, gone: &[ObjectId]) -> bool {
    why_not_without(state, pod, node, gone).is_none()
}

/// What keeps a pod off a node once certain pods have gone.
fn why_not_without(state: &State, pod: &Pod, node: &Node, gone: &[ObjectId]) -> Option<&'static str> {
    let own = priority(state, pod);
    let (mut sum, mut count, mut are_devices_kept) = (pod.spec.scheduling_request(), 1, false);
    let (mut are_cpus_kept, mut are_ports_taken) = (false, false);
    for other in state.pods().iter().filter(|other| other.meta.id != pod.meta.id) {
        let is_there = other.node == Some(node.meta.id)
            && !other.status.phase.is_terminal()
            && !gone.contains(&other.meta.id);
        let is_kept = other.node.is_none()
            && !other.meta.is_deleting()
            && !other.status.phase.is_terminal()
            && other.status.nominated_node.get() == Some(&node.meta.id)
            && priority(state, other) >= own
            && priority(state, other).is_some();
        if is_there || is_kept {
            sum = sum.plus(other.spec.scheduling_request());
            count += 1;
            are_devices_kept |= is_kept && other.spec.asks_for_devices();
            are_ports_taken |= ports::conflict(pod, other);
            are_cpus_kept |= is_kept && matches!(cpus::needs(state, other), Ok(Some(_)));
        }
    }
    if pod.spec.asks_for_devices() && (are_devices_kept || !has_devices(state, pod, node, gone)) {
        return Some("devices");
    }
    if are_ports_taken {
        return Some("ports");
    }
    match cpus::needs(state, pod) {
        Ok(None) => {}
        Ok(Some(_)) if !are_cpus_kept && has_cpus(state, pod, node, gone) => {}
        _ => return Some("CPUs"),
    }
    let Resources { cpu_millis, memory_bytes, ephemeral_storage_bytes, huge_pages, pinned_memory_bytes } =
        node.status.facts.allocatable;
    let has_room = sum.cpu_millis <= cpu_millis
        && sum.memory_bytes <= memory_bytes
        && sum.ephemeral_storage_bytes <= ephemeral_storage_bytes
        && sum.huge_pages.two_mib_bytes <= huge_pages.two_mib_bytes
        && sum.huge_pages.one_gib_bytes <= huge_pages.one_gib_bytes
        && (pinned_memory_bytes == 0 || sum.pinned_memory_bytes <= pinned_memory_bytes)
        && count <= node.status.facts.pods_max;
    if !has_room {
        return Some("room");
    }
    if check_node(&pod.spec, node).is_err() {
        return Some("the node");
    }
    // Preemption does not look at the pods of other nodes (Kubernetes' rule): that some of them end is no help.
    let is_here = |id: &&ObjectId| state.pods().get(**id).is_some_and(|pod| pod.node == Some(node.meta.id));
    let here: Vec<ObjectId> = gone.iter().filter(is_here).copied().collect();
    if Scene::without(state, &here).check(pod, node).is_err() {
        return Some("other pods");
    }
    (!elastic::fits_without(state, pod, gone)).then_some("the elastic quota tree")
}

/// Whether a node's devices are enough once certain pods have gone, counted from the objects. Nobody ends for a network that is
/// not there or has no address left.
fn has_devices(state: &State, pod: &Pod, node: &Node, gone: &[ObjectId]) -> bool {
    let Ok(networks) = crate::networks::outlook(state, pod) else { return false };
    if !networks.is_empty() && !node.status.facts.attaches_networks() {
        return false;
    }
    let Some(ledger) = devices_without(state, node, gone) else { return false };
    let needs = Needs::of_pod(pod, &state.devices.classes);
    needs.is_ok_and(|needs| devices::check_node(&needs, node, Some(&ledger)).is_ok())
}

/// A node's devices once certain pods have gone, counted from the objects.
pub(super) fn devices_without(state: &State, node: &Node, gone: &[ObjectId]) -> Option<NodeDevices> {
    let slice = state.resource_slice_of(node.meta.id)?;
    let stays = state.pods().iter().filter(|other| !gone.contains(&other.meta.id));
    let nics = state.sriov_state_of(slice.node).map(|nics| &**nics);
    Some(ledger_of(slice, node.spec.gpu.get(), nics, state.device_classes().iter(), stays))
}

/// The same for CPUs that a pod wants for itself.
fn has_cpus(state: &State, pod: &Pod, node: &Node, gone: &[ObjectId]) -> bool {
    let stays = state.pods().iter().filter(|other| !gone.contains(&other.meta.id));
    let (ledger, devices) = (cpus::ledger_of(node, stays), devices_without(state, node, gone));
    let (Ok(Some(wanted)), Ok(needs)) = (cpus::needs(state, pod), Needs::of_pod(pod, &state.devices.classes))
    else {
        return false;
    };
    let asked = (!needs.asks.is_empty()).then_some((&needs, Policies::of(pod)));
    check_numa(&Asks { cpus: Some(&wanted), devices: asked }, node, ledger.as_ref(), devices.as_ref()).is_ok()
}

/// The pods of a node that end already.
#[must_use]
pub fn ending(state: &State, node: &Node) -> Vec<ObjectId> {
    let is_ending = |pod: &&std::sync::Arc<Pod>| pod.node == Some(node.meta.id) && pod.meta.is_deleting();
    state.pods().iter().filter(is_ending).map(|pod| pod.meta.id).collect()
}

/// The pods of a node that stay and may end for a pod: those that it is above, and those from whom it takes back what is its
/// own.
#[must_use]
pub fn lower(state: &State, pod: &Pod, node: &Node) -> Vec<(i32, ObjectId)> {
    if priority(state, pod).is_none() {
        return Vec::new();
    }
    let stays = |other: &&std::sync::Arc<Pod>| {
        other.node == Some(node.meta.id) && !other.meta.is_deleting() && !other.status.phase.is_terminal()
    };
    let ranked = state.pods().iter().filter(stays).filter_map(|other| Some((priority(state, other)?, other)));
    let may_end = |(_, other): &(i32, &std::sync::Arc<Pod>)| elastic::may_end(state, pod, other);
    ranked.filter(may_end).map(|(theirs, other)| (theirs, other.meta.id)).collect()
}

/// Up to which priority pods of a node must end so that a pod fits; budgets are not asked. `None` when that is no help,
/// `Some(None)` when what ends already is enough.
#[must_use]
pub fn highest_needed(state: &State, pod: &Pod, node: &Node) -> Option<Option<i32>> {
    let ending = ending(state, node);
    if fits_without(state, pod, node, &ending) {
        return Some(None);
    }
    let lower = lower(state, pod, node);
    let mut ranks: Vec<i32> = lower.iter().map(|(rank, _)| *rank).collect();
    ranks.sort_unstable();
    ranks.dedup();
    let found = ranks.into_iter().find(|rank| {
        let up_to = lower.iter().filter(|(theirs, _)| theirs <= rank).map(|(_, id)| *id);
        let gone: Vec<_> = ending.iter().copied().chain(up_to).collect();
        fits_without(state, pod, node, &gone)
    });
    found.map(Some)
}

/// Judges the preemptions of a transaction by the State before it: who ends is of lower priority, was not ending already, is
/// needed, and makes room; budgets hold.
///
/// # Errors
/// What is wrong.
pub fn judge(before: &State, transaction: &Transaction) -> Result<(), String> {
    judge_but(before, transaction, |_| false)
}

/// The same, but for some pods it is not asked whether those who end are needed and enough.
///
/// # Errors
/// As [`judge`].
pub fn judge_but(
    before: &State,
    transaction: &Transaction,
    is_passed_over: impl Fn(&Pod) -> bool,
) -> Result<(), String> {
    group_preemption::judge(before, transaction)?;
    for event in &transaction.events {
        let EventKind::PodStatusChanged { id, status } = &event.kind else { continue };
        let Some(pod) = before.pods().get(*id) else { continue };
        let Some(node) = status.nominated_node.get() else { continue };
        if pod.status.nominated_node == status.nominated_node {
            continue;
        }
        // Of a group that waits all are judged together.
        if group_preemption::is_of_waiting_group(before, pod) {
            continue;
        }
        let node = before.nodes().get(*node).ok_or("the node is not there")?;
        let victims: Vec<ObjectId> =
            transaction.events.iter().filter_map(|event| ended_for(*id, &event.kind)).collect();
        judge_one(before, pod, node, &victims, !is_passed_over(pod)).map_err(|why| {
            format!(
                "pod {} on node {}, for which {} pods end: {why}",
                pod.meta.name,
                node.meta.name,
                victims.len()
            )
        })?;
    }
    Ok(())
}

/// The pod that an event ends for another. One whose guest can not live any more is not asked to end, it is deleted at once: in a
/// transaction that keeps room for a pod, nothing else deletes pods.
fn ended_for(preemptor: ObjectId, event: &EventKind) -> Option<ObjectId> {
    match event {
        EventKind::DeletionRequested { kind: Kind::Pod, id, deletion, .. } => {
            (deletion.preemptor == Some(preemptor)).then_some(*id)
        }
        EventKind::ObjectDeleted { kind: Kind::Pod, id } => Some(*id),
        _ => None,
    }
}

fn judge_one(
    before: &State,
    pod: &Pod,
    node: &Node,
    victims: &[ObjectId],
    asks_for_need: bool,
) -> Result<(), String> {
    if !preempts(before, pod) {
        return Err("its class does not let it".to_owned());
    }
    let gangs = Gangs::of(before, pod, node, victims)?;
    let all = victims;
    let victims: &[ObjectId] = &gangs.here;
    let lower = lower(before, pod, node);
    for other in gangs.elsewhere.iter().filter_map(|id| before.pods().get(*id)) {
        if !elastic::may_end(before, pod, other) {
            return Err(format!("pod {} elsewhere may not end for it", other.meta.name));
        }
    }
    if let Some(id) = victims.iter().find(|id| !lower.iter().any(|(_, lower)| lower == *id)) {
        return Err(format!("pod {id} may not end for it, or does not stay there"));
    }
    let ending = ending(before, node);
    let gone = |but: &[ObjectId]| -> Vec<ObjectId> {
        ending.iter().chain(all.iter().filter(|id| !but.contains(id))).copied().collect()
    };
    let why_not = || why_not_without(before, pod, node, &gone(&[]));
    if let Some(what) = asks_for_need.then(why_not).flatten() {
        return Err(format!("it does not fit without them, for {what}"));
    }
    let unit = |id: &ObjectId| gangs.wholes.iter().find(|gang| gang.contains(id)).cloned();
    let unneeded =
        |id: &&ObjectId| fits_without(before, pod, node, &gone(&unit(id).unwrap_or_else(|| vec![**id])));
    let asked = if elastic::is_in_tree(before, pod) { all } else { victims };
    if let Some(id) = asked.iter().filter(|_| asks_for_need).find(unneeded) {
        return Err(format!("pod {id} need not end"));
    }
    if let Some(leaf) = elastic::fallen(before, pod, all) {
        return Err(format!("level {leaf} falls below its min"));
    }
    check_budgets(before, all)
}

/// Groups that end, counted from the pods.
struct Gangs {
    here: Vec<ObjectId>,
    elsewhere: Vec<ObjectId>,
    /// The victims of each group that ends whole.
    wholes: Vec<Vec<ObjectId>>,
}

impl Gangs {
    /// Refused where a group is left with fewer than it must have, or a pod elsewhere is of no group that ends whole.
    fn of(before: &State, pod: &Pod, node: &Node, victims: &[ObjectId]) -> Result<Self, String> {
        let preemptor = pod;
        let pods = || victims.iter().filter_map(|id| before.pods().get(*id));
        let is_here = |pod: &Pod| pod.node == Some(node.meta.id);
        let (mut wholes, mut seen) = (Vec::new(), std::collections::BTreeSet::new());
        for pod in pods().filter(|_| before.feature_level() >= bulkhead_types::QUEUES_LEVEL) {
            let Some(key) = pod.group_key().filter(|key| seen.insert(key.clone())) else { continue };
            let of_group: Vec<_> =
                before.pods().iter().filter(|pod| pod.group_key().as_ref() == Some(&key)).collect();
            let least = of_group.iter().filter_map(|pod| pod.group()).map(|(_, least)| least).max();
            let object = before.pod_groups().iter().find(|group| group.key() == key);
            let least = least.max(object.map(|group| group.spec.min_member)).unwrap_or(0) as usize;
            let has = |pod: &&&std::sync::Arc<Pod>| {
                pod.node.is_some() && !pod.meta.is_deleting() && pod.status.phase != PodPhase::Failed
            };
            let placed = of_group.iter().filter(has).count();
            let ended: Vec<_> = pods().filter(|pod| pod.group_key().as_ref() == Some(&key)).collect();
            let stay = of_group
                .iter()
                .filter(has)
                .filter(|pod| !pod.status.phase.is_terminal() && !victims.contains(&pod.meta.id))
                .count();
            // One that lacks a role has not all that it must have, however many it has: each of it is by itself.
            let roles = || object.iter().flat_map(|group| &group.spec.min_task_member);
            let of_role = |task: &str| of_group.iter().filter(has).filter(|pod| pod.task() == task).count();
            let gone_of = |task: &str| ended.iter().filter(|pod| pod.task() == task).count();
            let has_all = placed >= least && roles().all(|(task, least)| of_role(task) >= *least as usize);
            let too_few = || {
                placed - ended.len() < least
                    || roles()
                        .any(|(task, least)| of_role(task).saturating_sub(gone_of(task)) < *least as usize)
            };
            if has_all && too_few() && stay > 0 {
                return Err(format!("group {} is left with fewer than it must have", key.name));
            }
            if stay == 0 {
                wholes.push(ended.iter().map(|pod| pod.meta.id).collect());
            }
        }
        let (here, elsewhere): (Vec<_>, Vec<_>) = pods().partition(|pod| is_here(pod));
        let id = |pod: &std::sync::Arc<Pod>| pod.meta.id;
        let here: Vec<ObjectId> = here.into_iter().map(id).collect();
        let elsewhere: Vec<ObjectId> = elsewhere.into_iter().map(id).collect();
        let is_whole = |id: &ObjectId| {
            wholes
                .iter()
                .any(|gang: &Vec<ObjectId>| gang.contains(id) && gang.iter().any(|id| here.contains(id)))
        };
        // Of the tree, wherever it is.
        let is_in_tree = |id: &ObjectId| {
            let victim = before.pods().get(*id);
            elastic::is_in_tree(before, preemptor)
                && victim.is_some_and(|victim| elastic::is_in_tree(before, victim))
        };
        match elsewhere.iter().find(|id| !is_whole(id) && !is_in_tree(id)) {
            Some(id) => Err(format!("pod {id} is on another node, and of no group that ends whole")),
            None => Ok(Self { here, elsewhere, wholes }),
        }
    }
}

/// Of every budget so many of its pods stay healthy as it says, or no healthy one ends.
pub(super) fn check_budgets(before: &State, victims: &[ObjectId]) -> Result<(), String> {
    for budget in before.pod_disruption_budgets().iter() {
        let DisruptionBound::MinAvailable(IntOrPercent::Int(least)) = budget.spec.bound else { continue };
        let counted = |pod: &&std::sync::Arc<Pod>| {
            pod.meta.namespace == budget.meta.namespace
                && budget.spec.selector.matches(&pod.meta.labels)
                && pod.status.ready
                && pod.status.phase == PodPhase::Running
                && !pod.meta.is_deleting()
        };
        let healthy: Vec<_> = before.pods().iter().filter(counted).map(|pod| pod.meta.id).collect();
        let ends = healthy.iter().filter(|id| victims.contains(id)).count();
        if ends > 0 && healthy.len() - ends < least as usize {
            return Err(format!("budget {} wants {least} of {} to stay", budget.meta.name, healthy.len()));
        }
    }
    Ok(())
}
