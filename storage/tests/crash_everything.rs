//! Events and snapshots after every crash at every point of a scripted life, together with the log on the same disk.

use bulkhead_storage::{
    CrashChoice, EventRecord, Fault, FaultPlan, MemDisk, Operation, SnapshotMeta, SnapshotWriter, Stores,
    conformance::{OWNER, append},
    keys::Tree,
};

/// What must be there after a crash, and what may.
#[derive(Clone, Default)]
struct Expected {
    synced_revision: u64,
    written_revision: u64,
    finished: Vec<u64>,
}

fn record(last_revision: u64) -> EventRecord {
    let bytes = vec![7; usize::try_from(last_revision % 9).expect("small") + 1];
    EventRecord { first_revision: last_revision - 2, last_revision, bytes }
}

fn meta(index: u64) -> SnapshotMeta {
    SnapshotMeta { index, term: 1, revision: index, extra: vec![2; 5] }
}

fn chunk(number: u32) -> Vec<u8> {
    vec![u8::try_from(number).expect("small"); 6]
}

/// Crashes copies of the disk in every way there is, and checks what each leaves.
fn check_all(disk: &MemDisk, expected: &Expected) -> usize {
    let choices = crashes(disk);
    for choice in &choices {
        let disk = disk.fork();
        disk.crash(*choice);
        let stores = open(&disk);
        check(&stores, expected, *choice);
        drop(stores);
        disk.crash(CrashChoice::LoseUnsynced);
        let stores = open(&disk);
        check(&stores, expected, *choice);
        go_on(&stores, *choice);
    }
    choices.len()
}

fn open(disk: &MemDisk) -> Stores {
    let mut stores = disk.open(Some(OWNER)).expect("open");
    stores.log.load().expect("load");
    stores
}

fn check(stores: &Stores, expected: &Expected, choice: CrashChoice) {
    let events = stores.events.read(0, 1000).expect("read");
    let newest = events.last().map_or(0, |event| event.last_revision);
    assert!(
        newest >= expected.synced_revision && newest <= expected.written_revision,
        "{choice:?}: {newest}"
    );
    assert!(events.iter().all(|event| *event == record(event.last_revision)), "{choice:?}");
    let indexes: Vec<_> = stores.snapshots.list().expect("list").iter().map(|info| info.meta.index).collect();
    assert_eq!(indexes, expected.finished, "{choice:?}");
    for index in indexes {
        stores.snapshots.verify(index).expect("verify");
    }
}

/// Appends events and finishes what is unfinished.
fn go_on(stores: &Stores, choice: CrashChoice) {
    let newest = stores.events.bounds().expect("bounds").map_or(0, |(_, newest)| newest);
    stores.events.append(&[record(newest + 3)]).expect("append");
    for index in [10, 20] {
        let Some(mut writer) = stores.snapshots.resume(&meta(index)).expect("resume") else { continue };
        for number in writer.next_chunk()..4 {
            writer.write_chunk(number, &chunk(number)).expect("write chunk");
        }
        writer.finish().expect("finish");
        let read: Vec<_> = (0..4).map(|number| stores.snapshots.read_chunk(index, number)).collect();
        assert_eq!(read, (0..4).map(|number| Ok(chunk(number))).collect::<Vec<_>>(), "{choice:?}");
    }
}

fn begin(stores: &Stores, index: u64) -> Box<dyn SnapshotWriter> {
    stores.snapshots.begin(meta(index)).expect("begin")
}

#[test]
fn after_every_crash_events_are_a_prefix_and_snapshots_whole_or_absent() {
    let disk = MemDisk::new();
    let mut stores = open(&disk);
    let mut expected = Expected::default();
    let mut checked = 0;
    let mut life = |stores: &mut Stores, step: usize, expected: &mut Expected| {
        match step {
            0 => stores.events.append(&[record(3), record(6), record(9)]).expect("append"),
            1 => stores.log.write(&append(1, 3, 1)).expect("write"),
            2 => stores.events.sync().expect("sync"),
            3 => stores.events.append(&[record(12)]).expect("append"),
            4 => stores.events.append(&[record(15), record(18)]).expect("append"),
            5 => stores.events.compact(7).expect("compact"),
            _ => stores.log.sync().expect("sync"),
        }
        expected.written_revision = [9, 9, 9, 12, 18, 18, 18][step];
        expected.synced_revision = [0, 0, 9, 9, 9, 9, 18][step];
        checked += check_all(&disk, expected);
    };
    (0..7).for_each(|step| life(&mut stores, step, &mut expected));
    for index in [10, 20] {
        let mut writer = begin(&stores, index);
        checked += check_all(&disk, &expected);
        for number in 0..4 {
            writer.write_chunk(number, &chunk(number)).expect("write chunk");
            checked += check_all(&disk, &expected);
        }
        writer.finish().expect("finish");
        expected.finished.push(index);
        checked += check_all(&disk, &expected);
    }
    assert!(checked > 400, "the script should have many crash points, not {checked}");
}

/// Every crash that the disk can suffer now.
fn crashes(disk: &MemDisk) -> Vec<CrashChoice> {
    let mut choices = vec![CrashChoice::LoseUnsynced];
    for batches in 0..=disk.unsynced_batches() {
        choices.push(CrashChoice::KeepUnsynced { batches });
        choices
            .extend((0..disk.unsynced_bytes(batches)).map(|bytes| CrashChoice::TearLast { batches, bytes }));
    }
    choices
}

/// A disk with a snapshot at 10, and the store on it.
fn with_snapshot(disk: &MemDisk) -> Stores {
    let stores = open(disk);
    let mut writer = begin(&stores, 10);
    (0..4).for_each(|number| writer.write_chunk(number, &chunk(number)).expect("write chunk"));
    writer.finish().expect("finish");
    stores
}

#[test]
fn a_crash_in_the_middle_of_finishing_leaves_a_snapshot_finished_or_to_resume() {
    // The first sync makes the chunks durable, the second one the record that makes the snapshot visible.
    for syncs in 0..2 {
        let disk = MemDisk::new();
        let stores = with_snapshot(&disk);
        let mut writer = begin(&stores, 20);
        (0..4).for_each(|number| writer.write_chunk(number, &chunk(number)).expect("write chunk"));
        disk.set_faults(FaultPlan::none().with(Operation::SnapshotSync, syncs, 1, Fault::Io));
        writer.finish().expect_err("the sync fails");
        disk.set_faults(FaultPlan::none());
        for choice in crashes(&disk) {
            let disk = disk.fork();
            disk.crash(choice);
            let stores = open(&disk);
            let newest =
                stores.snapshots.latest().expect("latest").expect("at least the older one").meta.index;
            stores.snapshots.verify(newest).expect("verify");
            let resumed =
                stores.snapshots.resume(&meta(20)).expect("resume").map(|writer| writer.next_chunk());
            match (syncs, newest) {
                (_, 20) => assert_eq!(resumed, None, "{choice:?}"),
                (0, _) => assert!(resumed.is_none_or(|next| next <= 4), "{choice:?}"),
                _ => assert_eq!(resumed, Some(4), "{choice:?}"),
            }
        }
    }
}

#[test]
fn a_crash_in_the_middle_of_retain_leaves_no_chunk_behind() {
    let disk = MemDisk::new();
    let stores = with_snapshot(&disk);
    let mut writer = begin(&stores, 20);
    writer.write_chunk(0, &chunk(0)).expect("write chunk");
    writer.finish().expect("finish");
    stores.snapshots.retain(1).expect("retain");
    for choice in crashes(&disk) {
        let disk = disk.fork();
        disk.crash(choice);
        let stores = open(&disk);
        let list = stores.snapshots.list().expect("list");
        list.iter().for_each(|info| assert_eq!(stores.snapshots.verify(info.meta.index).as_ref(), Ok(info)));
        // An appended event and a sync: what the start cleaned up is durable then, too.
        stores.events.append(&[record(3)]).expect("append");
        stores.events.sync().expect("sync");
        let chunks: u32 = list.iter().map(|info| info.chunks).sum();
        let snapshots = disk.records().iter().filter(|(tree, ..)| *tree == Tree::Snapshots).count();
        assert_eq!(snapshots, list.len() + usize::try_from(chunks).expect("small"), "{choice:?}");
    }
}
