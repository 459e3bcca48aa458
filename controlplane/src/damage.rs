//! Stores that tell the process when what the disk holds is damaged.
//!
//! Whoever reads gets the error and answers with it; the process hears of it at the same time, ends, and says which
//! record it was and what to do. A server that served on would only be asked for the same record again.

use std::sync::Arc;

use bulkhead_storage::{
    EventRecord, EventStore, SnapshotInfo, SnapshotMeta, SnapshotStore, SnapshotWriter, StorageError,
};
use tokio::sync::mpsc;

/// The way to the process; the first report counts.
#[derive(Clone, Debug)]
struct Damage(mpsc::Sender<StorageError>);

/// A store whose errors are looked at.
pub(crate) struct Guarded<S: ?Sized> {
    store: Arc<S>,
    damage: Damage,
}

/// The same stores, guarded, and where their damage is reported.
pub(crate) fn guard(
    events: Arc<dyn EventStore>,
    snapshots: Arc<dyn SnapshotStore>,
) -> (Arc<dyn EventStore>, Arc<dyn SnapshotStore>, mpsc::Receiver<StorageError>) {
    let (sender, reports) = mpsc::channel(1);
    let damage = Damage(sender);
    let events = Guarded { store: events, damage: damage.clone() };
    let snapshots = Guarded { store: snapshots, damage };
    (Arc::new(events), Arc::new(snapshots), reports)
}

/// Whether the store cannot go on: what it holds is damaged, or it does not know any more what it holds. A refusal
/// (a full disk, a snapshot that was replaced meanwhile) says nothing of the kind.
fn is_end(error: &StorageError) -> bool {
    error.is_fatal() || !error.is_refusal()
}

impl<S: ?Sized> Guarded<S> {
    fn look<T>(&self, result: Result<T, StorageError>) -> Result<T, StorageError> {
        if let Err(error) = &result
            && is_end(error)
        {
            // A report that finds no room is not the first one.
            let _ = self.damage.0.try_send(error.clone());
        }
        result
    }
}

impl EventStore for Guarded<dyn EventStore> {
    fn append(&self, records: &[EventRecord]) -> Result<(), StorageError> {
        self.look(self.store.append(records))
    }

    fn read(&self, from_revision: u64, limit: usize) -> Result<Vec<EventRecord>, StorageError> {
        self.look(self.store.read(from_revision, limit))
    }

    fn bounds(&self) -> Result<Option<(u64, u64)>, StorageError> {
        self.look(self.store.bounds())
    }

    fn compact(&self, before_revision: u64) -> Result<(), StorageError> {
        self.look(self.store.compact(before_revision))
    }

    fn truncate_after(&self, revision: u64) -> Result<(), StorageError> {
        self.look(self.store.truncate_after(revision))
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.look(self.store.sync())
    }
}

impl SnapshotStore for Guarded<dyn SnapshotStore> {
    fn begin(&self, meta: SnapshotMeta) -> Result<Box<dyn SnapshotWriter>, StorageError> {
        self.look(self.store.begin(meta))
    }

    fn resume(&self, meta: &SnapshotMeta) -> Result<Option<Box<dyn SnapshotWriter>>, StorageError> {
        self.look(self.store.resume(meta))
    }

    fn latest(&self) -> Result<Option<SnapshotInfo>, StorageError> {
        self.look(self.store.latest())
    }

    fn list(&self) -> Result<Vec<SnapshotInfo>, StorageError> {
        self.look(self.store.list())
    }

    fn read_chunk(&self, index: u64, chunk: u32) -> Result<Vec<u8>, StorageError> {
        self.look(self.store.read_chunk(index, chunk))
    }

    fn verify(&self, index: u64) -> Result<SnapshotInfo, StorageError> {
        self.look(self.store.verify(index))
    }

    fn retain(&self, count: usize) -> Result<(), StorageError> {
        self.look(self.store.retain(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(error: StorageError, expected: bool) {
        assert_eq!(is_end(&error), expected, "{error}");
    }

    #[test]
    fn damage_ends_the_process_and_refusals_do_not() {
        let text = String::new;
        check(StorageError::Corrupt { tree: "events", record: text(), reason: text() }, true);
        check(StorageError::MissingChunk { index: 1, chunk: 2, chunks: 3 }, true);
        check(StorageError::Conflict { revision: 1 }, true);
        check(StorageError::Io { operation: "read", detail: text() }, true);
        check(StorageError::Engine { operation: "read", detail: text() }, true);
        check(StorageError::Poisoned { cause: text() }, true);
        check(StorageError::Full { operation: "write", detail: text() }, false);
        check(StorageError::NoSnapshot { index: 1 }, false);
        check(StorageError::Invalid { operation: "read", reason: text() }, false);
        check(StorageError::ChunkOutOfOrder { index: 1, expected: 1, got: 2 }, false);
    }
}
