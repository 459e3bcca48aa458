//! Scores: how well a node that may take a pod suits it. Each plugin gives 0 to 100.

mod balanced_allocation;
mod image_locality;
mod least_allocated;
mod load_aware;
mod most_allocated;
pub(crate) mod node_affinity;
pub(crate) mod numa;
mod owner_spread;
pub(crate) mod pod_affinity;
mod scorer;
mod taint_preference;
pub(crate) mod topology_spread;

use bulkhead_types::{PodSpec, Resources};

use super::candidates::RANKS;
use super::index::NodeEntry;

pub(crate) use image_locality::{ImageSizes, ImageSpread, WantedImages, sizes as image_sizes};
pub(crate) use load_aware::{Load, estimate};
pub(crate) use owner_spread::owner_spread;
pub(crate) use scorer::{Scorer, Wishes};

/// The best that one plugin gives.
pub(crate) const SCORE_MAX: u32 = 100;

const _: () = assert!(3 * SCORE_MAX as usize + 1 < RANKS);

/// A feasible node's rank for a shape: what only changes with the node itself. Above all stands that the
/// node has no taint to avoid; then the sum of the other scores.
pub(crate) fn rank(scorer: &Scorer, spec: &PodSpec, request: Resources, entry: &NodeEntry) -> u32 {
    let untainted = taint_preference::score(spec, &entry.node) == SCORE_MAX;
    ranked(untainted, scorer.score(request, entry))
}

/// The same for a node that had a rank, and of which only what is reserved has changed since.
pub(crate) fn rank_again(scorer: &Scorer, former: u32, request: Resources, entry: &NodeEntry) -> u32 {
    ranked(former > 2 * SCORE_MAX, scorer.score(request, entry))
}

fn ranked(untainted: bool, resources: u32) -> u32 {
    if untainted { resources + 2 * SCORE_MAX + 1 } else { resources }
}

/// The rank of a node for pods that ask for devices: three quarters are what its devices give, the rest what the other
/// scores do.
pub(crate) fn with_devices(rank: u32, devices: u32) -> u32 {
    let untainted = rank > 2 * SCORE_MAX;
    let base = if untainted { 2 * SCORE_MAX + 1 } else { 0 };
    let others = (rank - base).min(2 * SCORE_MAX);
    base + (others + 6 * devices.min(SCORE_MAX)) / 4
}

/// The sum of the scores behind a rank.
pub(crate) fn sum_of(rank: u32) -> u32 {
    if rank > 2 * SCORE_MAX { rank - (2 * SCORE_MAX + 1) + SCORE_MAX } else { rank }
}

/// A share of one, in ten thousandths.
const WHOLE: u64 = 10_000;

/// The share of `part` in `whole`, in ten thousandths; all of it when there is nothing.
fn share(part: u64, whole: u64) -> u64 {
    if whole == 0 {
        return WHOLE;
    }
    // Division of 128 bits is slow, and needed only beyond a petabyte.
    let share = match part.checked_mul(WHOLE) {
        Some(product) => product / whole,
        None => (u128::from(part) * u128::from(WHOLE) / u128::from(whole)) as u64,
    };
    share.min(WHOLE)
}

/// Shares of processor time and memory, in ten thousandths.
#[derive(Clone, Copy, Debug)]
struct Shares {
    cpu: u64,
    memory: u64,
}

/// Shares of processor time and memory that are reserved once the pod is there, in ten thousandths.
fn shares_after(request: Resources, entry: &NodeEntry) -> Shares {
    let allocatable = entry.allocatable;
    let after = entry.usage.requests.plus(request);
    Shares {
        cpu: share(after.cpu_millis, allocatable.cpu_millis),
        memory: share(after.memory_bytes, allocatable.memory_bytes),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bulkhead_types::{
        Name, Node, NodeFacts, NodePhase, NodeSpec, NodeStatus, ObjectMeta, Taint, TaintEffect,
    };

    use super::*;
    use crate::NodeUsage;

    /// A node of 1000 m and 1000 bytes, of which so much is reserved.
    fn entry(cpu_millis: u64, memory_bytes: u64) -> NodeEntry {
        let all =
            Resources { cpu_millis: 1000, memory_bytes: 1000, ephemeral_storage_bytes: 0, ..Resources::ZERO };
        let facts = NodeFacts { capacity: all, allocatable: all, pods_max: 9, ..NodeFacts::default() };
        let status = NodeStatus {
            phase: NodePhase::Ready,
            phase_since_ms: 0,
            incarnation: 1,
            facts,
            pool: Default::default(),
            images: Default::default(),
            device_labels: Default::default(),
        };
        let meta = ObjectMeta::new(None, Name::new("n").expect("a name"));
        let requests = Resources { cpu_millis, memory_bytes, ephemeral_storage_bytes: 0, ..Resources::ZERO };
        let node = Arc::new(Node { meta, spec: NodeSpec::default(), status });
        NodeEntry::new(node, NodeUsage { requests, pods: 1 })
    }

    fn request(cpu_millis: u64, memory_bytes: u64) -> Resources {
        Resources { cpu_millis, memory_bytes, ephemeral_storage_bytes: 0, ..Resources::ZERO }
    }

    #[test]
    fn less_reserved_scores_higher() {
        let check = |request, entry, expected| {
            assert_eq!(least_allocated::score(shares_after(request, &entry)), expected)
        };
        check(request(0, 0), entry(0, 0), 100);
        check(request(100, 100), entry(0, 0), 90);
        check(request(100, 100), entry(400, 200), 60);
        check(request(500, 500), entry(500, 500), 0);
        check(request(100, 0), entry(0, 0), 95);
    }

    #[test]
    fn even_reservations_score_higher() {
        let check = |request, entry, expected| {
            assert_eq!(balanced_allocation::score(shares_after(request, &entry)), expected)
        };
        check(request(100, 100), entry(0, 0), 100);
        check(request(100, 0), entry(0, 100), 100);
        check(request(100, 0), entry(0, 0), 95);
        check(request(500, 0), entry(500, 0), 50);
    }

    #[test]
    fn a_node_without_capacity_scores_as_a_full_one() {
        let mut none = entry(0, 0);
        none.allocatable = Resources::ZERO;
        assert_eq!(least_allocated::score(shares_after(request(0, 0), &none)), 0);
        let rank = rank(&Scorer::default(), &PodSpec::default(), request(0, 0), &none);
        assert_eq!(rank, 2 * SCORE_MAX + 1 + 100);
    }

    #[test]
    fn more_neighbours_score_lower() {
        assert_eq!([0, 1, 2, 99, 100].map(owner_spread), [100, 50, 33, 1, 0]);
    }

    #[test]
    fn only_a_preference_is_avoided_by_rank() {
        let mut tainted = entry(0, 0);
        let spec = PodSpec::default();
        let taint = |effect| Taint { key: "k".into(), value: "".into(), effect };
        Arc::make_mut(&mut tainted.node).spec.taints = vec![taint(TaintEffect::PreferNoSchedule)];
        assert_eq!(taint_preference::score(&spec, &tainted.node), 0);
        let rank = |request, entry: &NodeEntry| rank(&Scorer::default(), &spec, request, entry);
        assert!(rank(request(1, 1), &tainted) < rank(request(500, 0), &entry(500, 0)));
    }

    #[test]
    fn a_taint_to_avoid_outweighs_everything() {
        let (best_tainted, worst_untainted) = (2 * SCORE_MAX, 2 * SCORE_MAX + 1);
        assert!(worst_untainted > best_tainted);
        assert_eq!(sum_of(best_tainted), 200);
        assert_eq!(sum_of(worst_untainted), 100);
        assert_eq!(sum_of(worst_untainted + 200), 300);
    }
}
