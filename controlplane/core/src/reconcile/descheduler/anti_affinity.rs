//! Pods beside others that their, or whose, required anti-affinity does not allow: labels changed, or pods were there first.

use std::sync::Arc;

use bulkhead_types::{Node, Pod};

use super::Run;
use crate::placement::{Vicinity, is_kept_off};

/// Whether the pod could not be placed where it is, if it were to be placed now.
fn is_against(vicinity: &Vicinity, node: &Node, pod: &Pod) -> bool {
    let mut without = vicinity.clone();
    without.release(pod, node);
    let Some(outlook) = without.outlook(pod) else { return false };
    is_kept_off(&without, &outlook, node)
}

pub(super) fn run(run: &mut Run<'_, '_>) {
    for node in run.nodes() {
        let pods: Vec<&Arc<Pod>> = run.plan.pods_on(node.meta.id);
        for pod in pods {
            if run.plan.is_full() {
                return;
            }
            if is_against(run.plan.vicinity(), node, pod) {
                let reason =
                    format!("a required anti-affinity does not allow it beside others on {}", node.meta.name);
                run.evict(node, pod, reason);
            }
        }
    }
}
