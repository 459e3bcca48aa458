//! Laws of the Raft log.

use super::{Disk, Law, LogHistory, LogModel, append, entries, open};
use crate::{LogBatch, LogStore, StorageError};

pub(super) const LAWS: &[Law] = &[
    ("a fresh log is empty", fresh),
    ("a log must be loaded first", load_first),
    ("synced batches last", synced_lasts),
    ("an unsynced batch lasts whole or not at all", unsynced_is_atomic),
    ("a truncation inside a record holds, again and again", truncation_inside),
    ("a compaction inside a record holds", compaction_inside),
    ("compaction keeps the hard state of dropped records", compaction_keeps_hard_state),
    ("a reset replaces everything", reset),
    ("a reset may bring entries and a hard state", reset_with_entries),
    ("invalid batches are refused and change nothing", invalid_batches),
    ("batches without effect write nothing", no_effect),
    ("many hard states alone take no room", hard_states_alone),
    ("loading twice gives the same", load_twice),
    ("a long life of everything", long_life),
];

/// A log driven together with its model.
struct Driven<'a> {
    disk: &'a dyn Disk,
    log: Option<Box<dyn LogStore>>,
    history: LogHistory,
}

impl<'a> Driven<'a> {
    fn new(disk: &'a dyn Disk) -> Self {
        let mut driven = Self { disk, log: None, history: LogHistory::default() };
        driven.restart();
        driven
    }

    fn log(&mut self) -> &mut dyn LogStore {
        self.log.as_deref_mut().expect("running")
    }

    fn write(&mut self, batch: &LogBatch) {
        let next = self.history.newest().after(batch).expect("the law's own batch is valid");
        self.log().write(batch).expect("write");
        self.history.written(next);
    }

    fn refuse(&mut self, batch: &LogBatch) {
        assert_eq!(self.history.newest().after(batch), None, "the law means an invalid batch: {batch:?}");
        let error = self.log().write(batch).expect_err("invalid");
        assert!(matches!(error, StorageError::Invalid { .. }), "{error}");
    }

    fn sync(&mut self) {
        self.log().sync().expect("sync");
        self.history.synced();
    }

    fn restart(&mut self) -> &LogModel {
        self.log = None;
        let mut log = open(self.disk).log;
        self.history.restarted(&log.load().expect("load"));
        self.log = Some(log);
        self.history.newest()
    }

    /// Syncs, restarts, and compares.
    fn settle(&mut self) {
        self.sync();
        self.restart();
    }
}

fn hard_state(value: u8) -> LogBatch {
    LogBatch { hard_state: Some(vec![value; 9]), ..LogBatch::default() }
}

fn fresh(disk: &dyn Disk) {
    let loaded = open(disk).log.load().expect("load");
    assert_eq!((loaded.hard_state.as_ref(), loaded.first_index, loaded.last_index()), (None, 1, 0));
    assert_eq!((loaded.entries.len(), loaded.cut.as_ref()), (0, None));
}

fn load_first(disk: &dyn Disk) {
    let mut log = open(disk).log;
    assert!(matches!(log.write(&hard_state(1)), Err(StorageError::Invalid { .. })));
    assert!(matches!(log.sync(), Err(StorageError::Invalid { .. })));
}

fn synced_lasts(disk: &dyn Disk) {
    let mut log = Driven::new(disk);
    log.write(&LogBatch { hard_state: Some(vec![1]), ..append(1, 5, 1) });
    log.write(&append(6, 6, 1));
    log.settle();
    log.write(&hard_state(2));
    log.settle();
    log.write(&append(7, 300, 1));
    log.settle();
    assert_eq!(log.restart().last_index(), 300);
}

fn unsynced_is_atomic(disk: &dyn Disk) {
    let mut log = Driven::new(disk);
    log.write(&append(1, 4, 1));
    log.sync();
    log.write(&LogBatch { hard_state: Some(vec![9]), truncate_from: Some(3), ..append(3, 9, 2) });
    log.restart();
    // Whatever was left, the log goes on from there.
    let next = log.history.newest().last_index() + 1;
    log.write(&append(next, next + 3, 3));
    log.settle();
}

fn truncation_inside(disk: &dyn Disk) {
    let mut log = Driven::new(disk);
    log.write(&append(1, 10, 1));
    log.write(&LogBatch { truncate_from: Some(5), ..append(5, 6, 2) });
    log.write(&LogBatch { truncate_from: Some(4), ..LogBatch::default() });
    log.settle();
    log.write(&append(4, 8, 3));
    log.write(&LogBatch { truncate_from: Some(8), ..append(8, 12, 4) });
    log.settle();
    log.write(&LogBatch { truncate_from: Some(1), ..append(1, 2, 5) });
    log.settle();
    assert_eq!(log.restart().last_index(), 2);
}

fn compaction_inside(disk: &dyn Disk) {
    let mut log = Driven::new(disk);
    log.write(&append(1, 10, 1));
    log.write(&append(11, 20, 1));
    log.write(&LogBatch { compact_to: Some(4), ..LogBatch::default() });
    log.settle();
    log.write(&LogBatch { compact_to: Some(14), truncate_from: Some(18), ..append(18, 19, 2) });
    log.settle();
    log.write(&LogBatch { compact_to: Some(19), ..LogBatch::default() });
    log.settle();
    log.write(&append(20, 21, 3));
    log.settle();
    assert_eq!(log.restart().first_index, 20);
}

fn compaction_keeps_hard_state(disk: &dyn Disk) {
    let mut log = Driven::new(disk);
    log.write(&LogBatch { hard_state: Some(vec![42]), ..append(1, 3, 1) });
    log.write(&append(4, 6, 1));
    log.write(&LogBatch { compact_to: Some(6), ..LogBatch::default() });
    log.settle();
    assert_eq!(log.restart().hard_state, Some(vec![42]));
}

fn reset(disk: &dyn Disk) {
    let mut log = Driven::new(disk);
    log.write(&LogBatch { hard_state: Some(vec![1]), ..append(1, 3, 1) });
    log.sync();
    log.write(&LogBatch { reset_to: Some(100), ..LogBatch::default() });
    log.settle();
    assert_eq!((log.restart().first_index, log.restart().last_index()), (101, 100));
    log.write(&append(101, 103, 2));
    // A snapshot may also be older than the log's end.
    log.write(&LogBatch { reset_to: Some(102), ..LogBatch::default() });
    log.settle();
    log.write(&append(103, 104, 3));
    log.settle();
}

fn reset_with_entries(disk: &dyn Disk) {
    let mut log = Driven::new(disk);
    log.write(&append(1, 3, 1));
    let hard_state = Some(vec![7]);
    log.write(&LogBatch { hard_state, reset_to: Some(10), compact_to: Some(11), ..append(11, 13, 2) });
    log.settle();
    assert_eq!((log.restart().first_index, log.restart().last_index()), (12, 13));
}

fn invalid_batches(disk: &dyn Disk) {
    let mut log = Driven::new(disk);
    log.write(&append(1, 10, 1));
    log.write(&LogBatch { compact_to: Some(5), ..LogBatch::default() });
    let gap = LogBatch { entries: [entries(11, 11, 2), entries(13, 13, 2)].concat(), ..LogBatch::default() };
    for batch in [
        append(12, 12, 2),
        append(10, 10, 2),
        gap,
        LogBatch { truncate_from: Some(5), ..LogBatch::default() },
        LogBatch { truncate_from: Some(8), ..append(9, 9, 2) },
        LogBatch { compact_to: Some(11), ..LogBatch::default() },
        LogBatch { truncate_from: Some(8), compact_to: Some(8), ..LogBatch::default() },
        LogBatch { reset_to: Some(20), ..append(20, 20, 2) },
    ] {
        log.refuse(&batch);
    }
    log.write(&append(11, 11, 2));
    log.settle();
    assert_eq!(log.restart().last_index(), 11);
}

fn no_effect(disk: &dyn Disk) {
    let mut log = Driven::new(disk);
    log.write(&LogBatch::default());
    log.sync();
    log.write(&append(1, 3, 1));
    log.sync();
    log.write(&LogBatch { truncate_from: Some(4), ..LogBatch::default() });
    log.write(&LogBatch { truncate_from: Some(u64::MAX), compact_to: Some(0), ..LogBatch::default() });
    log.settle();
    log.sync();
    log.restart();
}

fn hard_states_alone(disk: &dyn Disk) {
    let mut log = Driven::new(disk);
    log.write(&append(1, 3, 1));
    for value in 0..200 {
        log.write(&hard_state(value));
    }
    log.settle();
    log.write(&LogBatch { compact_to: Some(2), ..LogBatch::default() });
    log.write(&hard_state(201));
    log.write(&hard_state(202));
    log.write(&append(4, 4, 1));
    log.settle();
    assert_eq!(log.restart().hard_state, Some(vec![202; 9]));
}

fn load_twice(disk: &dyn Disk) {
    let mut log = open(disk).log;
    log.load().expect("load");
    log.write(&append(1, 6, 1)).expect("write");
    let first = log.load().expect("load");
    assert_eq!(log.load().expect("load"), first);
    assert_eq!(first.last_index(), 6);
    log.write(&append(7, 7, 1)).expect("write");
    log.sync().expect("sync");
    drop(log);
    assert_eq!(open(disk).log.load().expect("load").last_index(), 7);
}

fn long_life(disk: &dyn Disk) {
    let mut log = Driven::new(disk);
    for round in 0..60_u64 {
        let (first, last) = (log.history.newest().first_index, log.history.newest().last_index());
        let tag = u8::try_from(round).expect("small");
        log.write(&LogBatch { hard_state: Some(vec![tag]), ..append(last + 1, last + 1 + round % 7, tag) });
        if round % 3 == 0 {
            let from = last.saturating_sub(round % 5).max(first);
            log.write(&LogBatch { truncate_from: Some(from), ..append(from, from + 2, tag) });
        }
        if round % 5 == 4 {
            let to = log.history.newest().last_index() - round % 4;
            log.write(&LogBatch { compact_to: Some(to), ..LogBatch::default() });
        }
        if round % 17 == 16 {
            let to = log.history.newest().last_index() + 10;
            log.write(&LogBatch { reset_to: Some(to), ..LogBatch::default() });
        }
        if round % 4 == 3 {
            log.settle();
        } else {
            log.sync();
        }
    }
    log.settle();
}
