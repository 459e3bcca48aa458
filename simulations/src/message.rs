//! What hosts say to each other: the shapes of the real services, without their bytes.

use std::sync::Arc;

use bulkhead_controlplane_core::replica::decode_message;
use bulkhead_controlplane_core::server::PeerMessage;
use bulkhead_storage::SnapshotInfo;
use bulkhead_types::{
    AgentAck, AgentReport, Intent, Joined, MemberId, MembershipChange, Name, NodeFacts, Object, ObjectId,
    ObjectRef, Outcome, Rejection, Revision, Stamped, digest128,
};
use uuid::Uuid;

use crate::network::Host;
use crate::watching::WatchMessage;

/// Names a request; chosen by its origin, never used twice by it.
pub(crate) type Call = u64;

/// What a packet says.
#[derive(Debug)]
pub(crate) enum Body {
    /// Between servers.
    Peer(PeerMessage),
    /// To a server.
    Request(Envelope<Request>),
    /// From a server.
    Response(Envelope<Response>),
    /// A part of a snapshot, between servers.
    Chunk(Chunk),
    /// What became of a part of a snapshot.
    ChunkAnswer {
        /// Which snapshot.
        transfer: u64,
        /// The part that is wanted next; `None` when it is durable as a whole, or cannot be taken.
        next: Option<u32>,
        /// Whether it was taken so far.
        taken: bool,
    },
    /// Between a watcher and a server.
    Watch(WatchMessage),
    /// An agent opens its session's stream at a server.
    Connect {
        /// Which node.
        node: ObjectId,
        /// Which session.
        incarnation: u64,
    },
    /// What a node should run.
    Intent(Box<Intent>),
    /// The session is not known (any more) at this server.
    Disconnected {
        /// Which session.
        incarnation: u64,
    },
}

/// A request or response with what is needed to bring it home.
#[derive(Debug)]
pub(crate) struct Envelope<T> {
    /// Who asked.
    pub origin: Host,
    /// Under which number.
    pub call: Call,
    /// The server that passed the request on to the leader, if one did.
    pub via: Option<MemberId>,
    /// What is asked or answered.
    pub content: T,
}

/// What is asked of a server.
#[derive(Debug)]
pub(crate) enum Request {
    /// A client's submission.
    Submit(Box<Stamped>),
    /// A linearizable read.
    Read,
    /// A read of one object.
    Get {
        /// Which.
        object: ObjectRef,
        /// Any replica may answer that has this revision; only what is true now when unset.
        at_least: Option<Revision>,
    },
    /// An agent registers its node.
    Join {
        /// The request's id, kept over the way to the leader.
        request_id: Uuid,
        /// The node's name.
        name: Name,
        /// What the agent found.
        facts: Box<NodeFacts>,
    },
    /// An agent's report.
    Report(Box<AgentReport>),
    /// An operator changes the membership.
    Membership(Box<MembershipChange>),
    /// An operator moves the leadership.
    Transfer(Option<MemberId>),
}

/// What a server answers.
#[derive(Clone, Debug)]
pub(crate) enum Response {
    /// The submission was applied or refused.
    Done {
        /// Which request.
        request_id: Uuid,
        /// Its outcome.
        outcome: Outcome,
    },
    /// What a read saw.
    Read {
        /// The last revision in it.
        revision: Revision,
        /// How far the server's log was applied.
        applied_index: u64,
        /// The State's digest.
        digest: u128,
    },
    /// One object, as it was at a revision.
    Got {
        /// The revision.
        revision: Revision,
        /// The object, if there was one.
        object: Option<Box<Object>>,
    },
    /// The node is registered.
    Joined(Joined),
    /// The report counts.
    Ack(AgentAck),
    /// Refused; nothing was done.
    Refused(Rejection),
    /// Only the leader can; nothing was done.
    NotLeader(Option<MemberId>),
    /// It may or may not happen.
    Lost,
    /// Nothing was done, for want of room.
    Busy,
    /// The leadership is on its way.
    TransferStarted,
}

/// A part of a snapshot on its way to a peer.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    /// Which snapshot, by a number of its sender's.
    pub transfer: u64,
    /// What the whole is.
    pub info: Arc<SnapshotInfo>,
    /// Raft's message, to be delivered after the last part.
    pub message: Arc<Vec<u8>>,
    /// Which part.
    pub number: u32,
    /// Its content.
    pub bytes: Vec<u8>,
}

impl Body {
    /// Whether it travels in a stream, which loses nothing unless it breaks.
    #[must_use]
    pub(crate) fn is_in_stream(&self) -> bool {
        match self {
            Self::Intent(_) | Self::Connect { .. } | Self::Disconnected { .. } | Self::Watch(_) => true,
            Self::Request(request) => matches!(request.content, Request::Report(_)) && request.via.is_none(),
            _ => false,
        }
    }

    /// Another one of the same, of what a network may bring twice: what servers send each other.
    #[must_use]
    pub(crate) fn copy(&self) -> Option<Self> {
        match self {
            Self::Peer(message) => Some(Self::Peer(message.clone())),
            Self::Chunk(chunk) => Some(Self::Chunk(chunk.clone())),
            Self::ChunkAnswer { transfer, next, taken } => {
                Some(Self::ChunkAnswer { transfer: *transfer, next: *next, taken: *taken })
            }
            _ => None,
        }
    }

    /// Whether a network may bring it twice.
    #[must_use]
    pub(crate) fn may_be_repeated(&self) -> bool {
        matches!(self, Self::Peer(_) | Self::Chunk(_) | Self::ChunkAnswer { .. })
    }

    /// What it is, and a number that stands for its content, for traces.
    #[must_use]
    pub(crate) fn summary(&self) -> (&'static str, u128) {
        match self {
            Self::Peer(PeerMessage::Raft(bytes)) => ("raft", digest128(bytes)),
            Self::Peer(PeerMessage::Digest { index, digest, .. }) => ("digest", digest128(&(index, digest))),
            Self::Peer(PeerMessage::Register(command)) => ("register", digest128(command)),
            Self::Peer(PeerMessage::Removed) => ("removed", 0),
            Self::Request(request) => match &request.content {
                Request::Submit(stamped) => ("submit", digest128(stamped)),
                Request::Read => ("read", u128::from(request.call)),
                Request::Get { object, at_least } => ("get", digest128(&(request.call, object, at_least))),
                Request::Join { request_id, .. } => ("join", request_id.as_u128()),
                Request::Report(report) => ("report", digest128(&(report.sent_at_ms, &report.pods))),
                Request::Membership(change) => ("membership", change.request_id.as_u128()),
                Request::Transfer(to) => ("transfer", u128::from(to.map_or(0, |m| m.0))),
            },
            Self::Response(answer) => match &answer.content {
                Response::Done { outcome, .. } => ("done", digest128(outcome)),
                Response::Read { digest, .. } => ("read done", *digest),
                Response::Got { revision, object } => ("got", digest128(&(revision, object))),
                Response::Joined(joined) => ("joined", u128::from(joined.incarnation)),
                Response::Ack(ack) => ("ack", u128::from(ack.sent_at_ms)),
                Response::Refused(rejection) => ("refused", digest128(rejection)),
                Response::NotLeader(leader) => ("not leader", u128::from(leader.map_or(0, |m| m.0))),
                Response::Lost => ("lost", 0),
                Response::Busy => ("busy", 0),
                Response::TransferStarted => ("transfer started", 0),
            },
            Self::Chunk(chunk) => ("chunk", digest128(&chunk.bytes)),
            Self::ChunkAnswer { transfer, next, taken } => {
                ("chunk answer", digest128(&(transfer, next, taken)))
            }
            Self::Watch(message) => ("watch", message.digest()),
            Self::Connect { incarnation, .. } => ("connect", u128::from(*incarnation)),
            Self::Intent(intent) => ("intent", digest128(&(intent.generation, intent.pods.len()))),
            Self::Disconnected { incarnation } => ("disconnected", u128::from(*incarnation)),
        }
    }

    /// What it says, for people.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Peer(PeerMessage::Raft(bytes)) => match decode_message(bytes) {
                Ok(m) => format!(
                    "{:?} term {} index {} log term {} commit {} entries {} reject {}",
                    m.get_msg_type(),
                    m.get_term(),
                    m.get_index(),
                    m.get_log_term(),
                    m.get_commit(),
                    m.get_entries().len(),
                    m.get_reject(),
                ),
                Err(error) => error.to_string(),
            },
            Self::Chunk(chunk) => {
                format!("transfer {} chunk {} of {}", chunk.transfer, chunk.number, chunk.info.chunks)
            }
            other => format!("{other:?}"),
        }
    }
}
