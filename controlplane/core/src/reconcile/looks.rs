//! When autoscalers look: once each period, at once when what is wanted of them changed, and not before agents have told
//! a new leader what they know.

use std::collections::BTreeMap;

use bulkhead_types::{AUTOSCALER_PERIOD_MS, ObjectId, ObjectMeta};

use super::{Queue, View};
use crate::{Change, ChangeType};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Looks {
    pub(super) queue: Queue,
    /// The generation that was looked at last, and when the next look is due, milliseconds since the epoch.
    looked: BTreeMap<ObjectId, (u64, u64)>,
}

impl Looks {
    /// Something happened to an object that looks. Says whether it is gone.
    pub(super) fn observe(&mut self, change: &Change) -> bool {
        let id = change.object.meta().id;
        let is_gone = change.change_type == ChangeType::Deleted;
        if is_gone {
            self.queue.forget(id);
            self.looked.remove(&id);
        } else {
            self.queue.mark(id);
        }
        is_gone
    }

    /// Whether this object is to look now; then its next look is a period from now, else when it is due.
    pub(super) fn begin(&mut self, view: &View<'_>, meta: &ObjectMeta, period_ms: u64) -> bool {
        // Agents have told a new leader what they know when this is over.
        let first_ms = view.soft.leader_since_ms() + AUTOSCALER_PERIOD_MS;
        let due_ms = match self.looked.get(&meta.id) {
            Some((seen, due_ms)) if *seen == meta.generation => first_ms.max(*due_ms),
            _ => first_ms,
        };
        let is_due = view.now_ms >= due_ms;
        let next_ms = if is_due { view.now_ms + period_ms } else { due_ms };
        if is_due {
            self.looked.insert(meta.id, (meta.generation, next_ms));
        }
        self.queue.wake_at(meta.id, next_ms);
        is_due
    }
}
