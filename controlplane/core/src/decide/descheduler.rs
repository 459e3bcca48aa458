//! Runs of DeschedulerPolicies: whatever was proposed is checked again, pod by pod.

use bulkhead_types::{
    DESCHEDULED_PER_RUN_MAX, DESCHEDULER_POLICIES_MAX, Descheduled, DeschedulerPolicyStatus, EventKind,
    Object, ObjectId, ObjectStatus, Rejection, RejectionCode,
};

use super::{Emit, not_allowed, not_found};
use crate::State;
use crate::descheduler::{Plan, due_ms};

/// The reason of a pod that a policy evicts.
const REASON_DESCHEDULED: &str = "Descheduled";

/// Refuses policies beyond what a cluster keeps.
pub(super) fn check(state: &State, object: &Object) -> Result<(), Rejection> {
    let Object::DeschedulerPolicy(policy) = object else { return Ok(()) };
    let is_there = state.descheduler_policies.iter().any(|other| other.meta.name == policy.meta.name);
    if is_there || state.descheduler_policies.len() < DESCHEDULER_POLICIES_MAX {
        return Ok(());
    }
    let reason = format!("there are {DESCHEDULER_POLICIES_MAX} policies already");
    Err(not_allowed(object.object_ref(), reason).with_remedy("put the strategies into one of those"))
}

/// Evicts those of the pods that may be evicted now, and notes the run.
pub(super) fn deschedule(
    state: &State,
    id: ObjectId,
    generation: u64,
    pods: &[Descheduled],
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    let policy = state.descheduler_policies.get(id);
    let policy = policy.ok_or_else(|| not_found(format!("DeschedulerPolicy {id}")))?;
    let refused = |code, reason: String| {
        Err(Rejection::new(code, format!("DeschedulerPolicy {}", policy.meta.name), reason))
    };
    if pods.len() > DESCHEDULED_PER_RUN_MAX as usize {
        let reason = format!("one run evicts at most {DESCHEDULED_PER_RUN_MAX} pods");
        return refused(RejectionCode::Invalid, reason);
    }
    let now_ms = emit.at_ms();
    if policy.meta.generation != generation || due_ms(policy) > now_ms {
        let reason = "is another one than was looked at, or had its run";
        return refused(RejectionCode::Conflict, reason.to_owned());
    }
    let mut plan = Plan::new(state, policy, now_ms);
    let mut last = Vec::new();
    for one in pods {
        let Some(pod) = state.pods.get(one.pod).filter(|pod| plan.evict(pod, |_, _| true)) else { continue };
        if !policy.spec.dry_run {
            super::pods::delete_one(state, pod, None, false, REASON_DESCHEDULED, emit);
        }
        last.push(one.clone());
    }
    let is_dry = policy.spec.dry_run;
    let present = &policy.status;
    let evicted = present.evicted + if is_dry { 0 } else { last.len() as u64 };
    let cooling = if is_dry { present.cooling.clone() } else { plan.cooling_after(now_ms) };
    let status = DeschedulerPolicyStatus {
        observed_generation: generation,
        last_run_ms: now_ms,
        last,
        last_was_dry_run: is_dry,
        evicted,
        cooling,
    };
    emit.push(EventKind::StatusChanged { id, status: ObjectStatus::DeschedulerPolicy(status) });
    Ok(())
}
