//! What every disk must do: one suite for the real one, the simulated one, and the simulated one with faults.
//!
//! Each law is a function over a [`Disk`]; it panics where the disk breaks it. Run them all with [`run`].

mod events;
mod identity;
mod log;
mod model;
mod snapshots;

pub use model::{LogHistory, LogModel};

use crate::{Identity, LogBatch, LogEntry, StorageError, Stores};

/// A disk under test. Opening it ends the process that used it before, in the disk's own way: closed in order, or
/// crashed with a loss of what was not synced. (The caller has dropped the stores.)
pub trait Disk {
    /// Opens the stores.
    ///
    /// # Errors
    /// As [`open`](crate::open).
    fn open(&self, expected: Option<Identity>) -> Result<Stores, StorageError>;
}

/// Name of a law, and the law.
pub type Law = (&'static str, fn(&dyn Disk));

/// The identity under which laws open their disk.
pub const OWNER: Identity = Identity { cluster_id: [1; 16], member_id: 2, storage_uid: [3; 16] };

/// All laws.
#[must_use]
pub fn laws() -> Vec<Law> {
    [identity::LAWS, log::LAWS, events::LAWS, snapshots::LAWS].concat()
}

/// Runs every law on a fresh disk each.
pub fn run<D: Disk>(mut fresh: impl FnMut() -> D) {
    for (name, law) in laws() {
        let disk = fresh();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| law(&disk)));
        assert!(outcome.is_ok(), "law broken: {name} (its own message is above)");
    }
}

/// Opens as the owner.
///
/// # Panics
/// When the disk cannot be opened.
pub fn open(disk: &dyn Disk) -> Stores {
    disk.open(Some(OWNER)).expect("the disk opens for its owner")
}

/// Entries `from..=to` whose bytes name the index and a tag, of growing length.
#[must_use]
pub fn entries(from: u64, to: u64, tag: u8) -> Vec<LogEntry> {
    let entry = |index: u64| {
        let length = usize::try_from(index % 50).expect("small") + 1;
        LogEntry { index, bytes: [&index.to_be_bytes()[..], &vec![tag; length]].concat() }
    };
    (from..=to).map(entry).collect()
}

/// A batch that appends.
#[must_use]
pub fn append(from: u64, to: u64, tag: u8) -> LogBatch {
    LogBatch { entries: entries(from, to, tag), ..LogBatch::default() }
}
