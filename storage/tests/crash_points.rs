//! Every crash point inside the stores: a scripted life is stopped before each of its writes and syncs (those inside
//! one call as well), every crash that the disk can suffer there is tried, and the disk recovers, goes on, and
//! recovers again.
//!
//! At each point:
//! - everything unsynced is lost, with and without the promises made since;
//! - every prefix of the unsynced writes survives, and the next one is torn at every byte;
//! - every subset survives while there are at most [`ALL_SUBSETS_MAX`] unsynced writes, else every single loss and
//!   every single survivor. A subset that is no prefix is beyond what the stores promise to repair (sled keeps writes
//!   in order): there they may refuse, by name, and must never give what was not written.
//!
//! And the recovery is stopped in the same way before each of *its* writes and syncs, for every crash but the tears
//! (of those: the first byte, the middle and the last).

mod life;

use bulkhead_storage::{CrashChoice, MemDisk, StorageError, Stores, conformance::OWNER};
use life::{Expected, Judge, go_on, perform, recovered, script};

/// Up to so many unsynced writes all their subsets are tried.
const ALL_SUBSETS_MAX: usize = 8;

#[derive(Debug, Default)]
struct Counts {
    points: u64,
    crashes: u64,
    refused: u64,
    recoveries_stopped: u64,
}

fn open(disk: &MemDisk) -> Result<Stores, StorageError> {
    disk.open(Some(OWNER))
}

/// Lives the script on a fresh disk that stops before its step number `steps`. Says whether it got to the end.
fn live(steps: u64) -> (MemDisk, Expected, bool) {
    let disk = MemDisk::new();
    let mut expected = Expected::default();
    let mut stores = open(&disk).expect("open");
    stores.log.load().expect("load");
    disk.stop_after(steps);
    for step in script() {
        if let Err(error) = perform(&mut stores, &step, &mut expected) {
            assert!(
                matches!(error, StorageError::Closed | StorageError::Poisoned { .. }),
                "{step:?}: {error}"
            );
            return (disk, expected, false);
        }
    }
    (disk, expected, true)
}

/// Prefixes and tears: what the engine promises to be the only ones.
fn in_order(disk: &MemDisk) -> Vec<CrashChoice> {
    let mut choices = vec![CrashChoice::LoseUnsynced, CrashChoice::KeepSome { batches: 0, positions: true }];
    for batches in 0..=disk.unsynced_batches() {
        choices.push(CrashChoice::KeepUnsynced { batches });
        choices
            .extend((0..disk.unsynced_bytes(batches)).map(|bytes| CrashChoice::TearLast { batches, bytes }));
    }
    choices
}

/// Subsets that are no prefix.
fn out_of_order(disk: &MemDisk) -> Vec<CrashChoice> {
    let count = disk.unsynced_batches();
    assert!(count < 64, "the script syncs often enough");
    let all = (1_u64 << count) - 1;
    let subsets: Vec<u64> = if count <= ALL_SUBSETS_MAX {
        (0..=all).collect()
    } else {
        (0..count).flat_map(|nth| [1 << nth, all & !(1 << nth)]).collect()
    };
    let is_prefix = |set: &u64| set & (set + 1) == 0;
    let choice = |batches| [false, true].map(|positions| CrashChoice::KeepSome { batches, positions });
    subsets.into_iter().filter(|set| !is_prefix(set)).flat_map(choice).collect()
}

/// Recovers, goes on, loses power, and recovers to exactly that.
fn recover_and_go_on(disk: &MemDisk, expected: &Expected, judge: Judge) -> Result<(), StorageError> {
    let mut stores = open(disk)?;
    let mut found = recovered(&mut stores, expected.clone(), judge)?;
    go_on(&mut stores, &mut found)?;
    drop(stores);
    disk.crash(CrashChoice::LoseUnsynced);
    recovered(&mut open(disk)?, found, Judge::Prefix).map(drop)
}

/// Stops the recovery before each of its own steps, and recovers from that.
fn recover_in_pieces(crashed: &MemDisk, expected: &Expected, counts: &mut Counts) {
    for steps in 0.. {
        let disk = crashed.fork();
        disk.stop_after(steps);
        let done = open(&disk)
            .and_then(|mut stores| recovered(&mut stores, expected.clone(), Judge::Prefix).map(drop));
        match done {
            Ok(()) => return,
            Err(StorageError::Closed | StorageError::Poisoned { .. }) => counts.recoveries_stopped += 1,
            Err(error) => panic!("a recovery that is stopped after {steps} steps: {error}"),
        }
        for choice in [CrashChoice::LoseUnsynced, CrashChoice::KeepUnsynced { batches: usize::MAX }] {
            let disk = disk.fork();
            disk.crash(choice);
            recover_and_go_on(&disk, expected, Judge::Prefix)
                .unwrap_or_else(|error| panic!("after a recovery stopped at {steps}, {choice:?}: {error}"));
        }
    }
}

fn is_kept_whole_or_at_an_edge(disk: &MemDisk, choice: CrashChoice) -> bool {
    let CrashChoice::TearLast { batches, bytes } = choice else { return true };
    let length = disk.unsynced_bytes(batches);
    [0, length / 2, length - 1].contains(&bytes)
}

#[test]
fn every_crash_at_every_write_and_sync_leaves_what_was_promised_and_nothing_invented() {
    let mut counts = Counts::default();
    for steps in 0.. {
        let (disk, expected, finished) = live(steps);
        counts.points += 1;
        for choice in in_order(&disk) {
            let crashed = disk.fork();
            crashed.crash(choice);
            if is_kept_whole_or_at_an_edge(&disk, choice) {
                recover_in_pieces(&crashed, &expected, &mut counts);
            }
            recover_and_go_on(&crashed, &expected, Judge::Prefix)
                .unwrap_or_else(|error| panic!("stopped before step {steps}, {choice:?}: {error}"));
            counts.crashes += 1;
        }
        for choice in out_of_order(&disk) {
            let crashed = disk.fork();
            crashed.crash(choice);
            if let Err(error) = recover_and_go_on(&crashed, &expected, Judge::Parts) {
                assert!(error.is_fatal(), "stopped before step {steps}, {choice:?}: {error}");
                assert!(error.to_string().starts_with("tree "), "it is named: {error}");
                counts.refused += 1;
            }
            counts.crashes += 1;
        }
        if finished {
            break;
        }
    }
    println!("{counts:?}");
    assert!(counts.points > 60, "{counts:?}");
    assert!(counts.crashes > 5_000 && counts.recoveries_stopped > 1_000, "{counts:?}");
}
