//! VerticalPodAutoscalers: beside whom they may be, what they recommend, and whom they evict.

use std::sync::Arc;

use bulkhead_types::{
    CHECKPOINT_WEIGHT_MAX, CONTAINERS_MAX, ContainerCheckpoint, ContainerRecommendation, EventKind,
    HISTOGRAM_BUCKETS_MAX, HistogramCheckpoint, HorizontalPodAutoscaler, MeasuredResource, Object, ObjectId,
    ObjectRef, ObjectStatus, Pod, RECOMMENDED_RESOURCES, Rejection, RejectionCode, UpdateMode,
    VerticalAutoscalerStatus, VerticalPodAutoscaler,
};

use super::{Emit, not_allowed, not_found};
use crate::State;
use crate::elastic::source_of;
use crate::vertical::check_eviction;

/// Refuses a second one for a workload, and one that changes what a HorizontalPodAutoscaler measures by, whichever of the
/// two comes second: the size would follow the requests, and those the size.
pub(super) fn check_alone(state: &State, object: &Object) -> Result<(), Rejection> {
    let namespace = object.meta().namespace.as_ref();
    match object {
        Object::VerticalPodAutoscaler(vertical) => {
            let target = vertical.spec.target.object_ref(namespace);
            let (reference, field) = (object.object_ref(), "spec.targetRef");
            let other = state.vertical_autoscaler_of(&target).cloned().map(Object::VerticalPodAutoscaler);
            if let Some(other) = other.map(|other| other.object_ref()).filter(|other| *other != reference) {
                let reason = format!("{target} has {other} already: it has one at most");
                return Err(not_allowed(format!("{reference}: {field}"), reason)
                    .with_remedy("change that one, or delete it first"));
            }
            match autoscaler_of(state, &target).and_then(|other| disputed(vertical, other).zip(Some(other))) {
                Some((resource, other)) => {
                    let other = Object::HorizontalPodAutoscaler(Arc::clone(other)).object_ref();
                    Err(conflict(format!("{reference}: {field}"), resource, &other.to_string()))
                }
                None => Ok(()),
            }
        }
        Object::HorizontalPodAutoscaler(scaler) => {
            let target = match state.find_object(&scaler.spec.target.object_ref(namespace)) {
                Some(Object::ElasticWorkload(workload)) => source_of(&workload),
                _ => scaler.spec.target.object_ref(namespace),
            };
            let vertical = state.vertical_autoscaler_of(&target);
            match vertical.and_then(|other| disputed(other, scaler).zip(Some(other))) {
                Some((resource, other)) => {
                    let other = Object::VerticalPodAutoscaler(Arc::clone(other)).object_ref();
                    let field = format!("{}: spec.metrics", object.object_ref());
                    Err(conflict(field, resource, &other.to_string()))
                }
                None => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// Who sets the size of a workload by what its pods use, be it through the ElasticWorkload that it is the source of.
fn autoscaler_of<'a>(state: &'a State, target: &ObjectRef) -> Option<&'a Arc<HorizontalPodAutoscaler>> {
    let through = || {
        let workload = Object::ElasticWorkload(Arc::clone(state.elastic_workload_of(target)?));
        state.autoscaler_of(&workload.object_ref())
    };
    state.autoscaler_of(target).or_else(through)
}

fn conflict(field: String, resource: MeasuredResource, other: &str) -> Rejection {
    let resource = resource.as_str();
    not_allowed(field, format!("{other} works by {resource} of the same containers: one of the two may"))
        .with_remedy(format!(
            "let one of them leave {resource} alone (controlledResources, metrics), or set updateMode Off"
        ))
}

/// The resource that both work by, if there is one.
fn disputed(vertical: &VerticalPodAutoscaler, scaler: &HorizontalPodAutoscaler) -> Option<MeasuredResource> {
    if vertical.spec.update_mode == UpdateMode::Off {
        return None;
    }
    let measured =
        scaler.spec.metrics.iter().filter(|metric| RECOMMENDED_RESOURCES.contains(&metric.resource));
    let mut disputed = measured.filter(|metric| match &metric.container {
        Some(container) => vertical.spec.controls(container, metric.resource),
        None => vertical.spec.controls_any(metric.resource),
    });
    disputed.next().map(|metric| metric.resource)
}

/// A recommendation, if it follows the last one.
pub(super) fn recommend(
    state: &State,
    id: ObjectId,
    generation: u64,
    status: &VerticalAutoscalerStatus,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    let found = state.vertical_pod_autoscalers.get(id);
    let found = found.ok_or_else(|| not_found(format!("VerticalPodAutoscaler {id}")))?;
    let reference = Object::VerticalPodAutoscaler(Arc::clone(found)).object_ref().to_string();
    let conflict = |reason: &str| Rejection::new(RejectionCode::Conflict, reference.clone(), reason);
    if found.meta.generation != generation {
        return Err(conflict("its spec changed meanwhile"));
    }
    if status.decision != found.status.decision + 1 {
        return Err(conflict("another decision was taken meanwhile"));
    }
    if let Some(reason) = defect(status) {
        return Err(Rejection::new(RejectionCode::Invalid, format!("{reference}: status"), reason));
    }
    // An eviction may have come in between.
    let VerticalAutoscalerStatus { last_eviction_ms, evictions, .. } = found.status;
    let status = VerticalAutoscalerStatus { last_eviction_ms, evictions, ..status.clone() };
    emit.push(EventKind::StatusChanged { id, status: ObjectStatus::VerticalPodAutoscaler(status) });
    Ok(())
}

/// What no recommender says.
fn defect(status: &VerticalAutoscalerStatus) -> Option<&'static str> {
    let is_ordered = |one: &ContainerRecommendation| {
        let estimates = RECOMMENDED_RESOURCES.into_iter().filter_map(|resource| one.estimate(resource));
        estimates.into_iter().all(|one| one.lower <= one.target && one.target <= one.upper)
    };
    let is_small = |one: &HistogramCheckpoint| {
        let end = usize::try_from(one.first_bucket).unwrap_or(usize::MAX).saturating_add(one.weights.len());
        end <= HISTOGRAM_BUCKETS_MAX && one.weights.iter().all(|weight| *weight <= CHECKPOINT_WEIGHT_MAX)
    };
    let (containers, checkpoint) = (&status.containers, &status.checkpoint);
    if containers.len() > CONTAINERS_MAX || checkpoint.len() > CONTAINERS_MAX {
        return Some("has too many containers");
    }
    if !containers.is_sorted_by(|a, b| a.container < b.container)
        || !checkpoint.is_sorted_by(|a, b| a.container < b.container)
    {
        return Some("must name each container once, in order");
    }
    if !containers.iter().all(is_ordered) {
        return Some("must have lower <= target <= upper");
    }
    let fits = |one: &ContainerCheckpoint| is_small(&one.cpu) && is_small(&one.memory);
    (!checkpoint.iter().all(fits)).then_some("has a checkpoint out of bounds")
}

/// What an eviction for a VerticalPodAutoscaler makes of that.
///
/// # Errors
/// When it may not evict this pod now.
pub(super) fn note_eviction(
    state: &State,
    id: ObjectId,
    pod: &Pod,
    at_ms: u64,
) -> Result<EventKind, Rejection> {
    let found = state.vertical_pod_autoscalers.get(id);
    let found = found.ok_or_else(|| not_found(format!("VerticalPodAutoscaler {id}")))?;
    let reference = Object::Pod(Arc::new(pod.clone())).object_ref();
    check_eviction(state, found, pod, at_ms).map_err(|reason| not_allowed(reference, reason))?;
    // Without the checkpoint: it stays as it is.
    let status = VerticalAutoscalerStatus {
        last_eviction_ms: at_ms,
        evictions: found.status.evictions + 1,
        checkpoint: Vec::new(),
        ..found.status.clone()
    };
    Ok(EventKind::StatusChanged { id, status: ObjectStatus::VerticalPodAutoscaler(status) })
}
