//! Laws of snapshots.

use super::{Disk, Law, open};
use crate::{MAX_CHUNK_BYTES, SnapshotInfo, SnapshotMeta, SnapshotStore, StorageError};

pub(super) const LAWS: &[Law] = &[
    ("a finished snapshot lasts and is read back", finished_lasts),
    ("an unfinished snapshot is invisible and resumes", unfinished_resumes),
    ("chunks out of order and too long ones are refused", bad_chunks),
    ("beginning again starts over, and ends the other writer", begin_again),
    ("only the same meta resumes", resume_needs_same_meta),
    ("a finished snapshot cannot be begun", begin_finished),
    ("retain keeps the newest", retain),
    ("a snapshot of nothing is a snapshot", empty_snapshot),
    ("the digest depends on content and order", digest),
];

fn meta(index: u64) -> SnapshotMeta {
    SnapshotMeta { index, term: 3, revision: index * 2, extra: vec![5; 30] }
}

fn chunk(index: u64, chunk: u32) -> Vec<u8> {
    let length = usize::try_from(chunk).expect("small") * 700 + 1;
    [format!("{index}/{chunk}").into_bytes(), vec![b'x'; length]].concat()
}

fn write(store: &dyn SnapshotStore, index: u64, chunks: u32) -> SnapshotInfo {
    let mut writer = store.begin(meta(index)).expect("begin");
    for number in 0..chunks {
        assert_eq!(writer.next_chunk(), number);
        writer.write_chunk(number, &chunk(index, number)).expect("write chunk");
    }
    writer.finish().expect("finish")
}

fn check(store: &dyn SnapshotStore, info: &SnapshotInfo) {
    let index = info.meta.index;
    assert_eq!(store.verify(index).as_ref(), Ok(info));
    for number in 0..info.chunks {
        assert_eq!(store.read_chunk(index, number), Ok(chunk(index, number)), "{index}/{number}");
    }
    let past = store.read_chunk(index, info.chunks).expect_err("past the end");
    assert!(matches!(past, StorageError::Invalid { .. }), "{past}");
}

fn indexes(store: &dyn SnapshotStore) -> Vec<u64> {
    store.list().expect("list").iter().map(|info| info.meta.index).collect()
}

fn finished_lasts(disk: &dyn Disk) {
    let store = open(disk).snapshots;
    assert_eq!((store.latest(), indexes(&*store)), (Ok(None), vec![]));
    assert_eq!(store.read_chunk(7, 0), Err(StorageError::NoSnapshot { index: 7 }));
    let info = write(&*store, 7, 40);
    assert_eq!((info.chunks, &info.meta), (40, &meta(7)));
    assert_eq!(info.bytes, (0..40).map(|number| chunk(7, number).len() as u64).sum::<u64>());
    check(&*store, &info);
    drop(store);
    let store = open(disk).snapshots;
    assert_eq!(store.latest(), Ok(Some(info.clone())));
    check(&*store, &info);
}

fn unfinished_resumes(disk: &dyn Disk) {
    let store = open(disk).snapshots;
    let reference = write(&*store, 5, 20);
    let mut writer = store.begin(meta(9)).expect("begin");
    for number in 0..20 {
        writer.write_chunk(number, &chunk(9, number)).expect("write chunk");
    }
    // A sync of anything makes everything durable.
    assert!(store.latest().expect("latest").is_some_and(|info| info == reference));
    assert_eq!(store.read_chunk(9, 0), Err(StorageError::NoSnapshot { index: 9 }));
    drop((writer, store));

    let store = open(disk).snapshots;
    assert_eq!(indexes(&*store), [5]);
    let mut writer = match store.resume(&meta(9)).expect("resume") {
        Some(writer) => writer,
        None => store.begin(meta(9)).expect("begin"),
    };
    let from = writer.next_chunk();
    assert!(from <= 20, "{from}");
    for number in from..25 {
        writer.write_chunk(number, &chunk(9, number)).expect("write chunk");
    }
    let info = writer.finish().expect("finish");
    assert_eq!(info.chunks, 25);
    drop(store);
    let store = open(disk).snapshots;
    assert_eq!(indexes(&*store), [5, 9]);
    check(&*store, &info);
    assert!(store.resume(&meta(9)).expect("resume").is_none(), "it is finished");
}

fn bad_chunks(disk: &dyn Disk) {
    let store = open(disk).snapshots;
    let mut writer = store.begin(meta(1)).expect("begin");
    let skipped = writer.write_chunk(1, b"x");
    assert_eq!(skipped, Err(StorageError::ChunkOutOfOrder { index: 1, expected: 0, got: 1 }));
    writer.write_chunk(0, &vec![0; MAX_CHUNK_BYTES]).expect("the longest");
    let again = writer.write_chunk(0, b"x");
    assert_eq!(again, Err(StorageError::ChunkOutOfOrder { index: 1, expected: 1, got: 0 }));
    let long = writer.write_chunk(1, &vec![0; MAX_CHUNK_BYTES + 1]).expect_err("too long");
    assert!(matches!(long, StorageError::Invalid { .. }), "{long}");
    assert_eq!(writer.finish().expect("finish").bytes, MAX_CHUNK_BYTES as u64);
}

fn begin_again(disk: &dyn Disk) {
    let store = open(disk).snapshots;
    let mut old = store.begin(meta(4)).expect("begin");
    for number in 0..20 {
        old.write_chunk(number, b"old").expect("write chunk");
    }
    let mut new = store.begin(meta(4)).expect("begin again");
    assert_eq!(new.next_chunk(), 0);
    assert!(matches!(old.write_chunk(20, b"old"), Err(StorageError::Invalid { .. })));
    assert!(matches!(old.finish(), Err(StorageError::Invalid { .. })));
    new.write_chunk(0, &chunk(4, 0)).expect("write chunk");
    let info = new.finish().expect("finish");
    assert_eq!(info.chunks, 1);
    check(&*store, &info);
}

fn resume_needs_same_meta(disk: &dyn Disk) {
    let store = open(disk).snapshots;
    let mut writer = store.begin(meta(4)).expect("begin");
    writer.write_chunk(0, &chunk(4, 0)).expect("write chunk");
    drop(writer);
    assert!(store.resume(&meta(3)).expect("resume").is_none());
    assert!(store.resume(&SnapshotMeta { term: 4, ..meta(4) }).expect("resume").is_none());
    let writer = store.resume(&meta(4)).expect("resume").expect("is there");
    assert_eq!(writer.next_chunk(), 1);
    check(&*store, &writer.finish().expect("finish"));
}

fn begin_finished(disk: &dyn Disk) {
    let store = open(disk).snapshots;
    let info = write(&*store, 4, 2);
    assert!(matches!(store.begin(meta(4)), Err(StorageError::Invalid { .. })));
    check(&*store, &info);
}

fn retain(disk: &dyn Disk) {
    let store = open(disk).snapshots;
    let infos: Vec<_> = [10, 20, 30].into_iter().map(|index| write(&*store, index, 20)).collect();
    drop(store.begin(meta(15)).expect("begin"));
    let mut busy = store.begin(meta(16)).expect("begin");
    busy.write_chunk(0, &chunk(16, 0)).expect("write chunk");
    drop(store.begin(meta(40)).expect("begin"));
    store.retain(2).expect("retain");
    assert_eq!(indexes(&*store), [20, 30]);
    assert_eq!(store.read_chunk(10, 0), Err(StorageError::NoSnapshot { index: 10 }));
    assert!(
        store.resume(&meta(15)).expect("resume").is_none(),
        "older than the newest, and nobody writes it"
    );
    assert!(store.resume(&meta(40)).expect("resume").is_some());
    busy.write_chunk(1, &chunk(16, 1)).expect("write chunk");
    check(&*store, &busy.finish().expect("finish"));
    store.retain(0).expect("retain");
    assert_eq!(indexes(&*store), [30], "one is always kept");
    check(&*store, &infos[2]);
}

fn empty_snapshot(disk: &dyn Disk) {
    let store = open(disk).snapshots;
    let info = write(&*store, 1, 0);
    drop(store);
    let store = open(disk).snapshots;
    assert_eq!(store.latest(), Ok(Some(info.clone())));
    check(&*store, &info);
}

fn digest(disk: &dyn Disk) {
    let store = open(disk).snapshots;
    let mut digests = Vec::new();
    for (index, chunks) in [(1, ["a", "b"]), (2, ["b", "a"]), (3, ["a", "b"]), (4, ["ab", ""])] {
        let mut writer = store.begin(meta(index)).expect("begin");
        for (number, bytes) in (0..).zip(chunks) {
            writer.write_chunk(number, bytes.as_bytes()).expect("write chunk");
        }
        digests.push(writer.finish().expect("finish").digest);
    }
    assert_eq!(digests[0], digests[2]);
    assert!(digests[0] != digests[1] && digests[0] != digests[3], "{digests:?}");
}
