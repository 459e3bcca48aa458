//! What travels between the control plane and a node's agent.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use uuid::Uuid;

use crate::{
    CpuPools, CpuSet, Deletion, DeviceIntent, DevicePartition, DeviceReport, DeviceUsage, Name,
    NetworkAttachment, NodeImages, ObjectId, PodBandwidth, PodSpec, PodStatus, PullCredentials, Rare,
    ResolvedPod, Revision, Shared, SriovInterface, VolumeOrder, VolumeResult,
};

/// What should run on one node: the whole set, never a difference, so that any replica may send it and the
/// newest one wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Which node.
    pub node: ObjectId,
    /// The session that it is for; an agent of another incarnation ignores it.
    pub incarnation: u64,
    /// The revision it was read at. An agent refuses one older than the last that it accepted.
    pub generation: Revision,
    /// Every pod that is bound to the node, in id order.
    pub pods: Vec<PodIntent>,
    /// Claims whose data the node shall delete: nothing but what stands here is ever deleted. In id order.
    pub deleted_volumes: Vec<DeletedVolume>,
    /// In which mode the node's cards shall be; unset: in any.
    pub gpu: Option<GpuIntent>,
    /// What pods run on that have no CPUs of their own; unset: anywhere.
    pub cpu_pools: Option<CpuPools>,
    /// What its NICs shall be, by PCI address; those that are not named are left as they are.
    pub nics: Vec<SriovInterface>,
    /// What it shall do with volumes, in the order of ids; at most [`crate::ITEMS_MAX`].
    pub volume_orders: Vec<VolumeOrder>,
}

/// The mode that an agent brings its cards into.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GpuIntent {
    /// Its name, which the agent reports once its cards are in it.
    pub mode: SmolStr,
    /// Every card that shall have partitions, by id; all others shall have none.
    pub cards: Vec<CardLayout>,
}

/// The partitions that a card shall have.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CardLayout {
    /// The card's id.
    pub device: SmolStr,
    /// All of its partitions.
    pub partitions: Vec<DevicePartition>,
}

/// A claim that ends, and that no pod uses any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedVolume {
    /// The claim's key.
    pub id: ObjectId,
    /// What its file is named by.
    pub uid: Uuid,
}

/// The volume behind a claim that a pod uses.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ClaimIntent {
    /// The claim's name, as in the pod's volumes.
    pub claim_name: SmolStr,
    /// What its file is named by.
    pub uid: Uuid,
    /// Its size, for the first use, in bytes.
    pub size_bytes: u64,
    /// A container has had it: it must be there, and is not made.
    pub used: bool,
    /// The pod only reads, beside others that only read. Never below [`crate::SHARED_VOLUMES_LEVEL`].
    pub read_only: bool,
}

/// One pod that should run, or should end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodIntent {
    /// Its key.
    pub id: ObjectId,
    /// Its UUID, for people and file names.
    pub uid: Uuid,
    /// Its namespace.
    pub namespace: Name,
    /// Its name.
    pub name: Name,
    /// What to run.
    pub spec: Shared<PodSpec>,
    /// Set when it should end.
    pub deletion: Option<Deletion>,
    /// It ended by itself (Succeeded or Failed): it must not run again, but its logs stay readable until it
    /// leaves the intent.
    pub ended: bool,
    /// Whether at most one instance may ever live: killed by agent and guard when the node's lease runs out.
    pub unique: bool,
    /// W3C `traceparent` of the command that led here.
    pub trace_context: Option<SmolStr>,
    /// What its references to ConfigMaps, Secrets and itself came to, where it has any and should run.
    pub resolved: Rare<ResolvedPod>,
    /// The volumes of the claims that its volumes name, each once; a pod is bound only where all of them are.
    pub claims: Vec<ClaimIntent>,
    /// The devices of this node that its containers get.
    pub devices: Vec<DeviceIntent>,
    /// The networks that it is attached to by them.
    pub networks: Vec<NetworkAttachment>,
    /// The CPUs that are its own; unset: it runs in a pool.
    pub cpus: Option<CpuSet>,
    /// It runs in the batch pool (BE), not in the shared one.
    pub batch: bool,
    /// How fast its guest may send and receive, from its next start on; unset: as fast as it goes.
    pub bandwidth: Option<PodBandwidth>,
    /// Its sizes are others than it had, and its agent tells when they are so.
    #[serde(default)]
    pub resizing: bool,
    /// What its `imagePullSecrets` came to, where it has any and should run.
    #[serde(default)]
    pub pull_credentials: Rare<PullCredentials>,
}

/// What an agent says on every heartbeat. Usage is soft state; pod reports become log entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentReport {
    /// Which node.
    pub node: ObjectId,
    /// The session's incarnation.
    pub incarnation: u64,
    /// The agent's own monotonic clock when it sent this, in milliseconds; echoed in the answer.
    pub sent_at_ms: u64,
    /// The generation of the last intent that it accepted.
    pub observed_generation: Revision,
    /// Pods whose status changed since the last acknowledged report.
    pub pods: Vec<PodReport>,
    /// What each running pod uses.
    pub usage: Vec<PodUsage>,
    /// Claims of the last accepted intent's `deleted_volumes` of which nothing is left; at most [`crate::ITEMS_MAX`].
    pub deleted_volumes: Vec<ObjectId>,
    /// What is new of the machine's devices, if anything is.
    pub devices: Rare<DeviceReport>,
    /// All images that the machine has, when they are told.
    pub images: Rare<NodeImages>,
    /// What came of the last accepted intent's `volume_orders`; at most [`crate::ITEMS_MAX`].
    pub volume_results: Vec<VolumeResult>,
    /// What its cards do, all of them; at most [`crate::DEVICE_USAGES_MAX`].
    pub device_usage: Vec<DeviceUsage>,
    /// Whether its devices are told with [`crate::PciFacts`]: servers that have none of them ask for everything again, once their
    /// cluster has the level for it.
    pub has_pci_facts: bool,
}

/// What an agent saw of one pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodReport {
    /// Which pod.
    pub pod: ObjectId,
    /// Grows with every report about this pod, over sessions too (`incarnation << 32` plus a counter); an
    /// older one is passed over.
    pub sequence: u64,
    /// Its status; `ready_since_ms`, `bound_at_ms` and `report_sequence` are the control plane's and ignored.
    pub status: PodStatus,
    /// Nothing of it is left on the node: no guest, no disk.
    pub gone: bool,
}

/// What one pod uses now.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodUsage {
    /// Which pod.
    pub pod: ObjectId,
    /// Processor time over the last window, in thousandths of a core.
    pub cpu_millis: u64,
    /// Working set, in bytes.
    pub memory_bytes: u64,
    /// How long the window was that `cpu_millis` was measured over, in milliseconds; 0 when there was none yet and the
    /// processor time is not known.
    pub window_ms: u64,
    /// How long before the report it was measured, in milliseconds.
    pub age_ms: u64,
    /// Each of its containers that the guest told of, in name order; at most [`crate::CONTAINERS_MAX`] twice, because
    /// init containers count for themselves.
    pub containers: Vec<ContainerUsage>,
}

/// What one container uses now; the window is its pod's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ContainerUsage {
    /// Which container.
    pub name: SmolStr,
    /// Processor time over the last window, in thousandths of a core.
    pub cpu_millis: u64,
    /// Working set, in bytes.
    pub memory_bytes: u64,
}

/// The leader's answer to a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentAck {
    /// `sent_at_ms` of the report: the lease runs from there.
    pub sent_at_ms: u64,
    /// How long the lease runs, in milliseconds.
    pub lease_ms: u64,
    /// The control plane does not know the devices that this session has told of: they are to be told again.
    pub devices_unknown: bool,
}

/// The answer to a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// The node's key.
    pub node: ObjectId,
    /// The session's incarnation.
    pub incarnation: u64,
    /// How long a lease runs, in milliseconds.
    pub lease_ms: u64,
    /// How often to report, in milliseconds.
    pub heartbeat_ms: u64,
}
