//! What each entry means for agents and guests, held against what they are.

use bulkhead_controlplane_core::ChangeType;
use bulkhead_controlplane_core::server::AppliedEntry;
use bulkhead_nodeagent_core::Agent;
use bulkhead_types::{NodePhase, Object, ObjectId};

use super::World;
use crate::invariants::{Violation, leases, physical};
use crate::options::contract;
use crate::safety::Tripwire;

impl World {
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
}
