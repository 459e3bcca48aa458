//! Changes of the membership, as the leader takes them in.
//!
//! One change is under way at a time, and a leader can judge one only once everything of earlier terms is applied:
//! until then changes wait here, so that nobody is refused because another one came first or an election just ended.

use std::collections::VecDeque;
use std::sync::Arc;

use bulkhead_canary::planted;
use bulkhead_types::{
    LogRecord, MemberId, MemberRole, MembershipAction, MembershipChange, Rejection, RejectionCode,
};
use raft::eraftpb::ConfChangeType;

use super::leader::Leadership;
use super::{Reply, Server, Ticket};
use crate::decide::decide_membership;

/// A learner may be promoted when it lacks at most so many entries: a voter far behind would hold up commits.
const PROMOTION_LAG_MAX: u64 = 1000;
/// Most changes that wait; more are turned away.
const WAITING_MAX: usize = 64;

/// A change that waits for its turn.
#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    change: MembershipChange,
    /// When it came, in ticks.
    since: u64,
}

/// Changes that wait for their turn.
#[derive(Debug, Default)]
pub(super) struct Changes(VecDeque<Waiting>);

impl Changes {
    /// Forgets all of them: leadership is lost. Returns who waited.
    pub(super) fn drop_all(&mut self) -> Vec<Ticket> {
        self.0.drain(..).map(|waiting| waiting.ticket).collect()
    }
}

/// Why a change is not made.
enum Refusal {
    /// It never will be.
    Final(Rejection),
    /// Somebody was not heard: that may be because this leader is new, or everything is slow.
    Unheard(Rejection),
}

impl Server {
    pub(super) fn handle_membership(&mut self, ticket: Ticket, change: MembershipChange) {
        if let Some(refusal) = self.refuse_submission() {
            return self.reply(ticket, refusal);
        }
        if self.changes.0.len() >= WAITING_MAX {
            return self.reply(ticket, Reply::Overloaded);
        }
        self.changes.0.push_back(Waiting { ticket, change, since: self.ticks });
    }

    /// Proposes what waits, one change after the other.
    pub(super) fn flush_changes(&mut self) {
        while !self.changes.0.is_empty()
            && self.leader.as_ref().is_some_and(Leadership::is_active)
            && !self.replica.has_pending_conf_change()
        {
            let Some(Waiting { ticket, change, since }) = self.changes.0.pop_front() else { return };
            let patient = self.ticks - since < self.hearing_ticks();
            let proposed = match self.check_membership(&change) {
                // A repeated request is answered by what became of it, not judged anew.
                Ok(()) if self.machine.state().request_outcome(change.request_id).is_some() => {
                    let answered = self.machine.apply_membership(&change);
                    self.reply(ticket, Reply::Applied(Arc::new(answered.transaction)));
                    continue;
                }
                Ok(()) => self.propose_change(ticket, &change),
                Err(Refusal::Unheard(_)) if patient => false,
                Err(Refusal::Unheard(rejection) | Refusal::Final(rejection)) => {
                    self.reply(ticket, Reply::Rejected(rejection));
                    continue;
                }
            };
            if !proposed {
                return self.changes.0.push_front(Waiting { ticket, change, since });
            }
        }
    }

    /// `false` when raft takes nothing now.
    fn propose_change(&mut self, ticket: Ticket, change: &MembershipChange) -> bool {
        let change = MembershipChange { proposed_at_ms: self.now_ms, ..change.clone() };
        let (member, kind) = match &change.action {
            MembershipAction::AddLearner { member, .. } if planted!("canary_learner_votes") => {
                (*member, ConfChangeType::AddNode)
            }
            MembershipAction::AddLearner { member, .. } => (*member, ConfChangeType::AddLearnerNode),
            MembershipAction::Promote { member } => (*member, ConfChangeType::AddNode),
            MembershipAction::Remove { member } => (*member, ConfChangeType::RemoveNode),
        };
        let context = self.codec.encode_log(&LogRecord::Membership(change.clone()));
        let proposed = self.replica.propose_conf_change(context, member, kind).is_some();
        if proposed {
            self.proposals.wait_for(change.request_id, ticket);
        }
        proposed
    }

    fn check_membership(&self, change: &MembershipChange) -> Result<(), Refusal> {
        if self.machine.state().request_outcome(change.request_id).is_some() {
            return Ok(());
        }
        decide_membership(self.machine.state(), change).outcome.map_err(Refusal::Final)?;
        match &change.action {
            MembershipAction::AddLearner { .. } => Ok(()),
            MembershipAction::Promote { .. } if change.force_unsafe => Ok(()),
            MembershipAction::Promote { member } => {
                let caught_up = self.check_caught_up(*member);
                let voters = self.voters_but(*member).chain(std::iter::once(*member)).collect();
                caught_up.and_then(|()| self.check_quorum(*member, voters)).map_err(Refusal::Unheard)
            }
            MembershipAction::Remove { member } => self.check_removable(*member, change.force_unsafe),
        }
    }

    fn voters_but(&self, member: MemberId) -> impl Iterator<Item = MemberId> + '_ {
        let voters = self.machine.state().members().filter(|m| m.role == MemberRole::Voter);
        voters.map(|m| m.member).filter(move |m| *m != member)
    }

    fn check_caught_up(&self, member: MemberId) -> Result<(), Rejection> {
        let refuse = |reason: String, remedy: String| {
            Err(Rejection::new(RejectionCode::NotAllowed, format!("member {member}"), reason)
                .with_remedy(remedy))
        };
        let matched = self.replica.matched(member).unwrap_or(0);
        if matched == 0 || !self.is_heard(member) {
            let reason = "has not answered yet: as a voter it would hold up the cluster".to_owned();
            return refuse(reason, "start its server with --join, and wait until it has the log".to_owned());
        }
        let lag = self.replica.last_index().saturating_sub(matched);
        if lag > PROMOTION_LAG_MAX {
            let reason = format!("is {lag} entries behind: as a voter it would hold up the cluster");
            return refuse(reason, format!("wait until it lacks at most {PROMOTION_LAG_MAX}"));
        }
        Ok(())
    }

    /// A voter may go when those that stay, and can be heard, are a majority of those that stay.
    fn check_removable(&self, member: MemberId, force_unsafe: bool) -> Result<(), Refusal> {
        let field = format!("member {member}");
        if member == self.config.member {
            let rejection = Rejection::new(RejectionCode::NotAllowed, field, "leads the cluster")
                .with_remedy("transfer the leadership first: bulkhead member transfer");
            return Err(Refusal::Final(rejection));
        }
        // A learner has no vote: its going changes no majority.
        if force_unsafe || self.machine.state().member(member).is_none_or(|m| m.role != MemberRole::Voter) {
            return Ok(());
        }
        self.check_quorum(member, self.voters_but(member).collect()).map_err(Refusal::Unheard)
    }

    /// Whether those of the voters-to-be that can be heard are a majority of them.
    fn check_quorum(&self, member: MemberId, voters: Vec<MemberId>) -> Result<(), Rejection> {
        let silent: Vec<String> =
            voters.iter().filter(|m| !self.is_heard(**m)).map(ToString::to_string).collect();
        let heard = voters.len() - silent.len();
        if heard > voters.len() / 2 {
            return Ok(());
        }
        let reason = format!(
            "after this change only {heard} of {} voters could be heard (silent: {}): the quorum would be lost. No \
             write, no linearizable read and no further change of the membership would be possible until they are \
             back; were they gone for good, only `bulkhead recover` would be left, which may lose acknowledged writes",
            voters.len(),
            silent.join(", ")
        );
        Err(Rejection::new(RejectionCode::NotAllowed, format!("member {member}"), reason).with_remedy(
            "bring back or replace the silent voters first (`bulkhead member replace ID`); --force-unsafe does it \
             all the same",
        ))
    }

    /// Whether a member was heard within two election time-outs.
    pub(super) fn is_heard(&self, member: MemberId) -> bool {
        member == self.config.member
            || self.contacts.get(&member).is_some_and(|tick| self.ticks - tick <= self.hearing_ticks())
    }

    /// Whoever was not heard for so many ticks counts as silent.
    fn hearing_ticks(&self) -> u64 {
        2 * self.config.election_ticks as u64
    }

    pub(super) fn handle_transfer(&mut self, ticket: Ticket, to: Option<MemberId>) {
        if !self.replica.is_leader() {
            return self.reply(ticket, Reply::NotLeader(self.replica.leader()));
        }
        // Who votes is known once everything of earlier terms is applied.
        if !self.leader.as_ref().is_some_and(Leadership::is_active) {
            return self.reply(ticket, Reply::NotLeader(None));
        }
        let reply = match to {
            Some(to) if to == self.config.member => Reply::TransferStarted(to),
            Some(to) if self.machine.state().voters().any(|m| m.member == to) => {
                self.replica.transfer_leader(to);
                Reply::TransferStarted(to)
            }
            Some(to) => Reply::Rejected(Rejection::new(
                RejectionCode::NotFound,
                format!("member {to}"),
                "is not a voter",
            )),
            None => match self.give_leadership_away() {
                Some(to) => Reply::TransferStarted(to),
                None => Reply::Rejected(Rejection::new(
                    RejectionCode::NotAllowed,
                    "members",
                    "there is no other voter",
                )),
            },
        };
        self.reply(ticket, reply);
    }
}
