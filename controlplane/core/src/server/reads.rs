//! Linearizable reads: many share one ReadIndex round.

use std::collections::BTreeMap;

use bulkhead_canary::planted;
use bulkhead_types::{AgentAck, MemberId};

use super::{Reply, Server, Ticket};

/// Who waits for a confirmed read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reader {
    /// Somebody who reads.
    Barrier(Ticket),
    /// An agent whose heartbeat counts only while this server still leads.
    Heartbeat(Ticket, AgentAck),
}

impl Reader {
    fn ticket(self) -> Ticket {
        match self {
            Self::Barrier(ticket) | Self::Heartbeat(ticket, _) => ticket,
        }
    }
}

/// One round under way.
#[derive(Debug)]
struct Round {
    readers: Vec<Reader>,
    /// Ticks since it was asked for.
    age_ticks: u64,
    /// Whether raft is to be asked at the next opportunity.
    ask_now: bool,
    /// The index that must be applied, once a quorum confirmed it.
    index: Option<u64>,
}

/// Reads on their way.
#[derive(Debug)]
pub(super) struct Reads {
    member: MemberId,
    next_round: u64,
    asked: Vec<Reader>,
    rounds: BTreeMap<u64, Round>,
}

/// A round without an answer is given up after so many election time-outs: nobody leads then, and its readers
/// are told so. Raft drops a read without a word while there is no leader, so the round is asked for again
/// every election time-out until then; confirming an early asking later is as good, because a read barrier
/// only promises what was true when it was asked for.
const ELECTIONS_MAX: u64 = 3;

impl Reads {
    pub(super) fn new(member: MemberId) -> Self {
        Self { member, next_round: 0, asked: Vec::new(), rounds: BTreeMap::new() }
    }

    pub(super) fn ask(&mut self, reader: Reader) {
        self.asked.push(reader);
    }

    pub(super) fn confirm(&mut self, context: &[u8], index: u64) {
        let Some(round) = round_of(context, self.member) else { return };
        if let Some(round) = self.rounds.get_mut(&round) {
            round.index.get_or_insert(index);
        }
    }

    /// Rounds without an answer age by one tick.
    pub(super) fn on_tick(&mut self, election_ticks: u64) {
        for round in self.rounds.values_mut().filter(|r| r.index.is_none()) {
            round.age_ticks += 1;
            round.ask_now = round.age_ticks % election_ticks == 0;
        }
    }

    /// Takes the readers of rounds that a quorum confirmed and that `applied_index` has reached.
    fn take_served(&mut self, applied_index: u64) -> Vec<Reader> {
        self.take(|round| {
            round.index.is_some_and(|index| index <= applied_index || planted!("canary_read_before_apply"))
        })
    }

    /// Takes the readers of rounds that nobody answered for too long.
    fn take_lost(&mut self, election_ticks: u64) -> Vec<Reader> {
        self.take(|round| round.index.is_none() && round.age_ticks >= ELECTIONS_MAX * election_ticks)
    }

    fn take(&mut self, which: impl Fn(&Round) -> bool) -> Vec<Reader> {
        let ids: Vec<u64> = self.rounds.iter().filter(|(_, round)| which(round)).map(|(id, _)| *id).collect();
        ids.iter().filter_map(|id| self.rounds.remove(id)).flat_map(|round| round.readers).collect()
    }

    /// Contexts to ask raft about: everything new as one round, and rounds whose asking may be lost.
    fn take_contexts(&mut self) -> Vec<Vec<u8>> {
        if !self.asked.is_empty() {
            self.next_round += 1;
            let readers = std::mem::take(&mut self.asked);
            self.rounds.insert(self.next_round, Round { readers, age_ticks: 0, ask_now: true, index: None });
        }
        let member = self.member;
        let due = self
            .rounds
            .iter_mut()
            .filter_map(|(id, round)| std::mem::take(&mut round.ask_now).then_some(*id));
        due.map(|id| context_of(id, member)).collect()
    }
}

impl Server {
    /// Asks raft to confirm what was asked for since the last time.
    pub(super) fn flush_reads(&mut self) {
        for context in self.reads.take_contexts() {
            self.replica.read_index(context);
        }
        for reader in self.reads.take_lost(self.config.election_ticks as u64) {
            self.reply(reader.ticket(), Reply::NotLeader(None));
        }
    }

    /// Answers every read whose index is applied.
    pub(super) fn serve_reads(&mut self) {
        for reader in self.reads.take_served(self.applied_index) {
            match reader {
                Reader::Barrier(ticket) => self.reply(ticket, Reply::ReadReady),
                // The quorum's word came to a leader; that it is this server itself must still hold, or the
                // word was given to another.
                Reader::Heartbeat(ticket, ack) if self.replica.is_leader() => {
                    self.reply(ticket, Reply::Agent(ack))
                }
                Reader::Heartbeat(ticket, _) => self.reply(ticket, Reply::NotLeader(self.replica.leader())),
            }
        }
    }
}

fn context_of(round: u64, member: MemberId) -> Vec<u8> {
    [member.0.to_be_bytes(), round.to_be_bytes()].concat()
}

fn round_of(context: &[u8], member: MemberId) -> Option<u64> {
    let (from, round) = context.split_first_chunk::<8>()?;
    (u64::from_be_bytes(*from) == member.0).then(|| round.try_into().ok().map(u64::from_be_bytes)).flatten()
}
