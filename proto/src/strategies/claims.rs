//! PersistentVolumeClaims.

use super::*;

record!(/// Any wish for a volume.
claim_spec: PersistentVolumeClaimSpec {
    access_mode: select(vec![AccessMode::ReadWriteOnce, AccessMode::ReadWriteOncePod]),
    storage_bytes: any::<u64>(), storage_class: select(StorageClass::ALL.to_vec()),
});
record!(/// Any status of a claim.
claim_status: PersistentVolumeClaimStatus {
    phase: select(vec![ClaimPhase::Pending, ClaimPhase::Bound, ClaimPhase::Lost]), node: of(object_id()),
    node_name: small(), capacity_bytes: any::<u64>(), volume: uuid(),
    first_used_at_ms: rare(any::<u64>()),
});
record!(/// Any PersistentVolumeClaim.
claim: PersistentVolumeClaim { meta: meta(), spec: claim_spec(), status: claim_status() });
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
});
record!(/// Any volume to delete.
deleted_volume: DeletedVolume { id: object_id(), uid: uuid() });
