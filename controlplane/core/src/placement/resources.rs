//! What a node has left.

use bulkhead_types::{HugePageSize, Node, Resources};

use super::Misfit;
use crate::NodeUsage;

/// Whether so much more is free.
///
/// # Errors
/// The first reason against it.
pub fn check_room(request: Resources, node: &Node, usage: NodeUsage) -> Result<(), Misfit> {
    let facts = &node.status.facts;
    if usage.pods >= facts.pods_max {
        return Err(Misfit::TooManyPods);
    }
    let wanted = usage.requests.plus(request);
    if wanted.cpu_millis > facts.allocatable.cpu_millis {
        return Err(Misfit::InsufficientCpu);
    }
    if wanted.memory_bytes > facts.allocatable.memory_bytes {
        return Err(Misfit::InsufficientMemory);
    }
    if wanted.ephemeral_storage_bytes > facts.allocatable.ephemeral_storage_bytes {
        return Err(Misfit::InsufficientEphemeralStorage);
    }
    if wanted.pinned_memory_bytes > facts.allocatable.pinnable_bytes() {
        return Err(Misfit::InsufficientPinnedMemory);
    }
    for size in HugePageSize::ALL {
        if wanted.huge_pages.of(size) > facts.allocatable.huge_pages.of(size) {
            return Err(Misfit::InsufficientHugePages(size));
        }
    }
    Ok(())
}
