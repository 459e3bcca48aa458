//! StatefulSets, DaemonSets, Jobs and CronJobs in full.

use bulkhead_types::{
    CompletionMode, CronJob, DaemonSet, DaemonSetUpdateStrategy, Job, Kind, Object, StatefulSet,
    StatefulSetUpdateStrategy,
};

use super::row::{self, job_completions, job_status};
use super::{Page, conditions, objects, template};
use crate::directory::Directory;
use crate::time::{age, rfc3339, short};

pub(super) fn stateful_set(page: &mut Page, set: &StatefulSet, pods: &[Object], directory: &Directory) {
    let (spec, status) = (&set.spec, &set.status);
    page.line("Selector", row::selector(&spec.selector));
    page.optional("Service", &spec.service_name);
    let figures = format!(
        "{} wanted, {} there, {} ready, {} available, {} updated",
        spec.replicas,
        status.replicas,
        status.ready_replicas,
        status.available_replicas,
        status.updated_replicas
    );
    page.line("Replicas", figures);
    if spec.stopped {
        page.line("Stopped", "yes: no pods run until it is started");
    }
    page.line("Management", format!("{:?}", spec.pod_management_policy));
    let strategy = match spec.update_strategy {
        StatefulSetUpdateStrategy::OnDelete => "OnDelete".to_owned(),
        StatefulSetUpdateStrategy::RollingUpdate { partition, max_unavailable } => {
            format!("RollingUpdate: from ordinal {partition} on, at most {max_unavailable} unavailable")
        }
    };
    page.line("Strategy", strategy);
    super::claims::templates(page, spec);
    page.optional("Current", &status.current_revision);
    page.optional("Update", &status.update_revision);
    conditions(page, &status.conditions);
    template(page, &spec.template);
    objects(page, "Pods", Kind::Pod, pods, directory, false);
}

pub(super) fn daemon_set(page: &mut Page, set: &DaemonSet, pods: &[Object], directory: &Directory) {
    let (spec, status) = (&set.spec, &set.status);
    page.line("Selector", row::selector(&spec.selector));
    let figures = format!(
        "{} wanted, {} scheduled, {} ready, {} available, {} updated, {} misscheduled",
        status.desired_number_scheduled,
        status.current_number_scheduled,
        status.number_ready,
        status.number_available,
        status.updated_number_scheduled,
        status.number_misscheduled
    );
    page.line("Nodes", figures);
    let strategy = match spec.update_strategy {
        DaemonSetUpdateStrategy::OnDelete => "OnDelete".to_owned(),
        DaemonSetUpdateStrategy::RollingUpdate { max_unavailable, max_surge } => {
            format!("RollingUpdate: at most {max_unavailable} unavailable, {max_surge} more")
        }
    };
    page.line("Strategy", strategy);
    page.optional("Update", &status.update_revision);
    conditions(page, &status.conditions);
    template(page, &spec.template);
    objects(page, "Pods", Kind::Pod, pods, directory, false);
}

pub(super) fn job(page: &mut Page, job: &Job, pods: &[Object], directory: &Directory) {
    let (spec, status) = (&job.spec, &job.status);
    page.line("Status", job_status(job));
    page.line("Completions", job_completions(job));
    page.line("Parallelism", spec.parallelism.to_string());
    page.line("Mode", if spec.completion_mode == CompletionMode::Indexed { "Indexed" } else { "NonIndexed" });
    let figures = format!(
        "{} active ({} ready), {} terminating, {} succeeded, {} failed",
        status.active, status.ready, status.terminating, status.succeeded, status.failed
    );
    page.line("Pods", figures);
    page.line("Back-off", format!("{} failures", spec.backoff_limit));
    page.optional("Completed", status.completed_indexes.to_string());
    page.optional("Failed", status.failed_indexes.to_string());
    if let Some(ms) = spec.active_deadline_ms {
        page.line("Deadline", short(ms / 1000));
    }
    if let Some(ms) = spec.ttl_after_finished_ms {
        page.line("Kept for", short(ms / 1000));
    }
    if status.started_at_ms > 0 {
        page.line("Started", rfc3339(status.started_at_ms));
    }
    if status.completed_at_ms > 0 {
        page.line("Completed at", rfc3339(status.completed_at_ms));
    }
    conditions(page, &status.conditions);
    template(page, &spec.template);
    objects(page, "Pods", Kind::Pod, pods, directory, false);
}

pub(super) fn cron_job(page: &mut Page, job: &CronJob, jobs: &[Object], directory: &Directory) {
    let (spec, status) = (&job.spec, &job.status);
    page.line("Schedule", spec.schedule.as_str());
    page.line("Time zone", spec.time_zone.as_deref().unwrap_or("UTC"));
    page.line("Concurrency", format!("{:?}", spec.concurrency_policy));
    page.line("Suspended", if spec.suspend { "yes" } else { "no" });
    if let Some(ms) = spec.starting_deadline_ms {
        page.line("Start within", short(ms / 1000));
    }
    let kept = (spec.successful_jobs_history_limit, spec.failed_jobs_history_limit);
    page.line("Kept", format!("{} that succeeded, {} that failed", kept.0, kept.1));
    if status.last_schedule_ms > 0 {
        page.line("Last run", format!("{} ago", age(status.last_schedule_ms)));
    }
    if status.last_successful_ms > 0 {
        page.line("Last success", format!("{} ago", age(status.last_successful_ms)));
    }
    conditions(page, &status.conditions);
    template(page, &spec.job_template.spec.template);
    objects(page, "Jobs", Kind::Job, jobs, directory, false);
}
