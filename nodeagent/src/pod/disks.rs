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
}

impl PlannedDisk {
    /// What a container writes over its image; of at most so many bytes, the image's size when that is 0.
    pub(super) fn overlay(image: &Path, serial: String, size_bytes: u64) -> Self {
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

    /// The volume of a pod's claim. QEMU locks its file while a guest has it.
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
        let published = volumes.driver().publish(claim.uid);
        let (file, driver) = (published.file.display().to_string(), published.driver);
        let disk = Disk { file, driver, serial, is_kept: true };
        let (volumes, volume) = (volumes.clone(), claim.uid);
        let content = Content::Claim { name: name.to_owned(), used: claim.used, volumes, volume };
        Ok(Self { disk, content, size_bytes: claim.size_bytes })
    }

    /// The image below it.
    pub(super) fn image(&self) -> Option<PathBuf> {
        match &self.content {
            Content::Image(image) => std::fs::canonicalize(image).ok(),
            Content::Empty | Content::Claim { .. } => None,
        }
    }

    /// Makes it in the folder of a guest.
    pub(super) fn make(&self, dir: &Path) -> Result<(), StartError> {
        // Joined to the folder, an absolute path stays as it is.
        let path = dir.join(&self.disk.file);
        match &self.content {
            Content::Image(image) => create_overlay(image, &path, self.size_bytes)?,
            Content::Empty => create_empty(&path, self.size_bytes)?,
            Content::Claim { used: false, volumes, volume, .. } => volumes
                .driver()
                .create_volume(*volume, self.size_bytes, VolumeContent::Empty)
                .map_err(volume_error)?,
            Content::Claim { name, used: true, volumes, volume } => check_kept(volumes, *volume, name)?,
        }
        Ok(())
    }
}

fn volume_error(error: VolumeError) -> StartError {
    match error {
        VolumeError::Image(error) => error.into(),
        other => StartError::new(reason::GUEST_START_FAILED, other.to_string()),
    }
}

/// A volume that had its use and is not there is never made anew: its pod would go on with nothing, as if that were all
/// that it ever had.
fn check_kept(volumes: &Volumes, volume: uuid::Uuid, claim: &str) -> Result<(), StartError> {
    let there = volumes.driver().has_volume(volume).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("PersistentVolumeClaim {claim}: cannot look for its volume: {error}"),
        )
    })?;
    if there {
        return Ok(());
    }
    let published = volumes.driver().publish(volume);
    let file = published.file.file_name().unwrap_or_default().to_string_lossy();
    let message = format!(
        "PersistentVolumeClaim {claim} was in use, and its volume is not on this node any more: put volumes/{file} back into \
         the agent's data directory, or delete the claim and create it anew"
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
        let volumes = Volumes::new(dir.path());
        let volume = Uuid::from_u128(9);
        let make = |used| {
            let claim = ClaimIntent { claim_name: "data".into(), uid: volume, size_bytes: 16 << 20, used };
            PlannedDisk::of_claim(&volumes, &pod(claim), "data", "v0".to_owned())?.make(Path::new("/nowhere"))
        };
        make(false).expect("made for its first use");
        make(true).expect("it is there");
        std::fs::remove_file(volumes.driver().publish(volume).file)
            .expect("somebody empties the data directory");
        let refused = make(true).expect_err("its data is gone");
        assert_eq!(refused.reason, "VolumeMissing");
        assert_eq!(
            refused.message,
            "PersistentVolumeClaim data was in use, and its volume is not on this node any more: put \
             volumes/00000000-0000-0000-0000-000000000009.img back into the agent's data directory, or delete the claim and \
             create it anew"
        );
        assert!(!volumes.driver().publish(volume).file.exists(), "nothing empty takes its place");
    }
}
