//! Room that is kept for pods that wait for others to end.

use bulkhead_types::{ObjectId, Pod, PodSpec};

use crate::{NodeUsage, State, priority};

/// What is kept on a node against a pod of a priority: the room of those that were nominated for it and are of the same or a
/// higher priority, without those that `is_out` names. Costs a look into a map where nobody is nominated.
pub(crate) fn kept(
    state: &State,
    node: ObjectId,
    priority: impl FnOnce() -> i32,
    is_out: impl Fn(ObjectId) -> bool,
) -> NodeUsage {
    let mut nominees = state.nominated_on(node).peekable();
    if nominees.peek().is_none() {
        return NodeUsage::default();
    }
    let least = priority();
    nominees
        .filter(|pod| counts(state, pod, least) && !is_out(pod.meta.id))
        .fold(NodeUsage::default(), |sum, pod| sum.with(pod.spec.scheduling_request()))
}

/// Whether a node's devices are kept in the same way.
pub(crate) fn keeps_devices(
    state: &State,
    node: ObjectId,
    priority: impl FnOnce() -> i32,
    is_out: impl Fn(ObjectId) -> bool,
) -> bool {
    let mut asking = state.nominated_on(node).filter(|pod| pod.spec.asks_for_devices()).peekable();
    if asking.peek().is_none() {
        return false;
    }
    let least = priority();
    asking.any(|pod| counts(state, pod, least) && !is_out(pod.meta.id))
}

/// Whether a node's CPUs, as far as pods may have them for themselves, are kept in the same way.
pub(crate) fn keeps_cpus(
    state: &State,
    node: ObjectId,
    priority: impl FnOnce() -> i32,
    is_out: impl Fn(ObjectId) -> bool,
) -> bool {
    let pins = |pod: &&std::sync::Arc<Pod>| matches!(crate::cpus::needs(state, pod), Ok(Some(_)));
    let mut pinning = state.nominated_on(node).filter(pins).peekable();
    if pinning.peek().is_none() {
        return false;
    }
    let least = priority();
    pinning.any(|pod| counts(state, pod, least) && !is_out(pod.meta.id))
}

/// Whether a port that a pod publishes is kept on a node in the same way.
pub(crate) fn keeps_ports(
    state: &State,
    (node, spec): (ObjectId, &PodSpec),
    priority: impl FnOnce() -> i32,
    is_out: impl Fn(ObjectId) -> bool,
) -> bool {
    let conflicts = |other: &&std::sync::Arc<Pod>| {
        other.spec.host_ports().any(|theirs| spec.host_ports().any(|own| own.conflicts_with(&theirs)))
    };
    let mut publishing = state.nominated_on(node).filter(conflicts).peekable();
    if publishing.peek().is_none() {
        return false;
    }
    let least = priority();
    publishing.any(|pod| counts(state, pod, least) && !is_out(pod.meta.id))
}

fn counts(state: &State, pod: &Pod, least: i32) -> bool {
    priority::of(state, &pod.spec).is_some_and(|one| one.value >= least)
}
