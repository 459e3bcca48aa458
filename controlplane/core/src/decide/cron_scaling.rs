//! Sizes by the clock: what a run does to its target, decided by what is true when it is applied.
//!
//! An autoscaler is never fought: a run moves its bounds, so that it keeps at least the larger of the wanted and the
//! present size, and sets the size itself.

use std::sync::Arc;

use bulkhead_schedule::{Schedule, ScheduleError, day_schedule};
use bulkhead_types::{
    CronAutoscalerSpec, CronAutoscalerStatus, CronHorizontalPodAutoscaler, CronScaleJob, CronScaleOutcome,
    CronScaleRun, EventKind, FieldError, HorizontalPodAutoscaler, Kind, Name, Object, ObjectId, ObjectStatus,
    Rejection, RejectionCode,
};
use smol_str::SmolStr;

use super::autoscaling::{resize, size};
use super::{Emit, not_found};
use crate::State;

pub(super) fn run(
    state: &State,
    (id, generation): (ObjectId, u64),
    job: &SmolStr,
    scheduled_ms: u64,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    let found = state.cron_horizontal_pod_autoscalers.get(id);
    let found = found.ok_or_else(|| not_found(format!("CronHorizontalPodAutoscaler {id}")))?;
    let reference = Object::CronHorizontalPodAutoscaler(Arc::clone(found)).object_ref();
    let conflict = |reason: &str| Rejection::new(RejectionCode::Conflict, reference.to_string(), reason);
    if found.meta.generation != generation {
        return Err(conflict("its spec changed meanwhile"));
    }
    let job = found.spec.jobs.iter().find(|one| one.name == *job);
    let job = job.ok_or_else(|| conflict("it has no such job any more"))?;
    if last_run(&found.status, &job.name).is_some_and(|run| scheduled_ms <= run.scheduled_ms) {
        return Err(conflict("the run of that time was done"));
    }
    let (outcome, message) = match is_excluded(&found.spec, scheduled_ms) {
        true => (CronScaleOutcome::Excluded, "the day is excluded".to_owned()),
        false => match scale(state, found, job, emit) {
            Ok(message) => (CronScaleOutcome::Succeeded, message),
            Err(reason) => (CronScaleOutcome::Failed, reason),
        },
    };
    let run = CronScaleRun { job: job.name.clone(), scheduled_ms, ran_at_ms: emit.at_ms(), outcome, message };
    let status = ObjectStatus::CronHorizontalPodAutoscaler(with_run(found, run));
    emit.push(EventKind::StatusChanged { id, status });
    Ok(())
}

/// The last run of a job.
pub(crate) fn last_run<'a>(status: &'a CronAutoscalerStatus, job: &str) -> Option<&'a CronScaleRun> {
    status.runs.iter().find(|run| run.job == job)
}

/// The status with a run, in the order of the spec's jobs; runs of jobs that are gone go.
fn with_run(found: &CronHorizontalPodAutoscaler, run: CronScaleRun) -> CronAutoscalerStatus {
    let of_job = |job: &CronScaleJob| match job.name == run.job {
        true => Some(run.clone()),
        false => last_run(&found.status, &job.name).cloned(),
    };
    CronAutoscalerStatus { runs: found.spec.jobs.iter().filter_map(of_job).collect() }
}

/// Whether a time is on an excluded day.
fn is_excluded(spec: &CronAutoscalerSpec, at_ms: u64) -> bool {
    // What is in State was checked, but by a build that may have known other zones.
    let days =
        spec.exclude_dates.iter().filter_map(|date| day_schedule(date, spec.time_zone.as_deref()).ok());
    let second_ms = at_ms - at_ms % 1000;
    days.into_iter().any(|day| day.next_after(second_ms.saturating_sub(1000)) == Some(second_ms))
}

/// What changes, for people, or why nothing can.
fn scale(
    state: &State,
    scaler: &CronHorizontalPodAutoscaler,
    job: &CronScaleJob,
    emit: &mut Emit<'_>,
) -> Result<String, String> {
    let namespace = scaler.meta.namespace.as_ref();
    let target = scaler.spec.target.object_ref(namespace);
    if target.kind == Kind::HorizontalPodAutoscaler {
        let Some(Object::HorizontalPodAutoscaler(autoscaler)) = state.find_object(&target) else {
            return Err(format!("{target} does not exist"));
        };
        return move_bounds(state, autoscaler, namespace, job.target_size, emit);
    }
    if let Some(autoscaler) = state.autoscaler_of(&target) {
        let name = &autoscaler.meta.name;
        return Err(format!("{target} is scaled by HorizontalPodAutoscaler {name}: make that the target"));
    }
    let from =
        size(state, &scaler.spec.target, namespace).ok_or_else(|| format!("{target} does not exist"))?;
    let to = job.target_size;
    if from != to {
        resize(state, &target, to, emit).map_err(|rejection| rejection.to_string())?;
    }
    Ok(format!("replicas {from} to {to}"))
}

fn move_bounds(
    state: &State,
    mut autoscaler: Arc<HorizontalPodAutoscaler>,
    namespace: Option<&Name>,
    wanted: u32,
    emit: &mut Emit<'_>,
) -> Result<String, String> {
    let present = size(state, &autoscaler.spec.target, namespace).unwrap_or(0);
    let before = (autoscaler.spec.min_replicas, autoscaler.spec.max_replicas);
    let after = bounds(before, wanted, present);
    if after != before {
        let target = autoscaler.spec.target.object_ref(namespace);
        if let Some(object) = state.find_object(&target) {
            super::claims::check_size(state, &object, after.1).map_err(|rejection| rejection.to_string())?;
        }
        let spec = &mut Arc::make_mut(&mut autoscaler).spec;
        (spec.min_replicas, spec.max_replicas) = after;
        emit.push(EventKind::SpecChanged(Object::HorizontalPodAutoscaler(autoscaler)));
    }
    Ok(format!("bounds {}/{} to {}/{}", before.0, before.1, after.0, after.1))
}

/// The bounds of an autoscaler when a size is wanted: it reaches that size, and is not kept from a larger one that it
/// has.
fn bounds((min, max): (u32, u32), wanted: u32, present: u32) -> (u32, u32) {
    let lower = if wanted < min || wanted > present { wanted } else { min };
    (lower, max.max(wanted))
}

/// What is wrong with schedules, dates or zone.
pub(super) fn schedule_errors(spec: &CronAutoscalerSpec) -> Vec<FieldError> {
    let zone = spec.time_zone.as_deref();
    let error = |path: String, reason: String| FieldError { path, reason };
    if let Err(ScheduleError::TimeZone(reason)) = Schedule::new("* * * * *", zone) {
        return vec![error("spec.timeZone".to_owned(), reason)];
    }
    let of_job = |(index, job): (usize, &CronScaleJob)| {
        let reason = match Schedule::new(&job.schedule, zone) {
            Ok(schedule) if schedule.has_seconds() => return None,
            Ok(_) => "needs six fields: second, minute, hour, day of month, month, day of week".to_owned(),
            Err(reason) => reason.to_string(),
        };
        Some(error(format!("spec.jobs[{index}].schedule"), reason))
    };
    let of_date = |(index, date): (usize, &SmolStr)| {
        let reason = day_schedule(date, zone).err()?.to_string();
        Some(error(format!("spec.excludeDates[{index}]"), reason))
    };
    let dates = spec.exclude_dates.iter().enumerate().filter_map(of_date);
    spec.jobs.iter().enumerate().filter_map(of_job).chain(dates).collect()
}

#[cfg(test)]
mod tests {
    use super::bounds;

    /// Bounds, wanted, present; then the bounds, and the size that the autoscaler has at least.
    #[track_caller]
    fn check(before: (u32, u32), wanted: u32, present: u32, after: (u32, u32), size: u32) {
        assert_eq!(bounds(before, wanted, present), after);
        assert_eq!(present.clamp(after.0, after.1), size);
    }

    #[test]
    fn bounds_follow_the_table() {
        check((1, 10), 5, 5, (1, 10), 5);
        check((1, 10), 4, 5, (1, 10), 5);
        check((1, 10), 6, 5, (6, 10), 6);
        check((5, 10), 4, 5, (4, 10), 5);
        check((5, 10), 11, 5, (11, 11), 11);
    }
}
