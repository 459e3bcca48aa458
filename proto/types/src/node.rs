//! Machines that run pods.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{
    CpuTopology, HUGE_PAGES_LEVEL, HugePages, NUMA_LEVEL, NodeImages, NodePoolRecord, NodePreconditions,
    ObjectMeta, PRECONDITIONS_LEVEL, PartitionStrategy, Rare, Resources, StringMap,
};

/// A machine that runs pods.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Node {
    /// Standard metadata.
    pub meta: ObjectMeta,
    /// What an operator wants of the node.
    pub spec: NodeSpec,
    /// What is known of the node.
    pub status: NodeStatus,
}

/// What an operator wants of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Cordoned: nothing new is placed here.
    pub unschedulable: bool,
    /// Taints, each repelling pods that do not tolerate it.
    pub taints: Vec<Taint>,
    /// The mode that its cards shall be in; unset: they are offered whole and shared. Needs [`crate::PARTITIONS_LEVEL`].
    pub gpu: Rare<NodeGpu>,
}

/// The mode of cards that are given as a whole only.
pub const GPU_MODE_WHOLE: &str = "whole";
/// The mode of cards that are given in shares only.
pub const GPU_MODE_SHARED: &str = "shared";
/// Longest name of a mode, in bytes.
pub const GPU_MODE_BYTES_MAX: usize = 128;

/// How the cards of a node shall be used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeGpu {
    /// [`GPU_MODE_WHOLE`], [`GPU_MODE_SHARED`], or the name of a layout of partitions of the cards' classes.
    pub mode: SmolStr,
    /// How partitions are named.
    pub strategy: PartitionStrategy,
}

/// What a taint does to pods that do not tolerate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TaintEffect {
    /// Nothing new is placed here.
    NoSchedule = 1,
    /// Placed here only when there is nowhere else.
    PreferNoSchedule = 2,
    /// Nothing new is placed here, and what runs is evicted.
    NoExecute = 3,
}

/// A mark on a node that repels pods.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Taint {
    /// The key; a label key in form.
    pub key: SmolStr,
    /// The value; may be empty.
    pub value: SmolStr,
    /// What it does.
    pub effect: TaintEffect,
}

/// Whether a node may run pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NodePhase {
    /// Its agent renews its lease.
    Ready = 1,
    /// Its lease ran out: what runs there is unknown.
    Unreachable = 2,
    /// It has been unreachable for so long that no guest that must be unique can live there any more: such pods may run
    /// elsewhere. Only a new registration ends it. Needs [`crate::FENCING_LEVEL`].
    Fenced = 3,
}

/// What is known of a node: its last registration and its phase.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Ready or not.
    pub phase: NodePhase,
    /// Log time since when it is ready, or since when it is not, milliseconds since the epoch: a node that is fenced
    /// goes on counting from when it became unreachable.
    pub phase_since_ms: u64,
    /// Counts registrations from 1: a session with a lower one is refused.
    pub incarnation: u64,
    /// What the agent found.
    pub facts: NodeFacts,
    /// What it has from its pool; unset: nothing. Needs [`crate::POOLS_LEVEL`].
    #[serde(default)]
    pub pool: Rare<NodePoolRecord>,
    /// The images that its agent told of. Needs [`crate::IMAGES_LEVEL`].
    #[serde(default)]
    pub images: Rare<NodeImages>,
    /// The labels that it has by its devices; unset: none. Needs [`crate::DEVICE_RULES_LEVEL`].
    #[serde(default)]
    pub device_labels: Rare<DeviceLabels>,
}

/// Labels that a node has by its devices; those that somebody else gave it are not among them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeviceLabels {
    /// Keys and values.
    pub labels: StringMap,
}

/// What an agent finds on its machine and reports on every registration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeFacts {
    /// Everything the machine has.
    pub capacity: Resources,
    /// What pods may use: capacity without the reserve for the host.
    pub allocatable: Resources,
    /// Most pods at a time.
    pub pods_max: u32,
    /// Where the agent's own services are reached, `host:port`.
    pub address: SmolStr,
    /// The machine's boot id: changes with every reboot.
    pub boot_id: SmolStr,
    /// The agent's version.
    pub agent_version: SmolStr,
    /// The host's kernel release.
    pub kernel_version: SmolStr,
    /// `kvm` or `tcg`, found by running a guest.
    pub accelerator: SmolStr,
    /// Warnings that an operator should see, such as a fall-back to emulation.
    pub warnings: Vec<SmolStr>,
    /// Labels that the agent gives its node; an operator's own labels win.
    pub labels: StringMap,
    /// Its processors and NUMA nodes. Needs [`crate::NUMA_LEVEL`].
    #[serde(default)]
    pub cpus: Rare<CpuTopology>,
    /// What its machine needs for guests, one by one. Needs [`crate::PRECONDITIONS_LEVEL`].
    #[serde(default)]
    pub preconditions: Rare<NodePreconditions>,
}

impl NodeFacts {
    /// What a cluster of a feature level is told of them.
    #[must_use]
    pub fn at_level(self, level: u32) -> Self {
        let mut told = if level >= NUMA_LEVEL { self } else { Self { cpus: Rare::NONE, ..self } };
        if level < PRECONDITIONS_LEVEL {
            told.preconditions = Rare::NONE;
        }
        if level < HUGE_PAGES_LEVEL {
            told.capacity.huge_pages = HugePages::NONE;
            told.allocatable.huge_pages = HugePages::NONE;
            (told.capacity.pinned_memory_bytes, told.allocatable.pinned_memory_bytes) = (0, 0);
            told.cpus = told.cpus.get().map(CpuTopology::without_huge_pages).into();
        }
        told
    }

    /// Whether it says anything of huge pages, or of memory that may be pinned.
    #[must_use]
    pub fn has_huge_pages(&self) -> bool {
        let has =
            |resources: &Resources| !resources.huge_pages.is_none() || resources.pinned_memory_bytes > 0;
        has(&self.capacity)
            || has(&self.allocatable)
            || self.cpus.get().is_some_and(CpuTopology::has_huge_pages)
    }

    /// Whether the agent starts every guest that must be unique under a guard that ends it with the lease, whatever
    /// becomes of the agent. Only then may anybody count on its guests being dead.
    #[must_use]
    pub fn guards_unique(&self) -> bool {
        self.labels.get(crate::LABEL_FENCE_GUARD).is_some_and(|value| value == "true")
    }

    /// Whether the agent can attach devices to guests.
    #[must_use]
    pub fn attaches_devices(&self) -> bool {
        self.labels.get(crate::LABEL_DEVICES).is_some_and(|value| value == "true")
    }

    /// Whether the agent can attach SR-IOV networks to guests.
    #[must_use]
    pub fn attaches_networks(&self) -> bool {
        self.labels.get(crate::LABEL_NETWORKS).is_some_and(|value| value == "true")
    }

    /// Whether the agent can publish ports of guests as ports of its node.
    #[must_use]
    pub fn publishes_ports(&self) -> bool {
        self.labels.get(crate::LABEL_HOST_PORTS).is_some_and(|value| value == "true")
    }

    /// Whether the agent connects guests to a network.
    #[must_use]
    pub fn connects_pods(&self) -> bool {
        self.labels.get(crate::LABEL_POD_NETWORK).is_some_and(|value| value == "true")
    }

    /// Whether the agent keeps volumes of claims.
    #[must_use]
    pub fn keeps_volumes(&self) -> bool {
        self.labels.get(crate::LABEL_LOCAL_VOLUMES).is_some_and(|value| value == "true")
    }
}
