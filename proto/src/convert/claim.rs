//! PersistentVolumeClaims, and the claims of StatefulSets.

use bulkhead_types::{
    AccessMode, BuiltinClass, ClaimIntent, ClaimPhase, ClaimRetention, ClaimSource, ClaimSourceKind,
    DeletedVolume, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec,
    PersistentVolumeClaimStatus, PersistentVolumeSpec, StorageClass, StorageClassSpec, VOLUMES_MAX,
    VolumeClaimTemplate, VolumeClaims, VolumeOrder, VolumeProgress, VolumeResult, VolumeSnapshot,
    VolumeSnapshotSpec, VolumeSnapshotStatus, VolumeTask,
};

use super::{wire_enum, wire_field, wire_field_or_default, wire_struct};
use crate::v1;

wire_enum! {
    AccessMode { ReadWriteOnce, ReadWriteOncePod, ReadOnlyMany, ReadWriteOnceReadOnlyMany }
    BuiltinClass { Local, LocalRetain }
    ClaimPhase { Pending, Bound, Lost }
    ClaimRetention { Retain, Delete }
    ClaimSourceKind { PersistentVolumeClaim, VolumeSnapshot }
    VolumeTask { Expand, Snapshot, Restore, Clone }
}

wire_struct!(PersistentVolumeClaim => v1::PersistentVolumeClaim { meta, spec, source, status });
wire_struct!(StorageClass => v1::StorageClass { meta, spec });
wire_struct!(StorageClassSpec => v1::StorageClassSpec { reclaim, allow_volume_expansion });
wire_struct!(PersistentVolume => v1::PersistentVolume { meta, spec });
wire_struct!(PersistentVolumeSpec => v1::PersistentVolumeSpec {
    node, node_name, volume, capacity_bytes, claim_namespace, claim_name, class, first_used_at_ms,
    claim_namespace_id,
});
wire_struct!(ClaimSource => v1::ClaimSource { kind, name });
wire_struct!(VolumeProgress => v1::VolumeProgress { populated, file_bytes, message });
wire_struct!(VolumeSnapshot => v1::VolumeSnapshot { meta, spec, status });
wire_struct!(VolumeSnapshotSpec => v1::VolumeSnapshotSpec { claim_name });
wire_struct!(VolumeSnapshotStatus => v1::VolumeSnapshotStatus {
    ready, node, node_name, volume, restore_bytes, taken_at_ms, message,
});
wire_struct!(VolumeOrder => v1::VolumeOrder { id, task, volume, source, size_bytes });
wire_struct!(VolumeResult => v1::VolumeResult { id, task, size_bytes, done, message });
wire_struct!(PersistentVolumeClaimSpec => v1::PersistentVolumeClaimSpec {
    access_mode, storage_bytes, storage_class, class, volume_name,
});
wire_struct!(PersistentVolumeClaimStatus => v1::PersistentVolumeClaimStatus {
    phase, node, node_name, capacity_bytes, volume, first_used_at_ms, progress,
});
wire_struct!(VolumeClaims => v1::VolumeClaims { templates (VOLUMES_MAX), when_deleted, when_scaled });
wire_struct!(VolumeClaimTemplate => v1::VolumeClaimTemplate { name, labels, annotations, spec });
wire_struct!(ClaimIntent => v1::ClaimIntent { claim_name, uid, size_bytes, used, read_only });
wire_struct!(DeletedVolume => v1::DeletedVolume { id, uid });

wire_field! {
    PersistentVolumeClaim => v1::PersistentVolumeClaim,
    PersistentVolumeClaimSpec => v1::PersistentVolumeClaimSpec,
    VolumeClaims => v1::VolumeClaims,
    VolumeClaimTemplate => v1::VolumeClaimTemplate,
    ClaimIntent => v1::ClaimIntent,
    DeletedVolume => v1::DeletedVolume,
    ClaimSource => v1::ClaimSource,
    StorageClass => v1::StorageClass,
    PersistentVolume => v1::PersistentVolume,
    PersistentVolumeSpec => v1::PersistentVolumeSpec,
    StorageClassSpec => v1::StorageClassSpec,
    VolumeProgress => v1::VolumeProgress,
    VolumeSnapshot => v1::VolumeSnapshot,
    VolumeSnapshotSpec => v1::VolumeSnapshotSpec,
    VolumeOrder => v1::VolumeOrder,
    VolumeResult => v1::VolumeResult,
}
wire_field_or_default!(PersistentVolumeClaimStatus => v1::PersistentVolumeClaimStatus);
wire_field_or_default!(VolumeSnapshotStatus => v1::VolumeSnapshotStatus);
