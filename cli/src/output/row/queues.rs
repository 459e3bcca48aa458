//! PodGroups and Queues in a row.

use bulkhead_types::{PodGroup, Queue};

use crate::time::age;

/// Cells of a group: its phase, minimum, how many have a node, its queue.
pub(super) fn pod_group(group: &PodGroup) -> Vec<String> {
    let (spec, status) = (&group.spec, &group.status);
    vec![
        status.phase.as_str().to_owned(),
        spec.min_member.to_string(),
        (status.running + status.succeeded).to_string(),
        status.pending.to_string(),
        spec.queue.to_string(),
        age(group.meta.created_at_ms),
    ]
}

/// Cells of a queue: its state, weight, and PodGroups by phase.
pub(super) fn queue(queue: &Queue) -> Vec<String> {
    let (spec, status) = (&queue.spec, &queue.status);
    // Before somebody has looked: what is wanted.
    let state = if status.observed_generation == 0 { spec.state } else { status.state };
    let figures = [spec.weight, status.running, status.inqueue, status.pending];
    let figures = figures.map(|figure| figure.to_string());
    let state = vec![state.as_str().to_owned()];
    [state, figures.to_vec(), vec![age(queue.meta.created_at_ms)]].concat()
}
