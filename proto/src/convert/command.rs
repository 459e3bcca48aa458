//! Commands and submissions as the log holds them.

use bulkhead_types::{
    Binding, COMMANDS_MAX, Command, DESCHEDULED_PER_RUN_MAX, DEVICES_PER_POD_MAX, ITEMS_MAX, MemberId,
    NETWORKS_PER_POD_MAX, Nomination, ObjectId, PodReport, Precondition, RESIZED_CONTAINERS_MAX, Stamped,
    VICTIMS_MAX,
};
use smol_str::SmolStr;

use super::{ConvertError, Field, read, wire_field, wire_oneof, wire_struct, wire_variant_message};
use crate::v1;
use crate::v1::command;

wire_struct!(Stamped => v1::Stamped {
    request_id, actor, proposed_at_ms, trace_context, preconditions (COMMANDS_MAX), commands (COMMANDS_MAX),
});
wire_struct!(Precondition => v1::Precondition { object, revision });
wire_struct!(Binding => v1::Binding {
    pod, node, nodes_considered, score, devices (DEVICES_PER_POD_MAX), networks (NETWORKS_PER_POD_MAX), cpus,
});
wire_struct!(Nomination => v1::Nomination { pod, node });
wire_struct!(PodReport => v1::PodReport { pod, sequence, status, gone });

wire_oneof!(Command => command {
    values { Create "create", Apply "apply" }
    messages {
        Delete "delete" { object, grace_ms, force }
        Scale "scale" { object, replicas }
        SetPaused "set_paused" { deployment, paused }
        UndoRollout "undo_rollout" { deployment, to_revision }
        RestartRollout "restart_rollout" { deployment, restarted_at }
        SetUnschedulable "set_unschedulable" { node, unschedulable }
        SetSuspended "set_suspended" { object, suspended }
        RunCronJob "run_cron_job" { cron_job, name }
        SetStopped "set_stopped" { object, stopped }
        PromoteRollout "promote_rollout" { deployment, full }
        AbortRollout "abort_rollout" { deployment }
        ResizePod "resize_pod" { pod, containers (RESIZED_CONTAINERS_MAX) }
        RetryRollout "retry_rollout" { deployment }

        RegisterNode "register_node" { name, facts }
        ReportPods "report_pods" { node, incarnation, reports (ITEMS_MAX) }
        ReportVolumes "report_volumes" { node, incarnation, deleted (ITEMS_MAX) }
        ReportVolumeTasks "report_volume_tasks" { node, incarnation, results (ITEMS_MAX) }

        CreateReplicaSet "create_replica_set" { deployment, generation, name, template_hash, rollout_revision }
        SetRolloutRevision "set_rollout_revision" { replica_set, rollout_revision }
        ScaleReplicaSet "scale_replica_set" { replica_set, from, to }
        CreatePods "create_pods" { replica_set, names (ITEMS_MAX) }
        DeletePods "delete_pods" { pods (ITEMS_MAX), surplus_of, reason }
        SetDeploymentStatus "set_deployment_status" { deployment, status }
        AdvanceDelivery "advance_delivery" { deployment, from, to }
        SetReplicaSetStatus "set_replica_set_status" { replica_set, status }
        BindPods "bind_pods" { bindings (ITEMS_MAX) }
        SetPodsUnschedulable "set_pods_unschedulable" { pods (ITEMS_MAX) }
        Preempt "preempt" { pod, node, victims (VICTIMS_MAX) }
        BindPodGroup "bind_pod_group" { bindings (ITEMS_MAX) }
        PreemptForGroup "preempt_for_group" { nominations (ITEMS_MAX), victims (VICTIMS_MAX) }
        ClearNominations "clear_nominations" { pods (ITEMS_MAX) }
        AdmitResizes "admit_resizes" { pods (ITEMS_MAX) }
        SetNodePhase "set_node_phase" { node, incarnation, phase }
        CollectGarbage "collect_garbage" { objects (ITEMS_MAX) }
        CreateOwned "create_owned" { owner, generation, object }
        CreateOwnedPods "create_owned_pods" { owner, generation, pods (ITEMS_MAX) }
        DeleteOwned "delete_owned" { owner, objects (ITEMS_MAX) }
        DeleteOwnedPods "delete_owned_pods" { owner, generation, pods (ITEMS_MAX), reason }
        SetStatus "set_status" { id, status }
        SetControllerRevision "set_controller_revision" { id, revision }
        Evict "evict" { pod, grace_ms, autoscaler }
        Recommend "recommend" { autoscaler, generation, status }
        Autoscale "autoscale" { autoscaler, generation, from, to, status }
        ScaleBySchedule "scale_by_schedule" { scaler, generation, job, scheduled_ms }
        SpreadReplicas "spread_replicas" { workload, generation }

        Update "update" { object, seen }

        ReportDevices "report_devices" { node, incarnation, report }
        SyncDeviceLabels "sync_device_labels" { node }
        ReportImages "report_images" { node, incarnation, images }
        SetSriovNodeState "set_sriov_node_state" { node, spec, status }
        SetDeviceCordoned "set_device_cordoned" { node, device, cordoned }
        SetGpuMode "set_gpu_mode" { node, gpu }

        SyncNodePool "sync_node_pool" { node }
        AdvanceNodeOperation "advance_node_operation" { operation }
        ControlNodeOperation "control_node_operation" { operation, control }
        Deschedule "deschedule" { policy, generation, pods (DESCHEDULED_PER_RUN_MAX as usize) }

        InitCluster "init_cluster" { cluster_id, members (ITEMS_MAX) }
        RaiseFeatureLevel "raise_feature_level" { level }
        RegisterMember "register_member" { member, storage_uid, address, version, feature_level_max }
    }
});
wire_variant_message!(Command => v1::Command);
wire_field! {
    Stamped => v1::Stamped,
    Precondition => v1::Precondition,
    Binding => v1::Binding,
    Nomination => v1::Nomination,
    PodReport => v1::PodReport,
}

impl Field<v1::UnschedulablePod> for (ObjectId, String) {
    fn to_wire(&self) -> v1::UnschedulablePod {
        v1::UnschedulablePod { pod: self.0.to_wire(), message: self.1.clone() }
    }
    fn from_wire(wire: v1::UnschedulablePod) -> Result<Self, ConvertError> {
        Ok((read(wire.pod, "pod")?, wire.message))
    }
}

impl Field<v1::InitialMember> for (MemberId, SmolStr) {
    fn to_wire(&self) -> v1::InitialMember {
        v1::InitialMember { member: self.0.to_wire(), address: self.1.to_wire() }
    }
    fn from_wire(wire: v1::InitialMember) -> Result<Self, ConvertError> {
        Ok((read(wire.member, "member")?, read(wire.address, "address")?))
    }
}
