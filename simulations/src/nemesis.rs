//! What goes wrong on purpose, and when.

use std::collections::BTreeMap;

use bulkhead_storage::Operation;
use bulkhead_types::{MemberId, ObjectId};

use crate::message::{Body, Envelope, Request};
use crate::network::Host;
use crate::options::FaultOptions;
use crate::rng::Rng;
use crate::world::{Event, World};

/// How far a wall clock jumps at most, in milliseconds. Far below the time for which requests are remembered:
/// that time is log time, and a clock that runs ahead of it by more would let a retry happen twice.
const JUMP_MS_MAX: u64 = 20_000;
/// How often a fault is followed by a lull.
const LULL_PERMILLE: u64 = 80;
/// Longest lull, in microseconds.
const LULL_US_MAX: u64 = 15_000_000;
/// How far jumps of one clock add up, in milliseconds.
const OFFSET_MS_MAX: u64 = 60_000;

/// The source of faults.
#[derive(Debug)]
pub(crate) struct Nemesis {
    options: FaultOptions,
    pub(crate) rng: Rng,
    /// How many of each kind happened.
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    ServerCrash,
    SnapshotCrash,
    DiskError,
    DiskFull,
    Partition,
    LeaderTransfer,
    MemberChange,
    ClockJump,
    AgentCrash,
    NodeReboot,
    VmCrash,
}

impl Nemesis {
    pub(crate) fn new(options: FaultOptions, seed: u64) -> Self {
        Self { options, rng: Rng::child(seed, "nemesis", 0), counts: BTreeMap::new() }
    }

    pub(crate) fn count(&mut self, kind: &'static str) {
        *self.counts.entry(kind).or_default() += 1;
    }

    /// How many faults happened.
    pub(crate) fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    fn draw(&mut self) -> Option<Kind> {
        let options = &self.options;
        let weights = [
            (Kind::ServerCrash, options.server_crash),
            (Kind::SnapshotCrash, options.snapshot_crash),
            (Kind::DiskError, options.disk_error),
            (Kind::DiskFull, options.disk_full),
            (Kind::Partition, options.partition),
            (Kind::LeaderTransfer, options.leader_transfer),
            (Kind::MemberChange, options.member_change),
            (Kind::ClockJump, options.clock_jump),
            (Kind::AgentCrash, options.agent_crash),
            (Kind::NodeReboot, options.node_reboot),
            (Kind::VmCrash, options.vm_crash),
        ];
        let total: u64 = weights.iter().map(|(_, weight)| weight).sum();
        let mut at = self.rng.range(0, total.checked_sub(1)?);
        weights.into_iter().find_map(|(kind, weight)| {
            let here = at < weight;
            at = at.saturating_sub(weight);
            here.then_some(kind)
        })
    }
}

impl World {
    /// Something goes wrong, and the next thing is scheduled.
    pub(crate) fn fault(&mut self) {
        let after_us = self.nemesis.rng.wait(self.options.faults.interval_ms) * 1000;
        // Now and then nothing goes wrong for a while: most commands are acknowledged then.
        let is_lull = self.nemesis.rng.chance(LULL_PERMILLE);
        let lull_us = if is_lull { self.nemesis.rng.range(0, LULL_US_MAX) } else { 0 };
        self.queue.push(self.now_us + after_us + lull_us, Event::Fault);
        match self.nemesis.draw() {
            Some(Kind::ServerCrash) => self.fault_server_crash(),
            Some(Kind::SnapshotCrash) => {
                self.fault_disk_error(&[Operation::SnapshotWrite, Operation::SnapshotSync], "snapshot crash");
            }
            Some(Kind::DiskError) => {
                let operations =
                    [Operation::LogWrite, Operation::LogSync, Operation::LogLoad, Operation::Open];
                self.fault_disk_error(&operations, "disk error");
            }
            Some(Kind::DiskFull) => self.fault_disk_full(),
            Some(Kind::Partition) => self.fault_partition(),
            Some(Kind::LeaderTransfer) => self.fault_transfer(),
            Some(Kind::MemberChange) => self.fault_member_change(),
            Some(Kind::ClockJump) => self.fault_clock(),
            Some(Kind::AgentCrash) => self.fault_agent(false),
            Some(Kind::NodeReboot) => self.fault_agent(true),
            Some(Kind::VmCrash) => self.fault_guest(),
            None => {}
        }
    }

    fn fault_duration_us(&mut self) -> u64 {
        self.nemesis.rng.wait(self.options.faults.duration_ms) * 1000
    }

    fn any_server(&mut self) -> Option<MemberId> {
        let running: Vec<MemberId> =
            self.servers.values().filter(|h| h.up.is_some()).map(|h| h.member).collect();
        if running.is_empty() {
            return None;
        }
        // The leader is hit more often than its share.
        let leader = self.leader().filter(|_| self.nemesis.rng.chance(400));
        Some(leader.unwrap_or_else(|| *self.nemesis.rng.pick(&running)))
    }

    fn fault_server_crash(&mut self) {
        let Some(member) = self.any_server() else { return };
        let after_us = self.fault_duration_us();
        self.nemesis.count("server crash");
        self.crash_server(member, after_us);
    }

    fn fault_disk_error(&mut self, operations: &[Operation], name: &'static str) {
        let Some(member) = self.any_server() else { return };
        let Some(host) = self.servers.get_mut(&member) else { return };
        let operation = host.disk.fail_one(operations, 6);
        self.nemesis.count(name);
        self.note(Host::Server(member), "disk will fail", operation as u128, || operation.name().to_owned());
    }

    fn fault_disk_full(&mut self) {
        let Some(member) = self.any_server() else { return };
        let after_us = self.fault_duration_us();
        let Some(host) = self.servers.get_mut(&member) else { return };
        host.disk.set_full(true);
        self.nemesis.count("disk full");
        self.note(Host::Server(member), "disk full", 0, String::new);
        self.queue.push(self.now_us + after_us, Event::DiskRelief { member });
    }

    fn fault_partition(&mut self) {
        let servers: Vec<Host> = self.servers.values().map(|h| h.host()).collect();
        let others: Vec<Host> = (0..self.options.agents)
            .map(Host::Agent)
            .chain((0..self.options.clients).map(Host::Client))
            .collect();
        let victim = self.any_server().map_or(servers[0], Host::Server);
        let rng = &mut self.nemesis.rng;
        let pairs: Vec<(Host, Host)> = match rng.range(0, 4) {
            // One server hears nobody, is heard by nobody, or both.
            style @ 0..=2 => {
                let peers = servers.iter().chain(&others).filter(|h| **h != victim);
                peers
                    .flat_map(|peer| [(victim, *peer), (*peer, victim)])
                    .enumerate()
                    .filter(|(n, _)| style == 2 || n % 2 == style as usize)
                    .map(|(_, pair)| pair)
                    .collect()
            }
            // Two sides, with everybody on one of them.
            3 => {
                let sides: BTreeMap<Host, bool> =
                    servers.iter().chain(&others).map(|h| (*h, rng.chance(500))).collect();
                let all = sides.iter().flat_map(|a| sides.iter().map(move |b| (a, b)));
                all.filter(|((_, a), (_, b))| a != b).map(|((a, _), (b, _))| (*a, *b)).collect()
            }
            // Somebody outside and one server.
            _ => {
                let peer = *rng.pick(&others);
                vec![(victim, peer), (peer, victim)]
            }
        };
        let after_us = self.fault_duration_us();
        self.nemesis.count("partition");
        self.note(Host::World, "partition", pairs.len() as u128, || format!("{pairs:?}"));
        self.network.block(pairs);
        self.queue.push(self.now_us + after_us, Event::Heal);
    }

    fn fault_transfer(&mut self) {
        let Some(leader) = self.leader() else { return };
        let members: Vec<MemberId> = self.servers.keys().copied().collect();
        let to = self.nemesis.rng.chance(700).then(|| *self.nemesis.rng.pick(&members));
        self.nemesis.count("leader transfer");
        let request = Envelope { origin: Host::World, call: 0, via: None, content: Request::Transfer(to) };
        self.send(Host::World, Host::Server(leader), Body::Request(request));
    }

    fn fault_clock(&mut self) {
        let members: Vec<MemberId> = self.servers.keys().copied().collect();
        let member = *self.nemesis.rng.pick(&members);
        let by_ms = self.nemesis.rng.range(0, 2 * JUMP_MS_MAX) as i64 - JUMP_MS_MAX as i64;
        let Some(host) = self.servers.get_mut(&member) else { return };
        if host.clock.offset_ms().unsigned_abs() > OFFSET_MS_MAX {
            return;
        }
        host.clock.jump(by_ms);
        self.nemesis.count("clock jump");
        self.note(Host::Server(member), "clock jump", u128::from(by_ms.unsigned_abs()), || {
            format!("{by_ms} ms")
        });
    }

    fn fault_agent(&mut self, whole_node: bool) {
        let number = self.nemesis.rng.below(self.agents.len());
        let after_us = self.fault_duration_us();
        let number = self.agents[number].number;
        if whole_node {
            self.nemesis.count("node reboot");
            self.reboot_node(number, after_us);
        } else {
            self.nemesis.count("agent crash");
            self.crash_agent(number, after_us);
        }
    }

    fn fault_guest(&mut self) {
        let guests: Vec<(u32, ObjectId, u32)> = self
            .agents
            .iter()
            .flat_map(|host| host.hypervisor.guests.iter().map(|(pod, g)| (host.number, *pod, g.instance)))
            .collect();
        if guests.is_empty() {
            return;
        }
        let (number, pod, instance) = *self.nemesis.rng.pick(&guests);
        self.nemesis.count("guest crash");
        self.end_guest(number, pod, instance, "signal 11");
    }
}
