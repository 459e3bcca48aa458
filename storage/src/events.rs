//! The history of events as the server sees it.

use crate::StorageError;

/// The events of one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRecord {
    /// Revision of its first event, from 1.
    pub first_revision: u64,
    /// Revision of its last event; the record's key.
    pub last_revision: u64,
    /// The encoded events, opaque.
    pub bytes: Vec<u8>,
}

/// Records of events by revision, without gaps.
pub trait EventStore: Send + Sync {
    /// Appends records; durable after [`sync`](Self::sync). Records that are already there with the same content
    /// are skipped, so that a restarted server may apply its log again.
    ///
    /// # Errors
    /// [`StorageError::Conflict`] when a stored record differs: this replica diverged. [`StorageError::Invalid`]
    /// on a gap or an overlap; a record below the oldest stored one is refused as well. Nothing is changed then.
    fn append(&self, records: &[EventRecord]) -> Result<(), StorageError>;

    /// Up to `limit` (and [`MAX_READ_RECORDS`](crate::MAX_READ_RECORDS)) records with
    /// `last_revision >= from_revision`, in order.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] names the damaged or missing record.
    fn read(&self, from_revision: u64, limit: usize) -> Result<Vec<EventRecord>, StorageError>;

    /// `first_revision` of the oldest record and `last_revision` of the newest; `None` when there is none.
    ///
    /// # Errors
    /// Whatever made the store unusable.
    fn bounds(&self) -> Result<Option<(u64, u64)>, StorageError>;

    /// Drops the records that end before a revision. A record that reaches over it stays whole.
    ///
    /// # Errors
    /// An error leaves the store usable, with part of the records dropped.
    fn compact(&self, before_revision: u64) -> Result<(), StorageError>;

    /// Drops the records that end after a revision (a restore from a snapshot). Durable on return.
    ///
    /// # Errors
    /// An error leaves the store usable, with part of the records dropped.
    fn truncate_after(&self, revision: u64) -> Result<(), StorageError>;

    /// Makes all appends so far durable.
    ///
    /// # Errors
    /// It is unknown what is durable then: open the stores again.
    fn sync(&self) -> Result<(), StorageError>;
}
