//! Ports of nodes that pods publish: who has which, and whether a pod may have its own. Pure.
//!
//! ```text
//!  PodSpec (hostPort), Pod.node ─► PortIndex: per node a NodePorts, the ledger ─► filter (scheduler), TakenPorts (decide)
//! ```
//!
//! The ledger follows from pods alone and is no part of a digest. A pod has its ports from its binding until it is terminal or
//! gone, so one that is ending has them still. Pods that publish nothing cost a look at their ports.
//!
//! Source: the plugin `NodePorts` of Kubernetes' scheduler.

mod index;
mod node;
mod taken;

use bulkhead_types::{Node, ObjectId, Pod, PublishedPort};

pub(crate) use index::PortIndex;
pub use node::NodePorts;
pub(crate) use taken::TakenPorts;

use crate::State;

/// Whether a pod could publish its ports on a node now; `true` when it has none. Whether the node can publish any is a question
/// of [`crate::placement::check_node`].
#[must_use]
pub fn fits(state: &State, pod: &Pod, node: &Node) -> bool {
    let mut ports = pod.spec.host_ports().peekable();
    ports.peek().is_none() || state.node_ports(node.meta.id).is_none_or(|held| held.are_free(ports))
}

/// Where a pod has which ports: as long as it holds room. `None` of one without any.
pub(crate) fn held(pod: &Pod) -> Option<(ObjectId, impl Iterator<Item = PublishedPort> + '_)> {
    let node = pod.node.filter(|_| !pod.status.phase.is_terminal())?;
    let mut ports = pod.spec.host_ports().peekable();
    ports.peek()?;
    Some((node, ports))
}
