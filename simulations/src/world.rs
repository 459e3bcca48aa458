//! The world: all hosts, one clock, one queue of what happens next.

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_controlplane_core::ChangeType;
use bulkhead_controlplane_core::server::{AppliedEntry, Input};
use bulkhead_nodeagent_core::Agent;
use bulkhead_proto::ProtoCodec;
use bulkhead_storage::Identity;
use bulkhead_types::{MemberId, NodePhase, Object, ObjectId, SharedCodec};

use crate::agent_host::AgentHost;
use crate::chronicle::Chronicle;
use crate::client::Client;
use crate::clock::{HostClock, Micros};
use crate::disk::ServerDisk;
use crate::filling::Filling;
use crate::guest_life::GuestEvent;
use crate::invariants::linearizability::Checked;
use crate::invariants::{Verdict, Violation, leases, membership, physical};
use crate::message::Body;
use crate::nemesis::Nemesis;
use crate::network::{Host, Network, Packet};
use crate::operator::Change;
use crate::options::{Options, contract};
use crate::oracle::Oracle;
use crate::queue::Queue;
use crate::registers::Registers;
use crate::rng::Rng;
use crate::safety::{RunConfig, Tripwire};
use crate::script::{Decision, Recorder, Script, What};
use crate::server_host::{CLUSTER_ID, ServerHost, roles};
use crate::trace::Trace;
use crate::watching::{Watcher, watchers};
use crate::workload::Workload;

/// Live States are compared in depth so often, in microseconds.
const CHECK_US: Micros = 2_000_000;

/// Faults come before everything else that happens at their moment …
pub(crate) const FAULT_RANK: u32 = 0;
/// … then clients begin operations, in the order of their numbers …
pub(crate) const CLIENT_RANK: u32 = 1;
/// … and then the faults' phase ends.
const CALM_RANK: u32 = u32::MAX - 1;
/// A phase of faults in which too little has happened goes on for so long, in microseconds, …
const EXTENSION_US: Micros = 5_000_000;
/// … until it is so many times as long as it should be.
const EXTENSIONS_MAX: u64 = 20;

/// Whether things go wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// They do, and nothing bad may happen.
    Safety,
    /// They do no more, and something good must happen.
    Liveness,
}

/// What happens at a moment. What belongs to one life of a server carries that life's number.
#[derive(Debug)]
pub(crate) enum Event {
    Tick {
        member: MemberId,
        life: u32,
    },
    Pump {
        member: MemberId,
        life: u32,
    },
    Flushed {
        member: MemberId,
        life: u32,
    },
    LookForSpace {
        member: MemberId,
        life: u32,
    },
    HistoryTurn {
        member: MemberId,
        life: u32,
    },
    WatchTurn {
        member: MemberId,
        life: u32,
        stream: u64,
    },
    NextWish {
        client: u32,
    },
    Register {
        client: u32,
        alarm: u64,
    },
    NextWatch {
        watcher: u32,
    },
    Watcher {
        watcher: u32,
        alarm: u64,
    },
    TransferLate {
        member: MemberId,
        life: u32,
        transfer: u64,
        progress: u32,
    },
    SnapshotComplete {
        member: MemberId,
        life: u32,
        transfer: u64,
    },
    Restart {
        member: MemberId,
    },
    Deliver(Box<Packet>),
    Client {
        client: u32,
        alarm: u64,
    },
    NextOperation {
        client: u32,
    },
    Fault,
    /// A decision of the script that is replayed.
    Decided {
        number: usize,
    },
    Calm,
    Heal {
        number: u64,
    },
    Operate,
    DiskRelief {
        member: MemberId,
    },
    Check,
    AgentStart {
        agent: u32,
    },
    AgentWake {
        agent: u32,
        life: u32,
    },
    JoinLate {
        agent: u32,
        life: u32,
        call: u64,
    },
    Guest {
        agent: u32,
        boot: u32,
        event: Box<GuestEvent>,
    },
}

impl Event {
    /// The server whose process it is for, if it is for one.
    fn server(&self) -> Option<MemberId> {
        match self {
            Self::Tick { member, .. }
            | Self::Pump { member, .. }
            | Self::Flushed { member, .. }
            | Self::LookForSpace { member, .. }
            | Self::HistoryTurn { member, .. }
            | Self::WatchTurn { member, .. }
            | Self::TransferLate { member, .. }
            | Self::SnapshotComplete { member, .. } => Some(*member),
            Self::Deliver(packet) => match packet.to {
                Host::Server(member) => Some(member),
                _ => None,
            },
            _ => None,
        }
    }
}

/// How much happened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) steps: u64,
    pub(crate) entries: u64,
    pub(crate) submitted: u64,
    pub(crate) acknowledged: u64,
    pub(crate) accepted: u64,
    pub(crate) snapshots_saved: u64,
    pub(crate) snapshots_received: u64,
    pub(crate) guests: u64,
    pub(crate) unique: u64,
    pub(crate) watched: u64,
    pub(crate) watches_refused: u64,
    pub(crate) linearizability: Checked,
}

/// Everything there is.
pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) now_us: Micros,
    pub(crate) phase: Phase,
    pub(crate) queue: Queue<Event>,
    pub(crate) trace: Trace,
    pub(crate) rng: Rng,
    pub(crate) network: Network,
    pub(crate) servers: BTreeMap<MemberId, ServerHost>,
    pub(crate) agents: Vec<AgentHost>,
    pub(crate) clients: Vec<Client>,
    pub(crate) registers: Registers,
    pub(crate) watchers: Vec<Watcher>,
    pub(crate) workload: Workload,
    pub(crate) nemesis: Nemesis,
    pub(crate) chronicle: Chronicle,
    pub(crate) oracle: Oracle,
    pub(crate) codec: SharedCodec,
    pub(crate) logger: slog::Logger,
    pub(crate) counts: Counts,
    pub(crate) next_call: u64,
    pub(crate) next_transfer: u64,
    pub(crate) violation: Option<Violation>,
    /// The change of the members that is under way.
    pub(crate) replacement: Option<Change>,
    /// When the last one was over.
    pub(crate) changed_us: Micros,
    pub(crate) operator_rng: Rng,
    /// What is told instead of being decided.
    pub(crate) script: Option<Arc<Script>>,
    /// Where decisions are written down, when that is wanted.
    pub(crate) recorder: Option<Recorder>,
    /// A run that may not go on for longer than it was told to.
    is_cut_short: bool,
    /// How often live States were compared.
    checks: usize,
    /// Looked at after every new entry, for tests.
    pub(crate) tripwire: Option<Tripwire>,
    /// Since when everything has been as it should be.
    pub(crate) calm_since_us: Option<Micros>,
    /// Since when that is waited for.
    pub(crate) awaited_since_us: Micros,
    /// The rollout on a full cluster.
    pub(crate) filling: Filling,
}

impl World {
    /// Everything at its beginning.
    pub(crate) fn new(options: Options, config: &RunConfig) -> Self {
        let seed = options.seed;
        let mut world = Self {
            now_us: 0,
            phase: Phase::Safety,
            queue: Queue::default(),
            trace: Trace::new(config.detail),
            rng: Rng::child(seed, "world", 0),
            network: Network::new(options.network.clone(), seed),
            servers: BTreeMap::new(),
            agents: Vec::new(),
            clients: (0..options.clients).map(|n| Client::new(n, seed)).collect(),
            registers: Registers::new(
                seed,
                options.clients,
                options.observers.registers,
                options.observers.register_objects,
                options.observers.register_think_ms,
            ),
            watchers: watchers(
                seed,
                options.clients + options.observers.registers,
                options.observers.watchers,
                options.agents,
            ),
            workload: Workload::new(options.workload.clone(), options.agents),
            nemesis: Nemesis::new(options.faults.clone(), seed),
            chronicle: Chronicle::default(),
            oracle: Oracle::default(),
            codec: Arc::new(ProtoCodec),
            logger: slog::Logger::root(slog::Discard, slog::o!()),
            counts: Counts::default(),
            next_call: 0,
            next_transfer: 0,
            violation: None,
            replacement: None,
            changed_us: 0,
            operator_rng: Rng::child(seed, "operator", 0),
            script: config.script.clone(),
            recorder: config.record.clone(),
            is_cut_short: config.shape.ticks.is_some(),
            checks: 0,
            tripwire: config.tripwire,
            calm_since_us: None,
            awaited_since_us: 0,
            filling: if options.workload.fill_replicas > 0 { Filling::Waits } else { Filling::Over },
            options,
        };
        world.set_up();
        world
    }

    fn set_up(&mut self) {
        let voters: Vec<MemberId> = (1..=self.options.servers).map(MemberId).collect();
        for member in &voters {
            self.add_server(*member, Some(voters.clone()));
        }
        for agent in 0..self.options.agents {
            self.add_agent(agent);
        }
        self.queue.push(CHECK_US, Event::Check);
        match self.script.clone() {
            Some(script) => self.follow(&script),
            None => {
                self.start_registers();
                self.start_watchers();
                for index in 0..self.clients.len() {
                    let after_us = self.clients[index].will.range(1, 1_000_000);
                    self.set_next_operation(index, after_us);
                }
                self.queue.push_ranked(1_000_000, FAULT_RANK, Event::Fault);
                self.queue.push_ranked(self.options.safety_ms * 1000, CALM_RANK, Event::Calm);
            }
        }
    }

    /// Decides nothing, and does what the script says.
    fn follow(&mut self, script: &Script) {
        for (number, decision) in script.decisions.iter().enumerate() {
            let rank = match decision.what {
                What::Fault(_) => FAULT_RANK,
                What::Operation { client, .. } => CLIENT_RANK + client,
                What::Register { client, .. } => CLIENT_RANK + self.options.clients + client,
                What::Watch { watcher, .. } => {
                    CLIENT_RANK + self.options.clients + self.options.observers.registers + watcher
                }
            };
            self.queue.push_ranked(decision.at_us, rank, Event::Decided { number });
        }
        self.queue.push_ranked(script.header.calm_at_us, CALM_RANK, Event::Calm);
    }

    fn follow_decision(&mut self, number: usize) {
        let Some(script) = self.script.clone().filter(|_| self.phase == Phase::Safety) else { return };
        match &script.decisions[number].what {
            What::Fault(fault) => self.inject(fault.clone()),
            What::Operation { client, submission } => {
                if (*client as usize) < self.clients.len() {
                    self.ask(*client, submission.clone());
                }
            }
            What::Register { client, wish } => self.wish(*client, *wish),
            What::Watch { watcher, wanted } => self.watch(*watcher, (**wanted).clone()),
        }
    }

    /// Writes a decision down, when that is wanted.
    pub(crate) fn record(&mut self, what: What) {
        let at_us = self.now_us;
        if let Some(recorder) = &self.recorder {
            recorder.note(Decision { at_us, what });
        }
    }

    /// The faults end, unless too little has happened for the run to be worth anything.
    fn end_faults(&mut self) {
        let may_go_on = !self.is_cut_short
            && self.script.is_none()
            && self.now_us < EXTENSIONS_MAX * self.options.safety_ms * 1000;
        if may_go_on && crate::safety::worth(self).is_some() {
            return self.queue.push_ranked(self.now_us + EXTENSION_US, CALM_RANK, Event::Calm);
        }
        self.become_calm();
    }

    /// A machine with an empty disk, switched on.
    pub(crate) fn add_server(&mut self, member: MemberId, founders: Option<Vec<MemberId>>) {
        let identity = Identity {
            cluster_id: CLUSTER_ID.into_bytes(),
            member_id: member.0,
            storage_uid: self.rng.uuid().into_bytes(),
        };
        let disk = ServerDisk::new(identity, self.options.disk.clone(), self.options.seed);
        let clock = self.draw_clock();
        self.servers.insert(member, ServerHost::new(member, disk, clock, founders));
        let at_us = self.now_us + self.rng.range(0, 100_000);
        self.queue.push(at_us, Event::Restart { member });
    }

    pub(crate) fn draw_clock(&mut self) -> HostClock {
        let (drift, offset) = (self.options.drift_ppm_max, self.options.offset_ms_max);
        let drift_ppm = self.rng.range(0, 2 * drift) as i64 - drift as i64;
        let offset_ms = self.rng.range(0, 2 * offset) as i64 - offset as i64;
        HostClock::new(drift_ppm, offset_ms)
    }

    /// Lets the next thing happen.
    pub(crate) fn step(&mut self) {
        let (at_us, event) = self.queue.pop().expect("ticks go on for ever");
        self.now_us = at_us;
        self.counts.steps += 1;
        crate::canaries::note_step(self.counts.steps);
        // What is for a process that stands still happens when it goes on, in the same order.
        if let Some(host) = event.server().and_then(|m| self.servers.get(&m))
            && host.up.is_some()
            && host.paused_until_us > at_us
        {
            let until_us = host.paused_until_us;
            return self.queue.push(until_us, event);
        }
        match event {
            Event::Tick { member, life } => self.tick_server(member, life),
            Event::Pump { member, life } => self.pump(member, life),
            Event::Flushed { member, life } => self.flush_log(member, life),
            Event::LookForSpace { member, life } => self.look_for_space(member, life),
            Event::HistoryTurn { member, life } => self.turn_history(member, life),
            Event::WatchTurn { member, life, stream } => self.turn_to_watch(member, life, stream),
            Event::TransferLate { member, life, transfer, progress } => {
                self.transfer_late(member, life, transfer, progress);
            }
            Event::SnapshotComplete { member, life, transfer } => {
                self.complete_snapshot(member, life, transfer);
            }
            Event::Restart { member } => self.start_server(member),
            Event::Deliver(packet) => self.deliver(*packet),
            Event::Client { client, alarm } => self.wake_client(client, alarm),
            Event::NextOperation { client } => self.next_operation(client),
            Event::NextWish { client } => self.next_wish(client),
            Event::Register { client, alarm } => self.wake_register(client, alarm),
            Event::NextWatch { watcher } => self.next_watch(watcher),
            Event::Watcher { watcher, alarm } => self.wake_watcher(watcher, alarm),
            Event::Fault if self.phase == Phase::Safety => self.fault(),
            Event::Fault => {}
            Event::Decided { number } => self.follow_decision(number),
            Event::Calm => self.end_faults(),
            Event::Heal { number } => {
                self.note(Host::World, "heal", u128::from(number), String::new);
                self.network.heal(number);
            }
            Event::Operate => self.operate(),
            Event::DiskRelief { member } => {
                if let Some(host) = self.servers.get_mut(&member) {
                    host.disk.set_full(false);
                }
            }
            Event::Check => {
                self.queue.push(at_us + CHECK_US, Event::Check);
                self.check(false);
            }
            Event::AgentStart { agent } => self.start_agent(agent),
            Event::AgentWake { agent, life } => self.wake_agent(agent, life),
            Event::JoinLate { agent, life, call } => self.join_late(agent, life, call),
            Event::Guest { agent, boot, event } => self.guest_event(agent, boot, *event),
        }
    }

    /// Sends something over the network.
    pub(crate) fn send(&mut self, from: Host, to: Host, body: Body) {
        if self.network.is_blocked(from, to) {
            self.stream_breaks(from, to, &body);
        }
        let packet = Packet { from, to, body };
        let (at_us, copy_us) = self.network.send(self.now_us, &packet);
        if let (Some(copy_us), Some(body)) = (copy_us, packet.body.copy()) {
            self.queue.push(copy_us, Event::Deliver(Box::new(Packet { from, to, body })));
        }
        if let Some(at_us) = at_us {
            self.queue.push(at_us, Event::Deliver(Box::new(packet)));
        }
    }

    fn deliver(&mut self, packet: Packet) {
        let Packet { from, to, body } = packet;
        if self.network.is_blocked(from, to) {
            self.stream_breaks(from, to, &body);
            return self.network.count_blocked();
        }
        let (label, digest) = body.summary();
        self.note(to, label, digest, || format!("from {from}: {}", body.text()));
        match to {
            Host::Server(member) => self.deliver_to_server(member, from, body),
            Host::Client(number) => self.deliver_to_client(number, body),
            Host::Agent(number) => self.deliver_to_agent(number, from, body),
            Host::World => {}
        }
    }

    /// Clients are numbered through: those of the workload, those with registers, watchers.
    fn deliver_to_client(&mut self, number: u32, body: Body) {
        let index = number as usize;
        let registers = self.clients.len() + self.registers.clients.len();
        match body {
            Body::Response(answer) if index < self.clients.len() => {
                self.receive_answer(number, answer.call, answer.content);
            }
            Body::Response(answer) => {
                self.answer_register(index - self.clients.len(), answer.call, answer.content);
            }
            Body::Watch(message) => self.tell_watcher(index - registers, message),
            _ => {}
        }
    }

    /// What cannot be delivered ends its stream: streams lose nothing in their middle.
    fn stream_breaks(&mut self, from: Host, to: Host, body: &Body) {
        match (from, to, body) {
            (Host::Server(member), Host::Agent(agent), Body::Intent(_)) => self.cut_stream(member, agent),
            (Host::Server(member), _, Body::Watch(message)) => self.cut_watch(member, message),
            _ => {}
        }
    }

    fn deliver_to_server(&mut self, member: MemberId, from: Host, body: Body) {
        match (body, from) {
            (Body::Peer(message), Host::Server(from)) => self.give(member, Input::Peer { from, message }),
            (Body::Request(request), _) => self.receive_request(member, request),
            // An answer on its way through the server that passed the request on.
            (Body::Response(answer), _) if self.servers.get(&member).is_some_and(|h| h.up.is_some()) => {
                let origin = answer.origin;
                self.send(Host::Server(member), origin, Body::Response(answer));
            }
            (Body::Chunk(chunk), Host::Server(from)) => self.receive_chunk(member, from, chunk),
            (Body::ChunkAnswer { transfer, next, taken }, _) => {
                self.receive_chunk_answer(member, transfer, next, taken);
            }
            (Body::Watch(message), _) => self.serve_watch(member, from, message),
            (Body::Connect { node, incarnation }, Host::Agent(agent)) => {
                self.connect_agent(member, agent, node, incarnation);
            }
            _ => {}
        }
    }

    /// A new entry was applied for the first time: what it calls gone or ended must have no guest.
    pub(crate) fn observe_entry(&mut self, entry: &AppliedEntry) {
        for change in entry.applied.iter().flat_map(|one| &one.changes) {
            if let (Object::Node(node), Some(Object::Node(former))) = (&change.object, &change.former)
                && node.status.phase == NodePhase::Unreachable
                && former.status.phase != NodePhase::Unreachable
            {
                self.observe_loss(node.meta.id);
            }
            let Object::Pod(pod) = &change.object else { continue };
            let what = match &change.former {
                _ if change.change_type == ChangeType::Deleted => "deleted",
                Some(Object::Pod(former))
                    if pod.status.phase.is_terminal() && !former.status.phase.is_terminal() =>
                {
                    "over"
                }
                _ => continue,
            };
            let verdict = physical::gone(what, pod.meta.id, self.has_guest(pod.meta.id));
            self.judge(verdict);
        }
        if let Some(Tripwire(look)) = self.tripwire
            && let Some(detail) = look(self.chronicle.state(), &self.nemesis.counts)
        {
            self.fail(Violation::new("tripwire", detail));
        }
    }

    /// A node was called unreachable. A wall clock that was set takes the leader's count with it: such runs prove
    /// nothing here.
    fn observe_loss(&mut self, node: ObjectId) {
        if self.options.beyond.is_some() || self.nemesis.counts.contains_key("clock jump") {
            return;
        }
        let Some(host) = self.agents.iter().find(|host| host.node == Some(node)) else { return };
        let Some(until_ms) = host.agent.as_ref().and_then(Agent::lease_until_ms) else { return };
        let left_ms = until_ms.saturating_sub(host.clock.monotonic_ms(self.now_us));
        let drift_ms = 1 + 2 * self.options.server.lease_ms * contract::DRIFT_PPM_MAX / 1_000_000;
        self.judge(leases::check(node, left_ms, drift_ms));
    }

    fn has_guest(&self, pod: ObjectId) -> bool {
        self.agents.iter().any(|host| host.hypervisor.guests.contains_key(&pod))
    }

    /// The server that leads, as far as one knows it: of several, the one with the highest term.
    pub(crate) fn leader(&self) -> Option<MemberId> {
        let running = self.servers.values().filter_map(|h| Some((h.member, &h.up.as_ref()?.server)));
        let leaders = running.filter(|(_, server)| server.is_leader());
        leaders.max_by_key(|(_, server)| server.status().term).map(|(member, _)| member)
    }

    /// Compares one live State after the other with the history, object by object, and with itself, from scratch:
    /// what drifted stays wrong, and its turn comes within a few rounds. At the end it is everybody's turn. (Digests
    /// are compared after every entry.)
    pub(crate) fn check(&mut self, everybody: bool) {
        self.checks += 1;
        let turn = self.checks % self.servers.len().max(1);
        let verdict = self
            .servers
            .values()
            .enumerate()
            .filter(|(n, _)| everybody || *n == turn)
            .filter_map(|(_, h)| Some((h.member, &h.up.as_ref()?.server)))
            .try_for_each(|(member, server)| {
                let (raft, state) = roles(server);
                membership::check(member, &raft, &state)?;
                self.chronicle.check_live(member, server.applied_index(), server.state())
            });
        self.judge(verdict);
        self.check_all_unique();
        if self.phase == Phase::Liveness && !everybody {
            self.check_convergence();
        }
    }

    pub(crate) fn note(
        &mut self,
        host: Host,
        label: &'static str,
        number: u128,
        text: impl FnOnce() -> String,
    ) {
        self.trace.note(self.now_us, host, label, number, text);
    }

    pub(crate) fn judge(&mut self, verdict: Verdict) {
        if let Err(violation) = verdict {
            self.fail(violation);
        }
    }

    /// The first violation is the one that counts.
    pub(crate) fn fail(&mut self, violation: Violation) {
        self.note(Host::World, "violation", 0, || violation.to_string());
        self.violation.get_or_insert(violation);
    }
}
