//! What a server asks its shell to do.

use std::sync::Arc;

use bulkhead_types::{AgentAck, MemberId, Rejection, Transaction};

use super::input::{PeerMessage, Ticket};
use super::usage::UsagePage;
use crate::replica::{Persist, SnapshotPoint};
use crate::{Applied, State};

/// Submissions applied after which an output is handed out, although more could be. What they changed is small enough
/// to stay in the processor's caches, and its memory is there again for the next ones.
const OUTPUT_SUBMISSIONS_MAX: usize = 1024;

/// Everything to be done, in this order: persist requests are handed to the disk, messages are sent, then
/// replies are given. Whatever needs the disk first is held back inside the server.
#[derive(Debug, Default)]
pub struct Output {
    /// To be written, in order; answered by `Input::Persisted`.
    pub persist: Vec<Persist>,
    /// To be sent. Any may be lost.
    pub messages: Vec<(MemberId, PeerMessage)>,
    /// Answers for waiting callers.
    pub replies: Vec<(Ticket, Reply)>,
    /// What was applied, in order: for the event store, watches and intents.
    pub applied: Vec<AppliedEntry>,
    /// A snapshot to be made durable; answered by `Input::SnapshotSaved`.
    pub save_snapshot: Option<SaveSnapshot>,
    /// Snapshots to be sent; each answered by `Input::SnapshotSent`.
    pub send_snapshots: Vec<SendSnapshot>,
    /// The State was replaced by a received snapshot: watches and intents start anew.
    pub installed: Option<State>,
    /// There may be more to be had at once: the caller takes the output again before it waits for anything. So whoever
    /// catches up with a long log hands it on part by part.
    pub unfinished: bool,
    /// The server cannot go on.
    pub fatal: Option<Fatal>,
    /// Malformed messages that were dropped.
    pub dropped_messages: u64,
}

impl Output {
    /// Whether so much was applied that it is to be handed out before there is more.
    pub(super) fn is_full(&self) -> bool {
        self.applied.iter().map(|entry| entry.applied.len()).sum::<usize>() >= OUTPUT_SUBMISSIONS_MAX
    }
}

/// What one log entry did.
#[derive(Debug)]
pub struct AppliedEntry {
    /// Its index.
    pub index: u64,
    /// Its submissions, in order.
    pub applied: Vec<Applied>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// The submission was applied or refused; the outcome says which.
    Applied(Arc<Transaction>),
    /// A read may be served from the present State.
    ReadReady,
    /// The agent's report counts; its lease is renewed.
    Agent(AgentAck),
    /// What pods or nodes use.
    Usage(UsagePage),
    /// Refused before it was proposed.
    Rejected(Rejection),
    /// Only the leader can; here is who that is, when known. Nothing was done.
    NotLeader(Option<MemberId>),
    /// Leadership was lost while it waited: it may or may not happen. Ask again with the same request id.
    Lost,
    /// Too many wait already. Nothing was done.
    Overloaded,
    /// The disk is full: nothing is accepted until there is room again.
    DiskFull,
    /// A transfer of leadership has begun.
    TransferStarted(MemberId),
}

/// A snapshot to be made durable.
#[derive(Debug)]
pub struct SaveSnapshot {
    /// Where in the log.
    pub point: SnapshotPoint,
    /// What to write; an O(1) copy.
    pub state: State,
}

/// A snapshot to be sent.
#[derive(Debug, PartialEq, Eq)]
pub struct SendSnapshot {
    /// To whom.
    pub to: MemberId,
    /// The index of the durable snapshot to send.
    pub index: u64,
    /// Raft's own message, to be delivered after the snapshot itself.
    pub message: Vec<u8>,
}

/// Why a server stops for good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fatal {
    /// A log record that this build does not know.
    #[error("entry {index}: {reason}")]
    UnknownRecord {
        /// Its index.
        index: u64,
        /// What is wrong.
        reason: String,
    },
    /// This replica's State differs from the leader's.
    #[error(
        "after entry {index} this replica's State has digest {found:032x}, member {other}'s has {expected:032x}: \
             this replica diverged and stops, the others go on; to heal it run `bulkhead member replace` with this \
             member's id against one of the others, and start this server again as it says, under the new id and \
             with an empty data directory (keep the old one: it shows what went wrong)"
    )]
    Diverged {
        /// The entry.
        index: u64,
        /// Who has another one: one of a majority, or the leader.
        other: MemberId,
        /// This replica's digest.
        found: u128,
        /// The other's.
        expected: u128,
    },
    /// This member was removed from the cluster.
    #[error("member {0} was removed from the cluster; its data directory may be deleted")]
    Removed(MemberId),
    /// The cluster knows this member by another data directory.
    #[error(
        "member {member} is known to the cluster with another data directory: its votes and acknowledgements were lost \
             with it; remove the member, add it under a new id, and start it with --join"
    )]
    OtherStorage {
        /// Who.
        member: MemberId,
    },
    /// The cluster uses rules that this server does not know.
    #[error(transparent)]
    TooOld(super::TooOld),
    /// Raft cannot go on.
    #[error("raft cannot go on: {0}")]
    Raft(String),
}
