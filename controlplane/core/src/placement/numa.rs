//! CPUs of its own: a node of the policy that the pod wants, and there CPUs, memory and devices where that policy wants them.
//!
//! Source: Volcano's NUMA-aware scheduling, in its two phases; the kubelet's topology manager.

use bulkhead_types::Node;

use super::Misfit;
use crate::cpus::{self, Asks, NodeCpus};
use crate::devices::NodeDevices;

/// Whether a pod can have the CPUs that it wants for itself, beside its devices. Costs nothing for one that wants none.
///
/// # Errors
/// The first reason against it.
pub(crate) fn check(
    asks: &Asks<'_>,
    node: &Node,
    cpus: Option<&NodeCpus>,
    devices: Option<&NodeDevices>,
) -> Result<(), Misfit> {
    let Some(needs) = asks.cpus else { return Ok(()) };
    cpus::check_policy(needs, node)?;
    match cpus::choose(asks, cpus, devices) {
        Some(_) => Ok(()),
        None => Err(Misfit::NumaTopology),
    }
}
