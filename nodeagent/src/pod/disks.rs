//! The disks of a guest: what each is made of, and that volumes of claims are made for their first use only.

use std::io;
use std::path::{Path, PathBuf};

use bulkhead_nodeagent_core::qemu::BlockDriver;
use bulkhead_nodeagent_core::reason;
use bulkhead_types::PodIntent;

use super::start::StartError;
use crate::image::{create_empty, create_overlay};
use crate::vm::command::Disk;
use crate::volumes::{Content as VolumeContent, VolumeError, Volumes};

/// A disk to make.
pub(super) struct PlannedDisk {
    pub(super) disk: Disk,
    content: Content,
    size_bytes: u64,
}

enum Content {
    /// The image below it.
    Image(PathBuf),
    /// An empty file system.
    Empty,
    /// The volume of a claim, which outlives the guest.
    Claim {
        name: String,
        /// It is data from its beginning, or since a container had it.
        used: bool,
        volumes: Volumes,
        volume: uuid::Uuid,
    },
    /// What a guest reads beside others: nothing that it writes reaches the volume.
    Read { name: String, used: bool, volumes: Volumes, volume: uuid::Uuid },
}

impl PlannedDisk {
    /// What a container writes over its image, with room for what its limit is, if it has one; the guest makes the file system as large.
    pub(super) fn overlay(image: &Path, serial: String, limit_bytes: Option<u64>) -> Self {
        let size_bytes = room_bytes(limit_bytes);
        let file = format!("{serial}.qcow2");
        let disk = Disk { file, driver: BlockDriver::Qcow2, serial, is_kept: false };
        Self { disk, content: Content::Image(image.to_owned()), size_bytes }
    }

    /// An empty file system that ends with the guest.
    pub(super) fn empty(serial: String, size_bytes: u64) -> Self {
        let file = format!("{serial}.ext4");
        let disk = Disk { file, driver: BlockDriver::Raw, serial, is_kept: false };
        Self { disk, content: Content::Empty, size_bytes }
    }

    /// The volume of a pod's claim. QEMU locks its file while a guest has it (of devices: `volumes/lvm/driver.rs`). One that is only read is below an empty overlay
    /// of the guest's own: the file system of a guest that was killed, or of a copy of a running one, has a journal that the
    /// next kernel writes back before it reads, and it cannot do that on a disk that refuses to be written.
    pub(super) fn of_claim(
        volumes: &Volumes,
        pod: &PodIntent,
        name: &str,
        serial: String,
    ) -> Result<Self, StartError> {
        let claim = pod.claims.iter().find(|claim| claim.claim_name == name).ok_or_else(|| {
            let message =
                format!("the control plane did not say which volume PersistentVolumeClaim {name} is");
            StartError::new(reason::CREATE_CONTAINER_CONFIG_ERROR, message)
        })?;
        let published = volumes.of(claim.uid)?.publish(claim.uid);
        let (name, used, volumes, volume) = (name.to_owned(), claim.used, volumes.clone(), claim.uid);
        let (disk, content) = if claim.read_only {
            let file = format!("{serial}.qcow2");
            let disk = Disk { file, driver: BlockDriver::Qcow2, serial, is_kept: false };
            (disk, Content::Read { name, used, volumes, volume })
        } else {
            let (file, driver) = (published.file.display().to_string(), published.driver);
            let disk = Disk { file, driver, serial, is_kept: true };
            (disk, Content::Claim { name, used, volumes, volume })
        };
        Ok(Self { disk, content, size_bytes: claim.size_bytes })
    }

    /// The file below it, once it is made.
    pub(super) fn image(&self) -> Option<PathBuf> {
        match &self.content {
            Content::Image(image) => std::fs::canonicalize(image).ok(),
            Content::Read { volumes, volume, .. } => {
                std::fs::canonicalize(volumes.of(*volume).ok()?.publish(*volume).file).ok()
            }
            Content::Empty | Content::Claim { .. } => None,
        }
    }

    /// Makes it in the folder of a guest.
    pub(super) fn make(&self, dir: &Path) -> Result<(), StartError> {
        // Joined to the folder, an absolute path stays as it is.
        let path = dir.join(&self.disk.file);
        match &self.content {
            Content::Image(image) => {
                let image_bytes = std::fs::metadata(image).map(|file| file.len()).unwrap_or_default();
                create_overlay(image, &path, image_bytes.saturating_add(self.size_bytes))?;
            }
            Content::Empty => create_empty(&path, self.size_bytes)?,
            Content::Claim { name, used, volumes, volume } => {
                make_volume(volumes, *volume, self.size_bytes, used.then_some(name))?;
                volumes.of(*volume)?.stage_volume(*volume, true).map_err(volume_error)?;
            }
            Content::Read { name, used, volumes, volume } => {
                make_volume(volumes, *volume, self.size_bytes, used.then_some(name))?;
                let driver = volumes.of(*volume)?;
                driver.stage_volume(*volume, false).map_err(volume_error)?;
                let length = driver.length(*volume).map_err(volume_error)?;
                create_overlay(&driver.publish(*volume).file, &path, length)?;
            }
        }
        Ok(())
    }
}

/// What a container without a limit may write to its root file system, in bytes; the file grows with what is written.
const ROOM_DEFAULT_BYTES: u64 = 10 << 30;
/// How much larger a disk is than its container's limit, in bytes, beside an eighth for the file system's own tables: who writes more than
/// the limit shall be seen, and not only be told that the disk is full.
const ROOM_BEYOND_LIMIT_BYTES: u64 = 64 << 20;

/// Room on a container's disk beside its image, in bytes, a whole number of the file system's blocks.
fn room_bytes(limit_bytes: Option<u64>) -> u64 {
    const BLOCK_BYTES: u64 = 4096;
    let room = limit_bytes.map_or(ROOM_DEFAULT_BYTES, |limit| {
        limit.saturating_add(limit / 8).saturating_add(ROOM_BEYOND_LIMIT_BYTES)
    });
    (room / BLOCK_BYTES).saturating_mul(BLOCK_BYTES)
}

/// Makes a volume for its first use, or sees that it is there when a claim had it.
fn make_volume(
    volumes: &Volumes,
    volume: uuid::Uuid,
    size_bytes: u64,
    used_by: Option<&String>,
) -> Result<(), StartError> {
    match used_by {
        Some(claim) => check_kept(volumes, volume, claim),
        None => {
            let made = volumes.of(volume)?.create_volume(volume, size_bytes, VolumeContent::Empty);
            made.map_err(volume_error)
        }
    }
}

fn volume_error(error: VolumeError) -> StartError {
    match error {
        VolumeError::Image(error) => error.into(),
        VolumeError::Io(error) => error.into(),
        VolumeError::Full(message) => StartError::new(reason::DISK_PRESSURE, message),
        other => StartError::new(reason::GUEST_START_FAILED, other.to_string()),
    }
}

/// A volume that had its use and is not there is never made anew: its pod would go on with nothing, as if that were all
/// that it ever had.
fn check_kept(volumes: &Volumes, volume: uuid::Uuid, claim: &str) -> Result<(), StartError> {
    let there = volumes.of(volume).and_then(|driver| driver.has_volume(volume)).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("PersistentVolumeClaim {claim}: cannot look for its volume: {error}"),
        )
    })?;
    if there {
        return Ok(());
    }
    let message = format!(
        "PersistentVolumeClaim {claim} was in use, and its volume is not on this node any more: {}, or delete the claim and \
         create it anew",
        volumes.way_back(volume)
    );
    Err(StartError::new(reason::VOLUME_MISSING, message))
}

#[cfg(test)]
mod tests {
    use bulkhead_types::{ClaimIntent, Name, PodSpec, Rare, Shared};
    use uuid::Uuid;

    use super::*;

    fn pod(claim: ClaimIntent) -> PodIntent {
        PodIntent {
            id: bulkhead_types::ObjectId(7),
            uid: Uuid::from_u128(7),
            namespace: Name::new("default").expect("a name"),
            name: Name::new("p").expect("a name"),
            spec: Shared::new(PodSpec::default()),
            deletion: None,
            ended: false,
            unique: true,
            trace_context: None,
            resolved: Rare::NONE,
            pull_credentials: Rare::NONE,
            claims: vec![claim],
            devices: vec![],
            networks: vec![],
            cpus: None,
            batch: false,
            resizing: false,
            bandwidth: None,
        }
    }

    #[test]
    fn a_volume_that_was_used_is_never_made_anew() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let volumes = Volumes::new(dir.path(), None);
        let volume = Uuid::from_u128(9);
        let make = |used| {
            let (claim_name, read_only) = ("data".into(), false);
            let claim = ClaimIntent { claim_name, uid: volume, size_bytes: 16 << 20, used, read_only };
            PlannedDisk::of_claim(&volumes, &pod(claim), "data", "v0".to_owned())?.make(Path::new("/nowhere"))
        };
        make(false).expect("made for its first use");
        make(true).expect("it is there");
        std::fs::remove_file(volumes.of(volume).expect("known").publish(volume).file)
            .expect("somebody empties the data directory");
        let refused = make(true).expect_err("its data is gone");
        assert_eq!(refused.reason, "VolumeMissing");
        assert_eq!(
            refused.message,
            "PersistentVolumeClaim data was in use, and its volume is not on this node any more: put \
             volumes/00000000-0000-0000-0000-000000000009.img back into the agent's data directory, or delete the claim and \
             create it anew"
        );
        assert!(
            !volumes.of(volume).expect("known").publish(volume).file.exists(),
            "nothing empty takes its place"
        );
    }

    #[test]
    fn what_is_only_read_is_below_an_overlay_of_the_guests_own() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let volumes = Volumes::new(dir.path(), None);
        let volume = Uuid::from_u128(9);
        let (claim_name, size_bytes) = ("data".into(), 16 << 20);
        let claim = ClaimIntent { claim_name, uid: volume, size_bytes, used: false, read_only: true };
        let pod = pod(claim);
        for (number, guest) in ["1", "2"].into_iter().enumerate() {
            let guest = dir.path().join(guest);
            std::fs::create_dir(&guest).expect("made");
            let disk = PlannedDisk::of_claim(&volumes, &pod, "data", "v0".to_owned()).expect("planned");
            assert_eq!(disk.image().is_none(), number == 0, "there once it is made");
            disk.make(&guest).expect("made");
            let file = volumes.of(volume).expect("known").publish(volume).file;
            assert_eq!(disk.image(), Some(std::fs::canonicalize(&file).expect("there")));
            assert_eq!((disk.disk.file.as_str(), disk.disk.driver), ("v0.qcow2", BlockDriver::Qcow2));
            // The virtual size, at its place in the header (docs/interop/qcow2.txt of QEMU).
            let header = std::fs::read(guest.join("v0.qcow2")).expect("read");
            let length = volumes.of(volume).expect("known").length(volume).expect("there");
            assert_eq!(header[24..32], length.to_be_bytes());
        }
    }
}
