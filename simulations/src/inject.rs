//! What faults do to the world.

use std::ops::Range;

use bulkhead_controlplane_core::server::Input;
use bulkhead_storage::Operation;
use bulkhead_types::MemberId;

use crate::clock::HostClock;
use crate::disk::Loss;
use crate::message::{Body, Envelope, Request};
use crate::network::{Cut, Host};
use crate::operator::Change;
use crate::script::Fault;
use crate::world::{Event, World};

/// The operations of a disk that can fail, by number.
pub(crate) struct Operations([Operation; 7]);

/// Those of snapshots first.
pub(crate) const OPERATIONS: Operations = Operations([
    Operation::SnapshotWrite,
    Operation::SnapshotSync,
    Operation::SnapshotRead,
    Operation::LogWrite,
    Operation::LogSync,
    Operation::LogLoad,
    Operation::Open,
]);

impl Operations {
    /// The numbers of those of snapshots.
    pub(crate) fn snapshots(&self) -> Range<u64> {
        0..3
    }

    /// The numbers of the others.
    pub(crate) fn others(&self) -> Range<u64> {
        3..self.0.len() as u64
    }

    fn get(&self, number: u8) -> Option<Operation> {
        self.0.get(usize::from(number)).copied()
    }
}

impl World {
    /// Lets something go wrong. What it is about may be gone meanwhile: then nothing happens, and it does not count.
    pub(crate) fn inject(&mut self, fault: Fault) {
        let kind = fault.kind();
        if self.try_inject(fault) {
            self.nemesis.count(kind);
        }
    }

    fn try_inject(&mut self, fault: Fault) -> bool {
        let now_us = self.now_us;
        match fault {
            Fault::ServerCrash { member, loss, down_us } => self.crash_with(member, loss, down_us),
            Fault::ServerPause { member, for_us } => self.pause_server(member, for_us),
            Fault::DiskError { .. } | Fault::DiskFull { .. } | Fault::DiskSlow { .. } => {
                self.inject_disk(&fault)
            }
            Fault::DiskLost { member, joins } => self.lose_disk(member, joins),
            Fault::DiskDamage { member, record, damage, down_us } => {
                if !self.crash_with(member, Loss::Nothing, down_us) {
                    return false;
                }
                let host = self.servers.get_mut(&member).expect("it just crashed");
                let found = host.disk.damage(record, damage);
                self.note(Host::Server(member), "damage", u128::from(found.is_some()), || {
                    format!("{damage:?} {found:?}")
                });
                found.is_some()
            }
            Fault::Partition { cut, for_us } => {
                self.note(Host::World, "partition", 0, || format!("{cut:?}"));
                let number = self.network.cut(cut);
                self.queue.push(now_us + for_us, Event::Heal { number });
                true
            }
            Fault::Swizzle { clogs } => {
                self.note(Host::World, "swizzle", clogs.len() as u128, || format!("{clogs:?}"));
                for (host, from_us, until_us) in clogs {
                    self.network.clog(now_us, host, now_us + from_us, now_us + until_us);
                }
                true
            }
            Fault::LeaderTransfer { to } => {
                let Some(leader) = self.leader() else { return false };
                let content = Request::Transfer(to);
                let request = Envelope { origin: Host::World, call: 0, via: None, content };
                self.send(Host::World, Host::Server(leader), Body::Request(request));
                true
            }
            Fault::MemberChange { change } => self.begin_change(change),
            Fault::TakeSnapshot { member } => {
                let runs = self.servers.get(&member).is_some_and(|h| h.up.is_some());
                self.give(member, Input::TakeSnapshot);
                runs
            }
            Fault::ClockJump { host, by_ms } => {
                self.change_clock(host, "clock jump", |clock| clock.jump(by_ms))
            }
            Fault::ClockDrift { host, drift_ppm } => {
                self.change_clock(host, "clock drift", |clock| clock.set_drift(now_us, drift_ppm))
            }
            Fault::AgentCrash { agent, down_us } => self.crash_agent(agent, down_us),
            Fault::NodeReboot { agent, down_us } => self.reboot_node(agent, down_us),
            Fault::NodeLost { agent, agent_dies, for_us } => self.cut_off(agent, agent_dies, for_us),
            Fault::DeviceFailure { agent, index, gone, for_us } => {
                self.fail_device(agent, index, gone, for_us)
            }
            Fault::VmCrash { agent, pod, instance } => {
                (agent as usize) < self.agents.len() && self.end_guest(agent, pod, instance, "signal 11")
            }
        }
    }

    /// A node is out of reach for a while. Tells whether there is such a node.
    fn cut_off(&mut self, agent: u32, agent_dies: bool, for_us: u64) -> bool {
        if (agent as usize) >= self.agents.len() {
            return false;
        }
        self.note(Host::Agent(agent), "lost", u128::from(agent_dies), || format!("for {for_us} us"));
        let number = self.network.cut(Cut::Isolate { host: Host::Agent(agent), mute: true, deaf: true });
        self.queue.push(self.now_us + for_us, Event::Heal { number });
        if agent_dies {
            self.crash_agent(agent, for_us);
        }
        true
    }

    fn inject_disk(&mut self, fault: &Fault) -> bool {
        let now_us = self.now_us;
        let (Fault::DiskError { member, .. }
        | Fault::DiskFull { member, .. }
        | Fault::DiskSlow { member, .. }) = *fault
        else {
            return false;
        };
        let Some(host) = self.servers.get_mut(&member).filter(|h| h.up.is_some()) else { return false };
        match *fault {
            Fault::DiskError { operation, skip, .. } => {
                let Some(operation) = OPERATIONS.get(operation) else { return false };
                host.disk.fail_one(operation, skip);
            }
            Fault::DiskFull { for_us, .. } => {
                host.disk.set_full(true);
                self.queue.push(now_us + for_us, Event::DiskRelief { member });
            }
            Fault::DiskSlow { extra_us, for_us, .. } => host.disk.slow_down(extra_us, now_us + for_us),
            _ => {}
        }
        self.note(Host::Server(member), fault.kind(), 0, || format!("{fault:?}"));
        true
    }

    fn crash_with(&mut self, member: MemberId, loss: Loss, down_us: u64) -> bool {
        let Some(host) = self.servers.get_mut(&member) else { return false };
        if host.up.take().is_none() {
            return false;
        }
        let choice = host.disk.lose(loss);
        self.after_crash(member, choice, down_us);
        true
    }

    fn pause_server(&mut self, member: MemberId, for_us: u64) -> bool {
        let until_us = self.now_us + for_us;
        let Some(host) = self.servers.get_mut(&member).filter(|h| h.up.is_some()) else { return false };
        host.paused_until_us = host.paused_until_us.max(until_us);
        self.note(Host::Server(member), "pause", u128::from(for_us), || format!("{for_us} us"));
        true
    }

    /// A disk is gone for good: its server never comes back, and another member takes its place.
    pub(crate) fn lose_disk(&mut self, member: MemberId, joins: MemberId) -> bool {
        if self.servers.get(&member).is_none_or(|h| h.retired)
            || !self.begin_change(Change::Replace { leaves: member, joins })
        {
            return false;
        }
        let host = self.servers.get_mut(&member).expect("it was just there");
        host.up = None;
        host.retired = true;
        host.disk.wipe();
        self.note(Host::Server(member), "disk lost", 0, String::new);
        true
    }

    /// The clock of a server or node.
    pub(crate) fn clock(&self, host: Host) -> Option<&HostClock> {
        match host {
            Host::Server(member) => self.servers.get(&member).map(|h| &h.clock),
            Host::Agent(number) => self.agents.get(number as usize).map(|h| &h.clock),
            Host::Client(_) | Host::World => None,
        }
    }

    fn change_clock(&mut self, host: Host, label: &'static str, how: impl FnOnce(&mut HostClock)) -> bool {
        let clock = match host {
            Host::Server(member) => self.servers.get_mut(&member).map(|h| &mut h.clock),
            Host::Agent(number) => self.agents.get_mut(number as usize).map(|h| &mut h.clock),
            Host::Client(_) | Host::World => None,
        };
        let Some(clock) = clock else { return false };
        how(clock);
        let text = format!("{clock:?}");
        self.note(host, label, 0, || text);
        if let Host::Agent(number) = host {
            self.arm_all_guards(number);
        }
        true
    }
}
