//! What nodes' NICs shall be: policies and what agents report become SriovNetworkNodeStates.

use std::collections::BTreeSet;
use std::sync::Arc;

use bulkhead_types::{
    CONFIG_MAP_SUPPORTED_NICS, Command, DEVICE_RULES_LEVEL, NETWORKS_LEVEL, Object, ObjectId, Pod,
    SriovNetworkNodePolicy,
};

use super::{OBJECTS_PER_RUN, Reconciler, View};
use crate::networks::{desired, settle, supported};
use crate::{Change, ChangeType, State};

/// How long to wait after a proposal that had no effect, in milliseconds.
const AGAIN_MS: u64 = 5_000;

/// How long to wait for the feature level, in milliseconds.
const LEVEL_MS: u64 = 60_000;

/// See the module. Nodes are looked at one by one as they change, all of them when a policy does.
#[derive(Debug, Default)]
pub(super) struct SriovPolicies {
    dirty: BTreeSet<ObjectId>,
    /// A policy changed: which nodes it means is known at the next run only.
    all: bool,
    /// What was proposed, and is looked at once more.
    proposed: BTreeSet<ObjectId>,
    again_at_ms: Option<u64>,
    /// When to look whether the feature level has come; nothing is done before.
    level_at_ms: Option<u64>,
}

/// Where a pod holds devices.
fn holds(pod: &Pod) -> Option<ObjectId> {
    let holds = !pod.devices().is_empty() && !pod.status.phase.is_terminal();
    pod.node.filter(|_| holds)
}

impl Reconciler for SriovPolicies {
    fn name(&self) -> &'static str {
        "sriov"
    }

    fn reset(&mut self, _: &State) {
        *self = Self { all: true, ..Self::default() };
    }

    fn observe(&mut self, change: &Change) {
        match (&change.object, &change.former) {
            (Object::SriovNetworkNodePolicy(_), _) => self.all = true,
            (Object::ConfigMap(map), _) => {
                self.all |= map.meta.name.as_str() == CONFIG_MAP_SUPPORTED_NICS;
            }
            (Object::ResourceSlice(slice), _) => _ = self.dirty.insert(slice.node),
            (Object::SriovNetworkNodeState(state), _) => _ = self.dirty.insert(state.node),
            (Object::Node(node), Some(Object::Node(former))) if node.meta.labels == former.meta.labels => {}
            (Object::Node(node), _) => _ = self.dirty.insert(node.meta.id),
            (Object::Pod(pod), former) => {
                let was = match former {
                    Some(Object::Pod(former)) => holds(former),
                    _ => None,
                };
                let is = holds(pod).filter(|_| change.change_type != ChangeType::Deleted);
                if was != is {
                    self.dirty.extend(was.into_iter().chain(is));
                }
            }
            _ => {}
        }
    }

    fn reconcile(&mut self, view: &View<'_>) -> Vec<Command> {
        let state = view.state;
        if state.feature_level() < NETWORKS_LEVEL {
            // What was seen before the level is looked at all together when it comes, of which no change tells.
            self.dirty.clear();
            self.all = !state.resource_slices().is_empty();
            self.level_at_ms = self.all.then(|| view.now_ms.saturating_add(LEVEL_MS));
            return Vec::new();
        }
        self.level_at_ms = None;
        if std::mem::take(&mut self.all) {
            self.dirty.extend(state.resource_slices().iter().map(|slice| slice.node));
        }
        if self.again_at_ms.is_some_and(|at_ms| at_ms <= view.now_ms) {
            self.again_at_ms = None;
            self.dirty.append(&mut self.proposed);
        }
        let policies: Vec<_> = state.sriov_network_node_policies().iter().map(Arc::clone).collect();
        let mut commands = Vec::new();
        for _ in 0..OBJECTS_PER_RUN {
            if commands.len() >= super::COMMANDS_PER_RUN {
                break;
            }
            let Some(id) = self.dirty.pop_first() else { break };
            let Some(node) = state.nodes().get(id) else { continue };
            let Some(slice) = state.resource_slice_of(id) else { continue };
            let present = state.sriov_state_of(id);
            let is_held = state.feature_level() >= DEVICE_RULES_LEVEL;
            let namespace = |policy: &SriovNetworkNodePolicy| policy.meta.namespace.clone();
            let wanted = desired(node, slice, &policies, |policy| {
                is_held.then(|| supported(state, namespace(policy).as_ref()))
            });
            let has_nics =
                slice.devices.iter().any(|device| device.nic().is_some_and(|nic| nic.total_vfs > 0));
            if present.is_none() && !wanted.is_selected && !has_nics {
                continue;
            }
            let (spec, status) = settle(state, slice, present.map(|present| &**present), wanted);
            if present.is_none_or(|present| (&present.spec, &present.status) != (&spec, &status)) {
                self.proposed.insert(id);
                commands.push(Command::SetSriovNodeState { node: id, spec, status });
            }
        }
        if !commands.is_empty() {
            self.again_at_ms = Some(view.now_ms.saturating_add(AGAIN_MS));
        }
        commands
    }

    fn next_wake_ms(&self) -> Option<u64> {
        match self.level_at_ms {
            Some(at_ms) => Some(at_ms),
            None if self.all || !self.dirty.is_empty() => Some(0),
            None => self.again_at_ms,
        }
    }
}
