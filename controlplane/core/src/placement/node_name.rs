//! The node that a pod asks for by name.

use bulkhead_types::{Node, PodSpec};

use super::Misfit;

pub(super) fn check(spec: &PodSpec, node: &Node) -> Result<(), Misfit> {
    match &spec.node_name {
        Some(name) if name != node.meta.name.as_str() => Err(Misfit::NodeName),
        _ => Ok(()),
    }
}
