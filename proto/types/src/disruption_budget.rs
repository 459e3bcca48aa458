//! PodDisruptionBudgets: how many pods evictions leave, as in `policy/v1`.
//!
//! Source: "Disruptions" in the Kubernetes documentation, and "PodDisruptionBudget v1 policy" of its API reference.

use serde::{Deserialize, Serialize};

use crate::{Condition, IntOrPercent, LabelSelector, ObjectMeta};

/// The condition that says whether evictions are allowed now.
pub const DISRUPTION_ALLOWED: &str = "DisruptionAllowed";

/// How many pods evictions leave.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodDisruptionBudget {
    /// Standard metadata.
    pub meta: ObjectMeta,
    /// What is wanted.
    pub spec: DisruptionBudgetSpec,
    /// What is known.
    pub status: DisruptionBudgetStatus,
}

/// What evictions leave; per cent are of the pods that are wanted, rounded up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DisruptionBound {
    /// At least so many healthy pods.
    MinAvailable(IntOrPercent),
    /// All wanted pods but so many.
    MaxUnavailable(IntOrPercent),
}

/// When pods that are not healthy may be evicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum UnhealthyPodEvictionPolicy {
    /// When as many as wanted are healthy, or the budget allows a disruption.
    #[default]
    IfHealthyBudget = 1,
    /// Always.
    AlwaysAllow = 2,
}

/// What is wanted of a budget.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DisruptionBudgetSpec {
    /// What evictions leave.
    pub bound: DisruptionBound,
    /// Of which pods of the namespace; an empty one means all of them.
    pub selector: LabelSelector,
    /// When pods that are not healthy may be evicted.
    pub unhealthy_pod_eviction_policy: UnhealthyPodEvictionPolicy,
}

/// What is known of a budget. Evictions are checked against what is true when they are applied, not against this.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DisruptionBudgetStatus {
    /// The spec generation that the figures follow.
    pub observed_generation: u64,
    /// How many evictions are allowed now.
    pub disruptions_allowed: u32,
    /// Healthy pods: ready, and not ending.
    pub current_healthy: u32,
    /// How many must stay healthy.
    pub desired_healthy: u32,
    /// How many pods are wanted.
    pub expected_pods: u32,
    /// DisruptionAllowed.
    pub conditions: Vec<Condition>,
}
