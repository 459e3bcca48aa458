//! Spreads the pods of one owner over nodes, so that one node's end does not take them all.

use super::SCORE_MAX;

/// 100 on a node without a pod of the same owner, 50 with one, 33 with two, and so on.
pub(crate) fn owner_spread(neighbours: u32) -> u32 {
    SCORE_MAX / neighbours.saturating_add(1)
}
