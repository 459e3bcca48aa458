//! Numbers from the metrics endpoint: what is asked, and how many pods the answers want.
//!
//! A metric's name and selector become a selector of series in the language of Prometheus:
//!
//! | type | query |
//! |---|---|
//! | Pods | `sum by (pod) (NAME{namespace="NS",SELECTOR})` |
//! | Object | `sum(NAME{namespace="NS",KIND="OBJECT",SELECTOR})`, with the kind in small letters |
//! | External | `sum(NAME{SELECTOR})` |
//!
//! Rates and the like are the endpoint's: a recording rule gives them a name.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use bulkhead_types::{
    AutoscalerMetric, HorizontalPodAutoscaler, LabelOperator, LabelRequirement, LabelSelector, MetricQuery,
    MetricReading, MetricSource, MetricTarget, Name, Pod, PodPhase, REPLICAS_MAX, Rare,
};
use std::sync::Arc;

use super::metric::{PodFigure, is_tolerated, read_metric};
use crate::State;
use crate::reconcile::{MetricSample, SoftState};

/// Most queries of a round: beyond that autoscalers are told that theirs is not asked.
pub const QUERIES_MAX: usize = 1024;

/// The query of a metric of an autoscaler in this namespace.
#[must_use]
pub fn query_text(query: &MetricQuery, namespace: &str) -> String {
    let mut matchers = Vec::new();
    if query.source != MetricSource::External {
        matchers.push(format!("namespace={}", quoted(namespace)));
    }
    if let Some(object) = &query.object {
        matchers.push(format!("{}={}", object.kind.to_lowercase(), quoted(&object.name)));
    }
    let LabelSelector { match_labels, match_expressions } = &query.selector;
    matchers.extend(match_labels.iter().map(|(key, value)| format!("{key}={}", quoted(value))));
    matchers.extend(match_expressions.iter().map(matcher));
    let by = if query.source == MetricSource::Pods { " by (pod) " } else { "" };
    format!("sum{by}({}{{{}}})", query.name, matchers.join(","))
}

fn matcher(requirement: &LabelRequirement) -> String {
    let any = || requirement.values.iter().map(|value| escaped(value)).collect::<Vec<_>>().join("|");
    let key = &requirement.key;
    match requirement.operator {
        LabelOperator::In => format!("{key}=~{}", quoted(&any())),
        LabelOperator::NotIn => format!("{key}!~{}", quoted(&any())),
        LabelOperator::Exists => format!("{key}!=\"\""),
        LabelOperator::DoesNotExist => format!("{key}=\"\""),
    }
}

/// A value as a regular expression that matches just it. Values of labels are letters, digits, '-', '_' and '.'.
fn escaped(value: &str) -> String {
    value.replace('.', "\\.")
}

fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => _ = write!(quoted, "\\{c}"),
            '\n' => quoted.push_str("\\n"),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// What the metrics endpoint is to be asked now, each query once, in their order; at most [`QUERIES_MAX`].
#[must_use]
pub fn queries(state: &State) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for autoscaler in state.horizontal_pod_autoscalers().iter() {
        let namespace = autoscaler.meta.namespace.as_ref().map_or("", Name::as_str);
        for query in autoscaler.spec.metrics.iter().filter_map(|metric| metric.query.get()) {
            if found.len() >= QUERIES_MAX {
                return found;
            }
            found.insert(query_text(query, namespace));
        }
    }
    found
}

/// What a queried metric says of a workload's pods, `replicas` of which are wanted.
pub(super) fn read_query(
    autoscaler: &HorizontalPodAutoscaler,
    metric: &AutoscalerMetric,
    query: &MetricQuery,
    pods: &[&Arc<Pod>],
    soft: &SoftState,
    now_ms: u64,
    replicas: u32,
) -> MetricReading {
    let namespace = autoscaler.meta.namespace.as_ref().map_or("", Name::as_str);
    let text = query_text(query, namespace);
    let unknown = |message: String| MetricReading { message, ..MetricReading::default() };
    let samples = match soft.metric(&text, now_ms) {
        None => return unknown(format!("the metrics endpoint has not answered {text} lately")),
        Some(Err(error)) => return unknown(format!("{text}: {error}")),
        Some(Ok(samples)) => samples,
    };
    let is_there = |pod: &&&Arc<Pod>| !pod.meta.is_deleting() && !pod.status.phase.is_terminal();
    let pods = pods.iter().filter(is_there).copied();
    if query.source == MetricSource::Pods {
        let warm_up_ms = autoscaler.warm_up_ms();
        let figures: Vec<_> = pods.map(|pod| figure(pod, samples, now_ms, warm_up_ms)).collect();
        return read_metric(metric.target, &figures, replicas);
    }
    if samples.is_empty() {
        return unknown(format!("{text} has no result"));
    }
    let total = samples.iter().fold(0u64, |sum, sample| sum.saturating_add(sample.value_millis));
    let ready = pods.filter(|pod| pod.status.ready).count();
    read_total(metric.target, total, u32::try_from(ready).unwrap_or(u32::MAX), replicas)
}

fn figure(pod: &Pod, samples: &[MetricSample], now_ms: u64, warm_up_ms: u64) -> PodFigure {
    let started_at_ms = pod.status.started_at_ms;
    let is_young = started_at_ms.saturating_add(warm_up_ms) > now_ms;
    if pod.status.phase == PodPhase::Pending || started_at_ms == 0 || is_young {
        return PodFigure::Unready { request: 0 };
    }
    match samples.iter().find(|sample| sample.pod == pod.meta.name.as_str()) {
        Some(sample) => PodFigure::Counted { request: 0, usage: sample.value_millis },
        None => PodFigure::Missing { request: 0 },
    }
}

/// What one number for the whole workload says: as many pods in proportion as are ready now, or a share each.
fn read_total(target: MetricTarget, total: u64, ready: u32, replicas: u32) -> MetricReading {
    let bounded = |size: u128| u32::try_from(size).unwrap_or(u32::MAX).min(REPLICAS_MAX);
    let mut reading =
        MetricReading { total: Rare::some(total), pods_counted: ready, ..MetricReading::default() };
    let (total, size) = (u128::from(total), u128::from(replicas));
    match target {
        MetricTarget::Value(wanted) => {
            let wanted = u128::from(wanted).max(1);
            reading.proposal = if is_tolerated(total, wanted) {
                Some(replicas)
            } else if ready == 0 {
                reading.message =
                    "no pod is ready: there is nothing that the value could be the work of".to_owned();
                None
            } else {
                Some(bounded((total * u128::from(ready)).div_ceil(wanted)))
            };
        }
        MetricTarget::AverageValue(wanted) => {
            let wanted = u128::from(wanted).max(1);
            reading.average_value = u64::try_from(total.div_ceil(size.max(1))).ok();
            let stays = is_tolerated(total, wanted * size);
            reading.proposal = Some(if stays { replicas } else { bounded(total.div_ceil(wanted)) });
        }
        MetricTarget::Utilization(_) => {
            reading.message = "there are no requests to take per cent of".to_owned();
        }
    }
    reading
}

#[cfg(test)]
mod tests;
