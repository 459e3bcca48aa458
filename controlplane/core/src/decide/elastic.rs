//! ElasticWorkloads: what one may be beside others, and how its replicas spread.

use std::sync::Arc;

use bulkhead_types::{
    EventKind, HorizontalPodAutoscaler, Kind, MANAGER_AUTOSCALER, Object, ObjectId, ObjectRef, ObjectStatus,
    Rejection, RejectionCode,
};

use super::managers::manage;
use super::{Emit, not_allowed, not_found};
use crate::State;
use crate::elastic::{Step, first_problem, plan, source_of};

/// Refuses units that could not be made from the source, and an autoscaler that wants more than all units hold.
pub(super) fn check(state: &State, object: &Object) -> Result<(), Rejection> {
    match object {
        Object::ElasticWorkload(workload) => {
            // As it would be: what is there already is its own.
            let mut wanted = workload.as_ref().clone();
            if let Some(present) = state.find_object(&object.object_ref()) {
                wanted.meta.id = present.meta().id;
            }
            if let Some((_, reason)) = first_problem(state, &wanted) {
                let field = format!("{}: spec.elasticUnit", object.object_ref());
                return Err(Rejection::new(RejectionCode::Invalid, field, reason));
            }
            let Some(autoscaler) = state.autoscaler_of(&object.object_ref()) else { return Ok(()) };
            check_room(&object.object_ref(), workload.spec.capacity(), autoscaler)
        }
        Object::HorizontalPodAutoscaler(autoscaler)
            if autoscaler.spec.target.kind == Kind::ElasticWorkload =>
        {
            let target = autoscaler.spec.target.object_ref(autoscaler.meta.namespace.as_ref());
            match state.find_object(&target) {
                Some(Object::ElasticWorkload(workload)) => {
                    check_room(&target, workload.spec.capacity(), autoscaler)
                }
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

fn check_room(
    workload: &ObjectRef,
    capacity: Option<u32>,
    autoscaler: &HorizontalPodAutoscaler,
) -> Result<(), Rejection> {
    let max = autoscaler.spec.max_replicas;
    let Some(capacity) = capacity.filter(|capacity| *capacity < max) else { return Ok(()) };
    let field = format!("HorizontalPodAutoscaler {}: spec.maxReplicas", autoscaler.meta.name);
    let reason = format!("is {max}, and the source and units of {workload} hold {capacity} together");
    Err(not_allowed(field, reason).with_remedy("lower it, or give a unit a higher max, or none"))
}

/// Does what [`plan`] says now.
pub(super) fn spread(
    state: &State,
    id: ObjectId,
    generation: u64,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    let found = state.elastic_workloads.get(id);
    let found = found.ok_or_else(|| not_found(format!("ElasticWorkload {id}")))?;
    let reference = Object::ElasticWorkload(Arc::clone(found)).object_ref();
    let conflict = |reason: &str| Rejection::new(RejectionCode::Conflict, reference.to_string(), reason);
    if found.meta.generation != generation {
        return Err(conflict("its spec changed meanwhile"));
    }
    let steps = plan(state, found, emit.at_ms());
    if steps.is_empty() {
        return Err(conflict("all is as it wants it"));
    }
    for step in steps {
        take(state, &source_of(found), id, step, emit);
    }
    Ok(())
}

fn take(state: &State, source: &ObjectRef, id: ObjectId, step: Step, emit: &mut Emit<'_>) {
    match step {
        Step::ResizeSource(replicas) => {
            let Some(Object::Deployment(deployment)) = state.find_object(source) else { return };
            let mut spec = deployment.spec.clone();
            spec.replicas = replicas;
            emit.push(EventKind::DeploymentSpecChanged { id: deployment.meta.id, spec });
            let path = ["spec", "replicas"];
            manage(state, Kind::Deployment, &deployment.meta, MANAGER_AUTOSCALER, &path, emit);
        }
        Step::Create(deployment) => emit.create(Object::Deployment(deployment)),
        Step::ChangeSpec(unit, spec) => emit.push(EventKind::DeploymentSpecChanged { id: unit, spec }),
        Step::ChangeLabels(unit, labels) => emit.push(EventKind::MetaChanged {
            kind: Kind::Deployment,
            id: unit.meta.id,
            labels,
            annotations: unit.meta.annotations.clone(),
        }),
        Step::Delete(unit) => emit.push(EventKind::ObjectDeleted { kind: Kind::Deployment, id: unit }),
        Step::SetStatus(status) => {
            emit.push(EventKind::StatusChanged { id, status: ObjectStatus::ElasticWorkload(status) });
        }
    }
}
