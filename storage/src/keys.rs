//! Every key byte, tree name and file name of the on-disk format, in one place.
//!
//! A change here that old binaries cannot read must raise [`FORMAT`].
//!
//! ```text
//! tree        key                               value
//! meta        "identity"                        identity text
//! log         seq: u64 BE                       one LogBatch (log_record.rs)
//! events      last_revision: u64 BE             first_revision, bytes
//! snapshots   'm' index: u64 BE                 finished snapshot: meta, chunks, bytes, digest
//!             'p' index: u64 BE                 snapshot being written: meta
//!             'c' index: u64 BE chunk: u32 BE   bytes of one chunk
//! ```
//!
//! Numbers in keys are big endian, so that the order of keys is the order of numbers.

/// Version of the on-disk format that this binary writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// File in the data directory that names its owner; its presence means that creation was completed.
pub const IDENTITY_FILE: &str = "identity";
/// File in the data directory that is locked while a process uses it.
pub const LOCK_FILE: &str = "lock";
/// File in the data directory with the acknowledged positions (see `acknowledged.rs`).
pub const ACKNOWLEDGED_FILE: &str = "acknowledged";
/// Directory of the sled database inside the data directory.
pub const DATABASE_DIR: &str = "db";
/// Key of the identity in [`Tree::Meta`].
pub const IDENTITY_KEY: &[u8] = b"identity";

const SNAPSHOT_META: u8 = b'm';
const SNAPSHOT_PENDING: u8 = b'p';
const SNAPSHOT_CHUNK: u8 = b'c';

/// The trees (key spaces) of a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tree {
    /// Identity of the directory.
    Meta,
    /// Raft log and hard state.
    Log,
    /// Events by revision.
    Events,
    /// Snapshots in chunks.
    Snapshots,
}

impl Tree {
    /// All trees in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Meta, Self::Log, Self::Events, Self::Snapshots];

    /// Name on disk and in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Log => "log",
            Self::Events => "events",
            Self::Snapshots => "snapshots",
        }
    }

    /// Number that enters the checksum of each record, so that a record cannot pass in another tree.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Meta => 1,
            Self::Log => 2,
            Self::Events => 3,
            Self::Snapshots => 4,
        }
    }
}

/// Key of a log record.
#[must_use]
pub fn log(seq: u64) -> Vec<u8> {
    seq.to_be_bytes().to_vec()
}

/// Key of an event record.
#[must_use]
pub fn event(last_revision: u64) -> Vec<u8> {
    last_revision.to_be_bytes().to_vec()
}

/// Number in a key of the log or of the events; `None` when the key has another shape.
#[must_use]
pub fn number(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.try_into().ok()?))
}

/// Key of a finished snapshot.
#[must_use]
pub fn snapshot_meta(index: u64) -> Vec<u8> {
    snapshot(SNAPSHOT_META, index)
}

/// Key of a snapshot that is being written.
#[must_use]
pub fn snapshot_pending(index: u64) -> Vec<u8> {
    snapshot(SNAPSHOT_PENDING, index)
}

/// Key of one chunk.
#[must_use]
pub fn snapshot_chunk(index: u64, chunk: u32) -> Vec<u8> {
    let mut key = snapshot(SNAPSHOT_CHUNK, index);
    key.extend_from_slice(&chunk.to_be_bytes());
    key
}

fn snapshot(kind: u8, index: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(13);
    key.push(kind);
    key.extend_from_slice(&index.to_be_bytes());
    key
}

/// Half-open ranges of keys.
pub mod range {
    use super::{SNAPSHOT_CHUNK, SNAPSHOT_META, SNAPSHOT_PENDING};

    /// Everything in a tree whose keys are numbers.
    #[must_use]
    pub fn all() -> (Vec<u8>, Option<Vec<u8>>) {
        (Vec::new(), None)
    }

    /// Keys of numbers `from..`.
    #[must_use]
    pub fn from(from: u64) -> (Vec<u8>, Option<Vec<u8>>) {
        (from.to_be_bytes().to_vec(), None)
    }

    /// Keys of numbers `0..before`.
    #[must_use]
    pub fn before(before: u64) -> (Vec<u8>, Option<Vec<u8>>) {
        (Vec::new(), Some(before.to_be_bytes().to_vec()))
    }

    /// All finished snapshots.
    #[must_use]
    pub fn snapshot_metas() -> (Vec<u8>, Option<Vec<u8>>) {
        (vec![SNAPSHOT_META], Some(vec![SNAPSHOT_META + 1]))
    }

    /// All snapshots that are being written.
    #[must_use]
    pub fn snapshot_pendings() -> (Vec<u8>, Option<Vec<u8>>) {
        (vec![SNAPSHOT_PENDING], Some(vec![SNAPSHOT_PENDING + 1]))
    }

    /// Chunks of one snapshot from a chunk on.
    #[must_use]
    pub fn snapshot_chunks(index: u64, from_chunk: u32) -> (Vec<u8>, Option<Vec<u8>>) {
        // One byte longer than the last chunk's key sorts right after it, also for the largest index.
        let mut end = super::snapshot_chunk(index, u32::MAX);
        end.push(0);
        (super::snapshot_chunk(index, from_chunk), Some(end))
    }

    /// Chunks of all snapshots from an index on.
    #[must_use]
    pub fn chunks_from(index: u64) -> (Vec<u8>, Option<Vec<u8>>) {
        (super::snapshot(SNAPSHOT_CHUNK, index), Some(vec![SNAPSHOT_CHUNK + 1]))
    }
}

/// What a key in [`Tree::Snapshots`] names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotKey {
    /// A finished snapshot.
    Meta(u64),
    /// A snapshot that is being written.
    Pending(u64),
    /// A chunk: snapshot index, chunk number.
    Chunk(u64, u32),
}

impl SnapshotKey {
    /// Reads a key; `None` when it has no known shape.
    #[must_use]
    pub fn parse(key: &[u8]) -> Option<Self> {
        let (kind, rest) = key.split_first()?;
        let (index, rest) = rest.split_at_checked(8)?;
        let index = number(index)?;
        match (*kind, rest.len()) {
            (SNAPSHOT_META, 0) => Some(Self::Meta(index)),
            (SNAPSHOT_PENDING, 0) => Some(Self::Pending(index)),
            (SNAPSHOT_CHUNK, 4) => Some(Self::Chunk(index, u32::from_be_bytes(rest.try_into().ok()?))),
            _ => None,
        }
    }
}

/// A record's name for messages, e.g. `log record 17`.
#[must_use]
pub fn describe(tree: Tree, key: &[u8]) -> String {
    let named = match tree {
        Tree::Meta => std::str::from_utf8(key).ok().map(str::to_owned),
        Tree::Log => number(key).map(|seq| format!("record {seq}")),
        Tree::Events => number(key).map(|revision| format!("record ending at revision {revision}")),
        Tree::Snapshots => SnapshotKey::parse(key).map(|key| match key {
            SnapshotKey::Meta(index) => format!("snapshot {index}"),
            SnapshotKey::Pending(index) => format!("unfinished snapshot {index}"),
            SnapshotKey::Chunk(index, chunk) => format!("snapshot {index} chunk {chunk}"),
        }),
    };
    named.unwrap_or_else(|| format!("key {key:02x?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(key: &[u8], expected: Option<SnapshotKey>) {
        assert_eq!(SnapshotKey::parse(key), expected, "{key:?}");
    }

    #[test]
    fn snapshot_keys_are_read_back_and_strangers_are_not() {
        check(&snapshot_meta(7), Some(SnapshotKey::Meta(7)));
        check(&snapshot_pending(u64::MAX), Some(SnapshotKey::Pending(u64::MAX)));
        check(&snapshot_chunk(7, 9), Some(SnapshotKey::Chunk(7, 9)));
        check(b"", None);
        check(b"m1234567", None);
        check(b"c12345678123", None);
        check(b"x12345678", None);
    }

    #[test]
    fn ranges_hold_exactly_their_keys() {
        let (start, end) = range::snapshot_chunks(u64::MAX, 3);
        let end = end.expect("bounded");
        assert!(snapshot_chunk(u64::MAX, 2) < start);
        assert!(snapshot_chunk(u64::MAX, 3) >= start && snapshot_chunk(u64::MAX, u32::MAX) < end);
        let (start, end) = range::snapshot_metas();
        assert!(snapshot_meta(0) >= start && snapshot_meta(u64::MAX) < end.expect("bounded"));
        assert!(snapshot_chunk(5, 0) < start);
    }
}
