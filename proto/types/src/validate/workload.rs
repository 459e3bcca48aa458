//! Rules for ReplicaSets, Deployments, StatefulSets and DaemonSets.

use super::{
    DURATION_MS_MAX, Path, REVISION_HISTORY_LIMIT_MAX, Report, SURGE_PERCENT_MAX, annotations, claim, device,
    labels, map_bytes, pod,
};
use crate::{
    CANARY_STEPS_MAX, CanaryStep, DaemonSetSpec, DaemonSetUpdateStrategy, Delivery, DeploymentSpec,
    DeploymentStrategy, FAILURE_LIMIT_MAX, IntOrPercent, LabelOperator, LabelSelector, NAME_LENGTH_MAX, Name,
    ORDINAL_MAX, PodTemplate, REPLICAS_MAX, REQUIREMENTS_MAX, ReplicaSetSpec, RestartPolicy, StatefulSetSpec,
    StatefulSetUpdateStrategy, check_label_key, check_label_value,
};

/// Checks what is wanted of a ReplicaSet.
pub(super) fn replica_set(spec: &ReplicaSetSpec, path: &Path<'_>, report: &mut Report) {
    replicas(spec.replicas, path, report);
    claim::alone(spec.replicas, &spec.template.spec, &path.field("replicas"), report);
    report.duration(&path.field("minReadySeconds"), spec.min_ready_ms);
    selector(&spec.selector, &path.field("selector"), report);
    template(&spec.template, &spec.selector, path, report);
}

/// Checks what is wanted of a Deployment.
pub(super) fn deployment(spec: &DeploymentSpec, path: &Path<'_>, report: &mut Report) {
    replicas(spec.replicas, path, report);
    claim::alone(spec.replicas, &spec.template.spec, &path.field("replicas"), report);
    claim::surge(spec, path, report);
    report.duration(&path.field("minReadySeconds"), spec.min_ready_ms);
    report.duration(&path.field("progressDeadlineSeconds"), spec.progress_deadline_ms);
    if spec.min_ready_ms <= DURATION_MS_MAX && spec.progress_deadline_ms <= spec.min_ready_ms {
        report.push(
            &path.field("progressDeadlineSeconds"),
            format!("must be greater than minReadySeconds ({})", spec.min_ready_ms / 1000),
        );
    }
    history_limit(spec.revision_history_limit, path, report);
    let part = match spec.delivery.get() {
        Some(Delivery::Canary { .. }) => "canary",
        _ => "rollingUpdate",
    };
    strategy(spec.strategy, part, &path.field("strategy"), report);
    if let Some(found) = spec.delivery.get() {
        let is_recreate = spec.strategy == DeploymentStrategy::Recreate;
        delivery(found, is_recreate, &path.field("strategy"), report);
    }
    selector(&spec.selector, &path.field("selector"), report);
    template(&spec.template, &spec.selector, path, report);
}

/// Checks what is wanted of a StatefulSet.
pub(super) fn stateful_set(name: &Name, spec: &StatefulSetSpec, path: &Path<'_>, report: &mut Report) {
    replicas(spec.replicas, path, report);
    claim::templates(name, spec, path, report);
    let ordinal = spec.ordinals().next_back().unwrap_or(0);
    if Name::new(format!("{name}-{ordinal}")).is_err() {
        let reason = format!(
            "{name}-{ordinal} would be too long for a pod's name: at most {NAME_LENGTH_MAX} characters"
        );
        report.push(&Path::Root.field("metadata").field("name"), reason);
    }
    let last = u64::from(spec.ordinals_start) + u64::from(spec.replicas);
    if last > u64::from(ORDINAL_MAX) {
        let reason = format!("the last ordinal would be {last}: at most {ORDINAL_MAX} is allowed");
        report.push(&path.field("ordinals").field("start"), reason);
    }
    if !spec.service_name.is_empty() {
        report.check(&path.field("serviceName"), Name::new(&spec.service_name).map(drop));
    }
    if let StatefulSetUpdateStrategy::RollingUpdate { max_unavailable, .. } = spec.update_strategy {
        let strategy = path.field("updateStrategy");
        let rolling = strategy.field("rollingUpdate");
        let path = rolling.field("maxUnavailable");
        bound(max_unavailable, 100, &path, report);
        if is_zero(max_unavailable) {
            report.push(&path, "must not be 0: a rollout could never move");
        }
    }
    report.duration(&path.field("minReadySeconds"), spec.min_ready_ms);
    history_limit(spec.revision_history_limit, path, report);
    selector(&spec.selector, &path.field("selector"), report);
    // As its pods are: mounts may name the volumes of their own claims.
    let own = PodTemplate {
        spec: spec.with_claims(&spec.template.spec, name, spec.ordinals_start),
        ..spec.template.clone()
    };
    claim::set_alone(spec, path, report);
    template(&own, &spec.selector, path, report);
}

/// Checks what is wanted of a DaemonSet.
pub(super) fn daemon_set(spec: &DaemonSetSpec, path: &Path<'_>, report: &mut Report) {
    let remedy = "it would hold some on every node for ever; use a Deployment";
    let of_pods = path.field("template");
    device::none(&spec.template.spec, "DaemonSet", remedy, &of_pods.field("spec"), report);
    if let DaemonSetUpdateStrategy::RollingUpdate { max_unavailable, max_surge } = spec.update_strategy {
        let strategy = path.field("updateStrategy");
        let path = strategy.field("rollingUpdate");
        bound(max_unavailable, 100, &path.field("maxUnavailable"), report);
        bound(max_surge, 100, &path.field("maxSurge"), report);
        let reason = match (is_zero(max_unavailable), is_zero(max_surge)) {
            (true, true) => Some("must not be 0 when maxSurge is 0: a rollout could never move"),
            (false, false) => {
                Some("must be 0 when maxSurge is set: a node has either no pod or two for a while")
            }
            _ => None,
        };
        reason.into_iter().for_each(|reason| report.push(&path.field("maxUnavailable"), reason));
    }
    report.duration(&path.field("minReadySeconds"), spec.min_ready_ms);
    history_limit(spec.revision_history_limit, path, report);
    selector(&spec.selector, &path.field("selector"), report);
    template(&spec.template, &spec.selector, path, report);
    let template = path.field("template");
    claim::daemon(&spec.template.spec, &template.field("spec"), report);
}

fn history_limit(limit: u32, path: &Path<'_>, report: &mut Report) {
    if limit > REVISION_HISTORY_LIMIT_MAX {
        report.push(
            &path.field("revisionHistoryLimit"),
            format!("must be at most {REVISION_HISTORY_LIMIT_MAX}"),
        );
    }
}

fn replicas(replicas: u32, path: &Path<'_>, report: &mut Report) {
    if replicas > REPLICAS_MAX {
        report.push(&path.field("replicas"), format!("must be at most {REPLICAS_MAX}"));
    }
}

fn strategy(strategy: DeploymentStrategy, part: &'static str, path: &Path<'_>, report: &mut Report) {
    let DeploymentStrategy::RollingUpdate { max_surge, max_unavailable } = strategy else { return };
    let path = path.field(part);
    for (field, value, percent_max) in
        [("maxSurge", max_surge, SURGE_PERCENT_MAX), ("maxUnavailable", max_unavailable, 100)]
    {
        bound(value, percent_max, &path.field(field), report);
    }
    if is_zero(max_surge) && is_zero(max_unavailable) {
        report.push(
            &path.field("maxUnavailable"),
            "must not be 0 when maxSurge is 0: a rollout could never move",
        );
    }
}

fn delivery(delivery: &Delivery, is_recreate: bool, path: &Path<'_>, report: &mut Report) {
    if is_recreate {
        report.push(path, "Recreate has no steps: all old pods end before the first new one starts");
    }
    match delivery {
        Delivery::Batches { partition, size, pause } => {
            let path = path.field("rollingUpdate");
            bound(*partition, 100, &path.field("partition"), report);
            let path = path.field("batch");
            if let Some(size) = size {
                bound(*size, 100, &path.field("size"), report);
                if is_zero(*size) {
                    report.push(&path.field("size"), "must not be 0: a rollout could never move");
                }
            } else if pause.is_some() {
                report.push(&path.field("size"), "is required: a pause is between batches");
            }
            let pause_ms = pause.and_then(|pause| pause.duration_ms).unwrap_or(0);
            report.duration(&path.field("pause").field("durationSeconds"), pause_ms);
        }
        Delivery::Canary { steps, failure_limit } => {
            let path = path.field("canary");
            report.at_most(&path.field("steps"), "steps", steps.len(), CANARY_STEPS_MAX);
            for (index, step) in steps.iter().enumerate() {
                let path = path.field("steps");
                let path = path.index(index);
                match *step {
                    CanaryStep::SetReplicas { replicas } => {
                        bound(replicas, 100, &path.field("setReplicas"), report);
                    }
                    CanaryStep::Pause { duration_ms } => {
                        let path = path.field("pause");
                        report.duration(&path.field("durationSeconds"), duration_ms.unwrap_or(0));
                    }
                }
            }
            if *failure_limit > FAILURE_LIMIT_MAX {
                report.push(&path.field("failureLimit"), format!("must be at most {FAILURE_LIMIT_MAX}"));
            }
        }
        Delivery::BlueGreen { auto_promotion_ms, scale_down_delay_ms, preview_replicas } => {
            let path = path.field("blueGreen");
            report.duration(&path.field("autoPromotionSeconds"), auto_promotion_ms.unwrap_or(0));
            report.duration(&path.field("scaleDownDelaySeconds"), *scale_down_delay_ms);
            if preview_replicas.is_some_and(|replicas| replicas == 0 || replicas > REPLICAS_MAX) {
                report.push(&path.field("previewReplicas"), format!("must be from 1 to {REPLICAS_MAX}"));
            }
        }
    }
}

fn is_zero(value: IntOrPercent) -> bool {
    matches!(value, IntOrPercent::Int(0) | IntOrPercent::Percent(0))
}

fn bound(value: IntOrPercent, percent_max: u32, path: &Path<'_>, report: &mut Report) {
    match value {
        IntOrPercent::Int(n) if n > REPLICAS_MAX => {
            report.push(path, format!("must be at most {REPLICAS_MAX}"));
        }
        IntOrPercent::Percent(p) if p > percent_max => {
            report.push(path, format!("must be at most {percent_max}%"));
        }
        _ => {}
    }
}

pub(super) fn selector(selector: &LabelSelector, path: &Path<'_>, report: &mut Report) {
    let requirements = selector.match_labels.len() + selector.match_expressions.len();
    if requirements == 0 {
        report.push(path, "is required: an empty selector would take every pod of the namespace");
    }
    self::requirements(selector, path, report);
}

/// Checks a selector's requirements, of which there may be none.
pub(super) fn requirements(selector: &LabelSelector, path: &Path<'_>, report: &mut Report) {
    let requirements = selector.match_labels.len() + selector.match_expressions.len();
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
    if template.spec.restart_policy != RestartPolicy::Always {
        let spec = path.field("spec");
        report.push(&spec.field("restartPolicy"), "must be Always: a workload keeps its pods running");
    }
    template_content(template, &path, report);
}

/// Checks a template's labels, annotations and pod.
pub(super) fn template_content(template: &PodTemplate, path: &Path<'_>, report: &mut Report) {
    let metadata = path.field("metadata");
    labels(&template.labels, &metadata.field("labels"), report);
    annotations(&template.annotations, &metadata.field("annotations"), report);
    pod::spec(&template.spec, &path.field("spec"), report);
}

/// Bytes of a template, roughly.
pub(super) fn template_bytes(template: &PodTemplate) -> usize {
    map_bytes(&template.labels) + map_bytes(&template.annotations) + pod::bytes(&template.spec)
}
