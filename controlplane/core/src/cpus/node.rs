//! The ledger of one node: its CPUs, and who holds which.

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_types::{CpuHold, CpuNeeds, CpuSet, CpuTopology, HugePages, NumaNode, ObjectId, PodCpus};

/// What there is of one NUMA node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumaUse {
    /// Its number.
    pub id: u32,
    /// All of its CPUs.
    pub cpus: CpuSet,
    /// Those that pods have for themselves.
    pub held: CpuSet,
    /// Those that a pod may still get for itself.
    pub free: CpuSet,
    /// Its memory, in bytes.
    pub memory_bytes: u64,
    /// Memory of pods that are on it alone, in bytes.
    pub held_memory_bytes: u64,
    /// Its huge pages.
    pub huge_pages: HugePages,
    /// Huge pages of pods that are on it alone.
    pub held_huge_pages: HugePages,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCpus {
    topology: Arc<CpuTopology>,
    all: CpuSet,
    holders: BTreeMap<ObjectId, PodCpus>,
    /// All that is held, by how: exclusive, reserved, bound.
    held: [CpuSet; 3],
    /// Memory that counts on a NUMA node, in bytes.
    memory: BTreeMap<u32, u64>,
    /// Huge pages that count there.
    huge_pages: BTreeMap<u32, HugePages>,
}

impl NodeCpus {
    /// CPUs of which nobody holds any.
    #[must_use]
    pub fn new(topology: &CpuTopology) -> Self {
        Self {
            all: topology.cpus(),
            topology: Arc::new(topology.clone()),
            holders: BTreeMap::new(),
            held: Default::default(),
            memory: BTreeMap::new(),
            huge_pages: BTreeMap::new(),
        }
    }

    /// What the agent said.
    #[must_use]
    pub fn topology(&self) -> &CpuTopology {
        &self.topology
    }

    /// Who holds which.
    pub fn holders(&self) -> impl Iterator<Item = (ObjectId, &PodCpus)> {
        self.holders.iter().map(|(pod, cpus)| (*pod, cpus))
    }

    /// A pod holds what it was given.
    pub(crate) fn take(&mut self, pod: ObjectId, given: &PodCpus) {
        self.holders.insert(pod, given.clone());
        self.add_up();
    }

    /// A pod holds nothing any more.
    pub(crate) fn release(&mut self, pod: ObjectId) {
        if self.holders.remove(&pod).is_some() {
            self.add_up();
        }
    }

    fn add_up(&mut self) {
        self.held = Default::default();
        self.memory.clear();
        self.huge_pages.clear();
        for given in self.holders.values() {
            let held = &mut self.held[given.hold as usize - 1];
            *held = held.union(&given.cpus);
            if let (Some(numa_node), 1..) = (given.numa_nodes.first(), given.memory_bytes) {
                *self.memory.entry(*numa_node).or_default() += given.memory_bytes;
                if !given.huge_pages.is_none() {
                    let held = self.huge_pages.entry(*numa_node).or_default();
                    *held = held.zip(given.huge_pages, u64::saturating_add);
                }
            }
        }
    }

    fn held(&self, hold: CpuHold) -> &CpuSet {
        &self.held[hold as usize - 1]
    }

    /// All that pods have for themselves.
    #[must_use]
    pub fn taken(&self) -> CpuSet {
        self.held.iter().fold(CpuSet::new(), |sum, held| sum.union(held))
    }

    /// What a pod may get for itself: neither held nor reserved for the host.
    #[must_use]
    pub fn free(&self) -> CpuSet {
        self.all.minus(&self.topology.reserved).minus(&self.taken())
    }

    /// What LS pods and those of no class run on: all without those of LSE and LSR pods.
    #[must_use]
    pub fn shared(&self) -> CpuSet {
        self.batch().minus(self.held(CpuHold::Reserved))
    }

    /// What BE pods run on: all without those of LSE pods.
    #[must_use]
    pub fn batch(&self) -> CpuSet {
        self.all.minus(self.held(CpuHold::Exclusive))
    }

    /// Whether the shared pool would have a CPU left without these.
    pub(super) fn leaves_shared(&self, cpus: &CpuSet, hold: CpuHold) -> bool {
        hold == CpuHold::Bound || !self.shared().is_subset(cpus)
    }

    pub(super) fn numa_nodes(&self) -> &[NumaNode] {
        &self.topology.numa_nodes
    }

    /// CPUs of a NUMA node that any pod could get for itself.
    pub(super) fn capacity(&self, node: &NumaNode) -> CpuSet {
        node.cpus().minus(&self.topology.reserved)
    }

    /// Memory of a NUMA node that no pod there counts for, in bytes.
    pub(super) fn free_memory_bytes(&self, node: &NumaNode) -> u64 {
        node.memory_bytes.saturating_sub(self.memory.get(&node.id).copied().unwrap_or(0))
    }

    /// Huge pages of a NUMA node that no pod there counts for.
    pub(super) fn free_huge_pages(&self, node: &NumaNode) -> HugePages {
        let held = self.huge_pages.get(&node.id).copied().unwrap_or_default();
        node.huge_pages.zip(held, u64::saturating_sub)
    }

    /// Whether a NUMA node has the memory and the huge pages left that a pod reserves.
    pub(super) fn has_memory(&self, needs: &CpuNeeds, node: &NumaNode) -> bool {
        self.free_memory_bytes(node) >= needs.memory_bytes
            && needs.huge_pages.fits_in(self.free_huge_pages(node))
    }

    /// The NUMA nodes of CPUs, in order.
    pub(super) fn nodes_of(&self, cpus: &CpuSet) -> Vec<u32> {
        let has_some = |node: &&NumaNode| !node.cpus().is_disjoint(cpus);
        self.numa_nodes().iter().filter(has_some).map(|node| node.id).collect()
    }

    /// The same node when nobody holds anything.
    pub(super) fn emptied(&self) -> Self {
        Self::new(&self.topology)
    }

    /// What there is of each NUMA node, for people.
    #[must_use]
    pub fn uses(&self) -> Vec<NumaUse> {
        let (taken, free) = (self.taken(), self.free());
        let of = |node: &NumaNode| {
            let cpus = node.cpus();
            NumaUse {
                id: node.id,
                held: cpus.intersection(&taken),
                free: cpus.intersection(&free),
                cpus,
                memory_bytes: node.memory_bytes,
                held_memory_bytes: self.memory.get(&node.id).copied().unwrap_or(0),
                huge_pages: node.huge_pages,
                held_huge_pages: self.huge_pages.get(&node.id).copied().unwrap_or_default(),
            }
        };
        self.numa_nodes().iter().map(of).collect()
    }
}
