//! Who ends for a pod of higher priority is of lower priority, did not end already, is needed, and makes room; and no
//! disruption budget is gone below.
//!
//! Judged by the slow reference evaluation, which asks every pod and shares nothing with the code that chooses.

use bulkhead_controlplane_core::State;
use bulkhead_controlplane_core::placement::reference::elastic::is_in_tree;
use bulkhead_controlplane_core::placement::reference::preemption::{highest_needed, judge_but, preempts};
use bulkhead_types::{Pod, Transaction, VICTIMS_NEEDED_LEVEL};

use super::{Verdict, Violation};

/// Checks the preemptions of a transaction against the State before it. Below feature level 11 a choice for
/// a pod in the elastic quota tree may be older than the State that it is applied to, so that not all who end are needed.
///
/// # Errors
/// With the first that breaks a rule.
pub fn check(before: &State, transaction: &Transaction) -> Verdict {
    let may_be_stale = |pod: &Pod| before.feature_level() < VICTIMS_NEEDED_LEVEL && is_in_tree(before, pod);
    let judged = judge_but(before, transaction, may_be_stale);
    judged.map_err(|text| Violation::new("preemption", text))
}

/// Checks that nobody of lower priority would have to end for a pod that still waits at the end.
///
/// # Errors
/// With the node where that is so, or when room is kept although nothing ends there any more.
pub fn check_waiting(state: &State, pod: &Pod) -> Verdict {
    let violation =
        |text: String| Err(Violation::new("preemption", format!("pod {}: {text}", pod.meta.name)));
    if pod.status.nominated_node.get().is_some() {
        return violation("room is still kept for it".to_owned());
    }
    // What budgets allow together is the code's own affair: which of them end first decides about the others.
    // In the tree the same is true of minimums.
    let is_bounded = !state.pod_disruption_budgets().is_empty() || is_in_tree(state, pod);
    if !preempts(state, pod) || is_bounded {
        return Ok(());
    }
    match state.nodes().iter().find(|node| highest_needed(state, pod, node).is_some()) {
        Some(node) => violation(format!("it waits, although others would end for it on {}", node.meta.name)),
        None => Ok(()),
    }
}
