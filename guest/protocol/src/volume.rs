//! Volumes: what the host says of them, and the files that it puts in.

use crate::message::{check_enum, check_length};
use crate::{DISK_SERIAL_LENGTH_MAX, DecodeError, NAME_LENGTH_MAX, TEXT_LENGTH_MAX};

/// Kinds of volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum VolumeKind {
    /// Not set: refused.
    Unspecified = 0,
    /// In memory, filled by [`VolumeFiles`]; containers cannot write.
    Files = 1,
    /// A disk of its own, empty at first.
    Disk = 2,
    /// In memory, empty at first.
    Memory = 3,
    /// In huge pages of the guest, empty at first.
    HugePages = 4,
}

/// A volume of the pod.
#[derive(Clone, PartialEq, prost::Message)]
pub struct VolumeConfig {
    /// Unique in the pod.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Which kind.
    #[prost(enumeration = "VolumeKind", tag = "2")]
    pub kind: i32,
    /// virtio-blk serial of a Disk.
    #[prost(string, tag = "3")]
    pub disk_serial: String,
    /// Largest size of a Memory volume, in bytes; 0 means half of the guest's memory. Of a HugePages volume; 0 means all pages
    /// of that size.
    #[prost(uint64, tag = "4")]
    pub size_bytes: u64,
    /// Size of the pages of a HugePages volume, in bytes.
    #[prost(uint64, tag = "86")]
    pub page_bytes: u64,
    /// Nothing writes to this Disk, and others read it as well.
    #[prost(bool, tag = "88")]
    pub read_only: bool,
}

/// A volume in a container.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MountConfig {
    /// Which volume.
    #[prost(string, tag = "1")]
    pub volume: String,
    /// Absolute path in the container; made if it is missing.
    #[prost(string, tag = "2")]
    pub path: String,
    /// Only this file or folder of the volume; empty means all of it. Made, as a folder, in a volume that is empty at
    /// first.
    #[prost(string, tag = "3")]
    pub sub_path: String,
    /// The container cannot write.
    #[prost(bool, tag = "4")]
    pub read_only: bool,
}

/// A volume whose file system shall fill its disk, which has grown.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GrowVolume {
    /// Which volume.
    #[prost(string, tag = "1")]
    pub volume: String,
    /// What the disk has now, in bytes: the guest's kernel may not know it yet.
    #[prost(uint64, tag = "2")]
    pub disk_bytes: u64,
}

/// What came of a [`GrowVolume`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct VolumeGrown {
    /// Which volume.
    #[prost(string, tag = "1")]
    pub volume: String,
    /// Why the file system has not its size; empty when it has.
    #[prost(string, tag = "2")]
    pub error: String,
}

/// A volume that shall stand still, or go on: while it does, everything that was written to it is on its disk, and whoever
/// writes waits.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FreezeVolume {
    /// Which volume.
    #[prost(string, tag = "1")]
    pub volume: String,
    /// Whether it shall.
    #[prost(bool, tag = "2")]
    pub frozen: bool,
    /// How long at most, in milliseconds of the guest's clock; then it goes on by itself. More than [`crate::FREEZE_MS_MAX`] is
    /// refused.
    #[prost(uint64, tag = "3")]
    pub for_ms: u64,
}

/// What came of a [`FreezeVolume`]; told by itself when the time is over.
#[derive(Clone, PartialEq, prost::Message)]
pub struct VolumeFrozen {
    /// Which volume.
    #[prost(string, tag = "1")]
    pub volume: String,
    /// Whether it stands still now.
    #[prost(bool, tag = "2")]
    pub frozen: bool,
    /// Why it does not, or did not until it was let go on; empty when all is as it was asked for.
    #[prost(string, tag = "3")]
    pub error: String,
}

/// Files of one volume, all of them over one or several messages.
#[derive(Clone, PartialEq, prost::Message)]
pub struct VolumeFiles {
    /// Which volume.
    #[prost(string, tag = "1")]
    pub volume: String,
    /// A part of its files.
    #[prost(message, repeated, tag = "2")]
    pub files: Vec<VolumeFile>,
    /// Another message with more of them follows; nothing becomes visible before the last.
    #[prost(bool, tag = "3")]
    pub more: bool,
}

/// A file of a volume, or a part of one. Its content is never printed: it may be secret.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct VolumeFile {
    /// Relative to the volume's root.
    #[prost(string, tag = "1")]
    pub path: String,
    /// Permissions.
    #[prost(uint32, tag = "2")]
    pub mode: u32,
    /// Content.
    #[prost(bytes = "vec", tag = "3")]
    pub data: Vec<u8>,
    /// The content goes on where that of the last file of the message before ended.
    #[prost(bool, tag = "4")]
    pub continues: bool,
}

impl std::fmt::Debug for VolumeFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VolumeFile")
            .field("path", &self.path)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

impl VolumeConfig {
    /// Checks what the guest relies on.
    pub(crate) fn validate(&self) -> Result<(), DecodeError> {
        check_volume_name("VolumeConfig.name", &self.name)?;
        check_enum::<VolumeKind>("VolumeConfig.kind", self.kind)?;
        check_length("VolumeConfig.disk_serial", &self.disk_serial, DISK_SERIAL_LENGTH_MAX)?;
        let is_disk = self.kind() == VolumeKind::Disk;
        if self.kind() == VolumeKind::Unspecified || is_disk == self.disk_serial.is_empty() {
            let reason = "does not match its disk_serial".into();
            return Err(DecodeError::Invalid { field: "VolumeConfig.kind", reason });
        }
        Ok(())
    }
}

impl VolumeFiles {
    /// Checks what the guest relies on.
    pub(crate) fn validate(&self) -> Result<(), DecodeError> {
        check_volume_name("VolumeFiles.volume", &self.volume)?;
        if self.files.iter().all(|file| is_plain(&file.path) && !file.path.starts_with("..")) {
            return Ok(());
        }
        Err(DecodeError::Invalid { field: "VolumeFile.path", reason: "is no plain path".into() })
    }
}

impl GrowVolume {
    /// Checks what the guest relies on.
    pub(crate) fn validate(&self) -> Result<(), DecodeError> {
        check_volume_name("GrowVolume.volume", &self.volume)
    }
}

impl FreezeVolume {
    /// Checks what the guest relies on.
    pub(crate) fn validate(&self) -> Result<(), DecodeError> {
        check_volume_name("FreezeVolume.volume", &self.volume)
    }
}

impl VolumeFrozen {
    /// Checks every bound.
    pub(crate) fn validate(&self) -> Result<(), DecodeError> {
        check_volume_name("VolumeFrozen.volume", &self.volume)?;
        check_length("VolumeFrozen.error", &self.error, TEXT_LENGTH_MAX)
    }
}

impl VolumeGrown {
    /// Checks every bound.
    pub(crate) fn validate(&self) -> Result<(), DecodeError> {
        check_volume_name("VolumeGrown.volume", &self.volume)?;
        check_length("VolumeGrown.error", &self.error, TEXT_LENGTH_MAX)
    }
}

/// A name becomes a folder.
fn check_volume_name(field: &'static str, name: &str) -> Result<(), DecodeError> {
    check_length(field, name, NAME_LENGTH_MAX)?;
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !name.is_empty() && name.bytes().all(good) {
        return Ok(());
    }
    Err(DecodeError::Invalid { field, reason: "is no DNS-1123 label".into() })
}

/// Relative, without empty parts, `.` and `..`.
pub(crate) fn is_plain(path: &str) -> bool {
    !path.contains('\0') && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}
