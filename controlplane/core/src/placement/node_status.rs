//! Only nodes that are ready, stay, and are not cordoned.

use bulkhead_types::{Node, NodePhase, PodSpec};

use super::{Misfit, tolerates_cordon};

pub(super) fn check(spec: &PodSpec, node: &Node) -> Result<(), Misfit> {
    if node.status.phase != NodePhase::Ready {
        return Err(Misfit::NotReady);
    }
    if node.meta.is_deleting() {
        return Err(Misfit::Deleting);
    }
    if node.spec.unschedulable && !tolerates_cordon(spec) {
        return Err(Misfit::Unschedulable);
    }
    Ok(())
}
