//! What the pods of nodes use, for those pods whose nodes are chosen by measured load. While none of them waits nobody looks.

use std::ops::Bound;

use bulkhead_types::{ObjectId, Resources};

use super::index::NodeIndex;
use super::score::{Load, estimate};
use crate::reconcile::View;

/// How long a look at all nodes is good.
const LOOK_MS: u64 = 15_000;
/// Nodes that one run looks at, at most.
const NODES_PER_RUN: usize = 1024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Loads {
    /// The last node of a look that is not over.
    after: Option<ObjectId>,
    /// When the next one begins.
    next_ms: u64,
}

impl Loads {
    /// Looks at the next nodes, if it is time to. Returns whether there are more to look at at once.
    pub(super) fn look(&mut self, view: &View<'_>, index: &mut NodeIndex) -> bool {
        if self.after.is_none() && view.now_ms < self.next_ms {
            return false;
        }
        let from = self.after.take().map_or(Bound::Unbounded, Bound::Excluded);
        let nodes: Vec<_> = index.slots_from(from).take(NODES_PER_RUN).collect();
        for (node, slot) in &nodes {
            let Some(entry) = index.get(*slot) else { continue };
            let pods = view.state.pods_on(*node).filter(|pod| !pod.status.phase.is_terminal());
            let used = pods.fold(Resources::ZERO, |sum, pod| {
                let sample = view.soft.usage(pod, view.now_ms);
                sum.plus(sample.map_or_else(
                    || estimate(pod.spec.scheduling_request()),
                    |sample| Resources {
                        cpu_millis: sample.cpu_millis,
                        memory_bytes: sample.memory_bytes,
                        ..Resources::ZERO
                    },
                ))
            });
            let load = Load::follow(entry.load, used, entry.usage.requests, entry.allocatable);
            load.into_iter().for_each(|load| index.set_load(*slot, load));
        }
        if nodes.len() < NODES_PER_RUN {
            self.next_ms = view.now_ms + LOOK_MS;
            return false;
        }
        self.after = nodes.last().map(|(node, _)| *node);
        true
    }

    /// When to look again, as long as somebody asks.
    pub(super) fn next_wake_ms(&self) -> u64 {
        if self.after.is_some() { 0 } else { self.next_ms }
    }
}
