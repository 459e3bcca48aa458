//! The disk of a Bulkhead server: Raft log, history of events, snapshots. Bytes in, bytes out.
//!
//! ```text
//!        LogStore            EventStore           SnapshotStore        traits: what a server needs
//!   log.rs / log_engine   events / event_engine  snapshots / ..._engine
//!            └──────────────────┬───────────────────────┘              one implementation of each,
//!                      codec, keys, replay                             with one checksum and tear logic
//!                               │
//!                     Engine (private trait)                           ordered keys, atomic batches, flush
//!                   ┌───────────┴────────────┐
//!            sled_backend                  mem
//!   <dir>/identity lock acknowledged db/   MemDisk: written and synced image,
//!                                          crashes and faults chosen by the caller
//! ```
//!
//! Entry points: [`open`] for a data directory, [`MemDisk`] for a simulated disk; both give [`Stores`].
//!
//! What it promises:
//! - every record carries a CRC32C over its key and value and is checked on every read; the error names the record
//!   and the remedy;
//! - a [`LogBatch`] is one record under one key: after a crash all of it is there or none;
//! - what a `sync` acknowledged is there after a crash, or the loss is reported. A torn record is cut off only at the
//!   very end and only when it was never acknowledged;
//! - a directory of another cluster, another member, a newer format or a running process is refused.
//!
//! What it never does: interpret the bytes of entries, events or snapshots; read a clock; draw random numbers; write
//! outside its directory.

mod acknowledged;
mod codec;
#[doc(hidden)]
pub mod conformance;
mod engine;
mod error;
mod event_engine;
mod events;
mod identity;
pub mod keys;
mod log;
mod log_engine;
mod log_record;
mod log_replay;
mod mem;
mod operation;
mod sled_backend;
mod snapshot_engine;
mod snapshot_record;
mod snapshot_writer;
mod snapshots;
mod stores;

pub use error::StorageError;
pub use event_engine::{MAX_EVENT_RECORD_BYTES, MAX_READ_RECORDS};
pub use events::{EventRecord, EventStore};
pub use identity::Identity;
pub use log::{CutTail, LoadedLog, LogBatch, LogEntry, LogStore};
pub use log_engine::MAX_BATCH_BYTES;
pub use mem::{CrashChoice, CrashReport, Fault, FaultPlan, FaultRule, MemDisk};
pub use operation::Operation;
pub use sled_backend::{DiskSpace, FreeBytes, SledOptions, open, open_with};
pub use snapshot_writer::MAX_CHUNK_BYTES;
pub use snapshots::{SnapshotInfo, SnapshotMeta, SnapshotStore, SnapshotWriter};
pub use stores::Stores;
