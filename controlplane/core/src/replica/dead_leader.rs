//! Early elections: what followers do once they are told that their leader's process has ended.
//!
//! They need not wait until the election time-out says so. Each treats the leader's lease as over, so that it grants
//! others its vote, and the voters call elections in turn: the lowest one at once, each further one some ticks later,
//! in case an earlier one has not the newest log or was heard too soon. A wrong report does no harm: who still hears
//! the leader ignores the pre-vote, and a leader that goes on to speak is followed again.

use bulkhead_types::MemberId;
use raft::StateRole;
use raft::eraftpb::{Message, MessageType};

use super::Replica;

/// Ticks between the candidates: time enough to win, on a usual network.
const TICKS_BETWEEN_CANDIDATES: usize = 3;
/// Heartbeats after the report from which on a message of the dead was not merely late: the report was wrong.
const LATE_HEARTBEATS: usize = 2;

/// A leader whose process was reported to have ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeadLeader {
    member: MemberId,
    /// The term that it led.
    term: u64,
    /// Ticks since the report.
    ticks: usize,
}

/// Whether it is the turn of the candidate of this rank, one of `voters`, so many ticks after the report. A turn lasts
/// until the next one's begins, and each of its ticks asks again: another voter may not have heard of the death before.
fn is_turn(ticks: usize, rank: usize, voters: usize) -> bool {
    (ticks / TICKS_BETWEEN_CANDIDATES) % voters.max(1) == rank
}

impl Replica {
    /// A peer's process has ended. When it led, an election is called without waiting for the time-out.
    pub fn report_down(&mut self, member: MemberId) {
        if self.leader() != Some(member) || !self.is_voter() || self.is_leader() {
            return;
        }
        let term = self.term();
        // It may be told more than once; its followers' turns count from the first time.
        if self.dead.is_some_and(|dead| (dead.member, dead.term) == (member, term)) {
            return;
        }
        self.dead = Some(DeadLeader { member, term, ticks: 0 });
        // From now on turns decide, not this replica's own time-out.
        self.pin();
        self.end_lease();
        self.take_turn();
    }

    /// Before each tick: calls an election when it is this replica's turn.
    pub(super) fn tick_dead(&mut self) {
        let ticks_max = 2 * self.config.election_ticks;
        // From the ordinary time-out on, the ordinary elections do it.
        if !self.mourns() || self.dead.is_some_and(|dead| dead.ticks >= ticks_max) {
            self.dead = None;
            return;
        }
        if let Some(dead) = &mut self.dead {
            dead.ticks += 1;
        }
        self.take_turn();
        // The tick that follows makes it the lower bound.
        self.node.raft.election_elapsed = self.config.election_ticks - 1;
    }

    /// What a message says about the dead, to be looked at before it is taken in.
    pub(super) fn is_late(&self, message: &Message) -> bool {
        self.dead.is_some_and(|dead| message.from == dead.member.0 && message.term == dead.term)
    }

    /// A message of the dead was taken in: it was under way when its sender died, or its sender lives.
    pub(super) fn on_late_message(&mut self) {
        let patience = LATE_HEARTBEATS * self.config.heartbeat_ticks;
        if self.dead.is_some_and(|dead| dead.ticks > patience) {
            self.dead = None;
        } else {
            self.end_lease();
        }
    }

    /// Whether a peer asks for a vote that it cannot get: this replica has the newer log, and need not wait for its
    /// own turn.
    pub(super) fn is_better_than(&self, message: &Message) -> bool {
        let log = &self.node.raft.raft_log;
        message.get_msg_type() == MessageType::MsgRequestPreVote
            && self.mourns()
            && self.node.raft.state != StateRole::Candidate
            && (message.log_term, message.index) < (log.last_term(), log.last_index())
    }

    /// Turns are counted from when each was told, so two may come at once, and again and again: who asks for pre-votes
    /// gives way to a lower member that asks as well and has no older log.
    pub(super) fn yield_to(&mut self, message: &Message) {
        let raft = &mut self.node.raft;
        let gives_way = message.get_msg_type() == MessageType::MsgRequestPreVote
            && raft.state == StateRole::PreCandidate
            && message.from < self.config.member.0
            && (message.log_term, message.index) >= (raft.raft_log.last_term(), raft.raft_log.last_index());
        if gives_way && self.dead.is_some() {
            self.node.raft.become_follower(self.term(), raft::INVALID_ID);
            self.end_lease();
        }
    }

    /// Whether the leader is known to be dead, and none has come after it.
    pub(super) fn mourns(&self) -> bool {
        self.dead.is_some_and(|dead| match self.leader() {
            Some(leader) => leader == dead.member && self.term() == dead.term,
            None => true,
        })
    }

    fn take_turn(&mut self) {
        let Some(dead) = self.dead else { return };
        let conf_state = self.conf_state();
        let mut voters = conf_state.voters;
        voters.extend(conf_state.voters_outgoing);
        voters.retain(|voter| *voter != dead.member.0);
        voters.sort_unstable();
        voters.dedup();
        let rank = voters.iter().filter(|voter| **voter < self.config.member.0).count();
        // Votes that are on their way are waited for.
        if is_turn(dead.ticks, rank, voters.len()) && self.node.raft.state != StateRole::Candidate {
            self.campaign();
        }
    }

    /// From the lower bound of the time-out on, this replica grants others its vote.
    fn end_lease(&mut self) {
        let raft = &mut self.node.raft;
        raft.election_elapsed = raft.election_elapsed.max(self.config.election_ticks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn voters_have_turns_of_their_own() {
        let turns = |rank| (0..14).filter(|ticks| is_turn(*ticks, rank, 2)).collect::<Vec<_>>();
        assert_eq!(turns(0), [0, 1, 2, 6, 7, 8, 12, 13]);
        assert_eq!(turns(1), [3, 4, 5, 9, 10, 11]);
    }
}
