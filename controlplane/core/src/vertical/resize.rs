//! What a container gets of a recommendation, and which pods have something else.

use std::sync::Arc;

use bulkhead_types::{
    AMOUNT_MAX, Container, ContainerState, ContainerStatus, Kind, MeasuredResource, Object, ObjectRef, Pod,
    RECOMMENDED_RESOURCES, ResourceEstimate, ResourceRequirements, UpdateMode, VERTICAL_EVICTION_MS,
    VerticalAutoscalerSpec, VerticalAutoscalerStatus, VerticalPodAutoscaler, resource_of,
};

use crate::State;
use crate::autoscale::workload_pods;

/// A pod that has lived so long is replaced also for a smaller difference, in milliseconds (Kubernetes' default).
const LONG_LIVED_MS: u64 = 12 * 3_600_000;
/// How much a request must differ then, in per cent (Kubernetes' default).
const DIFFERENCE_PERCENT: u128 = 10;

/// The word for a container that the kernel killed for its memory.
pub(crate) const REASON_OOM_KILLED: &str = "OOMKilled";

/// Requests and limits of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resized {
    pub(crate) requests: ResourceRequirements,
    pub(crate) limits: ResourceRequirements,
}

/// What the container requests: a missing request equals the limit.
fn request_of(container: &Container, resource: MeasuredResource) -> Option<u64> {
    resource_of(container.requests.or(container.limits), resource)
}

/// What is recommended of a resource of a container, if it follows that: within what is allowed, and up to the limit
/// where that stays.
fn allowed(
    spec: &VerticalAutoscalerSpec,
    status: &VerticalAutoscalerStatus,
    container: &Container,
    resource: MeasuredResource,
) -> Option<ResourceEstimate> {
    let name = &container.name;
    let estimate = status.recommendation(name)?.estimate(resource)?;
    let limit = resource_of(container.limits, resource).filter(|_| !spec.scales_limits(name));
    let within = |amount| spec.bounded(name, resource, amount).min(limit.unwrap_or(u64::MAX));
    spec.controls(name, resource).then(|| estimate.map(within))
}

/// What the container gets. What it got already stays the same.
pub(crate) fn fit(
    spec: &VerticalAutoscalerSpec,
    status: &VerticalAutoscalerStatus,
    container: &Container,
) -> Resized {
    let mut fitted = Resized { requests: container.requests, limits: container.limits };
    for resource in RECOMMENDED_RESOURCES {
        let Some(estimate) = allowed(spec, status, container, resource) else { continue };
        let (request, limit) = (request_of(container, resource), resource_of(container.limits, resource));
        let limit = match (request, limit) {
            (Some(request), Some(limit)) if spec.scales_limits(&container.name) => {
                Some(in_proportion(limit, request, estimate.target))
            }
            (_, limit) => limit,
        };
        set(&mut fitted.requests, resource, Some(estimate.target));
        set(&mut fitted.limits, resource, limit);
    }
    fitted
}

/// The limit that stands to the new request as it stood to the former one; never less than the request.
fn in_proportion(limit: u64, request: u64, target: u64) -> u64 {
    if request == 0 {
        return limit.max(target);
    }
    let exact = u128::from(limit) * u128::from(target) / u128::from(request);
    u64::try_from(exact).map_or(AMOUNT_MAX, |limit| limit.min(AMOUNT_MAX)).max(target)
}

fn set(amounts: &mut ResourceRequirements, resource: MeasuredResource, amount: Option<u64>) {
    match resource {
        MeasuredResource::Cpu => amounts.cpu_millis = amount,
        MeasuredResource::Memory => amounts.memory_bytes = amount,
        MeasuredResource::Queried => {}
    }
}

/// The workload that a pod belongs to; `None` for pods that nobody replaces.
pub(crate) fn workload_of(state: &State, pod: &Pod) -> Option<ObjectRef> {
    let owner = pod.meta.owner?;
    let (kind, id) = match owner.kind {
        Kind::ReplicaSet => {
            let above = state.replica_sets.get(owner.id)?.meta.owner?;
            (above.kind, above.id)
        }
        kind => (kind, owner.id),
    };
    state.object(kind, id).map(|workload| workload.object_ref())
}

/// How a container was killed for its memory the last time, if it was: when, milliseconds since the epoch.
pub(super) fn oom_killed_at_ms(status: &ContainerStatus) -> Option<u64> {
    let present = match &status.state {
        ContainerState::Terminated(end) => Some(end),
        ContainerState::Waiting { .. } | ContainerState::Running { .. } => None,
    };
    let ends = present.into_iter().chain(&status.last_termination);
    ends.filter(|end| end.reason == REASON_OOM_KILLED).map(|end| end.finished_at_ms).max()
}

/// Whether a pod's requests are so far from what is recommended that it should be replaced: outside of the bounds, by a
/// tenth when it is old, or too small for what killed it.
pub(crate) fn is_misfit(vertical: &VerticalPodAutoscaler, pod: &Pod, now_ms: u64) -> bool {
    let (spec, status) = (&vertical.spec, &vertical.status);
    let is_old = now_ms.saturating_sub(pod.meta.created_at_ms) >= LONG_LIVED_MS;
    let needs = |container: &Container, resource| {
        let Some(estimate) = allowed(spec, status, container, resource) else { return false };
        let Some(request) = request_of(container, resource) else { return true };
        let differs =
            u128::from(request.abs_diff(estimate.target)) * 100 >= u128::from(request) * DIFFERENCE_PERCENT;
        let is_outside = request < estimate.lower || request > estimate.upper;
        let too_small = || {
            let known = pod.status.containers.iter().find(|known| known.name == container.name);
            resource == MeasuredResource::Memory && known.and_then(oom_killed_at_ms).is_some()
        };
        // What would stay as it is is no reason, whatever the bounds are.
        request != estimate.target
            && (is_outside || (is_old && differs) || (request < estimate.target && too_small()))
    };
    let containers = pod.spec.containers.iter();
    containers.clone().any(|one| RECOMMENDED_RESOURCES.into_iter().any(|resource| needs(one, resource)))
}

fn lives(pod: &Pod) -> bool {
    !pod.meta.is_deleting() && !pod.status.phase.is_terminal()
}

/// Whether a pod may be evicted for its requests now.
///
/// # Errors
/// Why not.
pub(crate) fn check_eviction(
    state: &State,
    vertical: &Arc<VerticalPodAutoscaler>,
    pod: &Pod,
    now_ms: u64,
) -> Result<(), &'static str> {
    let VerticalPodAutoscaler { meta, spec, status } = &**vertical;
    if meta.is_deleting() || spec.update_mode != UpdateMode::Auto {
        return Err("its autoscaler evicts no pods");
    }
    let reference = Object::VerticalPodAutoscaler(Arc::clone(vertical)).object_ref();
    let target = spec.target.object_ref(reference.namespace.as_ref());
    if workload_of(state, pod).as_ref() != Some(&target) {
        return Err("it does not belong to its autoscaler's workload");
    }
    if !lives(pod) || !is_misfit(vertical, pod, now_ms) {
        return Err("it ends already, or its requests suit");
    }
    if status.last_eviction_ms != 0 && now_ms < status.last_eviction_ms.saturating_add(VERTICAL_EVICTION_MS) {
        return Err("another pod of its workload was evicted a moment ago");
    }
    let Some(id) = state.find(target.kind, target.namespace.as_ref(), &target.name) else {
        return Err("its workload is gone");
    };
    let pods = workload_pods(state, target.kind, id);
    let others = || pods.iter().filter(|other| other.meta.id != pod.meta.id);
    if others().any(|other| other.meta.is_deleting() && !other.status.phase.is_terminal()) {
        return Err("another pod of its workload ends");
    }
    if others().any(|other| lives(other) && !other.status.ready && !is_misfit(vertical, other, now_ms)) {
        return Err("another pod of its workload is not ready yet");
    }
    // One that is not ready is no loss, so that those which never become ready can get what they lack.
    let left = others().filter(|other| lives(other) && (other.status.ready || !pod.status.ready)).count();
    if u32::try_from(left).unwrap_or(u32::MAX) < spec.min_replicas {
        return Err("too few others of its workload live");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
