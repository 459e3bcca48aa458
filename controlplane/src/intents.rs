//! Wakes the sessions of agents whose intent may have changed.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bulkhead_types::ObjectId;
use tokio::sync::watch;

/// One wake-up channel per node with a session. What is sent is a count: only that it changed matters.
#[derive(Debug, Default)]
pub(crate) struct IntentHub {
    nodes: Mutex<BTreeMap<ObjectId, watch::Sender<u64>>>,
}

impl IntentHub {
    /// A session's end.
    pub(crate) fn subscribe(&self, node: ObjectId) -> watch::Receiver<u64> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        // Nodes without a session are forgotten when the next one comes: their number is bounded by it.
        nodes.retain(|id, sender| *id == node || sender.receiver_count() > 0);
        nodes.entry(node).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    /// A node's intent may have changed.
    pub(crate) fn touch(&self, node: ObjectId) {
        if let Some(sender) = self.nodes.lock().unwrap_or_else(PoisonError::into_inner).get(&node) {
            sender.send_modify(|count| *count += 1);
        }
    }

    /// Every node's intent may have changed.
    pub(crate) fn touch_all(&self) {
        for sender in self.nodes.lock().unwrap_or_else(PoisonError::into_inner).values() {
            sender.send_modify(|count| *count += 1);
        }
    }
}
