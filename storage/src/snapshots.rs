//! Snapshots as the server sees them.

use crate::StorageError;

/// Which state a snapshot holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// Raft index of the last entry in it; its key.
    pub index: u64,
    /// Raft term of that entry.
    pub term: u64,
    /// Last revision in it.
    pub revision: u64,
    /// Opaque: the Raft configuration, and whatever else the server needs.
    pub extra: Vec<u8>,
}

/// A finished snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Which state it holds.
    pub meta: SnapshotMeta,
    /// Number of chunks, `0..chunks`.
    pub chunks: u32,
    /// Sum of the chunks' lengths.
    pub bytes: u64,
    /// CRC32C over the CRC32Cs of all chunks in order: equal content in equal chunks, equal digest.
    pub digest: u32,
}

/// A snapshot that is being written or received. Dropping it leaves what was written, for [`SnapshotStore::resume`].
pub trait SnapshotWriter: Send {
    /// The chunk to write next.
    fn next_chunk(&self) -> u32;

    /// Writes a chunk, at most [`MAX_CHUNK_BYTES`](crate::MAX_CHUNK_BYTES) long.
    ///
    /// # Errors
    /// [`StorageError::ChunkOutOfOrder`] says which chunk it must be; nothing is changed then, nor on
    /// [`StorageError::Full`].
    fn write_chunk(&mut self, chunk: u32, bytes: &[u8]) -> Result<(), StorageError>;

    /// Makes the snapshot durable, and only then visible. It replaces nothing: see [`SnapshotStore::retain`].
    ///
    /// # Errors
    /// The snapshot is not visible then; it may be resumed.
    fn finish(self: Box<Self>) -> Result<SnapshotInfo, StorageError>;
}

/// Snapshots in chunks.
pub trait SnapshotStore: Send + Sync {
    /// Starts a snapshot from its first chunk on. What an unfinished one at the same index left is dropped, and its
    /// writer, if one still lives, writes no more.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] when a finished one at this index exists.
    fn begin(&self, meta: SnapshotMeta) -> Result<Box<dyn SnapshotWriter>, StorageError>;

    /// Continues an unfinished snapshot with exactly this meta; `None` when there is none. Chunks that a crash
    /// damaged are dropped, `next_chunk` says where to go on.
    ///
    /// # Errors
    /// Whatever made the store unusable.
    fn resume(&self, meta: &SnapshotMeta) -> Result<Option<Box<dyn SnapshotWriter>>, StorageError>;

    /// The finished snapshot with the highest index.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] names the damaged record.
    fn latest(&self) -> Result<Option<SnapshotInfo>, StorageError>;

    /// All finished snapshots by index.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] names the damaged record.
    fn list(&self) -> Result<Vec<SnapshotInfo>, StorageError>;

    /// One chunk of a finished snapshot.
    ///
    /// # Errors
    /// [`StorageError::NoSnapshot`] (it may have been dropped by [`retain`](Self::retain) meanwhile),
    /// [`StorageError::MissingChunk`], [`StorageError::Corrupt`], or [`StorageError::Invalid`] for a chunk number
    /// past the end.
    fn read_chunk(&self, index: u64, chunk: u32) -> Result<Vec<u8>, StorageError>;

    /// Reads a finished snapshot through and checks everything in it.
    ///
    /// # Errors
    /// As [`read_chunk`](Self::read_chunk).
    fn verify(&self, index: u64) -> Result<SnapshotInfo, StorageError>;

    /// Keeps the newest `count` finished snapshots (at least one: the log builds on it), and drops the older ones and the unfinished ones below the
    /// newest finished one that nobody writes.
    ///
    /// # Errors
    /// An error leaves the store usable; what is left over is dropped by the next call or the next start.
    fn retain(&self, count: usize) -> Result<(), StorageError>;
}
