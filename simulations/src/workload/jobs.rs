//! Jobs and CronJobs among what clients ask for.

use std::sync::Arc;

use bulkhead_controlplane_core::State;
use bulkhead_types::{
    Command, CompletionMode, ConcurrencyPolicy, CronJob, CronJobSpec, CronJobStatus, ExitCodeOperator,
    ExitCodeRequirement, FEATURE_LEVEL_MAX, Job, JobSpec, JobStatus, JobTemplate, Kind, Object, ObjectMeta,
    ObjectRef, PodFailureAction, PodFailureRule, PodReplacementPolicy, PodTemplate, RestartPolicy, Shared,
    StringMap, WORKLOADS_LEVEL,
};
use smol_str::SmolStr;

use super::{NAMESPACES, labels, name, pod_spec};
use crate::rng::Rng;

/// Names of Jobs, and of CronJobs.
const NAMES: u64 = 3;
/// Failures before a job gives up: its waits must be over before a run is.
const BACKOFF_LIMIT_MAX: u64 = 3;

/// Something about Jobs or CronJobs.
pub(super) fn command(rng: &mut Rng, state: &State, count: u64) -> Command {
    if state.feature_level() < WORKLOADS_LEVEL {
        return Command::RaiseFeatureLevel { level: FEATURE_LEVEL_MAX };
    }
    let number = rng.range(1, NAMES);
    let namespace = name(NAMESPACES[usize::from(rng.chance(200))]);
    let reference =
        |kind, text: &str| ObjectRef { kind, namespace: Some(namespace.clone()), name: name(text) };
    let job = reference(Kind::Job, &format!("work-{number}"));
    let cron_job = reference(Kind::CronJob, &format!("every-{number}"));
    match rng.range(0, 99) {
        0..40 => Command::Create(Object::Job(Arc::new(new_job(rng, &job)))),
        40..50 => Command::Delete { object: job, grace_ms: None, force: false },
        50..60 => Command::SetSuspended { object: job, suspended: rng.chance(500) },
        60..68 => resized(rng, state, &job),
        68..84 => Command::Apply(Object::CronJob(Arc::new(new_cron_job(rng, &cron_job)))),
        84..88 => Command::Delete { object: cron_job, grace_ms: None, force: false },
        88..93 => Command::SetSuspended { object: cron_job, suspended: rng.chance(300) },
        _ => Command::RunCronJob { cron_job, name: name(&format!("run-{count}")) },
    }
}

/// A Job as it is, with another parallelism; a new one where there is none.
fn resized(rng: &mut Rng, state: &State, reference: &ObjectRef) -> Command {
    let Some(Object::Job(mut job)) = state.find_object(reference) else {
        return Command::Create(Object::Job(Arc::new(new_job(rng, reference))));
    };
    Arc::make_mut(&mut job).spec.parallelism = rng.range(1, 4) as u32;
    Command::Apply(Object::Job(job))
}

pub(crate) fn new_job(rng: &mut Rng, reference: &ObjectRef) -> Job {
    let meta = ObjectMeta::new(reference.namespace.clone(), reference.name.clone());
    Job { meta, spec: job_spec(rng), status: JobStatus::default() }
}

fn job_spec(rng: &mut Rng) -> JobSpec {
    let indexed = rng.chance(400);
    let completions = if indexed || rng.chance(700) { Some(rng.range(1, 6) as u32) } else { None };
    let per_index = (indexed && rng.chance(400)).then(|| rng.range(0, 1) as u32);
    let policy = *rng.pick(&[RestartPolicy::Never, RestartPolicy::Never, RestartPolicy::OnFailure]);
    let judged = policy == RestartPolicy::Never && rng.chance(300);
    let action = *rng.pick(&[PodFailureAction::FailJob, PodFailureAction::Ignore, PodFailureAction::Count]);
    let codes = ExitCodeRequirement { container_name: None, operator: ExitCodeOperator::In, values: vec![1] };
    let rule = PodFailureRule { action, on_exit_codes: Some(codes), on_pod_conditions: Vec::new() };
    let waits = judged || rng.chance(300);
    JobSpec {
        parallelism: rng.range(1, 3) as u32,
        completions,
        completion_mode: if indexed { CompletionMode::Indexed } else { CompletionMode::NonIndexed },
        backoff_limit: rng.range(0, BACKOFF_LIMIT_MAX) as u32,
        backoff_limit_per_index: per_index,
        max_failed_indexes: None,
        active_deadline_ms: *rng.pick(&[None, None, Some(5000), Some(60_000)]),
        ttl_after_finished_ms: *rng.pick(&[None, Some(0), Some(10_000)]),
        suspend: rng.chance(100),
        pod_replacement_policy: match waits {
            true => PodReplacementPolicy::Failed,
            false => PodReplacementPolicy::TerminatingOrFailed,
        },
        pod_failure_policy: if judged { vec![rule] } else { Vec::new() },
        success_policy: Vec::new(),
        template: PodTemplate {
            labels: labels("app", "work"),
            annotations: StringMap::new(),
            spec: Shared::new(pod_spec(rng, policy, "work:1")),
        },
    }
}

fn new_cron_job(rng: &mut Rng, reference: &ObjectRef) -> CronJob {
    let spec = CronJobSpec {
        schedule: SmolStr::new(*rng.pick(&["*/5 * * * * *", "*/20 * * * * *", "* * * * *"])),
        time_zone: rng.pick(&[None, Some("Europe/Berlin")]).map(SmolStr::new_static),
        concurrency_policy: *rng.pick(&[
            ConcurrencyPolicy::Allow,
            ConcurrencyPolicy::Forbid,
            ConcurrencyPolicy::Replace,
        ]),
        starting_deadline_ms: *rng.pick(&[None, Some(10_000)]),
        suspend: false,
        successful_jobs_history_limit: rng.range(0, 2) as u32,
        failed_jobs_history_limit: rng.range(0, 1) as u32,
        job_template: JobTemplate {
            labels: StringMap::new(),
            annotations: StringMap::new(),
            spec: job_spec(rng),
        },
    };
    let meta = ObjectMeta::new(reference.namespace.clone(), reference.name.clone());
    CronJob { meta, spec, status: CronJobStatus::default() }
}

#[cfg(test)]
mod tests {
    use bulkhead_types::validate;

    use super::*;

    #[test]
    fn everything_that_is_asked_for_is_valid() {
        let rng = &mut Rng::child(1, "test", 0);
        let reference = |kind| ObjectRef { kind, namespace: Some(name("default")), name: name("work-1") };
        for _ in 0..500 {
            let job = Object::Job(Arc::new(new_job(rng, &reference(Kind::Job))));
            let cron_job = Object::CronJob(Arc::new(new_cron_job(rng, &reference(Kind::CronJob))));
            assert_eq!(
                (validate(&job), validate(&cron_job)),
                (Vec::new(), Vec::new()),
                "{job:?} {cron_job:?}"
            );
        }
    }
}
