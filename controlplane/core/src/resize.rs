//! Whether a pod that runs may have other sizes: asked by `decide`, and by the reconciler that tries again.
//!
//! What a resize holds is the larger of what was and of what is wanted, until the agent says that it is done: the node's room is
//! neither given away before the guest gave it back, nor promised to the guest before it is there.

use bulkhead_types::{
    ContainerSize, Object, Pod, PodResize, Rare, Rejection, ResizeStage, Shared, larger_sizes,
};

use crate::State;
use crate::elastic_quota::{Ask, ElasticLedger};
use crate::placement::{check_room, kept};
use crate::priority;
use crate::queue::{self, QueueLedger};
use crate::quota::Ledger;
use crate::state::Charge;

/// Longest text of a resize, in bytes.
const MESSAGE_LENGTH_MAX: usize = 1024;

/// Whether there is room.
#[derive(Debug)]
pub(crate) enum Room {
    /// Now.
    Now,
    /// Not now; why.
    Later(String),
    /// A quota is in the way.
    Refused(Rejection),
    /// Never on this node; why.
    Never(String),
}

/// What a pod counts for while it becomes this.
pub(crate) fn held(pod: &Pod, desired: &[ContainerSize]) -> Vec<ContainerSize> {
    larger_sizes(&pod.spec.sizes(), desired)
}

/// A pod with other sizes, and what is still to be done.
pub(crate) fn with_sizes(pod: &Pod, sizes: &[ContainerSize], resize: &Rare<PodResize>) -> Pod {
    let before = pod.desired_spec().sizes();
    let mut pod = pod.clone();
    if !sizes.is_empty() {
        pod.spec = Shared::new(pod.spec.resized(sizes));
    }
    pod.status.resize = resize.clone();
    pod.meta.generation += u64::from(pod.desired_spec().sizes() != before);
    pod
}

/// Whether a pod's node, and every quota above it, has room for what it would hold.
pub(crate) fn room(state: &State, pod: &Pod, desired: &[ContainerSize]) -> Room {
    let Some(node) = pod.node.and_then(|node| state.nodes.get(node)) else {
        return Room::Later("its node is not there".to_owned());
    };
    let sizes = held(pod, desired);
    let wanted = with_sizes(pod, &sizes, &Rare::NONE);
    let (present, request) = (pod.spec.scheduling_request(), wanted.spec.scheduling_request());
    if !desired_fits(state, pod, desired) {
        let name = &node.meta.name;
        return Room::Never(format!("Node {name} has less than that altogether, whoever else is there"));
    }
    if wanted.spec == pod.spec {
        return Room::Now;
    }
    if let Err(rejection) = Ledger::of(state, pod.meta.namespace.as_ref()).grow_pod(pod, &wanted) {
        return Room::Refused(rejection);
    }
    if request != present {
        let usage = state.node_usage(node.meta.id).without(present);
        let priority = || priority::of(state, &pod.spec).map_or(i32::MIN, |priority| priority.value);
        let taken = usage.plus(kept(state, node.meta.id, priority, |id| id == pod.meta.id));
        if let Err(misfit) = check_room(request, node, taken) {
            return Room::Later(format!("Node {}: {misfit}", node.meta.name));
        }
    }
    let classes = &state.devices.classes;
    let growth = Charge::of_pod(&wanted, classes).beyond(&Charge::of_pod(pod, classes));
    if let Some(queue) = queue::of_pod(state, pod)
        && let Err(reason) = QueueLedger::default().check(state, &queue, &growth)
    {
        return Room::Later(reason);
    }
    if let Some(ask) = Ask::growth(state, pod, &growth)
        && let Err(reason) = ElasticLedger::default().check(state, &ask)
    {
        return Room::Later(reason);
    }
    Room::Now
}

/// Whether the node could hold the pod if it had nothing else.
fn desired_fits(state: &State, pod: &Pod, desired: &[ContainerSize]) -> bool {
    let allocatable =
        pod.node.and_then(|node| state.nodes.get(node)).map(|node| node.status.facts.allocatable);
    allocatable.is_some_and(|all| pod.spec.resized(desired).scheduling_request().fits_in(all))
}

/// What follows for a pod that shall have these sizes: what it holds from now on, and what its status says. A quota in the way
/// is a matter of time.
pub(crate) fn proceed(
    state: &State,
    pod: &Pod,
    desired: Vec<ContainerSize>,
    now_ms: u64,
) -> (Vec<ContainerSize>, PodResize) {
    let (stage, message) = match room(state, pod, &desired) {
        Room::Now => (ResizeStage::InProgress, String::new()),
        Room::Later(reason) => (ResizeStage::Deferred, reason),
        Room::Refused(rejection) => (ResizeStage::Deferred, rejection.to_string()),
        Room::Never(reason) => (ResizeStage::Infeasible, reason),
    };
    let sizes = if stage == ResizeStage::InProgress { held(pod, &desired) } else { Vec::new() };
    (sizes, PodResize { desired, stage, message: cut(message), since_ms: now_ms })
}

/// What people are told is of bounded length.
pub(crate) fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MESSAGE_LENGTH_MAX));
    text
}

/// The pod, if it waits for room for its resize, and might have it.
pub(crate) fn waiting(object: &Object) -> Option<&Pod> {
    let Object::Pod(pod) = object else { return None };
    is_waiting(pod).then_some(pod)
}

/// Whether it waits for room for its resize.
pub(crate) fn is_waiting(pod: &Pod) -> bool {
    let deferred = pod.resize().is_some_and(|resize| resize.stage == ResizeStage::Deferred);
    deferred && !pod.meta.is_deleting() && !pod.status.phase.is_terminal()
}
