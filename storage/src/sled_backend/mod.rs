//! A data directory on a real disk, over sled 0.34.
//!
//! ```text
//! <dir>/lock           locked while a process uses the directory
//! <dir>/identity       owner and format number; written last, so that it means "creation was completed"
//! <dir>/acknowledged   how far syncs were promised
//! <dir>/db/            the sled database: trees meta, log, events, snapshots
//! ```
//!
//! What had to be added around sled 0.34.7, and why:
//! - its `flush` ends in `sync_file_range`, which neither writes the file's metadata nor empties the drive's cache:
//!   [`engine`] follows it with `fdatasync`, and syncs the files of large values, which sled never does;
//! - at start it takes a damaged message for the end of its log: the acknowledged positions catch that;
//! - after a failed write it answers every call with that error until it is opened again, and some failures are
//!   panics: the engine catches both and poisons itself. A panic on one of sled's own threads cannot be caught; sled
//!   may then wait for ever, which a server's watchdog has to end;
//! - it does not survive a full disk: the engine refuses writes while there is still a reserve.

mod directory;
mod engine;
mod options;
mod space;

pub use directory::{open, open_with};
pub use options::SledOptions;
pub use space::{DiskSpace, FreeBytes};
