//! The reserve of free space below which writes are refused.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::SledOptions;
use crate::{Operation, StorageError};

type Ask = dyn Fn(&Path) -> io::Result<u64> + Send + Sync;

/// Asks how many bytes an unprivileged process can still write at a path.
#[derive(Clone)]
pub struct FreeBytes(Arc<Ask>);

impl FreeBytes {
    /// Asks the file system.
    #[must_use]
    pub fn file_system() -> Self {
        Self::new(|path| Ok(DiskSpace::of(path)?.free_bytes))
    }

    /// Asks a function (a quota, a test).
    #[must_use]
    pub fn new(ask: impl Fn(&Path) -> io::Result<u64> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }
}

impl fmt::Debug for FreeBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FreeBytes")
    }
}

/// Room on a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// What an unprivileged process can still write.
    pub free_bytes: u64,
    /// All of it.
    pub total_bytes: u64,
}

impl DiskSpace {
    /// Asks the file system of a path.
    ///
    /// # Errors
    /// When the path is not there.
    pub fn of(path: &Path) -> io::Result<Self> {
        let stat = rustix::fs::statvfs(path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Self { free_bytes: bytes(stat.f_bavail), total_bytes: bytes(stat.f_blocks) })
    }
}

/// The check of one data directory.
pub(super) struct SpaceCheck {
    path: PathBuf,
    reserve_bytes: u64,
    free_bytes: FreeBytes,
}

impl SpaceCheck {
    pub(super) fn new(path: &Path, options: &SledOptions) -> Self {
        let free_bytes = options.free_bytes.clone();
        Self { path: path.to_owned(), reserve_bytes: options.reserve_bytes, free_bytes }
    }

    /// Refuses a write that would eat into the reserve.
    pub(super) fn check(
        &self,
        operation: Operation,
        bytes: usize,
        is_maintenance: bool,
    ) -> Result<(), StorageError> {
        if self.reserve_bytes == 0 {
            return Ok(());
        }
        let reserve = if is_maintenance { self.reserve_bytes / 4 } else { self.reserve_bytes };
        let needed = reserve.saturating_add(u64::try_from(bytes).expect("usize fits u64"));
        let free =
            (self.free_bytes.0)(&self.path).map_err(|e| StorageError::from_io(operation.name(), &e))?;
        if free >= needed {
            return Ok(());
        }
        let detail = format!("{}: {free} bytes are free, {needed} are needed", self.path.display());
        Err(StorageError::Full { operation: operation.name(), detail })
    }
}
