//! Room that is kept for pods that wait for others to end.

use bulkhead_types::ObjectId;

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
    let counts = |pod: &&std::sync::Arc<bulkhead_types::Pod>| {
        !is_out(pod.meta.id) && priority::of(state, &pod.spec).is_some_and(|one| one.value >= least)
    };
    nominees.filter(counts).fold(NodeUsage::default(), |sum, pod| sum.with(pod.spec.scheduling_request()))
}
