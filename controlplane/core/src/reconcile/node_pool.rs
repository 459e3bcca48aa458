//! NodePools: proposes that nodes get what their pool gives whenever they lack it, and says how many nodes there are. What
//! changes is `decide`'s.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_types::{
    Command, Name, NodePhase, NodePool, NodePoolStatus, Object, ObjectId, ObjectStatus, POOLS_LEVEL,
};

use super::{COMMANDS_PER_RUN, Queue, Reconciler, View, work_off};
use crate::node_pool::{members, refused_mode, synced};
use crate::{Change, ChangeType, State};

/// How long a status waits for further changes, in milliseconds: nodes come and go in crowds.
const STATUS_INTERVAL_MS: u64 = 1000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct NodePools {
    /// Nodes to look at.
    queue: Queue,
    /// All pools by name, with whether they have a mode of cards.
    pools: BTreeMap<Name, (ObjectId, bool)>,
    /// Pools whose nodes are all to be looked at.
    changed: BTreeSet<Name>,
    /// Whether nodes changed since statuses were told.
    stale: bool,
    /// When statuses may be told again.
    status_at_ms: u64,
}

impl NodePools {
    fn note_pool(&mut self, pool: &NodePool, is_gone: bool) {
        let (name, id) = (pool.meta.name.clone(), pool.meta.id);
        self.changed.insert(name.clone());
        self.stale = true;
        if is_gone {
            self.pools.remove(&name);
        } else {
            self.pools.insert(name, (id, pool.spec.gpu.get().is_some()));
        }
    }

    fn has_modes(&self) -> bool {
        self.pools.values().any(|(_, has_mode)| *has_mode)
    }

    fn tell(&mut self, view: &View<'_>, commands: &mut Vec<Command>) {
        if !self.stale || view.now_ms < self.status_at_ms {
            return;
        }
        self.stale = false;
        self.status_at_ms = view.now_ms + STATUS_INTERVAL_MS;
        let mut found: BTreeMap<&str, NodePoolStatus> = BTreeMap::new();
        for node in view.state.nodes().iter() {
            let status = found.entry(node.pool()).or_default();
            status.nodes += 1;
            status.ready += u32::from(node.status.phase == NodePhase::Ready);
        }
        for pool in view.state.node_pools().iter() {
            let mut status = found.remove(pool.meta.name.as_str()).unwrap_or_default();
            status.observed_generation = pool.meta.generation;
            if let Some(desired) = pool.spec.desired_nodes {
                status.missing = desired.saturating_sub(status.nodes);
                status.surplus = status.nodes.saturating_sub(desired);
            }
            if pool.spec.gpu.get().is_some() && pool.spec.sync_existing {
                note_modes(view.state, pool, &mut status);
            }
            if status != pool.status {
                let (id, status) = (pool.meta.id, ObjectStatus::NodePool(status));
                commands.push(Command::SetStatus { id, status });
            }
        }
    }
}

/// Counts the nodes that cannot have the pool's mode of cards now.
fn note_modes(state: &State, pool: &NodePool, status: &mut NodePoolStatus) {
    for node in members(state, pool.meta.name.as_str()) {
        let Some(refusal) = refused_mode(state, node, pool) else { continue };
        if status.out_of_sync == 0 {
            status.message = format!("Node {}: {}", node.meta.name, refusal.reason);
        }
        status.out_of_sync += 1;
    }
}

impl Reconciler for NodePools {
    fn name(&self) -> &'static str {
        "node-pool"
    }

    fn reset(&mut self, state: &State) {
        *self = Self::default();
        for pool in state.node_pools().iter() {
            self.note_pool(pool, false);
        }
        let records = state.nodes().iter().filter(|node| node.status.pool.get().is_some());
        records.for_each(|node| self.queue.mark(node.meta.id));
    }

    fn observe(&mut self, change: &Change) {
        let is_gone = change.change_type == ChangeType::Deleted;
        match &change.object {
            Object::NodePool(pool) => {
                // Its status is this reconciler's own.
                let is_status =
                    matches!(&change.former, Some(Object::NodePool(former)) if former.spec == pool.spec);
                if is_gone || !is_status {
                    self.note_pool(pool, is_gone);
                }
            }
            Object::Node(node) => {
                self.stale |= !self.pools.is_empty();
                if is_gone {
                    self.queue.forget(node.meta.id);
                } else if !self.pools.is_empty() || node.status.pool.get().is_some() {
                    self.queue.mark(node.meta.id);
                }
            }
            // A mode may be possible now that was not before.
            Object::Pod(pod) if (is_gone || pod.status.phase.is_terminal()) && self.has_modes() => {
                pod.node.into_iter().for_each(|node| self.queue.mark(node));
                self.stale = true;
            }
            Object::ResourceSlice(slice) if self.has_modes() => {
                self.queue.mark(slice.node);
                self.stale = true;
            }
            _ => {}
        }
    }

    fn reconcile(&mut self, view: &View<'_>) -> Vec<Command> {
        if view.state.feature_level() < POOLS_LEVEL {
            return Vec::new();
        }
        self.queue.begin(view.now_ms);
        if !self.changed.is_empty() {
            let changed = std::mem::take(&mut self.changed);
            for node in view.state.nodes().iter() {
                let from = node.status.pool.get().map(|record| &record.pool);
                let is_meant = |name: &Name| name.as_str() == node.pool() || Some(name) == from;
                if changed.iter().any(is_meant) {
                    self.queue.keep(node.meta.id);
                }
            }
        }
        let mut commands = work_off(
            self,
            |this| &mut this.queue,
            |_, id, commands| {
                let node = view.state.nodes().get(id);
                if node.is_some_and(|node| synced(view.state, node).is_some()) {
                    commands.push(Command::SyncNodePool { node: id });
                }
            },
        );
        if commands.len() < COMMANDS_PER_RUN {
            self.tell(view, &mut commands);
        }
        commands
    }

    fn next_wake_ms(&self) -> Option<u64> {
        if !self.changed.is_empty() {
            return Some(0);
        }
        let status = self.stale.then_some(self.status_at_ms);
        self.queue.next_wake_ms().into_iter().chain(status).min()
    }
}
