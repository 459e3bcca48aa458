//! CronJobs: a job for each time of the schedule, and no more old ones than are wanted.
//!
//! Source: "CronJob" in the Kubernetes documentation. Starting a job and noting its time are one command
//! (`decide/jobs.rs`): whoever leads, and whatever becomes of the job, no time is started twice.

use std::sync::Arc;

use bulkhead_schedule::{Schedule, format_time};
use bulkhead_types::{
    CRON_JOB_MISSED_SCHEDULE, Command, ConcurrencyPolicy, ConditionStatus, CronJob, CronJobStatus, Job, Kind,
    MISSED_RUNS_MAX, Object, ObjectId, ObjectStatus, OwnerRef, Rejection,
};

use super::blocked::{self, Blocked};
use super::job::stays;
use super::{Queue, Reconciler, View, names, work_off};
use crate::conditions::set_condition;
use crate::owned_pod::scheduled_job;
use crate::quota::count_refusal;
use crate::{Change, ChangeType, State};

/// Jobs removed by one run for one CronJob, at most.
const JOBS_PER_COMMAND: usize = 500;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct CronJobs {
    queue: Queue,
    blocked: Blocked,
}

impl Reconciler for CronJobs {
    fn name(&self) -> &'static str {
        "cron-job"
    }

    fn reset(&mut self, state: &State) {
        *self = Self::default();
        state.cron_jobs().iter().for_each(|cron_job| self.queue.mark(cron_job.meta.id));
    }

    fn observe(&mut self, change: &Change) {
        self.blocked.observe(change);
        match (&change.object, &change.former) {
            (Object::CronJob(cron_job), _) if change.change_type == ChangeType::Deleted => {
                self.queue.forget(cron_job.meta.id);
            }
            (Object::CronJob(cron_job), _) => self.queue.mark(cron_job.meta.id),
            (Object::Job(job), former) => {
                let Some(owner) = job.meta.owner.filter(|owner| owner.kind == Kind::CronJob) else { return };
                let passed_over = match former {
                    Some(Object::Job(former)) if change.change_type == ChangeType::Modified => {
                        former.end().is_some() == job.end().is_some()
                    }
                    _ => false,
                };
                if !passed_over {
                    self.queue.mark(owner.id);
                }
            }
            _ => {}
        }
    }

    fn reconcile(&mut self, view: &View<'_>) -> Vec<Command> {
        self.queue.begin(view.now_ms);
        self.blocked.wake(&mut self.queue, view);
        work_off(
            self,
            |this| &mut this.queue,
            |this, id, commands| {
                let cron_job = view.state.cron_jobs().get(id).filter(|c| stays(view.state, &c.meta));
                let Some(cron_job) = cron_job else { return };
                let (wake_at_ms, waits) = Pass::new(view, cron_job).run(commands);
                let place = (id, cron_job.meta.namespace.as_ref());
                this.blocked.set(&mut this.queue, view, place, waits);
                if let Some(at_ms) = wake_at_ms {
                    this.queue.wake_at(id, at_ms);
                }
            },
        )
    }

    fn next_wake_ms(&self) -> Option<u64> {
        if self.blocked.has_news() { Some(0) } else { self.queue.next_wake_ms() }
    }
}

/// One look at one CronJob.
struct Pass<'a> {
    view: &'a View<'a>,
    cron_job: &'a Arc<CronJob>,
    /// Its jobs that have not ended, in id order.
    active: Vec<Arc<Job>>,
    ended: Vec<Arc<Job>>,
    status: CronJobStatus,
    /// Why its next job does not fit, if it does not.
    refusal: Option<Rejection>,
}

impl<'a> Pass<'a> {
    fn new(view: &'a View<'a>, cron_job: &'a Arc<CronJob>) -> Self {
        let owned = view.state.owned(cron_job.meta.id, Kind::Job);
        let jobs = owned.filter_map(|id| view.state.jobs().get(id).cloned());
        let (ended, active): (Vec<_>, Vec<_>) = jobs.partition(|job| job.end().is_some());
        let last_success_ms = ended.iter().map(|job| job.status.completed_at_ms).max().unwrap_or(0);
        let status = CronJobStatus {
            last_successful_ms: cron_job.status.last_successful_ms.max(last_success_ms),
            active: active.iter().map(|job| job.meta.id).collect(),
            ..cron_job.status.clone()
        };
        Self { view, cron_job, active, ended, status, refusal: None }
    }

    /// Says what is to be done; returns when to look again, and whether it waits for room in a quota.
    fn run(mut self, commands: &mut Vec<Command>) -> (Option<u64>, bool) {
        self.clean_up(commands);
        let spec = &self.cron_job.spec;
        // What is in State was checked, but by a build that may have known other zones.
        let schedule = Schedule::new(&spec.schedule, spec.time_zone.as_deref()).ok();
        let schedule = schedule.filter(|_| !spec.suspend);
        if let Some(schedule) = &schedule {
            self.start_if_due(schedule, commands);
        }
        match &self.refusal {
            Some(refusal) => blocked::tell(&mut self.status.conditions, refusal, self.view.now_ms),
            None => blocked::untell(&mut self.status.conditions),
        }
        if self.status != self.cron_job.status {
            let status = ObjectStatus::CronJob(self.status);
            commands.push(Command::SetStatus { id: self.cron_job.meta.id, status });
        }
        (schedule.and_then(|schedule| schedule.next_after(self.view.now_ms)), self.refusal.is_some())
    }

    /// Starts the job of the last time that has come and has none, unless it is too late for it.
    fn start_if_due(&mut self, schedule: &Schedule, commands: &mut Vec<Command>) {
        let (meta, spec, now_ms) = (&self.cron_job.meta, &self.cron_job.spec, self.view.now_ms);
        let since_ms = self.cron_job.status.last_schedule_ms.max(meta.created_at_ms);
        let deadline_ms = spec.starting_deadline_ms.map_or(0, |ms| now_ms.saturating_sub(ms));
        // A run exactly as late as allowed still starts.
        let since_ms = since_ms.max(deadline_ms.saturating_sub(1));
        let Some(run_ms) = schedule.last_between(since_ms, now_ms) else { return };
        let owner = OwnerRef { kind: Kind::CronJob, id: meta.id };
        let name = names::cron_job_run_name(&meta.name, run_ms, schedule.has_seconds());
        if !self.active.is_empty() {
            match spec.concurrency_policy {
                ConcurrencyPolicy::Allow => {}
                // Looked at again when the last one has ended.
                ConcurrencyPolicy::Forbid => return,
                ConcurrencyPolicy::Replace => {
                    let objects = self.active.iter().map(|job| (Kind::Job, job.meta.id));
                    let objects = objects.take(JOBS_PER_COMMAND).collect();
                    commands.push(Command::DeleteOwned { owner, objects });
                }
            }
        }
        self.refusal = count_refusal(self.view.state, Kind::Job, meta.namespace.as_ref(), &name);
        if self.refusal.is_some() {
            return;
        }
        let object = Object::Job(Arc::new(scheduled_job(self.cron_job, name, run_ms)));
        commands.push(Command::CreateOwned { owner, generation: meta.generation, object });
        if schedule.has_more_than(MISSED_RUNS_MAX, since_ms, now_ms) {
            let message = format!(
                "more than {MISSED_RUNS_MAX} runs were missed since {}: only that of {} was started",
                format_time(since_ms),
                format_time(run_ms)
            );
            let condition = (CRON_JOB_MISSED_SCHEDULE, ConditionStatus::True);
            set_condition(&mut self.status.conditions, now_ms, condition, "TooManyMissedTimes", &message);
        }
    }

    /// Removes the oldest of too many jobs that ended.
    fn clean_up(&self, commands: &mut Vec<Command>) {
        let spec = &self.cron_job.spec;
        let beyond = |success: bool, limit: u32| {
            let alike = |job: &&Arc<Job>| (job.status.completed_at_ms > 0) == success;
            let jobs: Vec<ObjectId> = self.ended.iter().filter(alike).map(|job| job.meta.id).collect();
            let excess = jobs.len().saturating_sub(limit as usize);
            jobs.into_iter().take(excess)
        };
        let successful = beyond(true, spec.successful_jobs_history_limit);
        let failed = beyond(false, spec.failed_jobs_history_limit);
        let objects: Vec<_> =
            successful.chain(failed).map(|id| (Kind::Job, id)).take(JOBS_PER_COMMAND).collect();
        if !objects.is_empty() {
            let owner = OwnerRef { kind: Kind::CronJob, id: self.cron_job.meta.id };
            commands.push(Command::DeleteOwned { owner, objects });
        }
    }
}
