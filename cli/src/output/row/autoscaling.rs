//! The columns of autoscalers, sizes by the clock, elastic workloads, and budgets.

use bulkhead_types::{
    AutoscalerMetric, CronHorizontalPodAutoscaler, DisruptionBound, ElasticWorkload, HorizontalPodAutoscaler,
    MetricReading, MetricTarget, PodDisruptionBudget, ScaleTarget,
};

use super::NONE;
use crate::time::age;

/// `Deployment/web`.
pub(crate) fn scaled(target: &ScaleTarget) -> String {
    format!("{}/{}", target.kind, target.name)
}

/// `cpu: 90%/50%`, `memory of app: 64Mi/128Mi`, `cpu: <unknown>/50%`: what is, and what shall be.
pub(crate) fn metric(metric: &AutoscalerMetric, reading: Option<&MetricReading>) -> String {
    let amount = |amount| metric.resource.format(amount);
    let (is, shall) = match metric.target {
        MetricTarget::Utilization(percent) => {
            let is = reading.and_then(|reading| reading.average_utilization);
            (is.map(|is| format!("{is}%")), format!("{percent}%"))
        }
        MetricTarget::AverageValue(value) => {
            (reading.and_then(|reading| reading.average_value).map(amount), amount(value))
        }
        MetricTarget::Value(value) => {
            (reading.and_then(|reading| reading.total.get().copied()).map(amount), amount(value))
        }
    };
    let average = matches!(metric.target, MetricTarget::AverageValue(_));
    let is = is.unwrap_or_else(|| "<unknown>".to_owned());
    // Kubernetes marks averages of what is queried.
    let mark = if average && metric.query.get().is_some() { " (avg)" } else { "" };
    format!("{}: {is}/{shall}{mark}", metric.name())
}

pub(super) fn autoscaler(autoscaler: &HorizontalPodAutoscaler) -> (Vec<String>, Vec<String>) {
    let (spec, status) = (&autoscaler.spec, &autoscaler.status);
    let metrics = spec.metrics.iter().enumerate().map(|(n, one)| metric(one, status.metrics.get(n)));
    let middle = vec![
        scaled(&spec.target),
        metrics.collect::<Vec<_>>().join(", "),
        spec.min_replicas.to_string(),
        spec.max_replicas.to_string(),
        status.desired_replicas.to_string(),
        age(autoscaler.meta.created_at_ms),
    ];
    (middle, vec![])
}

pub(super) fn cron_autoscaler(scaler: &CronHorizontalPodAutoscaler) -> (Vec<String>, Vec<String>) {
    let (spec, status) = (&scaler.spec, &scaler.status);
    let last = status.runs.iter().max_by_key(|run| run.scheduled_ms);
    let middle = vec![
        scaled(&spec.target),
        spec.time_zone.as_deref().unwrap_or("UTC").to_owned(),
        spec.jobs.len().to_string(),
        last.map_or_else(|| NONE.to_owned(), |run| age(run.scheduled_ms)),
        last.map_or_else(|| NONE.to_owned(), |run| format!("{:?}", run.outcome)),
        age(scaler.meta.created_at_ms),
    ];
    (middle, vec![])
}

pub(super) fn budget(budget: &PodDisruptionBudget) -> (Vec<String>, Vec<String>) {
    let none = || "N/A".to_owned();
    let (min, max) = match budget.spec.bound {
        DisruptionBound::MinAvailable(bound) => (bound.to_string(), none()),
        DisruptionBound::MaxUnavailable(bound) => (none(), bound.to_string()),
    };
    let allowed = budget.status.disruptions_allowed.to_string();
    (vec![min, max, allowed, age(budget.meta.created_at_ms)], vec![])
}

pub(super) fn elastic_workload(workload: &ElasticWorkload) -> (Vec<String>, Vec<String>) {
    let units = || workload.status.units.iter();
    // The source has no name here.
    let sizes = units().map(|unit| match unit.name.as_str() {
        "" => format!("source {}", unit.desired_replicas),
        name => format!("{name} {}", unit.desired_replicas),
    });
    let middle = vec![
        format!("Deployment/{}", workload.spec.source.name),
        workload.spec.replicas.to_string(),
        units().map(|unit| unit.ready_replicas).sum::<u32>().to_string(),
        sizes.collect::<Vec<_>>().join(", "),
        age(workload.meta.created_at_ms),
    ];
    (middle, vec![])
}
