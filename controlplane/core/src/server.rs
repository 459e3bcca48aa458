//! One server of the control plane, without its IO: Raft, state machine, reconcilers and leases in one struct.
//!
//! ```text
//!   handle(now, Input)*            take_output(now)
//!   ───────────────────► Server ───────────────────► Output { persist, messages, replies, applied, … }
//! ```
//!
//! The caller hands in everything that happens, as often as it likes, and then takes the output: submissions
//! handed in between two takes share one Raft entry. Nothing here waits; whatever the caller must wait for
//! (the disk, a peer) comes back as an [`Input`].

mod agents;
mod apply;
mod digests;
mod input;
mod leader;
mod membership;
mod output;
mod proposals;
mod reads;
mod snapshots;
mod status;
mod usage;

use bulkhead_canary::planted;
use bulkhead_types::{MemberId, MemberRole, SharedCodec};
use smol_str::SmolStr;
use uuid::Uuid;

use crate::reconcile::ReconcileConfig;
use crate::replica::{LogView, Replica, ReplicaConfig, ReplicaError};
use crate::{Machine, State};

pub use input::{Input, PeerMessage, Ticket};
pub use output::{AppliedEntry, Fatal, Output, Reply, SaveSnapshot, SendSnapshot};
pub use proposals::{
    BATCH_BYTES_MAX, BATCH_COMMANDS_MAX, INFLIGHT_ENTRIES_MAX, SUBMISSION_BYTES_MAX, WAITING_MAX,
};
pub use status::{PeerProgress, Role, ServerStatus};
pub use usage::{CardUsage, UsagePage, Used};

/// The one authorisation hook: may this actor ask for this? Called on the leader before anything is proposed.
pub type Authorize =
    fn(actor: &str, command: &bulkhead_types::Command) -> Result<(), bulkhead_types::Rejection>;

/// Lets everybody do everything: who may do what is not decided by this build.
///
/// # Errors
/// Never.
pub fn authorize_all(_: &str, _: &bulkhead_types::Command) -> Result<(), bulkhead_types::Rejection> {
    Ok(())
}

/// How a server is set up.
#[derive(Clone)]
pub struct ServerConfig {
    /// Its Raft id.
    pub member: MemberId,
    /// The cluster it belongs to.
    pub cluster_id: Uuid,
    /// Its data directory's id.
    pub storage_uid: Uuid,
    /// Where clients and peers reach it, `host:port`.
    pub address: SmolStr,
    /// Its software's version.
    pub version: SmolStr,
    /// The first voters, with their addresses: used by the first leader of a new cluster only.
    pub initial_members: Vec<(MemberId, SmolStr)>,
    /// Seed of everything that is drawn.
    pub seed: u64,
    /// Length of a tick, in milliseconds.
    pub tick_ms: u64,
    /// Ticks without a leader before an election, at least.
    pub election_ticks: usize,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: usize,
    /// A snapshot is taken after so many entries,
    pub snapshot_entries: u64,
    /// or so many bytes of entries,
    pub snapshot_log_bytes: u64,
    /// or so many milliseconds, if there was an entry. The log before it goes, but for `keep_entries`.
    pub snapshot_age_ms: u64,
    /// Entries kept before a snapshot, for followers that lag a little.
    pub keep_entries: u64,
    /// Replicas compare digests at every so-manieth entry.
    pub digest_interval: u64,
    /// Agents report so often, in milliseconds.
    pub heartbeat_ms: u64,
    /// What the reconcilers go by; the agents' lease is among it.
    pub reconcile: ReconcileConfig,
    /// The authorisation hook.
    pub authorize: Authorize,
    /// The highest feature level that this server supports: [`bulkhead_types::FEATURE_LEVEL_MAX`], or less when it
    /// is to pass for an older one.
    pub feature_level_max: u32,
}

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Raft refuses.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// The data directory belongs to another cluster.
    #[error(
        "the data directory belongs to cluster {found}, this server is configured for {wanted}; point it at its own directory"
    )]
    OtherCluster {
        /// Whose it is.
        found: Uuid,
        /// Whose it should be.
        wanted: Uuid,
    },
    /// The State needs a newer server.
    #[error(transparent)]
    TooOld(#[from] TooOld),
}

/// The cluster's feature level is above what a server supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the cluster runs at feature level {level}, this server supports up to {supported}: it is too old; install a version \
     that supports level {level} (the level never goes back)"
)]
pub struct TooOld {
    /// The cluster's.
    pub level: u32,
    /// The server's.
    pub supported: u32,
}

/// One server of the control plane.
pub struct Server {
    config: ServerConfig,
    codec: SharedCodec,
    replica: Replica,
    machine: Machine,
    applied_index: u64,
    ticks: u64,
    now_ms: u64,
    /// Whether the disk refuses writes: then this server takes no submissions and does not lead.
    disk_full: bool,
    proposals: proposals::Proposals,
    changes: membership::Changes,
    reads: reads::Reads,
    leader: Option<leader::Leadership>,
    digests: digests::Digests,
    snapshots: snapshots::Snapshots,
    contacts: std::collections::BTreeMap<MemberId, u64>,
    output: Output,
}

impl Server {
    /// Starts from what the disk holds: the State of the newest snapshot, and the log after it.
    ///
    /// # Errors
    /// When raft refuses the configuration, or the State belongs to another cluster.
    pub fn new(
        config: ServerConfig,
        codec: SharedCodec,
        state: State,
        log: LogView,
        logger: &slog::Logger,
    ) -> Result<Self, StartError> {
        if let Some(found) = state.cluster_id().filter(|id| *id != config.cluster_id) {
            return Err(StartError::OtherCluster { found, wanted: config.cluster_id });
        }
        let (level, supported) = (state.feature_level(), config.feature_level_max);
        if level > supported {
            return Err(TooOld { level, supported }.into());
        }
        let applied_index = log.snapshot_point().index;
        let replica_config = ReplicaConfig {
            member: config.member,
            election_ticks: config.election_ticks,
            heartbeat_ticks: config.heartbeat_ticks,
            seed: config.seed,
        };
        let replica = Replica::new(replica_config, log, logger)?;
        Ok(Self {
            replica,
            codec,
            machine: Machine::new(state),
            applied_index,
            ticks: 0,
            now_ms: 0,
            disk_full: false,
            proposals: proposals::Proposals::default(),
            changes: membership::Changes::default(),
            reads: reads::Reads::new(config.member),
            leader: None,
            digests: digests::Digests::default(),
            snapshots: snapshots::Snapshots::default(),
            contacts: std::collections::BTreeMap::new(),
            output: Output::default(),
            config,
        })
    }

    /// The present State. Cloning it is O(1).
    #[must_use]
    pub fn state(&self) -> &State {
        self.machine.state()
    }

    /// The last entry applied.
    #[must_use]
    pub fn applied_index(&self) -> u64 {
        self.applied_index
    }

    /// The last entry applied and its term: the point that [`Self::state`] stands for.
    #[must_use]
    pub fn applied_point(&self) -> (u64, u64) {
        // The term of an applied entry is known: entries are kept until a snapshot covers them.
        (self.applied_index, self.replica.log().term_at(self.applied_index).unwrap_or_default())
    }

    /// How the server is set up.
    #[must_use]
    pub fn config(&self) -> &ServerConfig {
        &self.config
    }

    /// Takes in one thing that happened. `now_ms` is the caller's clock, milliseconds since the epoch; when it
    /// goes back, the last value counts.
    pub fn handle(&mut self, now_ms: u64, input: Input) {
        self.now_ms = self.now_ms.max(now_ms);
        match input {
            Input::Tick => self.tick(),
            Input::Peer { from, message } => self.handle_peer(from, message),
            Input::Submit { ticket, stamped } => self.handle_submit(ticket, stamped),
            Input::Read { ticket } if planted!("canary_read_without_quorum") => {
                self.reply(ticket, Reply::ReadReady);
            }
            Input::Read { ticket } => self.reads.ask(reads::Reader::Barrier(ticket)),
            Input::Agent { ticket, report } => self.handle_agent(ticket, report),
            Input::Usage { ticket, selection, after, limit } => {
                self.handle_usage(ticket, &selection, after, limit)
            }
            Input::Metrics { answers } => self.handle_metrics(answers),
            Input::Membership { ticket, change } => self.handle_membership(ticket, change),
            Input::TransferLeader { ticket, to } => self.handle_transfer(ticket, to),
            Input::TakeSnapshot => self.snapshots.request(),
            Input::Persisted { number } => self.handle_persisted(number),
            Input::DiskFull(full) => self.handle_disk_full(full),
            Input::SnapshotSaved { index } => self.handle_snapshot_saved(index),
            Input::SnapshotReceived { message, state } => self.handle_snapshot_received(&message, *state),
            Input::SnapshotSent { to, delivered } => self.replica.report_snapshot(to, delivered),
            Input::Disowned => {
                let member = self.config.member;
                self.output.fatal.get_or_insert(Fatal::OtherStorage { member });
            }
            Input::PeerUnreachable { member } => self.replica.report_unreachable(member),
            Input::PeerDown { member } => {
                self.replica.report_unreachable(member);
                self.replica.report_down(member);
            }
        }
    }

    /// Does what can be done now, and hands out what the caller must do. It says whether there is more.
    pub fn take_output(&mut self, now_ms: u64) -> Output {
        self.now_ms = self.now_ms.max(now_ms);
        // Applying entries can make new proposals possible, and those new Readys; a Ready that leads to
        // nothing new ends the loop, and every round hands something to the disk or applies something. What a long
        // log applies comes in parts.
        loop {
            self.follow_leadership();
            self.reconcile();
            self.flush_changes();
            self.flush_proposals();
            self.flush_reads();
            if !self.take_ready() {
                break;
            }
            if self.output.is_full() {
                self.output.unfinished = true;
                break;
            }
        }
        self.maybe_save_snapshot();
        std::mem::take(&mut self.output)
    }

    fn tick(&mut self) {
        self.ticks += 1;
        self.replica.tick();
        self.reads.on_tick(self.config.election_ticks as u64);
        self.announce_self();
        self.settle_doubts();
        if self.disk_full {
            self.give_leadership_away();
        }
    }

    fn handle_peer(&mut self, from: MemberId, message: PeerMessage) {
        self.contacts.insert(from, self.ticks);
        // Until the joint configuration is left, the others may need what a member that goes says.
        let removed = self.state().member(from).is_some_and(|m| m.role == MemberRole::Removed)
            && !self.replica.is_configured(from);
        if removed && message != PeerMessage::Removed {
            return self.output.messages.push((from, PeerMessage::Removed));
        }
        match message {
            PeerMessage::Raft(bytes) => match crate::replica::decode_message(&bytes) {
                // Only what names its true sender counts; a malformed message is dropped like a lost one.
                Ok(message) if message.get_from() == from.0 => self.replica.step(message),
                _ => self.output.dropped_messages += 1,
            },
            PeerMessage::Digest { index, digest_version, digest } => {
                self.handle_digest(from, index, digest_version, digest)
            }
            PeerMessage::Removed => {
                self.output.fatal.get_or_insert(Fatal::Removed(self.config.member));
            }
            PeerMessage::Register(command) => self.handle_register(from, *command),
        }
    }

    fn handle_persisted(&mut self, number: u64) {
        let messages = self.replica.on_persisted(number);
        self.send(messages);
    }

    fn send(&mut self, messages: Vec<raft::eraftpb::Message>) {
        for message in messages {
            let to = MemberId(message.get_to());
            if message.get_msg_type() == raft::eraftpb::MessageType::MsgSnapshot {
                self.send_snapshot(to, &message);
            } else {
                self.output.messages.push((to, PeerMessage::Raft(crate::replica::encode(&message))));
            }
        }
    }

    /// Handles one Ready of the replica; tells whether there was one.
    fn take_ready(&mut self) -> bool {
        let Some(ready) = self.replica.take_ready() else { return false };
        self.send(ready.messages);
        if let Some(point) = ready.installed {
            self.install(point);
        }
        if let Some(persist) = ready.persist {
            self.output.persist.push(persist);
        }
        for (context, index) in ready.reads {
            self.reads.confirm(&context, index);
        }
        self.apply(ready.committed);
        self.serve_reads();
        true
    }
}
