//! StatefulSets, DaemonSets and their ControllerRevisions.

use bulkhead_types::{
    ControllerRevision, DaemonSet, DaemonSetSpec, DaemonSetStatus, DaemonSetUpdateStrategy,
    PodManagementPolicy, StatefulSet, StatefulSetSpec, StatefulSetStatus, StatefulSetUpdateStrategy,
};

use super::{wire_enum, wire_field, wire_field_or_default, wire_oneof, wire_struct, wire_variant_message};
use crate::v1;
use crate::v1::{daemon_set_update_strategy, stateful_set_update_strategy};

wire_enum!(PodManagementPolicy { OrderedReady, Parallel });

wire_struct!(StatefulSet => v1::StatefulSet { meta, spec, status });
wire_struct!(StatefulSetSpec => v1::StatefulSetSpec {
    replicas, ordinals_start, selector, template, service_name, pod_management_policy, update_strategy,
    min_ready_ms, revision_history_limit, stopped, claims,
});
wire_struct!(StatefulSetStatus => v1::StatefulSetStatus {
    observed_generation, replicas, ready_replicas, available_replicas, current_replicas, updated_replicas,
    current_revision, update_revision, collision_count, conditions,
});
wire_struct!(DaemonSet => v1::DaemonSet { meta, spec, status });
wire_struct!(DaemonSetSpec => v1::DaemonSetSpec {
    selector, template, update_strategy, min_ready_ms, revision_history_limit,
});
wire_struct!(DaemonSetStatus => v1::DaemonSetStatus {
    observed_generation, desired_number_scheduled, current_number_scheduled, number_misscheduled, number_ready,
    number_available, number_unavailable, updated_number_scheduled, update_revision, collision_count, conditions,
});
wire_struct!(ControllerRevision => v1::ControllerRevision { meta, revision, template });

wire_oneof!(StatefulSetUpdateStrategy => stateful_set_update_strategy {
    values {}
    messages {
        RollingUpdate "rolling_update" { partition, max_unavailable }
        OnDelete "on_delete" {}
    }
});
wire_oneof!(DaemonSetUpdateStrategy => daemon_set_update_strategy {
    values {}
    messages {
        RollingUpdate "rolling_update" { max_unavailable, max_surge }
        OnDelete "on_delete" {}
    }
});
wire_variant_message! {
    StatefulSetUpdateStrategy => v1::StatefulSetUpdateStrategy,
    DaemonSetUpdateStrategy => v1::DaemonSetUpdateStrategy,
}

wire_field! {
    StatefulSet => v1::StatefulSet,
    StatefulSetSpec => v1::StatefulSetSpec,
    DaemonSet => v1::DaemonSet,
    DaemonSetSpec => v1::DaemonSetSpec,
    ControllerRevision => v1::ControllerRevision,
}
wire_field_or_default! {
    StatefulSetStatus => v1::StatefulSetStatus,
    DaemonSetStatus => v1::DaemonSetStatus,
}
