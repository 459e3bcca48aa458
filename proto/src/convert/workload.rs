//! ReplicaSets and Deployments.

use bulkhead_types::{
    Condition, ConditionStatus, Deployment, DeploymentSpec, DeploymentStatus, DeploymentStrategy,
    IntOrPercent, ReplicaSet, ReplicaSetSpec, ReplicaSetStatus,
};

use super::{wire_enum, wire_field, wire_field_or_default, wire_oneof, wire_struct, wire_variant_message};
use crate::v1;
use crate::v1::{deployment_strategy, int_or_percent};

wire_enum!(ConditionStatus { True, False, Unknown });

wire_struct!(ReplicaSet => v1::ReplicaSet { meta, spec, status });
wire_struct!(ReplicaSetSpec => v1::ReplicaSetSpec {
    replicas, min_ready_ms, selector, template, rollout_revision,
});
wire_struct!(ReplicaSetStatus => v1::ReplicaSetStatus {
    observed_generation, replicas, ready_replicas, available_replicas,
});
wire_struct!(Deployment => v1::Deployment { meta, spec, status });
wire_struct!(DeploymentSpec => v1::DeploymentSpec {
    replicas, selector, template, strategy, min_ready_ms, progress_deadline_ms, revision_history_limit,
    paused, stopped,
});
wire_struct!(DeploymentStatus => v1::DeploymentStatus {
    observed_generation, rollout_revision, replicas, updated_replicas, ready_replicas, available_replicas,
    unavailable_replicas, collision_count, conditions,
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
}

wire_field! {
    ReplicaSet => v1::ReplicaSet,
    ReplicaSetSpec => v1::ReplicaSetSpec,
    Deployment => v1::Deployment,
    DeploymentSpec => v1::DeploymentSpec,
    Condition => v1::Condition,
}
wire_field_or_default! {
    ReplicaSetStatus => v1::ReplicaSetStatus,
    DeploymentStatus => v1::DeploymentStatus,
}
