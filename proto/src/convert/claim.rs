//! PersistentVolumeClaims, and the claims of StatefulSets.

use bulkhead_types::{
    AccessMode, ClaimIntent, ClaimPhase, ClaimRetention, DeletedVolume, PersistentVolumeClaim,
    PersistentVolumeClaimSpec, PersistentVolumeClaimStatus, StorageClass, VOLUMES_MAX, VolumeClaimTemplate,
    VolumeClaims,
};

use super::{wire_enum, wire_field, wire_field_or_default, wire_struct};
use crate::v1;

wire_enum! {
    AccessMode { ReadWriteOnce, ReadWriteOncePod }
    StorageClass { Local, LocalRetain }
    ClaimPhase { Pending, Bound, Lost }
    ClaimRetention { Retain, Delete }
}

wire_struct!(PersistentVolumeClaim => v1::PersistentVolumeClaim { meta, spec, status });
wire_struct!(PersistentVolumeClaimSpec => v1::PersistentVolumeClaimSpec {
    access_mode, storage_bytes, storage_class,
});
wire_struct!(PersistentVolumeClaimStatus => v1::PersistentVolumeClaimStatus {
    phase, node, node_name, capacity_bytes, volume, first_used_at_ms,
});
wire_struct!(VolumeClaims => v1::VolumeClaims { templates (VOLUMES_MAX), when_deleted, when_scaled });
wire_struct!(VolumeClaimTemplate => v1::VolumeClaimTemplate { name, labels, annotations, spec });
wire_struct!(ClaimIntent => v1::ClaimIntent { claim_name, uid, size_bytes, used });
wire_struct!(DeletedVolume => v1::DeletedVolume { id, uid });

wire_field! {
    PersistentVolumeClaim => v1::PersistentVolumeClaim,
    PersistentVolumeClaimSpec => v1::PersistentVolumeClaimSpec,
    VolumeClaims => v1::VolumeClaims,
    VolumeClaimTemplate => v1::VolumeClaimTemplate,
    ClaimIntent => v1::ClaimIntent,
    DeletedVolume => v1::DeletedVolume,
}
wire_field_or_default!(PersistentVolumeClaimStatus => v1::PersistentVolumeClaimStatus);
