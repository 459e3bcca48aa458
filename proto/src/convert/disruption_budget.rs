//! PodDisruptionBudgets.

use bulkhead_types::{
    DisruptionBound, DisruptionBudgetSpec, DisruptionBudgetStatus, PodDisruptionBudget,
    UnhealthyPodEvictionPolicy,
};

use super::{wire_enum, wire_field, wire_field_or_default, wire_oneof, wire_struct, wire_variant_message};
use crate::v1;
use crate::v1::disruption_bound;

wire_enum!(UnhealthyPodEvictionPolicy { IfHealthyBudget, AlwaysAllow });

wire_struct!(PodDisruptionBudget => v1::PodDisruptionBudget { meta, spec, status });
wire_struct!(DisruptionBudgetSpec => v1::DisruptionBudgetSpec {
    bound, selector, unhealthy_pod_eviction_policy,
});
wire_struct!(DisruptionBudgetStatus => v1::DisruptionBudgetStatus {
    observed_generation, disruptions_allowed, current_healthy, desired_healthy, expected_pods, conditions,
});

wire_oneof!(DisruptionBound => disruption_bound {
    values { MinAvailable "min_available", MaxUnavailable "max_unavailable" }
    messages {}
});
wire_variant_message!(DisruptionBound => v1::DisruptionBound);

wire_field! {
    PodDisruptionBudget => v1::PodDisruptionBudget,
    DisruptionBudgetSpec => v1::DisruptionBudgetSpec,
}
wire_field_or_default!(DisruptionBudgetStatus => v1::DisruptionBudgetStatus);
