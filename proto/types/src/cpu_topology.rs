//! The processors of a node as its agent finds them: NUMA nodes, physical cores, threads; and what a pod was given of them.

use serde::{Deserialize, Serialize};

use crate::{AMOUNT_MAX, CpuSet, HugePageSize, HugePages};

/// Most NUMA nodes of one node.
pub const NUMA_NODES_MAX: usize = 64;

/// How strictly CPUs and devices of a pod are to be on one NUMA node (the kubelet's `--topology-manager-policy`; of a pod
/// Volcano's `volcano.sh/numa-topology-policy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NumaPolicy {
    /// They may be anywhere.
    #[default]
    None = 1,
    /// On one, if there is room; else on several.
    BestEffort = 2,
    /// On one, if one is large enough when it is empty; else on several.
    Restricted = 3,
    /// On one.
    SingleNumaNode = 4,
}

impl NumaPolicy {
    /// All, as operators and users write them.
    pub const NAMES: [(&'static str, Self); 4] = [
        ("none", Self::None),
        ("best-effort", Self::BestEffort),
        ("restricted", Self::Restricted),
        ("single-numa-node", Self::SingleNumaNode),
    ];

    /// The policy of such a name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(name, _)| *name == text).map(|(_, policy)| *policy)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, policy)| *policy == self).map_or("none", |(name, _)| name)
    }
}

/// One physical core.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CpuCore {
    /// The package (socket) that it is in: `physical_package_id`.
    pub package: u32,
    /// Its number in the package: `core_id`.
    pub core: u32,
    /// Its threads.
    pub cpus: CpuSet,
}

/// One NUMA node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NumaNode {
    /// Its number.
    pub id: u32,
    /// Its memory, in bytes; from [`crate::HUGE_PAGES_LEVEL`] on without its huge pages.
    pub memory_bytes: u64,
    /// Its huge pages. Needs [`crate::HUGE_PAGES_LEVEL`].
    #[serde(default)]
    pub huge_pages: HugePages,
    /// Its cores, by package and number; none of a NUMA node that has memory only.
    pub cores: Vec<CpuCore>,
}

impl NumaNode {
    /// All CPUs of it.
    #[must_use]
    pub fn cpus(&self) -> CpuSet {
        self.cores.iter().fold(CpuSet::new(), |sum, core| sum.union(&core.cpus))
    }
}

/// The CPUs of a node that are online, and how pods may have them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CpuTopology {
    /// The NUMA nodes, by number.
    pub numa_nodes: Vec<NumaNode>,
    /// CPUs that no pod gets for itself (the kubelet's `--reserved-cpus`); they stay in the shared pool.
    pub reserved: CpuSet,
    /// The node's policy.
    pub policy: NumaPolicy,
}

impl CpuTopology {
    /// All CPUs.
    #[must_use]
    pub fn cpus(&self) -> CpuSet {
        self.numa_nodes.iter().fold(CpuSet::new(), |sum, node| sum.union(&node.cpus()))
    }

    /// The same, where huge pages are ordinary memory: what clusters below [`crate::HUGE_PAGES_LEVEL`] are told.
    #[must_use]
    pub fn without_huge_pages(&self) -> Self {
        let mut all = self.clone();
        for node in &mut all.numa_nodes {
            node.huge_pages = HugePages::NONE;
        }
        all
    }

    /// Whether any NUMA node has huge pages.
    #[must_use]
    pub fn has_huge_pages(&self) -> bool {
        self.numa_nodes.iter().any(|node| !node.huge_pages.is_none())
    }

    /// Checks what an agent says.
    ///
    /// # Errors
    /// What no machine is like.
    pub fn check(&self) -> Result<(), String> {
        if self.numa_nodes.is_empty() || self.numa_nodes.len() > NUMA_NODES_MAX {
            return Err(format!(
                "has {} NUMA nodes: 1 to {NUMA_NODES_MAX} are possible",
                self.numa_nodes.len()
            ));
        }
        if !self.numa_nodes.is_sorted_by(|a, b| a.id < b.id) {
            return Err("names a NUMA node twice, or not in order".to_owned());
        }
        let mut seen = CpuSet::new();
        for node in &self.numa_nodes {
            if HugePageSize::ALL.iter().any(|size| node.huge_pages.of(*size) > AMOUNT_MAX) {
                return Err(format!("NUMA node {} has more than 2^53 bytes of huge pages", node.id));
            }
            if node.memory_bytes > AMOUNT_MAX {
                return Err(format!("NUMA node {} has more than 2^53 bytes", node.id));
            }
            if !node.cores.is_sorted_by(|a, b| (a.package, a.core) < (b.package, b.core)) {
                return Err(format!("NUMA node {} names a core twice, or not in order", node.id));
            }
            for core in &node.cores {
                if core.cpus.is_empty() || !core.cpus.is_disjoint(&seen) {
                    return Err(format!(
                        "core {} of package {} has no CPU, or one that is another core's",
                        core.core, core.package
                    ));
                }
                seen = seen.union(&core.cpus);
            }
        }
        if seen.is_empty() {
            return Err("has no CPU".to_owned());
        }
        if !self.reserved.is_subset(&seen) {
            return Err(format!("reserves CPUs {} that are not there", self.reserved.minus(&seen)));
        }
        Ok(())
    }
}

/// How a pod has the CPUs that it was given (Koordinator's classes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CpuHold {
    /// LSE: nobody else is on them.
    Exclusive = 1,
    /// LSR, and what a NUMA policy pins: only batch pods (BE) may be on them as well.
    Reserved = 2,
    /// The pod is bound to them, no other pod is, and the shared pool may use them: `cpuset-scheduler` with requests below
    /// limits.
    Bound = 3,
}

/// The CPUs that a pod was given with its node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodCpus {
    /// Which.
    pub cpus: CpuSet,
    /// The NUMA nodes that they are on, in order.
    pub numa_nodes: Vec<u32>,
    /// Memory that counts on its NUMA node, in bytes; 0 for a pod on several.
    pub memory_bytes: u64,
    /// Huge pages that count there; none for a pod on several. Needs [`crate::HUGE_PAGES_LEVEL`].
    #[serde(default)]
    pub huge_pages: HugePages,
    /// How it has them.
    pub hold: CpuHold,
}

/// What pods of a node run on that have no CPUs of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CpuPools {
    /// Of LS pods and those of no class: all CPUs without those of LSE and LSR pods.
    pub shared: CpuSet,
    /// Of BE pods: all CPUs without those of LSE pods.
    pub batch: CpuSet,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(nodes: &[(u32, &[&str])]) -> CpuTopology {
        let node = |(id, cores): &(u32, &[&str])| NumaNode {
            id: *id,
            memory_bytes: 1,
            huge_pages: HugePages::NONE,
            cores: (0..)
                .zip(*cores)
                .map(|(core, cpus)| CpuCore { package: *id, core, cpus: set(cpus) })
                .collect(),
        };
        CpuTopology { numa_nodes: nodes.iter().map(node).collect(), ..CpuTopology::default() }
    }

    fn set(text: &str) -> CpuSet {
        text.parse().expect("a set")
    }

    fn check(topology: &CpuTopology, expected: Result<(), &str>) {
        match (topology.check(), expected) {
            (Ok(()), Ok(())) => {}
            (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
            (found, _) => panic!("{topology:?} is {found:?}"),
        }
    }

    #[test]
    fn what_no_machine_is_like_is_refused() {
        let good = topology(&[(0, &["0,2", "1,3"]), (1, &["4,6", "5,7"])]);
        check(&good, Ok(()));
        assert_eq!(good.cpus(), set("0-7"));
        check(&CpuTopology { reserved: set("0-1"), ..good.clone() }, Ok(()));
        check(&CpuTopology { reserved: set("7-8"), ..good.clone() }, Err("CPUs 8 that are not there"));
        check(&topology(&[]), Err("0 NUMA nodes"));
        check(&topology(&[(0, &[])]), Err("no CPU"));
        check(&topology(&[(1, &["0"]), (0, &["1"])]), Err("not in order"));
        check(&topology(&[(0, &["0"]), (0, &["1"])]), Err("twice"));
        check(&topology(&[(0, &["0"]), (1, &["0-1"])]), Err("another core's"));
        check(&topology(&[(0, &["0", ""])]), Err("no CPU"));
        check(&topology(&[(0, &["0"]), (1, &[])]), Ok(()));
    }

    #[test]
    fn policies_are_named_as_the_kubelet_names_them() {
        for (name, policy) in NumaPolicy::NAMES {
            assert_eq!((NumaPolicy::parse(name), policy.name()), (Some(policy), name));
        }
        assert_eq!(NumaPolicy::parse("Restricted"), None);
    }
}
