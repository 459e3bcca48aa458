//! The real disk after a power failure in the middle of a sync: of the blocks that the sync wrote, some are there and
//! some are not.
//!
//! ```text
//!   image before a sync ──┐
//!                         ├─► the 512-byte blocks that differ ─► mixtures ─► open, judge, go on, open again
//!   image after it ───────┘
//! ```
//!
//! For each sync inside the scripted life: no block, every prefix in the order of the file, every single loss, every
//! single survivor, and all subsets while there are at most [`ALL_SUBSETS_MAX`] blocks; the last block of each prefix
//! torn at every [`TEAR_STEP`] bytes. The promises (`acknowledged`) are those from before the sync, as they are
//! written after it.

mod life;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use bulkhead_storage::{
    StorageError, Stores,
    conformance::{OWNER, append},
    keys, open,
};
use life::{Expected, Judge, Step, go_on, perform, recovered, script};

/// What a disk writes at once or not at all.
const BLOCK_BYTES: usize = 512;
/// Up to so many blocks all their subsets are tried.
const ALL_SUBSETS_MAX: usize = 5;
/// Where inside a block it is torn.
const TEAR_STEP: usize = 128;

/// All files of a data directory.
type Image = BTreeMap<PathBuf, Vec<u8>>;
/// A block: its file, and its number in it.
type Block = (PathBuf, usize);

fn read(directory: &Path, below: &Path, image: &mut Image) {
    for entry in fs::read_dir(directory.join(below)).expect("read directory") {
        let entry = entry.expect("directory entry");
        let path = below.join(entry.file_name());
        if entry.file_type().expect("file type").is_dir() {
            read(directory, &path, image);
        } else {
            image.insert(path, fs::read(entry.path()).expect("read"));
        }
    }
}

fn image(directory: &Path) -> Image {
    let mut image = Image::new();
    read(directory, Path::new(""), &mut image);
    image
}

fn write(image: &Image, directory: &Path) {
    for (path, bytes) in image {
        let path = directory.join(path);
        fs::create_dir_all(path.parent().expect("inside the directory")).expect("create directory");
        fs::write(path, bytes).expect("write");
    }
}

fn block<'a>(image: &'a Image, (file, number): &Block) -> &'a [u8] {
    let bytes = image.get(file).map_or(&[][..], Vec::as_slice);
    let start = (number * BLOCK_BYTES).min(bytes.len());
    &bytes[start..(start + BLOCK_BYTES).min(bytes.len())]
}

/// The blocks of the database that a sync wrote, in the order of the file.
fn changed(before: &Image, after: &Image) -> Vec<Block> {
    let files = after.keys().filter(|path| path.starts_with(keys::DATABASE_DIR));
    let blocks =
        files.flat_map(|file| (0..after[file].len().div_ceil(BLOCK_BYTES)).map(|n| (file.clone(), n)));
    blocks.filter(|at| block(before, at) != block(after, at)).collect()
}

/// The first bytes of a block, as they are in another image.
fn put(image: &mut Image, from: &Image, at: &Block, bytes: usize) {
    let new = block(from, at);
    let start = at.1 * BLOCK_BYTES;
    let file = image.entry(at.0.clone()).or_default();
    file.resize(file.len().max(start + new.len()), 0);
    let bytes = bytes.min(new.len());
    file[start..start + bytes].copy_from_slice(&new[..bytes]);
}

/// Which blocks survive, as (number of the block, bytes of it).
fn mixtures(count: usize) -> Vec<Vec<(usize, usize)>> {
    let whole =
        |numbers: &mut dyn Iterator<Item = usize>| numbers.map(|n| (n, BLOCK_BYTES)).collect::<Vec<_>>();
    let mut all = Vec::new();
    for prefix in 0..=count {
        all.push(whole(&mut (0..prefix)));
        if prefix < count {
            all.push(whole(&mut (0..count).filter(|n| *n != prefix)));
            all.push(vec![(prefix, BLOCK_BYTES)]);
            for bytes in (TEAR_STEP..BLOCK_BYTES).step_by(TEAR_STEP) {
                let mut torn = whole(&mut (0..prefix));
                torn.push((prefix, bytes));
                all.push(torn);
            }
        }
    }
    if count <= ALL_SUBSETS_MAX {
        all.extend((0..1_usize << count).map(|set| whole(&mut (0..count).filter(|n| set >> n & 1 == 1))));
    }
    let distinct: BTreeSet<_> = all.into_iter().collect();
    distinct.into_iter().collect()
}

fn load(directory: &Path) -> Result<Stores, StorageError> {
    open(directory, Some(OWNER))
}

fn recover(directory: &Path, expected: &Expected) -> Result<(), StorageError> {
    let mut stores = load(directory)?;
    let mut found = recovered(&mut stores, expected.clone(), Judge::Prefix)?;
    go_on(&mut stores, &mut found)?;
    drop(stores);
    recovered(&mut load(directory)?, found, Judge::Prefix).map(drop)
}

#[test]
fn a_power_failure_inside_a_sync_loses_nothing_that_was_synced_and_invents_nothing() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let live = dir.path().join("live");
    let mut stores = load(&live).expect("create");
    stores.log.load().expect("load");
    let mut expected = Expected::default();
    let mut before = image(&live);
    let (mut syncs, mut tried, mut refused) = (0, 0, Vec::new());
    for step in script() {
        let unsynced = expected.clone();
        perform(&mut stores, &step, &mut expected).expect("the disk works");
        let syncs_inside = matches!(step, Step::SyncLog | Step::SyncEvents);
        if !syncs_inside {
            if matches!(step, Step::Finish(_) | Step::TruncateEvents(_)) {
                // They sync several times; the crash points in between are those of the simulated disk.
                before = image(&live);
            }
            continue;
        }
        let after = image(&live);
        let blocks = changed(&before, &after);
        syncs += 1;
        for mixture in mixtures(blocks.len()) {
            let mut mixed = before.clone();
            for (number, bytes) in &mixture {
                put(&mut mixed, &after, &blocks[*number], *bytes);
            }
            let directory = dir.path().join("mixed");
            write(&mixed, &directory);
            if let Err(error) = recover(&directory, &unsynced) {
                refused.push(format!(
                    "sync {syncs}, {} of {} blocks {mixture:?}: {error}",
                    mixture.len(),
                    blocks.len()
                ));
            }
            fs::remove_dir_all(&directory).expect("remove");
            tried += 1;
        }
        println!("sync {syncs}: {} blocks, {tried} mixtures so far, {} refused", blocks.len(), refused.len());
        before = after;
    }
    refused.iter().for_each(|r| println!("{r}"));
}

/// What a power failure leaves of a file that was written and not synced.
const FILE_STATES: [&str; 4] = ["missing", "empty", "half", "whole"];

/// Chunks so long that sled keeps them in files of their own.
const LONG_CHUNK_BYTES: usize = 256 << 10;

/// So many of them make a page of sled that is long enough.
const LONG_CHUNKS: u32 = 12;

/// A directory whose log and long chunks are durable, before and after a sync with some more chunks.
fn long_values(live: &Path) -> (Image, Image) {
    let mut stores = load(live).expect("create");
    stores.log.load().expect("load");
    let mut writer = stores.snapshots.begin(life::meta(4)).expect("begin");
    let long = |number: u32| vec![u8::try_from(number).expect("small"); LONG_CHUNK_BYTES];
    (0..LONG_CHUNKS).for_each(|number| writer.write_chunk(number, &long(number)).expect("write chunk"));
    stores.log.write(&append(1, 3, 1)).expect("write");
    stores.log.sync().expect("sync");
    let before = image(live);
    (LONG_CHUNKS..LONG_CHUNKS + 8).for_each(|n| writer.write_chunk(n, &long(n)).expect("write chunk"));
    stores.log.write(&append(4, 5, 1)).expect("write");
    stores.log.sync().expect("sync");
    (before, image(live))
}

#[test]
fn a_power_failure_while_long_values_are_synced_leaves_a_server_that_starts() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (before, after) = long_values(&dir.path().join("live"));
    let own_files: Vec<PathBuf> = after.keys().filter(|path| !before.contains_key(*path)).cloned().collect();
    assert!(!own_files.is_empty(), "the chunks should have a file of their own");
    let blocks: Vec<Block> =
        changed(&before, &after).into_iter().filter(|(file, _)| !own_files.contains(file)).collect();
    let count = blocks.len();
    // Thousands of blocks: the ends and the quarters of them.
    let prefixes = [0, 1, count / 4, count / 2, count * 3 / 4, count - 1, count];
    for (prefix, state) in prefixes.into_iter().flat_map(|p| FILE_STATES.map(|state| (p, state))) {
        let mut mixed = before.clone();
        blocks[..prefix].iter().for_each(|at| put(&mut mixed, &after, at, BLOCK_BYTES));
        for file in &own_files {
            let bytes = &after[file];
            let kept = match state {
                "missing" => continue,
                "empty" => 0,
                "half" => bytes.len() / 2,
                _ => bytes.len(),
            };
            mixed.insert(file.clone(), bytes[..kept].to_vec());
        }
        let directory = dir.path().join("mixed");
        write(&mixed, &directory);
        let what = format!("{prefix} of {} blocks, its file {state}", blocks.len());
        let mut stores = load(&directory).unwrap_or_else(|error| panic!("{what}: {error}"));
        let loaded = stores.log.load().unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!([3, 5].contains(&loaded.last_index()), "{what}: {loaded:?}");
        let writer =
            stores.snapshots.resume(&life::meta(4)).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(
            writer.expect("it was begun").next_chunk() >= LONG_CHUNKS,
            "{what}: the first chunks are durable"
        );
        drop(stores);
        fs::remove_dir_all(&directory).expect("remove");
    }
}
