//! Random logs with random crashes and faults: what was synced is never lost, what was not is whole or gone.

use bulkhead_storage::{
    CrashChoice, Fault, FaultPlan, LogBatch, LogStore, MemDisk, Operation,
    conformance::{LogHistory, OWNER, entries},
};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Write {
        hard_state: Option<u8>,
        back: Option<u64>,
        count: u64,
        compact: Option<u64>,
        reset: Option<u64>,
    },
    Sync,
    Crash(CrashChoice),
    /// The next operation of this kind fails.
    Fail(Operation, Fault),
}

fn step() -> impl Strategy<Value = Step> {
    let rarely = |range: std::ops::Range<u64>| proptest::option::weighted(0.2, range);
    let reset = proptest::option::weighted(0.05, 0..6_u64);
    let write = (proptest::option::of(any::<u8>()), rarely(0..8), 0..6_u64, rarely(0..10), reset);
    let crash = prop_oneof![
        Just(CrashChoice::LoseUnsynced),
        (0..5_usize).prop_map(|batches| CrashChoice::KeepUnsynced { batches }),
        (0..5_usize, 0..400_usize).prop_map(|(batches, bytes)| CrashChoice::TearLast { batches, bytes }),
    ];
    let fail = (
        prop_oneof![Just(Operation::LogWrite), Just(Operation::LogSync), Just(Operation::LogLoad)],
        prop_oneof![Just(Fault::Io), Just(Fault::Full)],
    );
    prop_oneof![
        10 => write.prop_map(|(hard_state, back, count, compact, reset)| {
            Step::Write { hard_state, back, count, compact, reset }
        }),
        4 => Just(Step::Sync),
        3 => crash.prop_map(Step::Crash),
        1 => fail.prop_map(|(operation, fault)| Step::Fail(operation, fault)),
    ]
}

fn batch(history: &LogHistory, step: &Step) -> Option<LogBatch> {
    let Step::Write { hard_state, back, count, compact, reset } = step else { return None };
    let (first, last) = (history.newest().first_index, history.newest().last_index());
    let reset_to = reset.map(|ahead| last + ahead);
    let truncate_from =
        back.map(|back| (last + 1).saturating_sub(back).max(first)).filter(|_| reset.is_none());
    let from = reset_to.map_or(truncate_from.unwrap_or(last + 1), |index| index + 1);
    Some(LogBatch {
        hard_state: hard_state.map(|value| vec![value; 7]),
        truncate_from,
        entries: entries(from, from + 5, hard_state.unwrap_or(0))
            .into_iter()
            .zip(0..*count)
            .map(|(e, _)| e)
            .collect(),
        compact_to: compact.map(|behind| (from + count - 1).saturating_sub(behind)),
        reset_to,
    })
}

/// Starts the log again until it loads: a fault may hit that, too.
fn restart(disk: &MemDisk, history: &mut LogHistory) -> Box<dyn LogStore> {
    let mut log = disk.open(Some(OWNER)).expect("open").log;
    let loaded = log.load().or_else(|_| log.load()).expect("one fault at a time");
    history.restarted(&loaded);
    log
}

fn live(steps: &[Step]) {
    let disk = MemDisk::new();
    let mut history = LogHistory::default();
    let mut log = restart(&disk, &mut history);
    for step in steps {
        let result = match step {
            Step::Write { .. } => {
                let batch = batch(&history, step).expect("a write");
                let next = history.newest().after(&batch).expect("made to be valid");
                let result = log.write(&batch);
                // A failed write may have happened all the same; a refused one has not.
                if result.as_ref().err().is_none_or(|error| !error.is_refusal()) {
                    history.written(next);
                }
                result
            }
            Step::Sync => log.sync().inspect(|()| history.synced()),
            Step::Crash(choice) => {
                disk.crash(*choice);
                log = restart(&disk, &mut history);
                Ok(())
            }
            Step::Fail(operation, fault) => {
                disk.set_faults(FaultPlan::none().with(*operation, 0, 1, *fault));
                Ok(())
            }
        };
        let needs_restart =
            matches!(step, Step::Sync) || !result.as_ref().is_err_and(|error| error.is_refusal());
        if result.is_err() && needs_restart {
            drop(log);
            log = restart(&disk, &mut history);
        }
    }
    disk.set_faults(FaultPlan::none());
    log.sync().expect("sync");
    history.synced();
    drop(log);
    disk.crash(CrashChoice::LoseUnsynced);
    restart(&disk, &mut history);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_synced_is_lost(steps in proptest::collection::vec(step(), 1..80)) {
        live(&steps);
    }
}
