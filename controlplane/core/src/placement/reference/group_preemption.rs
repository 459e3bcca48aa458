//! Whether others may end for a group that waits, asked of every pod: slow, obvious, and without any of the code that chooses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bulkhead_types::{
    EventKind, GROUP_PREEMPTION_LEVEL, Kind, Node, ObjectId, Pod, PodGroupKey, PodPhase, Resources,
    Transaction,
};

use super::preemption::{check_budgets, devices_without, ending, preempts, priority};
use super::queues::{is_complete, members, object};
use super::{Scene, elastic, ports};
use crate::State;
use crate::cpus::{self, Asks, NodeCpus};
use crate::devices::{self, Needs, NodeDevices, Policies};
use crate::placement::{check_node, check_numa};

/// Victims up to which it is asked whether other seats would do without one of them.
const REARRANGED_MAX: usize = 64;

/// Where pods of a group shall be, in order.
type Seats<'a> = Vec<(&'a Arc<Pod>, &'a Arc<Node>)>;

/// Whether a pod gets no node but with others of its group.
#[must_use]
pub fn is_of_waiting_group(state: &State, pod: &Pod) -> bool {
    state.feature_level() >= GROUP_PREEMPTION_LEVEL
        && pod.group_key().is_some_and(|key| !is_complete(state, &key))
}

/// Whether a pod's group waits for nothing but a node for this one: it lacks one, all are of one priority, and nothing but room
/// holds it up; nor does room that may be kept for another group.
#[must_use]
pub fn lacks_only(state: &State, pod: &Pod) -> bool {
    let Some(key) = pod.group_key().filter(|_| is_of_waiting_group(state, pod)) else { return false };
    let counts = |pod: &&Arc<Pod>| !pod.meta.is_deleting() && pod.status.phase != PodPhase::Failed;
    let all: Vec<_> = members(state, &key).filter(counts).collect();
    let by_labels = all.iter().filter_map(|pod| pod.group()).map(|(_, least)| least as usize).max();
    let placed = all.iter().filter(|pod| pod.node.is_some()).count();
    let is_even = all.iter().all(|other| priority(state, other) == priority(state, pod));
    let waits_too = |other: &Arc<Pod>| {
        other.node.is_none()
            && other.group_key().is_some_and(|other| other != key)
            && is_of_waiting_group(state, other)
    };
    object(state, &key).is_none()
        && by_labels == Some(placed + 1)
        && is_even
        && pod.own_queue().is_none()
        && pod.spec.claims().next().is_none()
        && !elastic::is_in_tree(state, pod)
        && !state.pods().iter().any(waits_too)
}

/// Judges what is kept for groups in a transaction by the State before it: all that must be placed fit together, and who ends is
/// lower, needed and, of groups, all or what they can spare; budgets hold.
///
/// # Errors
/// What is wrong.
pub fn judge(before: &State, transaction: &Transaction) -> Result<(), String> {
    let mut groups = BTreeMap::<PodGroupKey, Seats<'_>>::new();
    for event in &transaction.events {
        let EventKind::PodStatusChanged { id, status } = &event.kind else { continue };
        let Some(pod) = before.pods().get(*id) else { continue };
        let Some(node) = status.nominated_node.get() else { continue };
        if pod.status.nominated_node == status.nominated_node || !is_of_waiting_group(before, pod) {
            continue;
        }
        let node = before.nodes().get(*node).ok_or("the node is not there")?;
        groups.entry(pod.group_key().ok_or("it has no group")?).or_default().push((pod, node));
    }
    groups.iter().try_for_each(|(key, seats)| {
        let victims = victims_of(before, transaction, seats);
        judge_one(before, key, seats, &victims).map_err(|why| {
            format!(
                "pod group {}, of which {} get room and {} end: {why}",
                key.name,
                seats.len(),
                victims.len()
            )
        })
    })
}

/// Who ends for one of these pods; one that nothing runs for goes at once.
fn victims_of(before: &State, transaction: &Transaction, seats: &Seats<'_>) -> BTreeSet<ObjectId> {
    let is_own = |id: ObjectId| seats.iter().any(|(pod, _)| pod.meta.id == id);
    let ends = |kind: &EventKind| match kind {
        EventKind::DeletionRequested { kind: Kind::Pod, id, deletion, .. } => {
            deletion.preemptor.is_some_and(is_own).then_some(*id)
        }
        EventKind::ObjectDeleted { kind: Kind::Pod, id } => {
            before.pods().get(*id).filter(|pod| pod.node.is_some()).map(|_| *id)
        }
        _ => None,
    };
    transaction.events.iter().filter_map(|event| ends(&event.kind)).collect()
}

fn judge_one(
    before: &State,
    key: &PodGroupKey,
    seats: &Seats<'_>,
    victims: &BTreeSet<ObjectId>,
) -> Result<(), String> {
    let own = priority(before, seats[0].0);
    for (pod, _) in seats {
        let name = &pod.meta.name;
        if !preempts(before, pod) || priority(before, pod) != own || own.is_none() {
            return Err(format!("pod {name} may not make others end, or is of another priority"));
        }
        if elastic::is_in_tree(before, pod) {
            return Err(format!("pod {name} is in the elastic quota tree"));
        }
    }
    check_enough(before, key, seats)?;
    for victim in victims.iter().filter_map(|id| before.pods().get(*id)) {
        let theirs = priority(before, victim);
        let stays = victim.node.is_some() && !victim.meta.is_deleting() && !victim.status.phase.is_terminal();
        if !stays || theirs.is_none() || theirs >= own {
            return Err(format!("pod {} is not lower, or does not stay", victim.meta.name));
        }
    }
    let units = units(before, victims)?;
    let nodes: BTreeSet<ObjectId> = seats.iter().map(|(_, node)| node.meta.id).collect();
    let ends: Vec<ObjectId> = nodes
        .iter()
        .filter_map(|node| before.nodes().get(*node))
        .flat_map(|node| ending(before, node))
        .collect();
    let gone = |but: &BTreeSet<ObjectId>| -> BTreeSet<ObjectId> {
        ends.iter().chain(victims.difference(but)).copied().collect()
    };
    if let Some(why) = why_not(before, key, seats, &gone(&BTreeSet::new())) {
        return Err(format!("they do not fit without them, for {why}"));
    }
    for unit in &units {
        let names: Vec<_> = unit
            .iter()
            .filter_map(|id| before.pods().get(*id))
            .map(|pod| pod.meta.name.to_string())
            .collect();
        if why_not(before, key, seats, &gone(unit)).is_none() {
            return Err(format!("{} need not end", names.join(", ")));
        }
        if has_others(before, key, seats, &gone(unit)) && units.len() <= REARRANGED_MAX {
            return Err(format!("{} need not end: there are other seats", names.join(", ")));
        }
    }
    check_budgets(before, &victims.iter().copied().collect::<Vec<_>>())
}

/// With these the group has all that it must have.
fn check_enough(before: &State, key: &PodGroupKey, seats: &Seats<'_>) -> Result<(), String> {
    let counts = |pod: &&Arc<Pod>| !pod.meta.is_deleting() && pod.status.phase != PodPhase::Failed;
    let all: Vec<_> = members(before, key).filter(counts).collect();
    let has = |pod: &&&Arc<Pod>| {
        pod.node.is_some() || seats.iter().any(|(seated, _)| seated.meta.id == pod.meta.id)
    };
    let placed: Vec<_> = all.iter().filter(has).collect();
    let by_labels = all.iter().filter_map(|pod| pod.group()).map(|(_, least)| least).max();
    let object = object(before, key);
    let least = by_labels.max(object.map(|group| group.spec.min_member)).unwrap_or(u32::MAX);
    let roles = object.map(|group| group.spec.min_task_member.clone()).unwrap_or_default();
    let of_role = |task: &str| placed.iter().filter(|pod| pod.task() == task).count();
    match roles.iter().find(|(task, least)| of_role(task) < **least as usize) {
        Some((task, _)) => Err(format!("there are too few of role {task}")),
        None if placed.len() < least as usize => Err("there are too few of them".to_owned()),
        None => Ok(()),
    }
}

/// Victims that stay together or not at all. Refused where a group is left with fewer than it must have.
fn units(before: &State, victims: &BTreeSet<ObjectId>) -> Result<Vec<BTreeSet<ObjectId>>, String> {
    let (mut units, mut groups) = (Vec::new(), BTreeMap::<PodGroupKey, BTreeSet<ObjectId>>::new());
    for pod in victims.iter().filter_map(|id| before.pods().get(*id)) {
        match pod.group_key() {
            Some(key) => _ = groups.entry(key).or_default().insert(pod.meta.id),
            None => units.push(BTreeSet::from([pod.meta.id])),
        }
    }
    for (key, ended) in groups {
        let object = object(before, &key);
        let all: Vec<_> = members(before, &key).collect();
        let counts = |pod: &&&Arc<Pod>| !pod.meta.is_deleting() && pod.status.phase != PodPhase::Failed;
        let least = all.iter().filter(counts).filter_map(|pod| pod.group()).map(|(_, least)| least).max();
        let least = least.max(object.map(|group| group.spec.min_member)).unwrap_or(0) as usize;
        let placed = |but: &BTreeSet<ObjectId>, task: Option<&str>| {
            let is_it = |pod: &&&Arc<Pod>| {
                pod.node.is_some()
                    && !but.contains(&pod.meta.id)
                    && task.is_none_or(|task| pod.task() == task)
            };
            all.iter().filter(counts).filter(is_it).count()
        };
        let roles = object.map(|group| group.spec.min_task_member.clone()).unwrap_or_default();
        let has_all = |but: &BTreeSet<ObjectId>| {
            let has_role = |(task, least): (&smol_str::SmolStr, &u32)| {
                placed(but, Some(task.as_str())) >= *least as usize
            };
            placed(but, None) >= least && roles.iter().all(has_role)
        };
        let holds = |pod: &&&Arc<Pod>| pod.node.is_some() && !pod.status.phase.is_terminal();
        let stay = all.iter().filter(counts).filter(holds).any(|pod| !ended.contains(&pod.meta.id));
        let is_broken = has_all(&BTreeSet::new()) && !has_all(&ended);
        match (is_broken, stay) {
            (true, true) => return Err(format!("group {} is left with fewer than it must have", key.name)),
            (true, false) => units.push(ended),
            (false, _) => units.extend(ended.into_iter().map(|id| BTreeSet::from([id]))),
        }
    }
    Ok(units)
}

/// What a node holds, and how many pods: who is there and stays, who was given a seat, and for whom room is kept. Then whether
/// devices or CPUs are kept, and whether a port that a pod wants is taken or kept.
fn held(
    before: &State,
    (key, asks): (&PodGroupKey, &Pod),
    node: &Node,
    gone: &BTreeSet<ObjectId>,
    seated: &[(ObjectId, ObjectId)],
) -> (Resources, u32, bool, bool) {
    let own = priority(before, asks);
    let (mut sum, mut count, mut keeps_hardware, mut has_port) = (Resources::default(), 0, false, false);
    for pod in before.pods().iter() {
        let is_there =
            pod.node == Some(node.meta.id) && !pod.status.phase.is_terminal() && !gone.contains(&pod.meta.id);
        let is_seated = seated.contains(&(pod.meta.id, node.meta.id));
        let is_kept = pod.node.is_none()
            && !pod.meta.is_deleting()
            && !pod.status.phase.is_terminal()
            && pod.status.nominated_node.get() == Some(&node.meta.id)
            && pod.group_key().as_ref() != Some(key)
            && priority(before, pod).is_some()
            && priority(before, pod) >= own;
        if is_there || is_seated || is_kept {
            sum = sum.plus(pod.spec.scheduling_request());
            count += 1;
            has_port |= ports::conflict(asks, pod);
            keeps_hardware |=
                is_kept && (pod.spec.asks_for_devices() || matches!(cpus::needs(before, pod), Ok(Some(_))));
        }
    }
    (sum, count, keeps_hardware, has_port)
}

fn has_room(node: &Node, (sum, count): (Resources, u32)) -> bool {
    let Resources { cpu_millis, memory_bytes, ephemeral_storage_bytes, huge_pages, pinned_memory_bytes } =
        node.status.facts.allocatable;
    sum.cpu_millis <= cpu_millis
        && sum.memory_bytes <= memory_bytes
        && sum.ephemeral_storage_bytes <= ephemeral_storage_bytes
        && sum.huge_pages.two_mib_bytes <= huge_pages.two_mib_bytes
        && sum.huge_pages.one_gib_bytes <= huge_pages.one_gib_bytes
        && (pinned_memory_bytes == 0 || sum.pinned_memory_bytes <= pinned_memory_bytes)
        && count <= node.status.facts.pods_max
}

/// What keeps one of the pods off its node, each beside those before; `None` when all fit.
fn why_not(
    before: &State,
    key: &PodGroupKey,
    seats: &Seats<'_>,
    gone: &BTreeSet<ObjectId>,
) -> Option<&'static str> {
    let mut seated = Vec::new();
    let mut ledgers = BTreeMap::<ObjectId, (NodeDevices, Option<NodeCpus>)>::new();
    for (pod, node) in seats {
        let (sum, count, keeps_hardware, has_port) = held(before, (key, pod), node, gone, &seated);
        if !has_room(node, (sum.plus(pod.spec.scheduling_request()), count + 1)) {
            return Some("room");
        }
        if has_port {
            return Some("ports");
        }
        if check_node(&pod.spec, node).is_err() {
            return Some("the node");
        }
        let mut scene = Scene::of(before, &seated);
        scene.placed.retain(|(other, _)| !gone.contains(&other.meta.id));
        if scene.check(pod, node).is_err() {
            return Some("other pods");
        }
        let (Ok(needs), Ok(wanted)) = (Needs::of_pod(pod, &before.devices.classes), cpus::needs(before, pod))
        else {
            return Some("what they ask for");
        };
        let asked = (!needs.asks.is_empty()).then_some((&needs, Policies::of(pod)));
        if asked.is_some() || wanted.is_some() {
            let gone: Vec<ObjectId> = gone.iter().copied().collect();
            let (devices, cpus) = ledgers.entry(node.meta.id).or_insert_with(|| {
                let stays = before.pods().iter().filter(|other| !gone.contains(&other.meta.id));
                let devices = devices_without(before, node, &gone).unwrap_or_default();
                (devices, cpus::ledger_of(node, stays))
            });
            let asks = Asks { cpus: wanted.as_ref(), devices: asked };
            if keeps_hardware
                || devices::check_node(&needs, node, Some(devices)).is_err()
                || check_numa(&asks, node, cpus.as_ref(), Some(devices)).is_err()
            {
                return Some("devices or CPUs");
            }
            let Some(chosen) = cpus::choose(&asks, cpus.as_ref(), Some(devices)) else {
                return Some("devices or CPUs");
            };
            devices.take(pod.meta.id, &chosen.devices);
            if let Some((cpus, given)) = cpus.as_mut().zip(chosen.cpus.as_ref()) {
                cpus.take(pod.meta.id, given);
            }
        }
        seated.push((pod.meta.id, node.meta.id));
    }
    None
}

/// Whether pods that are all alike, and look at nobody, have seats anywhere: as many as fit on each node, together. Of others
/// nothing is said, nor where room may be kept for another group, which the State does not tell.
fn has_others(before: &State, key: &PodGroupKey, seats: &Seats<'_>, gone: &BTreeSet<ObjectId>) -> bool {
    let first = seats[0].0;
    let is_plain = |pod: &Arc<Pod>| {
        pod.spec == first.spec
            && pod.spec.node_name.is_none()
            && pod.spec.claims().next().is_none()
            && pod.spec.host_ports().next().is_none()
            && !pod.spec.asks_for_devices()
            && matches!(cpus::needs(before, pod), Ok(None))
    };
    let says = |pod: &Arc<Pod>| pod.spec.placement().is_some();
    let waits_too = |pod: &Arc<Pod>| {
        pod.node.is_none()
            && pod.group_key().is_some_and(|other| other != *key)
            && is_of_waiting_group(before, pod)
    };
    if !seats.iter().all(|(pod, _)| is_plain(pod))
        || before.pods().iter().any(|pod| says(pod) || waits_too(pod))
    {
        return false;
    }
    let request = first.spec.scheduling_request();
    let mut count = 0;
    for node in before.nodes().iter().filter(|node| check_node(&first.spec, node).is_ok()) {
        let gone = gone.iter().copied().chain(ending(before, node)).collect();
        let (mut sum, mut pods, ..) = held(before, (key, first), node, &gone, &[]);
        while count < seats.len() && has_room(node, (sum.plus(request), pods + 1)) {
            (sum, pods, count) = (sum.plus(request), pods + 1, count + 1);
        }
    }
    count >= seats.len()
}
