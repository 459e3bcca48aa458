//! Volumes in memory: what the conformance suite holds the real driver against.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

use bulkhead_nodeagent_core::qemu::BlockDriver;
use uuid::Uuid;

use super::driver::{Capabilities, Content, Published, VolumeDriver, VolumeError};

/// What the file system of a volume needs for itself, in bytes.
const OVERHEAD_BYTES: u64 = 1 << 20;

#[derive(Clone, Debug)]
pub(super) struct Disk {
    length: u64,
    pub(super) data: Vec<u8>,
}

#[derive(Debug, Default)]
pub(super) struct Disks {
    pub(super) volumes: BTreeMap<Uuid, Disk>,
    pub(super) snapshots: BTreeMap<Uuid, Disk>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct FakeDriver(Mutex<Disks>);

impl FakeDriver {
    pub(super) fn disks(&self) -> MutexGuard<'_, Disks> {
        self.0.lock().expect("no test holds it in a panic")
    }
}

fn found<'a>(disks: &'a BTreeMap<Uuid, Disk>, what: &'static str, id: Uuid) -> Result<&'a Disk, VolumeError> {
    disks.get(&id).ok_or(VolumeError::Missing { what, id })
}

impl VolumeDriver for FakeDriver {
    fn capabilities(&self) -> Capabilities {
        Capabilities { expand_online: true, copies_at_once: true, grows_beside_guest: false }
    }

    fn keeps_volume(&self, volume: Uuid) -> io::Result<bool> {
        Ok(self.disks().volumes.contains_key(&volume))
    }

    fn keeps_snapshot(&self, snapshot: Uuid) -> io::Result<bool> {
        Ok(self.disks().snapshots.contains_key(&snapshot))
    }

    fn create_volume(&self, volume: Uuid, size_bytes: u64, content: Content) -> Result<(), VolumeError> {
        let length = self.disk_bytes(size_bytes);
        let mut disks = self.disks();
        if disks.volumes.contains_key(&volume) {
            return Ok(());
        }
        let disk = match content {
            Content::Empty => Disk { length, data: Vec::new() },
            Content::Snapshot(source) => found(&disks.snapshots, "snapshot", source)?.clone(),
            Content::Volume(source) => found(&disks.volumes, "volume", source)?.clone(),
        };
        disks.volumes.insert(volume, disk);
        Ok(())
    }

    fn has_volume(&self, volume: Uuid) -> io::Result<bool> {
        Ok(self.disks().volumes.contains_key(&volume))
    }

    fn stage_volume(&self, volume: Uuid, _writes: bool) -> Result<(), VolumeError> {
        found(&self.disks().volumes, "volume", volume).map(drop)
    }

    fn publish(&self, volume: Uuid) -> Published {
        Published { file: PathBuf::from(format!("/fake/{volume}")), driver: BlockDriver::Raw }
    }

    fn way_back(&self, _volume: Uuid) -> Option<String> {
        None
    }

    fn disk_bytes(&self, size_bytes: u64) -> u64 {
        size_bytes + OVERHEAD_BYTES
    }

    fn length(&self, volume: Uuid) -> Result<u64, VolumeError> {
        Ok(found(&self.disks().volumes, "volume", volume)?.length)
    }

    fn written_bytes(&self, volume: Uuid) -> Result<u64, VolumeError> {
        Ok(found(&self.disks().volumes, "volume", volume)?.data.len() as u64)
    }

    fn expand_volume(&self, volume: Uuid, size_bytes: u64) -> Result<(), VolumeError> {
        let wanted = self.disk_bytes(size_bytes);
        let mut disks = self.disks();
        let disk =
            disks.volumes.get_mut(&volume).ok_or(VolumeError::Missing { what: "volume", id: volume })?;
        disk.length = disk.length.max(wanted);
        Ok(())
    }

    fn delete_volume(&self, volume: Uuid) -> io::Result<()> {
        self.disks().volumes.remove(&volume);
        Ok(())
    }

    fn create_snapshot(&self, source: Uuid, snapshot: Uuid) -> Result<(), VolumeError> {
        let mut disks = self.disks();
        if !disks.snapshots.contains_key(&snapshot) {
            let disk = found(&disks.volumes, "volume", source)?.clone();
            disks.snapshots.insert(snapshot, disk);
        }
        Ok(())
    }

    fn delete_snapshot(&self, snapshot: Uuid) -> io::Result<()> {
        self.disks().snapshots.remove(&snapshot);
        Ok(())
    }
}
