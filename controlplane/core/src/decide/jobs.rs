//! Jobs and CronJobs: what users do to them, and how ends of pods are counted.

use std::sync::Arc;

use bulkhead_types::{
    EventKind, Job, JobStatus, Kind, Name, Object, ObjectRef, OwnerRef, Rejection, RejectionCode,
};

use super::{Emit, not_allowed, not_found};
use crate::State;

pub(super) fn set_suspended(
    state: &State,
    reference: &ObjectRef,
    suspended: bool,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    match state.find_object(reference).ok_or_else(|| not_found(reference))? {
        Object::Job(mut job) => {
            if job.end().is_some() {
                return Err(not_allowed(reference, "has ended: there is nothing left to hold back"));
            }
            if job.spec.suspend != suspended {
                Arc::make_mut(&mut job).spec.suspend = suspended;
                emit.push(EventKind::SpecChanged(Object::Job(job)));
            }
        }
        Object::CronJob(mut job) => {
            if job.spec.suspend != suspended {
                Arc::make_mut(&mut job).spec.suspend = suspended;
                emit.push(EventKind::SpecChanged(Object::CronJob(job)));
            }
        }
        other => {
            let field = other.object_ref().to_string();
            let reason = "cannot be suspended: only Jobs and CronJobs can";
            return Err(Rejection::new(RejectionCode::Invalid, field, reason));
        }
    }
    Ok(())
}

pub(super) fn run_now(
    state: &State,
    reference: &ObjectRef,
    name: &Name,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    let Some(Object::CronJob(cron_job)) = state.find_object(reference) else {
        return Err(not_found(reference));
    };
    let job = crate::owned_pod::manual_job(&cron_job, name.clone());
    let owner = OwnerRef { kind: Kind::CronJob, id: cron_job.meta.id };
    super::owned::create(state, owner, cron_job.meta.generation, &Object::Job(Arc::new(job)), emit)
}

/// A status that a reconciler computed, with what only ends of pods may change as it is now.
pub(super) fn with_present_counts(job: &Job, wanted: &JobStatus) -> JobStatus {
    let present = &job.status;
    JobStatus {
        succeeded: present.succeeded,
        failed: present.failed,
        completed_indexes: present.completed_indexes.clone(),
        failed_indexes: present.failed_indexes.clone(),
        index_failures: present.index_failures.clone(),
        last_failure_ms: present.last_failure_ms,
        ..wanted.clone()
    }
}
