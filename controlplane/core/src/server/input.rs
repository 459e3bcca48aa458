//! What can happen to a server.

use bulkhead_types::{AgentReport, Command, MemberId, MembershipChange, ObjectId, Stamped};

use crate::State;
use crate::query::Selection;
use crate::reconcile::MetricAnswer;

/// Names a waiting caller; chosen by the shell, never reused while it waits.
pub type Ticket = u64;

/// One thing that happened.
#[derive(Debug)]
pub enum Input {
    /// A tick's worth of time passed.
    Tick,
    /// A peer sent something. The shell vouches for who it was.
    Peer {
        /// Who.
        from: MemberId,
        /// What.
        message: PeerMessage,
    },
    /// Somebody submits commands. `proposed_at_ms` is set here, whatever it was.
    Submit {
        /// Who waits.
        ticket: Ticket,
        /// What is wanted.
        stamped: Stamped,
    },
    /// Somebody wants to read what is true now.
    Read {
        /// Who waits.
        ticket: Ticket,
    },
    /// A node's agent reports.
    Agent {
        /// Who waits.
        ticket: Ticket,
        /// What it says.
        report: AgentReport,
    },
    /// Somebody wants to know what pods or nodes use; only the leader does.
    Usage {
        /// Who waits.
        ticket: Ticket,
        /// Of which: of kind Pod or Node.
        selection: Selection,
        /// Those with a key above it.
        after: ObjectId,
        /// At most so many are looked at.
        limit: usize,
    },
    /// The metrics endpoint answered a round of queries.
    Metrics {
        /// By query, all of the round.
        answers: Vec<(String, MetricAnswer)>,
    },
    /// Somebody wants to change the membership.
    Membership {
        /// Who waits.
        ticket: Ticket,
        /// How.
        change: MembershipChange,
    },
    /// Somebody wants another leader.
    TransferLeader {
        /// Who waits.
        ticket: Ticket,
        /// Whom; the most advanced voter when unset.
        to: Option<MemberId>,
    },
    /// Somebody wants a snapshot now.
    TakeSnapshot,
    /// The disk holds everything up to this persist request.
    Persisted {
        /// Its number.
        number: u64,
    },
    /// The disk refuses writes for want of room, or takes them again.
    DiskFull(bool),
    /// A snapshot that was asked for is durable.
    SnapshotSaved {
        /// The index it stands for; `None` when saving failed.
        index: Option<u64>,
    },
    /// A peer's snapshot arrived whole, was checked, and is durable.
    SnapshotReceived {
        /// Raft's own message, encoded.
        message: Vec<u8>,
        /// The State that it holds.
        state: Box<State>,
    },
    /// Sending a snapshot ended.
    SnapshotSent {
        /// To whom.
        to: MemberId,
        /// Whether it arrived.
        delivered: bool,
    },
    /// A peer knows this member by another data directory, and refuses it.
    Disowned,
    /// A peer cannot be reached.
    PeerUnreachable {
        /// Who.
        member: MemberId,
    },
    /// A peer's process has ended: its machine refuses connections.
    PeerDown {
        /// Who.
        member: MemberId,
    },
}

/// What servers say to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerMessage {
    /// A Raft message, encoded.
    Raft(Vec<u8>),
    /// The sender's digest after an entry.
    Digest {
        /// Which entry.
        index: u64,
        /// Which kind of digest.
        digest_version: u32,
        /// The digest.
        digest: u128,
    },
    /// A member makes itself known to the leader: a `RegisterMember` command.
    Register(Box<Command>),
    /// The receiver was removed from the cluster: it may have missed the entry that said so.
    Removed,
}
