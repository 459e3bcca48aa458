//! Damage of the real disk: every region of records of every tree, and every file of a data directory.
//!
//! Where a record lies in sled's file is found by its bytes; a flip hits every copy of them. What is in front of a
//! value there is sled's own header and the key.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use bulkhead_storage::{
    EventRecord, LogBatch, LogEntry, SnapshotMeta, StorageError,
    conformance::{OWNER, append},
    keys::{self, Tree},
    open,
};

/// Bytes in front of a value that are flipped, counted from it: sled's header of the record, and the key.
const FRONT_BYTES: [isize; 4] = [1, 4, 8, 13];
/// Around a record's body: its length with a checksum, and the checksum of the body.
const HEAD_BYTES: usize = 8;
const CRC_BYTES: usize = 4;

/// Everything that a directory holds, as read through the stores.
#[derive(Debug, PartialEq, Eq)]
struct Content {
    hard_state: Option<Vec<u8>>,
    entries: Vec<LogEntry>,
    events: Vec<EventRecord>,
    chunks: Vec<Vec<u8>>,
}

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

/// A directory with records in every tree, as a kill leaves it.
fn directory(dir: &Path) -> PathBuf {
    let live = dir.join("live");
    let mut stores = open(&live, Some(OWNER)).expect("create");
    stores.log.load().expect("load");
    let hard_state = |value: u8| Some(vec![value; 24]);
    stores.log.write(&LogBatch { hard_state: hard_state(0xa1), ..LogBatch::default() }).expect("write");
    stores.log.write(&append(1, 4, 1)).expect("write");
    stores.log.sync().expect("sync");
    stores.log.write(&LogBatch { truncate_from: Some(3), ..append(3, 9, 2) }).expect("write");
    stores.log.write(&LogBatch { hard_state: hard_state(0xa2), ..LogBatch::default() }).expect("write");
    stores.log.sync().expect("sync");
    for revision in 1..=4 {
        let bytes = vec![0xe0 + u8::try_from(revision).expect("small"); 40];
        stores
            .events
            .append(&[EventRecord { first_revision: revision, last_revision: revision, bytes }])
            .expect("append");
    }
    stores.events.sync().expect("sync");
    let meta = SnapshotMeta { index: 2, term: 1, revision: 2, extra: vec![4; 9] };
    let mut writer = stores.snapshots.begin(meta).expect("begin");
    for chunk in 0..3 {
        writer.write_chunk(chunk, &[0xc0 + u8::try_from(chunk).expect("small"); 300]).expect("write chunk");
    }
    writer.finish().expect("finish");
    let image = dir.join("killed");
    copy(&live, &image);
    image
}

fn read_all(path: &Path) -> Result<Content, StorageError> {
    let mut stores = open(path, Some(OWNER))?;
    let log = stores.log.load()?;
    let events = stores.events.read(0, 100)?;
    let newest = stores.snapshots.latest()?;
    let mut chunks = Vec::new();
    if let Some(newest) = newest {
        stores.snapshots.verify(newest.meta.index)?;
        for chunk in 0..newest.chunks {
            chunks.push(stores.snapshots.read_chunk(newest.meta.index, chunk)?);
        }
    }
    Ok(Content { hard_state: log.hard_state, entries: log.entries, events, chunks })
}

/// Every record of every tree, as sled has it.
fn records(dir: &Path, path: &Path) -> Vec<(Tree, Vec<u8>, Vec<u8>)> {
    let image = dir.join("listed");
    copy(path, &image);
    let config = sled::Config::new().path(image.join(keys::DATABASE_DIR)).segment_size(8 << 20);
    let database = config.open().expect("open");
    let mut all = Vec::new();
    for tree in Tree::ALL {
        for pair in &database.open_tree(tree.name()).expect("tree") {
            let (key, value) = pair.expect("readable");
            all.push((tree, key.to_vec(), value.to_vec()));
        }
    }
    all
}

/// Where bytes occur in a file.
fn places(file: &[u8], bytes: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = file[from..].windows(bytes.len()).position(|window| window == bytes) {
        found.push(from + at);
        from += at + bytes.len();
    }
    found
}

/// The bytes to flip for one record: name of the region, and distance from the start of its value.
fn regions(value: &[u8], framed: bool) -> Vec<(&'static str, isize)> {
    let at = |n: usize| isize::try_from(n).expect("small");
    let mut all: Vec<_> = FRONT_BYTES.iter().map(|n| ("sled's header and the key", -n)).collect();
    if !framed {
        all.extend([0, value.len() / 2, value.len() - 1].map(|n| ("payload", at(n))));
        return all;
    }
    all.extend([0, 3].map(|n| ("length", at(n))));
    all.extend([4, 7].map(|n| ("checksum of the length", at(n))));
    all.extend([HEAD_BYTES, value.len() / 2, value.len() - CRC_BYTES - 1].map(|n| ("payload", at(n))));
    all.extend([CRC_BYTES, 1].map(|n| ("checksum", at(value.len() - n))));
    all
}

#[test]
fn damage_in_every_region_of_every_tree_is_noticed_or_harmless_and_never_served() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = directory(dir.path());
    let expected = read_all(&{
        let image = dir.path().join("whole");
        copy(&path, &image);
        image
    })
    .expect("whole");
    let database = Path::new(keys::DATABASE_DIR).join("db");
    let file = fs::read(path.join(&database)).expect("read");
    let used = file.iter().rposition(|byte| *byte != 0).expect("not empty") + 1;
    let mut counts: BTreeMap<(&str, &str), [u32; 2]> = BTreeMap::new();
    let mut kinds: BTreeMap<String, u32> = BTreeMap::new();
    for (tree, key, value) in records(dir.path(), &path) {
        let places = places(&file[..used], &value);
        assert!(!places.is_empty(), "{} {} lies in the file", tree.name(), keys::describe(tree, &key));
        for (region, distance) in regions(&value, tree != Tree::Meta) {
            let mut bytes = file.clone();
            for place in &places {
                bytes[place.checked_add_signed(distance).expect("inside")] ^= 0x41;
            }
            let image = dir.path().join("image");
            copy(&path, &image);
            fs::write(image.join(&database), bytes).expect("write");
            let count = counts.entry((tree.name(), region)).or_default();
            match read_all(&image) {
                Ok(content) => {
                    assert_eq!(content, expected, "{} {key:?} {region} {distance}", tree.name());
                    count[0] += 1;
                }
                Err(error) => {
                    let text = error.to_string();
                    *kinds.entry(text.split(';').next().unwrap_or_default().to_owned()).or_default() += 1;
                    let named = text.starts_with("tree ") && text.contains(keys::DATABASE_DIR);
                    assert!(named && text.contains("remedy"), "{text}");
                    count[1] += 1;
                }
            }
            fs::remove_dir_all(&image).expect("remove");
        }
    }
    for ((tree, region), [harmless, noticed]) in &counts {
        println!("{tree:<10} {region:<26} {noticed:>3} noticed {harmless:>3} harmless");
    }
    kinds.iter().for_each(|(text, count)| println!("{count:>4} {text}"));
    for tree in Tree::ALL {
        for region in ["length", "checksum of the length", "payload", "checksum"] {
            if let Some([harmless, noticed]) = counts.get(&(tree.name(), region)) {
                assert!(*noticed > 0 && *harmless == 0, "{} {region}", tree.name());
            }
        }
    }
}

/// Damages one file of a directory, and expects a refusal that names it, or that nothing was lost.
fn check_file(path: &Path, name: &str, damage: impl FnOnce(&Path)) {
    let dir = tempfile::tempdir().expect("temporary directory");
    copy(path, dir.path());
    damage(&dir.path().join(name));
    let error = open(dir.path(), Some(OWNER)).and_then(|mut stores| stores.log.load()).expect_err(name);
    let text = error.to_string();
    assert!(text.contains(&*dir.path().to_string_lossy()) && text.contains("remedy"), "{name}: {text}");
}

#[test]
fn every_damaged_or_missing_file_of_a_directory_is_named() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = directory(dir.path());
    let flip = |file: &Path, at: usize| {
        let mut bytes = fs::read(file).expect("read");
        let at = at.min(bytes.len() - 1);
        bytes[at] ^= 0x10;
        fs::write(file, bytes).expect("write");
    };
    let length = fs::read(path.join(keys::IDENTITY_FILE)).expect("read").len();
    for at in (0..length).step_by(9) {
        check_file(&path, keys::IDENTITY_FILE, |file| flip(file, at));
    }
    // Its two slots: with one of them damaged the other counts, which is older at most.
    check_file(&path, keys::ACKNOWLEDGED_FILE, |file| {
        flip(file, 9);
        flip(file, 4096 + 9);
    });
    for name in [keys::IDENTITY_FILE, keys::ACKNOWLEDGED_FILE] {
        check_file(&path, name, |file| fs::remove_file(file).expect("remove"));
        check_file(&path, name, |file| fs::write(file, b"").expect("empty"));
    }
    let file = Path::new(keys::DATABASE_DIR).join("db");
    let file = file.to_str().expect("text");
    check_file(&path, file, |file| fs::remove_file(file).expect("remove"));
    check_file(&path, file, |file| fs::write(file, b"").expect("empty"));
    check_file(&path, keys::DATABASE_DIR, |file| fs::remove_dir_all(file).expect("remove"));
}
