//! A backup: one State in one file that checks itself.
//!
//! ```text
//!   "BULKHEAD BACKUP\n"
//!   format u32 | header (fixed length) | crc32c u32
//!   chunk*     length u32 (1 ..= 1 MiB) | crc32c(number, data) u32 | data     the records of a snapshot, framed
//!   0 u32 | chunks u64 | bytes u64 | SHA-256 of everything before it           and the file ends here
//! ```
//!
//! All numbers are little-endian. The checksum of a chunk says where a file is damaged, the hash at the end that
//! all of it is one file; the State's own digest, that it was what the server had.

mod header;
mod read;
mod write;

pub use header::{BACKUP_FORMAT, BackupHeader};
pub use read::{Backup, BackupError, read_backup, read_backup_header};
pub use write::write_backup;

/// What every backup begins with.
const MAGIC: &[u8; 16] = b"BULKHEAD BACKUP\n";
/// Longest chunk.
const CHUNK_BYTES_MAX: usize = 1 << 20;

fn chunk_checksum(number: u64, data: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&number.to_le_bytes()), data)
}
