//! Nodes by their labels: the node selector and the required node affinity.

use bulkhead_types::{Node, PodSpec};

use super::Misfit;

pub(super) fn check(spec: &PodSpec, node: &Node) -> Result<(), Misfit> {
    if is_selected(spec, node) { Ok(()) } else { Err(Misfit::NodeAffinity) }
}

/// Whether node selector and required node affinity allow the node.
pub(crate) fn is_selected(spec: &PodSpec, node: &Node) -> bool {
    spec.node_selector.iter().all(|(key, value)| node.meta.labels.get(key) == Some(value))
        && spec.node_affinity().is_none_or(|affinity| affinity.allows(node))
}
