//! Pods of a group get their nodes together, or none of them does.

use std::collections::BTreeSet;

use bulkhead_types::{Binding, GROUP_PREEMPTION_LEVEL, QUEUES_LEVEL, Rejection, RejectionCode};

use super::pods::Binder;
use super::{Emit, check_items, not_allowed};
use crate::State;
use crate::pod_group::{Standing, key_of};

pub(super) fn bind(state: &State, bindings: &[Binding], emit: &mut Emit<'_>) -> Result<(), Rejection> {
    check_items("bindings", bindings.len())?;
    let group = |binding: &Binding| state.pods().get(binding.pod).and_then(|pod| key_of(state, pod));
    let Some(key) = bindings.first().and_then(group) else {
        return Err(Rejection::new(RejectionCode::Invalid, "bindings", "the first is of no pod of a group"));
    };
    let standing = Standing::of(state, &key);
    let refuse = |reason: String| Err(not_allowed(format!("pod group {}", key.name), reason));
    if !standing.is_even {
        return refuse("its pods are not of the same priority".to_owned());
    }
    let tasks = bindings.iter().map(|binding| state.pods().get(binding.pod).map_or("", |pod| pod.task()));
    if let Err(reason) = standing.check_together(tasks) {
        return refuse(reason);
    }
    if state.feature_level() >= QUEUES_LEVEL
        && let Some(reason) = standing.hold(state, &key)
    {
        return refuse(reason);
    }
    let mut seen = BTreeSet::new();
    let mut binder = Binder::new(state);
    let least = standing.check_least(state, &key, &binder.queues);
    if let Err(reason) = least.and_then(|()| standing.check_free(state, &key, &[])) {
        return refuse(reason);
    }
    if state.feature_level() >= GROUP_PREEMPTION_LEVEL {
        binder.companions.extend(&standing.waiting);
    }
    for binding in bindings {
        if !seen.insert(binding.pod) || group(binding).is_none_or(|other| other != key) {
            return refuse(format!("pod {} is not of it, or named twice", binding.pod));
        }
        binder.bind(binding, emit).map_err(|reason| {
            not_allowed(format!("pod group {}", key.name), format!("pod {}: {reason}", binding.pod))
        })?;
    }
    Ok(())
}
