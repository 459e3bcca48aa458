//! VolumeSnapshots: what a claim's volume held at one moment; as in `snapshot.storage.k8s.io/v1`.
//!
//! Source: "Volume Snapshots" and "CSI Volume Cloning" in the Kubernetes documentation. There are no
//! VolumeSnapshotContents: a snapshot that is ready is a file of its own, on the node of the claim that it is of, and needs
//! nothing of that claim any more.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use uuid::Uuid;

use crate::{Kind, ObjectId, ObjectMeta};

/// What a claim's volume held at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VolumeSnapshot {
    /// Standard metadata.
    pub meta: ObjectMeta,
    /// What is wanted; cannot change after creation.
    pub spec: VolumeSnapshotSpec,
    /// What is known.
    pub status: VolumeSnapshotStatus,
}

/// Of what a snapshot is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VolumeSnapshotSpec {
    /// The PersistentVolumeClaim of the same namespace whose volume it is of.
    pub claim_name: SmolStr,
}

/// What is known of a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VolumeSnapshotStatus {
    /// It was taken: claims may be made of it.
    pub ready: bool,
    /// The node that keeps it, from then on; unset again when that node is gone, and the data with it.
    pub node: Option<ObjectId>,
    /// That node's name, which stays when that is gone; else empty.
    pub node_name: SmolStr,
    /// What its file is named by, once it is ready.
    pub volume: Uuid,
    /// The least size of a claim that is made of it, in bytes: what the volume had.
    pub restore_bytes: u64,
    /// When the node said that it was taken, in Unix milliseconds of log time; 0 before.
    pub taken_at_ms: u64,
    /// Why it is not ready, for people; empty while nothing is wrong.
    pub message: SmolStr,
}

/// What a claim's volume begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ClaimSourceKind {
    /// What another claim's volume holds.
    PersistentVolumeClaim = 1,
    /// What a snapshot holds.
    VolumeSnapshot = 2,
}

impl ClaimSourceKind {
    /// The kind of the object.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Self::PersistentVolumeClaim => Kind::PersistentVolumeClaim,
            Self::VolumeSnapshot => Kind::VolumeSnapshot,
        }
    }
}

/// The object of the same namespace whose data a claim begins with (`dataSource`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ClaimSource {
    /// Which kind.
    pub kind: ClaimSourceKind,
    /// Its name.
    pub name: SmolStr,
}

impl std::fmt::Display for ClaimSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind.kind(), self.name)
    }
}

/// How far a node has come with what is wanted of a claim's volume beside its being there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VolumeProgress {
    /// It holds the data of the claim's source.
    pub populated: bool,
    /// What its file has by now, in bytes, when that is more than the claim's capacity: its file system follows.
    pub file_bytes: u64,
    /// What went wrong at the last try, for people; empty when nothing did.
    pub message: SmolStr,
}

/// What a node shall do with a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum VolumeTask {
    /// Make a claim's volume larger, and its file system with it.
    Expand = 1,
    /// Keep what a claim's volume holds as a snapshot.
    Snapshot = 2,
    /// Make a claim's volume of a snapshot.
    Restore = 3,
    /// Make a claim's volume of what another claim's holds.
    Clone = 4,
}

impl VolumeTask {
    /// Its name, for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expand => "expand",
            Self::Snapshot => "snapshot",
            Self::Restore => "restore",
            Self::Clone => "clone",
        }
    }
}

/// Something that a node shall do with a volume, until it is not wanted any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VolumeOrder {
    /// The claim or snapshot that it is for.
    pub id: ObjectId,
    /// What.
    pub task: VolumeTask,
    /// What the file is named by that is made, or grows.
    pub volume: Uuid,
    /// What the file is named by that it is made of; nil where there is none.
    pub source: Uuid,
    /// The size that the volume shall have, in bytes; of a snapshot that of its source.
    pub size_bytes: u64,
}

/// What came of a [`VolumeOrder`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VolumeResult {
    /// The claim or snapshot that it was for.
    pub id: ObjectId,
    /// What was to be done.
    pub task: VolumeTask,
    /// The size of the file now, in bytes; 0 when nothing was done.
    pub size_bytes: u64,
    /// All of it is done. When an expansion is not, the file has its size and the file system follows with the next guest.
    pub done: bool,
    /// What went wrong, for people; empty when nothing did.
    pub message: SmolStr,
}
