//! Rules for ReplicaSets and Deployments.

use super::{
    DURATION_MS_MAX, Path, REVISION_HISTORY_LIMIT_MAX, Report, SURGE_PERCENT_MAX, annotations, labels,
    map_bytes, pod,
};
use crate::{
    DeploymentSpec, DeploymentStrategy, IntOrPercent, LabelOperator, LabelSelector, PodTemplate,
    REPLICAS_MAX, REQUIREMENTS_MAX, ReplicaSetSpec, RestartPolicy, check_label_key, check_label_value,
};

/// Checks what is wanted of a ReplicaSet.
pub(super) fn replica_set(spec: &ReplicaSetSpec, path: &Path<'_>, report: &mut Report) {
    replicas(spec.replicas, path, report);
    report.duration(&path.field("minReadySeconds"), spec.min_ready_ms);
    selector(&spec.selector, &path.field("selector"), report);
    template(&spec.template, &spec.selector, path, report);
}

/// Checks what is wanted of a Deployment.
pub(super) fn deployment(spec: &DeploymentSpec, path: &Path<'_>, report: &mut Report) {
    replicas(spec.replicas, path, report);
    report.duration(&path.field("minReadySeconds"), spec.min_ready_ms);
    report.duration(&path.field("progressDeadlineSeconds"), spec.progress_deadline_ms);
    if spec.min_ready_ms <= DURATION_MS_MAX && spec.progress_deadline_ms <= spec.min_ready_ms {
        report.push(
            &path.field("progressDeadlineSeconds"),
            format!("must be greater than minReadySeconds ({})", spec.min_ready_ms / 1000),
        );
    }
    if spec.revision_history_limit > REVISION_HISTORY_LIMIT_MAX {
        report.push(
            &path.field("revisionHistoryLimit"),
            format!("must be at most {REVISION_HISTORY_LIMIT_MAX}"),
        );
    }
    strategy(spec.strategy, &path.field("strategy"), report);
    selector(&spec.selector, &path.field("selector"), report);
    template(&spec.template, &spec.selector, path, report);
}

fn replicas(replicas: u32, path: &Path<'_>, report: &mut Report) {
    if replicas > REPLICAS_MAX {
        report.push(&path.field("replicas"), format!("must be at most {REPLICAS_MAX}"));
    }
}

fn strategy(strategy: DeploymentStrategy, path: &Path<'_>, report: &mut Report) {
    let DeploymentStrategy::RollingUpdate { max_surge, max_unavailable } = strategy else { return };
    let path = path.field("rollingUpdate");
    for (field, value, percent_max) in
        [("maxSurge", max_surge, SURGE_PERCENT_MAX), ("maxUnavailable", max_unavailable, 100)]
    {
        match value {
            IntOrPercent::Int(n) if n > REPLICAS_MAX => {
                report.push(&path.field(field), format!("must be at most {REPLICAS_MAX}"));
            }
            IntOrPercent::Percent(p) if p > percent_max => {
                report.push(&path.field(field), format!("must be at most {percent_max}%"));
            }
            _ => {}
        }
    }
    let is_zero = |v| matches!(v, IntOrPercent::Int(0) | IntOrPercent::Percent(0));
    if is_zero(max_surge) && is_zero(max_unavailable) {
        report.push(
            &path.field("maxUnavailable"),
            "must not be 0 when maxSurge is 0: a rollout could never move",
        );
    }
}

fn selector(selector: &LabelSelector, path: &Path<'_>, report: &mut Report) {
    let requirements = selector.match_labels.len() + selector.match_expressions.len();
    if requirements == 0 {
        report.push(path, "is required: an empty selector would take every pod of the namespace");
    }
    report.at_most(path, "requirements", requirements, REQUIREMENTS_MAX);
    labels(&selector.match_labels, &path.field("matchLabels"), report);
    for (index, requirement) in selector.match_expressions.iter().enumerate() {
        let path = path.field("matchExpressions");
        let path = path.index(index);
        report.check(&path.field("key"), check_label_key(&requirement.key));
        for (index, value) in requirement.values.iter().enumerate() {
            report.check(&path.field("values").index(index), check_label_value(value));
        }
        match requirement.operator {
            LabelOperator::In | LabelOperator::NotIn if requirement.values.is_empty() => {
                report.push(&path.field("values"), "must have at least one value for In and NotIn");
            }
            LabelOperator::Exists | LabelOperator::DoesNotExist if !requirement.values.is_empty() => {
                report.push(&path.field("values"), "must be empty for Exists and DoesNotExist");
            }
            _ => {}
        }
    }
}

fn template(template: &PodTemplate, selector: &LabelSelector, path: &Path<'_>, report: &mut Report) {
    let path = path.field("template");
    let metadata = path.field("metadata");
    let is_empty = selector.match_labels.is_empty() && selector.match_expressions.is_empty();
    if !is_empty && !selector.matches(&template.labels) {
        report.push(&metadata.field("labels"), "spec.selector does not match the template's labels");
    }
    labels(&template.labels, &metadata.field("labels"), report);
    annotations(&template.annotations, &metadata.field("annotations"), report);
    let spec = path.field("spec");
    if template.spec.restart_policy != RestartPolicy::Always {
        report.push(&spec.field("restartPolicy"), "must be Always: a workload keeps its pods running");
    }
    pod::spec(&template.spec, &spec, report);
}

/// Bytes of a template, roughly.
pub(super) fn template_bytes(template: &PodTemplate) -> usize {
    map_bytes(&template.labels) + map_bytes(&template.annotations) + pod::bytes(&template.spec)
}
