//! The real disk after crashes and damage of its files.
//!
//! A crash image is a copy of the data directory taken while the stores are open: what a killed process leaves.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bulkhead_storage::{
    EventRecord, LoadedLog, LogBatch, LogEntry, MAX_CHUNK_BYTES, SnapshotMeta, StorageError, Stores,
    conformance::{LogHistory, OWNER, append},
    keys, open,
};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("create directory");
    for file in fs::read_dir(from).expect("read directory").map(|file| file.expect("directory entry")) {
        let target = to.join(file.file_name());
        if file.file_type().expect("file type").is_dir() {
            copy(&file.path(), &target);
        } else {
            fs::copy(file.path(), target).expect("copy");
        }
    }
}

fn load(path: &Path) -> Result<(Stores, LoadedLog), StorageError> {
    let mut stores = open(path, Some(OWNER))?;
    let loaded = stores.log.load()?;
    Ok((stores, loaded))
}

fn event(revision: u64) -> EventRecord {
    EventRecord { first_revision: revision, last_revision: revision, bytes: vec![7; 300] }
}

#[test]
fn a_killed_process_loses_nothing_that_was_synced() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let live = dir.path().join("live");
    let (mut stores, loaded) = load(&live).expect("open");
    let mut history = LogHistory::default();
    history.restarted(&loaded);
    for round in 0..40_u64 {
        let last = history.newest().last_index();
        let tag = u8::try_from(round).expect("small");
        let mut batch = LogBatch { hard_state: Some(vec![tag; 8]), ..append(last + 1, last + 30, tag) };
        if round % 4 == 3 {
            batch = LogBatch { truncate_from: Some(last - 3), ..append(last - 3, last + 2, tag) };
        }
        if round % 9 == 8 {
            batch = LogBatch { compact_to: Some(last - 10), ..LogBatch::default() };
        }
        stores.log.write(&batch).expect("write");
        history.written(history.newest().after(&batch).expect("valid"));
        stores.events.append(&[event(round + 1)]).expect("append");
        if round % 3 != 0 {
            stores.log.sync().expect("sync");
            stores.events.sync().expect("sync");
            history.synced();
        }
        let synced_events = if round % 3 == 0 { round } else { round + 1 };
        let image = dir.path().join(format!("image{round}"));
        copy(&live, &image);
        let (found, loaded) = load(&image).expect("open the image");
        history.clone().restarted(&loaded);
        let events = found.events.bounds().expect("bounds").map_or(0, |(_, newest)| newest);
        assert!(events >= synced_events && events <= round + 1, "{events} of {synced_events}");
        drop(found);
        fs::remove_dir_all(&image).expect("remove");
    }
}

/// A data directory with a log, events and a snapshot, killed: sled finds the end of its log by its own checksums.
fn directory(dir: &Path) -> (PathBuf, LoadedLog) {
    let path = dir.join("live");
    let (mut stores, _) = load(&path).expect("create");
    for round in 0..30_u64 {
        stores
            .log
            .write(&LogBatch { hard_state: Some(vec![1; 8]), ..append(round * 5 + 1, round * 5 + 5, 1) })
            .expect("write");
        stores.log.sync().expect("sync");
        stores.events.append(&[event(round + 1)]).expect("append");
    }
    stores.events.sync().expect("sync");
    let meta = SnapshotMeta { index: 3, term: 1, revision: 3, extra: vec![1] };
    let mut writer = stores.snapshots.begin(meta).expect("begin");
    for chunk in 0..3 {
        writer.write_chunk(chunk, &[9; 5000]).expect("write chunk");
    }
    writer.finish().expect("finish");
    let image = dir.join("killed");
    copy(&path, &image);
    let loaded = stores.log.load().expect("load");
    (image, loaded)
}

fn read_all(path: &Path) -> Result<LoadedLog, StorageError> {
    let (stores, loaded) = load(path)?;
    assert_eq!(stores.events.read(0, 100)?.len(), 30);
    assert_eq!(stores.snapshots.verify(3)?.chunks, 3);
    Ok(loaded)
}

#[test]
fn a_flipped_byte_in_the_file_of_the_database_is_harmless_or_noticed() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (path, expected) = directory(dir.path());
    let database = Path::new(keys::DATABASE_DIR).join("db");
    let used =
        fs::read(path.join(&database)).expect("read").iter().rposition(|byte| *byte != 0).expect("not empty");
    let (mut harmless, mut noticed) = (0, 0);
    for nth in 0..60 {
        let image = dir.path().join("image");
        copy(&path, &image);
        let file = image.join(&database);
        let mut bytes = fs::read(&file).expect("read");
        bytes[used * nth / 60] ^= 0x10;
        fs::write(&file, bytes).expect("write");
        match read_all(&image) {
            Ok(loaded) => {
                assert_eq!(loaded, expected, "byte {}", used * nth / 60);
                harmless += 1;
            }
            Err(error) => {
                assert!(error.to_string().contains("remedy"), "{error}");
                noticed += 1;
            }
        }
        fs::remove_dir_all(&image).expect("remove");
    }
    println!("{harmless} harmless, {noticed} noticed");
    assert!(noticed > 0, "some byte must matter");
}

#[test]
fn values_that_sled_keeps_in_files_of_their_own_survive_a_kill() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let live = dir.path().join("live");
    let (mut stores, _) = load(&live).expect("create");
    let chunk = |number: u32| vec![u8::try_from(number).expect("small"); MAX_CHUNK_BYTES];
    let meta = SnapshotMeta { index: 1, term: 1, revision: 1, extra: vec![] };
    let mut writer = stores.snapshots.begin(meta).expect("begin");
    (0..12).for_each(|number| writer.write_chunk(number, &chunk(number)).expect("write chunk"));
    let info = writer.finish().expect("finish");
    let entry = LogEntry { index: 1, bytes: vec![5; 3 * MAX_CHUNK_BYTES] };
    stores.log.write(&LogBatch { entries: vec![entry.clone()], ..LogBatch::default() }).expect("write");
    stores.log.sync().expect("sync");
    let own_files =
        fs::read_dir(live.join(keys::DATABASE_DIR).join("blobs")).expect("read directory").count();
    assert!(own_files > 0, "the values should be large enough");
    let image = dir.path().join("killed");
    copy(&live, &image);
    let (found, loaded) = load(&image).expect("open the image");
    assert_eq!(loaded.entries, [entry]);
    assert_eq!(found.snapshots.verify(1), Ok(info));
    assert_eq!(found.snapshots.read_chunk(1, 11), Ok(chunk(11)));
}
