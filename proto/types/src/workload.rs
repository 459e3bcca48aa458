//! Workloads: ReplicaSets and Deployments, as in `apps/v1`.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{Delivery, DeliveryStatus, LabelSelector, ObjectMeta, PodTemplate, Rare};

/// `progressDeadlineSeconds` when not given, in milliseconds.
pub const PROGRESS_DEADLINE_MS_DEFAULT: u64 = 600_000;
/// `revisionHistoryLimit` when not given.
pub const REVISION_HISTORY_LIMIT_DEFAULT: u32 = 10;
/// The annotation of a pod by which somebody says what its loss costs, as a whole number: when a ReplicaSet shrinks, also for a
/// rollout, pods of lower cost go first.
pub const ANNOTATION_DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// Most replicas of one workload.
pub const REPLICAS_MAX: u32 = 1_000_000;

/// A number of equal pods.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReplicaSet {
    /// Standard metadata.
    pub meta: ObjectMeta,
    /// What is wanted.
    pub spec: ReplicaSetSpec,
    /// What is known.
    pub status: ReplicaSetStatus,
}

/// What is wanted of a ReplicaSet.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReplicaSetSpec {
    /// How many pods.
    pub replicas: u32,
    /// How long a pod must be ready to count as available, in milliseconds.
    pub min_ready_ms: u64,
    /// Which pods are its own; matches the template's labels.
    pub selector: LabelSelector,
    /// What each pod looks like.
    pub template: PodTemplate,
    /// The Deployment's revision that this set stands for; 0 for a set of its own.
    pub rollout_revision: u64,
}

/// What is known of a ReplicaSet's pods. Pods that are being deleted or have ended do not count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReplicaSetStatus {
    /// The spec generation that the figures follow.
    pub observed_generation: u64,
    /// All pods.
    pub replicas: u32,
    /// Ready ones.
    pub ready_replicas: u32,
    /// Ready for at least `min_ready_ms`.
    pub available_replicas: u32,
    /// ReplicaFailure, while pods cannot be created. From [`crate::QUOTA_LEVEL`] on.
    pub failure: Rare<Condition>,
}

/// ReplicaSets over time: a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Deployment {
    /// Standard metadata.
    pub meta: ObjectMeta,
    /// What is wanted.
    pub spec: DeploymentSpec,
    /// What is known.
    pub status: DeploymentStatus,
}

/// A number, or a share of the wanted replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum IntOrPercent {
    /// So many.
    Int(u32),
    /// So many per cent.
    Percent(u32),
}

impl IntOrPercent {
    /// The share of `total`, rounded up (surge) or down (unavailable), as Kubernetes does.
    #[must_use]
    pub fn resolve(self, total: u32, round_up: bool) -> u32 {
        match self {
            Self::Int(n) => n,
            Self::Percent(p) => {
                let product = u64::from(p) * u64::from(total);
                let share = if round_up { product.div_ceil(100) } else { product / 100 };
                u32::try_from(share).unwrap_or(u32::MAX)
            }
        }
    }
}

impl std::fmt::Display for IntOrPercent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Int(n) => write!(f, "{n}"),
            Self::Percent(p) => write!(f, "{p}%"),
        }
    }
}

/// How a Deployment goes from one template to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DeploymentStrategy {
    /// Step by step, within two bounds; not both may resolve to zero.
    RollingUpdate {
        /// Pods above the wanted number; per cent round up.
        max_surge: IntOrPercent,
        /// Pods below the wanted number; per cent round down.
        max_unavailable: IntOrPercent,
    },
    /// All old pods end before the first new one starts.
    Recreate,
}

impl Default for DeploymentStrategy {
    fn default() -> Self {
        Self::RollingUpdate {
            max_surge: IntOrPercent::Percent(25),
            max_unavailable: IntOrPercent::Percent(25),
        }
    }
}

impl DeploymentStrategy {
    /// Surge and unavailable as pod counts for `replicas` wanted ones. When both come out as zero,
    /// one may be unavailable, so that a rollout can always move (Kubernetes' `ResolveFenceposts`).
    #[must_use]
    pub fn bounds(&self, replicas: u32) -> (u32, u32) {
        match *self {
            Self::Recreate => (0, replicas),
            Self::RollingUpdate { max_surge, max_unavailable } => {
                let surge = max_surge.resolve(replicas, true);
                let unavailable = max_unavailable.resolve(replicas, false).min(replicas);
                if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
            }
        }
    }
}

/// What is wanted of a Deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentSpec {
    /// How many pods.
    pub replicas: u32,
    /// Which pods are its own; cannot change after creation; matches the template's labels.
    pub selector: LabelSelector,
    /// What each pod looks like; a change starts a rollout.
    pub template: PodTemplate,
    /// How to roll.
    pub strategy: DeploymentStrategy,
    /// How long a pod must be ready to count as available, in milliseconds.
    pub min_ready_ms: u64,
    /// How long a rollout may stand still before it is reported as failed, in milliseconds.
    pub progress_deadline_ms: u64,
    /// How many old ReplicaSets are kept for undo.
    pub revision_history_limit: u32,
    /// Whether template changes are held back.
    pub paused: bool,
    /// Whether none of its pods run, whatever `replicas` says (Bulkhead's own; Kubernetes has no such field).
    #[serde(default)]
    pub stopped: bool,
    /// By which steps to roll, within the bounds of the strategy; without it at once.
    #[serde(default)]
    pub delivery: Rare<Delivery>,
}

impl DeploymentSpec {
    /// How many pods shall run now: none while stopped.
    #[must_use]
    pub fn wanted_replicas(&self) -> u32 {
        if self.stopped { 0 } else { self.replicas }
    }
}

impl std::hash::Hash for DeploymentSpec {
    /// Replicas of before Deployments could be stopped have the same digest of those that are not.
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        let Self { replicas, selector, template, strategy, min_ready_ms, .. } = self;
        (replicas, selector, template, strategy, min_ready_ms).hash(state);
        (self.progress_deadline_ms, self.revision_history_limit, self.paused).hash(state);
        if self.stopped {
            self.stopped.hash(state);
        }
        self.delivery.hash(state);
    }
}

/// What is known of a Deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeploymentStatus {
    /// The spec generation that the figures follow.
    pub observed_generation: u64,
    /// The current revision of the template, from 1; 0 before the first ReplicaSet.
    pub rollout_revision: u64,
    /// All pods of all its ReplicaSets.
    pub replicas: u32,
    /// Pods of the newest template.
    pub updated_replicas: u32,
    /// Ready pods.
    pub ready_replicas: u32,
    /// Available pods.
    pub available_replicas: u32,
    /// Wanted pods that are not available.
    pub unavailable_replicas: u32,
    /// Times a ReplicaSet's name was taken already.
    pub collision_count: u32,
    /// Available, Progressing, ReplicaFailure; in type order.
    pub conditions: Vec<Condition>,
    /// Where the delivery by steps stands; only the delivery's own commands change it.
    #[serde(default)]
    pub delivery: Rare<DeliveryStatus>,
}

/// One aspect of an object's health.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Condition {
    /// Which aspect, such as `Available`.
    pub condition_type: SmolStr,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// One CamelCase word on why.
    pub reason: SmolStr,
    /// The same for people.
    pub message: String,
    /// Log time of the last change of `status`, milliseconds since the epoch.
    pub last_transition_ms: u64,
    /// Log time of the last update, milliseconds since the epoch.
    pub last_update_ms: u64,
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ConditionStatus {
    /// It does.
    True = 1,
    /// It does not.
    False = 2,
    /// Nobody knows.
    Unknown = 3,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_as_kubernetes_rounds() {
        let check = |surge, unavailable, replicas, expected| {
            let strategy =
                DeploymentStrategy::RollingUpdate { max_surge: surge, max_unavailable: unavailable };
            assert_eq!(strategy.bounds(replicas), expected, "{strategy:?} of {replicas}");
        };
        use IntOrPercent::{Int, Percent};
        check(Percent(25), Percent(25), 4, (1, 1));
        check(Percent(25), Percent(25), 10, (3, 2));
        check(Percent(25), Percent(25), 1, (1, 0));
        check(Int(0), Percent(10), 5, (0, 1));
        check(Int(0), Int(7), 5, (0, 5));
        check(Percent(100), Int(0), 3, (3, 0));
    }
}
