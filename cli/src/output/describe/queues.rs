//! PodGroups and Queues in full.

use bulkhead_types::{Measure, PodGroup, Queue, QuotaAmounts, QuotaResource};

use super::{Page, conditions};
use crate::time::{age, short};

fn name(resource: &QuotaResource) -> String {
    match resource.measure() {
        Measure::Extended(name) => name.to_string(),
        _ => resource.name(),
    }
}

fn amounts(amounts: &QuotaAmounts) -> String {
    let parts = amounts
        .iter()
        .map(|(resource, amount)| format!("{} {}", name(resource), resource.measure().format_amount(amount)));
    let text = parts.collect::<Vec<_>>().join(", ");
    if text.is_empty() { "<none>".to_owned() } else { text }
}

pub(super) fn pod_group(page: &mut Page, group: &PodGroup) {
    let (spec, status) = (&group.spec, &group.status);
    page.line("Phase", status.phase.as_str());
    page.line("Min members", spec.min_member.to_string());
    if !spec.min_task_member.is_empty() {
        let tasks = spec.min_task_member.iter().map(|(task, least)| format!("{task} {least}"));
        page.line("Min by role", tasks.collect::<Vec<_>>().join(", "));
    }
    page.line("Min resources", amounts(&spec.min_resources));
    page.line("Queue", spec.queue.as_str());
    if let Some(class) = &spec.priority_class_name {
        page.line("Priority class", class.as_str());
    }
    if let Some(timeout_ms) = spec.schedule_timeout_ms {
        page.line("Time-out", short(timeout_ms / 1000));
    }
    let figures = format!(
        "{} pending, {} running, {} succeeded, {} failed",
        status.pending, status.running, status.succeeded, status.failed
    );
    page.line("Pods", figures);
    if status.waiting_since_ms > 0 {
        page.line("Waiting for", age(status.waiting_since_ms));
    }
    conditions(page, &status.conditions);
}

pub(super) fn queue(page: &mut Page, queue: &Queue) {
    let (spec, status) = (&queue.spec, &queue.status);
    let state = if status.observed_generation == 0 { spec.state } else { status.state };
    page.line("State", state.as_str());
    page.line("Weight", spec.weight.to_string());
    page.line("Capability", amounts(&spec.capability));
    page.line("Allocated", amounts(&status.allocated));
    let figures = format!(
        "{} pending, {} inqueue, {} running, {} unknown, {} completed",
        status.pending, status.inqueue, status.running, status.unknown, status.completed
    );
    page.line("Pod groups", figures);
}
