//! Huge pages of this machine for guests: whether there are enough, and what the guest is told of its volumes of them.

use bulkhead_guest_protocol::host::VolumeConfig;
use bulkhead_nodeagent_core::hardware::{HUGE_PAGE_POOLS, free_huge_pages, node_huge_page_pools};
use bulkhead_nodeagent_core::qemu::{GuestPages, check_huge_pages};
use bulkhead_nodeagent_core::reason;
use bulkhead_types::{HugePages, PodSpec, Volume};

use super::start::StartError;
use crate::machine::MachineTree;

/// What the pools of a NUMA node have left.
pub(super) fn free_of_node(numa_node: u32) -> HugePages {
    free_huge_pages(&MachineTree::new("/"), &node_huge_page_pools(numa_node))
}

/// Whether the machine has the huge pages that a guest takes. QEMU takes them a moment later: where somebody else was faster it
/// ends with words of its own, by which the pod names the pool as well.
///
/// # Errors
/// Which pool has too few.
pub(super) fn check(pages: &GuestPages, memory_bytes: u64) -> Result<(), String> {
    if pages.is_none() {
        return Ok(());
    }
    let free = free_huge_pages(&MachineTree::new("/"), HUGE_PAGE_POOLS);
    check_huge_pages(free, pages.needed(memory_bytes))
}

/// What the guest is told of a volume of huge pages.
///
/// # Errors
/// When the pod has no pages that it could be of: it was made before that was checked.
pub(super) fn volume(
    spec: &PodSpec,
    volume: &Volume,
    size_limit_bytes: u64,
    config: &mut VolumeConfig,
) -> Result<(), StartError> {
    let size = volume.huge_pages().and_then(|medium| medium.size(spec.huge_pages()));
    let size = size.ok_or_else(|| {
        let message = format!("volume {} is of huge pages that the pod does not ask for", volume.name);
        StartError::new(reason::CREATE_CONTAINER_CONFIG_ERROR, message)
    })?;
    config.size_bytes = size_limit_bytes;
    config.page_bytes = size.bytes();
    Ok(())
}
