//! PodDisruptionBudgets as values.

use bulkhead_types::{
    DisruptionBound, DisruptionBudgetSpec, DisruptionBudgetStatus, UnhealthyPodEvictionPolicy,
};
use serde_json::Value;

use super::Fields;
use super::workload::{conditions, selector, share};

/// What is wanted of a budget.
pub(super) fn budget_spec(spec: &DisruptionBudgetSpec) -> Value {
    let (name, bound) = match spec.bound {
        DisruptionBound::MinAvailable(bound) => ("minAvailable", bound),
        DisruptionBound::MaxUnavailable(bound) => ("maxUnavailable", bound),
    };
    let policy = match spec.unhealthy_pod_eviction_policy {
        UnhealthyPodEvictionPolicy::IfHealthyBudget => "IfHealthyBudget",
        UnhealthyPodEvictionPolicy::AlwaysAllow => "AlwaysAllow",
    };
    Fields::new()
        .set(name, share(bound))
        .set("selector", selector(&spec.selector))
        .text("unhealthyPodEvictionPolicy", policy)
        .finish()
}

/// What is known of a budget.
pub(super) fn budget_status(status: &DisruptionBudgetStatus) -> Value {
    Fields::new()
        .set("observedGeneration", status.observed_generation.into())
        .set("disruptionsAllowed", status.disruptions_allowed.into())
        .set("currentHealthy", status.current_healthy.into())
        .set("desiredHealthy", status.desired_healthy.into())
        .set("expectedPods", status.expected_pods.into())
        .list("conditions", conditions(&status.conditions))
        .finish()
}
