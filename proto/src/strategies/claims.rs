//! PersistentVolumeClaims.

use super::*;

record!(/// Any wish for a volume.
claim_spec: PersistentVolumeClaimSpec {
    access_mode: select(AccessMode::ALL.to_vec()),
    storage_bytes: any::<u64>(), storage_class: select(BuiltinClass::ALL.to_vec()),
    class: rare(small()), volume_name: rare(small()),
});

record!(/// What any retained volume is.
persistent_volume_spec: PersistentVolumeSpec {
    node: object_id(), node_name: small(), volume: uuid(), capacity_bytes: any::<u64>(),
    claim_namespace: small(), claim_namespace_id: object_id(), claim_name: small(), class: rare(small()),
    first_used_at_ms: rare(any::<u64>()),
});
record!(/// Any retained volume.
persistent_volume: PersistentVolume { meta: meta(), spec: persistent_volume_spec() });
record!(/// What volumes of any class are like.
storage_class_spec: StorageClassSpec {
    reclaim: select(BuiltinClass::ALL.to_vec()), allow_volume_expansion: any::<bool>(),
});
record!(/// Any StorageClass.
storage_class: StorageClass { meta: meta(), spec: storage_class_spec() });
record!(/// Any status of a claim.
claim_status: PersistentVolumeClaimStatus {
    phase: select(vec![ClaimPhase::Pending, ClaimPhase::Bound, ClaimPhase::Lost]), node: of(object_id()),
    node_name: small(), capacity_bytes: any::<u64>(), volume: uuid(),
    first_used_at_ms: rare(any::<u64>()), progress: rare(volume_progress()),
});
record!(/// Any PersistentVolumeClaim.
claim: PersistentVolumeClaim {
    meta: meta(), spec: claim_spec(), source: rare(claim_source()), status: claim_status(),
});
record!(/// Any source of a claim.
claim_source: ClaimSource {
    kind: select(vec![ClaimSourceKind::PersistentVolumeClaim, ClaimSourceKind::VolumeSnapshot]),
    name: small(),
});
record!(/// Any progress of a volume.
volume_progress: VolumeProgress {
    populated: any::<bool>(), file_bytes: any::<u64>(), message: small(),
});
record!(/// Any wish for a snapshot.
volume_snapshot_spec: VolumeSnapshotSpec { claim_name: small() });
record!(/// Any status of a snapshot.
volume_snapshot_status: VolumeSnapshotStatus {
    ready: any::<bool>(), node: of(object_id()), node_name: small(), volume: uuid(),
    restore_bytes: any::<u64>(), taken_at_ms: any::<u64>(), message: small(),
});
record!(/// Any snapshot.
volume_snapshot: VolumeSnapshot {
    meta: meta(), spec: volume_snapshot_spec(), status: volume_snapshot_status(),
});

fn volume_task() -> impl Strategy<Value = VolumeTask> + Clone {
    select(vec![VolumeTask::Expand, VolumeTask::Snapshot, VolumeTask::Restore, VolumeTask::Clone])
}

record!(/// Any order about a volume.
volume_order: VolumeOrder {
    id: object_id(), task: volume_task(), volume: uuid(), source: uuid(), size_bytes: any::<u64>(),
});
record!(/// What came of any order about a volume.
volume_result: VolumeResult {
    id: object_id(), task: volume_task(), size_bytes: any::<u64>(), done: any::<bool>(), message: small(),
});
record!(/// Any template of claims.
claim_template: VolumeClaimTemplate {
    name: small(), labels: labels(), annotations: labels(), spec: claim_spec(),
});

fn retention() -> impl Strategy<Value = ClaimRetention> + Clone {
    select(vec![ClaimRetention::Retain, ClaimRetention::Delete])
}

record!(/// Any claims of a StatefulSet.
volume_claims: VolumeClaims {
    templates: vec(claim_template(), 0..3), when_deleted: retention(), when_scaled: retention(),
});
record!(/// Any volume of a pod's claim.
claim_intent: ClaimIntent {
    claim_name: small(), uid: uuid(), size_bytes: any::<u64>(), used: any::<bool>(),
    read_only: any::<bool>(),
});
record!(/// Any volume to delete.
deleted_volume: DeletedVolume { id: object_id(), uid: uuid() });
