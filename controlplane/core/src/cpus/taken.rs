//! What one command gives of CPUs to pods, on top of the State: none is ever given twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_types::{Binding, CpuNeeds, Node, ObjectId, Pod};

use super::{Asks, NodeCpus, check_policy, may_take, needs};
use crate::State;
use crate::devices::{Needs, Policies};

/// See the module. Ledgers of nodes that the command touches, copied when the first CPU of them is given.
#[derive(Debug, Default)]
pub(crate) struct TakenCpus {
    nodes: BTreeMap<ObjectId, Arc<NodeCpus>>,
}

impl TakenCpus {
    /// Whether a pod may have exactly the CPUs that a binding names: as many as it wants, free, and where its policy and its
    /// devices want them.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn check(
        &self,
        state: &State,
        pod: &Pod,
        node: &Node,
        binding: &Binding,
    ) -> Result<(), String> {
        let wanted = needs(state, pod).map_err(|problem| problem.to_string())?;
        let (wanted, given): (CpuNeeds, _) = match (wanted, binding.cpus.get()) {
            (None, None) => return Ok(()),
            (Some(wanted), Some(given)) => (wanted, given),
            _ => return Err("it wants other CPUs by now".to_owned()),
        };
        check_policy(&wanted, node).map_err(|misfit| misfit.to_string())?;
        let id = node.meta.id;
        let ledger = self.nodes.get(&id).or_else(|| state.cpus.get(id));
        let ledger = ledger.ok_or("the node does not report its CPUs")?;
        let asked = Needs::of_pod(pod, &state.devices.classes).map_err(|bad| bad.to_string())?;
        let asked = (!asked.asks.is_empty()).then_some((&asked, Policies::of(pod)));
        let asks = Asks { cpus: Some(&wanted), devices: asked };
        match may_take(&asks, ledger, state.node_devices(id), given, &binding.devices) {
            true => Ok(()),
            false => Err("its CPUs are not to be had there".to_owned()),
        }
    }

    /// They are given.
    pub(crate) fn take(&mut self, state: &State, binding: &Binding) {
        let Some(given) = binding.cpus.get() else { return };
        let Some(present) = self.nodes.get(&binding.node).or_else(|| state.cpus.get(binding.node)) else {
            return;
        };
        let mut after = Arc::clone(present);
        Arc::make_mut(&mut after).take(binding.pod, given);
        self.nodes.insert(binding.node, after);
    }
}
