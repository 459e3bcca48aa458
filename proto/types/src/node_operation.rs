//! Operations on many nodes, batch by batch.
//!
//! Source: "Rolling upgrade of the sandbox runtime" of ACK: batches of 1, 2, 4, … nodes, none above a tenth of the nodes; any
//! error pauses the operation; after a pause batches begin at one node again; only what is paused can be cancelled.

use serde::{Deserialize, Serialize};

use crate::{Name, NodeGpu, ObjectMeta, Rare};

/// Most nodes of an operation.
pub const NODES_PER_OPERATION_MAX: usize = 5000;
/// Most operations that a cluster keeps, those that ended included.
pub const NODE_OPERATIONS_MAX: usize = 100;
/// How long one node may take when an operation does not say, in milliseconds: 15 minutes.
pub const NODE_TIMEOUT_MS_DEFAULT: u64 = 15 * 60_000;
/// The longest that an operation may say, in milliseconds: a day.
pub const NODE_TIMEOUT_MS_MAX: u64 = 24 * 3_600_000;
/// A batch is at most one in so many of an operation's nodes.
pub const BATCH_SHARE: u32 = 10;

/// Something that is done to many nodes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeOperation {
    /// Standard metadata.
    pub meta: ObjectMeta,
    /// What is wanted; it cannot change.
    pub spec: NodeOperationSpec,
    /// How far it is.
    pub status: NodeOperationStatus,
}

/// What is done to each node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NodeAction {
    /// Nothing new is placed there.
    Cordon = 1,
    /// It may have new pods again.
    Uncordon = 2,
    /// It is cordoned and its pods are evicted, but for those of DaemonSets.
    Drain = 3,
    /// Its cards are put into a mode.
    SetGpuMode = 4,
}

impl NodeAction {
    /// The word in manifests.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cordon => "Cordon",
            Self::Uncordon => "Uncordon",
            Self::Drain => "Drain",
            Self::SetGpuMode => "SetGpuMode",
        }
    }
}

/// What is wanted of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeOperationSpec {
    /// All nodes of this pool; else `nodes`.
    pub pool: Option<Name>,
    /// These nodes, each once; at most [`NODES_PER_OPERATION_MAX`].
    pub nodes: Vec<Name>,
    /// What is done to them.
    pub action: NodeAction,
    /// The mode of cards, of [`NodeAction::SetGpuMode`] only.
    pub gpu: Rare<NodeGpu>,
    /// Whether a drain ends pods too that nobody will start elsewhere.
    pub force: bool,
    /// Most nodes at a time; a tenth of all nodes bounds it further.
    pub max_batch: Option<u32>,
    /// How long one node may take, in milliseconds, from 1 s to [`NODE_TIMEOUT_MS_MAX`].
    pub timeout_per_node_ms: u64,
}

/// Where an operation is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NodeOperationPhase {
    /// Nobody has begun.
    #[default]
    Pending = 1,
    /// Batch follows batch.
    Running = 2,
    /// No further node is begun; what was begun goes on.
    Paused = 3,
    /// All nodes are done.
    Succeeded = 4,
    /// An operator gave it up.
    Cancelled = 5,
}

impl NodeOperationPhase {
    /// The word in manifests.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Paused => "Paused",
            Self::Succeeded => "Succeeded",
            Self::Cancelled => "Cancelled",
        }
    }

    /// Whether nothing more happens.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Cancelled)
    }
}

/// A node that is being worked on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeInWork {
    /// Which.
    pub node: Name,
    /// Since when, milliseconds since the epoch.
    pub since_ms: u64,
}

/// A node that an operation could not finish.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeFailure {
    /// Which.
    pub node: Name,
    /// Why, for people.
    pub reason: String,
}

/// How far an operation is. It is all that there is of it: whoever leads goes on from here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeOperationStatus {
    /// Where it is.
    pub phase: NodeOperationPhase,
    /// Why it waits or is paused, for people.
    pub message: String,
    /// When it began, milliseconds since the epoch; 0 before.
    pub started_at_ms: u64,
    /// When it ended; 0 before.
    pub finished_at_ms: u64,
    /// How many nodes it is for.
    pub total: u32,
    /// The size of the last batch; 0 before the first, and before the first after a pause.
    pub batch: u32,
    /// Nodes that are not begun, in the order in which they will be.
    pub waiting: Vec<Name>,
    /// Nodes that are begun.
    pub in_work: Vec<NodeInWork>,
    /// Nodes that could not be finished; they are tried again when it is resumed.
    pub failed: Vec<NodeFailure>,
    /// How many are done.
    pub succeeded: u32,
    /// How many are no longer there.
    pub gone: u32,
}

/// What an operator may ask of an operation that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NodeOperationControl {
    /// Begin no further node.
    Pause = 1,
    /// Go on, at a batch of one.
    Resume = 2,
    /// Give it up; only while it is paused.
    Cancel = 3,
}

impl NodeOperation {
    /// Most nodes that may be in work at a time.
    #[must_use]
    pub fn batch_max(&self) -> u32 {
        let share = (self.status.total / BATCH_SHARE).max(1);
        self.spec.max_batch.map_or(share, |most| most.clamp(1, share))
    }
}
