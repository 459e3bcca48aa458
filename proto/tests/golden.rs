//! The bytes of every log record are what they were, and read back as what they were.
//!
//! `BULKHEAD_UPDATE_GOLDEN=1 cargo test -p bulkhead-proto --test golden` adds what is new. It never changes
//! a line that is there: data directories hold such bytes. Remove a line by hand where no release had it.

mod fixtures;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use bulkhead_proto::ProtoCodec;
use bulkhead_types::{CodecError, LogCodec, LogRecord};
use fixtures::Variants;
use sha2::{Digest, Sha256};

const UPDATE: &str = "BULKHEAD_UPDATE_GOLDEN";

fn golden(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file)
}

fn read_lines(path: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, rest) = line.split_once(' ').unwrap_or_else(|| panic!("{}: {line:?}", path.display()));
            (name.to_owned(), rest.to_owned())
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything");
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "an odd number of digits");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}

/// Fixtures get the name of their variant, numbered from the second on.
fn numbered<T>(fixtures: Vec<T>, variant: impl Fn(&T) -> &'static str) -> Vec<(String, T)> {
    let mut counts = BTreeMap::new();
    let name = |fixture: &T| {
        let name = variant(fixture);
        let count = counts.entry(name).or_insert(0u32);
        *count += 1;
        if *count == 1 { name.to_owned() } else { format!("{name}-{count}") }
    };
    let names: Vec<String> = fixtures.iter().map(name).collect();
    names.into_iter().zip(fixtures).collect()
}

/// Compares one family of records with its file, both ways.
fn check<T: PartialEq + std::fmt::Debug>(
    file: &str,
    fixtures: Vec<(String, T)>,
    wanted: &[&str],
    encode: impl Fn(&T) -> Vec<u8>,
    decode: impl Fn(&[u8]) -> Result<T, CodecError>,
) {
    let path = golden(file);
    let mut lines = read_lines(&path);
    if std::env::var_os(UPDATE).is_some() {
        for (name, record) in &fixtures {
            lines.entry(name.clone()).or_insert_with(|| hex(&encode(record)));
        }
        let text = lines.iter().fold(String::new(), |text, (name, bytes)| text + name + " " + bytes + "\n");
        std::fs::write(&path, text).expect("the golden file can be written");
    }
    for name in wanted {
        assert!(fixtures.iter().any(|(n, _)| n == name), "{file}: no fixture of {name}");
    }
    for (name, record) in &fixtures {
        let bytes = lines
            .remove(name)
            .unwrap_or_else(|| panic!("{file}: no line for {name}; run this test with {UPDATE}=1 to add it"));
        assert_eq!(hex(&encode(record)), bytes, "{file}: {name} is written as other bytes than before");
        assert_eq!(decode(&unhex(&bytes)).as_ref(), Ok(record), "{file}: {name} is read as something else");
    }
    let left: Vec<_> = lines.keys().collect();
    assert!(
        left.is_empty(),
        "{file}: lines without a fixture, so nothing checks that they are read: {left:?}"
    );
}

fn check_log<T: Variants>(file: &str, fixtures: Vec<T>, record: impl Fn(T) -> LogRecord) {
    let named = numbered(fixtures, T::variant);
    let records = named.into_iter().map(|(name, fixture)| (name, record(fixture))).collect();
    check(file, records, T::NAMES, |r| ProtoCodec.encode_log(r), |b| ProtoCodec.decode_log(b));
}

#[test]
fn commands() {
    check_log("commands.txt", fixtures::commands(), |c| LogRecord::Batch(vec![fixtures::stamped(c)]));
}

#[test]
fn batches() {
    let two = LogRecord::Batch(fixtures::commands().into_iter().take(2).map(fixtures::stamped).collect());
    let mut own = fixtures::stamped(fixtures::commands().remove(0));
    (own.request_id, own.trace_context) = (uuid::Uuid::nil(), None);
    own.preconditions.clear();
    let records = vec![
        ("Empty".to_owned(), LogRecord::Batch(vec![])),
        ("Two".to_owned(), two),
        ("Own".to_owned(), LogRecord::Batch(vec![own])),
    ];
    check("batches.txt", records, &[], |r| ProtoCodec.encode_log(r), |b| ProtoCodec.decode_log(b));
}

#[test]
fn membership() {
    let changes = numbered(fixtures::membership_changes(), |c| c.action.variant());
    let records = changes.into_iter().map(|(name, c)| (name, LogRecord::Membership(c))).collect();
    let wanted = bulkhead_types::MembershipAction::NAMES;
    check("membership.txt", records, wanted, |r| ProtoCodec.encode_log(r), |b| ProtoCodec.decode_log(b));
}

#[test]
fn transactions() {
    let mut records: Vec<_> = numbered(fixtures::events(), Variants::variant)
        .into_iter()
        .map(|(name, kind)| (name, fixtures::transaction(kind)))
        .collect();
    records.extend(numbered(fixtures::refused(), |_| "Refused"));
    check(
        "transactions.txt",
        records,
        bulkhead_types::EventKind::NAMES,
        |t| ProtoCodec.encode_transaction(t),
        |b| ProtoCodec.decode_transaction(b),
    );
}

#[test]
fn snapshots() {
    check(
        "snapshots.txt",
        numbered(fixtures::snapshot_records(), Variants::variant),
        bulkhead_types::SnapshotRecord::NAMES,
        |r| ProtoCodec.encode_snapshot_record(r),
        |b| ProtoCodec.decode_snapshot_record(b),
    );
}

#[test]
fn every_kind_of_object_is_in_a_golden() {
    let objects = [
        fixtures::objects(),
        fixtures::workload_objects(),
        fixtures::autoscaling_objects(),
        fixtures::delivery_objects(),
        fixtures::elastic_objects(),
        fixtures::vertical_objects(),
        fixtures::claim_objects(),
        fixtures::quota_objects(),
        fixtures::device_objects(),
        fixtures::sriov_objects(),
        fixtures::queue_objects(),
        fixtures::node_pool_objects(),
        fixtures::descheduler_objects(),
        fixtures::elastic_quota_objects(),
        fixtures::cpu_objects(),
        fixtures::snapshot_objects(),
        fixtures::page_objects(),
        fixtures::storage_objects(),
    ]
    .concat();
    for name in bulkhead_types::Object::NAMES {
        assert!(objects.iter().any(|o| o.variant() == *name), "no fixture of {name}");
    }
}

/// The guard over the `.proto` text.
#[test]
fn proto_files_change_only_with_their_hash() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/bulkhead/v1");
    let expected = read_lines(&golden("PROTO_HASHES"));
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("the folder of .proto files") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        found.insert(name, hex(&Sha256::digest(std::fs::read(&path).expect("a .proto file"))));
    }
    let lines = found.iter().fold(String::new(), |text, (name, hash)| text + name + " " + hash + "\n");
    assert_eq!(
        expected, found,
        "a .proto file changed. Is the change append-only (no number or name given a new meaning, no field \
         removed without `reserved`, golden bytes untouched)? Then make tests/golden/PROTO_HASHES:\n{lines}"
    );
}
