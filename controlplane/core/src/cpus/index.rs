//! The ledgers of all nodes, kept change by change.

use std::sync::Arc;

use bulkhead_types::{Node, Object, ObjectId, Pod};
use imbl::OrdMap;

use super::{NodeCpus, held};
use crate::state::{Index, Table};

/// See the module. It follows from nodes and pods alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct CpuIndex {
    nodes: OrdMap<ObjectId, Arc<NodeCpus>>,
}

impl CpuIndex {
    pub(crate) fn get(&self, node: ObjectId) -> Option<&Arc<NodeCpus>> {
        self.nodes.get(&node)
    }

    /// Takes an object's present self for its former one. Costs nothing but the look for what has no CPUs.
    pub(crate) fn change(
        &mut self,
        former: Option<&Object>,
        present: Option<&Object>,
        (pods, index): (&Table<Pod>, &Index),
    ) {
        match (former, present) {
            (Some(Object::Pod(_)), _) | (_, Some(Object::Pod(_))) => {
                self.change_pod(as_pod(former), as_pod(present));
            }
            (former, Some(Object::Node(node))) => {
                let is_same = matches!(former, Some(Object::Node(former))
                    if former.status.facts.cpus == node.status.facts.cpus);
                if !is_same {
                    self.rebuild_node(node, pods, index);
                }
            }
            (Some(Object::Node(node)), None) => _ = self.nodes.remove(&node.meta.id),
            _ => {}
        }
    }

    fn change_pod(&mut self, former: Option<&Pod>, present: Option<&Pod>) {
        let (was, is) = (former.and_then(held), present.and_then(held));
        if was == is {
            return;
        }
        if let (Some((node, _)), Some(pod)) = (was, former) {
            self.on(node, |ledger| ledger.release(pod.meta.id));
        }
        if let (Some((node, cpus)), Some(pod)) = (is, present) {
            self.on(node, |ledger| ledger.take(pod.meta.id, cpus));
        }
    }

    fn on(&mut self, node: ObjectId, change: impl FnOnce(&mut NodeCpus)) {
        if let Some(ledger) = self.nodes.get_mut(&node) {
            change(Arc::make_mut(ledger));
        }
    }

    fn rebuild_node(&mut self, node: &Node, pods: &Table<Pod>, index: &Index) {
        let pods = index.on_node(node.meta.id).filter_map(|id| pods.get(id));
        match super::ledger_of(node, pods) {
            Some(ledger) => _ = self.nodes.insert(node.meta.id, Arc::new(ledger)),
            None => _ = self.nodes.remove(&node.meta.id),
        }
    }

    /// Counts everything afresh.
    pub(crate) fn of(nodes: &Table<Node>, pods: &Table<Pod>, index: &Index) -> Self {
        let mut found = Self::default();
        nodes.iter().for_each(|node| found.rebuild_node(node, pods, index));
        found
    }
}

fn as_pod(object: Option<&Object>) -> Option<&Pod> {
    match object {
        Some(Object::Pod(pod)) => Some(pod),
        _ => None,
    }
}
