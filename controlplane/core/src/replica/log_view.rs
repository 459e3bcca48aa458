//! The log tail in memory, as raft wants to see it.
//!
//! Everything after the last compaction is here; the disk holds the same, a little later. The tail is bounded
//! by the snapshot policy.

use std::cell::Cell;
use std::collections::VecDeque;

use bulkhead_canary::planted;
use bulkhead_types::MemberId;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use super::snapshot_point;

/// A place in the log that a snapshot stands for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SnapshotPoint {
    /// The last index that it covers.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// The configuration in force there.
    pub conf_state: ConfState,
}

/// The log tail, hard state and configuration.
#[derive(Debug, Default)]
pub struct LogView {
    hard_state: HardState,
    /// The configuration after everything applied.
    conf_state: ConfState,
    /// The newest durable snapshot.
    snapshot: SnapshotPoint,
    /// Index and term of the entry just before the first one kept.
    compacted: (u64, u64),
    entries: VecDeque<Entry>,
    /// Raft asked for a snapshot newer than the one there is.
    snapshot_wanted: Cell<bool>,
}

impl LogView {
    /// The log as the disk holds it. Entries that a snapshot covers may be among `entries`; entries that do
    /// not follow the snapshot are dropped, because the snapshot is newer than they are.
    #[must_use]
    pub fn new(snapshot: SnapshotPoint, mut hard_state: HardState, entries: Vec<Entry>) -> Self {
        let first = entries.first().map_or(snapshot.index + 1, Entry::get_index);
        let agrees = entries.iter().any(|e| e.get_index() == snapshot.index && e.get_term() == snapshot.term)
            || first == snapshot.index + 1;
        let (entries, compacted): (VecDeque<Entry>, _) = if agrees {
            // The term before the first entry is known only at the snapshot: keep from there on.
            (
                entries.into_iter().filter(|e| e.get_index() > snapshot.index).collect(),
                (snapshot.index, snapshot.term),
            )
        } else {
            (VecDeque::new(), (snapshot.index, snapshot.term))
        };
        hard_state.commit = hard_state.commit.max(snapshot.index);
        hard_state.term = hard_state.term.max(snapshot.term);
        let conf_state = snapshot.conf_state.clone();
        Self { hard_state, conf_state, snapshot, compacted, entries, snapshot_wanted: Cell::new(false) }
    }

    /// The newest durable snapshot.
    #[must_use]
    pub fn snapshot_point(&self) -> &SnapshotPoint {
        &self.snapshot
    }

    /// The term, and whom this member voted for in it.
    #[must_use]
    pub fn term_and_vote(&self) -> (u64, Option<MemberId>) {
        let vote = Some(MemberId(self.hard_state.vote)).filter(|member| member.0 != raft::INVALID_ID);
        (self.hard_state.term, vote)
    }

    /// Index of the first entry kept.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.compacted.0 + 1
    }

    /// Index of the last entry.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.compacted.0 + self.entries.len() as u64
    }

    /// How many entries are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no entry is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Term, vote and commit.
    pub(super) fn hard_state(&self) -> &HardState {
        &self.hard_state
    }

    pub(super) fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    pub(super) fn set_conf_state(&mut self, conf_state: ConfState) {
        self.conf_state = conf_state;
    }

    /// The term of an entry that is kept, or of the one just before.
    #[must_use]
    pub fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.compacted.0 {
            return Some(self.compacted.1);
        }
        if index == self.snapshot.index {
            return Some(self.snapshot.term);
        }
        self.entries.get(index.checked_sub(self.first())? as usize).map(Entry::get_term)
    }

    /// Appends entries, over those that they replace; tells whether there were any.
    ///
    /// # Panics
    /// When they leave a gap, or replace what was compacted: raft never asks for either.
    pub(super) fn append(&mut self, entries: Vec<Entry>) -> bool {
        let Some(first) = entries.first().map(Entry::get_index) else { return false };
        assert!(first > self.compacted.0, "entry {first} was compacted already");
        assert!(first <= self.last() + 1, "entry {first} leaves a gap after {}", self.last());
        let overlaps = first <= self.last();
        if !planted!("canary_tail_kept_on_conflict") {
            self.entries.truncate((first - self.first()) as usize);
        }
        self.entries.extend(entries);
        overlaps
    }

    /// Replaces everything by a received snapshot.
    pub(super) fn install(&mut self, snapshot: &Snapshot) -> SnapshotPoint {
        let point = snapshot_point(snapshot);
        self.entries.clear();
        self.compacted = (point.index, point.term);
        self.conf_state = point.conf_state.clone();
        self.snapshot = point.clone();
        self.hard_state.commit = self.hard_state.commit.max(point.index);
        point
    }

    /// A snapshot is durable: keeps `keep_entries` before it for followers that lag a little, drops the rest.
    /// Returns the last index that was dropped.
    pub(super) fn on_snapshot_saved(&mut self, point: SnapshotPoint, keep_entries: u64) -> u64 {
        if point.index > self.snapshot.index {
            let compact_to = point.index.saturating_sub(keep_entries).max(self.compacted.0);
            if let Some(term) = self.term_at(compact_to) {
                self.entries.drain(..(compact_to - self.compacted.0) as usize);
                self.compacted = (compact_to, term);
            }
            self.snapshot = point;
        }
        self.compacted.0
    }

    pub(super) fn take_snapshot_wanted(&mut self) -> bool {
        self.snapshot_wanted.replace(false)
    }
}

/// Whether a configuration has a member, in whatever role.
pub(super) fn knows(conf_state: &ConfState, member: u64) -> bool {
    let groups = [
        conf_state.get_voters(),
        conf_state.get_learners(),
        conf_state.get_voters_outgoing(),
        conf_state.get_learners_next(),
    ];
    groups.iter().any(|group| group.contains(&member))
}

impl Storage for LogView {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState { hard_state: self.hard_state.clone(), conf_state: self.conf_state.clone() })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.compacted.0 {
            return Err(StorageError::Compacted.into());
        }
        if high > self.last() + 1 {
            return Err(StorageError::Unavailable.into());
        }
        let range = (low - self.first()) as usize..(high - self.first()) as usize;
        let max_size = max_size.into().unwrap_or(u64::MAX);
        let mut size = 0;
        // At least one entry, however large, or a follower would never get past it.
        let fits = |entry: &&Entry| {
            let first = size == 0;
            size += u64::from(protobuf::Message::compute_size(*entry));
            first || size <= max_size
        };
        Ok(self.entries.range(range).take_while(fits).cloned().collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        match self.term_at(index) {
            Some(term) => Ok(term),
            None if index < self.compacted.0 => Err(StorageError::Compacted.into()),
            None => Err(StorageError::Unavailable.into()),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        // A snapshot from before the kept log would leave the follower with a gap again, and a member ignores
        // one whose configuration does not know it.
        if self.snapshot.index == 0
            || !knows(&self.snapshot.conf_state, to)
            || self.snapshot.index < request_index
            || self.snapshot.index < self.compacted.0
        {
            self.snapshot_wanted.set(true);
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        let mut snapshot = Snapshot::default();
        let meta = snapshot.mut_metadata();
        meta.index = self.snapshot.index;
        meta.term = self.snapshot.term;
        meta.set_conf_state(self.snapshot.conf_state.clone());
        Ok(snapshot)
    }
}
