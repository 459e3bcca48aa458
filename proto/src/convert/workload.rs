//! ReplicaSets and Deployments.

use bulkhead_types::{
    BatchPause, CANARY_STEPS_MAX, CanaryStep, Condition, ConditionStatus, Delivery, DeliveryStatus,
    Deployment, DeploymentSpec, DeploymentStatus, DeploymentStrategy, FAILURE_LIMIT_MAX, IntOrPercent,
    ReplicaSet, ReplicaSetSpec, ReplicaSetStatus,
};

use super::{wire_enum, wire_field, wire_field_or_default, wire_oneof, wire_struct, wire_variant_message};
use crate::v1;
use crate::v1::{canary_step, delivery, deployment_strategy, int_or_percent};

wire_enum!(ConditionStatus { True, False, Unknown });

wire_struct!(ReplicaSet => v1::ReplicaSet { meta, spec, status });
wire_struct!(ReplicaSetSpec => v1::ReplicaSetSpec {
    replicas, min_ready_ms, selector, template, rollout_revision,
});
wire_struct!(ReplicaSetStatus => v1::ReplicaSetStatus {
    observed_generation, replicas, ready_replicas, available_replicas, failure,
});
wire_struct!(Deployment => v1::Deployment { meta, spec, status });
wire_struct!(DeploymentSpec => v1::DeploymentSpec {
    replicas, selector, template, strategy, min_ready_ms, progress_deadline_ms, revision_history_limit,
    paused, stopped, delivery,
});
wire_struct!(DeploymentStatus => v1::DeploymentStatus {
    observed_generation, rollout_revision, replicas, updated_replicas, ready_replicas, available_replicas,
    unavailable_replicas, collision_count, conditions, delivery,
});
wire_struct!(DeliveryStatus => v1::DeliveryStatus {
    stable, update, step, step_started_ms, abort_reason, failed_pods (FAILURE_LIMIT_MAX as usize + 1),
});
wire_struct!(BatchPause => v1::BatchPause { duration_ms });
wire_oneof!(Delivery => delivery {
    values {}
    messages {
        Batches "batches" { partition, size, pause }
        Canary "canary" { steps (CANARY_STEPS_MAX), failure_limit }
        BlueGreen "blue_green" { auto_promotion_ms, scale_down_delay_ms, preview_replicas }
    }
});
wire_oneof!(CanaryStep => canary_step {
    values {}
    messages {
        SetReplicas "set_replicas" { replicas }
        Pause "pause" { duration_ms }
    }
});
wire_struct!(Condition => v1::Condition {
    condition_type, status, reason, message, last_transition_ms, last_update_ms,
});

wire_oneof!(IntOrPercent => int_or_percent {
    values { Int "int", Percent "percent" }
    messages {}
});
wire_oneof!(DeploymentStrategy => deployment_strategy {
    values {}
    messages {
        RollingUpdate "rolling_update" { max_surge, max_unavailable }
        Recreate "recreate" {}
    }
});
wire_variant_message! {
    IntOrPercent => v1::IntOrPercent,
    DeploymentStrategy => v1::DeploymentStrategy,
    Delivery => v1::Delivery,
    CanaryStep => v1::CanaryStep,
}

wire_field! {
    ReplicaSet => v1::ReplicaSet,
    ReplicaSetSpec => v1::ReplicaSetSpec,
    Deployment => v1::Deployment,
    DeploymentSpec => v1::DeploymentSpec,
    Condition => v1::Condition,
    BatchPause => v1::BatchPause,
    DeliveryStatus => v1::DeliveryStatus,
}
wire_field_or_default! {
    ReplicaSetStatus => v1::ReplicaSetStatus,
    DeploymentStatus => v1::DeploymentStatus,
}
