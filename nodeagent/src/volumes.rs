//! The volumes of claims: files that outlive pods, guests and this agent.
//!
//! ```text
//!  <data>/volumes/<uuid>.img    a sparse file with an ext4 file system; made at its first use, deleted by name only
//!  <data>/volumes/<uuid>.new    one that is being made
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::disk;
use crate::image::{ImageError, create_volume};

/// The volumes under a data directory.
#[derive(Clone, Debug)]
pub(crate) struct Volumes {
    dir: PathBuf,
}

impl Volumes {
    pub(crate) fn new(data: &Path) -> Self {
        Self { dir: data.join("volumes") }
    }

    /// The file of a volume.
    pub(crate) fn path(&self, volume: Uuid) -> PathBuf {
        self.dir.join(format!("{volume}.img"))
    }

    /// Removes a volume for good; one that is not there is fine.
    pub(crate) fn delete(&self, volume: Uuid) -> io::Result<()> {
        let path = self.path(volume);
        disk::remove_file(&path.with_extension("new"))?;
        disk::remove_file(&path)?;
        if self.dir.is_dir() { disk::sync_parent(&path) } else { Ok(()) }
    }
}

/// Makes a volume with an empty file system, unless there is one: that is never touched. It is there whole or not at all.
pub(crate) fn make_once(path: &Path, size_bytes: u64) -> Result<(), ImageError> {
    let failed = |action, error| ImageError::io(action, path, error);
    if path.try_exists().map_err(|error| failed("look for", error))? {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| failed("make the folder of", error))?;
        disk::sync_parent(parent).map_err(|error| failed("make the folder of", error))?;
    }
    let fresh = path.with_extension("new");
    disk::remove_file(&fresh).map_err(|error| failed("make", error))?;
    create_volume(&fresh, size_bytes)?;
    let finish = || {
        File::open(&fresh)?.sync_all()?;
        fs::rename(&fresh, path)?;
        disk::sync_parent(path)
    };
    finish().map_err(|error| failed("make", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_made_once_and_deleted_by_name() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let volumes = Volumes::new(dir.path());
        let volume = Uuid::from_u128(7);
        volumes.delete(volume).expect("nothing to delete is fine");
        let path = volumes.path(volume);
        make_once(&path, 16 << 20).expect("made; mkfs.ext4 is there");
        let made = fs::read(&path).expect("a file system");
        assert_eq!(made[0x438..0x43a], [0x53, 0xef], "the mark of ext4");
        fs::write(&path, b"what a guest wrote").expect("written");
        make_once(&path, 16 << 20).expect("there already");
        assert_eq!(fs::read(&path).expect("read"), b"what a guest wrote");
        let other = volumes.path(Uuid::from_u128(8));
        fs::write(&other, b"another").expect("written");
        volumes.delete(volume).expect("deleted");
        volumes.delete(volume).expect("deleted twice");
        assert!(!path.exists() && other.exists());
    }
}
