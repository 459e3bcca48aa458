//! PodGroups and Queues.

use std::collections::BTreeMap;

use bulkhead_types::{
    POD_GROUP_TASKS_MAX, PodGroup, PodGroupPhase, PodGroupSpec, PodGroupStatus, QUEUE_DEFAULT,
    QUEUE_WEIGHT_DEFAULT, QUOTA_RESOURCES_MAX, Queue, QueueSpec, QueueState, QueueStatus,
};
use smol_str::SmolStr;

use super::{ConvertError, Field, wire_enum, wire_field, wire_field_or_default, wire_struct};
use crate::v1;

wire_enum! {
    PodGroupPhase { Pending, Inqueue, Running, Unknown, Completed }
    QueueState { Open, Closed, Closing }
}

wire_struct!(PodGroup => v1::PodGroup { meta, spec, status });
wire_struct!(PodGroupSpec => v1::PodGroupSpec {
    min_member, min_task_member (POD_GROUP_TASKS_MAX), min_resources (QUOTA_RESOURCES_MAX), queue,
    priority_class_name, schedule_timeout_ms,
});
wire_struct!(PodGroupStatus => v1::PodGroupStatus {
    observed_generation, phase, conditions, pending, running, succeeded, failed, waiting_since_ms,
    backoff_until_ms,
});
wire_struct!(Queue => v1::Queue { meta, spec, status });
wire_struct!(QueueSpec => v1::QueueSpec { weight, capability (QUOTA_RESOURCES_MAX), state });
wire_struct!(QueueStatus => v1::QueueStatus {
    observed_generation, state, allocated, pending, inqueue, running, unknown, completed,
});

wire_field! {
    PodGroup => v1::PodGroup,
    PodGroupSpec => v1::PodGroupSpec,
    Queue => v1::Queue,
    QueueSpec => v1::QueueSpec,
}
wire_field_or_default! {
    PodGroupStatus => v1::PodGroupStatus,
    QueueStatus => v1::QueueStatus,
}

/// Each role once.
impl Field<Vec<v1::TaskMinimum>> for BTreeMap<SmolStr, u32> {
    fn to_wire(&self) -> Vec<v1::TaskMinimum> {
        self.iter().map(|(task, least)| v1::TaskMinimum { task: task.to_string(), least: *least }).collect()
    }
    fn from_wire(wire: Vec<v1::TaskMinimum>) -> Result<Self, ConvertError> {
        let mut tasks = Self::new();
        for (index, v1::TaskMinimum { task, least }) in wire.into_iter().enumerate() {
            if tasks.insert(task.as_str().into(), least).is_some() {
                return Err(ConvertError::new(format!("repeats {task:?}")).within("task").at(index));
            }
        }
        Ok(tasks)
    }
}

/// Defaults of what clients submit.
pub(super) fn default_pod_group_spec(spec: &mut v1::PodGroupSpec) {
    spec.min_member.get_or_insert(1);
    if spec.queue.is_empty() {
        QUEUE_DEFAULT.clone_into(&mut spec.queue);
    }
}

/// The same.
pub(super) fn default_queue_spec(spec: &mut v1::QueueSpec) {
    spec.weight.get_or_insert(QUEUE_WEIGHT_DEFAULT);
    super::defaults::default(&mut spec.state, v1::QueueState::Open);
}
