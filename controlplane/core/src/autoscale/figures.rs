//! What is known of the pods of a workload, sorted as Kubernetes sorts it.

use std::sync::Arc;

use bulkhead_types::{
    AutoscalerMetric, Container, HorizontalPodAutoscaler, Kind, MeasuredResource, MetricReading, ObjectId,
    Pod, PodPhase,
};

use super::metric::{PodFigure, read_metric};
use super::query::read_query;
use crate::State;
use crate::elastic::elastic_deployments;
use crate::reconcile::{Sample, SoftState};

/// So long after a pod's guest began its processor time counts only while it is ready, and from after that on, in
/// milliseconds (Kubernetes' default).
pub const CPU_INITIALIZATION_MS: u64 = 300_000;
/// A pod that became unready within so long after its guest began never was ready, in milliseconds (Kubernetes'
/// default).
pub const INITIAL_READINESS_MS: u64 = 30_000;

/// The pods of a Deployment or StatefulSet, in id order for each of its sets.
pub fn workload_pods(state: &State, kind: Kind, id: ObjectId) -> Vec<&Arc<Pod>> {
    match kind {
        Kind::Deployment => state.owned(id, Kind::ReplicaSet).flat_map(|set| state.pods_of(set)).collect(),
        Kind::ElasticWorkload => elastic_deployments(state, id)
            .into_iter()
            .flat_map(|deployment| workload_pods(state, Kind::Deployment, deployment))
            .collect(),
        _ => state.pods_of(id).collect(),
    }
}

/// What a metric says of a workload's pods, `replicas` of which are wanted.
#[must_use]
pub fn read_figures(
    autoscaler: &HorizontalPodAutoscaler,
    metric: &AutoscalerMetric,
    pods: &[&Arc<Pod>],
    soft: &SoftState,
    now_ms: u64,
    replicas: u32,
) -> MetricReading {
    if let Some(query) = metric.query.get() {
        return read_query(autoscaler, metric, query, pods, soft, now_ms, replicas);
    }
    let warm_up_ms = autoscaler.warm_up_ms();
    let is_there = |pod: &&&Arc<Pod>| !pod.meta.is_deleting() && !pod.status.phase.is_terminal();
    let mut figures = Vec::with_capacity(pods.len());
    for pod in pods.iter().filter(is_there) {
        match request(metric, pod) {
            Ok(request) => {
                let sample = soft.usage(pod, now_ms);
                figures.push(figure(metric, pod, sample, request, now_ms, warm_up_ms));
            }
            Err(message) => return MetricReading { message, ..MetricReading::default() },
        }
    }
    read_metric(metric.target, &figures, replicas)
}

fn figure(
    metric: &AutoscalerMetric,
    pod: &Pod,
    sample: Option<&Sample>,
    request: u64,
    now_ms: u64,
    warm_up_ms: u64,
) -> PodFigure {
    let started_at_ms = pod.status.started_at_ms;
    let is_young = started_at_ms.saturating_add(warm_up_ms) > now_ms;
    if pod.status.phase == PodPhase::Pending || started_at_ms == 0 || is_young {
        return PodFigure::Unready { request };
    }
    let usage = sample.and_then(|sample| Some((sample, usage(metric, sample)?)));
    let Some((sample, usage)) = usage else { return PodFigure::Missing { request } };
    let is_cpu = metric.resource == MeasuredResource::Cpu;
    if is_cpu && is_unready(pod, sample, now_ms) {
        return PodFigure::Unready { request };
    }
    PodFigure::Counted { request, usage }
}

/// Whether processor time means nothing yet: the pod begins, and would be counted for its begin.
fn is_unready(pod: &Pod, sample: &Sample, now_ms: u64) -> bool {
    let (ready, since_ms, started_at_ms) =
        (pod.status.ready, pod.status.ready_since_ms, pod.status.started_at_ms);
    if started_at_ms.saturating_add(CPU_INITIALIZATION_MS) > now_ms {
        return !ready || sample.measured_at_ms < since_ms.saturating_add(sample.window_ms);
    }
    !ready && started_at_ms.saturating_add(INITIAL_READINESS_MS) > since_ms
}

fn usage(metric: &AutoscalerMetric, sample: &Sample) -> Option<u64> {
    let (cpu_millis, memory_bytes) = match &metric.container {
        None => (sample.cpu_millis, sample.memory_bytes),
        Some(name) => {
            let container = sample.containers.iter().find(|container| container.name == *name)?;
            (container.cpu_millis, container.memory_bytes)
        }
    };
    match metric.resource {
        MeasuredResource::Cpu => (sample.window_ms > 0).then_some(cpu_millis),
        MeasuredResource::Memory => Some(memory_bytes),
        MeasuredResource::Queried => None,
    }
}

/// What the pod, or the one container, requests; only per cent need it.
fn request(metric: &AutoscalerMetric, pod: &Pod) -> Result<u64, String> {
    let is_share = matches!(metric.target, bulkhead_types::MetricTarget::Utilization(_));
    let is_asked =
        |container: &&Container| metric.container.as_ref().is_none_or(|name| container.name == *name);
    let containers: Vec<&Container> = pod.spec.containers.iter().filter(is_asked).collect();
    if let (Some(name), []) = (&metric.container, containers.as_slice()) {
        return Err(format!("pod {} has no container {name:?}", pod.meta.name));
    }
    let mut sum = 0u64;
    for container in containers {
        let requests = container.requests.or(container.limits);
        let request = match metric.resource {
            MeasuredResource::Cpu => requests.cpu_millis,
            MeasuredResource::Memory => requests.memory_bytes,
            MeasuredResource::Queried => None,
        };
        match request {
            Some(request) => sum = sum.saturating_add(request),
            None if is_share => {
                let resource = metric.resource.as_str();
                return Err(format!(
                    "container {:?} of pod {} requests no {resource}: there is nothing to take per cent of",
                    container.name, pod.meta.name
                ));
            }
            None => {}
        }
    }
    Ok(sum)
}
