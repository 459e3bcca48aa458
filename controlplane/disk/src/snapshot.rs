//! Snapshots: State to chunks and back.

use bulkhead_controlplane_core::replica::SnapshotPoint;
use bulkhead_controlplane_core::{Restorer, State};
use bulkhead_storage::{SnapshotInfo, SnapshotMeta, SnapshotStore, SnapshotWriter, StorageError};
use bulkhead_types::LogCodec;

use crate::framing::{Unframer, push};
use crate::{DiskError, conf_state, meta};

/// About how many bytes a chunk has: small enough to be sent between heartbeats, large enough to be few.
pub const CHUNK_BYTES: usize = 256 << 10;
/// How many snapshots are kept: the newest, and one that may be on its way to a peer.
pub const SNAPSHOTS_KEPT: usize = 2;

/// The storage's description of a snapshot of `state` at `point`.
#[must_use]
pub fn meta_of(point: &SnapshotPoint, state: &State) -> SnapshotMeta {
    meta(point, state.revision())
}

/// The point that a stored snapshot stands for.
///
/// # Errors
/// When its configuration cannot be read.
pub fn point_of(meta: &SnapshotMeta) -> Result<SnapshotPoint, DiskError> {
    Ok(SnapshotPoint { index: meta.index, term: meta.term, conf_state: conf_state(meta)? })
}

/// Where a snapshot that a peer sends goes.
pub enum Receiving {
    /// Parts of it are missing.
    Writer(Box<dyn SnapshotWriter>),
    /// All of it is here and durable: it came before and raft did not take it then, or this server made it itself.
    Present(SnapshotInfo),
}

/// Goes on with what an earlier transfer left, begins anew, or finds the whole snapshot.
///
/// One place of the log has one State: whose copy of it is on the disk makes no difference.
///
/// # Errors
/// When the disk refuses.
pub fn receive(store: &dyn SnapshotStore, meta: &SnapshotMeta) -> Result<Receiving, StorageError> {
    if let Some(info) = store.list()?.into_iter().find(|info| is_same(&info.meta, meta)) {
        return Ok(Receiving::Present(info));
    }
    Ok(Receiving::Writer(match store.resume(meta)? {
        Some(writer) => writer,
        None => store.begin(meta.clone())?,
    }))
}

fn is_same(one: &SnapshotMeta, other: &SnapshotMeta) -> bool {
    (one.index, one.term, one.revision) == (other.index, other.term, other.revision)
}

/// Writes a snapshot; when this returns it is durable, and older ones are gone but for the last. One that is there
/// already, from a peer, stays as it is.
///
/// # Errors
/// When the disk refuses.
pub fn save_snapshot(
    store: &dyn SnapshotStore,
    codec: &dyn LogCodec,
    point: &SnapshotPoint,
    state: &State,
) -> Result<(), DiskError> {
    let meta = meta_of(point, state);
    if store.list()?.iter().any(|info| is_same(&info.meta, &meta)) {
        return Ok(());
    }
    let mut writer = store.begin(meta)?;
    let mut buffer = Vec::with_capacity(CHUNK_BYTES + (CHUNK_BYTES >> 2));
    for record in state.records() {
        push(&mut buffer, &codec.encode_snapshot_record(&record));
        while buffer.len() >= CHUNK_BYTES {
            write_next(&mut *writer, &buffer[..CHUNK_BYTES])?;
            buffer.drain(..CHUNK_BYTES);
        }
    }
    if !buffer.is_empty() {
        write_next(&mut *writer, &buffer)?;
    }
    writer.finish()?;
    store.retain(SNAPSHOTS_KEPT)?;
    Ok(())
}

fn write_next(writer: &mut dyn SnapshotWriter, bytes: &[u8]) -> Result<(), DiskError> {
    let chunk = writer.next_chunk();
    Ok(writer.write_chunk(chunk, bytes)?)
}

/// Reads a stored snapshot as a State, and checks it against its own digest.
///
/// # Errors
/// When it is not there, damaged or incomplete.
pub fn read_snapshot(
    store: &dyn SnapshotStore,
    codec: &dyn LogCodec,
    index: u64,
) -> Result<State, DiskError> {
    let info = store.verify(index)?;
    let chunks = (0..info.chunks).map(|n| store.read_chunk(index, n).map_err(DiskError::from));
    decode_chunks(index, codec, chunks)
}

/// Makes a State of a snapshot's chunks, in order.
///
/// # Errors
/// When a chunk cannot be had, or they do not make a State.
pub fn decode_chunks(
    index: u64,
    codec: &dyn LogCodec,
    chunks: impl Iterator<Item = Result<Vec<u8>, DiskError>>,
) -> Result<State, DiskError> {
    let broken = |reason: String| DiskError::Snapshot { index, reason };
    let (mut unframer, mut restorer) = (Unframer::default(), Restorer::default());
    for chunk in chunks {
        unframer.feed(&chunk?);
        while let Some(record) = unframer.next().map_err(|e| broken(e.to_owned()))? {
            let record = codec.decode_snapshot_record(record)?;
            restorer.push(record).map_err(|e| broken(e.to_string()))?;
        }
    }
    if unframer.is_inside() {
        return Err(broken("the last record is cut off".to_owned()));
    }
    restorer.finish().map_err(|e| broken(e.to_string()))
}
