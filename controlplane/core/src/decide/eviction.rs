//! Evictions: a pod ends, if its budgets allow it now, and its VerticalPodAutoscaler when that asks for it.

use bulkhead_types::{Object, ObjectId, ObjectRef, Rejection, RejectionCode};

use super::{Emit, not_allowed, not_found, vertical};
use crate::State;
use crate::disruption::refusing;

pub(super) fn evict(
    state: &State,
    reference: &ObjectRef,
    grace_ms: Option<u64>,
    autoscaler: Option<ObjectId>,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    let pod = match state.find_object(reference).ok_or_else(|| not_found(reference))? {
        Object::Pod(pod) => pod,
        other => {
            let (field, reason) = (other.object_ref().to_string(), "cannot be evicted: only pods can");
            return Err(Rejection::new(RejectionCode::Invalid, field, reason));
        }
    };
    let noted = match autoscaler {
        Some(id) => Some(vertical::note_eviction(state, id, &pod, emit.at_ms())?),
        None => None,
    };
    if let Some((budget, figures)) = refusing(state, &pod) {
        let reason = format!(
            "PodDisruptionBudget {} does not allow it: {} pods are healthy, {} must stay",
            budget.meta.name, figures.current_healthy, figures.desired_healthy
        );
        return Err(not_allowed(reference, reason)
            .with_remedy("try again when more of its pods are healthy, or change the budget"));
    }
    let reason = if noted.is_some() { "EvictedByVPA" } else { "Evicted" };
    super::pods::delete_one(state, &pod, grace_ms, false, reason, emit);
    noted.into_iter().for_each(|event| emit.push(event));
    Ok(())
}
