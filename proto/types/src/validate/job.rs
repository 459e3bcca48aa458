//! Rules for Jobs and CronJobs.

use super::{Path, Report, annotations, claim, device, labels, workload};
use crate::{
    COMPLETIONS_MAX, CompletionMode, CronJobSpec, ExitCodeOperator, ExitCodeRequirement, JOB_RULE_VALUES_MAX,
    JOB_RULES_MAX, JobSpec, POD_DISRUPTION_TARGET, PodFailureAction, PodFailureRule, PodReplacementPolicy,
    RestartPolicy, SuccessRule,
};

/// Most old jobs of a kind that a CronJob may keep.
const JOBS_HISTORY_LIMIT_MAX: u32 = 1000;

/// Checks what is wanted of a Job.
pub(super) fn job(spec: &JobSpec, path: &Path<'_>, report: &mut Report) {
    for (field, count) in [("parallelism", Some(spec.parallelism)), ("completions", spec.completions)] {
        if count.is_some_and(|count| count > COMPLETIONS_MAX) {
            report.push(&path.field(field), format!("must be at most {COMPLETIONS_MAX}"));
        }
    }
    let indexed = spec.completion_mode == CompletionMode::Indexed;
    if indexed && spec.completions.is_none() {
        report.push(&path.field("completions"), "is required when completionMode is Indexed");
    }
    let of_indexes = [
        ("backoffLimitPerIndex", spec.backoff_limit_per_index.is_some()),
        ("maxFailedIndexes", spec.max_failed_indexes.is_some()),
        ("successPolicy", !spec.success_policy.is_empty()),
    ];
    for (field, _) in of_indexes.into_iter().filter(|(_, given)| *given && !indexed) {
        report.push(&path.field(field), "needs completionMode Indexed");
    }
    if let Some(most) = spec.max_failed_indexes {
        if spec.backoff_limit_per_index.is_none() {
            report.push(&path.field("maxFailedIndexes"), "needs backoffLimitPerIndex");
        }
        if spec.completions.is_some_and(|completions| most > completions) {
            report.push(&path.field("maxFailedIndexes"), "must be at most completions");
        }
    }
    for (field, ms) in [
        ("activeDeadlineSeconds", spec.active_deadline_ms),
        ("ttlSecondsAfterFinished", spec.ttl_after_finished_ms),
    ] {
        ms.into_iter().for_each(|ms| report.duration(&path.field(field), ms));
    }
    claim::alone(spec.parallelism, &spec.template.spec, &path.field("parallelism"), report);
    failure_policy(spec, path, report);
    success_policy(spec, path, report);
    let template = path.field("template");
    if spec.template.spec.restart_policy == RestartPolicy::Always {
        let spec = template.field("spec");
        report.push(&spec.field("restartPolicy"), "must be Never or OnFailure: a job's pods end");
    }
    workload::template_content(&spec.template, &template, report);
}

fn failure_policy(spec: &JobSpec, path: &Path<'_>, report: &mut Report) {
    if spec.pod_failure_policy.is_empty() {
        return;
    }
    if spec.template.spec.restart_policy != RestartPolicy::Never {
        let reason = "needs restartPolicy Never: a pod that restarts by itself has not failed";
        report.push(&path.field("podFailurePolicy"), reason);
    }
    if spec.pod_replacement_policy != PodReplacementPolicy::Failed {
        let reason = "must be Failed when podFailurePolicy is set: only an end can be judged";
        report.push(&path.field("podReplacementPolicy"), reason);
    }
    let policy = path.field("podFailurePolicy");
    let rules = policy.field("rules");
    report.at_most(&rules, "rules", spec.pod_failure_policy.len(), JOB_RULES_MAX);
    for (index, rule) in spec.pod_failure_policy.iter().enumerate() {
        failure_rule(spec, rule, &rules.index(index), report);
    }
}

fn failure_rule(spec: &JobSpec, rule: &PodFailureRule, path: &Path<'_>, report: &mut Report) {
    if rule.action == PodFailureAction::FailIndex && spec.backoff_limit_per_index.is_none() {
        report.push(&path.field("action"), "FailIndex needs backoffLimitPerIndex");
    }
    if rule.on_exit_codes.is_some() != rule.on_pod_conditions.is_empty() {
        report.push(path, "needs either onExitCodes or onPodConditions");
    }
    let conditions = rule.on_pod_conditions.len();
    report.at_most(&path.field("onPodConditions"), "patterns", conditions, JOB_RULES_MAX);
    for (index, pattern) in rule.on_pod_conditions.iter().enumerate() {
        if pattern.condition_type != POD_DISRUPTION_TARGET {
            let path = path.field("onPodConditions");
            let reason = format!("must be {POD_DISRUPTION_TARGET}: an ended pod has no other condition here");
            report.push(&path.index(index).field("type"), reason);
        }
    }
    if let Some(codes) = &rule.on_exit_codes {
        exit_codes(spec, codes, &path.field("onExitCodes"), report);
    }
}

fn exit_codes(spec: &JobSpec, codes: &ExitCodeRequirement, path: &Path<'_>, report: &mut Report) {
    let values = path.field("values");
    report.at_most(&values, "values", codes.values.len(), JOB_RULE_VALUES_MAX);
    if codes.values.is_empty() {
        report.push(&values, "must have at least one value");
    }
    if !codes.values.is_sorted_by(|a, b| a < b) {
        report.push(&values, "must be in ascending order, without repeats");
    }
    if codes.operator == ExitCodeOperator::In && codes.values.contains(&0) {
        report.push(&values, "must not contain 0 with In: a container that exits with 0 has not failed");
    }
    if let Some(name) = &codes.container_name {
        let template = &spec.template.spec;
        let mut containers = template.containers.iter().chain(&template.init_containers);
        if !containers.any(|container| container.name == *name) {
            report.push(&path.field("containerName"), format!("no container is called {name:?}"));
        }
    }
}

fn success_policy(spec: &JobSpec, path: &Path<'_>, report: &mut Report) {
    let policy = path.field("successPolicy");
    let rules = policy.field("rules");
    report.at_most(&rules, "rules", spec.success_policy.len(), JOB_RULES_MAX);
    let completions = spec.completions.unwrap_or(0);
    for (index, rule) in spec.success_policy.iter().enumerate() {
        let path = rules.index(index);
        let SuccessRule { succeeded_indexes, succeeded_count } = rule;
        if succeeded_indexes.is_none() && succeeded_count.is_none() {
            report.push(&path, "needs succeededIndexes or succeededCount");
        }
        let last = succeeded_indexes.as_ref().and_then(crate::IndexSet::last);
        if last.is_some_and(|last| last >= completions) {
            report
                .push(&path.field("succeededIndexes"), format!("must be below completions ({completions})"));
        }
        let most = succeeded_indexes.as_ref().map_or(u64::from(completions), crate::IndexSet::count);
        if succeeded_count.is_some_and(|count| count == 0 || u64::from(count) > most) {
            report.push(&path.field("succeededCount"), format!("must be between 1 and {most}"));
        }
    }
}

/// Checks what is wanted of a CronJob, but for its schedule and zone, which the control plane reads.
pub(super) fn cron_job(spec: &CronJobSpec, path: &Path<'_>, report: &mut Report) {
    let (of_jobs, pods) = (path.field("jobTemplate"), &spec.job_template.spec.template);
    let (of_jobs, remedy) = (of_jobs.field("spec"), "its runs would wait for each other's; use a Job");
    let of_pods = of_jobs.field("template");
    device::none(&pods.spec, "CronJob", remedy, &of_pods.field("spec"), report);
    if spec.schedule.is_empty() {
        report.push(&path.field("schedule"), "is required");
    }
    for (field, limit) in [
        ("successfulJobsHistoryLimit", spec.successful_jobs_history_limit),
        ("failedJobsHistoryLimit", spec.failed_jobs_history_limit),
    ] {
        if limit > JOBS_HISTORY_LIMIT_MAX {
            report.push(&path.field(field), format!("must be at most {JOBS_HISTORY_LIMIT_MAX}"));
        }
    }
    spec.starting_deadline_ms
        .into_iter()
        .for_each(|ms| report.duration(&path.field("startingDeadlineSeconds"), ms));
    let template = path.field("jobTemplate");
    let metadata = template.field("metadata");
    labels(&spec.job_template.labels, &metadata.field("labels"), report);
    annotations(&spec.job_template.annotations, &metadata.field("annotations"), report);
    job(&spec.job_template.spec, &template.field("spec"), report);
}
