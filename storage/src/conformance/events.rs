//! Laws of the history of events.

use super::{Disk, Law, open};
use crate::{EventRecord, StorageError};

pub(super) const LAWS: &[Law] = &[
    ("appended events are read in order, from any revision", read_in_order),
    ("synced events last", synced_lasts),
    ("appending the same again changes nothing", idempotent),
    ("other content, gaps and overlaps are refused", refused),
    ("compaction drops whole records only", compaction),
    ("a truncation lasts and the history goes on", truncation),
    ("an emptied history may start anywhere", emptied),
];

fn record(first_revision: u64, last_revision: u64) -> EventRecord {
    let bytes = format!("events {first_revision} to {last_revision}").into_bytes();
    EventRecord { first_revision, last_revision, bytes }
}

/// Records of growing width from revision 1 on: 1, 2..3, 4..6, 7..10, ...
fn records(count: u64) -> Vec<EventRecord> {
    let first = |nth: u64| nth * (nth + 1) / 2 + 1;
    (0..count).map(|nth| record(first(nth), first(nth + 1) - 1)).collect()
}

fn read_in_order(disk: &dyn Disk) {
    let events = open(disk).events;
    assert_eq!(events.bounds(), Ok(None));
    assert_eq!(events.read(0, 10), Ok(vec![]));
    let all = records(40);
    events.append(&all[..1]).expect("append");
    events.append(&all[1..]).expect("append");
    assert_eq!(events.read(0, 1000), Ok(all.clone()));
    assert_eq!(events.bounds(), Ok(Some((1, 820))));
    assert_eq!(events.read(5, 2), Ok(all[2..4].to_vec()));
    assert_eq!(events.read(6, 1), Ok(all[2..3].to_vec()));
    assert_eq!(events.read(7, 1), Ok(all[3..4].to_vec()));
    assert_eq!(events.read(821, 10), Ok(vec![]));
    assert_eq!(events.read(1, 0), Ok(vec![]));
}

fn synced_lasts(disk: &dyn Disk) {
    let events = open(disk).events;
    events.append(&records(10)).expect("append");
    events.sync().expect("sync");
    drop(events);
    let events = open(disk).events;
    assert_eq!(events.read(0, 1000), Ok(records(10)));
    events.append(&records(12)).expect("append");
    drop(events);
    // The unsynced ones may be gone; the rest is not, and the same may be appended again.
    let events = open(disk).events;
    let found = events.read(0, 1000).expect("read");
    assert!(found.len() >= 10 && found == records(12)[..found.len()], "{found:?}");
    events.append(&records(12)).expect("append");
    assert_eq!(events.read(0, 1000), Ok(records(12)));
    events.sync().expect("sync");
}

fn idempotent(disk: &dyn Disk) {
    let events = open(disk).events;
    events.append(&records(5)).expect("append");
    events.append(&records(5)).expect("append");
    events.append(&records(9)[3..]).expect("append");
    events.append(&[]).expect("append");
    assert_eq!(events.read(0, 1000), Ok(records(9)));
}

fn refused(disk: &dyn Disk) {
    let events = open(disk).events;
    events.append(&records(5)).expect("append");
    let mut other = records(5);
    other[4].bytes.push(0);
    assert_eq!(events.append(&other), Err(StorageError::Conflict { revision: 15 }));
    assert_eq!(events.append(&[record(1, 2)]), Err(StorageError::Conflict { revision: 2 }));
    for bad in [record(17, 18), record(15, 18), record(0, 0), record(20, 19)] {
        let error = events.append(std::slice::from_ref(&bad)).expect_err("refused");
        assert!(matches!(error, StorageError::Invalid { .. }), "{bad:?}: {error}");
    }
    // Of a refused append nothing is stored.
    events.append(&[record(16, 16), record(18, 18)]).expect_err("refused");
    assert_eq!(events.read(0, 1000), Ok(records(5)));
}

fn compaction(disk: &dyn Disk) {
    let events = open(disk).events;
    events.append(&records(40)).expect("append");
    events.sync().expect("sync");
    events.compact(5).expect("compact");
    // 4..6 reaches over 5 and stays.
    assert_eq!(events.bounds(), Ok(Some((4, 820))));
    assert_eq!(events.read(0, 1000), Ok(records(40)[2..].to_vec()));
    events.compact(7).expect("compact");
    assert_eq!(events.bounds(), Ok(Some((7, 820))));
    events.compact(0).expect("compact");
    events.sync().expect("sync");
    drop(events);
    let events = open(disk).events;
    assert_eq!(events.read(0, 1000), Ok(records(40)[3..].to_vec()));
    assert_eq!(events.append(&records(1)), Err(StorageError::Conflict { revision: 1 }));
}

fn truncation(disk: &dyn Disk) {
    let events = open(disk).events;
    events.append(&records(10)).expect("append");
    events.sync().expect("sync");
    events.truncate_after(10).expect("truncate");
    assert_eq!(events.bounds(), Ok(Some((1, 10))));
    drop(events);
    let events = open(disk).events;
    assert_eq!(events.read(0, 1000), Ok(records(4)));
    events.append(&[record(11, 12)]).expect("append other history");
    events.truncate_after(u64::MAX).expect("nothing above");
    // 11..12 ends above 11 and goes whole.
    events.truncate_after(11).expect("truncate");
    assert_eq!(events.bounds(), Ok(Some((1, 10))));
}

fn emptied(disk: &dyn Disk) {
    let events = open(disk).events;
    events.append(&records(4)).expect("append");
    events.sync().expect("sync");
    events.compact(1000).expect("compact");
    assert_eq!(events.bounds(), Ok(None));
    events.append(&[record(1000, 1003)]).expect("append");
    events.sync().expect("sync");
    drop(events);
    let events = open(disk).events;
    assert_eq!(events.bounds(), Ok(Some((1000, 1003))));
    events.truncate_after(0).expect("truncate");
    drop(events);
    let events = open(disk).events;
    assert_eq!(events.bounds(), Ok(None));
    events.append(&[record(5, 5)]).expect("append");
    assert_eq!(events.read(0, 10), Ok(vec![record(5, 5)]));
}
