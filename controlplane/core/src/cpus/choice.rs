//! Which CPUs and devices of a node a pod gets, together.
//!
//! ```text
//!  must or should be on one NUMA node ─► each that has room, the fullest first: devices there? ─► CPUs there
//!                                   │ none, and it may be on several
//!                                   ▼
//!  devices as they are best by themselves ─► CPUs on their NUMA nodes first, then where most are free
//! ```

use std::cmp::Reverse;

use bulkhead_types::{AllocatedDevice, CpuNeeds, CpuSet, NumaNode, NumaPolicy, PodCpus};

use super::NodeCpus;
use super::pick::{available, pick, pick_most};
use crate::devices::{Needs, NodeDevices, Policies};

/// What a pod asks for beside room.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asks<'a> {
    pub(crate) cpus: Option<&'a CpuNeeds>,
    /// Only when it asks for any.
    pub(crate) devices: Option<(&'a Needs, Policies)>,
}

/// What a pod gets of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) devices: Vec<AllocatedDevice>,
    pub(crate) cpus: Option<PodCpus>,
}

/// The devices and CPUs that a pod gets of a node that has such; `None` when they are not to be had.
pub(crate) fn choose(
    asks: &Asks<'_>,
    cpus: Option<&NodeCpus>,
    devices: Option<&NodeDevices>,
) -> Option<Chosen> {
    let anywhere = || match asks.devices {
        None => Some(Vec::new()),
        Some((needs, policies)) => Some(devices?.choose(needs, policies).ok()?.devices),
    };
    let Some(needs) = asks.cpus else { return Some(Chosen { devices: anywhere()?, cpus: None }) };
    let ledger = cpus?;
    let free = ledger.free();
    if free.len() < needs.cpus {
        return None;
    }
    let is_strict = must_be_one(asks, ledger, devices);
    let prefers_one = asks.devices.is_none() || needs.policy != NumaPolicy::None;
    if (is_strict || prefers_one)
        && let Some(chosen) = on_one(asks, needs, (ledger, &free), devices)
    {
        return Some(chosen);
    }
    if is_strict {
        return None;
    }
    let devices_given = anywhere()?;
    let near = numa_nodes(devices, &devices_given);
    let found = across(needs, ledger, &free, &near)?;
    let numa_nodes = ledger.nodes_of(&found);
    // What happens to be on one NUMA node counts there, if there is room: nobody relies on it.
    let alone = ledger.numa_nodes().iter().find(|node| numa_nodes == [node.id]);
    let counts = alone.is_some_and(|node| ledger.has_memory(needs, node));
    let (memory_bytes, huge_pages) =
        if counts { (needs.memory_bytes, needs.huge_pages) } else { Default::default() };
    let given = PodCpus { cpus: found, numa_nodes, memory_bytes, huge_pages, hold: needs.hold };
    ledger
        .leaves_shared(&given.cpus, given.hold)
        .then_some(Chosen { devices: devices_given, cpus: Some(given) })
}

/// Whether a pod must be on one NUMA node of a node: by its policy, or because one would be enough if nobody else were there
/// (`restricted`).
pub(crate) fn must_be_one(asks: &Asks<'_>, cpus: &NodeCpus, devices: Option<&NodeDevices>) -> bool {
    let Some(needs) = asks.cpus else { return false };
    match needs.policy {
        NumaPolicy::None | NumaPolicy::BestEffort => false,
        NumaPolicy::SingleNumaNode => true,
        NumaPolicy::Restricted => {
            let (cpus, devices) = (cpus.emptied(), devices.map(NodeDevices::emptied));
            let has_devices = |node: &NumaNode| match (asks.devices, &devices) {
                (None, _) => true,
                (Some((needs, _)), Some(devices)) => devices.could_be_on(needs, node.id),
                (Some(_), None) => false,
            };
            let is_enough = |node: &&NumaNode| {
                available(needs, &cpus.capacity(node), node) >= needs.cpus
                    && node.memory_bytes >= needs.memory_bytes
                    && needs.huge_pages.fits_in(node.huge_pages)
                    && has_devices(node)
            };
            cpus.numa_nodes().iter().any(|node| is_enough(&node))
        }
    }
}

/// Everything on one NUMA node: the fullest that has room, the lowest number among equals.
fn on_one(
    asks: &Asks<'_>,
    needs: &CpuNeeds,
    (ledger, free): (&NodeCpus, &CpuSet),
    devices: Option<&NodeDevices>,
) -> Option<Chosen> {
    let has_room =
        |node: &&NumaNode| available(needs, free, node) >= needs.cpus && ledger.has_memory(needs, node);
    let mut nodes: Vec<&NumaNode> = ledger.numa_nodes().iter().filter(has_room).collect();
    nodes.sort_by_key(|node| (available(needs, free, node), node.id));
    nodes.into_iter().find_map(|node| {
        let found = pick(needs.cpus, needs, &node.cpus().intersection(free), node)?;
        if !ledger.leaves_shared(&found, needs.hold) {
            return None;
        }
        let given = match asks.devices {
            None => Vec::new(),
            Some((wanted, policies)) => devices?.choose_on(wanted, policies, node.id)?,
        };
        let CpuNeeds { memory_bytes, huge_pages, hold, .. } = *needs;
        let cpus = PodCpus { cpus: found, numa_nodes: vec![node.id], memory_bytes, huge_pages, hold };
        Some(Chosen { devices: given, cpus: Some(cpus) })
    })
}

/// CPUs on as few NUMA nodes as can be: those near first, then where most are free.
fn across(needs: &CpuNeeds, ledger: &NodeCpus, free: &CpuSet, near: &[u32]) -> Option<CpuSet> {
    let mut nodes: Vec<&NumaNode> = ledger.numa_nodes().iter().collect();
    nodes.sort_by_key(|node| (!near.contains(&node.id), Reverse(available(needs, free, node)), node.id));
    let mut found = CpuSet::new();
    for node in nodes {
        let own = node.cpus().intersection(free);
        found = found.union(&pick_most(needs.cpus - found.len(), needs, &own, node));
    }
    (found.len() == needs.cpus).then_some(found)
}

/// The NUMA nodes of devices, as far as they are known.
fn numa_nodes(ledger: Option<&NodeDevices>, given: &[AllocatedDevice]) -> Vec<u32> {
    let of = |one: &AllocatedDevice| ledger?.get(&one.device)?.device.numa_node;
    given.iter().filter_map(of).collect()
}

/// Whether a pod may have exactly these CPUs beside exactly these devices, which were judged by themselves: asked without the
/// code that chooses.
pub(crate) fn may_take(
    asks: &Asks<'_>,
    ledger: &NodeCpus,
    devices: Option<&NodeDevices>,
    given: &PodCpus,
    devices_given: &[AllocatedDevice],
) -> bool {
    let Some(needs) = asks.cpus else { return false };
    let is_whole = |core: &CpuSet| core.is_disjoint(&given.cpus) || core.is_subset(&given.cpus);
    let mut cores = ledger.numa_nodes().iter().flat_map(|node| &node.cores);
    let alone = ledger.numa_nodes().iter().find(|node| given.numa_nodes == [node.id]);
    let memory_fits = match (given.memory_bytes, alone) {
        (0, _) => given.huge_pages.is_none(),
        (bytes, Some(node)) => {
            bytes == needs.memory_bytes
                && given.huge_pages == needs.huge_pages
                && ledger.has_memory(needs, node)
        }
        (_, None) => false,
    };
    let is_together = || {
        let is_there = |node: &NumaNode| numa_nodes(devices, devices_given).iter().all(|id| *id == node.id);
        given.memory_bytes == needs.memory_bytes && alone.is_some_and(is_there)
    };
    given.hold == needs.hold
        && given.cpus.len() == needs.cpus
        && given.cpus.is_subset(&ledger.free())
        && given.numa_nodes == ledger.nodes_of(&given.cpus)
        && ledger.leaves_shared(&given.cpus, given.hold)
        && (!needs.full_cores || cores.all(|core| is_whole(&core.cpus)))
        && memory_fits
        && (!must_be_one(asks, ledger, devices) || is_together())
}
