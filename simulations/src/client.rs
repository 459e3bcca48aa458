//! Clients: they submit and read, wait, and ask again with the same request id somewhere else.

use std::collections::VecDeque;

use bulkhead_types::{MemberId, Stamped};
use uuid::Uuid;

use crate::clock::Micros;
use crate::invariants::{acknowledged, reads};
use crate::message::{Body, Call, Envelope, Request, Response};
use crate::network::Host;
use crate::rng::Rng;
use crate::script::What;
use crate::world::{CLIENT_RANK, Event, Phase, World};

/// A client that was told to ask somebody else waits so long, in microseconds.
const RETRY_US: Micros = 20_000;
/// After the faults a client asks as often as it takes.
const CLOSING_ATTEMPTS_MAX: u32 = 1000;

/// One client: one operation at a time.
#[derive(Debug)]
pub(crate) struct Client {
    number: u32,
    /// Where it asks.
    rng: Rng,
    /// What it wants, and when.
    pub(crate) will: Rng,
    /// What it was told to ask for while it was busy.
    backlog: VecDeque<Option<Box<Stamped>>>,
    current: Option<Operation>,
    /// Counts what it waits for: an older alarm means nothing.
    alarm: u64,
    /// The server that it asks next.
    server: MemberId,
}

/// What a client is doing.
#[derive(Debug)]
struct Operation {
    /// `None` for a read.
    stamped: Option<Stamped>,
    call: Call,
    attempts: u32,
    /// Some attempt may have happened without the client's knowledge.
    uncertain: bool,
    /// What was known when the last attempt was made.
    floor: u64,
    /// An answer is waited for; otherwise the next attempt.
    asked: bool,
}

impl Client {
    pub(crate) fn new(number: u32, seed: u64) -> Self {
        let rng = Rng::child(seed, "client", u64::from(number));
        let will = Rng::child(seed, "will", u64::from(number));
        let backlog = VecDeque::new();
        Self { number, rng, will, backlog, current: None, alarm: 0, server: MemberId(1) }
    }

    fn host(&self) -> Host {
        Host::Client(self.number)
    }

    /// Whether it does nothing.
    pub(crate) fn is_idle(&self) -> bool {
        self.current.is_none()
    }
}

impl World {
    pub(crate) fn set_alarm(&mut self, client: usize, after_us: Micros) {
        let client = &mut self.clients[client];
        client.alarm += 1;
        let (number, alarm) = (client.number, client.alarm);
        self.queue.push(self.now_us + after_us, Event::Client { client: number, alarm });
    }

    /// A client's alarm goes off: time for the next operation, the next attempt, or to wait no longer.
    pub(crate) fn wake_client(&mut self, number: u32, alarm: u64) {
        let index = number as usize;
        if self.clients[index].alarm != alarm {
            return;
        }
        match self.clients[index].current.as_mut() {
            None => {}
            Some(operation) if operation.asked => {
                operation.uncertain = true;
                operation.asked = false;
                self.look_elsewhere(index, None);
                self.attempt(index);
            }
            Some(_) => self.attempt(index),
        }
    }

    /// Lets a client begin its next operation after a time.
    pub(crate) fn set_next_operation(&mut self, index: usize, after_us: Micros) {
        let client = self.clients[index].number;
        let event = Event::NextOperation { client };
        self.queue.push_ranked(self.now_us + after_us, CLIENT_RANK + client, event);
    }

    /// A client decides what to ask for.
    pub(crate) fn next_operation(&mut self, number: u32) {
        let client = &mut self.clients[number as usize];
        if self.phase == Phase::Liveness || !client.is_idle() {
            return;
        }
        let state = self.chronicle.state();
        let stamped = self.workload.next(&mut client.will, client.number, state);
        let submission = stamped.clone().map(Box::new);
        self.record(What::Operation { client: number, submission });
        self.begin(number as usize, stamped);
    }

    /// A client is told what to ask for, now or as soon as it can.
    pub(crate) fn ask(&mut self, number: u32, submission: Option<Box<Stamped>>) {
        let index = number as usize;
        if self.clients[index].is_idle() {
            self.begin(index, submission.map(|s| *s));
        } else {
            self.clients[index].backlog.push_back(submission);
        }
    }

    /// Lets an idle client submit this, or read.
    pub(crate) fn begin(&mut self, index: usize, stamped: Option<Stamped>) {
        if let Some(stamped) = &stamped {
            self.oracle.submit(stamped);
            self.counts.submitted += 1;
        }
        self.clients[index].current =
            Some(Operation { stamped, call: 0, attempts: 0, uncertain: false, floor: 0, asked: false });
        self.attempt(index);
    }

    fn attempt(&mut self, index: usize) {
        let attempts_max = match self.phase {
            Phase::Safety => self.options.workload.attempts_max,
            Phase::Liveness => CLOSING_ATTEMPTS_MAX,
        };
        self.next_call += 1;
        let (call, floor) = (self.next_call, self.oracle.floor());
        let client = &mut self.clients[index];
        let (from, to) = (client.host(), Host::Server(client.server));
        let Some(operation) = client.current.as_mut() else { return };
        if operation.attempts >= attempts_max {
            return self.give_up(index);
        }
        operation.attempts += 1;
        operation.call = call;
        operation.floor = floor;
        operation.asked = true;
        let content = match &operation.stamped {
            Some(stamped) => Request::Submit(Box::new(stamped.clone())),
            None => Request::Read,
        };
        let request = Envelope { origin: from, call, via: None, content };
        self.send(from, to, Body::Request(request));
        self.set_alarm(index, self.options.workload.timeout_ms * 1000);
    }

    fn give_up(&mut self, index: usize) {
        let Some(operation) = self.clients[index].current.take() else { return };
        if let Some(id) = operation.stamped.map(|s| s.request_id) {
            if operation.uncertain {
                self.oracle.give_up(id);
            } else {
                self.oracle.refuse(id);
            }
        }
        self.rest(index);
    }

    /// The operation is over; the next one comes later.
    fn rest(&mut self, index: usize) {
        self.clients[index].current = None;
        if self.phase == Phase::Liveness {
            return;
        }
        if self.script.is_some() {
            if let Some(next) = self.clients[index].backlog.pop_front() {
                self.begin(index, next.map(|s| *s));
            }
            return;
        }
        let after_us = self.clients[index].will.wait(self.options.workload.think_ms) * 1000;
        self.set_next_operation(index, after_us);
    }

    fn look_elsewhere(&mut self, index: usize, hint: Option<MemberId>) {
        let members: Vec<MemberId> = self.servers.keys().copied().collect();
        let client = &mut self.clients[index];
        client.server = hint.unwrap_or_else(|| *client.rng.pick(&members));
    }

    /// An answer arrives at a client.
    pub(crate) fn receive_answer(&mut self, number: u32, call: Call, answer: Response) {
        let index = number as usize;
        let Some(operation) = self.clients[index].current.as_mut() else { return };
        if !operation.asked || operation.call != call {
            return;
        }
        operation.asked = false;
        match answer {
            Response::Done { request_id, outcome } => self.learn(index, request_id, outcome),
            Response::Read { revision, applied_index, digest } => {
                let verdict = reads::check(operation.floor, revision);
                self.judge(verdict);
                let member = self.clients[index].server;
                let verdict = self.chronicle.check_digest(member, applied_index, digest);
                self.judge(verdict);
                self.oracle.see(revision);
                self.oracle.reads += 1;
                self.rest(index);
            }
            Response::Refused(_) => self.give_up(index),
            Response::NotLeader(hint) => {
                self.look_elsewhere(index, hint);
                self.set_alarm(index, RETRY_US);
            }
            Response::Lost => {
                operation.uncertain = true;
                self.look_elsewhere(index, None);
                self.set_alarm(index, RETRY_US);
            }
            Response::Busy => {
                self.look_elsewhere(index, None);
                self.set_alarm(index, 10 * RETRY_US);
            }
            Response::Got { .. } | Response::Joined(_) | Response::Ack(_) | Response::TransferStarted => {}
        }
    }

    fn learn(&mut self, index: usize, request_id: Uuid, outcome: bulkhead_types::Outcome) {
        let verdict = acknowledged::check(request_id, &outcome, self.chronicle.outcomes(request_id));
        self.judge(verdict);
        self.counts.acknowledged += 1;
        self.counts.accepted += u64::from(outcome.is_ok());
        self.oracle.acknowledge(request_id, outcome);
        self.rest(index);
    }
}
