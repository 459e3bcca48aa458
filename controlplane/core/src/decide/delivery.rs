//! Deliveries by steps: what users say to them, and each move of them.

use std::sync::Arc;

use bulkhead_types::{
    Command, Delivery, DeliveryStatus, DeliveryStep, Deployment, EventKind, Kind, Name, Object, ObjectId,
    ObjectRef, PLACEMENT_LEVEL, Pod, REASON_ABORTED, Rare, Rejection, RejectionCode,
};

use super::{Emit, not_allowed, not_found};
use crate::State;
use crate::reconcile::is_available;

/// # Panics
/// When the command is about something else.
pub(super) fn decide(state: &State, command: &Command, emit: &mut Emit<'_>) -> Result<(), Rejection> {
    match command {
        Command::PromoteRollout { deployment, full } => promote(state, deployment, *full, emit),
        Command::AbortRollout { deployment } => abort(state, deployment, emit),
        Command::RetryRollout { deployment } => retry(state, deployment, emit),
        Command::AdvanceDelivery { deployment, from, to } => advance(state, *deployment, from, to, emit),
        other => unreachable!("{other:?} is no command about deliveries"),
    }
}

/// A Deployment with a delivery that is under way, or was until it was ended.
fn find(
    state: &State,
    reference: &ObjectRef,
) -> Result<(Arc<Deployment>, Delivery, DeliveryStatus), Rejection> {
    let deployment = match state.find_object(reference) {
        Some(Object::Deployment(deployment)) => deployment,
        Some(other) => {
            let reason = "has no delivery by steps: only Deployments have";
            return Err(Rejection::new(RejectionCode::Invalid, other.object_ref().to_string(), reason));
        }
        None => return Err(not_found(reference)),
    };
    let Some(delivery) = deployment.spec.delivery.get().cloned() else {
        return Err(not_allowed(reference, "has no steps: its strategy goes on by itself")
            .with_remedy("set spec.strategy to Canary, BlueGreen, or RollingUpdate with batches"));
    };
    let Some(status) = deployment.status.delivery.get().filter(|status| status.is_under_way()).cloned()
    else {
        return Err(not_allowed(reference, "has no delivery under way"));
    };
    Ok((deployment, delivery, status))
}

fn promote(state: &State, reference: &ObjectRef, full: bool, emit: &mut Emit<'_>) -> Result<(), Rejection> {
    let (deployment, delivery, status) = find(state, reference)?;
    if status.is_aborted() {
        let reason = format!("was ended ({}) and goes back to the stable template", status.abort_reason);
        return Err(not_allowed(reference, reason).with_remedy("begin anew with `rollout retry`"));
    }
    let desired = deployment.spec.wanted_replicas();
    let (step, steps) = (status.step, delivery.steps(desired));
    let to = if full { delivery.last_step(desired) } else { step.saturating_add(1) };
    if step >= steps || (full && step >= to) {
        return Err(not_allowed(reference, "has no step left to promote"));
    }
    if !full && !matches!(delivery.step(step, desired), Some(DeliveryStep::Pause(_))) {
        let reason = format!("is not paused: step {} of {steps} is under way", step + 1);
        return Err(
            not_allowed(reference, reason).with_remedy("wait for the pause, or promote it with --full")
        );
    }
    let status = DeliveryStatus { step: to, step_started_ms: emit.at_ms(), ..status };
    put(deployment.meta.id, Rare::some(status), emit);
    Ok(())
}

fn abort(state: &State, reference: &ObjectRef, emit: &mut Emit<'_>) -> Result<(), Rejection> {
    let (deployment, _, status) = find(state, reference)?;
    if !status.is_aborted() {
        let status = DeliveryStatus { abort_reason: REASON_ABORTED.into(), ..status };
        put(deployment.meta.id, Rare::some(status), emit);
    }
    Ok(())
}

fn retry(state: &State, reference: &ObjectRef, emit: &mut Emit<'_>) -> Result<(), Rejection> {
    let (deployment, _, status) = find(state, reference)?;
    if !status.is_aborted() {
        return Err(not_allowed(reference, "was not ended: there is nothing to begin anew"));
    }
    let DeliveryStatus { stable, update, .. } = status;
    let step_started_ms = emit.at_ms();
    let status = DeliveryStatus { stable, update, step_started_ms, ..DeliveryStatus::default() };
    put(deployment.meta.id, Rare::some(status), emit);
    Ok(())
}

fn advance(
    state: &State,
    id: ObjectId,
    from: &Rare<DeliveryStatus>,
    to: &Rare<DeliveryStatus>,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    let deployment = state.deployments.get(id).ok_or_else(|| not_found(format!("Deployment {id}")))?;
    let conflict = |reason: &str| {
        Rejection::new(RejectionCode::Conflict, format!("Deployment {}", deployment.meta.name), reason)
    };
    if deployment.status.delivery != *from {
        return Err(conflict("its delivery is not where it was seen any more"));
    }
    let to = match (deployment.spec.delivery.get(), to.get()) {
        (None, None) => Rare::NONE,
        (None, Some(_)) => return Err(conflict("it has no delivery by steps any more")),
        (Some(_), None) => return Err(conflict("it has a delivery by steps again")),
        (Some(delivery), Some(to)) => {
            let mut to = to.clone();
            let (is_other, step, started_ms) = match from.get() {
                Some(from) => (from.update != to.update, from.step, from.step_started_ms),
                None => (true, 0, 0),
            };
            let moves = is_other || to.step != step;
            if is_other && to.step != 0 {
                return Err(conflict("a delivery begins with its first step"));
            }
            if !is_other && to.step > step {
                let desired = deployment.spec.wanted_replicas();
                let is_held = from.get().is_some_and(DeliveryStatus::is_aborted) || deployment.spec.paused;
                check_step(delivery, step, to.step, desired, emit.at_ms() - started_ms.min(emit.at_ms()))
                    .and(if is_held { Err("it is held back") } else { Ok(()) })
                    .and_then(|()| {
                        check_size(state, deployment, &to, delivery.step(step, desired), emit.at_ms())
                    })
                    .map_err(conflict)?;
            }
            to.step_started_ms = if moves { emit.at_ms() } else { started_ms };
            Rare::some(to)
        }
    };
    if to != *from {
        put(id, to, emit);
    }
    Ok(())
}

/// Whether a step that began `age_ms` ago may be followed by `to` without anybody's word.
fn check_step(
    delivery: &Delivery,
    step: u32,
    to: u32,
    desired: u32,
    age_ms: u64,
) -> Result<(), &'static str> {
    if to != step.saturating_add(1) {
        return Err("one step follows another");
    }
    match delivery.step(step, desired) {
        None => Err("there is no further step"),
        Some(DeliveryStep::Size(_)) => Ok(()),
        Some(DeliveryStep::Pause(None)) => Err("it pauses until somebody promotes"),
        Some(DeliveryStep::Pause(Some(ms))) if age_ms < ms => Err("its pause is not over"),
        Some(DeliveryStep::Pause(Some(_))) => Ok(()),
    }
}

/// Whether the pods of a step are there and available by log time. Before [`PLACEMENT_LEVEL`] this was left to who proposes the
/// move: a pod that became unready meanwhile did not hold it up.
fn check_size(
    state: &State,
    deployment: &Deployment,
    to: &DeliveryStatus,
    step: Option<DeliveryStep>,
    now_ms: u64,
) -> Result<(), &'static str> {
    let Some(DeliveryStep::Size(size)) = step.filter(|_| state.feature_level() >= PLACEMENT_LEVEL) else {
        return Ok(());
    };
    let id = Name::new(to.update.as_str()).ok();
    let id = id.and_then(|name| state.find(Kind::ReplicaSet, deployment.meta.namespace.as_ref(), &name));
    let set = id.and_then(|id| state.replica_sets.get(id)).ok_or("its new ReplicaSet is gone")?;
    let is_available = |pod: &&Arc<Pod>| is_available(pod, deployment.spec.min_ready_ms, now_ms);
    let available = state.pods_of(set.meta.id).filter(is_available).count();
    if set.spec.replicas < size || available < size as usize {
        return Err("not all pods of the step are available any more");
    }
    Ok(())
}

fn put(id: ObjectId, delivery: Rare<DeliveryStatus>, emit: &mut Emit<'_>) {
    emit.push(EventKind::DeliveryChanged { id, delivery });
}
