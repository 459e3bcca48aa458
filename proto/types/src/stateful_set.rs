//! StatefulSets: pods with an identity each, as in `apps/v1`.
//!
//! Source: "StatefulSets" in the Kubernetes documentation, and "StatefulSet v1 apps" of its API reference.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{Condition, IntOrPercent, LabelSelector, ObjectMeta, PodTemplate, Rare, VolumeClaims};

/// The label with the name of the one pod (Kubernetes' name).
pub const LABEL_STATEFUL_SET_POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
/// The label with a pod's ordinal (Kubernetes' name).
pub const LABEL_POD_INDEX: &str = "apps.kubernetes.io/pod-index";
/// Highest ordinal that a pod may have.
pub const ORDINAL_MAX: u32 = i32::MAX as u32;

/// Pods with an identity each: `name-0`, `name-1`, …; of each at most one ever lives.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StatefulSet {
    /// Standard metadata.
    pub meta: ObjectMeta,
    /// What is wanted.
    pub spec: StatefulSetSpec,
    /// What is known.
    pub status: StatefulSetStatus,
}

/// In which order pods come and go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PodManagementPolicy {
    /// One after another, each when all before it are ready; the last one goes first.
    #[default]
    OrderedReady = 1,
    /// All at once.
    Parallel = 2,
}

/// How pods get a new template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StatefulSetUpdateStrategy {
    /// From the highest ordinal down.
    RollingUpdate {
        /// So many pods, counted from the first ordinal on, keep the template that they have.
        partition: u32,
        /// How many may be unavailable at a time; per cent round up, at least 1.
        max_unavailable: IntOrPercent,
    },
    /// When somebody deletes them.
    OnDelete,
}

impl Default for StatefulSetUpdateStrategy {
    fn default() -> Self {
        Self::RollingUpdate { partition: 0, max_unavailable: IntOrPercent::Int(1) }
    }
}

/// What is wanted of a StatefulSet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatefulSetSpec {
    /// How many pods.
    pub replicas: u32,
    /// The ordinal of the first.
    pub ordinals_start: u32,
    /// Which pods are its own; cannot change after creation; matches the template's labels.
    pub selector: LabelSelector,
    /// What each pod looks like.
    pub template: PodTemplate,
    /// The service that names its pods; cannot change after creation; may be empty.
    pub service_name: SmolStr,
    /// In which order pods come and go; cannot change after creation.
    pub pod_management_policy: PodManagementPolicy,
    /// How pods get a new template.
    pub update_strategy: StatefulSetUpdateStrategy,
    /// How long a pod must be ready to count as available, in milliseconds.
    pub min_ready_ms: u64,
    /// How many old templates are kept for undo.
    pub revision_history_limit: u32,
    /// Whether none of its pods run, whatever `replicas` says (Bulkhead's own; Kubernetes has no such field).
    #[serde(default)]
    pub stopped: bool,
    /// The claims that each pod has of its own. Needs [`crate::DELIVERY_LEVEL`].
    #[serde(default)]
    pub claims: Rare<VolumeClaims>,
}

impl std::hash::Hash for StatefulSetSpec {
    /// Replicas of before StatefulSets could be stopped, or have claims, have the same digest of those that are not
    /// or have none.
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        let Self { replicas, ordinals_start, selector, template, service_name, .. } = self;
        (replicas, ordinals_start, selector, template, service_name).hash(state);
        (self.pod_management_policy, self.update_strategy, self.min_ready_ms).hash(state);
        self.revision_history_limit.hash(state);
        if self.stopped {
            self.stopped.hash(state);
        }
        self.claims.hash(state);
    }
}

impl StatefulSetSpec {
    /// How many pods shall run now: none while stopped.
    #[must_use]
    pub fn wanted_replicas(&self) -> u32 {
        if self.stopped { 0 } else { self.replicas }
    }

    /// The ordinals that are wanted.
    #[must_use]
    pub fn ordinals(&self) -> std::ops::Range<u32> {
        self.ordinals_start..self.ordinals_start.saturating_add(self.wanted_replicas())
    }

    /// The first ordinal that gets the wanted template by a rolling update. Kubernetes counts the partition from the
    /// first ordinal on, not from zero.
    #[must_use]
    pub fn partition_ordinal(&self) -> u32 {
        match self.update_strategy {
            StatefulSetUpdateStrategy::RollingUpdate { partition, .. } => {
                self.ordinals_start.saturating_add(partition)
            }
            StatefulSetUpdateStrategy::OnDelete => self.ordinals_start,
        }
    }

    /// How many pods a rolling update may leave unavailable at a time: at least 1.
    #[must_use]
    pub fn max_unavailable(&self) -> u32 {
        match self.update_strategy {
            StatefulSetUpdateStrategy::RollingUpdate { max_unavailable, .. } => {
                max_unavailable.resolve(self.wanted_replicas(), true).max(1)
            }
            StatefulSetUpdateStrategy::OnDelete => 1,
        }
    }
}

/// What is known of a StatefulSet. Pods that have ended do not count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StatefulSetStatus {
    /// The spec generation that the figures follow.
    pub observed_generation: u64,
    /// All pods.
    pub replicas: u32,
    /// Ready ones.
    pub ready_replicas: u32,
    /// Ready for at least `min_ready_ms`.
    pub available_replicas: u32,
    /// Pods of `current_revision`.
    pub current_replicas: u32,
    /// Pods of `update_revision`.
    pub updated_replicas: u32,
    /// The name of the ControllerRevision that pods had before the rollout that is under way.
    pub current_revision: SmolStr,
    /// The name of the ControllerRevision of the wanted template.
    pub update_revision: SmolStr,
    /// Times a ControllerRevision's name was taken already.
    pub collision_count: u32,
    /// In type order.
    pub conditions: Vec<Condition>,
}
