//! Submissions on their way into the log: queued, batched into entries, answered after apply.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bulkhead_canary::planted;
use bulkhead_types::{AgentAck, LogRecord, ObjectId, Rejection, RejectionCode, Stamped, Transaction};
use uuid::Uuid;

use super::{Reply, Server, Ticket};
use crate::Applied;
use crate::decide::check_form;

/// Most submissions of one Raft entry.
pub const BATCH_COMMANDS_MAX: usize = 4096;
/// About the most bytes of one Raft entry: a batch is closed once it is reached.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// Most bytes of one submission, encoded.
pub const SUBMISSION_BYTES_MAX: usize = 2 << 20;
/// Most entries that are proposed but not applied: while they are under way, the next batch grows. Each entry
/// costs every member a flush, a task switch here and there and a message or two, so few large ones are better;
/// two keep disk and network busy while the other is on its way.
pub const INFLIGHT_ENTRIES_MAX: usize = 2;
/// Most submissions that wait; more are turned away.
pub const WAITING_MAX: usize = 1 << 17;

/// Who asked for a submission.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    /// A client: whoever waits for its request id is answered.
    Client,
    /// The control plane's own part of this name, which waits to see what it did.
    Own(&'static str),
    /// The same, when it calls a node unreachable, or fences it.
    Loss(&'static str, ObjectId),
    /// An agent, whose lease is renewed when its report is applied.
    Agent(Ticket, AgentAck),
    /// Somebody who does not wait.
    Nobody,
}

/// A submission in the queue.
#[derive(Debug)]
struct Queued {
    stamped: Stamped,
    origin: Origin,
}

/// Submissions on their way.
#[derive(Debug, Default)]
pub(super) struct Proposals {
    queue: VecDeque<Queued>,
    /// Who waits for a request.
    waiting: BTreeMap<Uuid, Vec<Ticket>>,
    /// How many wait.
    waiting_count: usize,
    /// Entries proposed in this term.
    inflight: BTreeMap<u64, Proposed>,
}

/// An entry that this server proposed.
#[derive(Debug)]
struct Proposed {
    term: u64,
    /// What it holds, until it is applied: its proposer need not read it back from its bytes.
    record: Option<LogRecord>,
    /// Who asked for its submissions, in order.
    origins: Vec<Origin>,
}

impl Proposals {
    fn wait(&mut self, request_id: Uuid, ticket: Ticket) {
        self.waiting.entry(request_id).or_default().push(ticket);
        self.waiting_count += 1;
    }

    pub(super) fn waiters(&mut self, request_id: Uuid) -> Vec<Ticket> {
        let tickets = self.waiting.remove(&request_id).unwrap_or_default();
        self.waiting_count -= tickets.len();
        tickets
    }

    /// Whether as many wait as may.
    pub(super) fn is_full(&self) -> bool {
        self.waiting_count >= WAITING_MAX
    }

    /// Registers somebody who waits for a request that is proposed on another way.
    pub(super) fn wait_for(&mut self, request_id: Uuid, ticket: Ticket) {
        self.wait(request_id, ticket);
    }

    /// Queues one of the control plane's own submissions.
    pub(super) fn push_own(&mut self, stamped: Stamped, origin: Origin) {
        self.queue.push_back(Queued { stamped, origin });
    }

    /// Who asked for the submissions of an entry that is applied now, in order.
    pub(super) fn settle(&mut self, index: u64) -> Vec<Origin> {
        self.inflight.remove(&index).map(|proposed| proposed.origins).unwrap_or_default()
    }

    /// What an entry holds, when it was proposed here in this term; given out once.
    pub(super) fn take_record(&mut self, index: u64, term: u64) -> Option<LogRecord> {
        self.inflight.get_mut(&index).filter(|proposed| proposed.term == term)?.record.take()
    }

    /// Forgets everything: leadership is lost. Returns who waited.
    pub(super) fn drop_all(&mut self) -> Vec<Ticket> {
        if planted!("canary_drop_all_ignored") {
            return Vec::new();
        }
        let queued = std::mem::take(&mut self.queue).into_iter().map(|q| q.origin);
        let proposed = std::mem::take(&mut self.inflight).into_values().flat_map(|p| p.origins);
        let agents = queued.chain(proposed).filter_map(|origin| match origin {
            Origin::Agent(ticket, _) => Some(ticket),
            _ => None,
        });
        self.waiting_count = 0;
        agents.chain(std::mem::take(&mut self.waiting).into_values().flatten()).collect()
    }

    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }
}

impl Server {
    pub(super) fn handle_submit(&mut self, ticket: Ticket, mut stamped: Stamped) {
        if let Some(refusal) = self.refuse_submission() {
            return self.reply(ticket, refusal);
        }
        if let Err(rejection) = check_form(&stamped) {
            return self.reply(ticket, Reply::Rejected(rejection));
        }
        for command in &stamped.commands {
            if let Err(rejection) = (self.config.authorize)(&stamped.actor, command) {
                return self.reply(ticket, Reply::Rejected(rejection));
            }
        }
        let needed = stamped.commands.iter().map(bulkhead_types::Command::feature_level).max().unwrap_or(1);
        if let Err(rejection) = crate::decide::check_level(self.machine.state(), needed) {
            return self.reply(ticket, Reply::Rejected(rejection));
        }
        if stamped.request_id.is_nil() {
            let rejection = Rejection::new(RejectionCode::Invalid, "request_id", "must not be nil")
                .with_remedy("choose a random UUID, and keep it for every retry");
            return self.reply(ticket, Reply::Rejected(rejection));
        }
        if planted!("canary_precondition_checked_early") {
            if let Err(rejection) = crate::decide::check(self.machine.state(), &stamped) {
                return self.reply(ticket, Reply::Rejected(rejection));
            }
            stamped.preconditions.clear();
        }
        stamped.proposed_at_ms = self.now_ms;
        self.proposals.wait(stamped.request_id, ticket);
        self.proposals.queue.push_back(Queued { stamped, origin: Origin::Client });
    }

    /// Why no submission can be taken now, if so.
    pub(super) fn refuse_submission(&self) -> Option<Reply> {
        let other_leader = self.replica.leader().filter(|l| *l != self.config.member);
        if self.disk_full && other_leader.is_none() {
            // Nobody else can take it either: with room here, this server would lead or help to elect a leader.
            Some(Reply::DiskFull)
        } else if !self.replica.is_leader() {
            Some(Reply::NotLeader(other_leader))
        } else if self.proposals.is_full() {
            Some(Reply::Overloaded)
        } else {
            None
        }
    }

    pub(super) fn reply(&mut self, ticket: Ticket, reply: Reply) {
        self.output.replies.push((ticket, reply));
    }

    /// Packs queued submissions into entries, as long as few enough are under way.
    pub(super) fn flush_proposals(&mut self) {
        while self.replica.is_leader()
            && !self.proposals.queue.is_empty()
            && self.proposals.inflight.len() < INFLIGHT_ENTRIES_MAX
        {
            let (batch, origins): (Vec<_>, Vec<_>) =
                self.pack().into_iter().map(|q| (q.stamped, q.origin)).unzip();
            let record = LogRecord::Batch(batch);
            let bytes = self.codec.encode_log(&record);
            match self.replica.propose(bytes) {
                Some(index) => {
                    let term = self.replica.term();
                    let proposed = Proposed { term, record: Some(record), origins };
                    self.proposals.inflight.insert(index, proposed);
                }
                None => {
                    // Raft takes nothing now (a transfer, or too much uncommitted): the batch keeps its place.
                    let LogRecord::Batch(batch) = record else { unreachable!("it was made above") };
                    for (stamped, origin) in batch.into_iter().zip(origins).rev() {
                        self.proposals.queue.push_front(Queued { stamped, origin });
                    }
                    break;
                }
            }
        }
    }

    fn pack(&mut self) -> Vec<Queued> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < BATCH_COMMANDS_MAX && bytes < BATCH_BYTES_MAX {
            let Some(queued) = self.proposals.queue.pop_front() else { break };
            bytes += approximate_bytes(&queued.stamped);
            batch.push(queued);
        }
        batch
    }

    /// Tells those who asked for an entry's submissions what became of them.
    pub(super) fn settle_entry(&mut self, index: u64, applied: &[Applied]) {
        for (origin, one) in self.proposals.settle(index).into_iter().zip(applied) {
            match (origin, &one.transaction.outcome) {
                (Origin::Own(name), _) => self.settled(name),
                (Origin::Loss(name, node), _) => {
                    if let Some(leader) = &mut self.leader {
                        leader.being_lost.remove(&node);
                    }
                    self.settled(name);
                }
                (Origin::Agent(ticket, ack), Ok(_)) => self.reply(ticket, Reply::Agent(ack)),
                (Origin::Agent(ticket, _), Err(rejection)) => {
                    self.reply(ticket, Reply::Rejected(rejection.clone()))
                }
                (Origin::Client | Origin::Nobody, _) => {}
            }
        }
        for one in applied.iter().filter(|one| !one.transaction.request_id.is_nil()) {
            self.answer(&one.transaction);
        }
    }

    /// Answers whoever waits for a request.
    fn answer(&mut self, transaction: &Transaction) {
        let waiters = self.proposals.waiters(transaction.request_id);
        if waiters.is_empty() {
            return;
        }
        let shared = Arc::new(transaction.clone());
        for ticket in waiters {
            self.reply(ticket, Reply::Applied(shared.clone()));
        }
    }
}

/// About how many bytes a submission takes in the log; exact sizes are checked at the edge.
fn approximate_bytes(stamped: &Stamped) -> usize {
    use bulkhead_types::{Command, Object};
    const SMALL: usize = 128;
    const OBJECT: usize = 1024;
    const ITEM: usize = 64;
    let of_object = |object: &Object| {
        let meta = object.meta();
        let strings =
            meta.annotations.iter().chain(&meta.labels).map(|(k, v)| k.len() + v.len()).sum::<usize>();
        OBJECT + strings
    };
    let of_command = |command: &Command| match command {
        Command::Create(object) | Command::Apply(object) => of_object(object),
        Command::ReportPods { reports, .. } => reports.len() * OBJECT,
        Command::BindPods { bindings } => bindings.len() * ITEM,
        Command::CreatePods { names, .. } => names.len() * ITEM,
        Command::DeletePods { pods, .. } => pods.len() * ITEM,
        Command::CreateOwned { object, .. } => of_object(object),
        Command::CreateOwnedPods { pods, .. } => pods.len() * ITEM,
        Command::DeleteOwnedPods { pods, .. } => pods.len() * ITEM,
        Command::SetPodsUnschedulable { pods } => pods.iter().map(|(_, text)| ITEM + text.len()).sum(),
        _ => SMALL,
    };
    SMALL + stamped.commands.iter().map(of_command).sum::<usize>()
}
