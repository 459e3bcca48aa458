//! Prefers domains with pods that the pod wants to be near, or that want it near; avoids the others.

use super::SCORE_MAX;

/// 100 for the most wanted of all, 0 for the least.
pub(crate) fn score(wish: i64, least: i64, most: i64) -> u32 {
    let range = most.saturating_sub(least);
    if range == 0 { 0 } else { (i64::from(SCORE_MAX) * wish.saturating_sub(least) / range) as u32 }
}
