//! StatefulSets and DaemonSets: what of their pods is there, and what is wanted. The one answer that both the
//! reconcilers and `decide` give.

mod fleet;
mod revisions;
mod roster;

use bulkhead_types::{ObjectId, Pod};
use smol_str::SmolStr;

pub(crate) use fleet::{Fleet, Verdict, node_of};
pub(crate) use revisions::{current, is_needed, revision_of, wanted, wanted_at};
pub(crate) use roster::{Roster, ordinal_of, pod_name};

/// How a pod is, for the workload that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It ended, and nobody has asked it to go yet.
    Ended,
    /// Somebody asked it to go.
    Ending {
        /// Whether it may still run.
        lives: bool,
    },
    /// It is wanted, but not ready.
    Unready,
    /// It is ready.
    Ready {
        /// Since when, milliseconds since the epoch.
        since_ms: u64,
    },
}

/// What matters of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) id: ObjectId,
    /// The name of the ControllerRevision that it was made from.
    pub(crate) revision: SmolStr,
    pub(crate) standing: Standing,
}

impl Seen {
    pub(crate) fn of(pod: &Pod) -> Self {
        let ended = pod.status.phase.is_terminal();
        let standing = match (pod.meta.is_deleting(), ended, pod.status.ready) {
            (true, ..) => Standing::Ending { lives: !ended },
            (_, true, _) => Standing::Ended,
            (.., true) => Standing::Ready { since_ms: pod.status.ready_since_ms },
            _ => Standing::Unready,
        };
        Self { id: pod.meta.id, revision: revision_of(pod), standing }
    }

    /// Neither ending nor ended.
    pub(crate) fn is_active(&self) -> bool {
        matches!(self.standing, Standing::Unready | Standing::Ready { .. })
    }

    /// Whether its guest may run: at most one of a kind may be so.
    pub(crate) fn lives(&self) -> bool {
        !matches!(self.standing, Standing::Ended | Standing::Ending { lives: false })
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.standing, Standing::Ready { .. })
    }

    /// From when on it counts as available, milliseconds since the epoch; `None` when it is not ready.
    pub(crate) fn available_at_ms(&self, min_ready_ms: u64) -> Option<u64> {
        match self.standing {
            Standing::Ready { since_ms } => Some(since_ms.saturating_add(min_ready_ms)),
            _ => None,
        }
    }
}
