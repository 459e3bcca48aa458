//! What pods hold on nodes, in the order in which they would end for others. A node is looked at when somebody first asks
//! about it, and forgotten when its pods change: while nobody needs others to end nothing is kept.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use bulkhead_types::{ObjectId, Resources};

use crate::priority::Priorities;
use crate::{NodeUsage, State};

/// A pod that may end for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeldPod {
    pub(crate) id: ObjectId,
    pub(crate) priority: i32,
    /// Log time since when it has its node, milliseconds since the epoch.
    pub(crate) bound_at_ms: u64,
    pub(crate) request: Resources,
}

/// What is held on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Pods that stay: the lowest priority first, and among equals the one that came last.
    staying: Vec<HeldPod>,
    /// Pods that end already.
    pub(crate) ending: Vec<ObjectId>,
    /// What those hold together.
    pub(crate) ending_room: NodeUsage,
}

impl Held {
    fn read(state: &State, priorities: &Priorities, node: ObjectId) -> Self {
        let mut held = Self::default();
        for pod in state.pods_on(node).filter(|pod| !pod.status.phase.is_terminal()) {
            let (id, request) = (pod.meta.id, pod.spec.scheduling_request());
            if pod.meta.is_deleting() {
                held.ending.push(id);
                held.ending_room = held.ending_room.with(request);
            } else if let Some(own) = priorities.of(pod.spec.priority_class()) {
                // One whose class is gone is of no known priority, so nobody's is higher.
                let bound_at_ms = pod.status.bound_at_ms;
                held.staying.push(HeldPod { id, priority: own.value, bound_at_ms, request });
            }
        }
        held.staying.sort_unstable_by_key(|pod| (pod.priority, Reverse(pod.bound_at_ms), Reverse(pod.id)));
        held
    }

    /// All that stay.
    pub(crate) fn staying(&self) -> &[HeldPod] {
        &self.staying
    }

    /// Those of lower priority, in their order.
    pub(crate) fn below(&self, priority: i32) -> &[HeldPod] {
        &self.staying[..self.staying.partition_point(|pod| pod.priority < priority)]
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeldIndex {
    by_node: BTreeMap<ObjectId, Held>,
}

impl HeldIndex {
    pub(crate) fn is_empty(&self) -> bool {
        self.by_node.is_empty()
    }

    /// The pods of a node changed.
    pub(crate) fn forget(&mut self, node: ObjectId) {
        self.by_node.remove(&node);
    }

    pub(crate) fn get(&mut self, state: &State, priorities: &Priorities, node: ObjectId) -> &Held {
        self.by_node.entry(node).or_insert_with(|| Held::read(state, priorities, node))
    }

    /// Pods are about to be asked to end. Should that not happen, the node must be forgotten.
    pub(crate) fn end(&mut self, node: ObjectId, victims: &[ObjectId]) {
        let Some(held) = self.by_node.get_mut(&node) else { return };
        let (ending, staying) =
            std::mem::take(&mut held.staying).into_iter().partition(|pod| victims.contains(&pod.id));
        held.staying = staying;
        let ending: Vec<HeldPod> = ending;
        for pod in ending {
            held.ending.push(pod.id);
            held.ending_room = held.ending_room.with(pod.request);
        }
    }

    /// Whether it is what it would be if it were read now.
    pub(crate) fn is_true(&self, state: &State, priorities: &Priorities) -> bool {
        self.by_node.iter().all(|(node, held)| *held == Held::read(state, priorities, *node))
    }
}
