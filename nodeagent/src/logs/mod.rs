//! The output of containers, on disk and within bounds.
//!
//! ```text
//!  guest ─ LogChunk(offset) ─► Writer ─► <pod>/logs/<container>/<guest>-<sequence>.log ─► Reader ─► client
//!                                          records: length, checksum, stream, run, time, offset, data
//! ```
//!
//! A *run* is one start of a container: the guest's instance and the restart in it. The current and the previous run
//! can be read. A segment is at most [`SEGMENT_LENGTH_MAX`] long, and only [`SEGMENTS_MAX`] of them are kept.

mod reader;
mod record;
mod store;

pub(crate) use reader::{FromNowOn, Selection, read};
pub(crate) use record::{Record, Run};
pub(crate) use store::{LogStore, PodLogs};

/// Longest segment, in bytes.
pub(crate) const SEGMENT_LENGTH_MAX: u64 = 2 << 20;
/// Most segments of one container: together Kubernetes' 10 MiB of a log file.
pub(crate) const SEGMENTS_MAX: usize = 5;
