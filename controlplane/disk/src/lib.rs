//! The way between the server core and its disk: synchronous, and the same for the real server and the
//! simulated one.
//!
//! ```text
//!   Stores (sled, or a simulated disk)
//!     │  bootstrap: the snapshot that a new cluster begins with
//!     │  load ─────────► State + LogView ──► Server::new
//!     │  to_batch ◄──── Persist
//!     │  EventHistory ◄─ transactions, SaveSnapshot, jumps, expiry
//!     │  save_snapshot                       Outgoing: a snapshot as chunks for a peer
//!     ▼  Incoming ────► State                Outgoing ──► Incoming
//! ```
//!
//! Entry points: [`bootstrap`], [`load`], [`to_batch`], [`EventHistory`], [`save_snapshot`],
//! [`read_snapshot`].
//!
//! It never decides anything, never waits, and knows neither threads nor sockets.

mod backup;
mod framing;
mod history;
mod new_life;
mod replay;
mod snapshot;

use bulkhead_controlplane_core::State;
use bulkhead_controlplane_core::replica::{
    LogView, Persist, ReplicaError, SnapshotPoint, decode_conf_state, decode_entry, decode_hard_state, encode,
};
use bulkhead_storage::{CutTail, LogBatch, LogEntry, SnapshotMeta, StorageError, Stores};
use bulkhead_types::{CodecError, LogCodec, MemberId};
use raft::eraftpb::{ConfState, HardState};

pub use backup::{
    BACKUP_FORMAT, Backup, BackupError, BackupHeader, read_backup, read_backup_header, write_backup,
};
pub use history::{EventHistory, event_record};
pub use new_life::{Survivor, found, survivor};
pub use replay::Replay;
pub use snapshot::{
    CHUNK_BYTES, Receiving, SNAPSHOTS_KEPT, decode_chunks, meta_of, point_of, read_snapshot, receive,
    save_snapshot,
};

/// The index at which a new cluster's log begins: a snapshot of the empty State, with the first voters.
pub const GENESIS_INDEX: u64 = 1;
/// The term of that snapshot.
pub const GENESIS_TERM: u64 = 1;

/// Why a disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The storage says why.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A record is not what it should be.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A Raft record is not what it should be.
    #[error(transparent)]
    Raft(#[from] ReplicaError),
    /// A snapshot does not make a State.
    #[error("snapshot at entry {index}: {reason}")]
    Snapshot {
        /// The entry that it stands for.
        index: u64,
        /// What is wrong.
        reason: String,
    },
    /// The history cannot be gone through.
    #[error("{reason}; watches from before it must list again")]
    History {
        /// What is wrong.
        reason: String,
    },
    /// The log begins after the snapshot ends.
    #[error(
        "the log begins at entry {first}, the newest snapshot ends at {snapshot}: what lies between is missing; \
         stop this server, remove the member, and add it again with an empty data directory under a new id"
    )]
    Gap {
        /// First entry of the log.
        first: u64,
        /// Last entry of the snapshot.
        snapshot: u64,
    },
}

/// What a disk holds.
#[derive(Debug)]
pub struct Loaded {
    /// The State of the newest snapshot.
    pub state: State,
    /// The log after it.
    pub log: LogView,
    /// A torn tail that was cut off, never acknowledged.
    pub cut: Option<CutTail>,
}

/// Writes the snapshot that a new cluster begins with. Every first voter writes the same one. Does nothing on
/// a disk that holds a snapshot already.
///
/// # Errors
/// When the disk refuses.
pub fn bootstrap(stores: &Stores, codec: &dyn LogCodec, voters: &[MemberId]) -> Result<(), DiskError> {
    if stores.snapshots.latest()?.is_some() {
        return Ok(());
    }
    let mut conf_state = ConfState::default();
    conf_state.set_voters(voters.iter().map(|m| m.0).collect());
    let point = SnapshotPoint { index: GENESIS_INDEX, term: GENESIS_TERM, conf_state };
    save_snapshot(&*stores.snapshots, codec, &point, &State::default())
}

/// Reads everything that a server starts from. A disk without a snapshot is a new learner's: empty.
///
/// # Errors
/// When the disk refuses, or holds what cannot be used; the text says what and what to do.
pub fn load(stores: &mut Stores, codec: &dyn LogCodec) -> Result<Loaded, DiskError> {
    let log = stores.log.load()?;
    let (state, point) = match stores.snapshots.latest()? {
        Some(info) => (read_snapshot(&*stores.snapshots, codec, info.meta.index)?, point_of(&info.meta)?),
        None => (State::default(), SnapshotPoint::default()),
    };
    let is_empty = log.entries.is_empty();
    if !is_empty && log.first_index > point.index + 1 {
        return Err(DiskError::Gap { first: log.first_index, snapshot: point.index });
    }
    let hard_state =
        log.hard_state.as_deref().map(decode_hard_state).transpose()?.unwrap_or_else(HardState::default);
    let entries = log.entries.into_iter().map(|e| decode_entry(&e.bytes)).collect::<Result<Vec<_>, _>>()?;
    // A snapshot that the log does not lead to (it came from a peer, or is the first one) replaces the log.
    let follows = log.first_index == point.index + 1
        || entries.iter().any(|e| e.get_index() == point.index && e.get_term() == point.term);
    if point.index > 0 && !follows {
        stores.log.write(&LogBatch { reset_to: Some(point.index), ..LogBatch::default() })?;
        stores.log.sync()?;
    }
    // Transactions of entries that are not in the log any more were never acknowledged, or come again.
    stores.events.truncate_after(state.revision())?;
    // A snapshot from a peer is ahead of the events that this server kept, when it stopped right after it had become
    // durable: history begins anew there, as it does without a crash.
    if stores.events.bounds()?.is_some_and(|(_, newest)| newest < state.revision()) {
        stores.events.compact(state.revision() + 1)?;
    }
    Ok(Loaded { state, log: LogView::new(point, hard_state, entries), cut: log.cut })
}

/// A persist request in the storage's terms.
#[must_use]
pub fn to_batch(persist: &Persist) -> LogBatch {
    LogBatch {
        hard_state: persist.hard_state.clone(),
        truncate_from: persist.truncate_from,
        entries: persist
            .entries
            .iter()
            .map(|(index, bytes)| LogEntry { index: *index, bytes: bytes.clone() })
            .collect(),
        compact_to: persist.compact_to,
        reset_to: persist.reset_to,
    }
}

/// The storage's description of a snapshot at this point.
fn meta(point: &SnapshotPoint, revision: u64) -> SnapshotMeta {
    SnapshotMeta { index: point.index, term: point.term, revision, extra: encode(&point.conf_state) }
}

fn conf_state(meta: &SnapshotMeta) -> Result<ConfState, ReplicaError> {
    decode_conf_state(&meta.extra)
}
