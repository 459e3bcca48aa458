//! Which CPUs of one NUMA node are taken.

use bulkhead_types::{CpuBindPolicy, CpuNeeds, CpuSet, NumaNode};

/// How many CPUs a pod could get of those that are free on a NUMA node.
pub(super) fn available(needs: &CpuNeeds, free: &CpuSet, node: &NumaNode) -> u32 {
    match needs.full_cores {
        true => whole_cores(free, node).map(CpuSet::len).sum(),
        false => node.cpus().intersection(free).len(),
    }
}

/// The cores of which every thread is free.
fn whole_cores<'a>(free: &'a CpuSet, node: &'a NumaNode) -> impl Iterator<Item = &'a CpuSet> {
    node.cores.iter().map(|core| &core.cpus).filter(|cpus| cpus.is_subset(free))
}

/// So many CPUs of those that are free on a NUMA node; `None` when there are too few, or cores would have to be broken up that
/// must not be.
pub(super) fn pick(count: u32, needs: &CpuNeeds, free: &CpuSet, node: &NumaNode) -> Option<CpuSet> {
    let found = pick_most(count, needs, free, node);
    (found.len() == count).then_some(found)
}

/// As many as can be had, but no more than so many.
pub(super) fn pick_most(count: u32, needs: &CpuNeeds, free: &CpuSet, node: &NumaNode) -> CpuSet {
    match needs.bind {
        CpuBindPolicy::SpreadByPCPUs => spread(count, free, node),
        CpuBindPolicy::FullPCPUs => packed(count, needs.full_cores, free, node),
    }
}

/// Whole cores as far as they go; what is left on cores that others have broken up, the fullest first.
fn packed(count: u32, full_cores: bool, free: &CpuSet, node: &NumaNode) -> CpuSet {
    let mut found = CpuSet::new();
    for core in whole_cores(free, node) {
        if found.len() + core.len() <= count {
            found = found.union(core);
        }
    }
    if full_cores {
        return found;
    }
    let rest = free.minus(&found);
    let mut broken: Vec<CpuSet> = node.cores.iter().map(|core| core.cpus.intersection(&rest)).collect();
    broken.sort_by_key(CpuSet::len);
    for cpu in broken.iter().flat_map(CpuSet::iter) {
        if found.len() < count {
            found.insert(cpu);
        }
    }
    found
}

/// One thread of each core, then the next of each.
fn spread(count: u32, free: &CpuSet, node: &NumaNode) -> CpuSet {
    let cores: Vec<Vec<u32>> =
        node.cores.iter().map(|core| core.cpus.intersection(free).iter().collect()).collect();
    let rounds = cores.iter().map(Vec::len).max().unwrap_or(0);
    let order = (0..rounds).flat_map(|round| cores.iter().filter_map(move |core| core.get(round)));
    order.take(count as usize).copied().collect()
}
