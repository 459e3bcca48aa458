//! Whether groups were bound as wholes and queues within their capability, asked of every pod: slow, obvious, and without any
//! of the code that decides.

use std::collections::BTreeSet;
use std::sync::Arc;

use bulkhead_types::{
    EventKind, HugePageSize, Measure, Pod, PodGroup, PodGroupKey, PodPhase, QUEUES_LEVEL, Queue, QueueState,
    Transaction,
};

use crate::State;

pub(super) fn object<'a>(state: &'a State, key: &PodGroupKey) -> Option<&'a Arc<PodGroup>> {
    state.pod_groups().iter().find(|group| group.key() == *key)
}

pub(super) fn members<'a>(state: &'a State, key: &'a PodGroupKey) -> impl Iterator<Item = &'a Arc<Pod>> {
    state.pods().iter().filter(move |pod| pod.group_key().as_ref() == Some(key))
}

fn is_placed(pod: &Pod) -> bool {
    pod.node.is_some() && !pod.meta.is_deleting() && pod.status.phase != PodPhase::Failed
}

/// Whether a group has as many pods with a node as it must have.
pub(super) fn is_complete(state: &State, key: &PodGroupKey) -> bool {
    let object = object(state, key);
    let alive = |pod: &&Arc<Pod>| !pod.meta.is_deleting() && pod.status.phase != PodPhase::Failed;
    let by_labels =
        members(state, key).filter(alive).filter_map(|pod| pod.group()).map(|(_, least)| least).max();
    let least = by_labels.max(object.map(|group| group.spec.min_member));
    let Some(least) = least else { return false };
    let placed: Vec<_> = members(state, key).filter(|pod| is_placed(pod)).collect();
    let roles = object.map(|group| &group.spec.min_task_member);
    let has_role = |(task, least): (&smol_str::SmolStr, &u32)| {
        placed.iter().filter(|pod| pod.task() == task.as_str()).count() >= *least as usize
    };
    placed.len() >= least as usize && roles.is_none_or(|roles| roles.iter().all(has_role))
}

/// The name of a pod's queue.
#[must_use]
pub fn queue_name(state: &State, pod: &Pod) -> String {
    let of_group =
        pod.group_key().and_then(|key| object(state, &key).map(|group| group.spec.queue.to_string()));
    let own = || pod.own_queue().map(|name| name.to_string());
    of_group.or_else(own).unwrap_or_else(|| "default".to_owned())
}

fn queue<'a>(state: &'a State, name: &str) -> Option<&'a Arc<Queue>> {
    state.queues().iter().find(|queue| queue.meta.name.as_str() == name)
}

/// What the pods of a queue hold of something; devices by what containers ask for.
fn held(state: &State, name: &str, measure: &Measure) -> u64 {
    let holds = |pod: &&Arc<Pod>| pod.node.is_some() && !pod.status.phase.is_terminal();
    let of_queue = state.pods().iter().filter(holds).filter(|pod| queue_name(state, pod) == name);
    let amount = |pod: &Arc<Pod>| match measure {
        Measure::RequestsCpu => pod.spec.scheduling_request().cpu_millis,
        Measure::RequestsMemory => pod.spec.scheduling_request().memory_bytes,
        Measure::RequestsEphemeralStorage => pod.spec.scheduling_request().ephemeral_storage_bytes,
        Measure::Pods => 1,
        Measure::Extended(resource) if HugePageSize::of_resource(resource).is_some() => {
            let size = HugePageSize::of_resource(resource).expect("one of the sizes");
            pod.spec.scheduling_request().huge_pages.of(size)
        }
        Measure::Extended(resource) => {
            let all = pod.spec.containers.iter().flat_map(|container| container.extended_resources());
            all.filter(|(name, _)| *name == resource).map(|(_, amount)| amount).sum()
        }
        _ => 0,
    };
    of_queue.map(amount).sum()
}

/// Judges the bindings of a transaction by the States before and after it.
///
/// # Errors
/// What is wrong.
pub fn judge(before: &State, after: &State, transaction: &Transaction) -> Result<(), String> {
    if before.feature_level() < QUEUES_LEVEL {
        return Ok(());
    }
    let bound = transaction.events.iter().filter_map(|event| match &event.kind {
        EventKind::PodBound(binding) => before.pods().get(binding.pod),
        _ => None,
    });
    let (mut groups, mut queues) = (BTreeSet::new(), BTreeSet::new());
    for pod in bound {
        groups.extend(pod.group_key());
        queues.insert(queue_name(before, pod));
    }
    if let Some(key) = groups.iter().find(|key| !is_complete(after, key)) {
        return Err(format!("pod group {} is bound in part", key.name));
    }
    for name in queues.iter().filter(|name| *name != "default") {
        let Some(queue) = queue(before, name) else { return Err(format!("there is no queue {name}")) };
        if queue.spec.state != QueueState::Open {
            return Err(format!("queue {name} is closed"));
        }
        for measure in queue.spec.capability.measures() {
            let (most, held) = (queue.spec.capability.of(measure).unwrap_or(0), held(after, name, measure));
            // One whose capability was lowered keeps what it has, and gets no more of it.
            if held > most && held > self::held(before, name, measure) {
                return Err(format!("queue {name} holds {held} of {}, and may hold {most}", measure.name()));
            }
        }
    }
    Ok(())
}

/// Whether a pod may wait although it fits somewhere: for its group or its queue, or because room is kept for a group.
#[must_use]
pub fn may_wait(state: &State, pod: &Pod) -> bool {
    if state.feature_level() < QUEUES_LEVEL {
        return pod.group().is_some();
    }
    let waits = |key: &PodGroupKey| !is_complete(state, key);
    if pod.group_key().is_some_and(|key| waits(&key)) {
        return true;
    }
    let name = queue_name(state, pod);
    // A queue with a capability may be full.
    let in_queue = queue(state, &name);
    let is_held = name != "default"
        && in_queue
            .is_none_or(|queue| queue.spec.state != QueueState::Open || !queue.spec.capability.is_empty());
    let pending = state.pending_pods().iter().filter_map(|id| state.pods().get(*id));
    is_held || pending.filter_map(|pod| pod.group_key()).any(|key| waits(&key))
}
