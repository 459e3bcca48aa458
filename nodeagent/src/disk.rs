//! Files that must survive: written whole or not at all. And the lock on the data directory.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::error::{AgentError, At as _};

/// Replaces a file durably: a crash leaves the old content or the new one.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_parent(path)
}

/// Makes the directory entry of `path` durable.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Removes a file; one that is not there is fine.
pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes a folder with everything in it; one that is not there is fine.
pub(crate) fn remove_dir(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The same of a folder to which there may be a link only, as of guests that were booted before their pods: nothing else says where it is.
pub(crate) fn remove_linked_dir(path: &Path) -> io::Result<()> {
    match fs::read_link(path) {
        Ok(linked) => remove_dir(&linked).and_then(|()| remove_file(path)),
        Err(_) => remove_dir(path),
    }
}

/// The data directory, locked for this process until it is dropped.
#[derive(Debug)]
pub(crate) struct DataDir {
    pub(crate) path: PathBuf,
    _lock: File,
}

impl DataDir {
    pub(crate) fn open(path: &Path) -> Result<Self, AgentError> {
        fs::create_dir_all(path).at("make", path)?;
        let path = fs::canonicalize(path).at("find", path)?;
        let lock_path = path.join("lock");
        let lock = File::create(&lock_path).at("make", &lock_path)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| AgentError::DataDirInUse { path: path.clone() })?;
        Ok(Self { path, _lock: lock })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_has_one_owner() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let first = DataDir::open(dir.path()).expect("free");
        assert!(matches!(DataDir::open(dir.path()), Err(AgentError::DataDirInUse { .. })));
        drop(first);
        DataDir::open(dir.path()).expect("free again");
    }

    #[test]
    fn a_replaced_file_holds_the_new_bytes_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("record.json");
        replace(&path, b"one").expect("written");
        replace(&path, b"two").expect("written");
        assert_eq!(fs::read(&path).expect("read"), b"two");
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1);
    }
}
