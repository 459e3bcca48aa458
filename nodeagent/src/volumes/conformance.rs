//! What every driver of volumes does, the real one and the fake alike.

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};

use super::fake::FakeDriver;
use super::*;

const MIB: u64 = 1 << 20;

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

/// What a test does behind a driver's back: a guest's writes, and reads of them.
struct Bench<'a> {
    driver: &'a dyn VolumeDriver,
    write: &'a dyn Fn(Uuid, &[u8]),
    read: &'a dyn Fn(Uuid) -> Vec<u8>,
}

/// The suite.
fn check(Bench { driver, write, read }: &Bench<'_>) {
    let (a, b, c, snapshot) = (id(1), id(2), id(3), id(4));
    // What is not there.
    for volume in [a, b] {
        assert!(!driver.has_volume(volume).expect("asked"));
        assert!(matches!(driver.length(volume), Err(VolumeError::Missing { .. })));
        assert!(matches!(driver.expand_volume(volume, 9 * MIB), Err(VolumeError::Missing { .. })));
        assert!(matches!(driver.create_snapshot(volume, snapshot), Err(VolumeError::Missing { .. })));
        driver.delete_volume(volume).expect("gone is fine");
        driver.delete_snapshot(volume).expect("gone is fine");
    }
    let restore = || driver.create_volume(b, 16 * MIB, Content::Snapshot(snapshot));
    assert!(matches!(restore(), Err(VolumeError::Missing { .. })));
    assert!(!driver.has_volume(b).expect("asked"), "what failed leaves nothing");

    // It is made once, and then never touched.
    driver.create_volume(a, 16 * MIB, Content::Empty).expect("made");
    assert_eq!(driver.length(a).expect("there"), driver.disk_bytes(16 * MIB));
    write(a, b"first");
    driver.create_volume(a, 32 * MIB, Content::Empty).expect("there already");
    assert_eq!(read(a)[..5], *b"first");
    assert_eq!(driver.length(a).expect("there"), driver.disk_bytes(16 * MIB));

    // A snapshot is of its moment, also when it is asked for again.
    driver.create_snapshot(a, snapshot).expect("taken");
    write(a, b"later");
    driver.create_snapshot(a, snapshot).expect("taken already");
    restore().expect("restored");
    assert_eq!((&read(a)[..5], &read(b)[..5]), (&b"later"[..], &b"first"[..]));

    // It grows, and never shrinks; nothing else does.
    driver.expand_volume(b, 24 * MIB).expect("grown");
    driver.expand_volume(b, 17 * MIB).expect("not shrunk");
    assert_eq!(driver.length(b).expect("there"), driver.disk_bytes(24 * MIB));
    assert_eq!(driver.length(a).expect("there"), driver.disk_bytes(16 * MIB));
    assert_eq!(read(b)[..5], *b"first");

    // A clone has the size and the data of what it is of, and is its own.
    driver.create_volume(c, 16 * MIB, Content::Volume(b)).expect("cloned");
    write(b, b"other");
    assert_eq!(read(c)[..5], *b"first");
    assert_eq!(driver.length(c).expect("there"), driver.disk_bytes(24 * MIB));
    assert!(driver.written_bytes(c).expect("there") <= driver.length(c).expect("there"));

    // Neither end needs the other, in whatever order they go.
    driver.delete_volume(a).expect("deleted");
    driver.delete_volume(a).expect("deleted twice");
    driver.create_volume(a, 16 * MIB, Content::Snapshot(snapshot)).expect("restored once more");
    driver.delete_snapshot(snapshot).expect("deleted");
    driver.delete_volume(b).expect("deleted");
    assert_eq!((&read(a)[..5], &read(c)[..5]), (&b"first"[..], &b"first"[..]));
    assert_ne!(driver.publish(a).file, driver.publish(c).file);
}

#[test]
fn files_conform() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let driver = FileDriver::new(dir.path());
    let path = |volume: Uuid| driver.publish(volume).file;
    let write = |volume: Uuid, bytes: &[u8]| {
        let mut file = fs::OpenOptions::new().write(true).open(path(volume)).expect("there");
        file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(bytes)).expect("written");
    };
    let read = |volume: Uuid| fs::read(path(volume)).expect("read");
    check(&Bench { driver: &driver, write: &write, read: &read });
    let left = fs::read_dir(dir.path().join("volumes")).expect("listed").count();
    assert_eq!(left, 2, "two volumes, and nothing half made");
    driver.create_volume(id(9), 16 * MIB, Content::Empty).expect("made; mkfs.ext4 is there");
    assert_eq!(read(id(9))[0x438..0x43a], [0x53, 0xef], "the mark of ext4");
}

#[test]
fn the_fake_conforms() {
    let driver = FakeDriver::default();
    let write = |volume: Uuid, bytes: &[u8]| {
        driver.disks().volumes.get_mut(&volume).expect("there").data = bytes.to_vec();
    };
    let read = |volume: Uuid| driver.disks().volumes[&volume].data.clone();
    check(&Bench { driver: &driver, write: &write, read: &read });
}

#[tokio::test]
async fn tasks_say_what_came_of_them() {
    let volumes = Volumes(Arc::new(FakeDriver::default()));
    let order = |task, volume, source| VolumeOrder {
        id: bulkhead_types::ObjectId(7),
        task,
        volume: id(volume),
        source: id(source),
        size_bytes: 16 * MIB,
    };
    let failed = volumes.run(order(VolumeTask::Snapshot, 4, 1), None).await;
    assert!(!failed.done && failed.message.contains("is not on this node"), "{failed:?}");
    volumes.driver().create_volume(id(1), 8 * MIB, Content::Empty).expect("made");
    let grown = volumes.run(order(VolumeTask::Expand, 1, 0), None).await;
    assert!(!grown.done && grown.message.is_empty() && grown.size_bytes == 16 * MIB, "{grown:?}");
    for (task, volume, source) in
        [(VolumeTask::Snapshot, 4, 1), (VolumeTask::Restore, 2, 4), (VolumeTask::Clone, 3, 2)]
    {
        let done = volumes.run(order(task, volume, source), None).await;
        assert!(done.done && done.message.is_empty(), "{done:?}");
    }
    assert_eq!(volumes.driver().length(id(3)).expect("there"), 17 * MIB);
    volumes.delete(id(4)).expect("a snapshot goes by the same name");
    let gone = volumes.run(order(VolumeTask::Restore, 5, 4), None).await;
    assert!(!gone.done);
}
