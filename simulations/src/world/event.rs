//! What may happen, in the order of time.

use bulkhead_types::MemberId;

use crate::guest_life::GuestEvent;
use crate::network::{Host, Packet};

/// What happens at a moment. What belongs to one life of a server carries that life's number.
#[derive(Debug)]
pub(crate) enum Event {
    Tick {
        member: MemberId,
        life: u32,
    },
    Pump {
        member: MemberId,
        life: u32,
    },
    Flushed {
        member: MemberId,
        life: u32,
    },
    LookForSpace {
        member: MemberId,
        life: u32,
    },
    HistoryTurn {
        member: MemberId,
        life: u32,
    },
    WatchTurn {
        member: MemberId,
        life: u32,
        stream: u64,
    },
    NextWish {
        client: u32,
    },
    Register {
        client: u32,
        alarm: u64,
    },
    NextWatch {
        watcher: u32,
    },
    Watcher {
        watcher: u32,
        alarm: u64,
    },
    TransferLate {
        member: MemberId,
        life: u32,
        transfer: u64,
        progress: u32,
    },
    SnapshotComplete {
        member: MemberId,
        life: u32,
        transfer: u64,
    },
    Restart {
        member: MemberId,
    },
    /// A server finds that nobody listens at a peer's address.
    Refused {
        member: MemberId,
        life: u32,
        peer: MemberId,
    },
    Deliver(Box<Packet>),
    Client {
        client: u32,
        alarm: u64,
    },
    NextOperation {
        client: u32,
    },
    Fault,
    /// A decision of the script that is replayed.
    Decided {
        number: usize,
    },
    Calm,
    Heal {
        number: u64,
    },
    Operate,
    DiskRelief {
        member: MemberId,
    },
    Check,
    /// A card is there again, and well.
    DeviceBack {
        agent: u32,
        index: u32,
    },
    AgentStart {
        agent: u32,
    },
    AgentWake {
        agent: u32,
        life: u32,
    },
    JoinLate {
        agent: u32,
        life: u32,
        call: u64,
    },
    Guest {
        agent: u32,
        boot: u32,
        event: Box<GuestEvent>,
    },
}

impl Event {
    /// The server whose process it is for, if it is for one.
    pub(super) fn server(&self) -> Option<MemberId> {
        match self {
            Self::Tick { member, .. }
            | Self::Pump { member, .. }
            | Self::Flushed { member, .. }
            | Self::LookForSpace { member, .. }
            | Self::HistoryTurn { member, .. }
            | Self::WatchTurn { member, .. }
            | Self::TransferLate { member, .. }
            | Self::Refused { member, .. }
            | Self::SnapshotComplete { member, .. } => Some(*member),
            Self::Deliver(packet) => match packet.to {
                Host::Server(member) => Some(member),
                _ => None,
            },
            _ => None,
        }
    }
}
