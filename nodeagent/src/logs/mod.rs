//! The output of containers, on disk and within bounds.
//!
//! ```text
//!  guest ─ LogChunk(offset) ─► Writer ─► <pod>/logs/<container>/<guest>-<sequence>.log ─► Reader ─► client
//!                                          records: length, checksum, stream, run, time, offset, data
//! ```
//!
//! A *run* is one start of a container: the guest's instance and the restart in it. The current and the previous run
//! can be read. How long a segment becomes, and how many are kept, is said by [`LogLimits`].

mod reader;
mod record;
mod store;

pub(crate) use reader::{FromNowOn, Selection, read};
pub(crate) use record::{Record, Run};
pub(crate) use store::{LogStore, PodLogs};

/// How much of one container's output is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// Longest file, in bytes (the kubelet's `--container-log-max-size`).
    pub file_bytes: u64,
    /// Most files; the oldest goes (the kubelet's `--container-log-max-files`).
    pub files: u32,
}

impl Default for LogLimits {
    /// Together Kubernetes' 10 MiB of a log file.
    fn default() -> Self {
        Self { file_bytes: 2 << 20, files: 5 }
    }
}
