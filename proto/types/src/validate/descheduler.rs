//! Rules for DeschedulerPolicies.

use std::collections::BTreeSet;

use super::{Path, Report, workload};
use crate::{
    COOL_DOWN_MS_MAX, DESCHEDULER_INTERVAL_MS, DESCHEDULER_NAMESPACES_MAX, DURATION_MS_MAX,
    DeschedulerPolicySpec, DeschedulerStrategy, UtilizationThresholds,
};

/// Checks what is wanted of a policy.
pub(super) fn policy(spec: &DeschedulerPolicySpec, path: &Path<'_>, report: &mut Report) {
    if !DESCHEDULER_INTERVAL_MS.contains(&spec.interval_ms) {
        let (least, most) = (DESCHEDULER_INTERVAL_MS.start() / 1000, DESCHEDULER_INTERVAL_MS.end() / 1000);
        report.push(&path.field("intervalSeconds"), format!("must be from {least} to {most}"));
    }
    if spec.cool_down_ms > COOL_DOWN_MS_MAX {
        report.push(&path.field("coolDownSeconds"), format!("must be at most {}", COOL_DOWN_MS_MAX / 1000));
    }
    let namespaces = path.field("namespaces");
    for (field, names) in [("include", &spec.include), ("exclude", &spec.exclude)] {
        report.at_most(&namespaces.field(field), "namespaces", names.len(), DESCHEDULER_NAMESPACES_MAX);
    }
    if !spec.include.is_empty() && !spec.exclude.is_empty() {
        report.push(&namespaces, "must be either include or exclude");
    }
    if let Some(selector) = spec.label_selector.get() {
        workload::selector(selector, &path.field("labelSelector"), report);
    }
    let strategies = path.field("strategies");
    if spec.strategies.is_empty() {
        report.push(&strategies, "must name at least one strategy");
    }
    let mut seen = BTreeSet::new();
    for (index, one) in spec.strategies.iter().enumerate() {
        let path = strategies.index(index);
        if !seen.insert(one.as_str()) {
            report.push(&path.field("name"), format!("repeats {}", one.as_str()));
        }
        strategy(one, &path.field("args"), report);
    }
}

fn strategy(one: &DeschedulerStrategy, path: &Path<'_>, report: &mut Report) {
    match one {
        DeschedulerStrategy::LowNodeUtilization { thresholds, target_thresholds, .. } => {
            let fields = [("thresholds", thresholds), ("targetThresholds", target_thresholds)];
            for (field, values) in fields {
                percents(values, &path.field(field), report);
            }
            let pairs = [
                ("cpu", thresholds.cpu, target_thresholds.cpu),
                ("memory", thresholds.memory, target_thresholds.memory),
                ("pods", thresholds.pods, target_thresholds.pods),
            ];
            for (name, low, high) in pairs {
                let path = path.field("targetThresholds");
                let path = path.field(name);
                match (low, high) {
                    (Some(low), Some(high)) if high < low => {
                        report.push(&path, format!("must be at least the threshold, which is {low}"));
                    }
                    (Some(_), None) => report.push(&path, "is required: thresholds name it"),
                    (None, Some(_)) => report.push(&path, "must not be set: thresholds do not name it"),
                    _ => {}
                }
            }
        }
        DeschedulerStrategy::RemovePodsHavingTooManyRestarts { pod_restart_threshold: 0, .. } => {
            report.push(&path.field("podRestartThreshold"), "must be at least 1");
        }
        DeschedulerStrategy::PodLifeTime { max_pod_life_time_ms }
            if !(1000..=DURATION_MS_MAX).contains(max_pod_life_time_ms) =>
        {
            let reason = format!("must be from 1 to {}", DURATION_MS_MAX / 1000);
            report.push(&path.field("maxPodLifeTimeSeconds"), reason);
        }
        _ => {}
    }
}

fn percents(values: &UtilizationThresholds, path: &Path<'_>, report: &mut Report) {
    let named = [("cpu", values.cpu), ("memory", values.memory), ("pods", values.pods)];
    if named.iter().all(|(_, value)| value.is_none()) {
        report.push(path, "must name at least one of cpu, memory, pods");
    }
    for (name, value) in named {
        if value.is_some_and(|value| value > 100) {
            report.push(&path.field(name), "must be at most 100 per cent");
        }
    }
}
