//! What follows from the log: events in the event store, States in snapshots, in the order in which they came.
//!
//! Neither holds up an answer. What the disk did not take is kept and tried again with whatever comes next; a
//! snapshot is made only of a State whose events are all durable, because the log that they follow from goes
//! with it.

use std::collections::VecDeque;
use std::sync::Arc;

use bulkhead_canary::planted;
use bulkhead_controlplane_core::State;
use bulkhead_controlplane_core::replica::SnapshotPoint;
use bulkhead_storage::{EventRecord, EventStore, SnapshotStore};
use bulkhead_types::{LogCodec, Revision, SharedCodec, Transaction};

use crate::{DiskError, save_snapshot};

/// Most events between two flushes of the event store.
const UNSYNCED_MAX: usize = 4096;
/// Places that are looked at to estimate how large the history is.
const SAMPLES: u64 = 64;
/// Records looked at in each place.
const SAMPLE_RECORDS: usize = 4;
/// Most records handed to the event store at a time.
const APPEND_MAX: usize = 1024;

/// The keeper of the event store and of the snapshots.
pub struct EventHistory {
    events: Arc<dyn EventStore>,
    snapshots: Arc<dyn SnapshotStore>,
    codec: SharedCodec,
    /// Records that the disk has not taken yet.
    waiting: VecDeque<EventRecord>,
    /// Records since the last flush.
    unsynced: usize,
    /// What is stored up to this revision has a gap after it, and must go first.
    jumped: Option<Revision>,
    /// The revision up to which this keeper has handed everything to the disk; 0 before it did anything.
    kept: Revision,
}

impl EventHistory {
    /// Goes on with what the disk holds.
    #[must_use]
    pub fn new(events: Arc<dyn EventStore>, snapshots: Arc<dyn SnapshotStore>, codec: SharedCodec) -> Self {
        Self { events, snapshots, codec, waiting: VecDeque::new(), unsynced: 0, jumped: None, kept: 0 }
    }

    /// Keeps the events of these transactions.
    ///
    /// # Errors
    /// When the disk refuses: nothing is lost, the next call tries again.
    pub fn append(&mut self, transactions: &[Transaction]) -> Result<(), DiskError> {
        let codec = self.codec.clone();
        self.waiting.extend(transactions.iter().filter_map(|one| event_record(&*codec, one)));
        if planted!("canary_log_cut_before_events") && !transactions.is_empty() {
            return Ok(());
        }
        self.drain()?;
        if self.unsynced >= UNSYNCED_MAX { self.sync() } else { Ok(()) }
    }

    fn drain(&mut self) -> Result<(), DiskError> {
        if let Some(revision) = self.jumped {
            self.events.compact(revision + 1)?;
            self.jumped = None;
            self.kept = revision;
        }
        while !self.waiting.is_empty() {
            let count = self.waiting.len().min(APPEND_MAX);
            self.events.append(&self.waiting.make_contiguous()[..count])?;
            if let Some(last) = self.waiting.drain(..count).next_back() {
                self.kept = last.last_revision;
            }
            self.unsynced += count;
        }
        Ok(())
    }

    /// Makes a State durable, after the events that it covers.
    ///
    /// # Errors
    /// When the disk refuses either: there is no such snapshot then.
    pub fn save(&mut self, point: &SnapshotPoint, state: &State) -> Result<(), DiskError> {
        if !planted!("canary_log_cut_before_events") {
            self.drain()?;
            self.sync()?;
        }
        save_snapshot(&*self.snapshots, &*self.codec, point, state)
    }

    /// The State was replaced by a snapshot at this revision: what is kept before it has a gap after it, and
    /// goes.
    ///
    /// # Errors
    /// When the disk refuses: the next call tries again.
    pub fn jump(&mut self, revision: Revision) -> Result<(), DiskError> {
        self.waiting.retain(|record| record.first_revision > revision);
        self.jumped = Some(revision);
        self.drain()
    }

    /// The revision up to which this keeper has handed everything to the disk; 0 before it did anything.
    #[must_use]
    pub fn kept(&self) -> Revision {
        self.kept
    }

    /// Whether the disk has taken everything.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.waiting.is_empty() && self.jumped.is_none()
    }

    /// Drops events from before a time, in milliseconds since the epoch: finds the first record after it by
    /// halving the range of revisions. The newest record stays.
    ///
    /// # Errors
    /// When the disk refuses, or a record cannot be read.
    pub fn expire(&mut self, before_ms: u64) -> Result<(), DiskError> {
        let Some((oldest, newest)) = self.events.bounds()? else { return Ok(()) };
        let (mut low, mut high) = (oldest, newest);
        while low < high {
            let middle = low + (high - low) / 2;
            let found = self.events.read(middle, 1)?;
            let Some(first) = found.first() else { break };
            if self.codec.decode_transaction(&first.bytes)?.at_ms < before_ms {
                low = first.last_revision + 1;
            } else {
                high = middle;
            }
        }
        Ok(self.events.compact(low.min(newest))?)
    }

    /// Drops the oldest events when there are more than about `max_bytes` of them. The size is estimated from
    /// samples: counting it would mean to read all of it.
    ///
    /// # Errors
    /// When the disk refuses, or a record cannot be read.
    pub fn shrink(&mut self, max_bytes: u64) -> Result<(), DiskError> {
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
        Ok(self.events.compact(newest - keep + 1)?)
    }

    /// Makes everything so far durable.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn sync(&mut self) -> Result<(), DiskError> {
        self.events.sync()?;
        self.unsynced = 0;
        Ok(())
    }
}

impl std::fmt::Debug for EventHistory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventHistory").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

/// A transaction as the event store keeps it; `None` when nothing happened.
#[must_use]
pub fn event_record(codec: &dyn LogCodec, transaction: &Transaction) -> Option<EventRecord> {
    let (first, last) = (transaction.events.first()?, transaction.events.last()?);
    Some(EventRecord {
        first_revision: first.revision,
        last_revision: last.revision,
        bytes: codec.encode_transaction(transaction),
    })
}
