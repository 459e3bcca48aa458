//! The second half of a run: the faults are over, and the cluster must come to rest as everybody wants it.

use crate::clock::Micros;
use crate::invariants::{Violation, convergence};
use crate::network::Host;
use crate::world::{Phase, World};

/// The cluster must have come to rest after so long, in microseconds of virtual time.
pub(crate) const CONVERGENCE_US_MAX: Micros = 300_000_000;
/// It is at rest when nothing was wrong for so long, in microseconds.
const CALM_US: Micros = 5_000_000;

impl World {
    /// Ends all faults: the network is whole, every machine runs, every disk has room.
    pub(crate) fn become_calm(&mut self) {
        self.note(Host::World, "calm", 0, String::new);
        self.phase = Phase::Liveness;
        self.network.become_reliable();
        let members: Vec<_> = self.servers.keys().copied().collect();
        for member in members {
            if let Some(host) = self.servers.get_mut(&member) {
                host.disk.set_full(false);
            }
            self.start_server(member);
        }
    }

    /// Looks whether the cluster is at rest.
    pub(crate) fn check_convergence(&mut self) {
        let verdict = self.unrest();
        if verdict.is_none() {
            self.calm_since_us.get_or_insert(self.now_us);
        } else {
            self.calm_since_us = None;
        }
    }

    /// Whether the cluster has been at rest for long enough.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.calm_since_us.is_some_and(|since| self.now_us - since >= CALM_US)
    }

    /// What is not as it should be, if anything.
    pub(crate) fn unrest(&self) -> Option<Violation> {
        let mut positions = Vec::new();
        for host in self.servers.values().filter(|h| !h.retired) {
            let position = host.up.as_ref().map(|up| (up.server.applied_index(), up.server.state().digest()));
            positions.push((host.member, position));
        }
        if let Some(busy) = self.clients.iter().find(|c| !c.is_idle()) {
            return Some(Violation::new("convergence", format!("{busy:?} is not done")));
        }
        convergence::servers(&positions).and_then(|()| convergence::state(self.chronicle.state())).err()
    }
}
