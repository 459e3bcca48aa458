//! A delivery by steps has no more new pods than its step allows, and passes over no pause.
//!
//! As with rollouts, a leader's command is applied a little after the State that it was decided on: a size is wrong only
//! when it is wrong on every one of the last States.

use std::collections::VecDeque;

use bulkhead_controlplane_core::State;
use bulkhead_types::{DeliveryStatus, DeliveryStep, Deployment, EventKind, ObjectId, Transaction};

use super::{Verdict, ensure};

/// The actor whose changes are looked at: users may promote.
const ACTOR: &str = "system:deployment";

/// Checks a transaction. `recent` holds the States before the last transactions, this one included.
///
/// # Errors
/// When a new set is too large, or a step came too early.
pub fn check(recent: &VecDeque<State>, transaction: &Transaction) -> Verdict {
    if transaction.actor != ACTOR {
        return Ok(());
    }
    let Some(before) = recent.back() else { return Ok(()) };
    transaction.events.iter().try_for_each(|event| match &event.kind {
        EventKind::ReplicaSetScaled { id, replicas } => check_size(recent, before, *id, *replicas),
        EventKind::DeliveryChanged { id, delivery } => {
            match (before.deployments().get(*id), delivery.get()) {
                (Some(deployment), Some(to)) => check_step(deployment, to, transaction.at_ms),
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    })
}

fn check_size(recent: &VecDeque<State>, before: &State, id: ObjectId, to: u32) -> Verdict {
    let Some(set) = before.replica_sets().get(id) else { return Ok(()) };
    let Some(owner) = set.meta.owner else { return Ok(()) };
    let allowed = |state: &State| -> Option<u32> {
        let deployment = state.deployments().get(owner.id)?;
        let delivery = deployment.spec.delivery.get()?;
        let status = deployment.status.delivery.get()?;
        let is_its = status.update == set.meta.name.as_str() && status.is_under_way();
        is_its.then(|| match status.is_aborted() {
            true => 0,
            false => delivery.new_max(status.step, deployment.spec.wanted_replicas()),
        })
    };
    // Where no delivery is about this set, other rules hold.
    let bound = recent.iter().map(allowed).collect::<Option<Vec<u32>>>();
    let Some(bound) = bound.and_then(|all| all.into_iter().max()) else { return Ok(()) };
    ensure(to <= set.spec.replicas || to <= bound, "delivery", || {
        format!("ReplicaSet {id} gets {to} pods, its delivery allows {bound}")
    })
}

fn check_step(deployment: &Deployment, to: &DeliveryStatus, at_ms: u64) -> Verdict {
    let (Some(delivery), Some(from)) = (deployment.spec.delivery.get(), deployment.status.delivery.get())
    else {
        return Ok(());
    };
    if from.update != to.update || to.step <= from.step {
        return Ok(());
    }
    let step = delivery.step(from.step, deployment.spec.wanted_replicas());
    let is_due = match step {
        Some(DeliveryStep::Size(_)) => true,
        Some(DeliveryStep::Pause(Some(ms))) => at_ms >= from.step_started_ms + ms,
        Some(DeliveryStep::Pause(None)) | None => false,
    };
    let is_held = from.is_aborted() || deployment.spec.paused;
    ensure(to.step == from.step + 1 && is_due && !is_held, "delivery", || {
        format!("{} goes from {from:?} to {to:?} at {at_ms}, its step is {step:?}", deployment.meta.name)
    })
}

#[cfg(test)]
mod tests {
    use bulkhead_types::{
        CanaryStep, Delivery, DeploymentSpec, DeploymentStatus, DeploymentStrategy, IntOrPercent,
        LabelSelector, Name, ObjectMeta, PodSpec, PodTemplate, Rare, Shared, StringMap,
    };

    use super::*;

    fn deployment(step: u32) -> Deployment {
        let template = PodTemplate {
            labels: StringMap::new(),
            annotations: StringMap::new(),
            spec: Shared::new(PodSpec::default()),
        };
        let steps = vec![
            CanaryStep::SetReplicas { replicas: IntOrPercent::Int(1) },
            CanaryStep::Pause { duration_ms: Some(1000) },
            CanaryStep::Pause { duration_ms: None },
        ];
        let spec = DeploymentSpec {
            replicas: 4,
            selector: LabelSelector::default(),
            template,
            strategy: DeploymentStrategy::default(),
            min_ready_ms: 0,
            progress_deadline_ms: 1,
            revision_history_limit: 1,
            paused: false,
            stopped: false,
            delivery: Rare::some(Delivery::Canary { steps, failure_limit: 0 }),
        };
        let meta = ObjectMeta::new(None, Name::new("d").expect("a name"));
        let status = DeploymentStatus { delivery: Rare::some(at(step)), ..DeploymentStatus::default() };
        Deployment { meta, spec, status }
    }

    fn at(step: u32) -> DeliveryStatus {
        DeliveryStatus { step, step_started_ms: 5000, update: "new".into(), ..DeliveryStatus::default() }
    }

    #[test]
    fn steps_that_come_too_early_are_noticed() {
        let check = |from: u32, to: u32, at_ms: u64, good: bool| {
            let found = check_step(&deployment(from), &at(to), at_ms);
            assert_eq!(found.is_ok(), good, "{from} to {to} at {at_ms}: {found:?}");
        };
        check(0, 1, 5000, true);
        check(0, 2, 9000, false);
        check(1, 2, 5999, false);
        check(1, 2, 6000, true);
        check(2, 3, 99_000, false);
        check(3, 4, 99_000, false);
    }
}
