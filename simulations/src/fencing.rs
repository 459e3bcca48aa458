//! Pods that must be unique, held against physical truth: how often they live, and for how long after their
//! node's last acknowledged report.

use bulkhead_types::{AgentAck, ObjectId};

use crate::clock::Micros;
use crate::hypervisor::Guest;
use crate::invariants::unique::{self, Lease};
use crate::options::contract;
use crate::world::World;

/// Reports whose answer may still come, per node.
const SENT_MAX: usize = 256;
/// What a kill takes beside the start that it may have to wait for, in microseconds.
const KILL_US: Micros = 100_000;

/// When a node's reports were sent, by true time.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    /// True send times, by what the agent's clock showed.
    sent: std::collections::BTreeMap<u64, Micros>,
    /// The latest of those that a server acknowledged.
    acknowledged_us: Option<Micros>,
    /// Since when an agent runs.
    attended_us: Micros,
}

impl Reports {
    /// An agent starts.
    pub(crate) fn attend(&mut self, now_us: Micros) {
        self.attended_us = now_us;
    }

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

impl World {
    /// Looks at one guest that must be unique: it must not outlive its node's lease.
    pub(crate) fn check_unique(&mut self, number: u32, pod: ObjectId) {
        let host = &self.agents[number as usize];
        let Some(name) = host.hypervisor.guests.get(&pod).and_then(name).filter(|_| host.is_up()) else {
            return;
        };
        let lease = Lease {
            sent_us: host.reports.acknowledged_us,
            lease_us: self.options.server.lease_ms * 1000,
            drift_ppm: contract::DRIFT_PPM_MAX,
            kill_us: KILL_US + 2 * self.options.node.vm_start_us_max,
            attended_us: host.reports.attended_us,
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
