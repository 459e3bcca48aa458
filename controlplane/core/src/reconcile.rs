//! Reconcilers: from State and time to commands. They run on the leader only.

use std::collections::BTreeMap;

use bulkhead_types::{Command, ObjectId, PodUsage};

use crate::{Change, State};

/// What reconcilers look at.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The present State.
    pub state: &'a State,
    /// The leader's clock, milliseconds since the epoch; never before the State's own.
    pub now_ms: u64,
    /// What is known without the log.
    pub soft: &'a SoftState,
}

/// What a leader knows without the log.
#[derive(Clone, Debug, Default)]
pub struct SoftState {
    leader_since_ms: u64,
    heartbeats: BTreeMap<ObjectId, u64>,
    usage: BTreeMap<ObjectId, Vec<PodUsage>>,
}

impl SoftState {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(leader_since_ms: u64) -> Self {
        Self { leader_since_ms, ..Self::default() }
    }

    /// When leadership began, milliseconds since the epoch.
    #[must_use]
    pub fn leader_since_ms(&self) -> u64 {
        self.leader_since_ms
    }

    /// A node was heard.
    pub fn heartbeat(&mut self, node: ObjectId, now_ms: u64) {
        self.heartbeats.insert(node, now_ms);
    }

    /// When a node was last heard, milliseconds since the epoch.
    #[must_use]
    pub fn last_heartbeat_ms(&self, node: ObjectId) -> Option<u64> {
        self.heartbeats.get(&node).copied()
    }

    /// What a node's pods use.
    pub fn set_usage(&mut self, node: ObjectId, usage: Vec<PodUsage>) {
        self.usage.insert(node, usage);
    }

    /// What a node's pods use.
    #[must_use]
    pub fn usage(&self, node: ObjectId) -> &[PodUsage] {
        self.usage.get(&node).map_or(&[], Vec::as_slice)
    }

    /// A node is gone.
    pub fn forget(&mut self, node: ObjectId) {
        self.heartbeats.remove(&node);
        self.usage.remove(&node);
    }
}

/// What reconcilers go by.
#[derive(Clone, Debug)]
pub struct ReconcileConfig {
    /// How long an agent's lease runs, in milliseconds.
    pub lease_ms: u64,
    /// How long a node may be unreachable before its pods are replaced, in milliseconds.
    pub eviction_ms: u64,
    /// Pods that ended are kept up to this number.
    pub terminated_pods_max: usize,
}

impl Default for ReconcileConfig {
    fn default() -> Self {
        Self { lease_ms: 10_000, eviction_ms: 300_000, terminated_pods_max: 1000 }
    }
}

/// A command that a reconciler wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Whose it is.
    pub reconciler: &'static str,
    /// What it wants.
    pub command: Command,
}

/// All reconcilers of a leader.
#[derive(Debug, Default)]
pub struct Reconcilers {}

impl Reconcilers {
    /// Sets them up.
    #[must_use]
    pub fn new(_config: ReconcileConfig) -> Self {
        Self {}
    }

    /// A new leader: everything is to be looked at.
    pub fn reset(&mut self, _state: &State) {}

    /// Something changed.
    pub fn observe(&mut self, _change: &Change) {}

    /// What they want now.
    pub fn run(&mut self, _context: &Context<'_>) -> Vec<Proposal> {
        Vec::new()
    }

    /// One of a reconciler's proposals was applied, refused or dropped.
    pub fn settled(&mut self, _reconciler: &'static str) {}

    /// When they want to be run again although nothing happens.
    #[must_use]
    pub fn next_wake_ms(&self) -> Option<u64> {
        None
    }
}
