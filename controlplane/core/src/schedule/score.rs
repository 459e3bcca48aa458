//! Scores: how well a node that may take a pod suits it. Each plugin gives 0 to 100.

mod balanced_allocation;
mod least_allocated;
mod owner_spread;
mod taint_preference;

use bulkhead_types::{PodSpec, Resources};

use super::candidates::RANKS;
use super::index::NodeEntry;

pub(crate) use owner_spread::owner_spread;

/// The best that one plugin gives.
pub(crate) const SCORE_MAX: u32 = 100;

const _: () = assert!(3 * SCORE_MAX as usize + 1 < RANKS);

/// A feasible node's rank for a shape: what only changes with the node itself. Above all stands that the
/// node has no taint to avoid; then the sum of the other scores.
pub(crate) fn rank(spec: &PodSpec, request: Resources, entry: &NodeEntry) -> u32 {
    let resources = least_allocated::score(request, entry) + balanced_allocation::score(request, entry);
    let untainted = taint_preference::score(spec, &entry.node) == SCORE_MAX;
    if untainted { resources + 2 * SCORE_MAX + 1 } else { resources }
}

/// The sum of the scores behind a rank.
pub(crate) fn sum_of(rank: u32) -> u32 {
    if rank > 2 * SCORE_MAX { rank - (2 * SCORE_MAX + 1) + SCORE_MAX } else { rank }
}

/// The share of `part` in `whole`, in ten thousandths; all of it when there is nothing.
fn share(part: u64, whole: u64) -> u64 {
    const WHOLE: u128 = 10_000;
    if whole == 0 {
        return WHOLE as u64;
    }
    (u128::from(part) * WHOLE / u128::from(whole)).min(WHOLE) as u64
}

/// Shares of processor time and memory that are reserved once the pod is there, in ten thousandths.
fn shares_after(request: Resources, entry: &NodeEntry) -> (u64, u64) {
    let allocatable = entry.node.status.facts.allocatable;
    let after = entry.usage.requests.plus(request);
    (share(after.cpu_millis, allocatable.cpu_millis), share(after.memory_bytes, allocatable.memory_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taint_to_avoid_outweighs_everything() {
        let (best_tainted, worst_untainted) = (2 * SCORE_MAX, 2 * SCORE_MAX + 1);
        assert!(worst_untainted > best_tainted);
        assert_eq!(sum_of(best_tainted), 200);
        assert_eq!(sum_of(worst_untainted), 100);
        assert_eq!(sum_of(worst_untainted + 200), 300);
    }
}
