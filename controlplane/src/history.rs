//! The history thread: events to the event store, States to snapshots, in the order in which they came.
//!
//! Both follow from the log, so neither holds up an answer; a snapshot is written only after the events that
//! it covers are durable, because the log that they follow from goes with it.

use std::sync::mpsc::Receiver;
use std::sync::{Arc, mpsc};

use bulkhead_controlplane_core::State;
use bulkhead_controlplane_core::replica::SnapshotPoint;
use bulkhead_controlplane_core::server::{Input, SaveSnapshot};
use bulkhead_controlplane_disk::{DiskError, save_snapshot};
use bulkhead_proto::ProtoCodec;
use bulkhead_storage::{EventRecord, EventStore, SnapshotStore};
use bulkhead_types::{LogCodec, Transaction};
use tokio::sync::watch;

use crate::handle::Handle;
use crate::persist::SPACE_POLL;

/// Most jobs that wait; the node thread waits beyond it.
pub(crate) const JOBS_MAX: usize = 4096;
/// Most events between two flushes of the event store.
const UNSYNCED_MAX: usize = 4096;

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
    pub(crate) events: Arc<dyn EventStore>,
    pub(crate) snapshots: Arc<dyn SnapshotStore>,
    pub(crate) handle: Handle,
    /// The revision up to which everything is kept.
    kept: watch::Sender<u64>,
    unsynced: usize,
}

impl History {
    pub(crate) fn new(
        events: Arc<dyn EventStore>,
        snapshots: Arc<dyn SnapshotStore>,
        handle: Handle,
        kept: watch::Sender<u64>,
    ) -> Self {
        Self { events, snapshots, handle, kept, unsynced: 0 }
    }

    /// Does jobs until the sender is gone.
    pub(crate) fn run(mut self, jobs: &Receiver<Job>) {
        for job in jobs {
            if let Err(error) = self.run_job(job) {
                // Events follow from the log: what could not be kept now is kept by the replay after a restart.
                tracing::error!(%error, "history falls behind; it is completed from the log at the next start");
            }
        }
        if let Err(error) = self.events.sync() {
            tracing::error!(%error, "the last events are not flushed; they are completed at the next start");
        }
    }

    fn run_job(&mut self, job: Job) -> Result<(), DiskError> {
        match job {
            Job::Append(transactions) => {
                let records: Vec<EventRecord> = transactions.iter().filter_map(record).collect();
                self.unsynced += records.len();
                self.when_there_is_room(|history| Ok(history.events.append(&records)?))?;
                if let Some(last) = records.last() {
                    self.kept.send_replace(last.last_revision);
                }
                if self.unsynced >= UNSYNCED_MAX {
                    self.events.sync()?;
                    self.unsynced = 0;
                }
            }
            Job::Snapshot(save) => {
                let saved = self.save(&save.point, &save.state);
                let index = saved.is_ok().then_some(save.point.index);
                // When the node thread has ended there is nobody to tell.
                let _ = self.handle.tell_blocking(Input::SnapshotSaved { index });
                saved?;
            }
            Job::Jump(revision) => {
                self.events.compact(revision + 1)?;
                self.kept.send_replace(revision);
            }
            Job::Expire { before_ms, max_bytes } => {
                self.expire(before_ms)?;
                self.shrink(max_bytes)?;
            }
        }
        Ok(())
    }

    /// Does something that needs room on the disk, as soon as there is some: history must have no gap before the
    /// next snapshot, and the log thread refuses new work meanwhile.
    fn when_there_is_room(&self, work: impl Fn(&Self) -> Result<(), DiskError>) -> Result<(), DiskError> {
        let mut told = false;
        loop {
            match work(self) {
                Err(DiskError::Storage(error))
                    if error.is_full() && error.is_refusal() && !self.handle.is_stopped() =>
                {
                    if !told {
                        tracing::error!(%error, "the disk is full: history waits for room");
                    }
                    told = true;
                    std::thread::sleep(SPACE_POLL);
                }
                result => return result,
            }
        }
    }

    fn save(&self, point: &SnapshotPoint, state: &State) -> Result<(), DiskError> {
        self.events.sync()?;
        save_snapshot(&*self.snapshots, &ProtoCodec, point, state)?;
        tracing::info!(index = point.index, revision = state.revision(), "snapshot saved");
        Ok(())
    }

    /// Drops events from before a time: finds the first record after it by halving the range of revisions.
    fn expire(&self, before_ms: u64) -> Result<(), DiskError> {
        let Some((oldest, newest)) = self.events.bounds()? else { return Ok(()) };
        let (mut low, mut high) = (oldest, newest);
        while low < high {
            let middle = low + (high - low) / 2;
            let found = self.events.read(middle, 1)?;
            let Some(first) = found.first() else { break };
            if ProtoCodec.decode_transaction(&first.bytes)?.at_ms < before_ms {
                low = first.last_revision + 1;
            } else {
                high = middle;
            }
        }
        Ok(self.events.compact(low.min(newest))?)
    }

    /// Drops the oldest events when there are more than about `max_bytes` of them. The size is estimated from
    /// samples: counting it would mean to read all of it.
    fn shrink(&self, max_bytes: u64) -> Result<(), DiskError> {
        let Some((oldest, newest)) = self.events.bounds()? else { return Ok(()) };
        let revisions = newest - oldest + 1;
        let (mut bytes, mut seen) = (0u64, 0u64);
        for sample in 0..SAMPLES.min(revisions) {
            let from = oldest + revisions / SAMPLES.min(revisions) * sample;
            for record in self.events.read(from, SAMPLE_RECORDS)? {
                bytes += record.bytes.len() as u64;
                seen += record.last_revision - record.first_revision + 1;
            }
        }
        let estimate = u128::from(bytes) * u128::from(revisions) / u128::from(seen.max(1));
        if estimate <= u128::from(max_bytes) {
            return Ok(());
        }
        let keep = u128::from(revisions) * u128::from(max_bytes) / estimate;
        let keep = u64::try_from(keep).unwrap_or(revisions).max(1);
        tracing::info!(
            revisions = revisions - keep,
            "the oldest history is dropped: there is more than may be kept"
        );
        Ok(self.events.compact(newest - keep + 1)?)
    }
}

/// Places that are looked at to estimate how large the history is, and records at each.
const SAMPLES: u64 = 64;
const SAMPLE_RECORDS: usize = 4;

/// A transaction as the event store keeps it; `None` when nothing happened.
fn record(transaction: &Transaction) -> Option<EventRecord> {
    let (first, last) = (transaction.events.first()?, transaction.events.last()?);
    Some(EventRecord {
        first_revision: first.revision,
        last_revision: last.revision,
        bytes: ProtoCodec.encode_transaction(transaction),
    })
}

/// The way to the history thread.
pub(crate) fn channel() -> (mpsc::SyncSender<Job>, Receiver<Job>) {
    mpsc::sync_channel(JOBS_MAX)
}
