//! The one writer of snapshots: of those made here and of those received.

use std::sync::Arc;

use crate::{
    Operation, SnapshotInfo, SnapshotMeta, SnapshotWriter, StorageError,
    acknowledged::Position,
    codec,
    engine::Batch,
    keys::{self, Tree},
    snapshot_engine::Shared,
    snapshot_record,
};

/// Longest chunk in bytes. Chunks around 128 KiB are the fastest on sled: below its limit for values that it keeps
/// in files of their own.
pub const MAX_CHUNK_BYTES: usize = 1024 * 1024;

/// Running totals of the chunks so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) chunks: u32,
    pub(crate) bytes: u64,
    pub(crate) digest: u32,
}

impl Totals {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.chunks += 1;
        self.bytes += u64::try_from(bytes.len()).expect("usize fits u64");
        self.digest = crc32c::crc32c_append(self.digest, &crc32c::crc32c(bytes).to_le_bytes());
    }

    pub(crate) fn info(self, meta: SnapshotMeta) -> SnapshotInfo {
        SnapshotInfo { meta, chunks: self.chunks, bytes: self.bytes, digest: self.digest }
    }
}

pub(crate) struct Writer {
    shared: Arc<Shared>,
    meta: SnapshotMeta,
    /// Tells this writer from one that took its place.
    ticket: u64,
    totals: Totals,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, meta: SnapshotMeta, ticket: u64, totals: Totals) -> Self {
        Self { shared, meta, ticket, totals }
    }
}

impl SnapshotWriter for Writer {
    fn next_chunk(&self) -> u32 {
        self.totals.chunks
    }

    fn write_chunk(&mut self, chunk: u32, bytes: &[u8]) -> Result<(), StorageError> {
        let index = self.meta.index;
        let expected = self.totals.chunks;
        if chunk != expected {
            return Err(StorageError::ChunkOutOfOrder { index, expected, got: chunk });
        }
        if bytes.len() > MAX_CHUNK_BYTES || chunk == u32::MAX {
            let reason =
                format!("snapshot {index} chunk {chunk}: {} bytes, limit {MAX_CHUNK_BYTES}", bytes.len());
            return Err(StorageError::invalid("snapshot chunk", reason));
        }
        let _writers = self.shared.check_ticket(index, self.ticket)?;
        let key = keys::snapshot_chunk(index, chunk);
        let value = codec::seal(Tree::Snapshots, &key, bytes);
        let mut batch = Batch::default();
        batch.put(key, value);
        self.shared.engine.apply(Operation::SnapshotWrite, Tree::Snapshots, batch)?;
        self.totals.add(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<SnapshotInfo, StorageError> {
        let index = self.meta.index;
        let engine = &self.shared.engine;
        let _writers = self.shared.check_ticket(index, self.ticket)?;
        // The chunks first: the record that makes the snapshot visible is not even written before they are durable.
        engine.flush(Operation::SnapshotSync)?;
        let info = self.totals.info(self.meta.clone());
        let key = keys::snapshot_meta(index);
        let value = snapshot_record::seal(&key, &info);
        let mut batch = Batch::default();
        batch.put(key, value);
        batch.delete(keys::snapshot_pending(index));
        engine.apply(Operation::SnapshotWrite, Tree::Snapshots, batch)?;
        engine.flush(Operation::SnapshotSync)?;
        if index > engine.acknowledged()?.snapshot_index {
            engine.acknowledge(Operation::SnapshotSync, Position::SnapshotIndex(index))?;
        }
        Ok(info)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.release(self.meta.index, self.ticket);
    }
}
