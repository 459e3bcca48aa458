//! What every driver of volumes does, the real ones and the fakes alike. The hardware lab runs it with the real lvm2.

use std::fs;
use std::io::{Read as _, Write as _};

#[cfg(test)]
use super::fake::FakeDriver;
use super::*;

const MIB: u64 = 1 << 20;

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

/// The suite with the real lvm2 and more, for the hardware lab: ends the process when it is not as it should be. A volume is left.
#[cfg(debug_assertions)]
pub(crate) fn check_thin_pool(data: &Path, pool: &ThinPoolName) -> driver::Published {
    lvm::check(data, pool)
}

/// What a test does behind a driver's back: a guest's writes, and reads of them.
pub(super) struct Bench<'a> {
    pub(super) driver: &'a dyn VolumeDriver,
    pub(super) write: &'a dyn Fn(Uuid, &[u8]),
    pub(super) read: &'a dyn Fn(Uuid) -> Vec<u8>,
}

/// The suite with volumes that are published as files or devices.
pub(super) fn check_published(driver: &dyn VolumeDriver) {
    let path = |volume: Uuid| driver.publish(volume).file;
    let write = |volume: Uuid, bytes: &[u8]| {
        let mut file = fs::OpenOptions::new().write(true).open(path(volume)).expect("there");
        // As QEMU has flushed when it stands still.
        file.write_all(bytes).and_then(|()| file.sync_all()).expect("written");
    };
    let read = |volume: Uuid| {
        let mut bytes = vec![0; 4096];
        fs::File::open(path(volume)).and_then(|mut file| file.read_exact(&mut bytes)).expect("read");
        bytes
    };
    check(&Bench { driver, write: &write, read: &read });
    driver.create_volume(id(9), 16 * MIB, Content::Empty).expect("made; mkfs.ext4 is there");
    assert_eq!(read(id(9))[0x438..0x43a], [0x53, 0xef], "the mark of ext4");
}

/// The suite.
pub(super) fn check(Bench { driver, write, read }: &Bench<'_>) {
    let (a, b, c, snapshot) = (id(1), id(2), id(3), id(4));
    // What is not there.
    for volume in [a, b] {
        assert!(!driver.has_volume(volume).expect("asked"));
        assert!(!driver.keeps_volume(volume).expect("asked"));
        assert!(!driver.keeps_snapshot(volume).expect("asked"));
        assert!(matches!(driver.length(volume), Err(VolumeError::Missing { .. })));
        assert!(matches!(driver.stage_volume(volume, true), Err(VolumeError::Missing { .. })));
        assert!(matches!(driver.expand_volume(volume, 9 * MIB), Err(VolumeError::Missing { .. })));
        assert!(matches!(driver.create_snapshot(volume, snapshot), Err(VolumeError::Missing { .. })));
        driver.delete_volume(volume).expect("gone is fine");
        driver.delete_snapshot(volume).expect("gone is fine");
    }
    let restore = || driver.create_volume(b, 16 * MIB, Content::Snapshot(snapshot));
    assert!(matches!(restore(), Err(VolumeError::Missing { .. })));
    let copied = driver.create_volume(b, 16 * MIB, Content::Volume(a));
    assert!(matches!(copied, Err(VolumeError::Missing { .. })));
    assert!(!driver.has_volume(b).expect("asked"), "what failed leaves nothing");
    assert!(!driver.keeps_volume(b).expect("asked"), "what failed leaves nothing");

    // It is made once, and then never touched.
    driver.create_volume(a, 16 * MIB, Content::Empty).expect("made");
    assert_eq!(driver.length(a).expect("there"), driver.disk_bytes(16 * MIB));
    assert!(driver.has_volume(a).expect("asked") && driver.keeps_volume(a).expect("asked"));
    driver.stage_volume(a, true).expect("nobody has it");
    write(a, b"first");
    driver.create_volume(a, 32 * MIB, Content::Empty).expect("there already");
    assert_eq!(read(a)[..5], *b"first");
    assert_eq!(driver.length(a).expect("there"), driver.disk_bytes(16 * MIB));

    // A snapshot is of its moment, also when it is asked for again.
    driver.create_snapshot(a, snapshot).expect("taken");
    assert!(driver.keeps_snapshot(snapshot).expect("asked"));
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

#[cfg(test)]
#[test]
fn files_conform() {
    let dir = tempfile::tempdir().expect("temporary directory");
    check_published(&FileDriver::new(dir.path()));
    let left = fs::read_dir(dir.path().join("volumes")).expect("listed").count();
    assert_eq!(left, 3, "three volumes, and nothing half made");
}

#[cfg(test)]
#[test]
fn the_fake_conforms() {
    let driver = FakeDriver::default();
    let write = |volume: Uuid, bytes: &[u8]| {
        driver.disks().volumes.get_mut(&volume).expect("there").data = bytes.to_vec();
    };
    let read = |volume: Uuid| driver.disks().volumes[&volume].data.clone();
    check(&Bench { driver: &driver, write: &write, read: &read });
}

#[cfg(test)]
#[tokio::test]
async fn tasks_say_what_came_of_them() {
    let volumes = Volumes::only(Arc::new(FakeDriver::default()));
    let order = |task, volume, source| VolumeOrder {
        id: bulkhead_types::ObjectId(7),
        task,
        volume: id(volume),
        source: id(source),
        size_bytes: 16 * MIB,
    };
    let failed = volumes.run(order(VolumeTask::Snapshot, 4, 1), None).await;
    assert!(!failed.done && failed.message.contains("is not on this node"), "{failed:?}");
    volumes.of(id(1)).expect("known").create_volume(id(1), 8 * MIB, Content::Empty).expect("made");
    let grown = volumes.run(order(VolumeTask::Expand, 1, 0), None).await;
    assert!(!grown.done && grown.message.is_empty() && grown.size_bytes == 16 * MIB, "{grown:?}");
    for (task, volume, source) in
        [(VolumeTask::Snapshot, 4, 1), (VolumeTask::Restore, 2, 4), (VolumeTask::Clone, 3, 2)]
    {
        let done = volumes.run(order(task, volume, source), None).await;
        assert!(done.done && done.message.is_empty(), "{done:?}");
    }
    assert_eq!(volumes.of(id(3)).expect("known").length(id(3)).expect("there"), 17 * MIB);
    volumes.delete(id(4)).expect("a snapshot goes by the same name");
    let gone = volumes.run(order(VolumeTask::Restore, 5, 4), None).await;
    assert!(!gone.done);
}
