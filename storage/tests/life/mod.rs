//! A scripted life of all three stores on one disk, and what a crash at any point of it may leave.
//!
//! Shared by the tests of the simulated disk and of the real one; it knows neither.

use std::collections::BTreeSet;

use bulkhead_storage::{
    EventRecord, LogBatch, SnapshotMeta, StorageError, Stores,
    conformance::{LogHistory, append},
};

/// Chunks of every snapshot of the script.
pub(crate) const CHUNKS: u32 = 3;

/// One thing that a server asks of its disk.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// A write to the log, with or without a sync.
    Log(LogBatch),
    SyncLog,
    /// Events up to this revision, one record each three revisions.
    Append(u64),
    SyncEvents,
    CompactEvents(u64),
    TruncateEvents(u64),
    /// A snapshot is begun, and so many of its chunks are written.
    Begin(u64, u32),
    /// An unfinished snapshot is completed.
    Finish(u64),
    Retain(usize),
}

/// What a crash may leave: of each store the candidates, the durable one first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expected {
    log: LogHistory,
    events: Candidates,
    finished: Candidates,
}

#[derive(Debug, Clone)]
struct Candidates(Vec<BTreeSet<u64>>);

impl Default for Candidates {
    fn default() -> Self {
        Self(vec![BTreeSet::new()])
    }
}

impl Candidates {
    fn newest(&self) -> &BTreeSet<u64> {
        self.0.last().expect("never empty")
    }

    /// One more state that the disk may be in from now on.
    fn may_become(&mut self, change: impl FnOnce(&mut BTreeSet<u64>)) {
        let mut next = self.newest().clone();
        change(&mut next);
        self.0.push(next);
    }

    fn settle(&mut self, state: BTreeSet<u64>) {
        self.0 = vec![state];
    }

    /// Holds what was found against what may be there.
    fn judge(&self, found: &BTreeSet<u64>, judge: Judge) {
        let candidates = &self.0;
        let is_one = candidates.contains(found);
        let kept = |number: &u64| candidates.iter().all(|candidate| candidate.contains(number));
        let written = |number: &u64| candidates.iter().any(|candidate| candidate.contains(number));
        let is_part = || {
            found.iter().all(written) && candidates[0].iter().filter(|n| kept(n)).all(|n| found.contains(n))
        };
        assert!(is_one || judge == Judge::Parts && is_part(), "{found:?} of {candidates:?}");
    }

    fn settle_newest(&mut self) {
        self.settle(self.newest().clone());
    }
}

pub(crate) fn record(last_revision: u64) -> EventRecord {
    let bytes = vec![u8::try_from(last_revision).expect("small"); 5];
    EventRecord { first_revision: last_revision - 2, last_revision, bytes }
}

pub(crate) fn meta(index: u64) -> SnapshotMeta {
    SnapshotMeta { index, term: 2, revision: index, extra: vec![3; 4] }
}

pub(crate) fn chunk(index: u64, number: u32) -> Vec<u8> {
    format!("{index}/{number}").into_bytes()
}

/// A server's life: first entries, a conflict, group commits, a snapshot written and the log compacted, a snapshot
/// received in two parts and installed, events kept and dropped on the way.
pub(crate) fn script() -> Vec<Step> {
    use Step::{Append, Begin, CompactEvents, Finish, Log, Retain, SyncEvents, SyncLog, TruncateEvents};
    let hard = |value: u8| Some(vec![value; 6]);
    vec![
        Log(LogBatch { hard_state: hard(1), ..LogBatch::default() }),
        SyncLog,
        Log(append(1, 2, 1)),
        Log(append(3, 3, 1)),
        Append(3),
        SyncLog,
        // Another leader's entries replace two.
        Log(LogBatch { hard_state: hard(2), truncate_from: Some(2), ..append(2, 4, 2) }),
        Log(LogBatch { hard_state: hard(3), ..LogBatch::default() }),
        Log(LogBatch { hard_state: hard(4), ..LogBatch::default() }),
        SyncLog,
        Append(9),
        Log(append(5, 6, 2)),
        // A snapshot of entry 4, after its events; then the log goes.
        SyncEvents,
        Begin(4, CHUNKS),
        Log(append(7, 7, 2)),
        Finish(4),
        Log(LogBatch { compact_to: Some(4), ..LogBatch::default() }),
        SyncLog,
        CompactEvents(5),
        Append(12),
        Log(LogBatch { truncate_from: Some(7), ..append(7, 8, 3) }),
        SyncLog,
        // One that comes from a peer, in two parts, replaces the log.
        Begin(20, 1),
        Begin(30, 2),
        Append(18),
        Finish(30),
        Log(LogBatch { reset_to: Some(30), hard_state: hard(5), ..LogBatch::default() }),
        SyncLog,
        TruncateEvents(12),
        Retain(1),
        Log(append(31, 32, 4)),
        Append(15),
        SyncEvents,
        SyncLog,
    ]
}

/// Does a step. What it may leave is noted before, what it promises after.
pub(crate) fn perform(stores: &mut Stores, step: &Step, expected: &mut Expected) -> Result<(), StorageError> {
    match step {
        Step::Log(batch) => {
            expected.log.written(expected.log.newest().after(batch).expect("the script is valid"));
            stores.log.write(batch)?;
        }
        Step::SyncLog => {
            stores.log.sync()?;
            expected.log.synced();
        }
        Step::Append(to) => {
            let from = expected.events.newest().last().copied().unwrap_or(0) + 3;
            let revisions: Vec<u64> = (from..=*to).step_by(3).collect();
            // A torn batch leaves its first records.
            for revision in &revisions {
                expected.events.may_become(|events| {
                    events.insert(*revision);
                });
            }
            stores.events.append(&revisions.iter().map(|r| record(*r)).collect::<Vec<_>>())?;
        }
        Step::SyncEvents => {
            stores.events.sync()?;
            expected.events.settle_newest();
        }
        Step::CompactEvents(before) => {
            expected.events.may_become(|events| events.retain(|revision| revision >= before));
            stores.events.compact(*before)?;
        }
        Step::TruncateEvents(after) => {
            expected.events.may_become(|events| events.retain(|revision| revision <= after));
            stores.events.truncate_after(*after)?;
            expected.events.settle_newest();
        }
        Step::Begin(index, chunks) => {
            let mut writer = stores.snapshots.begin(meta(*index))?;
            (0..*chunks).try_for_each(|number| writer.write_chunk(number, &chunk(*index, number)))?;
        }
        Step::Finish(index) => finish(stores, *index, expected)?,
        Step::Retain(count) => {
            let drop = expected.finished.newest().len().saturating_sub(*count);
            let needless: Vec<u64> = expected.finished.newest().iter().copied().take(drop).collect();
            for index in needless {
                expected.finished.may_become(|finished| {
                    finished.remove(&index);
                });
            }
            stores.snapshots.retain(*count)?;
        }
    }
    Ok(())
}

fn finish(stores: &Stores, index: u64, expected: &mut Expected) -> Result<(), StorageError> {
    let mut writer = stores.snapshots.resume(&meta(index))?.expect("it was begun");
    for number in writer.next_chunk()..CHUNKS {
        writer.write_chunk(number, &chunk(index, number))?;
    }
    expected.finished.may_become(|finished| {
        finished.insert(index);
    });
    writer.finish()?;
    expected.finished.settle_newest();
    Ok(())
}

/// How strict a recovered disk is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judge {
    /// What is there is one of the states that were written.
    Prefix,
    /// Of the events and snapshots that came or went since the last sync any may be there; the log is one of its
    /// states still.
    Parts,
}

/// Reads everything of a disk after a crash and holds it against what may be there.
///
/// # Errors
/// When the disk says that it is damaged.
pub(crate) fn recovered(
    stores: &mut Stores,
    mut expected: Expected,
    judge: Judge,
) -> Result<Expected, StorageError> {
    expected.log.restarted(&stores.log.load()?);
    let events = stores.events.read(0, 1000)?;
    let found: BTreeSet<u64> = events.iter().map(|event| event.last_revision).collect();
    assert!(events.iter().all(|event| *event == record(event.last_revision)), "never written: {events:?}");
    expected.events.judge(&found, judge);
    expected.events.settle(found);
    let list = stores.snapshots.list()?;
    for info in &list {
        stores.snapshots.verify(info.meta.index)?;
        assert_eq!((info.chunks, &info.meta), (CHUNKS, &meta(info.meta.index)));
        for number in 0..CHUNKS {
            let bytes = stores.snapshots.read_chunk(info.meta.index, number)?;
            assert_eq!(bytes, chunk(info.meta.index, number));
        }
    }
    let found: BTreeSet<u64> = list.iter().map(|info| info.meta.index).collect();
    expected.finished.judge(&found, judge);
    expected.finished.settle(found);
    Ok(expected)
}

/// Goes on with a recovered disk as a server does: more entries, more events, and what was begun is finished.
///
/// # Errors
/// What the disk refuses.
pub(crate) fn go_on(stores: &mut Stores, expected: &mut Expected) -> Result<(), StorageError> {
    let next = expected.log.newest().last_index() + 1;
    perform(stores, &Step::Log(append(next, next + 1, 9)), expected)?;
    let newest = expected.events.newest().last().copied().unwrap_or(0);
    perform(stores, &Step::Append(newest + 3), expected)?;
    for index in [4, 20, 30] {
        if stores.snapshots.resume(&meta(index))?.is_some() {
            perform(stores, &Step::Finish(index), expected)?;
        }
    }
    perform(stores, &Step::SyncEvents, expected)?;
    perform(stores, &Step::SyncLog, expected)
}
