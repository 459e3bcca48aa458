//! Prefers domains with fewer of the counted pods, for constraints that need not hold.

use super::SCORE_MAX;

/// What a domain costs that has so many pods, among so many domains: where there are more domains a pod more says more
/// (Kubernetes' weight, the logarithm of their number).
pub(crate) fn cost(pods: u32, domains: usize, max_skew: u32) -> u64 {
    let domains = domains as u64 + 2;
    let whole = domains.ilog2();
    // In sixteenths, between powers of two by a straight line.
    let part = ((domains << 4) >> whole) & 15;
    let logarithm = u64::from(whole) * 16 + part;
    u64::from(pods) * logarithm + u64::from(max_skew - 1) * 16
}

/// 100 for the cheapest of all when it costs nothing, less for the others; 0 without the label to spread by.
pub(crate) fn score(cost: Option<u64>, cheapest: u64, dearest: u64) -> u32 {
    match cost {
        None => 0,
        Some(_) if dearest == 0 => SCORE_MAX,
        Some(cost) => {
            (u128::from(SCORE_MAX) * u128::from(dearest + cheapest - cost) / u128::from(dearest)) as u32
        }
    }
}
