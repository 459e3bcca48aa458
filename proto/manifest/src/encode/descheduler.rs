//! DeschedulerPolicies as values.

use bulkhead_types::{
    Descheduled, DeschedulerPolicySpec, DeschedulerPolicyStatus, DeschedulerStrategy, Name,
    UtilizationThresholds,
};
use serde_json::{Value, json};

use super::Fields;
use super::workload::selector;

/// What is wanted of a policy.
pub(super) fn policy_spec(spec: &DeschedulerPolicySpec) -> Value {
    let names = |names: &[Name]| names.iter().map(|name| Value::from(name.as_str())).collect::<Vec<_>>();
    let namespaces = Fields::new()
        .list("include", names(&spec.include).into_iter())
        .list("exclude", names(&spec.exclude).into_iter())
        .finish();
    let has_namespaces = !spec.include.is_empty() || !spec.exclude.is_empty();
    let mut fields = Fields::new()
        .set("intervalSeconds", (spec.interval_ms / 1000).into())
        .set("coolDownSeconds", (spec.cool_down_ms / 1000).into())
        .number("maxNoOfPodsToEvictPerNode", spec.max_per_node.map(u64::from))
        .number("maxNoOfPodsToEvictPerNamespace", spec.max_per_namespace.map(u64::from))
        .number("maxNoOfPodsToEvictTotal", spec.max_total.map(u64::from))
        .maybe("namespaces", has_namespaces.then_some(namespaces))
        .maybe("labelSelector", spec.label_selector.get().map(selector))
        .maybe("thresholdPriority", spec.priority_threshold.map(Value::from));
    for (name, is_set) in [("dryRun", spec.dry_run), ("evictLocalStoragePods", spec.evict_local_storage_pods)]
    {
        if is_set {
            fields = fields.set(name, true.into());
        }
    }
    fields.list("strategies", spec.strategies.iter().map(strategy)).finish()
}

fn strategy(one: &DeschedulerStrategy) -> Value {
    let args = match one {
        DeschedulerStrategy::LowNodeUtilization {
            thresholds: low,
            target_thresholds,
            measured,
            number_of_nodes,
        } => {
            let metrics = measured.then(|| json!({"metricsServer": true}));
            Some(
                Fields::new()
                    .set("thresholds", thresholds(low))
                    .set("targetThresholds", thresholds(target_thresholds))
                    .number("numberOfNodes", (*number_of_nodes > 0).then_some((*number_of_nodes).into()))
                    .maybe("metricsUtilization", metrics)
                    .finish(),
            )
        }
        DeschedulerStrategy::RemovePodsViolatingNodeTaints { include_prefer_no_schedule: true } => {
            Some(json!({"includePreferNoSchedule": true}))
        }
        DeschedulerStrategy::RemovePodsHavingTooManyRestarts {
            pod_restart_threshold,
            including_init_containers,
        } => Some(json!({
            "podRestartThreshold": pod_restart_threshold,
            "includingInitContainers": including_init_containers,
        })),
        DeschedulerStrategy::PodLifeTime { max_pod_life_time_ms } => {
            Some(json!({"maxPodLifeTimeSeconds": max_pod_life_time_ms / 1000}))
        }
        DeschedulerStrategy::RemovePodsViolatingNodeTaints { .. }
        | DeschedulerStrategy::RemoveDuplicates
        | DeschedulerStrategy::RemovePodsViolatingNodeAffinity
        | DeschedulerStrategy::RemovePodsViolatingTopologySpreadConstraint
        | DeschedulerStrategy::RemovePodsViolatingInterPodAntiAffinity => None,
    };
    Fields::new().text("name", one.as_str()).maybe("args", args).finish()
}

fn thresholds(of: &UtilizationThresholds) -> Value {
    Fields::new()
        .number("cpu", of.cpu.map(u64::from))
        .number("memory", of.memory.map(u64::from))
        .number("pods", of.pods.map(u64::from))
        .finish()
}

/// What a policy did.
pub(super) fn policy_status(status: &DeschedulerPolicyStatus) -> Value {
    let last = |one: &Descheduled| {
        Fields::new()
            .text("pod", &one.name)
            .text("node", one.node.as_str())
            .text("strategy", &one.strategy)
            .text("reason", &one.reason)
            .finish()
    };
    Fields::new()
        .set("observedGeneration", status.observed_generation.into())
        .time("lastRunTime", status.last_run_ms)
        .set("lastWasDryRun", status.last_was_dry_run.into())
        .set("evicted", status.evicted.into())
        .set("ownersLeftAlone", status.cooling.len().into())
        .list("last", status.last.iter().map(last))
        .finish()
}
