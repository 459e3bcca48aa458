//! The second half of a run: the faults are over, and the cluster must come to rest as everybody wants it; without a
//! node that is lost first, and then with it.

use std::sync::Arc;

use bulkhead_types::{Command, Deployment, MemberRole, Object};

use crate::clock::Micros;
use crate::invariants::{Verdict, Violation, convergence, devices, images, linearizability};
use crate::network::Host;
use crate::workload::submission;
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
        if let Some(recorder) = &self.recorder {
            recorder.note_calm(self.now_us);
        }
        self.network.become_reliable();
        self.lose_node();
        let members: Vec<_> = self.servers.keys().copied().collect();
        for member in members {
            if let Some(host) = self.servers.get_mut(&member) {
                host.disk.set_full(false);
            }
            self.start_server(member);
        }
        for agent in 0..self.options.agents {
            self.start_agent(agent);
        }
        self.mend_devices();
    }

    /// One thing at a time, the first client undoes what keeps the cluster from rest: cordoned nodes, paused
    /// rollouts, and CronJobs.
    fn close(&mut self) {
        if !self.clients[0].is_idle() {
            return;
        }
        let state = self.chronicle.state();
        let cordoned = state.nodes().iter().find(|node| node.spec.unschedulable);
        // A unit of an ElasticWorkload is paused as its source is, and by that alone.
        let is_paused =
            |deployment: &&Arc<Deployment>| deployment.spec.paused && deployment.meta.owner.is_none();
        let paused = state.deployments().iter().find(is_paused);
        let running = state.cron_jobs().iter().find(|cron_job| !cron_job.spec.suspend);
        let kept = state.resource_slices().iter().find(|slice| !slice.cordoned.is_empty());
        if let Some((slice, device)) = kept.and_then(|slice| Some((slice, slice.cordoned.first()?))) {
            let (node, device) = (slice.meta.name.clone(), device.clone());
            let command = Command::SetDeviceCordoned { node, device, cordoned: false };
            let stamped = submission(&mut self.operator_rng, 0, vec![command]);
            return self.begin(0, Some(stamped));
        }
        let command = match (cordoned, paused, running) {
            (Some(node), _, _) => {
                Command::SetUnschedulable { node: node.meta.name.clone(), unschedulable: false }
            }
            (None, Some(deployment), _) => Command::SetPaused {
                deployment: Object::Deployment(deployment.clone()).object_ref(),
                paused: false,
            },
            (None, None, Some(cron_job)) => Command::SetSuspended {
                object: Object::CronJob(cron_job.clone()).object_ref(),
                suspended: true,
            },
            (None, None, None) => return,
        };
        let stamped = submission(&mut self.operator_rng, 0, vec![command]);
        self.begin(0, Some(stamped));
    }

    /// Looks whether the cluster is at rest.
    pub(crate) fn check_convergence(&mut self) {
        self.close();
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

    /// What was looked at all along, and can only be judged as a whole.
    pub(crate) fn check_observers(&mut self) -> Verdict {
        self.chronicle.check_deep()?;
        for (member, up) in self.servers.values().filter_map(|h| Some((h.member, h.up.as_ref()?))) {
            self.check_history(member, &*up.stores.events, up.server.state().revision(), true)?;
        }
        self.counts.linearizability = linearizability::check(&self.registers.histories())?;
        Ok(())
    }

    /// What is not as it should be, if anything.
    pub(crate) fn unrest(&self) -> Option<Violation> {
        let mut positions = Vec::new();
        for host in self.servers.values().filter(|h| !h.retired) {
            let position = host.up.as_ref().map(|up| (up.server.applied_index(), up.server.state().digest()));
            // A learner that left before it had anything of the log knows nobody whom it could ask.
            let role = self.chronicle.state().member(host.member).map(|member| member.role);
            let never_joined = position.is_some_and(|(applied, _)| applied == 0);
            if role == Some(MemberRole::Removed) && never_joined {
                continue;
            }
            positions.push((host.member, position));
        }
        if let Some(replacement) = self.replacement {
            return Some(Violation::new("convergence", format!("{replacement:?} is not done")));
        }
        if let Some(busy) = self.clients.iter().find(|c| !c.is_idle()) {
            return Some(Violation::new("convergence", format!("{busy:?} is not done")));
        }
        if let Some(busy) = self.registers.busy() {
            return Some(Violation::new("convergence", format!("{busy:?} is not done")));
        }
        let revision = self.chronicle.state().revision();
        let mut begun = self.watchers.iter().filter(|w| w.has_begun);
        if let Some(late) = begun.find(|w| w.stream.resume_after() < revision) {
            let text = format!("{late:?} was not told everything up to {revision}");
            return Some(Violation::new("convergence", text));
        }
        let mut running = self.servers.values().filter_map(|h| Some((h.member, h.up.as_ref()?)));
        if let Some((member, _)) = running.find(|(_, up)| !up.history.is_complete()) {
            let text = format!("server {member} has not kept all events");
            return Some(Violation::new("convergence", text));
        }
        let guests: Vec<_> = self
            .agents
            .iter()
            .flat_map(|host| host.hypervisor.guests.keys().map(|pod| (host.node, *pod)))
            .collect();
        let state = self.chronicle.state();
        convergence::servers(&positions)
            .and_then(|()| {
                convergence::state(state, self.agents.len(), self.lost.is_some(), self.lost_node())
            })
            .and_then(|()| convergence::guests(state, &guests, self.lost_node()))
            .and_then(|()| devices::labels(state, self.lost_node()))
            .and_then(|()| images::check(state, &self.images(), self.lost_node()))
            .err()
    }
}
