//! Random lives: the real disk, the simulated one and the plain models of the documentation must agree at every step.

use std::collections::BTreeMap;

use bulkhead_storage::{
    EventRecord, LogBatch, MemDisk, SnapshotMeta, StorageError, Stores,
    conformance::{LogModel, OWNER, entries},
};
use proptest::prelude::*;

/// One step of a life. Positions are offsets from the present bounds, so that most are valid and some are not.
#[derive(Debug, Clone)]
enum Step {
    Log {
        hard_state: Option<u8>,
        back: Option<u64>,
        shift: i8,
        count: u64,
        compact: Option<u64>,
        reset: Option<u64>,
    },
    LogSync,
    Append {
        skip: u64,
        widths: Vec<u64>,
        tag: u8,
    },
    Compact {
        at: u64,
    },
    TruncateAfter {
        back: u64,
    },
    Snapshot {
        ahead: u64,
        chunks: u32,
        finish: bool,
    },
    Resume {
        chunks: u32,
    },
    Retain {
        count: usize,
    },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let rarely = |range: std::ops::Range<u64>| proptest::option::weighted(0.2, range);
    let shift = prop_oneof![9 => Just(0_i8), 1 => -2..3_i8];
    let log =
        (proptest::option::of(any::<u8>()), rarely(0..12), shift, 0..9_u64, rarely(0..15), rarely(0..20))
            .prop_map(|(hard_state, back, shift, count, compact, reset)| {
                // A reset is rare: it empties the log.
                let reset = reset.filter(|to| *to < 3);
                Step::Log { hard_state, back, shift, count, compact, reset }
            });
    let skip = prop_oneof![8 => Just(0_u64), 1 => 1..3_u64];
    prop_oneof![
        8 => log,
        3 => Just(Step::LogSync),
        4 => (skip, proptest::collection::vec(1..5_u64, 0..6), 0..2_u8)
            .prop_map(|(skip, widths, tag)| Step::Append { skip, widths, tag }),
        1 => (0..60_u64).prop_map(|at| Step::Compact { at }),
        1 => (0..10_u64).prop_map(|back| Step::TruncateAfter { back }),
        1 => (0..4_u64, 0..20_u32, any::<bool>())
            .prop_map(|(ahead, chunks, finish)| Step::Snapshot { ahead, chunks, finish }),
        1 => (0..5_u32).prop_map(|chunks| Step::Resume { chunks }),
        1 => (0..4_usize).prop_map(|count| Step::Retain { count }),
        2 => Just(Step::Restart),
    ]
}

/// What the documentation says the stores hold.
#[derive(Default)]
struct Model {
    log: LogModel,
    events: BTreeMap<u64, EventRecord>,
    next_snapshot: u64,
}

impl Model {
    fn batch(&self, step: &Step) -> Option<LogBatch> {
        let Step::Log { hard_state, back, shift, count, compact, reset } = step else { return None };
        let last = self.log.last_index();
        let truncate_from = back.map(|back| (last + 1).saturating_sub(back));
        let reset_to = reset.map(|ahead| last + ahead);
        let end = reset_to.unwrap_or(last).min(truncate_from.map_or(u64::MAX, |from| from.saturating_sub(1)));
        let from = (end + 1).saturating_add_signed(i64::from(*shift)).max(1);
        Some(LogBatch {
            hard_state: hard_state.map(|value| vec![value; 5]),
            truncate_from,
            entries: entries(from, from + count - 1, hard_state.unwrap_or(0))
                .into_iter()
                .take(usize::try_from(*count).ok()?)
                .collect(),
            compact_to: compact.map(|behind| (from + count).saturating_sub(behind)),
            reset_to,
        })
    }

    /// The records to append, and whether that is valid.
    fn records(&self, skip: u64, widths: &[u64], tag: u8) -> Vec<EventRecord> {
        let newest = self.events.keys().next_back().copied();
        let mut first = newest.unwrap_or(0) + 1 + skip;
        let record = |width: &u64| {
            let record =
                EventRecord { first_revision: first, last_revision: first + width - 1, bytes: vec![tag; 30] };
            first += width;
            record
        };
        widths.iter().map(record).collect()
    }

    fn check(&self, stores: &Stores) {
        let events: Vec<_> = self.events.values().cloned().collect();
        assert_eq!(stores.events.read(0, usize::MAX).as_ref(), Ok(&events));
        let bounds = events.first().zip(events.last()).map(|(a, b)| (a.first_revision, b.last_revision));
        assert_eq!(stores.events.bounds(), Ok(bounds));
    }
}

/// A life on one disk; the trace is everything the disk answered.
fn live(mut open: impl FnMut() -> Stores, steps: &[Step]) -> Vec<String> {
    let mut model = Model { next_snapshot: 1, ..Model::default() };
    let mut trace = Vec::new();
    let mut stores = open();
    stores.log.load().expect("load");
    for step in steps {
        let answer = match step {
            Step::Log { .. } => {
                let batch = model.batch(step).expect("a log step");
                let (next, result) = (model.log.after(&batch), stores.log.write(&batch));
                assert_eq!(next.is_some(), result.is_ok(), "{batch:?} on {:?}: {result:?}", model.log);
                model.log = next.unwrap_or(model.log);
                format!("{result:?}")
            }
            Step::LogSync => format!("{:?}", stores.log.sync()),
            Step::Append { skip, widths, tag } => append(&mut model, &stores, *skip, widths, *tag),
            Step::Compact { at } => {
                model.events.retain(|last, _| last >= at);
                format!("{:?}", stores.events.compact(*at))
            }
            Step::TruncateAfter { back } => {
                let to = model.events.keys().next_back().map_or(0, |newest| newest.saturating_sub(*back));
                model.events.retain(|last, _| *last <= to);
                format!("{:?}", stores.events.truncate_after(to))
            }
            Step::Snapshot { ahead, chunks, finish } => {
                model.next_snapshot += ahead;
                snapshot(&stores, model.next_snapshot, *chunks, *finish)
            }
            Step::Resume { chunks } => resume(&stores, model.next_snapshot, *chunks),
            Step::Retain { count } => format!("{:?}", stores.snapshots.retain(*count)),
            Step::Restart => {
                stores.events.sync().expect("sync");
                drop(stores);
                stores = open();
                let loaded = stores.log.load().expect("load");
                assert!(model.log.matches(&loaded), "{loaded:?} is not {:?}", model.log);
                format!("{loaded:?}")
            }
        };
        model.check(&stores);
        trace.push(format!("{step:?}: {answer}; {:?}", stores.snapshots.list()));
    }
    trace
}

fn append(model: &mut Model, stores: &Stores, skip: u64, widths: &[u64], tag: u8) -> String {
    let records = model.records(skip, widths, tag);
    let result = stores.events.append(&records);
    assert_eq!(
        result.is_ok(),
        skip == 0 || records.is_empty() || model.events.is_empty(),
        "{records:?}: {result:?}"
    );
    if result.is_ok() {
        model.events.extend(records.iter().map(|record| (record.last_revision, record.clone())));
        // And once more, as a restarted server does.
        assert_eq!(stores.events.append(&records), Ok(()));
    }
    format!("{result:?}")
}

fn meta(index: u64) -> SnapshotMeta {
    SnapshotMeta { index, term: 1, revision: index, extra: index.to_be_bytes().to_vec() }
}

fn snapshot(stores: &Stores, index: u64, chunks: u32, finish: bool) -> String {
    let mut writer = match stores.snapshots.begin(meta(index)) {
        Ok(writer) => writer,
        Err(error) => return format!("{error:?}"),
    };
    for chunk in 0..chunks {
        writer.write_chunk(chunk, &chunk.to_be_bytes().repeat(9)).expect("write chunk");
    }
    if !finish {
        return "unfinished".to_owned();
    }
    let info = writer.finish();
    assert_eq!(stores.snapshots.verify(index), info);
    format!("{info:?}")
}

fn resume(stores: &Stores, index: u64, chunks: u32) -> String {
    let Some(mut writer) = stores.snapshots.resume(&meta(index)).expect("resume") else {
        return "nothing".to_owned();
    };
    let from = writer.next_chunk();
    for chunk in from..from + chunks {
        writer.write_chunk(chunk, b"resumed").expect("write chunk");
    }
    let info: Result<_, StorageError> = writer.finish();
    assert_eq!(stores.snapshots.verify(index), info);
    format!("{from} {info:?}")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_real_and_the_simulated_disk_live_the_same_life(steps in proptest::collection::vec(step(), 1..60)) {
        let disk = MemDisk::new();
        let simulated = live(|| disk.open(Some(OWNER)).expect("open"), &steps);
        let dir = tempfile::tempdir().expect("temporary directory");
        let real = live(|| bulkhead_storage::open(dir.path(), Some(OWNER)).expect("open"), &steps);
        prop_assert_eq!(simulated, real);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_simulated_disk_lives_as_documented(steps in proptest::collection::vec(step(), 1..120)) {
        let disk = MemDisk::new();
        live(|| disk.open(Some(OWNER)).expect("open"), &steps);
    }
}
