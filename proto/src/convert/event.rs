//! Events and transactions.

use bulkhead_types::{Event, EventKind, ITEMS_MAX, RESIZED_CONTAINERS_MAX, Transaction};

use super::{ConvertError, Field, wire_field, wire_oneof, wire_struct};
use crate::v1;
use crate::v1::event;

wire_struct!(Transaction => v1::Transaction { request_id, actor, at_ms, trace_context, outcome, events });

wire_oneof!(EventKind => event {
    values { ObjectCreated "object_created", SpecChanged "spec_changed", PodBound "pod_bound" }
    messages {
        ClusterInitialized "cluster_initialized" { cluster_id, members (ITEMS_MAX) }
        FeatureLevelRaised "feature_level_raised" { level }
        MemberRegistered "member_registered" { member, storage_uid, address, version, feature_level_max }
        LearnerAdded "learner_added" { member, address }
        MemberPromoted "member_promoted" { member }
        MemberRemoved "member_removed" { member }

        MetaChanged "meta_changed" { kind, id, labels, annotations }
        ManagersChanged "managers_changed" { kind, id, managers }
        DeletionRequested "deletion_requested" { kind, id, deletion, reason }
        ObjectDeleted "object_deleted" { kind, id }
        StatusChanged "status_changed" { id, status }
        DevicesReported "devices_reported" { id, incarnation, report }
        DeviceLabelsSynced "device_labels_synced" { id, labels, record }
        ImagesReported "images_reported" { id, images }
        DeviceCordoned "device_cordoned" { id, device, cordoned }
        DeviceFaulted "device_faulted" { id, handled }

        DeploymentSpecChanged "deployment_spec_changed" { id, spec }
        DeploymentStatusChanged "deployment_status_changed" { id, status }
        DeliveryChanged "delivery_changed" { id, delivery }
        ReplicaSetSpecChanged "replica_set_spec_changed" { id, spec }
        ReplicaSetScaled "replica_set_scaled" { id, replicas }
        RolloutRevisionChanged "rollout_revision_changed" { id, rollout_revision }
        ReplicaSetStatusChanged "replica_set_status_changed" { id, status }
        ControllerRevisionChanged "controller_revision_changed" { id, revision }
        JobPodEnded "job_pod_ended" { job, end, index, message }

        OwnedPodCreated "owned_pod_created" { owner, stamp }
        PodCreated "pod_created" { replica_set, name }
        PodResized "pod_resized" { id, sizes (RESIZED_CONTAINERS_MAX), resize }
        PodStatusChanged "pod_status_changed" { id, status }

        NodeSpecChanged "node_spec_changed" { id, spec }
        NodeRegistered "node_registered" { id, incarnation, facts }
        NodePhaseChanged "node_phase_changed" { id, phase }
        NodePoolSynced "node_pool_synced" { id, labels, spec, record }
    }
});

impl From<&Event> for v1::Event {
    fn from(value: &Event) -> Self {
        Self { revision: value.revision, variant: value.kind.to_wire() }
    }
}

impl TryFrom<v1::Event> for Event {
    type Error = ConvertError;
    fn try_from(wire: v1::Event) -> Result<Self, ConvertError> {
        Ok(Self { revision: wire.revision, kind: EventKind::from_wire(wire.variant)? })
    }
}

wire_field!(Event => v1::Event, Transaction => v1::Transaction);
