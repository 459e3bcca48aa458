//! The Raft driver: one struct around `raft::RawNode` whose only outputs are values.
//!
//! The log tail lives in memory ([`LogView`]) and on disk; the disk follows asynchronously. Every `Ready` is
//! handled by [`Replica::take_ready`], its steps numbered there. Election timeouts are pinned after every call
//! that could draw one, so that equal seeds give equal runs.

mod dead_leader;
mod log_view;
mod timeout;

use bulkhead_canary::planted;
use bulkhead_types::MemberId;
use protobuf::Message as _;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState, Entry, HardState,
    Message, MessageType, Snapshot,
};
use raft::{Config, RawNode, SnapshotStatus, StateRole};

use dead_leader::DeadLeader;
pub use log_view::{LogView, SnapshotPoint};

/// Most bytes of entries in one append message: larger ones would hold up heartbeats.
const APPEND_BYTES_MAX: u64 = 1 << 20;
/// Most append messages under way to one follower.
const INFLIGHT_APPENDS_MAX: usize = 256;
/// Most bytes of entries that are proposed but not committed; above it proposals wait.
const UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;
/// Most bytes of committed entries handed out by one Ready, or one entry: what they do is kept until the next.
const COMMITTED_BYTES_MAX: u64 = 256 << 10;

/// How a replica is set up.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// Its Raft id.
    pub member: MemberId,
    /// Ticks without a leader before an election, at least; the draw is up to twice as many.
    pub election_ticks: usize,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: usize,
    /// Where the pinned election timeouts come from.
    pub seed: u64,
}

/// Why a replica cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// Raft refuses the configuration or an operation.
    #[error("raft refuses: {0}")]
    Raft(#[from] raft::Error),
    /// Bytes that should be a Raft record are not.
    #[error("a raft {record} cannot be read: {reason}")]
    Decode {
        /// Which record.
        record: &'static str,
        /// What is wrong.
        reason: String,
    },
}

/// What must be on disk before anything that depends on it may happen. Requests are numbered; the disk
/// answers in order, and an answer stands for all earlier ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Persist {
    /// Its number; 0 when no answer is wanted.
    pub number: u64,
    /// The new hard state, encoded.
    pub hard_state: Option<Vec<u8>>,
    /// Drop entries from this index on, before appending.
    pub truncate_from: Option<u64>,
    /// Entries to append, encoded, by index.
    pub entries: Vec<(u64, Vec<u8>)>,
    /// A received snapshot at this index replaces the whole log.
    pub reset_to: Option<u64>,
    /// Drop entries up to this index: a durable snapshot covers them.
    pub compact_to: Option<u64>,
    /// Whether it must be flushed: nothing else waits for it otherwise.
    pub must_sync: bool,
}

/// What one Ready asks for.
#[derive(Debug, Default)]
pub struct ReadyOutput {
    /// To be written.
    pub persist: Option<Persist>,
    /// May be sent at once.
    pub messages: Vec<Message>,
    /// Committed, in order: to be applied.
    pub committed: Vec<Entry>,
    /// Contexts of reads that may be served once this index is applied.
    pub reads: Vec<(Vec<u8>, u64)>,
    /// Set when a snapshot replaced the log.
    pub installed: Option<SnapshotPoint>,
}

/// One member's Raft state machine.
pub struct Replica {
    node: RawNode<LogView>,
    config: ReplicaConfig,
    /// Messages that wait for a persist request, by its number.
    after_persist: Vec<(u64, Vec<Message>)>,
    /// A snapshot that is installed but not durable yet: its persist request, and its index.
    installing: Option<(u64, u64)>,
    /// Whether the commit index in memory is newer than the one that was handed to the disk.
    commit_unwritten: bool,
    /// A leader whose process was reported to have ended, until another one leads.
    dead: Option<DeadLeader>,
    /// The last term for which an election timeout was computed, and that timeout, in ticks.
    timeout: (u64, usize),
}

impl Replica {
    /// Starts from what the disk holds.
    ///
    /// # Errors
    /// When raft refuses the configuration.
    pub fn new(config: ReplicaConfig, log: LogView, logger: &slog::Logger) -> Result<Self, ReplicaError> {
        let raft_config = Config {
            id: config.member.0,
            election_tick: config.election_ticks,
            heartbeat_tick: config.heartbeat_ticks,
            applied: log.snapshot_point().index,
            max_size_per_msg: APPEND_BYTES_MAX,
            max_inflight_msgs: INFLIGHT_APPENDS_MAX,
            max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
            max_committed_size_per_ready: COMMITTED_BYTES_MAX,
            check_quorum: true,
            pre_vote: true,
            // Off: raft 0.7.0 joins entries to a waiting append that has none, without looking whether they
            // follow the place that it names. The follower then acknowledges entries that do not exist.
            // Proposals are batched before they get here.
            batch_append: planted!("canary_batch_append"),
            ..Config::default()
        };
        let node = RawNode::new(&raft_config, log, logger)?;
        let term = node.raft.term;
        let timeout =
            (term, timeout::election_ticks(config.seed, config.member, term, config.election_ticks));
        let mut replica = Self {
            node,
            config,
            after_persist: Vec::new(),
            installing: None,
            commit_unwritten: false,
            dead: None,
            timeout,
        };
        replica.pin();
        Ok(replica)
    }

    /// Time passes by one tick. It stands still while a snapshot is being made durable: raft counts it as
    /// applied only then, and an election before that would look for entries that are gone.
    pub fn tick(&mut self) {
        if self.installing.is_some() {
            return;
        }
        self.tick_dead();
        self.node.tick();
        self.pin();
    }

    /// A peer's message. Proposals are not taken from peers, and messages about unknown peers are dropped, as
    /// Raft may drop any message.
    pub fn step(&mut self, message: Message) {
        let calls_election = message.get_msg_type() == MessageType::MsgTimeoutNow;
        if calls_election && self.installing.is_some() {
            return;
        }
        if message.get_msg_type() != MessageType::MsgPropose {
            let (is_late, is_better) = (self.is_late(&message), self.is_better_than(&message));
            self.yield_to(&message);
            // An error here says that the message is stale or from a stranger: dropping it is the answer.
            let _ = self.node.step(message);
            if is_late {
                self.on_late_message();
            }
            if is_better {
                self.campaign();
            }
            self.pin();
        }
    }

    /// Appends to the leader's log; returns the entry's index, or `None` when it cannot be taken now.
    pub fn propose(&mut self, data: Vec<u8>) -> Option<u64> {
        if !self.is_leader() || self.node.propose(Vec::new(), data).is_err() {
            return None;
        }
        Some(self.node.raft.raft_log.last_index())
    }

    /// Appends a change of the membership; returns the entry's index, or `None` when it cannot be taken now.
    pub fn propose_conf_change(
        &mut self,
        context: Vec<u8>,
        member: MemberId,
        change: ConfChangeType,
    ) -> Option<u64> {
        if !self.is_leader() || self.has_pending_conf_change() {
            return None;
        }
        let mut single = ConfChangeSingle::default();
        single.set_change_type(change);
        single.set_node_id(member.0);
        let mut conf_change = ConfChangeV2::default();
        // Through joint consensus, left by the leader on its own.
        conf_change.set_transition(ConfChangeTransition::Implicit);
        conf_change.set_changes(vec![single].into());
        self.node.propose_conf_change(context, conf_change).ok()?;
        Some(self.node.raft.raft_log.last_index())
    }

    /// Whether a change of the membership is under way.
    #[must_use]
    pub fn has_pending_conf_change(&self) -> bool {
        self.node.raft.has_pending_conf()
            || !self.node.raft.prs().conf().to_conf_state().get_voters_outgoing().is_empty()
    }

    /// Follows a committed change of the membership.
    ///
    /// # Errors
    /// When the bytes are no change, or raft refuses it.
    pub fn apply_conf_change(&mut self, entry: &Entry) -> Result<(), ReplicaError> {
        let mut change = ConfChangeV2::default();
        change.merge_from_bytes(entry.get_data()).map_err(|e| decode_error("configuration change", &e))?;
        let state = self.node.apply_conf_change(&change)?;
        self.node.mut_store().set_conf_state(state);
        self.pin();
        Ok(())
    }

    /// Asks for a read barrier; its context comes back in [`ReadyOutput::reads`], or never.
    pub fn read_index(&mut self, context: Vec<u8>) {
        self.node.read_index(context);
    }

    /// Starts to hand leadership over.
    pub fn transfer_leader(&mut self, to: MemberId) {
        self.node.transfer_leader(to.0);
        self.pin();
    }

    /// Calls an election at once, unless a snapshot is being made durable.
    pub fn campaign(&mut self) {
        if self.installing.is_some() {
            return;
        }
        // Refused when this replica may not vote: then there is nothing to win.
        let _ = self.node.campaign();
        self.pin();
    }

    /// A peer could not be reached: its next appends are probes.
    pub fn report_unreachable(&mut self, member: MemberId) {
        self.node.report_unreachable(member.0);
    }

    /// How sending a snapshot ended.
    pub fn report_snapshot(&mut self, member: MemberId, delivered: bool) {
        let status = if delivered { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.node.report_snapshot(member.0, status);
    }

    /// The disk holds everything up to this request; returns the messages that waited for it.
    pub fn on_persisted(&mut self, number: u64) -> Vec<Message> {
        self.node.on_persist_ready(number);
        // Only what is durable may count as applied.
        if let Some((_, index)) = self.installing.take_if(|(persist, _)| *persist <= number) {
            self.node.advance_apply_to(index);
        }
        self.pin();
        let waiting = std::mem::take(&mut self.after_persist);
        let (now, later): (Vec<_>, Vec<_>) = waiting
            .into_iter()
            .partition(|(n, _)| *n <= number || planted!("canary_flush_answers_for_later_writes"));
        self.after_persist = later;
        now.into_iter().flat_map(|(_, messages)| messages).collect()
    }

    /// Entries up to this index are applied.
    pub fn on_applied(&mut self, index: u64) {
        self.node.advance_apply_to(index);
        self.pin();
    }

    /// Handles one Ready; `None` when there is nothing to do.
    pub fn take_ready(&mut self) -> Option<ReadyOutput> {
        if !self.node.has_ready() {
            return None;
        }
        if planted!("canary_commit_on_election") && self.is_leader() {
            let log = &mut self.node.raft.raft_log;
            log.commit_to(log.last_index());
        }
        // 1. Take what raft has to say.
        let mut ready = self.node.ready();
        let mut output = ReadyOutput { messages: ready.take_messages(), ..ReadyOutput::default() };
        let mut persist =
            Persist { number: ready.number(), must_sync: ready.must_sync(), ..Persist::default() };
        // 2. A snapshot replaces the log, in memory at once, on disk through the request.
        if !ready.snapshot().is_empty() {
            let point = self.node.mut_store().install(ready.snapshot());
            persist.reset_to = Some(point.index);
            self.installing = Some((persist.number, point.index));
            output.installed = Some(point);
        }
        // 3. New entries go to memory at once, so that raft finds them, and to disk through the request.
        let entries = ready.take_entries();
        if let Some(first) = entries.first().map(Entry::get_index) {
            persist.entries = entries.iter().map(|e| (e.get_index(), encode(e))).collect();
            let overlaps = self.node.mut_store().append(entries);
            persist.truncate_from = overlaps.then_some(first);
        }
        // 4. So does the hard state: term, vote and commit. A new commit index alone waits for the next write:
        //    Raft needs term and vote to survive, the commit index is found again by an election.
        if let Some(hard_state) = ready.hs() {
            self.node.mut_store().set_hard_state(hard_state.clone());
            self.commit_unwritten = true;
        }
        if self.commit_unwritten && (persist.must_sync || persist.reset_to.is_some()) {
            let hard_state = self.node.store().hard_state();
            persist.hard_state = Some(encode(hard_state));
            if planted!("canary_vote_not_persisted") {
                persist.hard_state = Some(encode(&HardState { vote: 0, ..hard_state.clone() }));
            }
            self.commit_unwritten = false;
        }
        // 5. Messages that vouch for what is being written wait until it is.
        let after = ready.take_persisted_messages();
        if planted!("canary_reply_before_fsync") {
            output.messages.extend(after);
        } else if !after.is_empty() {
            self.after_persist.push((persist.number, after));
        }
        // 6. Reads that were confirmed, and entries that a quorum has.
        output.reads = ready.take_read_states().into_iter().map(|r| (r.request_ctx, r.index)).collect();
        output.committed = ready.take_committed_entries();
        output.persist = Some(persist);
        // 7. Raft goes on without waiting for the disk.
        self.node.advance_append_async(ready);
        self.pin();
        Some(output)
    }

    /// Whether this replica leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// The leader of the present term, when known. One that may not ask for votes, and has heard nothing for longer than a voter
    /// would have waited, knows of none: Raft itself would name the last one for ever, also to a server that was removed and never
    /// heard of it.
    #[must_use]
    pub fn leader(&self) -> Option<MemberId> {
        let raft = &self.node.raft;
        let is_cut_off = raft.state == StateRole::Follower
            && !raft.promotable()
            && raft.election_elapsed >= 2 * self.config.election_ticks;
        Some(MemberId(raft.leader_id)).filter(|leader| leader.0 != raft::INVALID_ID && !is_cut_off)
    }

    /// The present term.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.node.raft.term
    }

    /// The last index that a quorum is known to have.
    #[must_use]
    pub fn commit_index(&self) -> u64 {
        self.node.raft.raft_log.committed
    }

    /// The last index of the log.
    #[must_use]
    pub fn last_index(&self) -> u64 {
        self.node.raft.raft_log.last_index()
    }

    /// How far a peer's log is known to agree with the leader's; `None` on followers and for strangers.
    #[must_use]
    pub fn matched(&self, member: MemberId) -> Option<u64> {
        if !self.is_leader() {
            return None;
        }
        self.node.raft.prs().get(member.0).map(|p| p.matched)
    }

    /// The configuration in force.
    #[must_use]
    pub fn conf_state(&self) -> ConfState {
        self.node.raft.prs().conf().to_conf_state()
    }

    /// Whether this replica votes in the configuration in force.
    #[must_use]
    pub fn is_voter(&self) -> bool {
        let state = self.conf_state();
        let id = self.config.member.0;
        state.get_voters().contains(&id) || state.get_voters_outgoing().contains(&id)
    }

    /// Whether the configuration in force has a member, in whatever role: a voter that leaves has a say until the
    /// joint configuration is left.
    #[must_use]
    pub fn is_configured(&self, member: MemberId) -> bool {
        log_view::knows(&self.conf_state(), member.0)
    }

    /// The log as it is kept in memory.
    #[must_use]
    pub fn log(&self) -> &LogView {
        self.node.store()
    }

    /// A snapshot at this point is durable: it may be sent, and the log before it may go.
    pub fn on_snapshot_saved(&mut self, point: SnapshotPoint, keep_entries: u64) -> u64 {
        self.node.mut_store().on_snapshot_saved(point, keep_entries)
    }

    /// Whether raft asked for a snapshot that does not exist yet; asking clears it.
    pub fn take_snapshot_wanted(&mut self) -> bool {
        self.node.mut_store().take_snapshot_wanted()
    }

    /// The one leak of entropy in raft: election timeouts are drawn from the operating system's generator.
    /// They are replaced by a value that follows from seed, member and term. While turns decide who calls an
    /// election early, none is called for the time-out.
    fn pin(&mut self) {
        let (term, config) = (self.node.raft.term, &self.config);
        if self.timeout.0 != term {
            let ticks = timeout::election_ticks(config.seed, config.member, term, config.election_ticks);
            self.timeout = (term, ticks);
        }
        let ticks = if self.dead.is_some() { 2 * config.election_ticks - 1 } else { self.timeout.1 };
        self.node.raft.set_randomized_election_timeout(ticks);
    }
}

fn decode_error(record: &'static str, error: &protobuf::ProtobufError) -> ReplicaError {
    ReplicaError::Decode { record, reason: error.to_string() }
}

/// A Raft record as bytes.
///
/// # Panics
/// Never for the records of this crate: they have no required fields.
#[must_use]
pub fn encode(message: &impl protobuf::Message) -> Vec<u8> {
    message.write_to_bytes().expect("raft records have no required fields")
}

/// Bytes as a Raft message.
///
/// # Errors
/// When they are none.
pub fn decode_message(bytes: &[u8]) -> Result<Message, ReplicaError> {
    Message::parse_from_bytes(bytes).map_err(|e| decode_error("message", &e))
}

/// Bytes as a Raft entry.
///
/// # Errors
/// When they are none.
pub fn decode_entry(bytes: &[u8]) -> Result<Entry, ReplicaError> {
    Entry::parse_from_bytes(bytes).map_err(|e| decode_error("entry", &e))
}

/// Bytes as a Raft hard state.
///
/// # Errors
/// When they are none.
pub fn decode_hard_state(bytes: &[u8]) -> Result<HardState, ReplicaError> {
    HardState::parse_from_bytes(bytes).map_err(|e| decode_error("hard state", &e))
}

/// Bytes as a Raft configuration.
///
/// # Errors
/// When they are none.
pub fn decode_conf_state(bytes: &[u8]) -> Result<ConfState, ReplicaError> {
    ConfState::parse_from_bytes(bytes).map_err(|e| decode_error("configuration", &e))
}

/// The point that a snapshot message stands for.
#[must_use]
pub fn snapshot_point(snapshot: &Snapshot) -> SnapshotPoint {
    let meta = snapshot.get_metadata();
    SnapshotPoint { index: meta.index, term: meta.term, conf_state: meta.get_conf_state().clone() }
}
