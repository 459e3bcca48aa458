//! What only the leader knows, and nobody logs.

use std::collections::BTreeMap;

use bulkhead_types::{ObjectId, PodUsage};

/// When a node was heard last: by the calendar, and by the monotonic clock.
#[derive(Clone, Copy, Debug, Default)]
struct Heartbeat {
    at_ms: u64,
    up_ms: u64,
}

/// Heartbeats and usage of nodes, since this server became the leader.
#[derive(Clone, Debug, Default)]
pub struct SoftState {
    leader_since_ms: u64,
    leader_since_up_ms: u64,
    heartbeats: BTreeMap<ObjectId, Heartbeat>,
    usage: BTreeMap<ObjectId, Vec<PodUsage>>,
}

impl SoftState {
    /// Nothing known yet. `leader_since_ms` and `leader_since_up_ms` are what the leader's two clocks showed when it took
    /// over, the second rather too much than too little.
    #[must_use]
    pub fn new(leader_since_ms: u64, leader_since_up_ms: u64) -> Self {
        Self { leader_since_ms, leader_since_up_ms, ..Self::default() }
    }

    /// Notes a heartbeat of a node's current incarnation, by the leader's two clocks; `up_ms` is rather too much than
    /// too little.
    pub fn heartbeat(&mut self, node: ObjectId, now_ms: u64, up_ms: u64) {
        let last = self.heartbeats.entry(node).or_default();
        *last = Heartbeat { at_ms: now_ms.max(last.at_ms), up_ms: up_ms.max(last.up_ms) };
    }

    /// How long a node has surely been silent under this leader, by its monotonic clock, in milliseconds. Whoever led
    /// before may have heard it until this server took over.
    #[must_use]
    pub fn silent_ms(&self, node: ObjectId, up_ms: u64) -> u64 {
        let heard_up_ms = self.heartbeats.get(&node).map_or(0, |heartbeat| heartbeat.up_ms);
        up_ms.saturating_sub(heard_up_ms.max(self.leader_since_up_ms))
    }

    /// The last heartbeat of a node, if there was any since this server leads.
    #[must_use]
    pub fn last_heartbeat_ms(&self, node: ObjectId) -> Option<u64> {
        self.heartbeats.get(&node).map(|heartbeat| heartbeat.at_ms)
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
