//! One NUMA node is better than several, for pods that say so by their policy.

use bulkhead_types::{CpuNeeds, NumaPolicy, PodCpus};

use super::SCORE_MAX;

/// What a node gives by where the CPUs would be; `None` where that does not count.
pub(crate) fn score(needs: &CpuNeeds, given: &PodCpus) -> Option<u32> {
    let is_one = given.numa_nodes.len() == 1;
    (needs.policy != NumaPolicy::None).then_some(if is_one { SCORE_MAX } else { 0 })
}
