//! PodGroups and Queues as values.

use bulkhead_types::{
    Measure, PodGroupSpec, PodGroupStatus, QueueSpec, QueueStatus, QuotaAmounts, QuotaResource,
};
use serde_json::{Map, Value};

use super::Fields;
use super::workload::conditions;

/// What is wanted of a group.
pub(super) fn pod_group_spec(spec: &PodGroupSpec) -> Value {
    let tasks = spec.min_task_member.iter().map(|(task, least)| (task.to_string(), Value::from(*least)));
    let tasks: Map<_, _> = tasks.collect();
    Fields::new()
        .set("minMember", spec.min_member.into())
        .maybe("minTaskMember", (!tasks.is_empty()).then_some(Value::Object(tasks)))
        .maybe("minResources", some_amounts(&spec.min_resources))
        .text("queue", spec.queue.as_str())
        .optional("priorityClassName", spec.priority_class_name.as_ref().map(|name| name.as_str()))
        .number("scheduleTimeoutSeconds", spec.schedule_timeout_ms.map(|ms| ms / 1000))
        .finish()
}

/// What is known of a group.
pub(super) fn pod_group_status(status: &PodGroupStatus) -> Value {
    Fields::new()
        .set("observedGeneration", status.observed_generation.into())
        .text("phase", status.phase.as_str())
        .set("pending", status.pending.into())
        .set("running", status.running.into())
        .set("succeeded", status.succeeded.into())
        .set("failed", status.failed.into())
        .time("waitingSince", status.waiting_since_ms)
        .time("backoffUntil", status.backoff_until_ms)
        .list("conditions", conditions(&status.conditions))
        .finish()
}

/// What is wanted of a queue.
pub(super) fn queue_spec(spec: &QueueSpec) -> Value {
    Fields::new()
        .set("weight", spec.weight.into())
        .maybe("capability", some_amounts(&spec.capability))
        .text("state", spec.state.as_str())
        .finish()
}

/// What is known of a queue.
pub(super) fn queue_status(status: &QueueStatus) -> Value {
    Fields::new()
        .set("observedGeneration", status.observed_generation.into())
        .text("state", status.state.as_str())
        .maybe("allocated", some_amounts(&status.allocated))
        .set("pending", status.pending.into())
        .set("inqueue", status.inqueue.into())
        .set("running", status.running.into())
        .set("unknown", status.unknown.into())
        .set("completed", status.completed.into())
        .finish()
}

/// Amounts by resource; `None` of none.
pub(super) fn some_amounts(amounts: &QuotaAmounts) -> Option<Value> {
    let name = |resource: &QuotaResource| match resource.measure() {
        Measure::Extended(name) => name.to_string(),
        _ => resource.name(),
    };
    let entries = amounts
        .iter()
        .map(|(resource, amount)| (name(resource), Value::from(resource.measure().format_amount(amount))));
    (!amounts.is_empty()).then(|| Value::Object(entries.collect::<Map<_, _>>()))
}
