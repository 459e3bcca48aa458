//! Whether a pod may be placed on a node: the one answer that both the scheduler and `decide` give. Each filter has a file.
//!
//! ```text
//!  the node itself           what is free     other pods (Vicinity, by counters)
//!  node_status, node_name,   resources        topology_spread, pod_affinity
//!  node_affinity, taints    numa, node_ports
//! ```

mod misfit;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_status;
mod nomination;
mod numa;
mod pod_affinity;
pub mod reference;
mod resources;
mod rules;
mod taints;
mod topology_spread;
mod vicinity;

use bulkhead_types::{Node, PodSpec, Resources};

use crate::NodeUsage;

pub use misfit::Misfit;
pub(crate) use node_affinity::is_selected;
pub(crate) use node_ports::check as check_ports;
pub(crate) use nomination::{keeps_cpus, keeps_devices, keeps_ports, kept};
pub(crate) use numa::check as check_numa;
pub use resources::check_room;
pub(crate) use rules::{Rules, Spread, Term};
pub use taints::{tolerates_cordon, untolerated};
pub(crate) use topology_spread::is_over;
pub(crate) use vicinity::{CounterKey, Mover, Outlook, Vicinity, World, class_key, says};

/// Whether a pod that needs `request` may be placed on `node`, of which `usage` is reserved already. Other pods are not
/// looked at: see [`Vicinity::check`].
///
/// # Errors
/// The first reason against it.
pub fn check_fit(spec: &PodSpec, request: Resources, node: &Node, usage: NodeUsage) -> Result<(), Misfit> {
    check_node(spec, node)?;
    check_room(request, node, usage)
}

/// Whether required anti-affinity, of the pod or of those beside it, lets a pod be on a node.
pub(crate) fn is_kept_off(vicinity: &Vicinity, outlook: &Outlook, node: &Node) -> bool {
    let found = pod_affinity::check(vicinity, outlook, node);
    matches!(found, Err(Misfit::PodAntiAffinity | Misfit::ExistingPodAntiAffinity))
}

/// The part of [`check_fit`] that depends on the node's own properties only.
///
/// # Errors
/// The first reason against it.
pub fn check_node(spec: &PodSpec, node: &Node) -> Result<(), Misfit> {
    node_status::check(spec, node)?;
    node_name::check(spec, node)?;
    node_affinity::check(spec, node)?;
    taints::check(spec, node)?;
    node_ports::check_node(spec, node)
}
