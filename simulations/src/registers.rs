//! Clients that treat a few objects as registers: put, compare-and-set, delete and read, each with its own
//! place in time, for the checker of linearizability. They also read at followers what they know to have
//! happened, and ask again what was answered before.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bulkhead_types::{
    Command, Kind, MemberId, Name, Namespace, Object, ObjectMeta, ObjectRef, Outcome, Precondition,
    RejectionCode, Revision, Stamped,
};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use uuid::Uuid;

use crate::clock::Micros;
use crate::invariants::linearizability::{Operation, Told};
use crate::invariants::{Verdict, Violation, acknowledged, answers, reads};
use crate::linearize::Span;
use crate::message::{Body, Call, Envelope, Request, Response};
use crate::network::Host;
use crate::rng::Rng;
use crate::script::What;
use crate::world::{CLIENT_RANK, Event, Phase, World};

/// Where a register's value is kept.
const ANNOTATION: &str = "value";
/// A client that was told to ask somebody else waits so long, in microseconds.
const RETRY_US: Micros = 20_000;
/// An operation is asked for so often, at most.
const ATTEMPTS_MAX: u32 = 6;
/// Answers that are asked for again, in thousandths.
const AGAIN_PERMILLE: u64 = 150;

/// All of these clients, and what they saw.
#[derive(Debug)]
pub(crate) struct Registers {
    pub(crate) clients: Vec<RegisterClient>,
    /// Operations by number, each with its object.
    history: BTreeMap<u64, (u64, Span<Operation>)>,
    /// Numbers moments, operations and values.
    count: u64,
    objects: u64,
    think_ms: u64,
}

/// One of them: one operation at a time.
#[derive(Debug)]
pub(crate) struct RegisterClient {
    /// Its number among all clients.
    pub(crate) number: u32,
    /// Where it asks, and whether it asks again.
    rng: Rng,
    /// What it wants, and when.
    will: Rng,
    /// What it was told to ask for while it was busy.
    backlog: VecDeque<Wish>,
    current: Option<Current>,
    alarm: u64,
    server: MemberId,
    /// What it saw last of each object.
    known: BTreeMap<u64, Option<(u64, Revision)>>,
    /// The highest revision that it knows of.
    reached: Revision,
}

/// What a client wants of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Which register.
    pub object: u64,
    /// What is to be done with it.
    pub how: How,
    /// The request's id, if it is to be changed.
    pub request_id: Uuid,
}

/// What is done with a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// It is read as it is now.
    Get,
    /// It is read anywhere, as of what the client knows or later.
    GetKnown,
    /// It gets a new value.
    Put,
    /// It gets a new value if it is still as the client saw it last.
    CompareAndSet,
    /// It is deleted.
    Delete,
}

/// What a client is doing.
#[derive(Debug)]
struct Current {
    object: u64,
    /// Its place in the history; none when it is not part of it.
    operation: Option<u64>,
    content: Content,
    call: Call,
    attempts: u32,
    uncertain: bool,
    asked: bool,
}

#[derive(Clone, Debug)]
enum Content {
    Submit(Box<Stamped>),
    /// It was answered so before.
    Again(Box<Stamped>, Outcome),
    /// With the least revision that must be seen, at whatever server.
    Get(Option<Revision>),
}

fn register(object: u64) -> ObjectRef {
    let name = Name::new(format!("register-{object}")).expect("the simulation makes valid names");
    ObjectRef { kind: Kind::Namespace, namespace: None, name }
}

fn with_value(object: u64, value: u64) -> Command {
    let mut meta = ObjectMeta::new(None, register(object).name);
    meta.annotations = [(SmolStr::new_static(ANNOTATION), SmolStr::new(value.to_string()))].into();
    Command::Apply(Object::Namespace(Arc::new(Namespace { meta })))
}

fn value_of(object: &Object) -> Option<(u64, Revision)> {
    let meta = object.meta();
    Some((meta.annotations.get(ANNOTATION)?.parse().ok()?, meta.revision))
}

impl Registers {
    /// `first` is the number of the first of these clients among all clients.
    pub(crate) fn new(seed: u64, first: u32, clients: u32, objects: u64, think_ms: u64) -> Self {
        let client = |n| RegisterClient {
            number: first + n,
            rng: Rng::child(seed, "register", u64::from(n)),
            will: Rng::child(seed, "register will", u64::from(n)),
            backlog: VecDeque::new(),
            current: None,
            alarm: 0,
            server: MemberId(1),
            known: BTreeMap::new(),
            reached: 0,
        };
        let clients = (0..clients).map(client).collect();
        Self { clients, history: BTreeMap::new(), count: 0, objects, think_ms }
    }

    /// The history of each object.
    pub(crate) fn histories(&self) -> BTreeMap<String, Vec<Span<Operation>>> {
        let mut histories = BTreeMap::<String, Vec<Span<Operation>>>::new();
        for (object, span) in self.history.values() {
            histories.entry(register(*object).to_string()).or_default().push(span.clone());
        }
        histories
    }

    /// A client that is doing something, if one is.
    pub(crate) fn busy(&self) -> Option<&RegisterClient> {
        self.clients.iter().find(|client| client.current.is_some())
    }

    fn count(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    fn invoke(&mut self, object: u64, operation: Operation) -> u64 {
        let number = self.count();
        self.history.insert(number, (object, Span { invoked: number, returned: None, operation }));
        number
    }

    fn settle(&mut self, number: u64, operation: Operation) {
        let returned = Some(self.count());
        if let Some((_, span)) = self.history.get_mut(&number) {
            *span = Span { returned, operation, ..span.clone() };
        }
    }

    /// Draws what a client wants next.
    fn draw(&mut self, index: usize) -> Wish {
        let will = &mut self.clients[index].will;
        let object = will.range(1, self.objects);
        let how = match will.range(0, 99) {
            0..35 => How::Get,
            35..50 => How::GetKnown,
            50..70 => How::Put,
            70..94 => How::CompareAndSet,
            _ => How::Delete,
        };
        Wish { object, how, request_id: will.uuid() }
    }

    /// What a client does for a wish, with what it knows now.
    fn current(&mut self, index: usize, wish: Wish) -> Current {
        let Wish { object, how, request_id } = wish;
        let value = self.count();
        let client = &self.clients[index];
        let known = client.known.get(&object).copied().flatten();
        let submit = |command, preconditions| {
            let actor = SmolStr::new(format!("user:client-{}", client.number));
            let commands = vec![command];
            let (proposed_at_ms, trace_context) = (0, None);
            let stamped =
                Stamped { request_id, actor, proposed_at_ms, trace_context, preconditions, commands };
            Content::Submit(Box::new(stamped))
        };
        let (operation, content) = match how {
            How::Get => (Some(Operation::Get(None)), Content::Get(None)),
            How::GetKnown => (None, Content::Get(Some(client.reached))),
            How::Put => (Some(Operation::Put(value, None)), submit(with_value(object, value), Vec::new())),
            How::CompareAndSet => {
                let expected = known.map(|(value, _)| value);
                let revision = known.map(|(_, revision)| revision);
                let preconditions = vec![Precondition { object: register(object), revision }];
                let operation = Operation::CompareAndSet { expected, value, told: Told::Unknown };
                (Some(operation), submit(with_value(object, value), preconditions))
            }
            How::Delete => {
                let command = Command::Delete { object: register(object), grace_ms: None, force: false };
                (Some(Operation::Delete(Told::Unknown)), submit(command, Vec::new()))
            }
        };
        let operation = operation.map(|operation| self.invoke(object, operation));
        Current { object, operation, content, call: 0, attempts: 0, uncertain: false, asked: false }
    }
}

/// The operation with what the client was told of its outcome.
fn told(operation: Operation, outcome: &Outcome) -> Result<Operation, Violation> {
    let refused = |code: RejectionCode| match outcome {
        Ok(revision) => Ok(Told::Done(*revision)),
        Err(rejection) if rejection.code == code => Ok(Told::Refused),
        Err(rejection) => {
            Err(Violation::new("linearizability", format!("{operation:?} was refused: {rejection}")))
        }
    };
    Ok(match (operation, outcome) {
        (Operation::Put(value, _), Ok(revision)) => Operation::Put(value, Some(*revision)),
        (Operation::CompareAndSet { expected, value, .. }, _) => {
            Operation::CompareAndSet { expected, value, told: refused(RejectionCode::Conflict)? }
        }
        (Operation::Delete(_), _) => Operation::Delete(refused(RejectionCode::NotFound)?),
        (Operation::Put(..) | Operation::Get(_), _) => {
            refused(RejectionCode::Conflict)?;
            let text = format!("{operation:?} was answered {outcome:?}");
            return Err(Violation::new("linearizability", text));
        }
    })
}

impl World {
    fn set_register_alarm(&mut self, index: usize, after_us: Micros) {
        let client = &mut self.registers.clients[index];
        client.alarm += 1;
        let (number, alarm) = (index as u32, client.alarm);
        self.queue.push(self.now_us + after_us, Event::Register { client: number, alarm });
    }

    /// The first operations come soon.
    pub(crate) fn start_registers(&mut self) {
        for index in 0..self.registers.clients.len() {
            let after_us = self.registers.clients[index].will.range(1, 2_000_000);
            self.set_next_wish(index, after_us);
        }
    }

    fn set_next_wish(&mut self, index: usize, after_us: Micros) {
        let rank = CLIENT_RANK + self.registers.clients[index].number;
        let event = Event::NextWish { client: index as u32 };
        self.queue.push_ranked(self.now_us + after_us, rank, event);
    }

    /// A client decides what it wants.
    pub(crate) fn next_wish(&mut self, client: u32) {
        let index = client as usize;
        if self.phase == Phase::Liveness || self.registers.clients[index].current.is_some() {
            return;
        }
        let wish = self.registers.draw(index);
        self.record(What::Register { client, wish });
        self.begin_wish(index, wish);
    }

    /// A client is told what to want, now or as soon as it can.
    pub(crate) fn wish(&mut self, client: u32, wish: Wish) {
        let index = client as usize;
        let Some(client) = self.registers.clients.get_mut(index) else { return };
        if client.current.is_none() {
            self.begin_wish(index, wish);
        } else {
            client.backlog.push_back(wish);
        }
    }

    fn begin_wish(&mut self, index: usize, wish: Wish) {
        let current = self.registers.current(index, wish);
        if let Content::Submit(stamped) = &current.content {
            self.oracle.submit(stamped);
        }
        self.registers.clients[index].current = Some(current);
        self.ask_register(index);
    }

    /// Time for the next attempt, or to wait no longer.
    pub(crate) fn wake_register(&mut self, number: u32, alarm: u64) {
        let index = number as usize;
        if self.registers.clients[index].alarm != alarm {
            return;
        }
        let Some(current) = self.registers.clients[index].current.as_mut() else { return };
        current.uncertain |= current.asked;
        if std::mem::take(&mut current.asked) {
            self.move_register(index, None);
        }
        self.ask_register(index);
    }

    fn move_register(&mut self, index: usize, hint: Option<MemberId>) {
        let members: Vec<MemberId> = self.servers.keys().copied().collect();
        let client = &mut self.registers.clients[index];
        client.server = hint.unwrap_or_else(|| *client.rng.pick(&members));
    }

    fn ask_register(&mut self, index: usize) {
        self.next_call += 1;
        let call = self.next_call;
        let client = &mut self.registers.clients[index];
        let (from, to) = (Host::Client(client.number), Host::Server(client.server));
        let Some(current) = client.current.as_mut() else { return };
        if current.attempts >= ATTEMPTS_MAX {
            return self.give_up_register(index);
        }
        current.attempts += 1;
        current.call = call;
        current.asked = true;
        let content = match &current.content {
            Content::Submit(stamped) | Content::Again(stamped, _) => Request::Submit(stamped.clone()),
            Content::Get(at_least) => Request::Get { object: register(current.object), at_least: *at_least },
        };
        self.send(from, to, Body::Request(Envelope { origin: from, call, via: None, content }));
        self.set_register_alarm(index, self.options.workload.timeout_ms * 1000);
    }

    fn give_up_register(&mut self, index: usize) {
        let Some(current) = self.registers.clients[index].current.take() else { return };
        match (&current.content, current.operation) {
            (Content::Submit(stamped), _) if current.uncertain => self.oracle.give_up(stamped.request_id),
            (Content::Submit(stamped), Some(operation)) => {
                self.oracle.refuse(stamped.request_id);
                self.registers.history.remove(&operation);
            }
            (Content::Get(_), Some(operation)) => _ = self.registers.history.remove(&operation),
            _ => {}
        }
        self.rest_register(index);
    }

    fn rest_register(&mut self, index: usize) {
        let think_ms = self.registers.think_ms;
        let client = &mut self.registers.clients[index];
        client.current = None;
        if self.phase == Phase::Liveness {
            return;
        }
        if self.script.is_some() {
            if let Some(wish) = client.backlog.pop_front() {
                self.begin_wish(index, wish);
            }
            return;
        }
        let after_us = client.will.wait(think_ms) * 1000;
        self.set_next_wish(index, after_us);
    }

    /// An answer arrives at one of these clients.
    pub(crate) fn answer_register(&mut self, index: usize, call: Call, answer: Response) {
        let Some(current) = self.registers.clients[index].current.as_mut() else { return };
        if !current.asked || current.call != call {
            return;
        }
        current.asked = false;
        match answer {
            Response::Done { outcome, .. } => {
                let verdict = self.learn_register(index, outcome);
                self.judge(verdict);
            }
            Response::Got { revision, object } => {
                let verdict = self.see_register(index, revision, object.as_deref());
                self.judge(verdict);
            }
            Response::Refused(_) => self.give_up_register(index),
            Response::NotLeader(hint) => {
                self.move_register(index, hint);
                self.set_register_alarm(index, RETRY_US);
            }
            Response::Lost => {
                current.uncertain = true;
                self.move_register(index, None);
                self.set_register_alarm(index, RETRY_US);
            }
            _ => {
                self.move_register(index, None);
                self.set_register_alarm(index, 10 * RETRY_US);
            }
        }
    }

    fn learn_register(&mut self, index: usize, outcome: Outcome) -> Verdict {
        let client = &mut self.registers.clients[index];
        let Some(current) = client.current.take() else { return Ok(()) };
        let stamped = match current.content {
            Content::Again(stamped, first) => {
                self.rest_register(index);
                return answers::check(stamped.request_id, &first, &outcome);
            }
            Content::Submit(stamped) => stamped,
            Content::Get(_) => return Ok(()),
        };
        client.reached = client.reached.max(outcome.as_ref().copied().unwrap_or(0));
        let asks_again = client.rng.chance(AGAIN_PERMILLE);
        let operation = current.operation.expect("a submission is part of the history");
        let asked = self.registers.history[&operation].1.operation;
        let operation_told = told(asked, &outcome)?;
        self.registers.settle(operation, operation_told);
        let known = match operation_told {
            Operation::Put(value, Some(revision))
            | Operation::CompareAndSet { value, told: Told::Done(revision), .. } => {
                Some(Some((value, revision)))
            }
            Operation::Delete(_) => Some(None),
            _ => None,
        };
        if let Some(known) = known {
            self.registers.clients[index].known.insert(current.object, known);
        }
        let id = stamped.request_id;
        acknowledged::check(id, &outcome, self.chronicle.outcomes(id))?;
        self.oracle.acknowledge(id, outcome.clone());
        if asks_again {
            self.move_register(index, None);
            let content = Content::Again(stamped, outcome);
            self.registers.clients[index].current =
                Some(Current { content, operation: None, attempts: 0, uncertain: false, ..current });
            self.set_register_alarm(index, RETRY_US);
        } else {
            self.rest_register(index);
        }
        Ok(())
    }

    fn see_register(&mut self, index: usize, revision: Revision, object: Option<&Object>) -> Verdict {
        let client = &mut self.registers.clients[index];
        let Some(current) = client.current.take() else { return Ok(()) };
        client.reached = client.reached.max(revision);
        let value = object.and_then(value_of);
        client.known.insert(current.object, value);
        if let Some(operation) = current.operation {
            self.registers.settle(operation, Operation::Get(value));
        }
        self.oracle.see(revision);
        self.rest_register(index);
        let Content::Get(at_least) = current.content else { return Ok(()) };
        let then = self.chronicle.timeline().named(&register(current.object), revision);
        reads::check_at_least(at_least.unwrap_or(0), revision, object, then)
    }
}
