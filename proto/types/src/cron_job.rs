//! CronJobs: jobs by the clock, as in `batch/v1`.
//!
//! Source: "CronJob" in the Kubernetes documentation, and "CronJob v1 batch" of its API reference.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{Condition, JobSpec, ObjectId, ObjectMeta, StringMap};

/// `successfulJobsHistoryLimit` when not given.
pub const SUCCESSFUL_JOBS_HISTORY_LIMIT_DEFAULT: u32 = 3;
/// `failedJobsHistoryLimit` when not given.
pub const FAILED_JOBS_HISTORY_LIMIT_DEFAULT: u32 = 1;
/// Most missed runs before a CronJob without a starting deadline skips to the present (Kubernetes' rule).
pub const MISSED_RUNS_MAX: u32 = 100;
/// The condition of a CronJob of whose runs many were missed.
pub const CRON_JOB_MISSED_SCHEDULE: &str = "MissedSchedule";
/// Longest name of a CronJob, in bytes: the time of a run is joined to it (Kubernetes' limit).
pub const CRON_JOB_NAME_LENGTH_MAX: usize = 52;
/// The annotation of a job with the time that it was meant for, RFC 3339 (Kubernetes' name).
pub const ANNOTATION_SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// The annotation of a job that a user started by hand, with `manual` (Kubernetes' name).
pub const ANNOTATION_INSTANTIATE: &str = "cronjob.kubernetes.io/instantiate";

/// Jobs by the clock.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CronJob {
    /// Standard metadata.
    pub meta: ObjectMeta,
    /// What is wanted.
    pub spec: CronJobSpec,
    /// What is known.
    pub status: CronJobStatus,
}

/// What to do when the last run has not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ConcurrencyPolicy {
    /// Runs overlap.
    #[default]
    Allow = 1,
    /// The new run is skipped.
    Forbid = 2,
    /// The new run replaces the old one.
    Replace = 3,
}

/// What each job looks like.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct JobTemplate {
    /// Labels of each job.
    pub labels: StringMap,
    /// Annotations of each job.
    pub annotations: StringMap,
    /// What each job does.
    pub spec: JobSpec,
}

/// What is wanted of a CronJob.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CronJobSpec {
    /// When, as five fields (minute, hour, day of month, month, day of week) or six (second first).
    pub schedule: SmolStr,
    /// The zone of the schedule, a name of the IANA database; UTC when unset.
    pub time_zone: Option<SmolStr>,
    /// What to do when the last run has not ended.
    pub concurrency_policy: ConcurrencyPolicy,
    /// How late a run may start, in milliseconds; without limit when unset.
    pub starting_deadline_ms: Option<u64>,
    /// Whether nothing shall start for now.
    pub suspend: bool,
    /// How many jobs that succeeded are kept.
    pub successful_jobs_history_limit: u32,
    /// How many jobs that failed are kept.
    pub failed_jobs_history_limit: u32,
    /// What each job looks like.
    pub job_template: JobTemplate,
}

/// What is known of a CronJob.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CronJobStatus {
    /// The time of the schedule that last became a job, milliseconds since the epoch; 0 before. None up to it does so
    /// again.
    pub last_schedule_ms: u64,
    /// Log time of the last success of a job, milliseconds since the epoch; 0 before.
    pub last_successful_ms: u64,
    /// Its jobs that have not ended, in id order.
    pub active: Vec<ObjectId>,
    /// MissedSchedule, in type order.
    pub conditions: Vec<Condition>,
}
