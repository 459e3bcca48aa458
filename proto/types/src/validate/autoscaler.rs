//! Rules for HorizontalPodAutoscalers and CronHorizontalPodAutoscalers.

use std::collections::BTreeSet;

use super::{Path, Report, workload};
use crate::{
    ANNOTATION_WARM_UP, AUTOSCALER_METRICS_MAX, AutoscalerMetric, CRON_AUTOSCALER_JOBS_MAX,
    CronAutoscalerSpec, HorizontalPodAutoscaler, Kind, MeasuredResource, MetricQuery, MetricSource,
    MetricTarget, Name, POLICY_PERIOD_MS_MAX, PolicyUnit, REPLICAS_MAX, SCALING_POLICIES_MAX,
    STABILIZATION_MS_MAX, ScaleTarget, ScalingRules,
};

/// Longest warm-up, in seconds: a day.
const WARM_UP_SECONDS_MAX: u32 = 86_400;
/// Longest name of a metric, in bytes.
const METRIC_NAME_BYTES_MAX: usize = 253;

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
    let kinds = [Kind::Deployment, Kind::StatefulSet, Kind::ElasticWorkload];
    scale_target(&spec.target, &kinds, &path.field("scaleTargetRef"), report);
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
    let source = path.field(match (metric.query.get(), metric.container.is_some()) {
        (Some(query), _) => match query.source {
            MetricSource::Pods => "pods",
            MetricSource::Object => "object",
            MetricSource::External => "external",
        },
        (None, true) => "containerResource",
        (None, false) => "resource",
    });
    let target = source.field("target");
    if metric.query.get().is_some() != (metric.resource == MeasuredResource::Queried) {
        report.push(&source, "must have a query if its numbers are queried, and only then");
    }
    if let Some(query) = metric.query.get() {
        self::query(query, metric.target, &source, report);
    } else if matches!(metric.target, MetricTarget::Value(_)) {
        report.push(
            &target.field("type"),
            "must be Utilization or AverageValue: a resource has no value in all",
        );
    }
    match metric.target {
        MetricTarget::Utilization(0) => {
            report.push(&target.field("averageUtilization"), "must be at least 1")
        }
        MetricTarget::AverageValue(0) => report.push(&target.field("averageValue"), "must be more than 0"),
        MetricTarget::Value(0) => report.push(&target.field("value"), "must be more than 0"),
        MetricTarget::Utilization(_) | MetricTarget::AverageValue(_) | MetricTarget::Value(_) => {}
    }
    if metric.container.as_ref().is_some_and(|name| name.is_empty()) {
        report.push(&source.field("container"), "must not be empty");
    }
}

fn query(query: &MetricQuery, wanted: MetricTarget, path: &Path<'_>, report: &mut Report) {
    let metric = path.field("metric");
    let name = metric.field("name");
    if query.name.len() > METRIC_NAME_BYTES_MAX || !is_metric_name(&query.name, true) {
        let reason = format!(
            "must be at most {METRIC_NAME_BYTES_MAX} letters, digits, '_' and ':', and not begin with a digit: it is a name of the \
             metrics endpoint"
        );
        report.push(&name, reason);
    }
    let selector = metric.field("selector");
    workload::requirements(&query.selector, &selector, report);
    let expressions = query.selector.match_expressions.iter().map(|one| &one.key);
    for key in query.selector.match_labels.keys().chain(expressions) {
        if !is_metric_name(key, false) {
            report.push(&selector, format!("{key:?} is no label of a metric: letters, digits and '_' only"));
        }
    }
    let wants_object = query.source == MetricSource::Object;
    match &query.object {
        Some(object) if wants_object => {
            let path = path.field("describedObject");
            report.check(&path.field("name"), Name::new(&object.name).map(drop));
            if !is_metric_name(&object.kind, false) || object.kind.len() > METRIC_NAME_BYTES_MAX {
                report.push(&path.field("kind"), "must be a kind");
            }
        }
        None if !wants_object => {}
        _ => report.push(&path.field("describedObject"), "must be set with Object metrics, and only then"),
    }
    let target = path.field("target");
    let target = target.field("type");
    match (query.source, wanted) {
        (_, MetricTarget::Utilization(_)) => {
            report.push(&target, "must be Value or AverageValue: there are no requests to take per cent of");
        }
        (MetricSource::Pods, MetricTarget::Value(_)) => report.push(&target, "must be AverageValue"),
        _ => {}
    }
}

/// A name, or a name of a label, in the data model of Prometheus.
fn is_metric_name(text: &str, with_colons: bool) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || (with_colons && c == ':');
    !text.is_empty() && !text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(is_part)
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
    let kinds = [Kind::Deployment, Kind::StatefulSet, Kind::ElasticWorkload, Kind::HorizontalPodAutoscaler];
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
