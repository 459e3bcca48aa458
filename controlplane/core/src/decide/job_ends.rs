//! Ends of pods of Jobs: each is judged and counted by the command that brings it about.
//!
//! Source: "Pod failure policy" in the Kubernetes documentation. A pod has the condition `DisruptionTarget` when its
//! end was asked for by anybody but its Job (drain, eviction, lost node, deletion by a user), or when its node was
//! deleted under it.

use bulkhead_types::{
    ConditionStatus, ContainerState, EventKind, ExitCodeOperator, ExitCodeRequirement, Job, Kind,
    POD_DISRUPTION_TARGET, Pod, PodEnd, PodFailureAction, PodFailureRule, PodPhase, PodStatus,
};

use super::Emit;
use crate::State;
use crate::owned_pod::completion_index;

/// Counts the end of a pod, if it has a Job and was not counted before. `status` is what its agent last said of it,
/// now that it ends; `None` when nobody said anything. `by_job`: its Job asked for the end just now.
pub(super) fn count(state: &State, pod: &Pod, status: Option<&PodStatus>, by_job: bool, emit: &mut Emit<'_>) {
    let owner = pod.meta.owner.filter(|owner| owner.kind == Kind::Job);
    let Some(job) = owner.and_then(|owner| state.jobs.get(owner.id)) else { return };
    if pod.status.phase.is_terminal() {
        return;
    }
    let stopped = by_job || pod.meta.deletion.as_ref().is_some_and(|deletion| deletion.by_job);
    let (end, message) = match status {
        _ if stopped => (PodEnd::Stopped, String::new()),
        Some(status) if status.phase == PodPhase::Succeeded => (PodEnd::Succeeded, String::new()),
        // A pod that failed by itself before somebody asked for its end would have been counted then.
        _ => judge(job, pod, status, pod.meta.is_deleting() || status.is_none()),
    };
    emit.push(EventKind::JobPodEnded { job: job.meta.id, end, index: completion_index(pod), message });
}

/// What a failure means: the first rule that matches counts.
fn judge(job: &Job, pod: &Pod, status: Option<&PodStatus>, disrupted: bool) -> (PodEnd, String) {
    for (position, rule) in job.spec.pod_failure_policy.iter().enumerate() {
        let Some(what) = matches(rule, pod, status, disrupted) else { continue };
        return match rule.action {
            PodFailureAction::FailJob => {
                (PodEnd::FailedJob, format!("{what} matching FailJob rule at index {position}"))
            }
            PodFailureAction::FailIndex => (PodEnd::FailedIndex, String::new()),
            PodFailureAction::Ignore => (PodEnd::Ignored, String::new()),
            PodFailureAction::Count => (PodEnd::Failed, String::new()),
        };
    }
    (PodEnd::Failed, String::new())
}

/// By what a rule matches, for people.
fn matches(rule: &PodFailureRule, pod: &Pod, status: Option<&PodStatus>, disrupted: bool) -> Option<String> {
    let namespace = pod.meta.namespace.as_ref().map_or("", |name| name.as_str());
    let name = format!("{namespace}/{}", pod.meta.name);
    if let Some(codes) = &rule.on_exit_codes {
        let (container, code) = failed_container(codes, status?)?;
        return Some(format!("Container {container} for pod {name} failed with exit code {code}"));
    }
    let is_so = rule.on_pod_conditions.iter().any(|pattern| {
        pattern.condition_type == POD_DISRUPTION_TARGET && pattern.status == ConditionStatus::True
    });
    (is_so && disrupted).then(|| format!("Pod {name} has condition {POD_DISRUPTION_TARGET}"))
}

/// The first container that failed with a code that is looked for.
fn failed_container<'a>(codes: &ExitCodeRequirement, status: &'a PodStatus) -> Option<(&'a str, i32)> {
    let of_name = |name: &str| codes.container_name.as_ref().is_none_or(|wanted| wanted == name);
    let containers = status.init_containers.iter().chain(&status.containers).filter(|c| of_name(&c.name));
    let ended = containers.filter_map(|container| match &container.state {
        ContainerState::Terminated(end) => Some((container.name.as_str(), end.exit_code)),
        _ => None,
    });
    ended.filter(|(_, code)| *code != 0).find(|(_, code)| match codes.operator {
        ExitCodeOperator::In => codes.values.contains(code),
        ExitCodeOperator::NotIn => !codes.values.contains(code),
    })
}
