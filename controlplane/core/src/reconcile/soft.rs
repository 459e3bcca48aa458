//! What only the leader knows, and nobody logs.

use std::collections::BTreeMap;

use bulkhead_types::{ObjectId, PodUsage};

/// Heartbeats and usage of nodes, since this server became the leader.
#[derive(Clone, Debug, Default)]
pub struct SoftState {
    leader_since_ms: u64,
    heartbeats: BTreeMap<ObjectId, u64>,
    usage: BTreeMap<ObjectId, Vec<PodUsage>>,
}

impl SoftState {
    /// Nothing known yet. `leader_since_ms` is the leader's clock when it took over.
    #[must_use]
    pub fn new(leader_since_ms: u64) -> Self {
        Self { leader_since_ms, ..Self::default() }
    }

    /// Notes a heartbeat of a node's current incarnation, by the leader's clock.
    pub fn heartbeat(&mut self, node: ObjectId, now_ms: u64) {
        let last = self.heartbeats.entry(node).or_default();
        *last = now_ms.max(*last);
    }

    /// The last heartbeat of a node, if there was any since this server leads.
    #[must_use]
    pub fn last_heartbeat_ms(&self, node: ObjectId) -> Option<u64> {
        self.heartbeats.get(&node).copied()
    }

    /// When this server became the leader, by its clock.
    #[must_use]
    pub fn leader_since_ms(&self) -> u64 {
        self.leader_since_ms
    }

    /// Notes what the pods of a node use.
    pub fn set_usage(&mut self, node: ObjectId, usage: Vec<PodUsage>) {
        self.usage.insert(node, usage);
    }

    /// What the pods of a node use, as last reported.
    #[must_use]
    pub fn usage(&self, node: ObjectId) -> &[PodUsage] {
        self.usage.get(&node).map_or(&[], Vec::as_slice)
    }

    /// Forgets a node that is gone.
    pub fn forget(&mut self, node: ObjectId) {
        self.heartbeats.remove(&node);
        self.usage.remove(&node);
    }
}
