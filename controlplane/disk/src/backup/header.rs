//! What a backup says about itself.

use bulkhead_controlplane_core::State;
use bulkhead_types::{DIGEST_VERSION, MemberId};
use uuid::Uuid;

/// The format that this build writes, and the newest that it reads.
pub const BACKUP_FORMAT: u32 = 1;

/// What a backup says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupHeader {
    /// Of which cluster.
    pub cluster_id: Uuid,
    /// The last entry in it, and its term.
    pub index: u64,
    /// The term of that entry.
    pub term: u64,
    /// The last revision in it.
    pub revision: u64,
    /// The feature level that a server must support to use it.
    pub feature_level: u32,
    /// The State's digest, and how it is made.
    pub digest: u128,
    /// See [`DIGEST_VERSION`].
    pub digest_version: u32,
    /// Log time, milliseconds since the epoch.
    pub log_time_ms: u64,
    /// When it was written, by the writer's clock, milliseconds since the epoch.
    pub made_at_ms: u64,
    /// Which server wrote it.
    pub member: MemberId,
}

impl BackupHeader {
    /// Its length in a file.
    pub(super) const BYTES: usize = 16 + 8 * 6 + 16 + 4 + 4;

    /// Describes a State after an entry; `None` for one that belongs to no cluster yet.
    #[must_use]
    pub fn of(state: &State, index: u64, term: u64, member: MemberId, made_at_ms: u64) -> Option<Self> {
        Some(Self {
            cluster_id: state.cluster_id()?,
            index,
            term,
            revision: state.revision(),
            feature_level: state.feature_level(),
            digest: state.digest(),
            digest_version: DIGEST_VERSION,
            log_time_ms: state.now_ms(),
            made_at_ms,
            member,
        })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = self.cluster_id.as_bytes().to_vec();
        let member = self.member.0;
        for number in [self.index, self.term, self.revision, self.log_time_ms, self.made_at_ms, member] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.digest.to_le_bytes());
        bytes.extend_from_slice(&self.digest_version.to_le_bytes());
        bytes.extend_from_slice(&self.feature_level.to_le_bytes());
        debug_assert_eq!(bytes.len(), Self::BYTES);
        bytes
    }

    pub(super) fn decode(bytes: &[u8; Self::BYTES]) -> Self {
        let mut rest = &bytes[..];
        let cluster_id = Uuid::from_bytes(take(&mut rest));
        let mut number = || u64::from_le_bytes(take(&mut rest));
        let (index, term, revision, log_time_ms, made_at_ms, member) =
            (number(), number(), number(), number(), number(), MemberId(number()));
        let digest = u128::from_le_bytes(take(&mut rest));
        let digest_version = u32::from_le_bytes(take(&mut rest));
        let feature_level = u32::from_le_bytes(take(&mut rest));
        Self {
            cluster_id,
            index,
            term,
            revision,
            feature_level,
            digest,
            digest_version,
            log_time_ms,
            made_at_ms,
            member,
        }
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (found, left) = rest.split_first_chunk::<N>().expect("the header has a fixed length");
    *rest = left;
    *found
}
