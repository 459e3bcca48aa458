//! What only a leader does: run the reconcilers, keep soft state, look after the cluster itself.

use std::collections::BTreeSet;

use bulkhead_canary::planted;
use bulkhead_types::{Command, MemberId, MemberRole, NodePhase, Object, ObjectId, Stamped};
use smol_str::SmolStr;
use uuid::Uuid;

use super::proposals::Origin;
use super::{Fatal, PeerMessage, Reply, Server, TooOld};
use crate::reconcile::{Context, Reconcilers, SoftState};
use crate::{Applied, ChangeType};

/// The name under which the cluster's own housekeeping is proposed.
const HOUSEKEEPING: &str = "cluster";
/// A member that is not known yet makes itself known every so many ticks.
const ANNOUNCE_TICKS: u64 = 10;

/// One term of leadership.
pub(super) struct Leadership {
    term: u64,
    /// The first entry of the term. Until it is applied, earlier leaders' entries may still come, and nothing
    /// may be decided on the State.
    first_index: u64,
    reconcilers: Option<Reconcilers>,
    pub(super) soft: SoftState,
    /// Nodes that entries under way call unreachable, or fence.
    pub(super) being_lost: BTreeSet<ObjectId>,
    /// Whether a submission of the housekeeping is under way.
    housekeeping_inflight: bool,
}

impl Leadership {
    /// Whether everything of earlier terms is applied.
    pub(super) fn is_active(&self) -> bool {
        self.reconcilers.is_some()
    }
}

impl Server {
    /// Begins and ends terms of leadership as raft does.
    pub(super) fn follow_leadership(&mut self) {
        let term = self.replica.term();
        let leads = self.replica.is_leader();
        if self.leader.as_ref().is_some_and(|l| !leads || l.term != term) {
            self.leader = None;
            let waited = self.proposals.drop_all().into_iter().chain(self.changes.drop_all());
            for ticket in waited.collect::<Vec<_>>() {
                self.reply(ticket, Reply::Lost);
            }
        }
        if leads && self.leader.is_none() {
            self.leader = Some(Leadership {
                term,
                first_index: self.replica.last_index(),
                reconcilers: None,
                soft: SoftState::default(),
                being_lost: BTreeSet::new(),
                housekeeping_inflight: false,
            });
        }
        let (applied_index, now_ms, up_ms) =
            (self.applied_index, self.leader_clock_ms(), self.up_at_most_ms());
        let begins = |leader: &&mut Leadership| !leader.is_active() && leader.first_index <= applied_index;
        if let Some(leader) = self.leader.as_mut().filter(begins) {
            // Leases begin when everything of earlier terms is applied: an earlier leader's entries may still take
            // log time ahead by more than a lease.
            let since_up_ms = if planted!("canary_hasty_fence") { 0 } else { up_ms };
            leader.soft =
                SoftState::new(if planted!("canary_hasty_leader") { 0 } else { now_ms }, since_up_ms);
            let mut reconcilers = Reconcilers::new(self.config.reconcile.clone());
            reconcilers.reset(self.machine.state());
            leader.reconcilers = Some(reconcilers);
        }
    }

    /// What the leader goes by, milliseconds since the epoch: never before log time. An earlier leader's clock may
    /// have run ahead, and what is compared with log time must be counted with it, or every lease is over at once.
    pub(super) fn leader_clock_ms(&self) -> u64 {
        self.now_ms.max(self.machine.state().now_ms())
    }

    /// The most that the monotonic clock may show, milliseconds: ticks come late, never early, and the next one may be
    /// due. What is counted from here lasted at least as long as the ticks say.
    pub(super) fn up_at_most_ms(&self) -> u64 {
        (self.ticks + 1) * self.config.tick_ms
    }

    /// Lets the reconcilers look at the State, and queues what they want.
    pub(super) fn reconcile(&mut self) {
        let (now_ms, up_ms) = (self.leader_clock_ms(), self.ticks * self.config.tick_ms);
        self.housekeep(now_ms);
        let state = self.machine.state();
        if state.cluster_id().is_none() {
            return;
        }
        let Some(leader) = self.leader.as_mut() else { return };
        let Some(reconcilers) = leader.reconcilers.as_mut() else { return };
        let wanted = reconcilers.run(&Context { state, now_ms, up_ms, soft: &leader.soft });
        for proposal in wanted {
            let origin = match &proposal.command {
                Command::SetNodePhase { node, phase: NodePhase::Unreachable | NodePhase::Fenced, .. } => {
                    leader.being_lost.insert(*node);
                    Origin::Loss(proposal.reconciler, *node)
                }
                _ => Origin::Own(proposal.reconciler),
            };
            self.proposals.push_own(own_submission(proposal.reconciler, now_ms, proposal.command), origin);
        }
    }

    /// When the reconcilers want to be run again although nothing happens, milliseconds since the epoch.
    #[must_use]
    pub fn next_wake_ms(&self) -> Option<u64> {
        self.leader.as_ref()?.reconcilers.as_ref()?.next_wake_ms()
    }

    pub(super) fn observe(&mut self, applied: &[Applied]) {
        let Some(leader) = self.leader.as_mut() else { return };
        let Some(reconcilers) = leader.reconcilers.as_mut() else { return };
        for change in applied.iter().flat_map(|a| &a.changes) {
            reconcilers.observe(change);
            if let (Object::Node(node), ChangeType::Deleted) = (&change.object, change.change_type) {
                leader.soft.forget(node.meta.id);
            }
        }
    }

    pub(super) fn settled(&mut self, reconciler: &'static str) {
        let Some(leader) = self.leader.as_mut() else { return };
        if reconciler == HOUSEKEEPING {
            leader.housekeeping_inflight = false;
        } else if let Some(reconcilers) = leader.reconcilers.as_mut() {
            reconcilers.settled(reconciler);
        }
    }

    /// Names the cluster, registers this member, raises the feature level: one step at a time.
    fn housekeep(&mut self, now_ms: u64) {
        let idle = self.leader.as_ref().is_some_and(|l| l.is_active() && !l.housekeeping_inflight);
        if !idle {
            return;
        }
        let Some(command) = self.housekeeping_command() else { return };
        self.proposals.push_own(own_submission(HOUSEKEEPING, now_ms, command), Origin::Own(HOUSEKEEPING));
        if let Some(leader) = self.leader.as_mut() {
            leader.housekeeping_inflight = true;
        }
    }

    fn housekeeping_command(&self) -> Option<Command> {
        let state = self.machine.state();
        if state.cluster_id().is_none() {
            let (cluster_id, members) = (self.config.cluster_id, self.config.initial_members.clone());
            return Some(Command::InitCluster { cluster_id, members });
        }
        if let Some(register) = self.registration() {
            return Some(register);
        }
        // A new cluster begins with everything that its members support, once all have said so; from then on
        // somebody must ask for more, because there is no way back to older servers.
        let present = state.members().filter(|m| m.role != MemberRole::Removed);
        let level = present.map(|m| m.feature_level_max).min()?.min(self.config.feature_level_max);
        (state.feature_level() == 0 && level > 0).then_some(Command::RaiseFeatureLevel { level })
    }

    /// The command that makes this member known as it is; `None` when it is known so already, or is no member.
    fn registration(&self) -> Option<Command> {
        let record = self.machine.state().member(self.config.member)?;
        let known = record.storage_uid == self.config.storage_uid
            && record.address == self.config.address
            && record.version == self.config.version
            && record.feature_level_max == self.config.feature_level_max;
        let foreign = !record.storage_uid.is_nil() && record.storage_uid != self.config.storage_uid;
        (!known && !foreign && record.role != MemberRole::Removed).then(|| self.introduction())
    }

    /// The command that says what this member is.
    fn introduction(&self) -> Command {
        Command::RegisterMember {
            member: self.config.member,
            storage_uid: self.config.storage_uid,
            address: self.config.address.clone(),
            version: self.config.version.clone(),
            feature_level_max: self.config.feature_level_max,
        }
    }

    /// A follower that is not known as it is tells the leader.
    pub(super) fn announce_self(&mut self) {
        if self.replica.is_leader() || !self.ticks.is_multiple_of(ANNOUNCE_TICKS) {
            return;
        }
        if let (Some(leader), Some(command)) = (self.replica.leader(), self.registration()) {
            self.output.messages.push((leader, PeerMessage::Register(Box::new(command))));
            return;
        }
        self.ask_whether_it_belongs();
    }

    /// A learner calls no elections, so nobody hears of it: one that nobody has spoken to for a while speaks first, and
    /// is told if it was removed meanwhile.
    fn ask_whether_it_belongs(&mut self) {
        let quiet_ticks = 2 * self.config.election_ticks as u64;
        let is_heard = self.contacts.values().any(|tick| self.ticks.saturating_sub(*tick) <= quiet_ticks);
        if is_heard || self.replica.is_voter() {
            return;
        }
        let voters: Vec<MemberId> = self.machine.state().voters().map(|voter| voter.member).collect();
        for voter in voters {
            let introduction = PeerMessage::Register(Box::new(self.introduction()));
            self.output.messages.push((voter, introduction));
        }
    }

    pub(super) fn handle_register(&mut self, from: MemberId, command: Command) {
        let about_sender = matches!(&command, Command::RegisterMember { member, .. } if *member == from);
        let active = self.leader.as_ref().is_some_and(Leadership::is_active);
        if about_sender && active && self.proposals.queued() == 0 {
            let actor = format!("member:{from}");
            let stamped =
                Stamped { actor: SmolStr::new(actor), ..own_submission(HOUSEKEEPING, self.now_ms, command) };
            self.proposals.push_own(stamped, Origin::Nobody);
        }
    }

    /// Stops when the cluster says that this member is none any more, was another one, or is too old. A voter that
    /// goes stays until the joint configuration is left: with another voter down, the old majority may need it for
    /// that.
    pub(super) fn check_own_membership(&mut self) {
        let (level, supported) = (self.machine.state().feature_level(), self.config.feature_level_max);
        if level > supported {
            self.output.fatal = Some(Fatal::TooOld(TooOld { level, supported }));
            return;
        }
        let Some(record) = self.machine.state().member(self.config.member) else { return };
        if record.role == MemberRole::Removed && !self.replica.is_configured(self.config.member) {
            self.output.fatal.get_or_insert(Fatal::Removed(self.config.member));
        } else if !record.storage_uid.is_nil() && record.storage_uid != self.config.storage_uid {
            self.output.fatal = Some(Fatal::OtherStorage { member: self.config.member });
        }
    }

    pub(super) fn handle_disk_full(&mut self, full: bool) {
        self.disk_full = full;
        if full {
            self.give_leadership_away();
        }
    }

    /// Hands leadership to the most advanced other voter, if this server leads.
    pub(super) fn give_leadership_away(&mut self) -> Option<MemberId> {
        if !self.replica.is_leader() {
            return None;
        }
        let own = self.config.member;
        let candidates = self.machine.state().voters().map(|m| m.member).filter(|m| *m != own);
        let best = candidates.max_by_key(|m| (self.replica.matched(*m), std::cmp::Reverse(*m)))?;
        self.replica.transfer_leader(best);
        Some(best)
    }
}

/// A submission of the control plane's own.
pub(super) fn own_submission(reconciler: &str, now_ms: u64, command: Command) -> Stamped {
    Stamped {
        request_id: Uuid::nil(),
        actor: SmolStr::new(format!("system:{reconciler}")),
        proposed_at_ms: now_ms,
        trace_context: None,
        preconditions: Vec::new(),
        commands: vec![command],
    }
}
