//! CPUs.

use super::*;

/// Any set.
pub fn cpu_set() -> impl Strategy<Value = CpuSet> + Clone {
    vec(0..bulkhead_types::CPUS_MAX, 0..4).prop_map(|cpus| cpus.into_iter().collect())
}

record!(/// Any core.
    cpu_core: CpuCore { package: any::<u32>(), core: any::<u32>(), cpus: cpu_set() });
record!(/// Any NUMA node.
numa_node: NumaNode {
    id: any::<u32>(), memory_bytes: any::<u64>(), cores: vec(cpu_core(), 0..3), huge_pages: huge_pages(),
});
record!(/// Any topology.
cpu_topology: CpuTopology {
    numa_nodes: vec(numa_node(), 0..3), reserved: cpu_set(),
    policy: select(NumaPolicy::NAMES.map(|(_, policy)| policy).to_vec()),
});
record!(/// Any CPUs of a pod.
pod_cpus: PodCpus {
    cpus: cpu_set(), numa_nodes: vec(any::<u32>(), 0..3), memory_bytes: any::<u64>(),
    hold: select(vec![CpuHold::Exclusive, CpuHold::Reserved, CpuHold::Bound]), huge_pages: huge_pages(),
});
record!(/// Any pools.
    cpu_pools: CpuPools { shared: cpu_set(), batch: cpu_set() });
