//! Autoscalers: who may be scaled by whom, and what an autoscaler decided.

use std::sync::Arc;

use bulkhead_types::{
    AutoscalerStatus, Command, EventKind, HorizontalPodAutoscaler, Kind, MANAGER_AUTOSCALER, Object,
    ObjectRef, ObjectStatus, Rejection, RejectionCode, ReplicaChange, ScaleTarget,
};

use super::managers::manage;
use super::objects::check_unowned;
use super::{Emit, not_allowed, not_found};
use crate::State;
use crate::autoscale::limits;
use crate::elastic::{self, source_of};

/// Refuses a second one of those who set the size of an object: the two would undo what the other does.
pub(super) fn check_alone(state: &State, object: &Object) -> Result<(), Rejection> {
    let namespace = object.meta().namespace.as_ref();
    let (target, field) = match object {
        Object::HorizontalPodAutoscaler(autoscaler) => {
            (autoscaler.spec.target.object_ref(namespace), "scaleTargetRef")
        }
        Object::CronHorizontalPodAutoscaler(scaler) => {
            (scaler.spec.target.object_ref(namespace), "scaleTargetRef")
        }
        Object::ElasticWorkload(workload) => (source_of(workload), "sourceTarget"),
        _ => return Ok(()),
    };
    let reference = object.object_ref();
    check_no_copy(state, &target)?;
    let by_use = state.autoscaler_of(&target).cloned().map(Object::HorizontalPodAutoscaler);
    let by_clock = state.cron_autoscaler_of(&target).cloned().map(Object::CronHorizontalPodAutoscaler);
    let by_units = state.elastic_workload_of(&target).cloned().map(Object::ElasticWorkload);
    let mut others = by_use.into_iter().chain(by_clock).chain(by_units).map(|other| other.object_ref());
    let Some(other) = others.find(|other| *other != reference) else { return Ok(()) };
    let remedy = match (object.kind(), other.kind) {
        (Kind::CronHorizontalPodAutoscaler, Kind::HorizontalPodAutoscaler) => {
            "make that the target: then its bounds move by the clock"
        }
        (Kind::HorizontalPodAutoscaler, Kind::CronHorizontalPodAutoscaler) => {
            "delete that first, and make this its target"
        }
        (_, Kind::ElasticWorkload) => "make that the target: then all its units follow",
        (Kind::ElasticWorkload, _) => "delete that first, and make this its target",
        _ => "change that one, or delete it first",
    };
    let reason = format!("{target} is scaled by {other} already: it has one at most");
    Err(not_allowed(format!("{reference}: spec.{field}"), reason).with_remedy(remedy))
}

/// Refuses somebody who would set the size of a Deployment that follows its owner.
fn check_no_copy(state: &State, target: &ObjectRef) -> Result<(), Rejection> {
    match state.find_object(target) {
        Some(object @ Object::Deployment(_)) => check_unowned(state, &object),
        _ => Ok(()),
    }
}

/// Refuses to set the size of what an autoscaler scales.
pub(super) fn check_manual(state: &State, target: &ObjectRef) -> Result<(), Rejection> {
    check_no_copy(state, target)?;
    if let Some(workload) = state.elastic_workload_of(target) {
        let reason = format!("is set by ElasticWorkload {}", workload.meta.name);
        return Err(not_allowed(format!("{target}: spec.replicas"), reason)
            .with_remedy("scale that, or delete it; a manifest of what it scales leaves replicas out"));
    }
    let Some(autoscaler) = state.autoscaler_of(target) else { return Ok(()) };
    let reason = format!("is set by HorizontalPodAutoscaler {}", autoscaler.meta.name);
    Err(not_allowed(format!("{target}: spec.replicas"), reason).with_remedy(
        "change minReplicas and maxReplicas of that, or delete it; a manifest of what it scales leaves replicas out",
    ))
}

fn target_of(autoscaler: &HorizontalPodAutoscaler) -> ObjectRef {
    autoscaler.spec.target.object_ref(autoscaler.meta.namespace.as_ref())
}

pub(super) fn autoscale(state: &State, command: &Command, emit: &mut Emit<'_>) -> Result<(), Rejection> {
    let Command::Autoscale { autoscaler, generation, from, to, status } = command else {
        unreachable!("dispatched by variant")
    };
    let id = *autoscaler;
    let found = state.horizontal_pod_autoscalers.get(id);
    let found = found.ok_or_else(|| not_found(format!("HorizontalPodAutoscaler {id}")))?;
    let reference = Object::HorizontalPodAutoscaler(Arc::clone(found)).object_ref();
    let conflict = |reason: &str| Rejection::new(RejectionCode::Conflict, reference.to_string(), reason);
    if found.meta.generation != *generation {
        return Err(conflict("its spec changed meanwhile"));
    }
    if status.decision != found.status.decision + 1 {
        return Err(conflict("another decision was taken meanwhile"));
    }
    let size = size(state, &found.spec.target, found.meta.namespace.as_ref());
    if size != *from {
        return Err(conflict("its workload has another size by now"));
    }
    let mut status = status.clone();
    if let Some(from) = size.filter(|from| from != to) {
        check_change(found, from, *to, emit.at_ms()).map_err(conflict)?;
        resize(state, &target_of(found), *to, emit)?;
        note_change(&mut status, emit.at_ms(), from, *to);
    }
    emit.push(EventKind::StatusChanged { id, status: ObjectStatus::HorizontalPodAutoscaler(status) });
    Ok(())
}

/// Whether an autoscaler may change the size like this now: within its bounds, no faster than its policies allow.
fn check_change(
    autoscaler: &HorizontalPodAutoscaler,
    from: u32,
    to: u32,
    now_ms: u64,
) -> Result<(), &'static str> {
    let spec = &autoscaler.spec;
    if from == 0 {
        return Err("its workload was stopped by hand");
    }
    let bounded = from.clamp(spec.min_replicas, spec.max_replicas);
    if bounded != from {
        return if to == bounded { Ok(()) } else { Err("the bounds come first") };
    }
    if to < spec.min_replicas || to > spec.max_replicas {
        return Err("the wanted size is outside of its bounds");
    }
    let limits = limits(spec, &autoscaler.status.changes, now_ms, from);
    let is_paced = (limits.lowest..=limits.highest).contains(&to);
    if is_paced { Ok(()) } else { Err("its policies do not allow such a change now") }
}

fn note_change(status: &mut AutoscalerStatus, at_ms: u64, from: u32, to: u32) {
    status.last_scale_ms = at_ms;
    status.changes.push(ReplicaChange { at_ms, from, to });
    let surplus = status.changes.len().saturating_sub(bulkhead_types::AUTOSCALER_HISTORY_MAX);
    status.changes.drain(..surplus);
}

/// The size that a workload shall have; `None` when there is no such workload.
pub(crate) fn size(
    state: &State,
    target: &ScaleTarget,
    namespace: Option<&bulkhead_types::Name>,
) -> Option<u32> {
    let id = state.find(target.kind, namespace, &target.name)?;
    match target.kind {
        // One that is stopped has no size, whatever its number says: that stays as it is.
        Kind::Deployment => state.deployments.get(id).map(|deployment| deployment.spec.wanted_replicas()),
        Kind::StatefulSet => state.stateful_sets.get(id).map(|set| set.spec.wanted_replicas()),
        Kind::ElasticWorkload => state.elastic_workloads.get(id).map(|one| elastic::size(state, one)),
        _ => None,
    }
}

/// Sets the size of a Deployment, StatefulSet or ElasticWorkload.
pub(super) fn resize(
    state: &State,
    target: &ObjectRef,
    replicas: u32,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    let object = state.find_object(target).ok_or_else(|| not_found(target))?;
    let meta = object.meta().clone();
    super::claims::check_size(state, &object, replicas)?;
    match object {
        Object::Deployment(deployment) => {
            let mut spec = deployment.spec.clone();
            spec.replicas = replicas;
            emit.push(EventKind::DeploymentSpecChanged { id: deployment.meta.id, spec });
        }
        Object::StatefulSet(mut set) => {
            Arc::make_mut(&mut set).spec.replicas = replicas;
            let object = Object::StatefulSet(set);
            super::objects::check_valid(state, &object)?;
            emit.push(EventKind::SpecChanged(object));
        }
        Object::ElasticWorkload(mut workload) => {
            let capacity = workload.spec.capacity().unwrap_or(u32::MAX);
            Arc::make_mut(&mut workload).spec.replicas = replicas.min(capacity);
            let object = Object::ElasticWorkload(workload);
            super::objects::check_valid(state, &object)?;
            emit.push(EventKind::SpecChanged(object));
        }
        other => return Err(not_allowed(other.object_ref(), "has no size that could be set")),
    }
    manage(state, target.kind, &meta, MANAGER_AUTOSCALER, &["spec", "replicas"], emit);
    Ok(())
}
