//! What one command gives of devices to pods, on top of the State: nothing is ever given twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_types::{AllocatedDevice, Binding, Node, ObjectId, Pod};

use super::{Needs, NodeDevices};
use crate::State;

/// See the module. Ledgers of nodes that the command touches, copied when the first device of them is given.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    nodes: BTreeMap<ObjectId, Arc<NodeDevices>>,
}

impl Taken {
    /// Whether a pod may have exactly these devices of a node: what it asks for, there, offered and free.
    pub(crate) fn may_take(&self, state: &State, pod: &Pod, node: &Node, given: &[AllocatedDevice]) -> bool {
        if given.is_empty() && !pod.spec.asks_for_devices() {
            return true;
        }
        let Ok(needs) = Needs::of_pod(pod, &state.devices.classes) else { return false };
        if needs.asks.is_empty() {
            return given.is_empty();
        }
        let id = node.meta.id;
        let ledger = self.nodes.get(&id).or_else(|| state.devices.get(id));
        node.status.facts.attaches_devices() && ledger.is_some_and(|ledger| ledger.may_take(&needs, given))
    }

    /// They are given.
    pub(crate) fn take(&mut self, state: &State, binding: &Binding) {
        if binding.devices.is_empty() {
            return;
        }
        let present = || state.devices.get(binding.node).cloned().unwrap_or_default();
        let ledger = self.nodes.entry(binding.node).or_insert_with(present);
        Arc::make_mut(ledger).take(binding.pod, &binding.devices);
    }
}
