//! Jobs and CronJobs.

use bulkhead_schedule::{Schedule, ScheduleError};
use bulkhead_types::{
    BACKOFF_LIMIT_DEFAULT, BACKOFF_LIMIT_NONE, COMPLETIONS_MAX, CompletionMode, ConcurrencyPolicy,
    ConditionStatus, CronJobSpec, ExitCodeOperator, ExitCodeRequirement, FAILED_JOBS_HISTORY_LIMIT_DEFAULT,
    IndexSet, JobSpec, JobTemplate, PodConditionPattern, PodFailureAction, PodFailureRule,
    PodReplacementPolicy, SUCCESSFUL_JOBS_HISTORY_LIMIT_DEFAULT, SuccessRule,
};

use super::decoder::{Decoder, Fields, Fixed, Schema};
use super::meta;
use super::workload::template;
use crate::tree::{Node, Value};

const JOB: Schema = Schema {
    known: &[
        "parallelism",
        "completions",
        "completionMode",
        "backoffLimit",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
        "activeDeadlineSeconds",
        "ttlSecondsAfterFinished",
        "suspend",
        "podReplacementPolicy",
        "podFailurePolicy",
        "successPolicy",
        "template",
    ],
    fixed: &[("manualSelector", Fixed::Bool(false))],
    not_yet: &["selector", "managedBy"],
    ..Schema::EMPTY
};
const RULES: Schema = Schema { known: &["rules"], ..Schema::EMPTY };
const FAILURE_RULE: Schema = Schema { known: &["action", "onExitCodes", "onPodConditions"], ..Schema::EMPTY };
const EXIT_CODES: Schema = Schema { known: &["containerName", "operator", "values"], ..Schema::EMPTY };
const CONDITION: Schema = Schema { known: &["type", "status"], ..Schema::EMPTY };
const SUCCESS_RULE: Schema = Schema { known: &["succeededIndexes", "succeededCount"], ..Schema::EMPTY };
const CRON_JOB: Schema = Schema {
    known: &[
        "schedule",
        "timeZone",
        "concurrencyPolicy",
        "startingDeadlineSeconds",
        "suspend",
        "successfulJobsHistoryLimit",
        "failedJobsHistoryLimit",
        "jobTemplate",
    ],
    ..Schema::EMPTY
};
const JOB_TEMPLATE: Schema = Schema { known: &["metadata", "spec"], ..Schema::EMPTY };
const MODES: [(&str, CompletionMode); 2] =
    [("NonIndexed", CompletionMode::NonIndexed), ("Indexed", CompletionMode::Indexed)];
const REPLACEMENTS: [(&str, PodReplacementPolicy); 2] = [
    ("TerminatingOrFailed", PodReplacementPolicy::TerminatingOrFailed),
    ("Failed", PodReplacementPolicy::Failed),
];
const ACTIONS: [(&str, PodFailureAction); 4] = [
    ("FailJob", PodFailureAction::FailJob),
    ("FailIndex", PodFailureAction::FailIndex),
    ("Ignore", PodFailureAction::Ignore),
    ("Count", PodFailureAction::Count),
];
const OPERATORS: [(&str, ExitCodeOperator); 2] =
    [("In", ExitCodeOperator::In), ("NotIn", ExitCodeOperator::NotIn)];
const STATUSES: [(&str, ConditionStatus); 3] = [
    ("True", ConditionStatus::True),
    ("False", ConditionStatus::False),
    ("Unknown", ConditionStatus::Unknown),
];
const POLICIES: [(&str, ConcurrencyPolicy); 3] = [
    ("Allow", ConcurrencyPolicy::Allow),
    ("Forbid", ConcurrencyPolicy::Forbid),
    ("Replace", ConcurrencyPolicy::Replace),
];

/// What is wanted of a Job.
pub(super) fn job(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<JobSpec> {
    let fields = d.fields(node, path, &JOB)?;
    let backoff_limit_per_index = number(d, &fields, "backoffLimitPerIndex");
    let backoff_limit = number(d, &fields, "backoffLimit");
    let backoff_default =
        if backoff_limit_per_index.is_some() { BACKOFF_LIMIT_NONE } else { BACKOFF_LIMIT_DEFAULT };
    let pod_failure_policy = rules(d, &fields, "podFailurePolicy", failure_rule);
    let replacement = d.choice(&fields, "podReplacementPolicy", &REPLACEMENTS);
    let replacement_default = match pod_failure_policy.is_empty() {
        true => PodReplacementPolicy::TerminatingOrFailed,
        false => PodReplacementPolicy::Failed,
    };
    let counted = |d: &mut Decoder<'_>, name| {
        d.number(&fields, name, u64::from(COMPLETIONS_MAX)).and_then(|n| u32::try_from(n).ok())
    };
    let parallelism = counted(d, "parallelism");
    let completions = counted(d, "completions");
    // As Kubernetes: when neither is given, one pod must succeed.
    let neither = fields.get("parallelism").is_none() && fields.get("completions").is_none();
    Some(JobSpec {
        parallelism: parallelism.unwrap_or(1),
        completions: completions.or(neither.then_some(1)),
        completion_mode: d.choice(&fields, "completionMode", &MODES).unwrap_or_default(),
        backoff_limit: backoff_limit.unwrap_or(backoff_default),
        backoff_limit_per_index,
        max_failed_indexes: counted(d, "maxFailedIndexes"),
        active_deadline_ms: d.seconds(&fields, "activeDeadlineSeconds"),
        ttl_after_finished_ms: d.seconds(&fields, "ttlSecondsAfterFinished"),
        suspend: d.boolean(&fields, "suspend").unwrap_or_default(),
        pod_replacement_policy: replacement.unwrap_or(replacement_default),
        pod_failure_policy,
        success_policy: rules(d, &fields, "successPolicy", success_rule),
        template: template(d, &fields)?,
    })
}

fn number(d: &mut Decoder<'_>, fields: &Fields<'_>, name: &str) -> Option<u32> {
    d.number(fields, name, i32::MAX as u64).and_then(|n| u32::try_from(n).ok())
}

/// The rules of a policy; none when it is missing.
fn rules<T>(
    d: &mut Decoder<'_>,
    spec: &Fields<'_>,
    name: &str,
    read: impl Fn(&mut Decoder<'_>, &Node, &str) -> Option<T>,
) -> Vec<T> {
    let fields = spec.get(name).and_then(|node| d.fields(node, &spec.path(name), &RULES));
    let Some(fields) = fields else { return Vec::new() };
    if fields.get("rules").is_none() {
        d.missing(&fields, "rules");
    }
    d.each(&fields, "rules", read)
}

fn failure_rule(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<PodFailureRule> {
    let fields = d.fields(node, path, &FAILURE_RULE)?;
    if fields.get("action").is_none() {
        d.missing(&fields, "action");
    }
    let action = d.choice(&fields, "action", &ACTIONS);
    let on_exit_codes =
        fields.get("onExitCodes").and_then(|node| exit_codes(d, node, &fields.path("onExitCodes")));
    let on_pod_conditions = d.each(&fields, "onPodConditions", condition);
    Some(PodFailureRule { action: action?, on_exit_codes, on_pod_conditions })
}

fn exit_codes(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<ExitCodeRequirement> {
    let fields = d.fields(node, path, &EXIT_CODES)?;
    if fields.get("operator").is_none() {
        d.missing(&fields, "operator");
    }
    let operator = d.choice(&fields, "operator", &OPERATORS);
    let container_name = d.text(&fields, "containerName").filter(|name| !name.is_empty()).map(Into::into);
    let values = d.each(&fields, "values", exit_code);
    Some(ExitCodeRequirement { container_name, operator: operator?, values })
}

fn exit_code(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<i32> {
    let code = match &node.value {
        Value::Number(text) => text.parse().ok(),
        _ => None,
    };
    if code.is_none() {
        d.fail(node.place, path, format!("expected an exit code, found {}", node.describe()));
    }
    code
}

fn condition(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<PodConditionPattern> {
    let fields = d.fields(node, path, &CONDITION)?;
    let condition_type = d.required_text(&fields, "type");
    let status = d.choice(&fields, "status", &STATUSES).unwrap_or(ConditionStatus::True);
    Some(PodConditionPattern { condition_type: condition_type?.into(), status })
}

fn success_rule(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<SuccessRule> {
    let fields = d.fields(node, path, &SUCCESS_RULE)?;
    let text = d.text(&fields, "succeededIndexes");
    let succeeded_indexes = text.map(|text| text.parse::<IndexSet>()).transpose().unwrap_or_else(|error| {
        d.fail(fields.place("succeededIndexes"), &fields.path("succeededIndexes"), error.to_string());
        None
    });
    Some(SuccessRule { succeeded_indexes, succeeded_count: number(d, &fields, "succeededCount") })
}

/// What is wanted of a CronJob.
pub(super) fn cron_job(d: &mut Decoder<'_>, node: &Node) -> Option<CronJobSpec> {
    let fields = d.fields(node, "spec", &CRON_JOB)?;
    let schedule = d.required_text(&fields, "schedule").unwrap_or_default();
    let time_zone = d.text(&fields, "timeZone").filter(|zone| !zone.is_empty());
    check_schedule(d, &fields, &schedule, time_zone.as_deref());
    let job_template = job_template(d, &fields);
    Some(CronJobSpec {
        schedule: schedule.into(),
        time_zone: time_zone.map(Into::into),
        concurrency_policy: d.choice(&fields, "concurrencyPolicy", &POLICIES).unwrap_or_default(),
        starting_deadline_ms: d.seconds(&fields, "startingDeadlineSeconds"),
        suspend: d.boolean(&fields, "suspend").unwrap_or_default(),
        successful_jobs_history_limit: number(d, &fields, "successfulJobsHistoryLimit")
            .unwrap_or(SUCCESSFUL_JOBS_HISTORY_LIMIT_DEFAULT),
        failed_jobs_history_limit: number(d, &fields, "failedJobsHistoryLimit")
            .unwrap_or(FAILED_JOBS_HISTORY_LIMIT_DEFAULT),
        job_template: job_template?,
    })
}

fn check_schedule(d: &mut Decoder<'_>, fields: &Fields<'_>, schedule: &str, zone: Option<&str>) {
    if schedule.is_empty() {
        return;
    }
    if let Err(error) = Schedule::new(schedule, zone) {
        let name = match error {
            ScheduleError::Expression(_) => "schedule",
            ScheduleError::TimeZone(_) => "timeZone",
        };
        d.fail(fields.place(name), &fields.path(name), error.to_string());
    }
}

fn job_template(d: &mut Decoder<'_>, spec: &Fields<'_>) -> Option<JobTemplate> {
    let Some(node) = spec.get("jobTemplate") else {
        d.missing(spec, "jobTemplate");
        return None;
    };
    let fields = d.fields(node, &spec.path("jobTemplate"), &JOB_TEMPLATE)?;
    let (labels, annotations) = meta::template(d, &fields);
    let Some(node) = fields.get("spec") else {
        d.missing(&fields, "spec");
        return None;
    };
    Some(JobTemplate { labels, annotations, spec: job(d, node, &fields.path("spec"))? })
}
