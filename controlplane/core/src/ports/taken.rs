//! What one command gives of ports to pods, on top of the State: none is ever given twice.

use std::collections::BTreeMap;

use bulkhead_types::{ObjectId, Pod};

use super::NodePorts;
use crate::State;

/// See the module. Ledgers of nodes of which the command gives ports.
#[derive(Debug, Default)]
pub(crate) struct TakenPorts {
    nodes: BTreeMap<ObjectId, NodePorts>,
}

impl TakenPorts {
    /// Whether a pod may have its ports on a node; `true` when it has none.
    pub(crate) fn are_free(&self, state: &State, pod: &Pod, node: ObjectId) -> bool {
        let mut ports = pod.spec.host_ports().peekable();
        if ports.peek().is_none() {
            return true;
        }
        let ledger = self.nodes.get(&node).or_else(|| state.node_ports(node));
        ledger.is_none_or(|ledger| ledger.are_free(ports))
    }

    /// It has them.
    pub(crate) fn take(&mut self, state: &State, pod: &Pod, node: ObjectId) {
        let mut ports = pod.spec.host_ports().peekable();
        if ports.peek().is_none() {
            return;
        }
        let present = || state.node_ports(node).cloned().unwrap_or_default();
        self.nodes.entry(node).or_insert_with(present).take(pod.meta.id, ports);
    }
}
