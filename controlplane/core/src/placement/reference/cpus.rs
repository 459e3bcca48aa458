//! Whether a pod may have the CPUs that a binding gives it, asked of nodes and pods alone, CPU by CPU: slow, obvious, and
//! without any of the code that chooses.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_types::{
    Binding, CpuHold, CpuNeeds, CpuTopology, HugePageSize, NUMA_LEVEL, NumaPolicy, ObjectId, Pod, PodCpus,
    cpu_needs,
};

use crate::State;

/// Judges a binding against the State before it and the bindings of the same transaction before it.
///
/// # Errors
/// What is wrong with it.
pub fn check(state: &State, binding: &Binding, earlier: &[Binding]) -> Result<(), String> {
    let (Some(pod), Some(node)) = (state.pods().get(binding.pod), state.nodes().get(binding.node)) else {
        return Ok(());
    };
    let wanted = match state.feature_level() >= NUMA_LEVEL {
        true => {
            cpu_needs(&pod.meta.labels, &pod.meta.annotations, &pod.spec).map_err(|one| one.to_string())?
        }
        false => None,
    };
    let (wanted, given) = match (wanted, binding.cpus.get()) {
        (None, None) => return Ok(()),
        (Some(wanted), Some(given)) => (wanted, given),
        (wanted, given) => return Err(format!("it wants {wanted:?} and gets {given:?}")),
    };
    let Some(topology) = node.status.facts.cpus.get() else {
        return Err("its node reports no CPUs".to_owned());
    };
    if wanted.policy != NumaPolicy::None && wanted.policy != topology.policy {
        return Err(format!("it wants {:?} of a node that is {:?}", wanted.policy, topology.policy));
    }
    if given.cpus.len() != wanted.cpus || given.hold != wanted.hold {
        return Err(format!("it wants {wanted:?} and gets {given:?}"));
    }
    let holders = holders(state, binding, earlier);
    let homes = homes(topology);
    check_cpus(given, topology, &holders, &homes)?;
    check_numa(&wanted, given, topology, &holders, pod.spec.asks_for_devices())?;
    check_devices(state, pod, binding, &wanted, given)
}

/// Who has CPUs of the node for itself.
fn holders<'a>(state: &'a State, binding: &Binding, earlier: &'a [Binding]) -> Vec<&'a PodCpus> {
    let is_there = |pod: &&std::sync::Arc<Pod>| {
        pod.node == Some(binding.node) && !pod.status.phase.is_terminal() && pod.meta.id != binding.pod
    };
    let bound = state.pods().iter().filter(is_there).filter_map(|pod| pod.cpus());
    let new = earlier.iter().filter(|one| one.node == binding.node).filter_map(|one| one.cpus.get());
    bound.chain(new).collect()
}

/// The NUMA node of each CPU.
fn homes(topology: &CpuTopology) -> BTreeMap<u32, u32> {
    let of_node = |node: &bulkhead_types::NumaNode| {
        let id = node.id;
        node.cpus().iter().map(move |cpu| (cpu, id)).collect::<Vec<_>>()
    };
    topology.numa_nodes.iter().flat_map(of_node).collect()
}

fn check_cpus(
    given: &PodCpus,
    topology: &CpuTopology,
    holders: &[&PodCpus],
    homes: &BTreeMap<u32, u32>,
) -> Result<(), String> {
    for cpu in given.cpus.iter() {
        if !homes.contains_key(&cpu) || topology.reserved.contains(cpu) {
            return Err(format!("CPU {cpu} is not there, or reserved"));
        }
        if holders.iter().any(|holder| holder.cpus.contains(cpu)) {
            return Err(format!("CPU {cpu} is another pod's"));
        }
    }
    let is_shared = |cpu: &&u32| {
        let takes = |one: &PodCpus| one.hold != CpuHold::Bound && one.cpus.contains(**cpu);
        !takes(given) && !holders.iter().any(|holder| takes(holder))
    };
    if !homes.keys().any(|cpu| is_shared(&cpu)) {
        return Err("no CPU is left to share".to_owned());
    }
    let nodes: BTreeSet<u32> = given.cpus.iter().filter_map(|cpu| homes.get(&cpu).copied()).collect();
    if nodes.iter().ne(&given.numa_nodes) {
        return Err(format!("its CPUs are on NUMA nodes {nodes:?}, not {:?}", given.numa_nodes));
    }
    Ok(())
}

fn check_numa(
    wanted: &CpuNeeds,
    given: &PodCpus,
    topology: &CpuTopology,
    holders: &[&PodCpus],
    with_devices: bool,
) -> Result<(), String> {
    let is_one = given.numa_nodes.len() == 1;
    let is_large = |node: &bulkhead_types::NumaNode| {
        let cpus = node.cpus().iter().filter(|cpu| !topology.reserved.contains(*cpu)).count();
        cpus >= wanted.cpus as usize
            && node.memory_bytes >= wanted.memory_bytes
            && wanted.huge_pages.two_mib_bytes <= node.huge_pages.two_mib_bytes
            && wanted.huge_pages.one_gib_bytes <= node.huge_pages.one_gib_bytes
    };
    // With devices and whole cores one may be too small for other reasons.
    let is_plain = !with_devices && !wanted.full_cores;
    let must = wanted.policy == NumaPolicy::SingleNumaNode
        || (wanted.policy == NumaPolicy::Restricted && is_plain && topology.numa_nodes.iter().any(is_large));
    if must && !is_one {
        return Err(format!("{:?} on NUMA nodes {:?}", wanted.policy, given.numa_nodes));
    }
    if wanted.full_cores {
        let cores = topology.numa_nodes.iter().flat_map(|node| &node.cores);
        for core in cores.filter(|core| !core.cpus.is_disjoint(&given.cpus)) {
            if !core.cpus.is_subset(&given.cpus) {
                return Err(format!("core {} of package {} is broken up", core.core, core.package));
            }
        }
    }
    let counted = |one: &&&PodCpus| one.numa_nodes == given.numa_nodes && is_one;
    let others: u64 = holders.iter().filter(counted).map(|one| one.memory_bytes).sum();
    let node = topology.numa_nodes.iter().find(|node| given.numa_nodes == [node.id]);
    let has = node.map_or(0, |node| node.memory_bytes);
    if given.memory_bytes > 0 && others + given.memory_bytes > has {
        return Err(format!("NUMA node {:?} has {has} bytes of memory, not enough", given.numa_nodes));
    }
    for size in HugePageSize::ALL {
        let others = holders.iter().filter(counted).map(|one| one.huge_pages.of(size)).sum::<u64>();
        let has = node.map_or(0, |node| node.huge_pages.of(size));
        if given.huge_pages.of(size) > 0 && others + given.huge_pages.of(size) > has {
            return Err(format!(
                "NUMA node {:?} has {has} bytes of huge pages, not enough",
                given.numa_nodes
            ));
        }
    }
    if must && given.huge_pages != wanted.huge_pages {
        return Err("its huge pages do not count on its NUMA node".to_owned());
    }
    if must && given.memory_bytes != wanted.memory_bytes {
        return Err("its memory does not count on its NUMA node".to_owned());
    }
    Ok(())
}

/// Devices of a pod that must be on one NUMA node are there.
fn check_devices(
    state: &State,
    pod: &Pod,
    binding: &Binding,
    wanted: &CpuNeeds,
    given: &PodCpus,
) -> Result<(), String> {
    if wanted.policy != NumaPolicy::SingleNumaNode {
        return Ok(());
    }
    let slice = |node: ObjectId| state.resource_slices().iter().find(|slice| slice.node == node);
    for device in &binding.devices {
        let known = slice(binding.node).and_then(|slice| slice.device(&device.device));
        let far = known.and_then(|known| known.numa_node).filter(|id| !given.numa_nodes.contains(id));
        if let Some(id) = far {
            let name = &pod.meta.name;
            return Err(format!("device {} of {name} is on NUMA node {id}, its CPUs are not", device.device));
        }
    }
    Ok(())
}
