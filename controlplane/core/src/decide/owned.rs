//! What workloads own beside pods, and what is said of them.

use std::sync::Arc;

use bulkhead_types::{
    ControllerRevision, CronJobStatus, EventKind, Kind, Object, ObjectId, ObjectRef, ObjectStatus, OwnerRef,
    Rejection, RejectionCode,
};

use super::{Emit, check_items, not_allowed, not_found};
use crate::State;
use crate::workload;

/// The owner as a reconciler looked at it.
///
/// # Errors
/// When it is gone, ends (or its namespace does), or has another spec by now.
pub(super) fn find_owner(state: &State, owner: OwnerRef, generation: u64) -> Result<Object, Rejection> {
    let found = state.object(owner.kind, owner.id);
    let found = found.ok_or_else(|| not_found(format!("{} {}", owner.kind, owner.id)))?;
    let meta = found.meta();
    let namespace = meta.namespace.as_ref().and_then(|name| state.find(Kind::Namespace, None, name));
    let ends = namespace.and_then(|id| state.namespaces.get(id)).is_none_or(|ns| ns.meta.is_deleting());
    if ends || meta.is_deleting() {
        return Err(not_allowed(found.object_ref(), "is being deleted, or its namespace is"));
    }
    if meta.generation != generation {
        let field = found.object_ref().to_string();
        return Err(Rejection::new(RejectionCode::Conflict, field, "its spec changed meanwhile"));
    }
    Ok(found)
}

pub(super) fn create(
    state: &State,
    owner: OwnerRef,
    generation: u64,
    object: &Object,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    let found = find_owner(state, owner, generation)?;
    if let (Object::StatefulSet(set), Object::PersistentVolumeClaim(claim)) = (&found, object) {
        return super::claims::make_again(state, set, &claim.meta.name, emit);
    }
    let suits = matches!(
        (owner.kind, object.kind()),
        (Kind::StatefulSet | Kind::DaemonSet, Kind::ControllerRevision) | (Kind::CronJob, Kind::Job)
    );
    let reference = ObjectRef { namespace: found.meta().namespace.clone(), ..object.object_ref() };
    if !suits {
        return Err(not_allowed(&reference, format!("a {} owns none", owner.kind)));
    }
    if let Object::ControllerRevision(revision) = object {
        check_revision(state, &found, revision, &reference)?;
    }
    if state.find_object(&reference).is_some() {
        return Err(Rejection::new(RejectionCode::AlreadyExists, reference.to_string(), "the name is taken"));
    }
    let scheduled = match (&found, object) {
        (Object::CronJob(cron_job), Object::Job(job)) => super::jobs::scheduled(cron_job, job)?,
        _ => None,
    };
    let mut object = object.clone();
    let meta = object.meta_mut();
    meta.namespace = reference.namespace;
    meta.owner = Some(owner);
    meta.trace_context = found.meta().trace_context.clone();
    super::quota::check_room(state, &object)?;
    emit.create(object);
    if let Some(status) = scheduled {
        // In one step with the job: whatever becomes of that, its time never comes again.
        emit.push(EventKind::StatusChanged { id: owner.id, status: ObjectStatus::CronJob(status) });
    }
    Ok(())
}

/// A ControllerRevision holds its owner's present template, which no other of the owner does, and comes after all
/// others.
fn check_revision(
    state: &State,
    owner: &Object,
    revision: &ControllerRevision,
    reference: &ObjectRef,
) -> Result<(), Rejection> {
    let template = match owner {
        Object::StatefulSet(set) => &set.spec.template,
        Object::DaemonSet(set) => &set.spec.template,
        other => return Err(not_allowed(reference, format!("a {} owns none", other.kind()))),
    };
    let id = owner.meta().id;
    let siblings = state.owned(id, Kind::ControllerRevision);
    let mut siblings = siblings.filter_map(|id| state.controller_revisions.get(id));
    let is_last = siblings.all(|row| row.revision < revision.revision);
    let is_known = workload::wanted(state, id, template).is_some();
    if is_known || !is_last || *template != revision.template {
        let reason = "is not the next template of its owner";
        return Err(Rejection::new(RejectionCode::Conflict, reference.to_string(), reason));
    }
    Ok(())
}

pub(super) fn delete(
    state: &State,
    owner: OwnerRef,
    objects: &[(Kind, ObjectId)],
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    check_items("objects", objects.len())?;
    let mut seen = std::collections::BTreeSet::new();
    for (kind, id) in objects.iter().copied().filter(|key| seen.insert(*key)) {
        if kind == Kind::PersistentVolumeClaim {
            // Claims outlive their sets, so nobody owns them: their names say whose they are.
            let set = state.stateful_sets.get(owner.id);
            let claim = state.persistent_volume_claims.get(id);
            if let (Some(set), Some(claim)) = (set, claim) {
                super::claims::delete_surplus(state, set, claim, emit);
            }
            continue;
        }
        let owned = state.object(kind, id).filter(|object| object.meta().owner == Some(owner));
        let is_needed = match &owned {
            // Pods end by commands of their own: somebody runs them.
            Some(Object::Pod(_)) | None => true,
            Some(Object::ControllerRevision(row)) => workload::is_needed(state, owner.id, row),
            Some(_) => false,
        };
        if !is_needed {
            emit.push(EventKind::ObjectDeleted { kind, id });
        }
    }
    Ok(())
}

pub(super) fn set_status(
    state: &State,
    id: ObjectId,
    status: &ObjectStatus,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    let kind = status.kind();
    let found = state.object(kind, id).ok_or_else(|| not_found(format!("{kind} {id}")))?;
    let own = [
        Kind::HorizontalPodAutoscaler,
        Kind::CronHorizontalPodAutoscaler,
        Kind::VerticalPodAutoscaler,
        Kind::ElasticWorkload,
        Kind::NodeOperation,
        Kind::DeschedulerPolicy,
    ];
    if own.contains(&kind) {
        return Err(not_allowed(found.object_ref(), "its status changes with what it decides only"));
    }
    if matches!(kind, Kind::PersistentVolumeClaim | Kind::VolumeSnapshot) {
        return Err(not_allowed(
            found.object_ref(),
            "its status changes with its first pod and its node only",
        ));
    }
    let status = match (&found, status) {
        (Object::Job(job), ObjectStatus::Job(wanted)) => {
            ObjectStatus::Job(super::jobs::with_present_counts(job, wanted))
        }
        (Object::CronJob(cron_job), ObjectStatus::CronJob(wanted)) => {
            // Only the start of a job moves it.
            let last_schedule_ms = cron_job.status.last_schedule_ms;
            ObjectStatus::CronJob(CronJobStatus { last_schedule_ms, ..wanted.clone() })
        }
        _ => status.clone(),
    };
    if present_status(&found) != Some(status.clone()) {
        emit.push(EventKind::StatusChanged { id, status });
    }
    Ok(())
}

fn present_status(object: &Object) -> Option<ObjectStatus> {
    Some(match object {
        Object::StatefulSet(o) => ObjectStatus::StatefulSet(o.status.clone()),
        Object::DaemonSet(o) => ObjectStatus::DaemonSet(o.status.clone()),
        Object::Job(o) => ObjectStatus::Job(o.status.clone()),
        Object::CronJob(o) => ObjectStatus::CronJob(o.status.clone()),
        Object::PodDisruptionBudget(o) => ObjectStatus::PodDisruptionBudget(o.status.clone()),
        Object::ResourceQuota(o) => ObjectStatus::ResourceQuota(o.status.clone()),
        Object::Project(o) => ObjectStatus::Project(o.status.clone()),
        Object::Department(o) => ObjectStatus::Department(o.status.clone()),
        Object::PodGroup(o) => ObjectStatus::PodGroup(o.status.clone()),
        Object::Queue(o) => ObjectStatus::Queue(o.status.clone()),
        Object::NodePool(o) => ObjectStatus::NodePool(o.status.clone()),
        Object::ElasticQuotaTree(o) => ObjectStatus::ElasticQuotaTree(o.status.clone()),
        _ => return None,
    })
}

pub(super) fn set_controller_revision(
    state: &State,
    id: ObjectId,
    revision: u64,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    let found = state.controller_revisions.get(id);
    let found = found.ok_or_else(|| not_found(format!("ControllerRevision {id}")))?;
    let siblings =
        found.meta.owner.into_iter().flat_map(|owner| state.owned(owner.id, Kind::ControllerRevision));
    let siblings = siblings.filter(|sibling| *sibling != id);
    let highest = siblings.filter_map(|id| state.controller_revisions.get(id)).map(|row| row.revision).max();
    if highest.is_some_and(|highest| revision <= highest) || revision <= found.revision {
        let field = Object::ControllerRevision(Arc::clone(found)).object_ref().to_string();
        return Err(Rejection::new(RejectionCode::Conflict, field, "another template was wanted since"));
    }
    emit.push(EventKind::ControllerRevisionChanged { id, revision });
    Ok(())
}
