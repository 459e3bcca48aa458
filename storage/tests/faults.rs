//! Full disks, failing devices and slow ones.

use bulkhead_storage::{
    CrashChoice, EventRecord, Fault, FaultPlan, LogBatch, MemDisk, Operation, SnapshotMeta, StorageError,
    Stores,
    conformance::{OWNER, append},
};

fn started(disk: &MemDisk) -> Stores {
    let mut stores = disk.open(Some(OWNER)).expect("open");
    stores.log.load().expect("load");
    stores
}

#[test]
fn a_full_disk_refuses_and_recovers_with_the_same_batch() {
    let disk = MemDisk::new();
    let mut stores = started(&disk);
    stores.log.write(&append(1, 3, 1)).expect("write");
    stores.log.sync().expect("sync");
    disk.set_faults(FaultPlan::full());
    let event = EventRecord { first_revision: 1, last_revision: 1, bytes: vec![1] };
    let meta = SnapshotMeta { index: 3, term: 1, revision: 1, extra: vec![] };
    let full = [
        stores.log.check_space(),
        stores.log.write(&append(4, 4, 1)),
        stores.events.append(std::slice::from_ref(&event)),
        stores.snapshots.begin(meta).map(drop),
    ];
    for result in full {
        let error = result.expect_err("full");
        assert!(error.is_full() && error.is_refusal() && !error.is_fatal(), "{error}");
        assert!(error.to_string().contains("free space"), "{error}");
    }
    // What frees space still works.
    stores.log.write(&LogBatch { compact_to: Some(3), ..LogBatch::default() }).expect("compact");
    stores.log.sync().expect("sync");
    disk.set_faults(FaultPlan::none());
    stores.log.check_space().expect("space again");
    stores.log.write(&append(4, 4, 1)).expect("the same batch");
    stores.events.append(&[event]).expect("the same record");
    stores.log.sync().expect("sync");
    drop(stores);
    let loaded = disk.open(None).expect("open").log.load().expect("load");
    assert_eq!((loaded.first_index, loaded.last_index()), (4, 4));
}

fn check_poisoned(plan: FaultPlan, expect_full: bool) {
    let disk = MemDisk::new();
    let mut stores = started(&disk);
    stores.log.write(&append(1, 3, 1)).expect("write");
    stores.log.sync().expect("sync");
    disk.set_faults(plan);
    let mut write_and_sync = || stores.log.write(&append(4, 4, 1)).and_then(|()| stores.log.sync());
    let error = write_and_sync().expect_err("fails");
    assert_eq!(error.is_full(), expect_full, "{error}");
    disk.set_faults(FaultPlan::none());
    assert!(matches!(stores.log.write(&append(4, 4, 1)), Err(StorageError::Poisoned { .. })));
    assert!(matches!(stores.log.sync(), Err(StorageError::Poisoned { .. })));
    let last = stores.log.load().expect("load again").last_index();
    assert!(last == 3 || last == 4, "{last}");
    stores.log.write(&append(last + 1, last + 1, 1)).expect("goes on");
    stores.log.sync().expect("sync");
}

#[test]
fn after_a_failed_write_or_sync_only_a_load_helps() {
    check_poisoned(FaultPlan::none().with(Operation::LogWrite, 0, 1, Fault::Io), false);
    check_poisoned(FaultPlan::none().with(Operation::LogSync, 0, 1, Fault::Io), false);
    check_poisoned(FaultPlan::none().with(Operation::LogSync, 0, 1, Fault::Full), true);
}

#[test]
fn a_truncation_of_events_that_fails_anywhere_leaves_a_disk_that_opens() {
    let event = |revision| EventRecord { first_revision: revision, last_revision: revision, bytes: vec![1] };
    let failures = (0..6).map(|skip| (Operation::EventWrite, skip)).chain([(Operation::EventSync, 0)]);
    let mut failed = 0;
    for (operation, skip) in failures {
        let disk = MemDisk::new();
        let stores = started(&disk);
        stores.events.append(&[event(1), event(2), event(3)]).expect("append");
        stores.events.sync().expect("sync");
        disk.set_faults(FaultPlan::none().with(operation, skip, 1, Fault::Io));
        failed += usize::from(stores.events.truncate_after(1).is_err());
        disk.set_faults(FaultPlan::none());
        // Either it says what there is, or that it does not know.
        let bounds = stores.events.bounds();
        let found = stores.events.read(0, 10).expect("read").last().map(|record| (1, record.last_revision));
        assert!(
            bounds == Ok(found) || matches!(bounds, Err(StorageError::Poisoned { .. })),
            "{bounds:?} {found:?}"
        );
        for choice in [CrashChoice::LoseUnsynced, CrashChoice::KeepUnsynced { batches: usize::MAX }] {
            let disk = disk.fork();
            disk.crash(choice);
            let newest = started(&disk).events.bounds().expect("bounds").map(|(_, newest)| newest);
            assert!(newest == Some(3) || newest == Some(1), "{newest:?}");
        }
    }
    assert!(failed > 3, "the faults should hit, not only {failed}");
}

#[test]
fn slow_operations_report_their_virtual_time() {
    let disk = MemDisk::new();
    let mut stores = started(&disk);
    assert_eq!(disk.take_delay_ms(), 0);
    let slow = |delay_ms| Fault::Slow { delay_ms };
    disk.set_faults(FaultPlan::none().with(Operation::LogSync, 0, 2, slow(40)).with(
        Operation::LogWrite,
        1,
        1,
        slow(2),
    ));
    for index in 1..=3 {
        stores.log.write(&append(index, index, 1)).expect("write");
        stores.log.sync().expect("sync");
    }
    assert_eq!((disk.take_delay_ms(), disk.take_delay_ms()), (82, 0));
}

#[test]
fn a_failed_open_leaves_the_disk_to_the_next() {
    let disk = MemDisk::new();
    disk.set_faults(FaultPlan::none().with(Operation::Open, 1, 1, Fault::Io));
    assert!(matches!(disk.open(Some(OWNER)), Err(StorageError::Io { .. })));
    started(&disk);
}

#[test]
fn a_wiped_disk_is_empty() {
    let disk = MemDisk::new();
    let stores = started(&disk);
    disk.wipe();
    assert_eq!(stores.events.read(0, 1), Err(StorageError::Closed));
    drop(stores);
    assert!(matches!(disk.open(None), Err(StorageError::NotInitialised { .. })));
}
