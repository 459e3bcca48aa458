//! The world: all hosts, one clock, one queue of what happens next.

mod deliver;
mod event;
mod observe;

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_proto::ProtoCodec;
use bulkhead_storage::Identity;
use bulkhead_types::{MemberId, SharedCodec};

use crate::agent_host::AgentHost;
use crate::chronicle::Chronicle;
use crate::client::Client;
use crate::clock::{HostClock, Micros};
use crate::disk::ServerDisk;
use crate::invariants::linearizability::Checked;
use crate::invariants::{Verdict, Violation, membership};
use crate::lost::LostNode;
use crate::nemesis::Nemesis;
use crate::network::{Host, Network};
use crate::operator::Change;
use crate::options::Options;
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

pub(crate) use event::Event;

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
    /// The node that is lost after the faults.
    pub(crate) lost: Option<LostNode>,
    /// Since when everything has been as it should be.
    pub(crate) calm_since_us: Option<Micros>,
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
            lost: None,
            calm_since_us: None,
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
            Event::Refused { member, life, peer } => self.find_refused(member, life, peer),
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
            Event::DeviceBack { agent, index } => self.device_back(agent, index),
            Event::AgentStart { agent } => self.start_agent(agent),
            Event::AgentWake { agent, life } => self.wake_agent(agent, life),
            Event::JoinLate { agent, life, call } => self.join_late(agent, life, call),
            Event::Guest { agent, boot, event } => self.guest_event(agent, boot, *event),
        }
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
