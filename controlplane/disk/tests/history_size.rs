//! How far the estimated size of the history is from the real one, and what is dropped by it.

use std::sync::Arc;

use bulkhead_controlplane_disk::EventHistory;
use bulkhead_proto::ProtoCodec;
use bulkhead_storage::{EventRecord, Identity, MemDisk, Stores};

/// Records of each history.
const RECORDS: u64 = 6_000;

/// Draws of which the same seed gives the same (an LCG: Knuth, The Art of Computer Programming, volume 2, 3.3.4).
struct Draws(u64);

impl Draws {
    /// Below `bound`.
    fn next(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Revisions and bytes of the record of this number.
type Shape = fn(u64, &mut Draws) -> (u64, usize);

fn stores(shape: Shape, seed: u64) -> Stores {
    let identity = Identity { cluster_id: [7; 16], member_id: 1, storage_uid: [9; 16] };
    let stores = MemDisk::new().open(Some(identity)).expect("opens");
    let (mut draws, mut revision, mut records) = (Draws(seed), 0, Vec::new());
    for number in 0..RECORDS {
        let (revisions, bytes) = shape(number, &mut draws);
        let (first_revision, last_revision) = (revision + 1, revision + revisions);
        records.push(EventRecord { first_revision, last_revision, bytes: vec![0; bytes] });
        revision = last_revision;
    }
    stores.events.append(&records).expect("kept");
    stores
}

fn history(stores: &Stores) -> EventHistory {
    EventHistory::new(stores.events.clone(), stores.snapshots.clone(), Arc::new(ProtoCodec))
}

fn real_bytes(stores: &Stores) -> u64 {
    let records = stores.events.read(0, RECORDS as usize).expect("read");
    records.iter().map(|record| record.bytes.len() as u64).sum()
}

/// Bindings and status changes, some hundred bytes each.
const EVEN: Shape = |_, draws| (1, 200 + draws.next(400) as usize);
/// One in twenty is a batch of many revisions, with few bytes for each of them.
const BATCHES: Shape = |_, draws| match draws.next(20) {
    0 => (1000, 60_000),
    _ => (1, 300),
};
/// One in fifty is an object of 16 KiB.
const LARGE_OBJECTS: Shape = |_, draws| (1, if draws.next(50) == 0 { 16 << 10 } else { 300 });
/// The first half is large, the second one small.
const SHRANK: Shape = |number, _| (1, if number < RECORDS / 2 { 4000 } else { 200 });

#[test]
fn the_estimate_is_within_its_bound() {
    let check = |shape: Shape, percent_max: u64| {
        let error_percent = |seed| {
            let stores = stores(shape, seed);
            let (real, estimate) = (real_bytes(&stores), history(&stores).estimate_bytes().expect("read"));
            real.abs_diff(estimate) * 100 / real
        };
        let errors: Vec<u64> = (1..=4).map(error_percent).collect();
        assert!(errors.iter().all(|percent| *percent <= percent_max), "{errors:?} %, not {percent_max} %");
    };
    check(EVEN, 5);
    check(BATCHES, 5);
    check(LARGE_OBJECTS, 40);
    check(SHRANK, 5);
}

#[test]
fn the_oldest_events_are_dropped_until_about_the_wanted_size_is_left() {
    let check = |shape: Shape, max_percent: u64, percent_off: u64| {
        let stores = stores(shape, 1);
        let (before, newest) = (real_bytes(&stores), stores.events.bounds().expect("read").expect("some").1);
        let wanted = before * max_percent / 100;
        history(&stores).shrink(wanted).expect("done");
        let after = real_bytes(&stores);
        let expected = wanted.min(before);
        assert!(
            after.abs_diff(expected) * 100 / expected.max(1) <= percent_off,
            "{after} bytes of {before} are left, {expected} were wanted"
        );
        assert_eq!(stores.events.bounds().expect("read").expect("some").1, newest);
    };
    check(EVEN, 50, 5);
    check(EVEN, 200, 0);
    check(BATCHES, 50, 10);
    check(LARGE_OBJECTS, 50, 40);
    // A share of the revisions would leave a tenth of what is wanted.
    check(SHRANK, 40, 5);
}

#[test]
fn the_newest_record_stays_whatever_the_size() {
    let stores = stores(EVEN, 1);
    history(&stores).shrink(0).expect("done");
    assert_eq!(stores.events.bounds().expect("read"), Some((RECORDS, RECORDS)));
}
