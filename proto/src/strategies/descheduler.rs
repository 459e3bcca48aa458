//! DeschedulerPolicies.

use super::*;

record!(/// Any thresholds.
utilization_thresholds: UtilizationThresholds {
    cpu: of(any::<u32>()), memory: of(any::<u32>()), pods: of(any::<u32>()),
});

fn strategy() -> impl Strategy<Value = DeschedulerStrategy> + Clone {
    prop_oneof![
        (utilization_thresholds(), utilization_thresholds(), any::<bool>(), any::<u32>()).prop_map(
            |(thresholds, target_thresholds, measured, number_of_nodes)| {
                DeschedulerStrategy::LowNodeUtilization {
                    thresholds,
                    target_thresholds,
                    measured,
                    number_of_nodes,
                }
            }
        ),
        Just(DeschedulerStrategy::RemoveDuplicates),
        Just(DeschedulerStrategy::RemovePodsViolatingNodeAffinity),
        any::<bool>().prop_map(|include_prefer_no_schedule| {
            DeschedulerStrategy::RemovePodsViolatingNodeTaints { include_prefer_no_schedule }
        }),
        Just(DeschedulerStrategy::RemovePodsViolatingTopologySpreadConstraint),
        Just(DeschedulerStrategy::RemovePodsViolatingInterPodAntiAffinity),
        (any::<u32>(), any::<bool>()).prop_map(|(pod_restart_threshold, including_init_containers)| {
            DeschedulerStrategy::RemovePodsHavingTooManyRestarts {
                pod_restart_threshold,
                including_init_containers,
            }
        }),
        any::<u64>()
            .prop_map(|max_pod_life_time_ms| DeschedulerStrategy::PodLifeTime { max_pod_life_time_ms }),
    ]
}

record!(/// Any wish for a policy.
descheduler_policy_spec: DeschedulerPolicySpec {
    interval_ms: any::<u64>(), cool_down_ms: any::<u64>(), dry_run: any::<bool>(),
    max_per_node: of(any::<u32>()), max_per_namespace: of(any::<u32>()), max_total: of(any::<u32>()),
    include: vec(name(), 0..3), exclude: vec(name(), 0..3), label_selector: of(label_selector()).prop_map(Rare::from),
    priority_threshold: of(any::<i32>()), evict_local_storage_pods: any::<bool>(),
    strategies: vec(strategy(), 0..4),
});
record!(/// Any pod that was evicted.
descheduled: Descheduled {
    pod: object_id(), name: small(), node: name(), strategy: small(), reason: text(),
});
record!(/// Any owner that is left alone.
cooling_owner: CoolingOwner { owner: object_id(), evicted_at_ms: any::<u64>() });
record!(/// Any status of a policy.
descheduler_policy_status: DeschedulerPolicyStatus {
    observed_generation: any::<u64>(), last_run_ms: any::<u64>(), last: vec(descheduled(), 0..3),
    last_was_dry_run: any::<bool>(), evicted: any::<u64>(), cooling: vec(cooling_owner(), 0..3),
});
record!(/// Any DeschedulerPolicy.
descheduler_policy: DeschedulerPolicy {
    meta: meta(), spec: descheduler_policy_spec(), status: descheduler_policy_status(),
});

/// Any run of a policy.
pub(super) fn descheduler_command() -> impl Strategy<Value = Command> + Clone {
    (object_id(), any::<u64>(), vec(descheduled(), 0..3))
        .prop_map(|(policy, generation, pods)| Command::Deschedule { policy, generation, pods })
}
