//! How far a group of pods is that are placed together or not at all: what `decide` and the scheduler both ask.

use std::sync::Arc;

use bulkhead_types::{ObjectId, POD_GROUP_LEVEL, Pod, PodGroupKey, PodPhase};

use crate::{State, priority};

/// A group as it is now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    /// How many must be placed together: the most that any of its pods says.
    pub(crate) least: u32,
    /// How many have a node, and do not end, and have not failed.
    pub(crate) placed: u32,
    /// Those that wait for a node, oldest first.
    pub(crate) waiting: Vec<ObjectId>,
    /// Whether all of them have the same priority.
    pub(crate) is_even: bool,
}

impl Standing {
    pub(crate) fn of(state: &State, key: &PodGroupKey) -> Self {
        let mut standing = Self { is_even: true, ..Self::default() };
        let mut first = None;
        for pod in state.pods_of_group(key).filter(|pod| counts(pod)) {
            standing.least = standing.least.max(pod.group().map_or(0, |(_, least)| least));
            if pod.node.is_some() {
                standing.placed += 1;
            } else {
                standing.waiting.push(pod.meta.id);
            }
            let own = priority::of(state, &pod.spec).map(|own| own.value);
            standing.is_even &= *first.get_or_insert(own) == own;
        }
        standing
    }

    /// How many more must be placed together; with 0 each may be placed by itself.
    pub(crate) fn missing(&self) -> u32 {
        self.least.saturating_sub(self.placed)
    }
}

/// What ends, or has failed, is no part of a group any more; what has succeeded still is.
fn counts(pod: &Arc<Pod>) -> bool {
    !pod.meta.is_deleting() && pod.status.phase != PodPhase::Failed
}

/// The group that a pod must be placed with: it has one, and too few of that have a node yet.
pub(crate) fn held_by(state: &State, pod: &Pod) -> Option<PodGroupKey> {
    if state.feature_level() < POD_GROUP_LEVEL {
        return None;
    }
    let (key, _) = pod.group()?;
    (Standing::of(state, &key).missing() > 0).then_some(key)
}
