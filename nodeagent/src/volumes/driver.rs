//! What makes and keeps volumes, shaped like the Container Storage Interface's controller and node services.
//!
//! Source: "Container Storage Interface Specification" 1.9: CreateVolume with its VolumeContentSource, DeleteVolume,
//! ControllerExpandVolume, CreateSnapshot, DeleteSnapshot, NodeStageVolume, NodePublishVolume, and the capabilities of each. All of them are
//! idempotent: what is there already is fine, and so is what is gone already. Nothing is ever there in part.

use std::fmt;
use std::io;
use std::path::PathBuf;

use bulkhead_nodeagent_core::qemu::BlockDriver;
use thiserror::Error;
use uuid::Uuid;

use crate::error::chain;
use crate::image::ImageError;

/// Why something cannot be done with a volume.
#[derive(Debug, Error)]
pub(crate) enum VolumeError {
    /// What it is about is not there.
    #[error("{what} {id} is not on this node")]
    Missing {
        /// A volume or a snapshot.
        what: &'static str,
        /// Which.
        id: Uuid,
    },
    /// An empty one cannot be made.
    #[error("{}", chain(.0))]
    Image(#[from] ImageError),
    /// The host's file system refused.
    #[error("{}", chain(.0))]
    Io(#[from] io::Error),
    /// There is no room for it, for people.
    #[error("{0}")]
    Full(String),
    /// It cannot be done now, for people.
    #[error("{0}")]
    NotNow(String),
}

/// What a driver can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capabilities {
    /// A disk that a guest has can grow.
    pub(crate) expand_online: bool,
    /// A copy costs no time that grows with the volume, on this host.
    pub(crate) copies_at_once: bool,
    /// A disk that a guest has is made larger by the driver, and QEMU only told of it; else QEMU does both.
    pub(crate) grows_beside_guest: bool,
}

/// What a new volume begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// An empty file system.
    Empty,
    /// What a snapshot holds.
    Snapshot(Uuid),
    /// What another volume holds; no guest writes to it meanwhile.
    Volume(Uuid),
}

/// What QEMU gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    /// The file or device.
    pub(crate) file: PathBuf,
    /// What is in it.
    pub(crate) driver: BlockDriver,
}

/// Makes and keeps volumes and snapshots, which are named by a UUID each.
pub(crate) trait VolumeDriver: fmt::Debug + Send + Sync {
    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Whether this driver made a volume, or began to: it is this one's from then on, whichever makes new ones.
    ///
    /// # Errors
    /// When that cannot be found out.
    fn keeps_volume(&self, volume: Uuid) -> io::Result<bool>;

    /// The same of a snapshot.
    ///
    /// # Errors
    /// When that cannot be found out.
    fn keeps_snapshot(&self, snapshot: Uuid) -> io::Result<bool>;

    /// Makes a volume for a claim of so many bytes, unless it is there: then it is never touched. A copy has the size of
    /// what it is of.
    ///
    /// # Errors
    /// [`VolumeError`]; then there is no such volume.
    fn create_volume(&self, volume: Uuid, size_bytes: u64, content: Content) -> Result<(), VolumeError>;

    /// Whether a volume is there.
    ///
    /// # Errors
    /// When that cannot be found out.
    fn has_volume(&self, volume: Uuid) -> io::Result<bool>;

    /// Makes a volume ready for a guest that is about to start, which writes to it or only reads.
    ///
    /// # Errors
    /// [`VolumeError`]: it is not there, or something else of this host has it.
    fn stage_volume(&self, volume: Uuid, writes: bool) -> Result<(), VolumeError>;

    /// What QEMU gets of a volume.
    fn publish(&self, volume: Uuid) -> Published;

    /// What an operator does to bring a volume back that was in use and is not there; `None`: this driver never had it.
    fn way_back(&self, volume: Uuid) -> Option<String>;

    /// The size of the disk of a claim of so many bytes, with what its file system needs for itself.
    fn disk_bytes(&self, size_bytes: u64) -> u64;

    /// The size of the disk now, in bytes.
    ///
    /// # Errors
    /// [`VolumeError::Missing`] when there is no such volume.
    fn length(&self, volume: Uuid) -> Result<u64, VolumeError>;

    /// What a copy of a volume would have to write, in bytes.
    ///
    /// # Errors
    /// [`VolumeError::Missing`] when there is no such volume.
    fn written_bytes(&self, volume: Uuid) -> Result<u64, VolumeError>;

    /// Makes a volume that no guest has large enough for a claim of so many bytes. It never shrinks.
    ///
    /// # Errors
    /// [`VolumeError::Missing`] when there is no such volume.
    fn expand_volume(&self, volume: Uuid, size_bytes: u64) -> Result<(), VolumeError>;

    /// Removes a volume for good.
    ///
    /// # Errors
    /// When it cannot be removed.
    fn delete_volume(&self, volume: Uuid) -> io::Result<()>;

    /// Keeps what a volume holds, unless there is such a snapshot: then that is never touched. Nobody writes to the volume
    /// meanwhile.
    ///
    /// # Errors
    /// [`VolumeError`]; then there is no such snapshot.
    fn create_snapshot(&self, source: Uuid, snapshot: Uuid) -> Result<(), VolumeError>;

    /// Removes a snapshot for good.
    ///
    /// # Errors
    /// When it cannot be removed.
    fn delete_snapshot(&self, snapshot: Uuid) -> io::Result<()>;
}
