//! Jobs and CronJobs as values.

use bulkhead_types::{
    CompletionMode, ConcurrencyPolicy, CronJobSpec, CronJobStatus, ExitCodeOperator, JobSpec, JobStatus,
    PodFailureAction, PodFailureRule, PodReplacementPolicy, SuccessRule,
};
use serde_json::{Value, json};

use super::Fields;
use super::workload::{condition_status, conditions, template};

/// What is wanted of a Job.
pub(super) fn job_spec(spec: &JobSpec) -> Value {
    let mode = match spec.completion_mode {
        CompletionMode::NonIndexed => "NonIndexed",
        CompletionMode::Indexed => "Indexed",
    };
    let replacement = match spec.pod_replacement_policy {
        PodReplacementPolicy::TerminatingOrFailed => "TerminatingOrFailed",
        PodReplacementPolicy::Failed => "Failed",
    };
    let rules = |rules: Vec<Value>| (!rules.is_empty()).then(|| json!({"rules": rules}));
    Fields::new()
        .set("parallelism", spec.parallelism.into())
        .number("completions", spec.completions.map(u64::from))
        .text("completionMode", mode)
        .set("backoffLimit", spec.backoff_limit.into())
        .number("backoffLimitPerIndex", spec.backoff_limit_per_index.map(u64::from))
        .number("maxFailedIndexes", spec.max_failed_indexes.map(u64::from))
        .number("activeDeadlineSeconds", spec.active_deadline_ms.map(|ms| ms / 1000))
        .number("ttlSecondsAfterFinished", spec.ttl_after_finished_ms.map(|ms| ms / 1000))
        .set("suspend", spec.suspend.into())
        .text("podReplacementPolicy", replacement)
        .maybe("podFailurePolicy", rules(spec.pod_failure_policy.iter().map(failure_rule).collect()))
        .maybe("successPolicy", rules(spec.success_policy.iter().map(success_rule).collect()))
        .set("template", template(&spec.template))
        .finish()
}

fn failure_rule(rule: &PodFailureRule) -> Value {
    let action = match rule.action {
        PodFailureAction::FailJob => "FailJob",
        PodFailureAction::FailIndex => "FailIndex",
        PodFailureAction::Ignore => "Ignore",
        PodFailureAction::Count => "Count",
    };
    let codes = rule.on_exit_codes.as_ref().map(|codes| {
        let operator = match codes.operator {
            ExitCodeOperator::In => "In",
            ExitCodeOperator::NotIn => "NotIn",
        };
        Fields::new()
            .optional("containerName", codes.container_name.as_deref())
            .text("operator", operator)
            .list("values", codes.values.iter().map(|code| Value::from(*code)))
            .finish()
    });
    let patterns = rule.on_pod_conditions.iter().map(|pattern| {
        json!({"type": pattern.condition_type.as_str(), "status": condition_status(pattern.status)})
    });
    Fields::new()
        .text("action", action)
        .maybe("onExitCodes", codes)
        .list("onPodConditions", patterns)
        .finish()
}

fn success_rule(rule: &SuccessRule) -> Value {
    let indexes = rule.succeeded_indexes.as_ref().map(ToString::to_string);
    Fields::new()
        .optional("succeededIndexes", indexes.as_deref())
        .number("succeededCount", rule.succeeded_count.map(u64::from))
        .finish()
}

/// What is known of a Job.
pub(super) fn job_status(status: &JobStatus) -> Value {
    Fields::new()
        .set("observedGeneration", status.observed_generation.into())
        .time("startTime", status.started_at_ms)
        .time("completionTime", status.completed_at_ms)
        .set("active", status.active.into())
        .set("ready", status.ready.into())
        .set("terminating", status.terminating.into())
        .set("succeeded", status.succeeded.into())
        .set("failed", status.failed.into())
        .nonempty("completedIndexes", &status.completed_indexes.to_string())
        .nonempty("failedIndexes", &status.failed_indexes.to_string())
        .list("conditions", conditions(&status.conditions))
        .finish()
}

/// What is wanted of a CronJob.
pub(super) fn cron_job_spec(spec: &CronJobSpec) -> Value {
    let policy = match spec.concurrency_policy {
        ConcurrencyPolicy::Allow => "Allow",
        ConcurrencyPolicy::Forbid => "Forbid",
        ConcurrencyPolicy::Replace => "Replace",
    };
    let metadata = Fields::new()
        .map("labels", &spec.job_template.labels)
        .map("annotations", &spec.job_template.annotations)
        .finish();
    Fields::new()
        .text("schedule", &spec.schedule)
        .optional("timeZone", spec.time_zone.as_deref())
        .text("concurrencyPolicy", policy)
        .number("startingDeadlineSeconds", spec.starting_deadline_ms.map(|ms| ms / 1000))
        .set("suspend", spec.suspend.into())
        .set("successfulJobsHistoryLimit", spec.successful_jobs_history_limit.into())
        .set("failedJobsHistoryLimit", spec.failed_jobs_history_limit.into())
        .set("jobTemplate", json!({"metadata": metadata, "spec": job_spec(&spec.job_template.spec)}))
        .finish()
}

/// What is known of a CronJob; `active` names its jobs that have not ended.
pub(super) fn cron_job_status(status: &CronJobStatus, active: impl Iterator<Item = Value>) -> Value {
    Fields::new()
        .time("lastScheduleTime", status.last_schedule_ms)
        .time("lastSuccessfulTime", status.last_successful_ms)
        .list("active", active)
        .list("conditions", conditions(&status.conditions))
        .finish()
}
