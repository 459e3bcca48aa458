//! Which pods of a set go first when there are too many.
//!
//! Source: "ReplicaSet", section "Scaling a ReplicaSet", in the Kubernetes documentation.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_types::{ANNOTATION_DELETION_COST, ObjectId, Pod, PodPhase};

/// The pods to delete, in order: without a node before placed; not started before started; not ready before
/// ready; a lower [`ANNOTATION_DELETION_COST`] before a higher one; more of the set on one node before fewer; shorter ready before longer; more restarts before fewer;
/// newer before older. Before all that, those that are not available: a rollout counts on it that a set never
/// gives an available pod for one that is not (Kubernetes looks only at readiness here).
pub(super) fn first_to_go(
    pods: Vec<Arc<Pod>>,
    count: usize,
    is_available: impl Fn(&Pod) -> bool,
) -> Vec<ObjectId> {
    let mut on_node = BTreeMap::<ObjectId, u32>::new();
    for node in pods.iter().filter_map(|pod| pod.node) {
        *on_node.entry(node).or_default() += 1;
    }
    let mut ranked: Vec<_> = pods
        .iter()
        .map(|pod| {
            let neighbours = pod.node.and_then(|node| on_node.get(&node)).copied().unwrap_or(0);
            let restarts: u32 =
                pod.status.containers.iter().map(|c| c.restart_count).fold(0, u32::saturating_add);
            let ready_since_ms = if pod.status.ready { pod.status.ready_since_ms } else { 0 };
            (
                is_available(pod),
                pod.node.is_some(),
                pod.status.phase != PodPhase::Pending,
                pod.status.ready,
                deletion_cost(pod),
                Reverse(neighbours),
                Reverse(ready_since_ms),
                Reverse(restarts),
                Reverse(pod.meta.id),
            )
        })
        .collect();
    ranked.sort_unstable();
    ranked.into_iter().take(count).map(|key| key.8.0).collect()
}

/// What somebody says that the loss of a pod costs, beside others of its set; 0 when nothing is said, or no whole number of
/// 32 bits (Kubernetes' rule).
fn deletion_cost(pod: &Pod) -> i32 {
    let said = pod.meta.annotations.get(ANNOTATION_DELETION_COST);
    said.and_then(|text| text.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use bulkhead_types::{Name, ObjectMeta, PodSpec, PodStatus, Shared};

    use super::*;

    /// A pod as `id:node:phase:ready_since`, where node `-` is none, phase is `P` or `R`, and ready `-` is not; maybe with
    /// its cost as a fifth part.
    fn pod(text: &str) -> Arc<Pod> {
        let parts: Vec<_> = text.split(':').collect();
        let mut meta = ObjectMeta::new(None, Name::new("p").expect("a name"));
        meta.id = ObjectId(parts[0].parse().expect("an id"));
        if let Some(cost) = parts.get(4) {
            meta.annotations.insert(ANNOTATION_DELETION_COST.into(), (*cost).into());
        }
        let status = PodStatus {
            phase: if parts[2] == "R" { PodPhase::Running } else { PodPhase::Pending },
            ready: parts[3] != "-",
            ready_since_ms: parts[3].parse().unwrap_or(0),
            ..PodStatus::default()
        };
        let node = parts[1].parse().ok().map(ObjectId);
        Arc::new(Pod { meta, spec: Shared::new(PodSpec::default()), node, status })
    }

    fn check(pods: &str, expected: &[u64]) {
        let pods: Vec<_> = pods.split(' ').map(pod).collect();
        let found: Vec<_> = first_to_go(pods, expected.len(), |pod| pod.status.ready_since_ms > 3)
            .into_iter()
            .map(|id| id.0)
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_least_useful_go_first() {
        check("1:9:R:5 2:-:P:- 3:8:R:5", &[2]);
        check("1:9:R:5 2:8:P:- 3:7:R:-", &[2, 3, 1]);
        check("1:9:R:5 2:9:R:5 3:8:R:9", &[2, 1, 3]);
        check("1:9:R:5 2:8:R:9 3:7:R:7", &[2, 3, 1]);
        check("1:9:R:5 2:8:R:5 3:7:R:5", &[3, 2, 1]);
        check("1:9:R:5 2:9:R:5 3:7:R:2", &[3, 2, 1]);
    }

    #[test]
    fn what_costs_least_goes_first_among_those_that_serve() {
        check("1:9:R:5:10 2:8:R:5:-3 3:7:R:5", &[2, 3, 1]);
        check("1:9:R:5:-10 2:9:P:-:99 3:9:R:5", &[2, 1, 3]);
        // No number, and one that is too large, say nothing.
        check("1:9:R:5:much 2:8:R:5:1 3:7:R:5:99999999999", &[3, 1, 2]);
    }
}
