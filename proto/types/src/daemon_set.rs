//! DaemonSets: one pod on every eligible node, as in `apps/v1`.
//!
//! Source: "DaemonSet" in the Kubernetes documentation, and "DaemonSet v1 apps" of its API reference.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{Condition, IntOrPercent, LabelSelector, ObjectMeta, PodTemplate};

/// One pod on every eligible node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DaemonSet {
    /// Standard metadata.
    pub meta: ObjectMeta,
    /// What is wanted.
    pub spec: DaemonSetSpec,
    /// What is known.
    pub status: DaemonSetStatus,
}

/// How pods get a new template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DaemonSetUpdateStrategy {
    /// Node by node, within two bounds; exactly one of them is not zero.
    RollingUpdate {
        /// Nodes whose pod may be missing at a time; per cent of the nodes, rounded up.
        max_unavailable: IntOrPercent,
        /// Nodes that may run an old and a new pod at a time; per cent of the nodes, rounded up.
        max_surge: IntOrPercent,
    },
    /// When somebody deletes them.
    OnDelete,
}

impl Default for DaemonSetUpdateStrategy {
    fn default() -> Self {
        Self::RollingUpdate { max_unavailable: IntOrPercent::Int(1), max_surge: IntOrPercent::Int(0) }
    }
}

/// What is wanted of a DaemonSet.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DaemonSetSpec {
    /// Which pods are its own; cannot change after creation; matches the template's labels.
    pub selector: LabelSelector,
    /// What each pod looks like; its node selector and tolerations say which nodes are eligible.
    pub template: PodTemplate,
    /// How pods get a new template.
    pub update_strategy: DaemonSetUpdateStrategy,
    /// How long a pod must be ready to count as available, in milliseconds.
    pub min_ready_ms: u64,
    /// How many old templates are kept for undo.
    pub revision_history_limit: u32,
}

/// What is known of a DaemonSet: it counts nodes, not pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DaemonSetStatus {
    /// The spec generation that the figures follow.
    pub observed_generation: u64,
    /// Eligible nodes.
    pub desired_number_scheduled: u32,
    /// Eligible nodes with at least one pod.
    pub current_number_scheduled: u32,
    /// Nodes with a pod that should have none.
    pub number_misscheduled: u32,
    /// Eligible nodes with a ready pod.
    pub number_ready: u32,
    /// Eligible nodes with an available pod.
    pub number_available: u32,
    /// Eligible nodes without an available pod.
    pub number_unavailable: u32,
    /// Eligible nodes with a pod of the wanted template.
    pub updated_number_scheduled: u32,
    /// The name of the ControllerRevision of the wanted template.
    pub update_revision: SmolStr,
    /// Times a ControllerRevision's name was taken already.
    pub collision_count: u32,
    /// In type order.
    pub conditions: Vec<Condition>,
}
