//! The history thread: gives the keeper of events and snapshots its jobs, in the order in which they came.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, mpsc};

use bulkhead_controlplane_core::server::{Input, SaveSnapshot};
use bulkhead_controlplane_disk::{DiskError, EventHistory};
use bulkhead_proto::ProtoCodec;
use bulkhead_storage::{EventStore, SnapshotStore};
use bulkhead_types::Transaction;
use tokio::sync::watch;

use crate::handle::Handle;
use crate::persist::SPACE_POLL;

/// Most jobs that wait; the node thread waits beyond it.
pub(crate) const JOBS_MAX: usize = 4096;

/// A job for the history thread.
#[derive(Debug)]
pub(crate) enum Job {
    /// Events to keep.
    Append(Vec<Transaction>),
    /// A State to make durable.
    Snapshot(Box<SaveSnapshot>),
    /// The State was replaced by one at this revision: what is kept before it has a gap after it.
    Jump(u64),
    /// Events from before this time may go, and the oldest of more than so many bytes.
    Expire {
        /// Milliseconds since the epoch.
        before_ms: u64,
        /// About how many bytes may stay.
        max_bytes: u64,
    },
}

/// The history thread's own things.
pub(crate) struct History {
    keeper: EventHistory,
    handle: Handle,
    /// The revision up to which everything is kept.
    kept: watch::Sender<u64>,
}

impl History {
    pub(crate) fn new(
        events: Arc<dyn EventStore>,
        snapshots: Arc<dyn SnapshotStore>,
        handle: Handle,
        kept: watch::Sender<u64>,
    ) -> Self {
        Self { keeper: EventHistory::new(events, snapshots, Arc::new(ProtoCodec)), handle, kept }
    }

    /// Does jobs until the sender is gone.
    pub(crate) fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            let job = if self.keeper.is_complete() {
                jobs.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                jobs.recv_timeout(SPACE_POLL)
            };
            let done = match job {
                Ok(job) => self.run_job(job),
                Err(RecvTimeoutError::Timeout) => self.keeper.append(&[]),
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let kept = self.keeper.kept();
            self.kept.send_if_modified(|former| std::mem::replace(former, (*former).max(kept)) < kept);
            if let Err(error) = done {
                // Events follow from the log, which is kept as long as they are not durable.
                tracing::error!(%error, "history falls behind; it is tried again soon");
            }
        }
        if let Err(error) = self.keeper.sync() {
            tracing::error!(%error, "the last events are not flushed; they are completed at the next start");
        }
    }

    fn run_job(&mut self, job: Job) -> Result<(), DiskError> {
        match job {
            Job::Append(transactions) => self.keeper.append(&transactions),
            Job::Snapshot(save) => {
                let saved = self.keeper.save(&save.point, &save.state);
                let index = saved.is_ok().then_some(save.point.index);
                // When the node thread has ended there is nobody to tell.
                let _ = self.handle.tell_blocking(Input::SnapshotSaved { index });
                saved?;
                tracing::info!(index, revision = save.state.revision(), "snapshot saved");
                Ok(())
            }
            Job::Jump(revision) => self.keeper.jump(revision),
            Job::Expire { before_ms, max_bytes } => {
                self.keeper.expire(before_ms)?;
                self.keeper.shrink(max_bytes)
            }
        }
    }
}

/// The way to the history thread.
pub(crate) fn channel() -> (mpsc::SyncSender<Job>, Receiver<Job>) {
    mpsc::sync_channel(JOBS_MAX)
}
