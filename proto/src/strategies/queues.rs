//! PodGroups and Queues.

use super::*;

record!(/// Any wish for a group.
pod_group_spec: PodGroupSpec {
    min_member: any::<u32>(),
    min_task_member: proptest::collection::btree_map(small(), any::<u32>(), 0..3),
    min_resources: quota_amounts(), queue: name(), priority_class_name: of(name()),
    schedule_timeout_ms: of(any::<u64>()),
});

fn phase() -> impl Strategy<Value = PodGroupPhase> + Clone {
    use PodGroupPhase::{Completed, Inqueue, Pending, Running, Unknown};
    select(vec![Pending, Inqueue, Running, Unknown, Completed])
}

record!(/// Any status of a group.
pod_group_status: PodGroupStatus {
    observed_generation: any::<u64>(), phase: phase(), conditions: vec(condition(), 0..3),
    pending: any::<u32>(), running: any::<u32>(), succeeded: any::<u32>(), failed: any::<u32>(),
    waiting_since_ms: any::<u64>(), backoff_until_ms: any::<u64>(),
});
record!(/// Any PodGroup.
pod_group: PodGroup { meta: meta(), spec: pod_group_spec(), status: pod_group_status() });

fn queue_state() -> impl Strategy<Value = QueueState> + Clone {
    select(vec![QueueState::Open, QueueState::Closed, QueueState::Closing])
}

record!(/// Any wish for a queue.
queue_spec: QueueSpec { weight: any::<u32>(), capability: quota_amounts(), state: queue_state() });
record!(/// Any status of a queue.
queue_status: QueueStatus {
    observed_generation: any::<u64>(), state: queue_state(), allocated: quota_amounts(),
    pending: any::<u32>(), inqueue: any::<u32>(), running: any::<u32>(), unknown: any::<u32>(),
    completed: any::<u32>(),
});
record!(/// Any Queue.
queue: Queue { meta: meta(), spec: queue_spec(), status: queue_status() });
