//! Prefers nodes that match more of the pod's preferred node affinity.

use bulkhead_types::{Node, PodSpec};

/// The weights of the preferences that a node matches.
pub(crate) fn sum(spec: &PodSpec, node: &Node) -> u32 {
    let preferred = spec.node_affinity().map_or(&[][..], |affinity| &affinity.preferred);
    preferred.iter().filter(|one| one.preference.matches(node)).map(|one| one.weight).sum()
}

/// 100 for the best of all, the others in proportion.
pub(crate) fn score(sum: u32, best: u32) -> u32 {
    if best == 0 { 0 } else { (u64::from(super::SCORE_MAX) * u64::from(sum) / u64::from(best)) as u32 }
}
