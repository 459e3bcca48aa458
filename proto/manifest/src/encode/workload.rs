//! ReplicaSets and Deployments as values.

use bulkhead_types::{
    Condition, ConditionStatus, Deployment, DeploymentSpec, IntOrPercent, LabelOperator, LabelSelector,
    PodTemplate, ReplicaSet, ReplicaSetSpec,
};
use serde_json::{Value, json};

use super::{Fields, delivery, pod};

/// What is wanted of a ReplicaSet.
pub(super) fn replica_set_spec(spec: &ReplicaSetSpec) -> Value {
    Fields::new()
        .set("replicas", spec.replicas.into())
        .set("minReadySeconds", (spec.min_ready_ms / 1000).into())
        .set("selector", selector(&spec.selector))
        .set("template", template(&spec.template))
        .finish()
}

/// What is known of a ReplicaSet.
pub(super) fn replica_set_status(set: &ReplicaSet) -> Value {
    let fields = Fields::new()
        .set("observedGeneration", set.status.observed_generation.into())
        .set("replicas", set.status.replicas.into())
        .set("readyReplicas", set.status.ready_replicas.into())
        .set("availableReplicas", set.status.available_replicas.into())
        .list("conditions", conditions(set.status.failure.get().map_or(&[], std::slice::from_ref)));
    match set.spec.rollout_revision {
        0 => fields,
        revision => fields.set("rolloutRevision", revision.into()),
    }
    .finish()
}

/// What is wanted of a Deployment.
pub(super) fn deployment_spec(spec: &DeploymentSpec) -> Value {
    let strategy = delivery::strategy(spec);
    let fields = Fields::new()
        .set("replicas", spec.replicas.into())
        .set("minReadySeconds", (spec.min_ready_ms / 1000).into())
        .set("progressDeadlineSeconds", (spec.progress_deadline_ms / 1000).into())
        .set("revisionHistoryLimit", spec.revision_history_limit.into())
        .set("strategy", strategy)
        .set("selector", selector(&spec.selector))
        .set("template", template(&spec.template));
    let fields = if spec.paused { fields.set("paused", true.into()) } else { fields };
    if spec.stopped { fields.set("stopped", true.into()) } else { fields }.finish()
}

pub(super) fn share(value: IntOrPercent) -> Value {
    match value {
        IntOrPercent::Int(n) => n.into(),
        IntOrPercent::Percent(_) => value.to_string().into(),
    }
}

pub(super) fn selector(selector: &LabelSelector) -> Value {
    let requirements = selector.match_expressions.iter().map(|requirement| {
        let operator = match requirement.operator {
            LabelOperator::In => "In",
            LabelOperator::NotIn => "NotIn",
            LabelOperator::Exists => "Exists",
            LabelOperator::DoesNotExist => "DoesNotExist",
        };
        Fields::new()
            .text("key", &requirement.key)
            .text("operator", operator)
            .list("values", requirement.values.iter().map(|v| Value::from(v.as_str())))
            .finish()
    });
    Fields::new().map("matchLabels", &selector.match_labels).list("matchExpressions", requirements).finish()
}

pub(super) fn template(template: &PodTemplate) -> Value {
    let metadata =
        Fields::new().map("labels", &template.labels).map("annotations", &template.annotations).finish();
    json!({"metadata": metadata, "spec": pod::spec(&template.spec, template.spec.node_name.as_deref())})
}

/// Conditions of any workload.
pub(super) fn conditions(conditions: &[Condition]) -> impl Iterator<Item = Value> + '_ {
    conditions.iter().map(|condition| {
        Fields::new()
            .text("type", &condition.condition_type)
            .text("status", condition_status(condition.status))
            .nonempty("reason", &condition.reason)
            .nonempty("message", &condition.message)
            .time("lastTransitionTime", condition.last_transition_ms)
            .time("lastUpdateTime", condition.last_update_ms)
            .finish()
    })
}

/// `True`, `False` or `Unknown`.
pub(super) fn condition_status(status: ConditionStatus) -> &'static str {
    match status {
        ConditionStatus::True => "True",
        ConditionStatus::False => "False",
        ConditionStatus::Unknown => "Unknown",
    }
}

/// What is known of a Deployment.
pub(super) fn deployment_status(deployment: &Deployment) -> Value {
    let (spec, status) = (&deployment.spec, &deployment.status);
    let fields = Fields::new()
        .set("observedGeneration", status.observed_generation.into())
        .set("rolloutRevision", status.rollout_revision.into())
        .set("replicas", status.replicas.into())
        .set("updatedReplicas", status.updated_replicas.into())
        .set("readyReplicas", status.ready_replicas.into())
        .set("availableReplicas", status.available_replicas.into())
        .set("unavailableReplicas", status.unavailable_replicas.into())
        .set("collisionCount", status.collision_count.into())
        .list("conditions", conditions(&status.conditions));
    match (spec.delivery.get(), status.delivery.get()) {
        (Some(delivery), Some(found)) => {
            fields.set("delivery", self::delivery::status(found, delivery, spec.replicas))
        }
        _ => fields,
    }
    .finish()
}
