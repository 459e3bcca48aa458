//! Pods that must be unique, held against physical truth: how often they live, and for how long after their
//! node's last acknowledged report. And their guards, which are part of the host: they survive agents, not machines.

use bulkhead_nodeagent_core::{Guard, StartVm, reason};
use bulkhead_types::{AgentAck, ObjectId};

use crate::agent_host::AgentHost;
use crate::clock::Micros;
use crate::guest_life::GuestEvent;
use crate::hypervisor::Guest;
use crate::invariants::unique::{self, Lease};
use crate::options::contract;
use crate::world::World;

/// Reports whose answer may still come, per node.
const SENT_MAX: usize = 256;
/// What reading a clock of milliseconds loses, in microseconds.
const CLOCK_US: Micros = 1000;

/// When a node's reports were sent, by true time.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    /// True send times, by what the agent's clock showed.
    sent: std::collections::BTreeMap<u64, Micros>,
    /// The latest of those that a server acknowledged.
    acknowledged_us: Option<Micros>,
}

impl Reports {
    /// The machine boots: its clock begins anew.
    pub(crate) fn reboot(&mut self) {
        *self = Self::default();
    }

    /// A report is sent.
    pub(crate) fn send(&mut self, sent_at_ms: u64, now_us: Micros) {
        self.sent.insert(sent_at_ms, now_us);
        if self.sent.len() > SENT_MAX {
            self.sent.pop_first();
        }
    }

    /// A server acknowledges a report; whether the answer arrives is another matter.
    pub(crate) fn acknowledge(&mut self, ack: AgentAck) {
        self.acknowledged_us = self.acknowledged_us.max(self.sent.get(&ack.sent_at_ms).copied());
    }
}

fn name(guest: &Guest) -> Option<String> {
    guest.unique.as_ref().map(|(namespace, name)| format!("pod {namespace}/{name}"))
}

impl AgentHost {
    /// The guard that a guest starts under, with the newest lease that its agent told of; why it must not start.
    pub(crate) fn guard(&self, start: &StartVm, now_us: Micros) -> Result<Option<Guard>, &'static str> {
        let Some(until_ms) = start.lease_until_ms else { return Ok(None) };
        let until_ms = until_ms.max(self.hypervisor.lease_until_ms.unwrap_or(0));
        let guard = Guard::new(self.clock.monotonic_ms(now_us), until_ms);
        guard.map(Some).ok_or(reason::LEASE_EXPIRED)
    }
}

impl World {
    /// Sets the timer of a guest's guard.
    pub(crate) fn arm_guard(&mut self, number: u32, pod: ObjectId) {
        let host = &self.agents[number as usize];
        let Some(guest) = host.hypervisor.guests.get(&pod) else { return };
        let Some(guard) = guest.guard else { return };
        let at_us = host.clock.true_us(guard.until_ms()).max(self.now_us);
        let instance = guest.instance;
        self.later(number, at_us - self.now_us, GuestEvent::GuardWake { pod, instance });
    }

    /// A node's clock runs at another speed from now on: its timers go by the clock.
    pub(crate) fn arm_all_guards(&mut self, number: u32) {
        let pods: Vec<ObjectId> = self.agents[number as usize].hypervisor.guests.keys().copied().collect();
        pods.into_iter().for_each(|pod| self.arm_guard(number, pod));
    }

    /// An agent tells all guards that the lease was renewed. A timer that is set goes off, and is set anew.
    pub(crate) fn renew_guards(&mut self, number: u32, until_ms: u64) {
        let host = &mut self.agents[number as usize];
        let now_ms = host.clock.monotonic_ms(self.now_us);
        for guard in host.hypervisor.guests.values_mut().filter_map(|guest| guest.guard.as_mut()) {
            guard.renew(now_ms, until_ms);
        }
    }

    /// A guard looks at the clock.
    pub(crate) fn guard_wakes(&mut self, number: u32, pod: ObjectId, instance: u32) {
        let kill_us_max = self.options.node.kill_us_max;
        let host = &mut self.agents[number as usize];
        let now_ms = host.clock.monotonic_ms(self.now_us);
        let Some(guest) = host.hypervisor.guest(pod, instance) else { return };
        let Some(guard) = guest.guard.as_mut() else { return };
        if !guard.is_over(now_ms) {
            return self.arm_guard(number, pod);
        }
        let after_us = host.rng.range(0, kill_us_max);
        self.later(number, after_us, GuestEvent::GuardKill { pod, instance });
    }

    /// Looks at one guest that must be unique: it must not outlive its node's lease.
    pub(crate) fn check_unique(&mut self, number: u32, pod: ObjectId) {
        let host = &self.agents[number as usize];
        let Some(name) = host.hypervisor.guests.get(&pod).and_then(name) else {
            return;
        };
        let lease = Lease {
            sent_us: host.reports.acknowledged_us,
            lease_us: self.options.server.lease_ms * 1000,
            drift_ppm: contract::DRIFT_PPM_MAX,
            kill_us: CLOCK_US + self.options.node.kill_us_max,
        };
        self.judge(unique::lives(&name, self.now_us, &lease));
    }

    /// Looks at all of them.
    pub(crate) fn check_all_unique(&mut self) {
        let all: Vec<(u32, ObjectId)> = self
            .agents
            .iter()
            .flat_map(|host| host.hypervisor.guests.keys().map(|pod| (host.number, *pod)))
            .collect();
        for (number, pod) in all {
            self.check_unique(number, pod);
        }
    }

    /// A guest that must be unique has started: there is no other of its name.
    pub(crate) fn check_once(&mut self, number: u32, pod: ObjectId) {
        let Some(started) = self.agents[number as usize].hypervisor.guests.get(&pod).and_then(name) else {
            return;
        };
        let lives = self.agents.iter().flat_map(|host| {
            host.hypervisor.guests.values().filter_map(|guest| Some((host.number, name(guest)?)))
        });
        let nodes: Vec<u32> =
            lives.filter(|(_, other)| *other == started).map(|(number, _)| number).collect();
        self.judge(unique::once(&started, &nodes));
        self.counts.unique += 1;
    }
}
