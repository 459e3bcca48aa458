//! Backups: what is written is read back, and whatever is done to the file is noticed and named.

use std::sync::Arc;

use bulkhead_controlplane_core::{Machine, State};
use bulkhead_controlplane_disk::{BackupError, BackupHeader, read_backup, read_backup_header, write_backup};
use bulkhead_proto::ProtoCodec;
use bulkhead_types::{
    Command, DIGEST_VERSION, LogRecord, MemberId, Name, Namespace, Object, ObjectMeta, Stamped,
};
use uuid::Uuid;

fn stamped(request: u128, command: Command) -> Stamped {
    Stamped {
        request_id: Uuid::from_u128(request),
        actor: "user:test".into(),
        proposed_at_ms: 1_700_000_000_000,
        trace_context: None,
        preconditions: Vec::new(),
        commands: vec![command],
    }
}

/// A State with a cluster and some namespaces, large enough for several chunks when they are many.
fn state(namespaces: u32) -> State {
    let mut machine = Machine::new(State::default());
    let members = vec![(MemberId(1), "127.0.0.1:1".into())];
    let init = Command::InitCluster { cluster_id: Uuid::from_u128(7), members };
    let create = |n: u32| {
        let mut meta = ObjectMeta::new(None, Name::new(format!("n{n}")).expect("a name"));
        meta.annotations.insert("note".into(), "x".repeat(1000).into());
        Command::Create(Object::Namespace(Arc::new(Namespace { meta })))
    };
    let commands = std::iter::once(init).chain((0..namespaces).map(create));
    let batch = commands.zip(1..).map(|(command, n)| stamped(n, command)).collect();
    let applied = machine.apply(&LogRecord::Batch(batch));
    assert!(applied.iter().all(|a| a.transaction.outcome.is_ok()), "{applied:?}");
    machine.state().clone()
}

fn header(state: &State) -> BackupHeader {
    BackupHeader::of(state, 12, 3, MemberId(2), 1_700_000_000_001).expect("it has a cluster")
}

fn file(state: &State) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_backup(state, &header(state), &ProtoCodec, &mut bytes).expect("memory takes everything");
    bytes
}

fn read(bytes: &[u8]) -> Result<bulkhead_controlplane_disk::Backup, BackupError> {
    read_backup(&mut &bytes[..], &ProtoCodec)
}

#[test]
fn a_backup_is_read_back_whole() {
    for namespaces in [0, 1, 900] {
        let state = state(namespaces);
        let bytes = file(&state);
        let backup = read(&bytes).expect("whole");
        assert_eq!(backup.header, header(&state));
        assert_eq!(backup.state.digest(), state.digest());
        assert_eq!(backup.bytes, bytes.len() as u64);
        assert_eq!(backup.header.digest_version, DIGEST_VERSION);
        assert_eq!(read_backup_header(&mut &bytes[..]).expect("a header"), backup.header);
    }
    assert!(file(&state(900)).len() > 512 << 10, "several chunks");
}

#[test]
fn every_flipped_byte_is_noticed_and_every_cut_is() {
    let bytes = file(&state(2));
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 1 << (at % 8);
        let error = read(&bad).expect_err("damaged");
        let named = matches!(
            error,
            BackupError::NoBackup
                | BackupError::Damaged { .. }
                | BackupError::NewerFormat { .. }
                | BackupError::Truncated { .. }
        );
        assert!(named, "{at}: {error}");
        let error = read(&bytes[..at]).expect_err("cut");
        assert!(matches!(error, BackupError::Truncated { .. } | BackupError::NoBackup), "{at}: {error}");
    }
    let mut longer = bytes;
    longer.push(0);
    assert!(matches!(read(&longer), Err(BackupError::Damaged { .. })));
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let check = |bytes: &[u8], words: &[&str]| {
        let text = read(bytes).expect_err("bad").to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{words:?} are not in: {text}");
    };
    let bytes = file(&state(900));
    check(b"", &["no backup"]);
    check(b"something else entirely", &["no backup"]);
    check(b"short", &["no backup"]);
    let mut newer = bytes.clone();
    newer[16] = 9;
    check(&newer, &["format 9", "reads up to 1"]);
    let mut damaged = bytes.clone();
    damaged[400 << 10] ^= 1;
    check(&damaged, &["damaged at byte 262", "chunk 1", "checksum"]);
    check(&bytes[..400 << 10], &["truncated", "ends at byte 409600", "chunk 1"]);
    // A whole chunk that is left out: every other checksum is right.
    let chunk = |n: usize| 16 + 4 + BackupBytes::HEADER + 4 + n * (8 + (256 << 10));
    let cut = [&bytes[..chunk(0)], &bytes[chunk(1)..]].concat();
    check(&cut, &["damaged at byte", "chunk 0"]);
}

struct BackupBytes;

impl BackupBytes {
    /// Length of a header in a file of format 1.
    const HEADER: usize = 88;
}
