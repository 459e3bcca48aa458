//! Published ports: a node whose agent can publish some, and on it no other pod with the same.
//!
//! Source: the plugin `NodePorts` of Kubernetes' scheduler.

use bulkhead_types::{Node, PodSpec, PublishedPort};

use super::Misfit;
use crate::ports::NodePorts;

/// Whether a node can publish what a pod wants published. Costs a look at the pod's ports.
///
/// # Errors
/// That it cannot.
pub(super) fn check_node(spec: &PodSpec, node: &Node) -> Result<(), Misfit> {
    let can = spec.host_ports().next().is_none() || node.status.facts.publishes_ports();
    if can { Ok(()) } else { Err(Misfit::NoHostPorts) }
}

/// Whether ports are free on a node. Costs nothing for a pod that wants none.
///
/// # Errors
/// That one is another pod's.
pub(crate) fn check(wanted: &[PublishedPort], held: Option<&NodePorts>) -> Result<(), Misfit> {
    let are_free = wanted.is_empty() || held.is_none_or(|held| held.are_free(wanted.iter().copied()));
    if are_free { Ok(()) } else { Err(Misfit::HostPorts) }
}
