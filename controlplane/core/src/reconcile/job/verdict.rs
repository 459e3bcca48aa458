//! Whether a Job has succeeded or failed.
//!
//! What was achieved counts before what ran out: a job whose last success and whose deadline fall between two looks
//! has succeeded, whoever looked when. Of the limits the deadline comes first (Kubernetes: "takes precedence over its
//! backoffLimit").

use bulkhead_types::{JOB_FAILURE_TARGET, Job, RestartPolicy, SuccessRule};

use crate::job_pods::{JobPods, is_indexed};

/// How a Job ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) success: bool,
    /// One CamelCase word (Kubernetes').
    pub(super) reason: String,
    /// The same for people.
    pub(super) message: String,
}

fn failure(reason: &str, message: &str) -> Option<Verdict> {
    Some(Verdict { success: false, reason: reason.to_owned(), message: message.to_owned() })
}

fn success(reason: &str, message: &str) -> Option<Verdict> {
    Some(Verdict { success: true, reason: reason.to_owned(), message: message.to_owned() })
}

/// How a Job that has not ended ends, if that is certain; what was said before stays said.
pub(super) fn find(job: &Job, pods: &JobPods, now_ms: u64) -> Option<Verdict> {
    if let Some(said) = job.verdict() {
        return Some(Verdict {
            success: said.condition_type != JOB_FAILURE_TARGET,
            reason: said.reason.to_string(),
            message: said.message.clone(),
        });
    }
    achieved(job, pods).or_else(|| exceeded(job, pods, now_ms))
}

fn achieved(job: &Job, pods: &JobPods) -> Option<Verdict> {
    let (spec, status) = (&job.spec, &job.status);
    let reached = match spec.completions {
        Some(completions) => status.succeeded >= completions,
        // A queue of work: the others finish what they have.
        None => status.succeeded > 0 && pods.active == 0 && pods.terminating == 0,
    };
    if reached {
        return success("CompletionsReached", "Reached expected number of succeeded pods");
    }
    let met = |rule: &SuccessRule| {
        let done = match &rule.succeeded_indexes {
            None => status.completed_indexes.count(),
            Some(indexes) => status.completed_indexes.iter().filter(|i| indexes.contains(*i)).count() as u64,
        };
        let all = rule.succeeded_indexes.as_ref().map(bulkhead_types::IndexSet::count);
        let needed = rule.succeeded_count.map(u64::from).or(all);
        needed.is_some_and(|needed| done >= needed)
    };
    let rule = spec.success_policy.iter().position(met).filter(|_| is_indexed(job))?;
    success("SuccessPolicy", &format!("Matched rules at index {rule}"))
}

fn exceeded(job: &Job, pods: &JobPods, now_ms: u64) -> Option<Verdict> {
    let (spec, status) = (&job.spec, &job.status);
    let deadline_ms = spec.active_deadline_ms.map(|ms| status.started_at_ms.saturating_add(ms));
    let runs = status.started_at_ms > 0 && !spec.suspend;
    if runs && deadline_ms.is_some_and(|at_ms| at_ms <= now_ms) {
        return failure("DeadlineExceeded", "Job was active longer than specified deadline");
    }
    let restarts = match spec.template.spec.restart_policy {
        RestartPolicy::OnFailure => pods.restarts,
        RestartPolicy::Never | RestartPolicy::Always => 0,
    };
    let too_often = restarts > 0 && restarts >= u64::from(spec.backoff_limit);
    if status.failed > spec.backoff_limit || too_often {
        return failure("BackoffLimitExceeded", "Job has reached the specified backoff limit");
    }
    let failed_indexes = status.failed_indexes.count();
    if spec.max_failed_indexes.is_some_and(|most| failed_indexes > u64::from(most)) {
        let message = "Job has exceeded the specified maximal number of failed indexes";
        return failure("MaxFailedIndexesExceeded", message);
    }
    let decided = u64::from(status.succeeded) + failed_indexes;
    if failed_indexes > 0 && spec.completions.is_some_and(|n| decided >= u64::from(n)) {
        return failure("FailedIndexes", "Job has failed indexes");
    }
    None
}
