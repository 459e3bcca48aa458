//! The processors of simulated nodes, and on which of them guests really are.

use bulkhead_types::{CpuCore, CpuSet, CpuTopology, HugePages, NumaNode, NumaPolicy, ObjectId, Resources};

use crate::invariants::cpus;
use crate::world::World;

/// Threads of a core.
const THREADS: u32 = 2;

/// The processors that a node is built with; `None` of one whose agent does not tell. Nodes differ in their policies, and every
/// third keeps a CPU back.
pub(crate) fn topology(agent: u32, numa_nodes: u32, has: Resources) -> Option<CpuTopology> {
    let count = u32::try_from(has.cpu_millis / 1000).ok()?;
    if numa_nodes == 0 || count < numa_nodes * THREADS {
        return None;
    }
    let each = count / numa_nodes;
    let node = |id: u32| {
        // The last has what is left.
        let end = if id + 1 == numa_nodes { count } else { (id + 1) * each };
        let cpus: Vec<u32> = (id * each..end).collect();
        let core =
            |(core, cpus): (u32, &[u32])| CpuCore { package: id, core, cpus: cpus.iter().copied().collect() };
        let cores = (0..).zip(cpus.chunks(THREADS as usize)).map(core).collect();
        let part = |bytes: u64| bytes / u64::from(numa_nodes);
        let huge_pages = has.huge_pages.zip(HugePages::NONE, |bytes, _| part(bytes) >> 21 << 21);
        NumaNode { id, memory_bytes: part(has.memory_bytes), huge_pages, cores }
    };
    let (_, policy) = NumaPolicy::NAMES[agent as usize % NumaPolicy::NAMES.len()];
    let reserved: CpuSet = (0..1).filter(|_| agent.is_multiple_of(3)).collect();
    Some(CpuTopology { numa_nodes: (0..numa_nodes).map(node).collect(), reserved, policy })
}

impl World {
    /// What the living guests of a node have of its CPUs for themselves, with that of one that just started.
    pub(crate) fn check_cpus(&mut self, agent: u32) {
        let host = &self.agents[agent as usize];
        let guests = host.hypervisor.guests.iter();
        let held: Vec<(ObjectId, CpuSet)> =
            guests.filter_map(|(pod, guest)| Some((*pod, guest.cpus.clone()?))).collect();
        let verdict = cpus::held(&held);
        self.judge(verdict);
    }
}
