//! CPUs that pods have for themselves: who holds which, and which of them a pod gets. Pure.
//!
//! ```text
//!  NodeFacts.cpus (topology) ─┐
//!  PodStatus.cpus ────────────┼─► CpuIndex: per node a NodeCpus, the ledger ─► choose (scheduler)
//!                             │        ▲                                          │ Binding.cpus
//!                             └────────┴──── may_take (decide) ◄──────────────────┘
//! ```
//!
//! The ledger follows from nodes and pods alone and is no part of a digest. A pod holds its CPUs from its binding until it is
//! terminal or gone, and is unique as long (`Pod::is_unique`): the rules of devices. CPUs, devices and memory of one pod are
//! chosen together, so that they are on one NUMA node where the policies want it.
//!
//! Sources: the kubelet's CPU and topology managers, Koordinator's QoS classes, Volcano's NUMA policies.

mod choice;
mod index;
mod node;
mod pick;
mod taken;
#[cfg(test)]
mod tests;

use bulkhead_types::{CpuNeeds, CpuPools, CpuProblem, NUMA_LEVEL, Node, NumaPolicy, ObjectId, Pod, PodCpus};

pub(crate) use choice::{Asks, Chosen, choose, may_take};
pub(crate) use index::CpuIndex;
pub use node::{NodeCpus, NumaUse};
pub(crate) use taken::TakenCpus;

use crate::State;
use crate::devices::{Needs, Policies};
use crate::placement::{Misfit, check_numa};

/// The CPUs that a pod wants for itself; none for nearly all pods, which costs a look at their labels and annotations. Below
/// [`NUMA_LEVEL`] these say nothing.
///
/// # Errors
/// Why it cannot have them whatever there is.
pub(crate) fn needs(state: &State, pod: &Pod) -> Result<Option<CpuNeeds>, CpuProblem> {
    if state.feature_level() < NUMA_LEVEL { Ok(None) } else { needs_of(pod) }
}

/// The same, whatever the level.
pub(crate) fn needs_of(pod: &Pod) -> Result<Option<CpuNeeds>, CpuProblem> {
    bulkhead_types::cpu_needs(&pod.meta.labels, &pod.meta.annotations, &pod.spec)
}

/// Whether a node's policy is what a pod wants: the first phase of Volcano's NUMA scheduling. Who wants none may be anywhere.
///
/// # Errors
/// Why not.
pub(crate) fn check_policy(needs: &CpuNeeds, node: &Node) -> Result<(), Misfit> {
    let Some(topology) = node.status.facts.cpus.get() else { return Err(Misfit::NoCpuTopology) };
    if needs.policy != NumaPolicy::None && needs.policy != topology.policy {
        return Err(Misfit::NumaPolicy);
    }
    Ok(())
}

/// What pods of a node run on that have no CPUs of their own; `None` of a node that does not report its CPUs.
pub(crate) fn pools(state: &State, node: ObjectId) -> Option<CpuPools> {
    state.node_cpus(node).map(|cpus| CpuPools { shared: cpus.shared(), batch: cpus.batch() })
}

/// Whether a pod could have the CPUs that it wants for itself, and its devices beside them, on a node now; `true` when it wants
/// none.
#[must_use]
pub fn fits(state: &State, pod: &Pod, node: &Node) -> bool {
    let wanted = match needs(state, pod) {
        Ok(None) => return true,
        Ok(Some(wanted)) => wanted,
        Err(_) => return false,
    };
    let Ok(asked) = Needs::of_pod(pod, &state.devices.classes) else { return false };
    let asked = (!asked.asks.is_empty()).then_some((&asked, Policies::of(pod)));
    let (asks, id) = (Asks { cpus: Some(&wanted), devices: asked }, node.meta.id);
    check_numa(&asks, node, state.node_cpus(id), state.node_devices(id)).is_ok()
}

/// The ledger of a node, of which these pods are: for who has the objects and not a State.
pub fn ledger_of<'a>(
    node: &Node,
    pods: impl IntoIterator<Item = &'a std::sync::Arc<Pod>>,
) -> Option<NodeCpus> {
    let mut ledger = NodeCpus::new(node.status.facts.cpus.get()?);
    for pod in pods {
        if let Some((_, cpus)) = held(pod).filter(|(at, _)| *at == node.meta.id) {
            ledger.take(pod.meta.id, cpus);
        }
    }
    Some(ledger)
}

/// Where a pod holds which CPUs: as long as it holds room.
pub(crate) fn held(pod: &Pod) -> Option<(ObjectId, &PodCpus)> {
    let cpus = pod.cpus()?;
    (!pod.status.phase.is_terminal()).then_some((pod.node?, cpus))
}
