//! DeschedulerPolicies.

use bulkhead_types::{
    COOL_DOWN_MS_DEFAULT, COOLING_OWNERS_MAX, CoolingOwner, DESCHEDULED_PER_RUN_MAX,
    DESCHEDULER_INTERVAL_MS_DEFAULT, DESCHEDULER_NAMESPACES_MAX, Descheduled, DeschedulerPolicy,
    DeschedulerPolicySpec, DeschedulerPolicyStatus, DeschedulerStrategy, UtilizationThresholds,
};

use super::{wire_field, wire_field_or_default, wire_oneof, wire_struct, wire_variant_message};
use crate::v1;
use crate::v1::descheduler_strategy;

/// Most strategies: each once.
const STRATEGIES_MAX: usize = 16;

wire_struct!(DeschedulerPolicy => v1::DeschedulerPolicy { meta, spec, status });
wire_struct!(DeschedulerPolicySpec => v1::DeschedulerPolicySpec {
    interval_ms, cool_down_ms, dry_run, max_per_node, max_per_namespace, max_total,
    include (DESCHEDULER_NAMESPACES_MAX), exclude (DESCHEDULER_NAMESPACES_MAX), label_selector,
    priority_threshold, evict_local_storage_pods, strategies (STRATEGIES_MAX),
});
wire_struct!(UtilizationThresholds => v1::UtilizationThresholds { cpu, memory, pods });
wire_struct!(DeschedulerPolicyStatus => v1::DeschedulerPolicyStatus {
    observed_generation, last_run_ms, last (DESCHEDULED_PER_RUN_MAX as usize), last_was_dry_run, evicted,
    cooling (COOLING_OWNERS_MAX),
});
wire_struct!(Descheduled => v1::Descheduled { pod, name, node, strategy, reason });
wire_struct!(CoolingOwner => v1::CoolingOwner { owner, evicted_at_ms });

wire_oneof!(DeschedulerStrategy => descheduler_strategy {
    values {}
    messages {
        LowNodeUtilization "low_node_utilization" {
            thresholds, target_thresholds, measured, number_of_nodes,
        }
        RemoveDuplicates "remove_duplicates" {}
        RemovePodsViolatingNodeAffinity "remove_pods_violating_node_affinity" {}
        RemovePodsViolatingNodeTaints "remove_pods_violating_node_taints" { include_prefer_no_schedule }
        RemovePodsViolatingTopologySpreadConstraint "remove_pods_violating_topology_spread_constraint" {}
        RemovePodsViolatingInterPodAntiAffinity "remove_pods_violating_inter_pod_anti_affinity" {}
        RemovePodsHavingTooManyRestarts "remove_pods_having_too_many_restarts" {
            pod_restart_threshold, including_init_containers,
        }
        PodLifeTime "pod_life_time" { max_pod_life_time_ms }
    }
});
wire_variant_message!(DeschedulerStrategy => v1::DeschedulerStrategy);

wire_field! {
    DeschedulerPolicy => v1::DeschedulerPolicy,
    DeschedulerPolicySpec => v1::DeschedulerPolicySpec,
    Descheduled => v1::Descheduled,
    CoolingOwner => v1::CoolingOwner,
}
wire_field_or_default! {
    UtilizationThresholds => v1::UtilizationThresholds,
    DeschedulerPolicyStatus => v1::DeschedulerPolicyStatus,
}

/// Defaults of what clients submit.
pub(super) fn default_policy_spec(spec: &mut v1::DeschedulerPolicySpec) {
    spec.interval_ms.get_or_insert(DESCHEDULER_INTERVAL_MS_DEFAULT);
    spec.cool_down_ms.get_or_insert(COOL_DOWN_MS_DEFAULT);
}
