//! The log after every crash at every point of a scripted life: what was synced is there, what was not is there whole
//! or not at all, and the log goes on.

use bulkhead_storage::{
    CrashChoice, LogBatch, LogStore, MemDisk, StorageError,
    conformance::{LogHistory, OWNER, append},
};

/// `None` syncs.
fn script() -> Vec<Option<LogBatch>> {
    let hard_state = |value: u8| Some(vec![value; 12]);
    vec![
        Some(LogBatch { hard_state: hard_state(1), ..LogBatch::default() }),
        Some(append(1, 5, 1)),
        None,
        Some(LogBatch { hard_state: hard_state(2), ..append(6, 9, 1) }),
        Some(LogBatch { hard_state: hard_state(3), ..LogBatch::default() }),
        Some(LogBatch { hard_state: hard_state(4), ..LogBatch::default() }),
        None,
        Some(LogBatch { hard_state: hard_state(5), truncate_from: Some(4), ..append(4, 7, 2) }),
        Some(LogBatch { compact_to: Some(3), ..LogBatch::default() }),
        Some(append(8, 12, 2)),
        None,
        Some(LogBatch { compact_to: Some(8), truncate_from: Some(10), ..append(10, 10, 3) }),
        Some(LogBatch { truncate_from: Some(9), ..LogBatch::default() }),
        None,
        Some(LogBatch { reset_to: Some(40), hard_state: hard_state(6), ..append(41, 43, 4) }),
        Some(LogBatch { compact_to: Some(43), ..LogBatch::default() }),
        Some(append(44, 46, 5)),
        None,
        None,
        Some(LogBatch { truncate_from: Some(45), ..append(45, 45, 6) }),
    ]
}

/// Every crash that the disk can suffer now.
fn crashes(disk: &MemDisk) -> Vec<CrashChoice> {
    let unsynced = disk.unsynced_batches();
    let mut choices = vec![CrashChoice::LoseUnsynced];
    for batches in 0..=unsynced {
        choices.push(CrashChoice::KeepUnsynced { batches });
        choices
            .extend((0..disk.unsynced_bytes(batches)).map(|bytes| CrashChoice::TearLast { batches, bytes }));
    }
    choices
}

fn load(disk: &MemDisk) -> (Box<dyn LogStore>, bulkhead_storage::LoadedLog) {
    let mut log = disk.open(Some(OWNER)).expect("open").log;
    let loaded = log.load().expect("load");
    (log, loaded)
}

/// Crashes a copy of the disk, restarts on it, and goes on a little, across one more restart.
fn check(disk: &MemDisk, history: &LogHistory, choice: CrashChoice) {
    let disk = disk.fork();
    let mut history = history.clone();
    let report = disk.crash(choice);
    let (log, loaded) = load(&disk);
    assert_eq!(loaded.cut.is_some(), report.torn.is_some(), "{choice:?} {report:?}");
    history.restarted(&loaded);
    drop(log);
    // What a load returned counts, even if the next crash comes at once.
    disk.crash(CrashChoice::LoseUnsynced);
    let (mut log, again) = load(&disk);
    assert_eq!(again.cut, None, "{choice:?}");
    history.restarted(&again);
    let next = history.newest().last_index() + 1;
    let batch = append(next, next + 2, 9);
    log.write(&batch).expect("write");
    history.written(history.newest().after(&batch).expect("valid"));
    log.sync().expect("sync");
    history.synced();
    drop(log);
    disk.crash(CrashChoice::LoseUnsynced);
    history.restarted(&load(&disk).1);
}

#[test]
fn after_every_crash_the_log_is_a_prefix_with_everything_synced() {
    let disk = MemDisk::new();
    let (mut log, loaded) = load(&disk);
    let mut history = LogHistory::default();
    history.restarted(&loaded);
    let mut checked = 0;
    for step in script() {
        match step {
            Some(batch) => {
                log.write(&batch).expect("write");
                history.written(history.newest().after(&batch).expect("the script is valid"));
            }
            None => {
                log.sync().expect("sync");
                history.synced();
            }
        }
        for choice in crashes(&disk) {
            check(&disk, &history, choice);
            checked += 1;
        }
    }
    assert!(checked > 3000, "the script should have many crash points, not {checked}");
}

#[test]
fn a_torn_tail_that_was_acknowledged_is_corruption() {
    let disk = MemDisk::new();
    let (mut log, _) = load(&disk);
    log.write(&append(1, 3, 1)).expect("write");
    log.write(&append(4, 6, 1)).expect("write");
    log.sync().expect("sync");
    drop(log);
    let (tree, key, bytes) = disk.records().pop().expect("the newest log record");
    let value = vec![0xab; bytes];
    for (what, value) in [("shorter", Some(&value[..0])), ("gone", None)] {
        let disk = disk.fork();
        disk.overwrite(tree, &key, value);
        let error = disk.open(Some(OWNER)).expect("open").log.load().expect_err(what);
        assert!(matches!(error, StorageError::Corrupt { tree: "log", .. }), "{what}: {error}");
    }
}

#[test]
fn a_torn_record_before_the_last_is_corruption() {
    let disk = MemDisk::new();
    let (mut log, _) = load(&disk);
    log.write(&append(1, 3, 1)).expect("write");
    log.write(&append(4, 6, 1)).expect("write");
    drop(log);
    // Both unsynced: a tear of the last one is cut, of the first one it is not a crash's work.
    disk.crash(CrashChoice::KeepUnsynced { batches: 2 });
    let (tree, key, _) = disk.records().into_iter().nth(1).expect("the first log record");
    disk.overwrite(tree, &key, Some(&[1, 2, 3]));
    let error = disk.open(Some(OWNER)).expect("open").log.load().expect_err("damaged");
    assert!(error.to_string().contains("tree log, record 1: the record ends early"), "{error}");
}

#[test]
fn handles_from_before_a_crash_are_dead() {
    let disk = MemDisk::new();
    let (mut log, _) = load(&disk);
    disk.crash(CrashChoice::LoseUnsynced);
    let (mut alive, _) = load(&disk);
    assert_eq!(log.write(&append(1, 1, 1)), Err(StorageError::Closed));
    alive.write(&append(1, 1, 2)).expect("write");
    drop(log);
    assert!(
        matches!(disk.open(Some(OWNER)), Err(StorageError::Locked { .. })),
        "the living one still has it"
    );
}
