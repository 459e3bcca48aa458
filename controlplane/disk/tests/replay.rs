//! The stored history gone through again gives what happened the first time.

use std::sync::Arc;

use bulkhead_controlplane_core::replica::SnapshotPoint;
use bulkhead_controlplane_core::{Applied, Machine, State};
use bulkhead_controlplane_disk::{Replay, save_snapshot};
use bulkhead_proto::ProtoCodec;
use bulkhead_storage::{EventRecord, Identity, MemDisk, Stores};
use bulkhead_types::{Command, LogCodec, LogRecord, MemberId, Name, Namespace, Object, ObjectMeta, Stamped};
use raft::eraftpb::ConfState;
use uuid::Uuid;

fn submit(machine: &mut Machine, request: u128, commands: Vec<Command>) -> Applied {
    let stamped = Stamped {
        request_id: Uuid::from_u128(request),
        actor: "user:test".into(),
        proposed_at_ms: 1_700_000_000_000,
        trace_context: None,
        preconditions: Vec::new(),
        commands,
    };
    let applied = machine.apply(&LogRecord::Batch(vec![stamped])).remove(0);
    assert!(applied.transaction.outcome.is_ok(), "{applied:?}");
    applied
}

fn create(name: String) -> Command {
    let meta = ObjectMeta::new(None, Name::new(&name).expect("a name"));
    Command::Create(Object::Namespace(Arc::new(Namespace { meta })))
}

/// Twenty transactions, of one and of three events, as the disk keeps them; snapshots where they are asked for.
fn history(snapshots_at: &[usize]) -> (Stores, Vec<Applied>, Vec<State>) {
    let identity = Identity { cluster_id: [1; 16], member_id: 1, storage_uid: [2; 16] };
    let stores = MemDisk::new().open(Some(identity)).expect("opens");
    let mut machine = Machine::new(State::default());
    let members = vec![(MemberId(1), "a:1".into())];
    let init = Command::InitCluster { cluster_id: Uuid::from_u128(7), members };
    let (mut all, mut states) = (Vec::new(), vec![machine.state().clone()]);
    for n in 0..20u32 {
        let commands = match n {
            0 => vec![init.clone()],
            n if n % 4 == 0 => (0..3).map(|m| create(format!("n{n}-{m}"))).collect(),
            n => vec![create(format!("n{n}"))],
        };
        let applied = submit(&mut machine, u128::from(n) + 1, commands);
        let events = &applied.transaction.events;
        let record = EventRecord {
            first_revision: events[0].revision,
            last_revision: events[events.len() - 1].revision,
            bytes: ProtoCodec.encode_transaction(&applied.transaction),
        };
        stores.events.append(&[record]).expect("appended");
        all.push(applied);
        states.push(machine.state().clone());
        if snapshots_at.contains(&all.len()) {
            let point =
                SnapshotPoint { index: all.len() as u64 + 1, term: 1, conf_state: ConfState::default() };
            save_snapshot(&*stores.snapshots, &ProtoCodec, &point, machine.state()).expect("saved");
        }
    }
    stores.events.sync().expect("synced");
    (stores, all, states)
}

fn begin(stores: &Stores, after: u64) -> Option<Replay> {
    let codec: Arc<dyn LogCodec> = Arc::new(ProtoCodec);
    Replay::begin(stores.events.clone(), &*stores.snapshots, codec, after, 1_000_000).expect("readable")
}

fn oldest(stores: &Stores) -> Option<u64> {
    Replay::oldest(&*stores.events, &*stores.snapshots).expect("readable")
}

fn rest(mut replay: Replay) -> (Vec<Applied>, State) {
    let mut found = Vec::new();
    loop {
        let step = replay.advance().expect("readable");
        if step.is_empty() {
            return (found, replay.state().clone());
        }
        found.extend(step);
    }
}

#[test]
fn a_replay_from_anywhere_hands_out_what_happened_after_it() {
    for snapshots_at in [&[][..], &[5, 9]] {
        let (stores, all, states) = history(snapshots_at);
        assert_eq!(oldest(&stores), Some(0));
        for from in 0..all.len() {
            let after = states[from].revision();
            let (found, end) = rest(begin(&stores, after).expect("kept"));
            assert_eq!(found, all[from..], "after {after}");
            assert_eq!(end.digest(), states[all.len()].digest());
        }
        // In the middle of a transaction: all of it comes, and the watch leaves out what it has.
        let bundle = states[5].revision() - 1;
        let (found, _) = rest(begin(&stores, bundle).expect("kept"));
        assert_eq!(found, all[4..]);
    }
}

#[test]
fn what_was_compacted_needs_a_snapshot_that_leads_on() {
    let (stores, all, states) = history(&[5, 9]);
    let (early, late) = (states[5].revision(), states[9].revision());
    stores.events.compact(late).expect("compacted");
    assert_eq!(oldest(&stores), Some(late));
    assert!(begin(&stores, early).is_none());
    assert!(begin(&stores, late - 1).is_none());
    let (found, _) = rest(begin(&stores, late + 1).expect("kept"));
    assert_eq!(found, all[10..]);
    assert!(begin(&stores, states[20].revision() + 1).is_none(), "the future");
    stores.events.compact(states[20].revision() + 1).expect("compacted");
    assert!(begin(&stores, late).is_none(), "nothing is left");
}
