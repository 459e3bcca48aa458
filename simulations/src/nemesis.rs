//! What goes wrong on purpose, and when: draws faults, as data. What they do is in `inject`.

use std::collections::BTreeMap;

use bulkhead_controlplane_core::reconcile::fencing::fence_after_ms;
use bulkhead_types::{MemberId, ObjectId};

use crate::clock::Micros;
use crate::disk::{Damage, Loss};
use crate::inject::OPERATIONS;
use crate::network::{Cut, Host};
use crate::operator::Change;
use crate::options::{Beyond, FaultOptions, contract};
use crate::rng::Rng;
use crate::script::{Fault, What};
use crate::world::{Event, FAULT_RANK, World};

/// How far a wall clock jumps at most, in milliseconds.
const JUMP_MS_MAX: u64 = 20_000;
/// How far it jumps when the run leaves the contract, in milliseconds: past the time for which requests are
/// remembered.
const JUMP_BEYOND_MS_MAX: u64 = 1_800_000;
/// How much a clock drifts at most when the run leaves the contract, in millionths.
const DRIFT_BEYOND_PPM_MAX: u64 = 300_000;
/// How often a fault is followed by a lull.
const LULL_PERMILLE: u64 = 80;
/// Longest lull, in microseconds.
const LULL_US_MAX: u64 = 15_000_000;
/// Members have been as they are for so long before a disk is lost, in microseconds: a change that is not over
/// on every member has less to lose.
const SETTLED_US: Micros = 5_000_000;
/// Most operations that pass before the one that fails.
const SKIP_MAX: u64 = 6;
/// Any number: it is brought into range where it is used.
const ANY: u64 = 1 << 20;
/// Most extra time of a slow disk's flush, in microseconds.
const SLOW_US_MAX: u64 = 400_000;
/// Longest pause of a process, in milliseconds, on average so many times the usual duration.
const PAUSE_PARTS: u64 = 2;
/// Longest time for which a node is lost, in times of what it takes to fence it.
const LOST_PARTS_MAX: u64 = 3;
/// Most voters that the operator lets a cluster have.
const VOTERS_MAX: usize = 6;

/// The source of faults.
#[derive(Debug)]
pub(crate) struct Nemesis {
    options: FaultOptions,
    pub(crate) rng: Rng,
    /// How many of each kind happened.
    pub(crate) counts: BTreeMap<&'static str, u64>,
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

    /// How many kinds of faults happen in this run, at most.
    pub(crate) fn kinds(&self) -> usize {
        self.options.weights().into_iter().filter(|(_, weight)| *weight > 0).count()
    }

    fn draw(&mut self) -> Option<&'static str> {
        let weights = self.options.weights();
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
        // The stream is taken out, so that the world can be looked at while it is drawn from.
        let mut rng = self.nemesis.rng.clone();
        let after_us = rng.wait(self.options.faults.interval_ms) * 1000;
        // Now and then nothing goes wrong for a while: most commands are acknowledged then.
        let lull_us = if rng.chance(LULL_PERMILLE) { rng.range(0, LULL_US_MAX) } else { 0 };
        self.queue.push_ranked(self.now_us + after_us + lull_us, FAULT_RANK, Event::Fault);
        self.nemesis.rng = rng;
        let Some(kind) = self.nemesis.draw() else { return };
        let mut rng = self.nemesis.rng.clone();
        let fault = self.draw_fault(kind, &mut rng);
        self.nemesis.rng = rng;
        if let Some(fault) = fault {
            self.record(What::Fault(fault.clone()));
            self.inject(fault);
        }
    }

    fn draw_fault(&self, kind: &str, rng: &mut Rng) -> Option<Fault> {
        let for_us = rng.wait(self.options.faults.duration_ms) * 1000;
        match kind {
            "disk-lost" | "disk-damage" | "member-change" => self.draw_change(kind, rng, for_us),
            "partition" => Some(Fault::Partition { cut: self.draw_cut(rng)?, for_us }),
            "swizzle" => Some(self.draw_swizzle(rng, for_us)),
            "clock-jump" | "clock-drift" => self.draw_clock_fault(kind, rng),
            "agent-crash" => Some(Fault::AgentCrash { agent: self.any_agent(rng), down_us: for_us }),
            "node-reboot" => Some(Fault::NodeReboot { agent: self.any_agent(rng), down_us: for_us }),
            "node-lost" => Some(self.draw_lost(rng)),
            "vm-crash" => self.draw_guest(rng),
            "device-failure" => {
                let index = rng.range(0, u64::from(self.options.node.devices.saturating_sub(1))) as u32;
                Some(Fault::DeviceFailure {
                    agent: self.any_agent(rng),
                    index,
                    gone: rng.chance(500),
                    for_us,
                })
            }
            "leader-transfer" => {
                let members: Vec<MemberId> = self.servers.keys().copied().collect();
                Some(Fault::LeaderTransfer { to: rng.chance(700).then(|| *rng.pick(&members)) })
            }
            _ => self.draw_server_fault(kind, rng, for_us),
        }
    }

    /// A node that is away for long enough to be fenced, most times.
    fn draw_lost(&self, rng: &mut Rng) -> Fault {
        let server = &self.options.server;
        let fenced_ms = fence_after_ms(server.lease_ms, server.fence_kill_ms);
        let for_us = rng.range(fenced_ms / 2, LOST_PARTS_MAX * fenced_ms) * 1000;
        Fault::NodeLost { agent: self.any_agent(rng), agent_dies: rng.chance(600), for_us }
    }

    fn draw_server_fault(&self, kind: &str, rng: &mut Rng, for_us: Micros) -> Option<Fault> {
        let member = self.any_server(rng)?;
        Some(match kind {
            "server-crash" => Fault::ServerCrash { member, loss: Loss::draw(rng), down_us: for_us },
            "server-pause" => Fault::ServerPause { member, for_us: for_us / PAUSE_PARTS },
            "snapshot-crash" | "disk-error" => {
                let places = if kind == "disk-error" { OPERATIONS.others() } else { OPERATIONS.snapshots() };
                let operation = rng.range(places.start, places.end - 1) as u8;
                Fault::DiskError { member, operation, skip: rng.range(0, SKIP_MAX) }
            }
            "disk-full" => Fault::DiskFull { member, for_us },
            "disk-slow" => Fault::DiskSlow { member, extra_us: rng.range(1000, SLOW_US_MAX), for_us },
            "take-snapshot" => Fault::TakeSnapshot { member },
            _ => return None,
        })
    }

    fn any_server(&self, rng: &mut Rng) -> Option<MemberId> {
        let running: Vec<MemberId> =
            self.servers.values().filter(|h| h.up.is_some()).map(|h| h.member).collect();
        if running.is_empty() {
            return None;
        }
        // The leader is hit more often than its share.
        let leader = self.leader().filter(|_| rng.chance(400));
        Some(leader.unwrap_or_else(|| *rng.pick(&running)))
    }

    fn any_agent(&self, rng: &mut Rng) -> u32 {
        self.agents[rng.below(self.agents.len())].number
    }

    /// Faults that cost a member, and changes of the members: one at a time, between members that settled.
    fn draw_change(&self, kind: &str, rng: &mut Rng, for_us: Micros) -> Option<Fault> {
        let voters: Vec<MemberId> = self.chronicle.state().voters().map(|record| record.member).collect();
        let settled = self.replacement.is_none() && self.now_us >= self.changed_us + SETTLED_US;
        if voters.is_empty() || !settled {
            return None;
        }
        let joins = self.next_member()?;
        let leaves = *rng.pick(&voters);
        // What one member has lost, a majority of the others must still have; where there are no others, nobody has.
        let others_run = voters.len() > 1
            && voters
                .iter()
                .filter(|m| **m != leaves)
                .all(|m| self.servers.get(m).is_some_and(|h| h.up.is_some() && !h.disk.damaged));
        match kind {
            "disk-lost" => others_run.then_some(Fault::DiskLost { member: leaves, joins }),
            "disk-damage" => {
                let record = rng.range(0, ANY) as usize;
                let damage = match rng.range(0, 3) {
                    0 | 1 => Damage::Flip { byte: rng.range(0, ANY) as usize, mask: rng.range(1, 255) as u8 },
                    2 => Damage::Misdirected { other: rng.range(0, ANY) as usize },
                    _ => Damage::Cut { bytes: rng.range(0, ANY) as usize },
                };
                others_run.then_some(Fault::DiskDamage { member: leaves, record, damage, down_us: for_us })
            }
            _ => {
                let change = match rng.range(0, 5) {
                    0 if voters.len() < VOTERS_MAX => Change::Grow { joins },
                    1 if voters.len() > 3 => Change::Shrink { leaves },
                    2 => Change::Visit { visitor: joins },
                    _ => Change::Replace { leaves, joins },
                };
                Some(Fault::MemberChange { change })
            }
        }
    }

    /// A number that no member ever had.
    pub(crate) fn next_member(&self) -> Option<MemberId> {
        let last = self.servers.keys().next_back()?;
        Some(MemberId(last.0 + 1))
    }

    fn draw_cut(&self, rng: &mut Rng) -> Option<Cut> {
        let members: Vec<MemberId> = self.servers.values().filter(|h| !h.retired).map(|h| h.member).collect();
        let servers: Vec<Host> = members.iter().copied().map(Host::Server).collect();
        let others: Vec<Host> = (0..self.options.agents)
            .map(Host::Agent)
            .chain((0..self.options.clients).map(Host::Client))
            .collect();
        let victim = self.any_server(rng).map(Host::Server).or_else(|| servers.first().copied())?;
        Some(match rng.range(0, 6) {
            0 => Cut::Isolate { host: victim, mute: true, deaf: false },
            1 => Cut::Isolate { host: victim, mute: false, deaf: true },
            2 => Cut::Isolate { host: victim, mute: true, deaf: true },
            3 => {
                let everybody = servers.iter().chain(&others);
                Cut::Split { side: everybody.filter(|_| rng.chance(500)).copied().collect() }
            }
            4 => {
                let mut order = members;
                rng.shuffle(&mut order);
                Cut::Neighbours { order }
            }
            5 => match victim {
                // Often the leader, which goes on to take what it is asked for until it notices.
                Host::Server(member) => Cut::Peers { member },
                other => Cut::Isolate { host: other, mute: true, deaf: true },
            },
            _ => Cut::Pair { one: victim, other: *rng.pick(&others) },
        })
    }

    fn draw_swizzle(&self, rng: &mut Rng, for_us: Micros) -> Fault {
        let mut hosts: Vec<Host> = self.servers.keys().copied().map(Host::Server).collect();
        hosts.extend((0..self.options.agents).map(Host::Agent));
        rng.shuffle(&mut hosts);
        hosts.truncate(rng.range(1, hosts.len() as u64) as usize);
        let step_us = for_us / hosts.len() as u64 + 1;
        let mut ends: Vec<u64> = (0..hosts.len() as u64).collect();
        rng.shuffle(&mut ends);
        let clog = |(n, (host, end)): (usize, (Host, u64))| {
            let from_us = n as u64 * step_us;
            (host, from_us, for_us.max(from_us) + (end + 1) * step_us)
        };
        Fault::Swizzle { clogs: hosts.into_iter().zip(ends).enumerate().map(clog).collect() }
    }

    fn draw_clock_fault(&self, kind: &str, rng: &mut Rng) -> Option<Fault> {
        let signed = |rng: &mut Rng, most: u64| rng.range(0, 2 * most) as i64 - most as i64;
        let servers: Vec<Host> = self.servers.keys().copied().map(Host::Server).collect();
        let host = if rng.chance(500) { Host::Agent(self.any_agent(rng)) } else { *rng.pick(&servers) };
        if kind == "clock-drift" {
            let most = match self.options.beyond {
                Some(Beyond::Drift) => DRIFT_BEYOND_PPM_MAX,
                _ => contract::DRIFT_PPM_MAX,
            };
            return Some(Fault::ClockDrift { host, drift_ppm: signed(rng, most) });
        }
        if self.options.beyond == Some(Beyond::Jump) {
            return Some(Fault::ClockJump { host, by_ms: signed(rng, JUMP_BEYOND_MS_MAX) });
        }
        let by_ms = signed(rng, JUMP_MS_MAX);
        let after_ms = self.clock(host)?.offset_ms() + by_ms;
        (after_ms.unsigned_abs() <= contract::OFFSET_MS_MAX).then_some(Fault::ClockJump { host, by_ms })
    }

    fn draw_guest(&self, rng: &mut Rng) -> Option<Fault> {
        let guests: Vec<(u32, ObjectId, u32)> = self
            .agents
            .iter()
            .flat_map(|host| host.hypervisor.guests.iter().map(|(pod, g)| (host.number, *pod, g.instance)))
            .collect();
        if guests.is_empty() {
            return None;
        }
        let (agent, pod, instance) = *rng.pick(&guests);
        Some(Fault::VmCrash { agent, pod, instance })
    }
}
