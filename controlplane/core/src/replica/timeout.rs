//! Election timeouts that follow from a seed.

use bulkhead_types::{MemberId, digest128};

/// Ticks before an election: from `base` to below twice `base`, spread by seed, member and term, so that
/// members rarely call an election at the same time.
pub(super) fn election_ticks(seed: u64, member: MemberId, term: u64, base: usize) -> usize {
    let spread = digest128(&("election", seed, member, term)) % (base as u128);
    base + spread as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_stay_in_raft_s_range_and_differ_between_members() {
        let draws: Vec<_> = (1..=5).map(|m| election_ticks(7, MemberId(m), 3, 10)).collect();
        assert!(draws.iter().all(|t| (10..20).contains(t)), "{draws:?}");
        assert!(draws.iter().any(|t| *t != draws[0]), "{draws:?}");
        assert_eq!(election_ticks(7, MemberId(1), 3, 10), draws[0]);
    }
}
