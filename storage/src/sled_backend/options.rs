//! Options of a data directory.

use super::FreeBytes;

/// How to open a data directory.
#[derive(Debug, Clone)]
pub struct SledOptions {
    /// Memory for sled's page cache, in bytes.
    pub cache_bytes: u64,
    /// Writes are refused as [`Full`](crate::StorageError::Full) when less than this would be left on the disk.
    /// A quarter of it stays open for what frees space. 0 switches the check off.
    pub reserve_bytes: u64,
    /// Where the free space is asked for; the file system by default.
    pub free_bytes: FreeBytes,
}

impl Default for SledOptions {
    fn default() -> Self {
        Self { cache_bytes: 64 << 20, reserve_bytes: 64 << 20, free_bytes: FreeBytes::file_system() }
    }
}
