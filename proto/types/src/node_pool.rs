//! Pools of nodes that are alike: labels, taints and the mode of cards that nodes get from their pool.
//!
//! Source: "Node pools" of ACK: a node is of one pool; a pool's labels and taints follow it to its nodes, and what somebody
//! set on one node alone is left as it is; the pool `default` is always there; a pool must be empty before it can go.

use serde::{Deserialize, Serialize};

use crate::{Name, Node, NodeGpu, ObjectMeta, Rare, RuntimeClass, StringMap, Taint};

/// The label of a node with its pool. An agent sets it when its node joins, an operator moves the node by it.
pub const LABEL_NODE_POOL: &str = "node.bulkhead.io/pool";
/// The pool of nodes that name none.
pub const NODE_POOL_DEFAULT: &str = "default";
/// Most pools of a cluster.
pub const NODE_POOLS_MAX: usize = 100;
/// Most labels, and most taints, that a pool gives its nodes.
pub const NODE_POOL_ENTRIES_MAX: usize = 64;
/// Most nodes that a pool may be told to have.
pub const DESIRED_NODES_MAX: u32 = 50_000;

/// A set of nodes that are alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodePool {
    /// Standard metadata.
    pub meta: ObjectMeta,
    /// What is wanted.
    pub spec: NodePoolSpec,
    /// What is known.
    pub status: NodePoolStatus,
}

/// What is wanted of the nodes of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodePoolSpec {
    /// Labels of its nodes; at most [`NODE_POOL_ENTRIES_MAX`].
    pub labels: StringMap,
    /// Taints of its nodes; at most [`NODE_POOL_ENTRIES_MAX`].
    pub taints: Vec<Taint>,
    /// How its nodes isolate pods. There is one way, so this only says so.
    pub runtime_class: RuntimeClass,
    /// The mode of its nodes' cards; unset: none in particular.
    pub gpu: Rare<NodeGpu>,
    /// How many nodes it should have, at most [`DESIRED_NODES_MAX`]. Machines join by themselves or not at all: this is only
    /// compared with how many there are.
    pub desired_nodes: Option<u32>,
    /// Whether a node that joins for the first time is cordoned.
    pub unschedulable_on_join: bool,
    /// Whether nodes that are of the pool already follow a change of labels, taints and mode.
    pub sync_existing: bool,
}

impl Default for NodePoolSpec {
    fn default() -> Self {
        Self {
            labels: StringMap::new(),
            taints: Vec::new(),
            runtime_class: RuntimeClass::default(),
            gpu: Rare::NONE,
            desired_nodes: None,
            unschedulable_on_join: false,
            sync_existing: true,
        }
    }
}

/// What is known of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodePoolStatus {
    /// The spec generation that this follows; 0 before somebody has looked.
    pub observed_generation: u64,
    /// How many nodes are of it.
    pub nodes: u32,
    /// How many of these are Ready.
    pub ready: u32,
    /// How many nodes it has too few.
    pub missing: u32,
    /// How many it has too many.
    pub surplus: u32,
    /// Nodes that cannot have its mode of cards now.
    pub out_of_sync: u32,
    /// The first of those, and why; for people.
    pub message: String,
}

/// What a node has from its pool. Everything else on the node is its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodePoolRecord {
    /// The pool that it was last made alike to.
    pub pool: Name,
    /// Labels that it has from there.
    pub labels: StringMap,
    /// Taints that it has from there.
    pub taints: Vec<Taint>,
    /// The mode of cards that it has from there.
    pub gpu: Rare<NodeGpu>,
}

impl Node {
    /// The pool that the node names, or the default one. There need not be such a pool.
    #[must_use]
    pub fn pool(&self) -> &str {
        self.meta.labels.get(LABEL_NODE_POOL).map_or(NODE_POOL_DEFAULT, |pool| pool.as_str())
    }
}
