//! What is written comes back the same, and what is damaged does not come back at all.

use std::sync::Arc;

use bulkhead_controlplane_core::replica::SnapshotPoint;
use bulkhead_controlplane_core::{Machine, State};
use bulkhead_controlplane_disk::{
    DiskError, EventHistory, Receiving, bootstrap, load, meta_of, read_snapshot, receive, save_snapshot,
};
use bulkhead_proto::ProtoCodec;
use bulkhead_storage::{Fault, FaultPlan, Identity, MemDisk, Operation, SnapshotMeta, Stores};
use bulkhead_types::{Command, MemberId, Name, Namespace, Object, ObjectMeta, Stamped};
use uuid::Uuid;

fn stores() -> Stores {
    let identity = Identity { cluster_id: [7; 16], member_id: 1, storage_uid: [9; 16] };
    MemDisk::new().open(Some(identity)).expect("opens")
}

fn state_with(names: usize) -> State {
    let mut machine = Machine::default();
    for n in 0..names {
        let name = Name::new(format!("ns-{n}")).expect("a name");
        let object = Object::Namespace(std::sync::Arc::new(Namespace { meta: ObjectMeta::new(None, name) }));
        machine.apply_stamped(&Stamped {
            request_id: Uuid::from_u128(n as u128 + 1),
            actor: "user:test".into(),
            proposed_at_ms: n as u64,
            trace_context: None,
            preconditions: Vec::new(),
            commands: vec![Command::Create(object)],
        });
    }
    machine.state().clone()
}

#[test]
fn a_bootstrapped_disk_loads_as_the_genesis_snapshot() {
    let mut stores = stores();
    bootstrap(&stores, &ProtoCodec, &[MemberId(1), MemberId(2)]).expect("writes");
    let loaded = load(&mut stores, &ProtoCodec).expect("loads");
    assert_eq!(loaded.log.snapshot_point().index, 1);
    assert_eq!(loaded.log.snapshot_point().conf_state.get_voters(), [1, 2]);
    assert_eq!(loaded.state.revision(), 0);
}

#[test]
fn a_large_state_survives_its_chunks() {
    let stores = stores();
    let state = state_with(5000);
    let point = SnapshotPoint { index: 42, term: 3, ..SnapshotPoint::default() };
    save_snapshot(&*stores.snapshots, &ProtoCodec, &point, &state).expect("saves");
    let info = stores.snapshots.latest().expect("lists").expect("one");
    assert!(info.chunks > 1, "{info:?}");
    let back = read_snapshot(&*stores.snapshots, &ProtoCodec, 42).expect("reads");
    assert_eq!(back.digest(), state.digest());
    assert_eq!(back.request_outcome(Uuid::from_u128(7)), state.request_outcome(Uuid::from_u128(7)));
}

/// A peer sent a snapshot, raft did not take it (its message came from an earlier term), and the next leader has one
/// at the same place: it must be taken then, not refused for being there.
#[test]
fn a_snapshot_that_is_there_is_received_and_saved_again() {
    let stores = stores();
    let state = state_with(3);
    let point = SnapshotPoint { index: 42, term: 3, ..SnapshotPoint::default() };
    save_snapshot(&*stores.snapshots, &ProtoCodec, &point, &state).expect("saves");
    let meta = meta_of(&point, &state);
    let again = receive(&*stores.snapshots, &meta).expect("is no error");
    assert!(matches!(again, Receiving::Present(info) if info.meta == meta));
    save_snapshot(&*stores.snapshots, &ProtoCodec, &point, &state).expect("has nothing to do");
    let other = receive(&*stores.snapshots, &SnapshotMeta { index: 43, ..meta }).expect("begins");
    assert!(matches!(other, Receiving::Writer(_)));
}

/// Power failed after a snapshot from a peer was durable, and before the events that it overtook were gone.
#[test]
fn events_go_on_after_a_snapshot_that_overtook_them() {
    let mut stores = stores();
    let record = |revision| bulkhead_storage::EventRecord {
        first_revision: revision,
        last_revision: revision,
        bytes: vec![1],
    };
    stores.events.append(&[record(1), record(2)]).expect("appends");
    let state = state_with(5);
    let point = SnapshotPoint { index: 42, term: 3, ..SnapshotPoint::default() };
    save_snapshot(&*stores.snapshots, &ProtoCodec, &point, &state).expect("saves");
    load(&mut stores, &ProtoCodec).expect("loads");
    let next = state.revision() + 1;
    stores.events.append(&[record(next)]).expect("there is no gap to be seen");
    assert_eq!(stores.events.bounds().expect("bounds"), Some((next, next)));
}

/// What the disk did not take is not lost, and no snapshot is made before it is there.
#[test]
fn a_snapshot_waits_for_the_events_that_it_covers() {
    let disk = MemDisk::new();
    let identity = Identity { cluster_id: [7; 16], member_id: 1, storage_uid: [9; 16] };
    let stores = disk.open(Some(identity)).expect("opens");
    let mut history =
        EventHistory::new(stores.events.clone(), stores.snapshots.clone(), Arc::new(ProtoCodec));
    let mut machine = Machine::default();
    let create = Command::InitCluster { cluster_id: Uuid::from_u128(1), members: Vec::new() };
    let applied = machine.apply_stamped(&Stamped {
        request_id: Uuid::from_u128(1),
        actor: "user:test".into(),
        proposed_at_ms: 5,
        trace_context: None,
        preconditions: Vec::new(),
        commands: vec![create],
    });
    let point = SnapshotPoint { index: 42, term: 3, ..SnapshotPoint::default() };
    disk.set_faults(FaultPlan::none().with(Operation::EventWrite, 0, 2, Fault::Io));
    assert!(history.append(&[applied.transaction]).is_err());
    assert!(history.save(&point, machine.state()).is_err());
    assert!(!history.is_complete() && stores.snapshots.latest().expect("lists").is_none());
    history.save(&point, machine.state()).expect("the disk works again");
    let revision = machine.state().revision();
    assert_eq!(stores.events.bounds().expect("bounds"), Some((1, revision)));
}

#[test]
fn a_missing_chunk_is_an_error() {
    let stores = stores();
    let state = state_with(5000);
    let point = SnapshotPoint { index: 42, term: 3, ..SnapshotPoint::default() };
    save_snapshot(&*stores.snapshots, &ProtoCodec, &point, &state).expect("saves");
    let info = stores.snapshots.latest().expect("lists").expect("one");
    let partial = (0..info.chunks - 1).map(|n| stores.snapshots.read_chunk(42, n).map_err(DiskError::from));
    let error = bulkhead_controlplane_disk::decode_chunks(42, &ProtoCodec, partial).expect_err("incomplete");
    assert!(matches!(error, DiskError::Snapshot { index: 42, .. }), "{error}");
}
