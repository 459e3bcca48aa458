//! Laws of ownership.

use super::{Disk, Law, OWNER, open};
use crate::{Identity, StorageError};

pub(super) const LAWS: &[Law] = &[
    ("an empty disk needs an identity", empty_needs_identity),
    ("an identity lasts, and its storage uid is the first one", identity_lasts),
    ("another cluster's disk is refused", foreign_cluster),
    ("another member's disk is refused", foreign_member),
    ("a disk in use is refused", locked),
];

fn empty_needs_identity(disk: &dyn Disk) {
    let error = disk.open(None).expect_err("nothing there");
    assert!(matches!(error, StorageError::NotInitialised { .. }), "{error}");
    assert_eq!(open(disk).identity, OWNER);
}

fn identity_lasts(disk: &dyn Disk) {
    drop(open(disk));
    let later = Identity { storage_uid: [9; 16], ..OWNER };
    assert_eq!(disk.open(Some(later)).expect("same member").identity, OWNER);
    assert_eq!(disk.open(None).expect("whoever it is").identity, OWNER);
}

fn refused(disk: &dyn Disk, other: Identity) -> StorageError {
    drop(open(disk));
    let error = disk.open(Some(other)).expect_err("not its owner");
    assert!(error.is_fatal() && error.to_string().contains("remedy"), "{error}");
    assert_eq!(open(disk).identity, OWNER);
    error
}

fn foreign_cluster(disk: &dyn Disk) {
    let error = refused(disk, Identity { cluster_id: [7; 16], ..OWNER });
    assert!(matches!(error, StorageError::ForeignCluster { .. }), "{error}");
}

fn foreign_member(disk: &dyn Disk) {
    let error = refused(disk, Identity { member_id: 7, ..OWNER });
    assert!(matches!(error, StorageError::ForeignMember { found: 2, expected: 7, .. }), "{error}");
}

fn locked(disk: &dyn Disk) {
    let stores = open(disk);
    // One part is enough to hold it.
    let events = stores.events;
    drop((stores.log, stores.snapshots));
    let error = disk.open(Some(OWNER));
    // A disk whose opening is a crash has ended the first process; its handles must be dead then.
    match error {
        Err(error) => assert!(matches!(error, StorageError::Locked { .. }), "{error}"),
        Ok(_) => assert_eq!(events.read(0, 1), Err(StorageError::Closed)),
    }
    drop(events);
    open(disk);
}
