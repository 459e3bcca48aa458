//! Rules for HorizontalPodAutoscalers and CronHorizontalPodAutoscalers.

use std::collections::BTreeSet;

use super::{Path, Report};
use crate::{
    ANNOTATION_WARM_UP, AUTOSCALER_METRICS_MAX, AutoscalerMetric, CRON_AUTOSCALER_JOBS_MAX,
    CronAutoscalerSpec, HorizontalPodAutoscaler, Kind, MetricTarget, POLICY_PERIOD_MS_MAX, PolicyUnit,
    REPLICAS_MAX, SCALING_POLICIES_MAX, STABILIZATION_MS_MAX, ScaleTarget, ScalingRules,
};

/// Longest warm-up, in seconds: a day.
const WARM_UP_SECONDS_MAX: u32 = 86_400;

/// Checks what is wanted of an autoscaler.
pub(super) fn autoscaler(autoscaler: &HorizontalPodAutoscaler, report: &mut Report) {
    let (root, spec) = (Path::Root, &autoscaler.spec);
    let path = root.field("spec");
    if let Some(text) = autoscaler.meta.annotations.get(ANNOTATION_WARM_UP)
        && !text.parse::<u32>().is_ok_and(|seconds| seconds <= WARM_UP_SECONDS_MAX)
    {
        let (metadata, reason) =
            (root.field("metadata"), format!("must be whole seconds from 0 to {WARM_UP_SECONDS_MAX}"));
        report.push(&metadata.field("annotations").key(ANNOTATION_WARM_UP), reason);
    }
    scale_target(&spec.target, &[Kind::Deployment, Kind::StatefulSet], &path.field("scaleTargetRef"), report);
    bounds(spec.min_replicas, spec.max_replicas, &path, report);
    let metrics = path.field("metrics");
    report.at_most(&metrics, "metrics", spec.metrics.len(), AUTOSCALER_METRICS_MAX);
    if spec.metrics.is_empty() {
        report.push(&metrics, "must have at least one metric");
    }
    for (index, one) in spec.metrics.iter().enumerate() {
        metric(one, &metrics.index(index), report);
    }
    let behavior = path.field("behavior");
    rules(&spec.scale_up, &behavior.field("scaleUp"), report);
    rules(&spec.scale_down, &behavior.field("scaleDown"), report);
}

/// Checks what is scaled.
pub(super) fn scale_target(target: &ScaleTarget, kinds: &[Kind], path: &Path<'_>, report: &mut Report) {
    if !kinds.contains(&target.kind) {
        let names: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
        report.push(&path.field("kind"), format!("must be one of {}, not {}", names.join(", "), target.kind));
    }
}

fn bounds(min_replicas: u32, max_replicas: u32, path: &Path<'_>, report: &mut Report) {
    if min_replicas == 0 {
        report.push(&path.field("minReplicas"), "must be at least 1: figures of no pods say nothing");
    }
    if max_replicas == 0 || max_replicas > REPLICAS_MAX {
        report.push(&path.field("maxReplicas"), format!("must be between 1 and {REPLICAS_MAX}"));
    } else if max_replicas < min_replicas {
        report.push(&path.field("maxReplicas"), format!("must be at least minReplicas ({min_replicas})"));
    }
}

fn metric(metric: &AutoscalerMetric, path: &Path<'_>, report: &mut Report) {
    let source = path.field(if metric.container.is_some() { "containerResource" } else { "resource" });
    let target = source.field("target");
    match metric.target {
        MetricTarget::Utilization(0) => {
            report.push(&target.field("averageUtilization"), "must be at least 1")
        }
        MetricTarget::AverageValue(0) => report.push(&target.field("averageValue"), "must be more than 0"),
        MetricTarget::Utilization(_) | MetricTarget::AverageValue(_) => {}
    }
    if metric.container.as_ref().is_some_and(|name| name.is_empty()) {
        report.push(&source.field("container"), "must not be empty");
    }
}

fn rules(rules: &ScalingRules, path: &Path<'_>, report: &mut Report) {
    if rules.stabilization_window_ms > STABILIZATION_MS_MAX {
        let reason = format!("must be at most {}", STABILIZATION_MS_MAX / 1000);
        report.push(&path.field("stabilizationWindowSeconds"), reason);
    }
    let policies = path.field("policies");
    report.at_most(&policies, "policies", rules.policies.len(), SCALING_POLICIES_MAX);
    if rules.policies.is_empty() {
        report.push(&policies, "must have at least one policy");
    }
    for (index, policy) in rules.policies.iter().enumerate() {
        let path = policies.index(index);
        if policy.value == 0 {
            report.push(&path.field("value"), "must be at least 1");
        }
        if policy.unit == PolicyUnit::Pods && policy.value > REPLICAS_MAX {
            report.push(&path.field("value"), format!("must be at most {REPLICAS_MAX}"));
        }
        if policy.period_ms == 0 || policy.period_ms > POLICY_PERIOD_MS_MAX {
            let reason = format!("must be between 1 and {}", POLICY_PERIOD_MS_MAX / 1000);
            report.push(&path.field("periodSeconds"), reason);
        }
    }
}

/// Checks what is wanted of a size by the clock, but for its schedules and zone, which the control plane reads.
pub(super) fn cron_autoscaler(spec: &CronAutoscalerSpec, path: &Path<'_>, report: &mut Report) {
    let kinds = [Kind::Deployment, Kind::StatefulSet, Kind::HorizontalPodAutoscaler];
    scale_target(&spec.target, &kinds, &path.field("scaleTargetRef"), report);
    let dates = path.field("excludeDates");
    report.at_most(&dates, "dates", spec.exclude_dates.len(), CRON_AUTOSCALER_JOBS_MAX);
    let jobs = path.field("jobs");
    report.at_most(&jobs, "jobs", spec.jobs.len(), CRON_AUTOSCALER_JOBS_MAX);
    if spec.jobs.is_empty() {
        report.push(&jobs, "must have at least one job");
    }
    let mut seen = BTreeSet::new();
    for (index, job) in spec.jobs.iter().enumerate() {
        let path = jobs.index(index);
        if job.name.is_empty() || job.name.len() > crate::NAME_LENGTH_MAX {
            let reason = format!("must have 1 to {} bytes", crate::NAME_LENGTH_MAX);
            report.push(&path.field("name"), reason);
        }
        if !seen.insert(&job.name) {
            report.push(&path.field("name"), format!("{:?} is given twice", job.name));
        }
        if job.target_size > REPLICAS_MAX {
            report.push(&path.field("targetSize"), format!("must be at most {REPLICAS_MAX}"));
        }
        if job.target_size == 0 && spec.target.kind == Kind::HorizontalPodAutoscaler {
            report.push(&path.field("targetSize"), "must be at least 1: an autoscaler keeps one pod");
        }
    }
}
