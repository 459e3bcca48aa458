//! Pods of domains that have more than a required spread constraint allows.
//!
//! Source: RemovePodsViolatingTopologySpreadConstraint of the descheduler, for constraints with `DoNotSchedule`.

use std::sync::Arc;

use bulkhead_types::{Node, Pod};

use super::Run;
use crate::placement::Vicinity;

/// The constraint that a pod's domain exceeds, by its key.
fn exceeded(vicinity: &Vicinity, node: &Node, pod: &Pod) -> Option<String> {
    let outlook = vicinity.outlook(pod)?;
    let spread = outlook.rules().spread.iter().find(|spread| {
        let count =
            node.label(&spread.topology_key).map_or(0, |domain| vicinity.count(spread.counter, domain));
        spread.counts_itself && count > vicinity.fewest(spread).saturating_add(spread.max_skew)
    })?;
    let domain = node.label(&spread.topology_key).unwrap_or_default();
    Some(format!(
        "{}={domain} has more of them than a skew of {} allows",
        spread.topology_key, spread.max_skew
    ))
}

pub(super) fn run(run: &mut Run<'_, '_>) {
    for node in run.nodes() {
        let pods: Vec<&Arc<Pod>> = run.plan.pods_on(node.meta.id);
        for pod in pods {
            if run.plan.is_full() {
                return;
            }
            // Asked anew for each: those before may have made it even.
            if let Some(reason) = exceeded(run.plan.vicinity(), node, pod) {
                run.evict(node, pod, reason);
            }
        }
    }
}
