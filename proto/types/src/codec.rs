//! The records that are kept on disk, and the one seam through which they become bytes.
//!
//! The cores decide over these types and never see a byte format; `bulkhead-proto` implements [`LogCodec`].

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use uuid::Uuid;

use crate::{MemberId, MembershipChange, Object, Outcome, Revision, Stamped, Transaction};

/// The content of one Raft entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogRecord {
    /// A normal entry: submissions, in order.
    Batch(Vec<Stamped>),
    /// The context of a configuration change.
    Membership(MembershipChange),
}

/// One record of a snapshot. The order is: `Header`, then `Member`s, `Object`s in id order, `Request`s in
/// order of their time, then `Trailer`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SnapshotRecord {
    /// What the State is about.
    Header {
        /// The cluster's identity; `None` before the first command.
        cluster_id: Option<Uuid>,
        /// The last revision in it.
        revision: Revision,
        /// Log time, milliseconds since the epoch.
        now_ms: u64,
        /// The rules that hold.
        feature_level: u32,
    },
    /// A member, present or removed.
    Member(MemberRecord),
    /// An object.
    Object(Object),
    /// A remembered request and its answer.
    Request {
        /// The request.
        request_id: Uuid,
        /// Log time of its answer, milliseconds since the epoch.
        at_ms: u64,
        /// The answer.
        outcome: Outcome,
    },
    /// The end: what was counted on the way.
    Trailer {
        /// Which digest the next field is, see [`crate::DIGEST_VERSION`].
        digest_version: u32,
        /// The State's digest.
        digest: u128,
        /// How many records there were before this one.
        records: u64,
    },
}

/// What the log knows of one member.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MemberRecord {
    /// Its id.
    pub member: MemberId,
    /// Where it is reached, `host:port`.
    pub address: SmolStr,
    /// Where it stands.
    pub role: MemberRole,
    /// Its data directory's id; nil before it registered.
    pub storage_uid: Uuid,
    /// Its version; empty before it registered.
    pub version: SmolStr,
    /// The highest feature level it supports; 0 before it registered.
    pub feature_level_max: u32,
}

/// Where a member stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum MemberRole {
    /// Receives the log and votes.
    Voter = 1,
    /// Receives the log only.
    Learner = 2,
    /// Left for good; its id is never used again.
    Removed = 3,
}

/// Bytes are not a record that this build knows. A replica stops on it: it never guesses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{record} cannot be read: {reason}; the data was written by a newer or a damaged server: upgrade this one, or re-sync it as a fresh learner"
)]
pub struct CodecError {
    /// Which kind of record.
    pub record: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

/// Records to bytes and back. Encoding is canonical: equal records have equal bytes.
pub trait LogCodec: Send + Sync {
    /// A Raft entry's content as bytes.
    fn encode_log(&self, record: &LogRecord) -> Vec<u8>;
    /// Bytes as a Raft entry's content.
    ///
    /// # Errors
    /// When the bytes are damaged or hold something that this build does not know.
    fn decode_log(&self, bytes: &[u8]) -> Result<LogRecord, CodecError>;
    /// A transaction as bytes.
    fn encode_transaction(&self, transaction: &Transaction) -> Vec<u8>;
    /// Bytes as a transaction.
    ///
    /// # Errors
    /// As [`Self::decode_log`].
    fn decode_transaction(&self, bytes: &[u8]) -> Result<Transaction, CodecError>;
    /// A snapshot record as bytes.
    fn encode_snapshot_record(&self, record: &SnapshotRecord) -> Vec<u8>;
    /// Bytes as a snapshot record.
    ///
    /// # Errors
    /// As [`Self::decode_log`].
    fn decode_snapshot_record(&self, bytes: &[u8]) -> Result<SnapshotRecord, CodecError>;
}

/// A codec that is shared.
pub type SharedCodec = Arc<dyn LogCodec>;
