//! Jobs and CronJobs: what users do to them, and what their reconcilers may say of them.

use std::sync::Arc;

use bulkhead_schedule::{Schedule, ScheduleError, parse_time};
use bulkhead_types::{
    ANNOTATION_SCHEDULED_AT, CronJob, CronJobSpec, CronJobStatus, EventKind, FieldError, Job, JobStatus,
    Kind, MANAGER_LIFE, Name, Object, ObjectRef, OwnerRef, Rejection, RejectionCode,
};

use super::managers::manage;
use super::{Emit, not_allowed, not_found};
use crate::State;

pub(super) fn set_suspended(
    state: &State,
    reference: &ObjectRef,
    suspended: bool,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    let object = state.find_object(reference).ok_or_else(|| not_found(reference))?;
    let meta = object.meta().clone();
    match object {
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
    manage(state, reference.kind, &meta, MANAGER_LIFE, &["spec", "suspend"], emit);
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

/// What is wrong with a CronJob's schedule or zone, if anything is.
pub(super) fn schedule_error(spec: &CronJobSpec) -> Option<FieldError> {
    let error = Schedule::new(&spec.schedule, spec.time_zone.as_deref()).err()?;
    let path = match error {
        ScheduleError::Expression(_) => "spec.schedule",
        ScheduleError::TimeZone(_) => "spec.timeZone",
    };
    Some(FieldError { path: path.to_owned(), reason: error.to_string() })
}

/// The status of a CronJob once it has started a job for a time of its schedule; `None` for one that a user wants.
///
/// # Errors
/// When that time, or a later one, had its job.
pub(super) fn scheduled(cron_job: &CronJob, job: &Job) -> Result<Option<CronJobStatus>, Rejection> {
    let annotation = job.meta.annotations.get(ANNOTATION_SCHEDULED_AT);
    let Some(last_schedule_ms) = annotation.and_then(|text| parse_time(text)) else { return Ok(None) };
    if last_schedule_ms <= cron_job.status.last_schedule_ms {
        let field = Object::CronJob(Arc::new(cron_job.clone())).object_ref().to_string();
        return Err(Rejection::new(RejectionCode::Conflict, field, "the job of that time was started"));
    }
    Ok(Some(CronJobStatus { last_schedule_ms, ..cron_job.status.clone() }))
}

/// Whether a Job ended so long ago that it goes.
pub(crate) fn has_expired(job: &Job, now_ms: u64) -> bool {
    expires_at_ms(job).is_some_and(|at_ms| at_ms <= now_ms)
}

/// When a Job that ended goes, milliseconds since the epoch.
pub(crate) fn expires_at_ms(job: &Job) -> Option<u64> {
    let ended_at_ms = job.end()?.last_transition_ms;
    Some(ended_at_ms.saturating_add(job.spec.ttl_after_finished_ms?))
}

/// A status that a reconciler computed, with what only ends of pods may change as it is now. What follows from that
/// is kept as it is when the reconciler looked at other counts, or another spec: it looks again.
pub(super) fn with_present_counts(job: &Job, wanted: &JobStatus) -> JobStatus {
    let present = &job.status;
    let counts = |s: &JobStatus| (s.succeeded, s.failed, s.failures_in_row, s.last_failure_ms);
    let is_current = counts(present) == counts(wanted) && wanted.observed_generation == job.meta.generation;
    let (conditions, completed_at_ms) = match is_current && job.end().is_none() {
        true => (wanted.conditions.clone(), wanted.completed_at_ms),
        false => (present.conditions.clone(), present.completed_at_ms),
    };
    JobStatus {
        succeeded: present.succeeded,
        failed: present.failed,
        completed_indexes: present.completed_indexes.clone(),
        failed_indexes: present.failed_indexes.clone(),
        index_failures: present.index_failures.clone(),
        last_failure_ms: present.last_failure_ms,
        failures_in_row: present.failures_in_row,
        conditions,
        completed_at_ms,
        ..wanted.clone()
    }
}
