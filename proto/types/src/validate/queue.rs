//! Rules for Queues, PodGroups, and how pods name them.

use super::{Path, Report};
use crate::{
    ANNOTATION_POD_GROUP, ANNOTATION_QUEUE_NAME, ANNOTATION_TASK_SPEC, Name, POD_GROUP_MIN_AVAILABLE_MAX,
    POD_GROUP_TASKS_MAX, PodGroupSpec, QUEUE_DEFAULT, QUEUE_WEIGHT_MAX, QUOTA_RESOURCES_MAX, Queue,
    QueueState, QuotaAmounts, SCHEDULE_TIMEOUT_MS_MAX, StringMap, check_label_value, group_of,
    is_counted_by_queues,
};

/// Checks what is wanted of a queue.
pub(super) fn queue(queue: &Queue, path: &Path<'_>, report: &mut Report) {
    let spec = &queue.spec;
    if !(1..=QUEUE_WEIGHT_MAX).contains(&spec.weight) {
        report.push(&path.field("weight"), format!("must be from 1 to {QUEUE_WEIGHT_MAX}"));
    }
    amounts(&spec.capability, &path.field("capability"), report);
    if spec.state == QueueState::Closing {
        report.push(&path.field("state"), "must be Open or Closed: a queue closes by itself");
    }
    if queue.meta.name.as_str() == QUEUE_DEFAULT {
        let reason = "must not be set: all pods that name no queue are of the queue default";
        if !spec.capability.is_empty() {
            report.push(&path.field("capability"), reason);
        }
        if spec.state != QueueState::Open {
            report.push(&path.field("state"), reason);
        }
    }
}

/// Checks what is wanted of a group.
pub(super) fn pod_group(spec: &PodGroupSpec, path: &Path<'_>, report: &mut Report) {
    let most = POD_GROUP_MIN_AVAILABLE_MAX;
    if !(1..=most).contains(&spec.min_member) {
        report.push(&path.field("minMember"), format!("must be from 1 to {most}"));
    }
    let tasks = path.field("minTaskMember");
    report.at_most(&tasks, "roles", spec.min_task_member.len(), POD_GROUP_TASKS_MAX);
    for (task, least) in &spec.min_task_member {
        if task.is_empty() {
            report.push(&tasks.key(task), "must have a name");
        }
        report.check(&tasks.key(task), check_label_value(task));
        if !(1..=most).contains(least) {
            report.push(&tasks.key(task), format!("must be from 1 to {most}"));
        }
    }
    let together: u64 = spec.min_task_member.values().map(|least| u64::from(*least)).sum();
    if together > u64::from(most) {
        report.push(&tasks, format!("is {together} together: at most {most} pods are placed together"));
    }
    amounts(&spec.min_resources, &path.field("minResources"), report);
    if let Some(timeout_ms) = spec.schedule_timeout_ms
        && !(1000..=SCHEDULE_TIMEOUT_MS_MAX).contains(&timeout_ms)
    {
        let reason = format!("must be from 1 to {}", SCHEDULE_TIMEOUT_MS_MAX / 1000);
        report.push(&path.field("scheduleTimeoutSeconds"), reason);
    }
}

fn amounts(amounts: &QuotaAmounts, path: &Path<'_>, report: &mut Report) {
    report.at_most(path, "resources", amounts.len(), QUOTA_RESOURCES_MAX);
    for (resource, amount) in amounts.iter() {
        if !is_counted_by_queues(resource.measure()) {
            let reason = "is not counted here: use cpu, memory, ephemeral-storage, pods, or the name of a device resource";
            report.push(&path.key(&resource.name()), reason);
        }
        if amount > i64::MAX as u64 {
            report.push(&path.key(&resource.name()), "must be below 2^63");
        }
    }
}

/// Checks how a pod, or the pods of a template, name their group, role and queue.
pub(super) fn names(labels: &StringMap, annotations: &StringMap, path: &Path<'_>, report: &mut Report) {
    let path = path.field("annotations");
    for key in [ANNOTATION_POD_GROUP, ANNOTATION_QUEUE_NAME] {
        if let Some(Err(error)) = annotations.get(key).map(|text| Name::new(text.as_str())) {
            report.push(&path.key(key), error.to_string());
        }
    }
    if let Some((label, annotation)) = group_of(labels).zip(annotations.get(ANNOTATION_POD_GROUP))
        && label.0 != annotation
    {
        let reason = format!("names another group than the labels do, which is {}", label.0);
        report.push(&path.key(ANNOTATION_POD_GROUP), reason);
    }
    if let Some(task) = annotations.get(ANNOTATION_TASK_SPEC) {
        report.check(&path.key(ANNOTATION_TASK_SPEC), check_label_value(task));
    }
}
