//! Data directories that must be refused, and full real ones.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bulkhead_storage::{
    EventRecord, FreeBytes, Identity, LogBatch, SledOptions, StorageError,
    conformance::{OWNER, append},
    keys, open, open_with,
};

/// A closed data directory with a little in it.
fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut stores = open(dir.path(), Some(OWNER)).expect("create");
    stores.log.load().expect("load");
    stores.log.write(&LogBatch { hard_state: Some(vec![1; 8]), ..append(1, 9, 1) }).expect("write");
    stores.log.sync().expect("sync");
    let event = EventRecord { first_revision: 1, last_revision: 4, bytes: vec![1; 100] };
    stores.events.append(&[event]).expect("append");
    stores.events.sync().expect("sync");
    dir
}

/// Damages a data directory and expects opening or loading it to be refused with a text.
fn check(damage: impl FnOnce(&Path), expected: &str) {
    let dir = directory();
    damage(dir.path());
    let opened = open(dir.path(), Some(OWNER)).and_then(|mut stores| stores.log.load());
    let error = opened.expect_err(expected);
    let text = error.to_string();
    assert!(text.contains(expected), "expected {expected:?} in: {text}");
    assert!(text.contains("remedy"), "{text}");
    assert!(text.contains(&*dir.path().to_string_lossy()), "the place is named: {text}");
}

fn edit_identity(dir: &Path, from: &str, to: &str) {
    let path = dir.join(keys::IDENTITY_FILE);
    let text = fs::read_to_string(&path).expect("read");
    assert!(text.contains(from), "{text}");
    fs::write(&path, text.replace(from, to)).expect("write");
}

#[test]
fn damaged_or_foreign_directories_are_refused_with_reason_and_remedy() {
    check(
        |dir| edit_identity(dir, "format = 1", "format = 2"),
        "on-disk format 2, this binary reads up to 1",
    );
    check(|dir| edit_identity(dir, "member_id = 2", "member_id = 3"), "identity in");
    check(
        |dir| fs::remove_file(dir.join(keys::IDENTITY_FILE)).expect("remove"),
        "the file is missing, but the directory",
    );
    check(|dir| fs::remove_dir_all(dir.join(keys::DATABASE_DIR)).expect("remove"), "the database is missing");
    check(|dir| fs::remove_file(dir.join(keys::ACKNOWLEDGED_FILE)).expect("remove"), "the file is missing");
    check(
        |dir| {
            // The database of another member under this one's identity.
            let other = tempfile::tempdir().expect("temporary directory");
            drop(open(other.path(), Some(Identity { member_id: 3, ..OWNER })).expect("create"));
            fs::remove_dir_all(dir.join(keys::DATABASE_DIR)).expect("remove");
            fs::rename(other.path().join(keys::DATABASE_DIR), dir.join(keys::DATABASE_DIR)).expect("move");
        },
        "another identity",
    );
}

#[test]
fn the_database_of_an_earlier_time_is_refused() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut stores = open(dir.path(), Some(OWNER)).expect("create");
    stores.log.load().expect("load");
    stores.log.write(&append(1, 9, 1)).expect("write");
    stores.log.sync().expect("sync");
    drop(stores);
    let backup = dir.path().join("backup");
    let copy = |from: &Path, to: &Path| {
        fs::create_dir(to).expect("create directory");
        for file in fs::read_dir(from).expect("read").map(|file| file.expect("file")) {
            if file.file_type().expect("type").is_file() {
                fs::copy(file.path(), to.join(file.file_name())).expect("copy");
            }
        }
    };
    let database = dir.path().join(keys::DATABASE_DIR);
    copy(&database, &backup);
    let mut stores = open(dir.path(), Some(OWNER)).expect("open");
    stores.log.load().expect("load");
    stores.log.write(&append(10, 12, 1)).expect("write");
    stores.log.sync().expect("sync");
    drop(stores);
    fs::remove_dir_all(&database).expect("remove");
    copy(&backup, &database);
    let error =
        open(dir.path(), Some(OWNER)).expect("open").log.load().expect_err("acknowledged records are gone");
    assert!(
        error.to_string().contains("records up to 2 were acknowledged, the last whole one is 1"),
        "{error}"
    );
}

#[test]
fn nothing_is_created_where_nothing_may_be() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("missing");
    assert!(matches!(open(&path, None), Err(StorageError::NotInitialised { .. })));
    assert!(!path.exists());
    assert!(matches!(open(dir.path(), None), Err(StorageError::NotInitialised { .. })));
    assert_eq!(fs::read_dir(dir.path()).expect("read").count(), 0);
}

#[test]
fn a_creation_that_was_cut_short_starts_over() {
    let dir = tempfile::tempdir().expect("temporary directory");
    drop(open(dir.path(), Some(OWNER)).expect("create"));
    fs::remove_file(dir.path().join(keys::IDENTITY_FILE)).expect("remove");
    let other = Identity { member_id: 8, ..OWNER };
    assert_eq!(open(dir.path(), Some(other)).expect("create again").identity, other);
}

#[test]
fn a_full_disk_is_refused_before_sled_meets_it() {
    let dir = directory();
    let free = Arc::new(AtomicU64::new(u64::MAX));
    let asked = Arc::clone(&free);
    let free_bytes = FreeBytes::new(move |_| Ok(asked.load(Ordering::SeqCst)));
    let options = SledOptions { reserve_bytes: 1 << 20, free_bytes, ..SledOptions::default() };
    let mut stores = open_with(dir.path(), None, &options).expect("open");
    stores.log.load().expect("load");
    free.store(1 << 19, Ordering::SeqCst);
    for result in [stores.log.check_space(), stores.log.write(&append(10, 12, 1))] {
        let error = result.expect_err("full");
        assert!(error.is_full(), "{error}");
        assert!(error.to_string().contains("524288 bytes are free"), "{error}");
    }
    stores
        .log
        .write(&LogBatch { compact_to: Some(9), ..LogBatch::default() })
        .expect("what frees space still works");
    stores.log.sync().expect("sync");
    free.store(u64::MAX, Ordering::SeqCst);
    stores.log.check_space().expect("space again");
    stores.log.write(&append(10, 12, 1)).expect("write");
    stores.log.sync().expect("sync");
    drop(stores);
    let loaded = open(dir.path(), None).expect("open").log.load().expect("load");
    assert_eq!((loaded.first_index, loaded.last_index()), (10, 12));
}
