//! Where the memory and the virtual CPUs of a guest are whose pod has CPUs of its own. Pure.
//!
//! ```text
//!  start     place()      memory of the NUMA nodes that the pod's CPUs are on; of several: as many in the guest, divided as the CPUs
//!  later     RunsOn       all threads on the pod's CPUs, and where nobody else is there
//!            pin_plan()   each virtual CPU on one of them: those of a NUMA node in the guest on CPUs of its NUMA node of the host
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bulkhead_types::{CpuSet, CpuTopology};

use crate::GuestSize;
use crate::hardware::meminfo_bytes;
use crate::qemu::{HostMemPolicy, MemoryBackendRam, NumaNode, Ram};

/// Least memory of a NUMA node that a guest sees, in bytes: the guest's kernel keeps tables in each.
pub const GUEST_NODE_BYTES_MIN: u64 = 64 << 20;
/// QEMU sizes memory in steps of this, in bytes.
const MEMORY_STEP_BYTES: u64 = 1 << 20;

/// On which CPUs a guest's process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunsOn {
    /// The pod's own CPUs, or those of its pool; never none.
    pub cpus: CpuSet,
    /// They are the pod's own, and the shared pool is not on them: each virtual CPU gets one of them.
    pub one_by_one: bool,
}

impl fmt::Display for RunsOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.cpus, if self.one_by_one { " one by one" } else { "" })
    }
}

/// Where a guest is: its memory, and where it has several NUMA nodes, its virtual CPUs in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestNuma {
    /// By number of the host's NUMA node; at least one.
    pub nodes: Vec<GuestNumaNode>,
}

/// What a guest has of one NUMA node of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestNumaNode {
    /// The host's NUMA node.
    pub host_node: u32,
    /// How many virtual CPUs; at least 1.
    pub cpus: u32,
    /// How much memory, in bytes; whole MiB.
    pub memory_bytes: u64,
    /// How strictly.
    pub policy: HostMemPolicy,
}

/// Why a guest's memory is wherever the kernel puts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotPlaced {
    /// The machine does not have these CPUs.
    UnknownCpus(CpuSet),
    /// A NUMA node that the CPUs are on has no memory.
    NoMemory(u32),
    /// The pod has CPUs on several NUMA nodes, and not as many as its guest.
    OtherCpus {
        /// The pod's CPUs.
        own: u32,
        /// The guest's virtual CPUs.
        guest: u32,
    },
    /// The guest has too little memory to be divided.
    TooSmall,
}

impl fmt::Display for NotPlaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownCpus(cpus) => write!(f, "the machine has no CPUs {cpus}"),
            Self::NoMemory(node) => write!(f, "NUMA node {node} has no memory"),
            Self::OtherCpus { own, guest } => {
                write!(f, "the pod has {own} CPUs on several NUMA nodes, and its guest has {guest}")
            }
            Self::TooSmall => {
                write!(f, "a NUMA node of the guest would have less than {} MiB", GUEST_NODE_BYTES_MIN >> 20)
            }
        }
    }
}

impl GuestNuma {
    /// Where a guest of this size belongs whose pod has these CPUs. `available_bytes` says what a NUMA node has left, if that is
    /// known: memory that does not fit there is preferred to be there, as a guest that may be nowhere else would end.
    ///
    /// # Errors
    /// Why it belongs nowhere in particular.
    pub fn place(
        topology: &CpuTopology,
        cpus: &CpuSet,
        size: GuestSize,
        available_bytes: impl Fn(u32) -> Option<u64>,
    ) -> Result<Self, NotPlaced> {
        let missing = cpus.minus(&topology.cpus());
        if !missing.is_empty() || cpus.is_empty() {
            return Err(NotPlaced::UnknownCpus(missing));
        }
        let own = |node: &bulkhead_types::NumaNode| node.cpus().intersection(cpus).len();
        let on = topology.numa_nodes.iter().filter(|node| own(node) > 0).collect::<Vec<_>>();
        if let Some(node) = on.iter().find(|node| node.memory_bytes == 0) {
            return Err(NotPlaced::NoMemory(node.id));
        }
        let counts: Vec<u32> = match on.as_slice() {
            [_] => vec![size.cpus],
            _ if cpus.len() != size.cpus => {
                return Err(NotPlaced::OtherCpus { own: cpus.len(), guest: size.cpus });
            }
            _ => on.iter().map(|node| own(node)).collect(),
        };
        let shares = divide(size.memory_bytes, &counts);
        if shares.len() > 1 && shares.iter().any(|share| *share < GUEST_NODE_BYTES_MIN) {
            return Err(NotPlaced::TooSmall);
        }
        let nodes = on.iter().zip(counts.iter().zip(shares)).map(|(node, (cpus, memory_bytes))| {
            let fits = available_bytes(node.id).is_none_or(|available| available >= memory_bytes);
            let policy = if fits { HostMemPolicy::Bind } else { HostMemPolicy::Preferred };
            GuestNumaNode { host_node: node.id, cpus: *cpus, memory_bytes, policy }
        });
        Ok(Self { nodes: nodes.collect() })
    }

    /// The host's NUMA nodes that do not have the memory left which the guest takes there.
    pub fn crowded(&self) -> impl Iterator<Item = u32> + '_ {
        let preferred = self.nodes.iter().filter(|node| node.policy == HostMemPolicy::Preferred);
        preferred.map(|node| node.host_node)
    }

    /// The same for QEMU. With `prealloc` all memory is had from the start.
    #[must_use]
    pub fn ram(&self, prealloc: bool) -> Ram {
        let backend = |(number, node): (usize, &GuestNumaNode)| MemoryBackendRam {
            id: format!("mem{number}"),
            size_bytes: node.memory_bytes,
            host_node: node.host_node,
            policy: node.policy,
            prealloc,
        };
        let mut backends = self.nodes.iter().enumerate().map(backend);
        if let [_] = self.nodes.as_slice() {
            return Ram::One(backends.next().expect("one"));
        }
        let mut first_cpu = 0;
        let nodes = backends.zip(&self.nodes).map(|(memdev, node)| {
            let numa_node = NumaNode { first_cpu, cpus: node.cpus, memdev };
            first_cpu += node.cpus;
            numa_node
        });
        Ram::Nodes(nodes.collect())
    }
}

/// Memory in proportion to these counts, in whole MiB; what cannot be divided is the first one's.
fn divide(memory_bytes: u64, counts: &[u32]) -> Vec<u64> {
    let steps = memory_bytes.div_ceil(MEMORY_STEP_BYTES);
    let all = counts.iter().map(|count| u64::from(*count)).sum::<u64>().max(1);
    let share = |count: &u32| u128::from(steps) * u128::from(*count) / u128::from(all);
    let mut shares: Vec<u64> =
        counts.iter().map(|count| u64::try_from(share(count)).expect("no more than all")).collect();
    let rest = steps - shares.iter().sum::<u64>();
    if let Some(first) = shares.first_mut() {
        *first += rest;
    }
    shares.iter().map(|steps| steps.saturating_mul(MEMORY_STEP_BYTES)).collect()
}

/// Which thread of QEMU goes on which CPU of the host: virtual CPUs in order, CPUs by NUMA node and number. `threads` names the thread of
/// each virtual CPU, as QEMU says.
///
/// # Errors
/// Why they cannot go one by one.
pub fn pin_plan(
    topology: &CpuTopology,
    cpus: &CpuSet,
    threads: &BTreeMap<u32, i32>,
) -> Result<Vec<(i32, u32)>, String> {
    let by_node = topology.numa_nodes.iter().flat_map(|node| {
        let own = node.cpus().intersection(cpus);
        own.iter().collect::<Vec<_>>()
    });
    let order: Vec<u32> = by_node.collect();
    if order.len() != cpus.len() as usize || order.len() != threads.len() {
        return Err(format!(
            "{} virtual CPUs have {} CPUs, of which the machine has {}",
            threads.len(),
            cpus.len(),
            order.len()
        ));
    }
    // Emulation may run all of them in one thread.
    if threads.values().collect::<BTreeSet<_>>().len() != threads.len() {
        return Err("virtual CPUs share a thread".to_owned());
    }
    Ok(threads.values().copied().zip(order).collect())
}

/// What a NUMA node has left by its `meminfo`, in bytes: free, or given back when it is wanted (files, slabs). `None` when that does not
/// say so.
#[must_use]
pub fn node_available_bytes(meminfo: &str) -> Option<u64> {
    let reclaimable = ["Active(file)", "Inactive(file)", "SReclaimable"];
    let reclaimable = reclaimable.map(|name| meminfo_bytes(meminfo, name).unwrap_or(0));
    Some(reclaimable.into_iter().fold(meminfo_bytes(meminfo, "MemFree")?, u64::saturating_add))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_types::{CpuCore, NumaNode as HostNode};
    use proptest::prelude::*;

    fn set(text: &str) -> CpuSet {
        text.parse().expect("a set")
    }

    /// NUMA nodes 0, 1 … with these CPUs, each a core, and so much memory.
    fn topology(nodes: &[(&str, u64)]) -> CpuTopology {
        let node = |(id, (cpus, memory_bytes)): (u32, &(&str, u64))| HostNode {
            huge_pages: bulkhead_types::HugePages::NONE,
            id,
            memory_bytes: *memory_bytes,
            cores: set(cpus)
                .iter()
                .map(|cpu| CpuCore { package: id, core: cpu, cpus: set(&cpu.to_string()) })
                .collect(),
        };
        CpuTopology { numa_nodes: (0..).zip(nodes).map(node).collect(), ..CpuTopology::default() }
    }

    /// A machine whose CPUs alternate between its NUMA nodes; the third has memory only, the fourth CPUs only.
    fn machine() -> CpuTopology {
        topology(&[("0,2,4,6", 1 << 40), ("1,3,5,7", 1 << 40), ("", 1 << 40), ("8-9", 0)])
    }

    fn size(cpus: u32, mib: u64) -> GuestSize {
        GuestSize { cpus, memory_bytes: mib << 20 }
    }

    #[test]
    fn memory_is_where_the_cpus_are() {
        let check = |cpus: &str, size: GuestSize, left_mib: Option<u64>, expected: &str| {
            let placed = GuestNuma::place(&machine(), &set(cpus), size, |_| left_mib.map(|mib| mib << 20));
            let node = |node: &GuestNumaNode| {
                let policy = if node.policy == HostMemPolicy::Bind { "" } else { " if it can be" };
                format!("{}: {} cpus {} MiB{policy}", node.host_node, node.cpus, node.memory_bytes >> 20)
            };
            let text = match placed {
                Ok(placed) => placed.nodes.iter().map(node).collect::<Vec<_>>().join(", "),
                Err(why) => why.to_string(),
            };
            assert_eq!(text, expected);
        };
        check("1,3", size(2, 512), None, "1: 2 cpus 512 MiB");
        check("1,3", size(2, 512), Some(512), "1: 2 cpus 512 MiB");
        check("1,3", size(2, 512), Some(511), "1: 2 cpus 512 MiB if it can be");
        check("0-3", size(4, 513), None, "0: 2 cpus 257 MiB, 1: 2 cpus 256 MiB");
        check("0-1,3,5", size(4, 1024), Some(300), "0: 1 cpus 256 MiB, 1: 3 cpus 768 MiB if it can be");
        check("2", size(3, 512), None, "0: 3 cpus 512 MiB");
        check("0-1", size(3, 512), None, "the pod has 2 CPUs on several NUMA nodes, and its guest has 3");
        check("0-1", size(2, 127), None, "a NUMA node of the guest would have less than 64 MiB");
        check("7-8", size(2, 512), None, "NUMA node 3 has no memory");
        check("9-11", size(3, 512), None, "the machine has no CPUs 10-11");
    }

    #[test]
    fn each_virtual_cpu_has_a_cpu_of_its_numa_node() {
        let check = |cpus: &str, threads: &[(u32, i32)], expected: Result<&[(i32, u32)], &str>| {
            let found = pin_plan(&machine(), &set(cpus), &threads.iter().copied().collect());
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
                (found, _) => panic!("{cpus} {threads:?}: {found:?}"),
            }
        };
        check("2,4", &[(0, 70), (1, 71)], Ok(&[(70, 2), (71, 4)]));
        let four = [(3, 73), (0, 70), (1, 71), (2, 72)];
        check("0-3", &four, Ok(&[(70, 0), (71, 2), (72, 1), (73, 3)]));
        check("0-2", &four, Err("4 virtual CPUs have 3 CPUs"));
        check("9-12", &four, Err("of which the machine has 1"));
        check("0-1", &[(0, 70), (1, 70)], Err("share a thread"));
    }

    #[test]
    fn what_a_numa_node_has_left() {
        let text = "Node 1 MemTotal:  9000 kB\nNode 1 MemFree:  10 kB\nNode 1 Active(file):  2 kB\nNode 1 SReclaimable:  4 kB\n";
        assert_eq!(node_available_bytes(text), Some(16 << 10));
        assert_eq!(node_available_bytes("Node 1 MemTotal:  9000 kB\n"), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn the_guest_has_all_of_its_memory_and_cpus(even in 1u32..5, odd in 0u32..5, mib in 600u64..5000) {
            let machine = machine();
            let [zero, one] = [0, 1].map(|node: usize| machine.numa_nodes[node].cpus());
            let cpus: CpuSet = zero.iter().take(even as usize).chain(one.iter().take(odd as usize)).collect();
            let size = size(even + odd, mib);
            let placed = GuestNuma::place(&machine, &cpus, size, |_| None).expect("there is room");
            prop_assert_eq!(placed.nodes.iter().map(|node| node.memory_bytes).sum::<u64>(), size.memory_bytes);
            prop_assert_eq!(placed.nodes.iter().map(|node| node.cpus).sum::<u32>(), size.cpus);
            // The guest's CPUs are pinned to the NUMA nodes of which their memory is.
            let threads = (0..size.cpus).map(|cpu| (cpu, 100 + cpu.cast_signed())).collect();
            let mut plan = pin_plan(&machine, &cpus, &threads).expect("as many").into_iter();
            for node in &placed.nodes {
                for (_, cpu) in plan.by_ref().take(node.cpus as usize) {
                    prop_assert!(machine.numa_nodes[node.host_node as usize].cpus().contains(cpu));
                }
            }
            prop_assert_eq!(plan.next(), None);
        }
    }
}
