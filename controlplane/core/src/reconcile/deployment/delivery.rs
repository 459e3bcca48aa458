//! Progressive delivery: which sizes the present step allows, and when the next one begins.
//!
//! Where a delivery stands is in the Deployment's status. Here it is only read: each move is a command that names
//! what it was decided on, and is refused on anything else. So nobody's promotion is lost, and no step is passed over.
//! All times are log times: the leader's clock decides when a move is proposed, the log's whether it is in time.
//!
//! Source: "Canary" and "BlueGreen" of Argo Rollouts, "partition" of OpenKruise's CloneSet.

use std::sync::Arc;

use bulkhead_types::{
    Command, Delivery, DeliveryStatus, DeliveryStep, Pod, REASON_FAILURE_LIMIT, Rare, ReplicaSet,
};
use smol_str::SmolStr;

use super::rolling::{Resize, SetSize};
use super::status::{Found, Hold};
use super::{Pass, rolling};

impl Pass<'_> {
    /// The status, once it is about the set of the present template.
    fn delivery_status(&self) -> Option<&DeliveryStatus> {
        let new = self.new.as_ref()?;
        self.deployment.status.delivery.get().filter(|status| status.update == new.meta.name.as_str())
    }

    /// One move of the sets towards what the step allows. Nothing moves until the status is about the present template;
    /// while the Deployment is paused the status goes on to say what is what, and nothing new grows. `None` when the
    /// rules of a Deployment without steps hold: it is paused and has none under way.
    pub(super) fn deliver(&self, delivery: &Delivery, found: &Found) -> Option<Vec<Resize>> {
        let is_paused = self.deployment.spec.paused;
        let status = match self.delivery_status() {
            Some(status) => status,
            None if is_paused => self.deployment.status.delivery.get()?,
            None => return Some(Vec::new()),
        };
        let named = |name: &SmolStr| {
            let set = self.sets.iter().find(|set| set.meta.name.as_str() == name)?;
            found.old.iter().chain(&found.new).find(|size| size.id == set.meta.id).copied()
        };
        let stable = named(&status.stable).filter(|_| status.is_under_way());
        let (Some(new), false) = (named(&status.update), is_paused && stable.is_none()) else {
            return if is_paused { None } else { Some(Vec::new()) };
        };
        let (for_new, for_stable) = match stable {
            Some(_) => self.sizes(delivery, status, is_paused.then_some(new.replicas)),
            None => (self.bounds.desired, 0),
        };
        let is_other = |size: &&SetSize| size.id != new.id && Some(size.id) != stable.map(|stable| stable.id);
        let others = found.old.iter().chain(&found.new).filter(is_other);
        let mut goals: Vec<(SetSize, u32)> = others.map(|size| (*size, 0)).collect();
        goals.push((new, for_new));
        goals.extend(stable.map(|size| (size, for_stable)));
        Some(rolling::toward(self.bounds, &goals))
    }

    /// How many pods of the new and of the stable template there shall be; of the new one no more than `most`.
    fn sizes(&self, delivery: &Delivery, status: &DeliveryStatus, most: Option<u32>) -> (u32, u32) {
        let desired = self.bounds.desired;
        if status.is_aborted() {
            return (0, desired);
        }
        let new_max = delivery.new_max(status.step, desired);
        let new_max = most.map_or(new_max, |most| most.min(new_max));
        if let Delivery::BlueGreen { .. } = delivery {
            let keeps =
                self.kept_until_ms(delivery, status).is_none_or(|until_ms| self.view.now_ms < until_ms);
            return (new_max, if keeps { desired } else { 0 });
        }
        (new_max, desired - new_max.min(desired))
    }

    /// After the switch of a blue-green delivery: how long the old set stays, milliseconds since the epoch.
    fn kept_until_ms(&self, delivery: &Delivery, status: &DeliveryStatus) -> Option<u64> {
        let Delivery::BlueGreen { scale_down_delay_ms, .. } = delivery else { return None };
        let switched = status.step >= delivery.steps(self.bounds.desired);
        switched.then(|| status.step_started_ms.saturating_add(*scale_down_delay_ms))
    }

    /// The next move of the delivery, if one is due.
    pub(super) fn advance(&self, found: &Found) -> Option<Command> {
        let from = &self.deployment.status.delivery;
        let spec = &self.deployment.spec;
        let to = match (spec.delivery.get(), &self.new) {
            (None, _) => from.get().map(|_| Rare::NONE)?,
            (Some(_), _) if spec.paused || spec.stopped => return None,
            (Some(_), None) => return None,
            (Some(delivery), Some(new)) => Rare::some(match self.delivery_status() {
                Some(status) => self.next(delivery, status, found)?,
                None => self.first(from.get(), new),
            }),
        };
        (to != *from).then(|| Command::AdvanceDelivery {
            deployment: self.deployment.meta.id,
            from: from.clone(),
            to,
        })
    }

    /// The status for a template that it is not about yet.
    fn first(&self, former: Option<&DeliveryStatus>, new: &ReplicaSet) -> DeliveryStatus {
        // Without a former delivery what runs is what works; a first rollout has nothing to go back to.
        let running = || self.old.iter().filter(|set| set.spec.replicas > 0);
        let stable = match former {
            Some(former) => former.stable.clone(),
            None => running()
                .max_by_key(|set| set.spec.rollout_revision)
                .map(|set| SmolStr::from(set.meta.name.as_str()))
                .unwrap_or_default(),
        };
        DeliveryStatus { stable, update: SmolStr::from(new.meta.name.as_str()), ..DeliveryStatus::default() }
    }

    /// What follows the present status.
    fn next(&self, delivery: &Delivery, status: &DeliveryStatus, found: &Found) -> Option<DeliveryStatus> {
        let desired = self.bounds.desired;
        let new = found.new?;
        let is_whole = new.replicas == desired
            && new.available >= desired
            && found.old.iter().all(|set| set.replicas == 0);
        let done = || DeliveryStatus {
            stable: status.update.clone(),
            update: status.update.clone(),
            ..DeliveryStatus::default()
        };
        if !status.is_under_way() {
            return (status.stable.is_empty() && is_whole).then(done);
        }
        if !self.old.iter().any(|set| set.meta.name.as_str() == status.stable) {
            // Somebody deleted the stable set: there is nothing to go back to.
            return Some(DeliveryStatus { stable: SmolStr::default(), ..status.clone() });
        }
        if status.is_aborted() {
            return None;
        }
        if let Some(failed) = self.newly_failed(delivery, status) {
            return Some(failed);
        }
        let is_over = match delivery.step(status.step, desired) {
            None => return is_whole.then(done),
            Some(DeliveryStep::Size(size)) => new.replicas >= size && new.available >= size,
            Some(DeliveryStep::Pause(None)) => false,
            Some(DeliveryStep::Pause(Some(ms))) => {
                self.view.now_ms >= status.step_started_ms.saturating_add(ms)
            }
        };
        is_over.then(|| DeliveryStatus { step: status.step + 1, ..status.clone() })
    }

    /// The status with new pods that failed and are not in it yet; ended when they are too many.
    fn newly_failed(&self, delivery: &Delivery, status: &DeliveryStatus) -> Option<DeliveryStatus> {
        let limit = delivery.failure_limit()? as usize;
        let mut failed = status.failed_pods.clone();
        let pods = self.view.state.pods_of(self.new.as_ref()?.meta.id);
        let fresh = pods.filter(|pod| self.has_failed(pod) && !status.failed_pods.contains(&pod.meta.id));
        failed.extend(fresh.map(|pod| pod.meta.id));
        failed.truncate(limit + 1);
        if failed.len() == status.failed_pods.len() {
            return None;
        }
        let is_over = failed.len() > limit;
        let abort_reason = if is_over { REASON_FAILURE_LIMIT.into() } else { SmolStr::default() };
        Some(DeliveryStatus { failed_pods: failed, abort_reason, ..status.clone() })
    }

    /// Whether a new pod ended, began anew, or is not ready for longer than the progress deadline. One that somebody
    /// asked to go says nothing.
    fn has_failed(&self, pod: &Arc<Pod>) -> bool {
        let status = &pod.status;
        let restarts = || status.containers.iter().any(|container| container.restart_count > 0);
        let is_late = || self.late_at_ms(pod).is_some_and(|at_ms| self.view.now_ms >= at_ms);
        !pod.meta.is_deleting()
            && (status.phase.is_terminal() || status.sandbox_restarts > 0 || restarts() || is_late())
    }

    /// From when on a pod that is not ready counts as failed, milliseconds since the epoch.
    fn late_at_ms(&self, pod: &Pod) -> Option<u64> {
        let since_ms = pod.meta.created_at_ms.max(pod.status.ready_since_ms);
        (!pod.status.ready).then(|| since_ms.saturating_add(self.deployment.spec.progress_deadline_ms))
    }

    /// When time alone moves the delivery, milliseconds since the epoch.
    pub(super) fn delivery_wake_ms(&self, found: &Found) -> Option<u64> {
        let spec = &self.deployment.spec;
        let delivery = spec.delivery.get().filter(|_| !spec.paused && !spec.stopped)?;
        let status = self.delivery_status().filter(|status| status.is_under_way() && !status.is_aborted())?;
        let pause = match delivery.step(status.step, self.bounds.desired) {
            Some(DeliveryStep::Pause(Some(ms))) => Some(status.step_started_ms.saturating_add(ms)),
            _ => None,
        };
        let late = delivery.failure_limit().and(found.new).and_then(|new| {
            let pods = self.view.state.pods_of(new.id);
            let pods = pods.filter(|pod| {
                !pod.meta.is_deleting()
                    && !pod.status.phase.is_terminal()
                    && !status.failed_pods.contains(&pod.meta.id)
            });
            pods.filter_map(|pod| self.late_at_ms(pod)).min()
        });
        [pause, late, self.kept_until_ms(delivery, status)]
            .into_iter()
            .flatten()
            .filter(|at_ms| *at_ms > self.view.now_ms)
            .min()
    }

    /// Why the rollout stands where it is, and shall.
    pub(super) fn hold(&self, found: &Found) -> Option<Hold> {
        let delivery = self.deployment.spec.delivery.get()?;
        let status = self.delivery_status().filter(|status| status.is_under_way())?;
        if status.is_aborted() {
            let message = format!(
                "ReplicaSet \"{}\" was given up, \"{}\" stays; {} new pods had failed",
                status.update,
                status.stable,
                status.failed_pods.len()
            );
            return Some(Hold::Aborted(status.abort_reason.clone(), message));
        }
        let desired = self.bounds.desired;
        let place = format!("step {} of {}", status.step + 1, delivery.steps(desired));
        match delivery.step(status.step, desired) {
            Some(DeliveryStep::Size(_)) => None,
            Some(DeliveryStep::Pause(None)) => {
                Some(Hold::Paused(format!("{place}: paused until it is promoted")))
            }
            Some(DeliveryStep::Pause(Some(ms))) => {
                Some(Hold::Paused(format!("{place}: paused for {} seconds", ms / 1000)))
            }
            None if delivery.goal(desired) < desired => {
                let is_there = found.new.is_some_and(|new| new.replicas >= delivery.goal(desired));
                is_there.then_some(Hold::Partitioned(delivery.goal(desired)))
            }
            None => {
                let until_ms = self.kept_until_ms(delivery, status)?;
                let keeps = self.view.now_ms < until_ms;
                keeps.then(|| {
                    Hold::Paused("the old ReplicaSet is kept for a while after the switch".to_owned())
                })
            }
        }
    }
}
