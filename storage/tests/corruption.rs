//! Damage of every byte is noticed, named, and never repaired in silence.

use bulkhead_storage::{
    CrashChoice, EventRecord, LogBatch, MemDisk, SnapshotMeta, StorageError,
    conformance::{OWNER, append},
    keys::{self, Tree},
};

/// A disk with something synced in every region.
fn disk() -> MemDisk {
    let disk = MemDisk::new();
    let mut stores = disk.open(Some(OWNER)).expect("open");
    stores.log.load().expect("load");
    stores.log.write(&LogBatch { hard_state: Some(vec![1; 8]), ..append(1, 4, 1) }).expect("write");
    stores.log.write(&LogBatch { truncate_from: Some(3), ..append(3, 6, 2) }).expect("write");
    stores.log.sync().expect("sync");
    let event =
        |revision| EventRecord { first_revision: revision, last_revision: revision, bytes: vec![7; 20] };
    stores.events.append(&[event(1), event(2), event(3)]).expect("append");
    stores.events.sync().expect("sync");
    let meta = SnapshotMeta { index: 2, term: 1, revision: 2, extra: vec![4; 6] };
    let mut writer = stores.snapshots.begin(meta).expect("begin");
    writer.write_chunk(0, &[1; 30]).expect("write chunk");
    writer.write_chunk(1, &[2; 30]).expect("write chunk");
    writer.finish().expect("finish");
    disk
}

/// Opens a disk and reads everything on it.
fn read_all(disk: &MemDisk) -> Result<(), StorageError> {
    let mut stores = disk.open(Some(OWNER))?;
    assert_eq!(stores.log.load()?.last_index(), 6);
    stores.events.read(0, 10)?;
    let newest = stores.snapshots.latest()?.expect("a snapshot");
    stores.snapshots.verify(newest.meta.index)?;
    Ok(())
}

#[test]
fn every_flipped_byte_of_every_region_is_noticed_and_named() {
    let disk = disk();
    assert_eq!(read_all(&disk), Ok(()));
    let records = disk.records();
    assert!(
        Tree::ALL.iter().all(|tree| records.iter().any(|(found, ..)| found == tree)),
        "every region has records"
    );
    for (record, (tree, key, bytes)) in records.iter().enumerate() {
        for byte in 0..*bytes {
            for mask in [0x01, 0x80, 0xff] {
                let disk = disk.fork();
                let report = disk.crash(CrashChoice::CorruptByte { record, byte, mask });
                let error = read_all(&disk).expect_err("damaged");
                assert!(error.is_fatal(), "{report:?} byte {byte}: {error}");
                if *tree != Tree::Meta {
                    let text = error.to_string();
                    let name = format!("tree {}, {}", tree.name(), keys::describe(*tree, key));
                    assert!(
                        text.starts_with(&name) && text.contains("remedy"),
                        "{report:?} byte {byte}: {text}"
                    );
                }
            }
        }
    }
}

fn check_missing(tree: Tree, key: &[u8], expected: &str) {
    let disk = disk();
    assert!(disk.records().iter().any(|(found, name, _)| (*found, name.as_slice()) == (tree, key)));
    disk.overwrite(tree, key, None);
    let text = read_all(&disk).expect_err("a record is missing").to_string();
    assert!(text.starts_with(expected), "{text}");
}

#[test]
fn a_missing_record_is_noticed_and_named() {
    check_missing(Tree::Log, &keys::log(1), "tree log, record 2: the entries from index 1 on are missing");
    check_missing(Tree::Log, &keys::log(2), "tree log, record 1: records up to 2 were acknowledged");
    check_missing(
        Tree::Events,
        &keys::event(2),
        "tree events, record ending at revision 3: the records between",
    );
    check_missing(
        Tree::Events,
        &keys::event(3),
        "tree events, record ending at revision 2: records up to revision 3",
    );
    check_missing(
        Tree::Snapshots,
        &keys::snapshot_meta(2),
        "tree snapshots, snapshot 2: it was finished and is gone",
    );
    check_missing(
        Tree::Snapshots,
        &keys::snapshot_chunk(2, 1),
        "tree snapshots, snapshot 2: chunk 1 of 2 is missing",
    );
}

#[test]
fn a_record_under_another_key_is_noticed() {
    let source = disk();
    let mut other = source.open(Some(OWNER)).expect("open").log;
    other.load().expect("load");
    other.write(&append(7, 7, 1)).expect("write");
    other.sync().expect("sync");
    drop(other);
    let bytes = |disk: &MemDisk| disk.records().iter().filter(|(tree, ..)| *tree == Tree::Log).count();
    assert_eq!(bytes(&source), 3);
    // A gap in the middle: record 3 follows a record that is gone.
    source.overwrite(Tree::Log, &keys::log(2), None);
    let text = source.open(None).expect("open").log.load().expect_err("gap").to_string();
    assert!(text.starts_with("tree log, record 3: record 2 before it is missing (found 1)"), "{text}");
}

#[test]
fn a_damaged_chunk_of_an_unfinished_snapshot_is_written_again() {
    let disk = MemDisk::new();
    let meta = SnapshotMeta { index: 9, term: 1, revision: 2, extra: vec![] };
    let stores = disk.open(Some(OWNER)).expect("open");
    let mut writer = stores.snapshots.begin(meta.clone()).expect("begin");
    for chunk in 0..5 {
        writer.write_chunk(chunk, &[3; 10]).expect("write chunk");
    }
    drop((writer, stores));
    disk.crash(CrashChoice::KeepUnsynced { batches: usize::MAX });
    disk.overwrite(Tree::Snapshots, &keys::snapshot_chunk(9, 3), Some(&[1; 22]));
    let stores = disk.open(Some(OWNER)).expect("open");
    let mut writer = stores.snapshots.resume(&meta).expect("resume").expect("is there");
    assert_eq!(writer.next_chunk(), 3);
    writer.write_chunk(3, &[3; 10]).expect("write chunk");
    assert_eq!(writer.finish().expect("finish").chunks, 4);
    assert_eq!(stores.snapshots.verify(9).expect("verify").bytes, 40);
}
