//! Evictions: a pod ends, if its budgets allow it now.

use bulkhead_types::{Object, ObjectRef, Rejection, RejectionCode};

use super::{Emit, not_allowed, not_found};
use crate::State;
use crate::disruption::refusing;

pub(super) fn evict(
    state: &State,
    reference: &ObjectRef,
    grace_ms: Option<u64>,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    let pod = match state.find_object(reference).ok_or_else(|| not_found(reference))? {
        Object::Pod(pod) => pod,
        other => {
            let (field, reason) = (other.object_ref().to_string(), "cannot be evicted: only pods can");
            return Err(Rejection::new(RejectionCode::Invalid, field, reason));
        }
    };
    if let Some((budget, figures)) = refusing(state, &pod) {
        let reason = format!(
            "PodDisruptionBudget {} does not allow it: {} pods are healthy, {} must stay",
            budget.meta.name, figures.current_healthy, figures.desired_healthy
        );
        return Err(not_allowed(reference, reason)
            .with_remedy("try again when more of its pods are healthy, or change the budget"));
    }
    super::pods::delete_one(state, &pod, grace_ms, false, "Evicted", emit);
    Ok(())
}
