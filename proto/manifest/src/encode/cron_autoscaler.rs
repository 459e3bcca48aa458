//! CronHorizontalPodAutoscalers as values.

use bulkhead_types::{CronAutoscalerSpec, CronAutoscalerStatus, CronScaleOutcome};
use serde_json::{Value, json};

use super::Fields;
use super::autoscaler::target_ref;

/// What is wanted of a size by the clock.
pub(super) fn cron_autoscaler_spec(spec: &CronAutoscalerSpec) -> Value {
    let jobs = spec.jobs.iter().map(|job| {
        json!({
            "name": job.name.as_str(),
            "schedule": job.schedule.as_str(),
            "targetSize": job.target_size,
            "runOnce": job.run_once,
        })
    });
    Fields::new()
        .set("scaleTargetRef", target_ref(&spec.target))
        .optional("timeZone", spec.time_zone.as_deref())
        .list("excludeDates", spec.exclude_dates.iter().map(|date| Value::from(date.as_str())))
        .list("jobs", jobs)
        .finish()
}

/// What is known of a size by the clock.
pub(super) fn cron_autoscaler_status(spec: &CronAutoscalerSpec, status: &CronAutoscalerStatus) -> Value {
    let conditions = status.runs.iter().map(|run| {
        let state = match run.outcome {
            CronScaleOutcome::Succeeded => "Succeed",
            CronScaleOutcome::Excluded => "Excluded",
            CronScaleOutcome::Failed => "Failed",
        };
        let job = spec.jobs.iter().find(|job| job.name == run.job);
        Fields::new()
            .text("name", &run.job)
            .optional("schedule", job.map(|job| job.schedule.as_str()))
            .number("targetSize", job.map(|job| job.target_size.into()))
            .text("state", state)
            .time("lastScheduleTime", run.scheduled_ms)
            .time("lastProbeTime", run.ran_at_ms)
            .nonempty("message", &run.message)
            .finish()
    });
    Fields::new().list("conditions", conditions).finish()
}
