//! How ends of pods are counted in their Job's status. Each is counted once: the event comes with the pod's end.

use bulkhead_types::{ConditionStatus, IndexFailures, IndexSet, JOB_FAILURE_TARGET, Job, JobStatus, PodEnd};

use crate::conditions::set_condition;
use crate::job_pods::{is_indexed, is_open};

/// Counts the end of one pod of a Job. `message` says which rule failed the job, if one did.
pub(super) fn count_end(job: &mut Job, end: PodEnd, index: Option<u32>, message: &str, at_ms: u64) {
    match end {
        PodEnd::Stopped => return,
        PodEnd::Succeeded => succeeded(job, index),
        PodEnd::Failed | PodEnd::Ignored | PodEnd::FailedIndex | PodEnd::FailedJob => {
            let counts = end != PodEnd::Ignored;
            let status = &mut job.status;
            status.failed = status.failed.saturating_add(u32::from(counts));
            status.failures_in_row = status.failures_in_row.saturating_add(1);
            status.last_failure_ms = at_ms;
            if let Some(index) = index.filter(|index| is_open(job, *index)) {
                index_failed(job, index, end, at_ms);
            }
        }
    }
    if end == PodEnd::FailedJob && job.verdict().is_none() {
        let condition = (JOB_FAILURE_TARGET, ConditionStatus::True);
        set_condition(&mut job.status.conditions, at_ms, condition, "PodFailurePolicy", message);
    }
}

fn succeeded(job: &mut Job, index: Option<u32>) {
    job.status.failures_in_row = 0;
    match index {
        None => job.status.succeeded = job.status.succeeded.saturating_add(1),
        // An index succeeds once, and not after it has failed for good.
        Some(index) if is_open(job, index) => {
            job.status.completed_indexes.insert(index);
            job.status.succeeded = job.status.succeeded.saturating_add(1);
            forget_failures(&mut job.status, index);
        }
        Some(_) => {}
    }
}

fn index_failed(job: &mut Job, index: u32, end: PodEnd, at_ms: u64) {
    let Some(limit) = job.spec.backoff_limit_per_index else { return };
    let status = &mut job.status;
    let position = status.index_failures.binary_search_by_key(&index, |f| f.index);
    let at = position.unwrap_or_else(|at| {
        let fresh = IndexFailures { index, failures: 0, failures_in_row: 0, last_failure_ms: 0 };
        status.index_failures.insert(at, fresh);
        at
    });
    let of_index = &mut status.index_failures[at];
    of_index.failures = of_index.failures.saturating_add(u32::from(end != PodEnd::Ignored));
    of_index.failures_in_row = of_index.failures_in_row.saturating_add(1);
    of_index.last_failure_ms = at_ms;
    if end == PodEnd::FailedIndex || of_index.failures > limit {
        status.failed_indexes.insert(index);
        forget_failures(status, index);
    }
}

fn forget_failures(status: &mut JobStatus, index: u32) {
    if let Ok(at) = status.index_failures.binary_search_by_key(&index, |f| f.index) {
        status.index_failures.remove(at);
    }
}

/// After a change of an indexed Job's size: what is known of indexes that it has no more is forgotten.
pub(super) fn follow_completions(job: &mut Job) {
    let Some(completions) = job.spec.completions.filter(|_| is_indexed(job)) else { return };
    let status = &mut job.status;
    let below = |set: &IndexSet| set.iter().take_while(|index| *index < completions).collect::<IndexSet>();
    if status.completed_indexes.last().is_some_and(|last| last >= completions) {
        status.completed_indexes = below(&status.completed_indexes);
        status.succeeded = u32::try_from(status.completed_indexes.count()).unwrap_or(u32::MAX);
    }
    if status.failed_indexes.last().is_some_and(|last| last >= completions) {
        status.failed_indexes = below(&status.failed_indexes);
    }
    status.index_failures.retain(|f| f.index < completions);
}
