//! A server that starts with a long log hands out what it applies part by part.

use std::sync::Arc;

use bulkhead_controlplane_core::State;
use bulkhead_controlplane_core::replica::{LogView, SnapshotPoint};
use bulkhead_controlplane_core::server::Server;
use bulkhead_proto::ProtoCodec;
use bulkhead_types::{Command, LogCodec, LogRecord, MemberId, Name, Namespace, Object, ObjectMeta, Stamped};
use raft::eraftpb::{ConfState, Entry, HardState};
use uuid::Uuid;

use crate::world::{CLUSTER, config, logger};

/// Entries, each of so many submissions.
const ENTRIES: u64 = 400;
const PER_ENTRY: u64 = 16;

fn stamped(number: u64, command: Command) -> Stamped {
    Stamped {
        request_id: Uuid::from_u128(u128::from(number) + 1),
        actor: "user:test".into(),
        proposed_at_ms: 1000,
        trace_context: None,
        preconditions: Vec::new(),
        commands: vec![command],
    }
}

fn create(number: u64) -> Stamped {
    let meta = ObjectMeta::new(None, Name::new(format!("n{number}")).expect("a name"));
    stamped(number, Command::Create(Object::Namespace(Arc::new(Namespace { meta }))))
}

fn entry(index: u64, batch: Vec<Stamped>) -> Entry {
    let data = ProtoCodec.encode_log(&LogRecord::Batch(batch)).into();
    Entry { index, term: 1, data, ..Entry::default() }
}

#[test]
fn a_long_log_is_applied_and_handed_out_part_by_part() {
    let members = vec![(MemberId(1), "127.0.0.1:1".into())];
    let init = stamped(0, Command::InitCluster { cluster_id: CLUSTER, members });
    let batch = |n: u64| (n * PER_ENTRY..(n + 1) * PER_ENTRY).map(|number| create(number + 1)).collect();
    let entries = std::iter::once(entry(2, vec![init])).chain((0..ENTRIES).map(|n| entry(n + 3, batch(n))));
    let conf_state = ConfState { voters: vec![1], ..ConfState::default() };
    let genesis = SnapshotPoint { index: 1, term: 1, conf_state };
    let last = ENTRIES + 2;
    let hard_state = HardState { term: 1, commit: last, ..HardState::default() };
    let log = LogView::new(genesis, hard_state, entries.collect());
    let mut server =
        Server::new(config(1), Arc::new(ProtoCodec), State::default(), log, &logger()).expect("starts");
    let (mut parts, mut next) = (0, 2);
    loop {
        let output = server.take_output(2000);
        assert_eq!(output.fatal, None);
        for applied in &output.applied {
            assert_eq!(applied.index, next, "in order, each once");
            next += 1;
        }
        assert_eq!(server.applied_index(), next - 1, "nothing is applied that was not handed out");
        parts += 1;
        if !output.unfinished {
            break;
        }
    }
    assert_eq!(next - 1, last);
    assert!(parts > 1, "{parts} parts");
    assert_eq!(server.state().namespaces().len() as u64, ENTRIES * PER_ENTRY + 1);
}
