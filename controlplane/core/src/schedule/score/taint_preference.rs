//! Avoids nodes with a `PreferNoSchedule` taint that the pod does not tolerate.

use bulkhead_types::{Node, PodSpec, TaintEffect};

use super::SCORE_MAX;

/// 100 when there is no such taint, 0 otherwise.
pub(super) fn score(spec: &PodSpec, node: &Node) -> u32 {
    let avoids = node.spec.taints.iter().any(|taint| {
        taint.effect == TaintEffect::PreferNoSchedule && !spec.tolerations.iter().any(|t| t.tolerates(taint))
    });
    if avoids { 0 } else { SCORE_MAX }
}
