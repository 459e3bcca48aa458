//! The columns of StatefulSets, DaemonSets, Jobs, CronJobs and ControllerRevisions.

use bulkhead_types::{ControllerRevision, CronJob, DaemonSet, Job, StatefulSet};

use super::{NONE, images, names, or_none, pairs, selector};
use crate::directory::Directory;
use crate::time::{age, now_ms, short};

/// A row's cells: those that are always shown, and those of a wide table.
type Cells = (Vec<String>, Vec<String>);

pub(super) const CRON_JOB_WIDE: &[&str] = &[
    "NAME",
    "SCHEDULE",
    "TIMEZONE",
    "SUSPEND",
    "ACTIVE",
    "LAST SCHEDULE",
    "AGE",
    "POLICY",
    "CONTAINERS",
    "IMAGES",
];

pub(super) fn stateful_set(set: &StatefulSet) -> Cells {
    let (spec, status) = (&set.spec, &set.status);
    let middle = vec![format!("{}/{}", status.ready_replicas, spec.replicas), age(set.meta.created_at_ms)];
    let containers = &spec.template.spec.containers;
    let wide = vec![
        status.updated_replicas.to_string(),
        or_none(status.update_revision.as_str()),
        names(containers),
        images(containers),
        selector(&spec.selector),
    ];
    (middle, wide)
}

pub(super) fn daemon_set_header(wide: bool) -> &'static [&'static str] {
    const ALL: &[&str] = &[
        "NAME",
        "DESIRED",
        "CURRENT",
        "READY",
        "UP-TO-DATE",
        "AVAILABLE",
        "NODE SELECTOR",
        "AGE",
        "CONTAINERS",
        "IMAGES",
        "SELECTOR",
    ];
    if wide { ALL } else { &ALL[..8] }
}

pub(super) fn daemon_set(set: &DaemonSet) -> Cells {
    let (spec, status) = (&set.spec, &set.status);
    let node_selector = &spec.template.spec.node_selector;
    let middle = vec![
        status.desired_number_scheduled.to_string(),
        status.current_number_scheduled.to_string(),
        status.number_ready.to_string(),
        status.updated_number_scheduled.to_string(),
        status.number_available.to_string(),
        pairs(node_selector.iter().map(|(k, v)| (k.as_str(), v.as_str()))),
        age(set.meta.created_at_ms),
    ];
    let containers = &spec.template.spec.containers;
    (middle, vec![names(containers), images(containers), selector(&spec.selector)])
}

/// `Complete`, `Failed`, `Suspended` or `Running`.
pub(crate) fn job_status(job: &Job) -> String {
    match job.end() {
        Some(end) => end.condition_type.to_string(),
        None if job.spec.suspend => "Suspended".to_owned(),
        None => "Running".to_owned(),
    }
}

/// `1/3`, or `0/1 of 3` for a work queue of three pods at a time.
pub(crate) fn job_completions(job: &Job) -> String {
    match job.spec.completions {
        Some(wanted) => format!("{}/{wanted}", job.status.succeeded),
        None => format!("{}/1 of {}", job.status.succeeded, job.spec.parallelism),
    }
}

pub(super) fn job(job: &Job) -> Cells {
    let status = &job.status;
    let end_ms = job.end().map(|end| end.last_transition_ms).unwrap_or_else(now_ms);
    let duration = match status.started_at_ms {
        0 => NONE.to_owned(),
        started_at_ms => short(end_ms.saturating_sub(started_at_ms) / 1000),
    };
    let middle = vec![job_status(job), job_completions(job), duration, age(job.meta.created_at_ms)];
    let containers = &job.spec.template.spec.containers;
    let wide =
        vec![status.active.to_string(), status.failed.to_string(), names(containers), images(containers)];
    (middle, wide)
}

pub(super) fn cron_job(job: &CronJob) -> Cells {
    let (spec, status) = (&job.spec, &job.status);
    let middle = vec![
        spec.schedule.to_string(),
        or_none(spec.time_zone.as_deref().unwrap_or_default()),
        if spec.suspend { "True" } else { "False" }.to_owned(),
        status.active.len().to_string(),
        if status.last_schedule_ms == 0 { NONE.to_owned() } else { age(status.last_schedule_ms) },
        age(job.meta.created_at_ms),
    ];
    let containers = &spec.job_template.spec.template.spec.containers;
    (middle, vec![format!("{:?}", spec.concurrency_policy), names(containers), images(containers)])
}

pub(super) fn controller_revision(revision: &ControllerRevision, directory: &Directory) -> Cells {
    let controller = revision.meta.owner.map_or_else(
        || NONE.to_owned(),
        |owner| {
            let name = directory.name_of(owner.kind, owner.id);
            let name = name.map_or_else(|| owner.id.to_string(), |name| name.to_string());
            format!("{}/{name}", owner.kind.as_str().to_lowercase())
        },
    );
    (vec![controller, revision.revision.to_string(), age(revision.meta.created_at_ms)], vec![])
}
