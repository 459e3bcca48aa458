//! Why a pod cannot be placed, for people.

use std::collections::BTreeMap;

use super::index::NodeIndex;
use super::shape::Shape;
use crate::placement::Vicinity;

/// Different reasons that are listed; nodes may carry endless different taints.
const REASONS_MAX: usize = 16;

/// `0/12 nodes are available: 3 Insufficient cpu, 9 node(s) had untolerated taint {gpu: }.` Costs time in
/// proportion to the number of nodes.
pub(crate) fn message(
    shape: &Shape,
    index: &NodeIndex,
    vicinity: &Vicinity,
    preemption: Option<String>,
) -> String {
    if let Some(class) = &shape.missing_class {
        return format!("PriorityClass {class} does not exist: create it, or let the pod name another one");
    }
    if let Some(reason) = &shape.queue_hold {
        return reason.clone();
    }
    if let Some(reason) = &shape.tree_hold {
        return reason.clone();
    }
    if let Err(reason) = &shape.place {
        return reason.clone();
    }
    if let Err(reason) = &shape.networks {
        return reason.clone();
    }
    if let Err(reason) = &shape.cpus {
        return reason.clone();
    }
    if let Some(reason) = shape.device_refusal() {
        return reason;
    }
    if index.len() == 0 {
        return "no nodes available to schedule pods".to_owned();
    }
    let mut counts = BTreeMap::new();
    for (_, entry) in index.entries() {
        if let Err(misfit) = shape.check(entry).and_then(|()| shape.check_others(entry, vicinity)) {
            *counts.entry(misfit).or_insert(0u32) += 1;
        }
    }
    let mut reasons: Vec<_> = counts.into_iter().map(|(misfit, count)| (misfit.to_string(), count)).collect();
    reasons.sort_unstable();
    let more = reasons.len().saturating_sub(REASONS_MAX);
    reasons.truncate(REASONS_MAX);
    let mut listed: Vec<_> = reasons.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    if more > 0 {
        listed.push(format!("{more} further reasons"));
    }
    let more = preemption.map_or_else(String::new, |text| format!(" {text}"));
    format!("0/{} nodes are available: {}.{more}", index.len(), listed.join(", "))
}
