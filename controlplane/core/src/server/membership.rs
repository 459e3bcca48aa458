//! Changes of the membership, as the leader takes them in.

use bulkhead_types::{
    LogRecord, MemberId, MemberRole, MembershipAction, MembershipChange, Rejection, RejectionCode,
};
use raft::eraftpb::ConfChangeType;

use super::{Reply, Server, Ticket};
use crate::decide::decide_membership;

/// A learner may be promoted when it lacks at most so many entries: a voter far behind would hold up commits.
const PROMOTION_LAG_MAX: u64 = 1000;

impl Server {
    pub(super) fn handle_membership(&mut self, ticket: Ticket, change: MembershipChange) {
        if let Some(refusal) = self.refuse_submission() {
            return self.reply(ticket, refusal);
        }
        let change = MembershipChange { proposed_at_ms: self.now_ms, ..change };
        if let Err(rejection) = self.check_membership(&change) {
            return self.reply(ticket, Reply::Rejected(rejection));
        }
        let (member, kind) = match &change.action {
            MembershipAction::AddLearner { member, .. } => (*member, ConfChangeType::AddLearnerNode),
            MembershipAction::Promote { member } => (*member, ConfChangeType::AddNode),
            MembershipAction::Remove { member } => (*member, ConfChangeType::RemoveNode),
        };
        let context = self.codec.encode_log(&LogRecord::Membership(change.clone()));
        match self.replica.propose_conf_change(context, member, kind) {
            Some(_) => self.proposals.wait_for(change.request_id, ticket),
            None => self.reply(ticket, Reply::Rejected(busy())),
        }
    }

    fn check_membership(&self, change: &MembershipChange) -> Result<(), Rejection> {
        // A request that was answered already is answered again by the log, not judged anew.
        if self.machine.state().request_outcome(change.request_id).is_some() {
            return Ok(());
        }
        decide_membership(self.machine.state(), change).outcome?;
        if self.replica.has_pending_conf_change() {
            return Err(busy());
        }
        match &change.action {
            MembershipAction::AddLearner { .. } => Ok(()),
            MembershipAction::Promote { member } => self.check_caught_up(*member),
            MembershipAction::Remove { member } => self.check_removable(*member),
        }
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
    fn check_removable(&self, member: MemberId) -> Result<(), Rejection> {
        let field = format!("member {member}");
        if member == self.config.member {
            return Err(Rejection::new(RejectionCode::NotAllowed, field, "leads the cluster")
                .with_remedy("transfer the leadership first"));
        }
        let staying: Vec<MemberId> = self
            .machine
            .state()
            .members()
            .filter(|m| m.role == MemberRole::Voter && m.member != member)
            .map(|m| m.member)
            .collect();
        let heard = staying.iter().filter(|m| self.is_heard(**m)).count();
        if heard > staying.len() / 2 {
            return Ok(());
        }
        let reason = format!(
            "without it only {heard} of {} voters can be heard: the cluster would stop",
            staying.len()
        );
        Err(Rejection::new(RejectionCode::NotAllowed, field, reason)
            .with_remedy("bring back or replace the silent voters first"))
    }

    /// Whether a member was heard within two election time-outs.
    pub(super) fn is_heard(&self, member: MemberId) -> bool {
        let horizon = 2 * self.config.election_ticks as u64;
        member == self.config.member
            || self.contacts.get(&member).is_some_and(|tick| self.ticks - tick <= horizon)
    }

    pub(super) fn handle_transfer(&mut self, ticket: Ticket, to: Option<MemberId>) {
        if !self.replica.is_leader() {
            return self.reply(ticket, Reply::NotLeader(self.replica.leader()));
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

fn busy() -> Rejection {
    Rejection::new(RejectionCode::NotAllowed, "members", "another change of the membership is under way")
        .with_remedy("try again in a moment")
}
