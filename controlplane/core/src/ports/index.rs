//! The ledgers of all nodes, kept change by change.

use std::sync::Arc;

use bulkhead_types::{Object, ObjectId, Pod};
use imbl::OrdMap;

use super::{NodePorts, held};
use crate::state::Table;

/// See the module. It follows from pods alone; a node on which nobody has a port is not in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PortIndex {
    nodes: OrdMap<ObjectId, Arc<NodePorts>>,
}

impl PortIndex {
    pub(crate) fn get(&self, node: ObjectId) -> Option<&Arc<NodePorts>> {
        self.nodes.get(&node)
    }

    /// Takes an object's present self for its former one.
    pub(crate) fn change(&mut self, former: Option<&Object>, present: Option<&Object>) {
        if let Some(Object::Pod(pod)) = former {
            self.release(pod);
        }
        if let Some(Object::Pod(pod)) = present {
            self.take(pod);
        }
    }

    fn take(&mut self, pod: &Pod) {
        let Some((node, ports)) = held(pod) else { return };
        let ledger = self.nodes.entry(node).or_default();
        Arc::make_mut(ledger).take(pod.meta.id, ports);
    }

    fn release(&mut self, pod: &Pod) {
        let Some((node, ports)) = held(pod) else { return };
        let Some(ledger) = self.nodes.get_mut(&node) else { return };
        let own = Arc::make_mut(ledger);
        own.release(pod.meta.id, ports);
        if own.is_empty() {
            self.nodes.remove(&node);
        }
    }

    /// Counts everything afresh.
    pub(crate) fn of(pods: &Table<Pod>) -> Self {
        let mut found = Self::default();
        pods.iter().for_each(|pod| found.take(pod));
        found
    }
}
