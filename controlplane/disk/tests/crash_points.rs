//! A server's disk stopped before each of its writes and syncs, from the founding of the cluster over a snapshot of
//! its own and a conflict to a snapshot from a peer: what it loads then is a State that was, with a log that leads on
//! from it, and nothing that was synced is missing.

use std::collections::BTreeMap;

use bulkhead_controlplane_core::replica::{SnapshotPoint, encode};
use bulkhead_controlplane_core::{Machine, State};
use bulkhead_controlplane_disk::{DiskError, Loaded, bootstrap, load, save_snapshot};
use bulkhead_proto::ProtoCodec;
use bulkhead_storage::{
    CrashChoice, EventRecord, Identity, LogBatch, LogEntry, MemDisk, StorageError, Stores,
};
use bulkhead_types::{Command, MemberId, Name, Namespace, Object, ObjectMeta, Stamped};
use raft::eraftpb::{ConfState, Entry, HardState};
use raft::{GetEntriesContext, Storage as _};
use uuid::Uuid;

const OWNER: Identity = Identity { cluster_id: [7; 16], member_id: 1, storage_uid: [9; 16] };
/// The last entry of the history.
const LAST: u64 = 24;

/// What the cluster agreed on: the State after each entry.
fn states() -> BTreeMap<u64, State> {
    let mut machine = Machine::default();
    let mut states = BTreeMap::from([(1, machine.state().clone())]);
    for index in 2..=LAST {
        let name = Name::new(format!("ns-{index}")).expect("a name");
        let object = Object::Namespace(std::sync::Arc::new(Namespace { meta: ObjectMeta::new(None, name) }));
        machine.apply_stamped(&Stamped {
            request_id: Uuid::from_u128(u128::from(index)),
            actor: "user:test".into(),
            proposed_at_ms: index,
            trace_context: None,
            preconditions: Vec::new(),
            commands: vec![Command::Create(object)],
        });
        states.insert(index, machine.state().clone());
    }
    states
}

fn entry(index: u64, term: u64) -> Entry {
    let mut entry = Entry::default();
    entry.set_index(index);
    entry.set_term(term);
    entry.set_data(format!("{index} of term {term}").into_bytes().into());
    entry
}

fn entries(from: u64, to: u64, term: u64) -> Vec<LogEntry> {
    (from..=to).map(|index| LogEntry { index, bytes: encode(&entry(index, term)) }).collect()
}

fn hard_state(term: u64, commit: u64) -> Option<Vec<u8>> {
    let mut state = HardState::default();
    state.set_term(term);
    state.set_commit(commit);
    Some(encode(&state))
}

fn point(index: u64, term: u64) -> SnapshotPoint {
    let mut conf_state = ConfState::default();
    conf_state.set_voters(vec![1, 2, 3]);
    SnapshotPoint { index, term, conf_state }
}

enum Step {
    Log(LogBatch),
    Sync,
    Events(u64),
    Snapshot(u64, u64),
    /// Events from before the State of this entry go: it came from a peer.
    Jump(u64),
}

fn script() -> Vec<Step> {
    let log = |batch| Step::Log(batch);
    let none = LogBatch::default;
    vec![
        log(LogBatch { hard_state: hard_state(1, 1), entries: entries(2, 5, 1), ..none() }),
        Step::Sync,
        Step::Events(5),
        Step::Snapshot(4, 1),
        log(LogBatch { compact_to: Some(3), ..none() }),
        Step::Sync,
        // Another leader: its entries replace those that were never committed.
        log(LogBatch { entries: entries(6, 8, 1), ..none() }),
        Step::Sync,
        log(LogBatch {
            truncate_from: Some(7),
            entries: entries(7, 9, 2),
            hard_state: hard_state(2, 6),
            ..none()
        }),
        Step::Sync,
        Step::Events(9),
        // A snapshot from a peer.
        Step::Snapshot(20, 3),
        log(LogBatch { reset_to: Some(20), hard_state: hard_state(3, 20), ..none() }),
        Step::Sync,
        Step::Jump(20),
        log(LogBatch { entries: entries(21, 22, 3), ..none() }),
        Step::Sync,
        Step::Events(22),
        Step::Snapshot(22, 3),
        log(LogBatch { compact_to: Some(22), entries: entries(23, LAST, 3), ..none() }),
        Step::Sync,
    ]
}

/// What was promised, and what was written.
#[derive(Clone, Default)]
struct Expected {
    /// The newest term of each entry that a sync covered, and those that are written.
    synced: BTreeMap<u64, u64>,
    written: BTreeMap<u64, u64>,
    /// Terms that an entry ever had on this disk.
    ever: BTreeMap<u64, Vec<u64>>,
    snapshot: u64,
    snapshot_begun: u64,
}

fn perform(
    stores: &mut Stores,
    states: &BTreeMap<u64, State>,
    step: &Step,
    expected: &mut Expected,
) -> Result<(), DiskError> {
    match step {
        Step::Log(batch) => {
            if let Some(from) = batch.truncate_from {
                // Not committed, so nobody was promised anything.
                expected.synced.retain(|index, _| *index < from);
                expected.written.retain(|index, _| *index < from);
            }
            for LogEntry { index, bytes } in &batch.entries {
                let term = raft_entry(bytes).get_term();
                expected.written.insert(*index, term);
                expected.ever.entry(*index).or_default().push(term);
            }
            stores.log.write(batch)?;
        }
        Step::Sync => {
            stores.log.sync()?;
            expected.synced = expected.written.clone();
        }
        Step::Events(to) => {
            let from = stores.events.bounds()?.map_or(1, |(_, newest)| newest + 1);
            let first = if from == 1 && expected.snapshot > 1 {
                states[&expected.snapshot].revision() + 1
            } else {
                from
            };
            let records: Vec<EventRecord> = (first..=states[to].revision())
                .map(|r| EventRecord { first_revision: r, last_revision: r, bytes: vec![1; 4] })
                .collect();
            stores.events.append(&records)?;
        }
        Step::Snapshot(index, term) => {
            expected.snapshot_begun = *index;
            stores.events.sync()?;
            save_snapshot(&*stores.snapshots, &ProtoCodec, &point(*index, *term), &states[index])?;
            expected.snapshot = *index;
        }
        Step::Jump(index) => stores.events.compact(states[index].revision() + 1)?,
    }
    Ok(())
}

fn raft_entry(bytes: &[u8]) -> Entry {
    bulkhead_controlplane_core::replica::decode_entry(bytes).expect("an entry")
}

/// Opens and loads, as a server does at its start.
fn boot(disk: &MemDisk) -> Result<(Stores, Loaded), DiskError> {
    let mut stores = disk.open(Some(OWNER))?;
    bootstrap(&stores, &ProtoCodec, &[MemberId(1), MemberId(2), MemberId(3)])?;
    let loaded = load(&mut stores, &ProtoCodec)?;
    Ok((stores, loaded))
}

fn check(stores: &Stores, loaded: &Loaded, states: &BTreeMap<u64, State>, expected: &Expected) {
    let at = loaded.log.snapshot_point().index;
    let allowed = [expected.snapshot.max(1), expected.snapshot_begun.max(1)];
    assert!(allowed.contains(&at), "a snapshot at {at}, not at one of {allowed:?}");
    assert_eq!(loaded.state.digest(), states[&at].digest(), "the State of entry {at}");
    let (first, last) = (loaded.log.first(), loaded.log.last());
    assert!(first <= at + 1, "the log begins at {first}, the snapshot ends at {at}");
    let present =
        loaded.log.entries(first, last + 1, None, GetEntriesContext::empty(false)).expect("they are there");
    for found in &present {
        let terms = expected.ever.get(&found.get_index()).cloned().unwrap_or_default();
        assert!(terms.contains(&found.get_term()), "never written: {found:?}");
        assert_eq!(*found, entry(found.get_index(), found.get_term()));
    }
    for (index, term) in expected.synced.range(at + 1..) {
        let found = present.iter().find(|e| e.get_index() == *index);
        assert!(found.is_some_and(|e| e.get_term() >= *term), "entry {index} of term {term} was synced");
    }
    if let Some((_, newest)) = stores.events.bounds().expect("bounds") {
        assert!(newest <= states[&at].revision(), "events end with the State that they lead to");
        stores.events.read(0, 1000).expect("without gaps");
    }
    // The log that is left leads on from the State: its first transaction must find its place.
    let next = states[&at].revision() + 1;
    let next = EventRecord { first_revision: next, last_revision: next, bytes: vec![1; 4] };
    stores
        .events
        .append(&[next])
        .unwrap_or_else(|error| panic!("history does not go on at entry {at}: {error}"));
}

fn crashes(disk: &MemDisk) -> Vec<CrashChoice> {
    let mut choices = vec![CrashChoice::LoseUnsynced, CrashChoice::KeepSome { batches: 0, positions: true }];
    for batches in 0..=disk.unsynced_batches() {
        choices.push(CrashChoice::KeepUnsynced { batches });
        choices
            .extend((0..disk.unsynced_bytes(batches)).map(|bytes| CrashChoice::TearLast { batches, bytes }));
    }
    choices
}

fn is_stopped(error: &DiskError) -> bool {
    matches!(error, DiskError::Storage(StorageError::Closed | StorageError::Poisoned { .. }))
}

#[test]
fn a_server_stopped_at_any_write_or_sync_starts_from_a_state_that_was() {
    let states = states();
    let (mut points, mut tried) = (0, 0);
    for steps in 0.. {
        let disk = MemDisk::new();
        // The directory's creation has a test of its own: its identity is a file that appears whole or not at all.
        drop(disk.open(Some(OWNER)).expect("created"));
        disk.stop_after(steps);
        let mut expected = Expected::default();
        let lived = boot(&disk).and_then(|(mut stores, _)| {
            script().iter().try_for_each(|step| perform(&mut stores, &states, step, &mut expected))
        });
        if let Err(error) = &lived {
            assert!(is_stopped(error), "stopped before step {steps}: {error}");
        }
        for choice in crashes(&disk) {
            let disk = disk.fork();
            disk.crash(choice);
            let recover = || {
                let (stores, loaded) = boot(&disk)?;
                check(&stores, &loaded, &states, &expected);
                Ok::<(), DiskError>(())
            };
            recover().unwrap_or_else(|error| panic!("stopped before step {steps}, {choice:?}: {error}"));
            // What the first start repaired is repaired.
            disk.crash(CrashChoice::LoseUnsynced);
            recover().unwrap_or_else(|error| panic!("again, before step {steps}, {choice:?}: {error}"));
            tried += 1;
        }
        points += 1;
        if lived.is_ok() {
            break;
        }
    }
    println!("{points} points, {tried} crashes");
    assert!(points > 50 && tried > 2000, "{points} points, {tried} crashes");
}
