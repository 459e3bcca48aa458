//! CronHorizontalPodAutoscalers: sizes by the clock.
//!
//! Kubernetes has no such kind; name, fields and rules are those of the one that is in use elsewhere
//! (`autoscaling.alibabacloud.com/v1beta1`), with a time zone.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{ObjectMeta, ScaleTarget};

/// Most jobs of one of them, and most excluded dates.
pub const CRON_AUTOSCALER_JOBS_MAX: usize = 64;

/// Sizes by the clock.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CronHorizontalPodAutoscaler {
    /// Standard metadata.
    pub meta: ObjectMeta,
    /// What is wanted.
    pub spec: CronAutoscalerSpec,
    /// What is known.
    pub status: CronAutoscalerStatus,
}

/// What is wanted of a size by the clock.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CronAutoscalerSpec {
    /// What is scaled: a Deployment, a StatefulSet, or a HorizontalPodAutoscaler, whose bounds move.
    pub target: ScaleTarget,
    /// The zone of all schedules, a name of the IANA database; UTC when unset.
    pub time_zone: Option<SmolStr>,
    /// Days on which nothing is done: six fields, of which those of the day count.
    pub exclude_dates: Vec<SmolStr>,
    /// When to be of what size.
    pub jobs: Vec<CronScaleJob>,
}

/// When to be of what size.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CronScaleJob {
    /// Its name, unique among its siblings.
    pub name: SmolStr,
    /// When, as six fields (second, minute, hour, day of month, month, day of week).
    pub schedule: SmolStr,
    /// The size.
    pub target_size: u32,
    /// Only the first time.
    pub run_once: bool,
}

/// What is known of a size by the clock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CronAutoscalerStatus {
    /// The last run of each job that ever ran, in the spec's order.
    pub runs: Vec<CronScaleRun>,
}

/// How a run came out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CronScaleOutcome {
    /// The target has the size.
    #[default]
    Succeeded = 1,
    /// It was on an excluded day.
    Excluded = 2,
    /// The target could not get the size.
    Failed = 3,
}

/// The last run of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CronScaleRun {
    /// Which job.
    pub job: SmolStr,
    /// The time of the schedule that it was for, milliseconds since the epoch. None up to it runs again.
    pub scheduled_ms: u64,
    /// Log time, milliseconds since the epoch.
    pub ran_at_ms: u64,
    /// How it came out.
    pub outcome: CronScaleOutcome,
    /// What changed, or why nothing did, for people.
    pub message: String,
}
