//! The Raft log as the server sees it.

use crate::StorageError;

/// One Raft entry. `bytes` is opaque (term and type are the caller's to encode).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Raft index, from 1.
    pub index: u64,
    /// The encoded entry.
    pub bytes: Vec<u8>,
}

/// Everything one Raft `Ready` wants to be durable. Applied atomically: after a crash all of it is there or none.
///
/// The parts take effect in the order `reset_to`, `truncate_from`, `entries`, `compact_to`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogBatch {
    /// New hard state, opaque; `None` keeps the stored one.
    pub hard_state: Option<Vec<u8>>,
    /// Drop the entries with `index >=` this. Must not reach below the first index.
    pub truncate_from: Option<u64>,
    /// Entries to append, contiguous, starting right after the last one that is left.
    pub entries: Vec<LogEntry>,
    /// Drop the entries with `index <=` this; only after a snapshot at or above this index is durable.
    /// Below the first index it does nothing; above the last index is an error (that is what `reset_to` is for).
    pub compact_to: Option<u64>,
    /// A received snapshot at this index replaces the whole log: drop all entries, the next index is this + 1.
    /// Only after that snapshot is durable.
    pub reset_to: Option<u64>,
}

impl LogBatch {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The tail that [`LogStore::load`] cut off: one record, torn by a crash, that was never acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutTail {
    /// Sequence number of the record (one record is one [`LogBatch`]).
    pub record: u64,
    /// How many bytes of it were on disk.
    pub bytes: usize,
    /// Index of the last entry that is left; the first index - 1 when none is.
    pub last_index: u64,
}

/// What the disk holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedLog {
    /// The newest hard state; `None` on a fresh log.
    pub hard_state: Option<Vec<u8>>,
    /// Index of the first entry that is (or, in an empty log, will be) there; 1 on a fresh log.
    pub first_index: u64,
    /// The entries from `first_index` on, contiguous.
    pub entries: Vec<LogEntry>,
    /// A torn tail that was cut back just now; a second load does not report it again.
    pub cut: Option<CutTail>,
}

impl LoadedLog {
    /// Index of the last entry; `first_index - 1` when there is none.
    #[must_use]
    pub fn last_index(&self) -> u64 {
        self.entries.last().map_or(self.first_index - 1, |entry| entry.index)
    }
}

/// Durable home of the Raft log and the hard state. One writer.
///
/// After an error of `write` or `sync` that is not a refusal ([`StorageError::is_refusal`]) it is unknown what is
/// durable, and everything but `load` answers [`StorageError::Poisoned`].
pub trait LogStore: Send {
    /// Reads and checks everything, repairs a torn tail, and leaves what it returns durable. The first call on a
    /// store; may be repeated.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] names the damaged record; nothing is changed then.
    fn load(&mut self) -> Result<LoadedLog, StorageError>;

    /// Applies a batch; durable after [`sync`](Self::sync). An empty batch does nothing.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] and [`StorageError::Full`] leave the store as it was: the same batch may be
    /// written again later.
    fn write(&mut self, batch: &LogBatch) -> Result<(), StorageError>;

    /// Makes all writes so far durable with one flush; does nothing when there are none.
    ///
    /// # Errors
    /// After any failure here the store must be loaded again, a [`StorageError::Full`] included.
    fn sync(&mut self) -> Result<(), StorageError>;

    /// Whether there is room for writes: lets a server that stepped down for a full disk find out cheaply when
    /// space has returned.
    ///
    /// # Errors
    /// [`StorageError::Full`] while there is none.
    fn check_space(&self) -> Result<(), StorageError>;
}
