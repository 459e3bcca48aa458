//! Prefers nodes whose processor time and memory run out together: neither is left over without the other.

use super::{SCORE_MAX, Shares};

/// 100 when both are reserved in the same share, less by half their difference in per cent.
pub(super) fn score(after: Shares) -> u32 {
    SCORE_MAX - (after.cpu.abs_diff(after.memory) / 200) as u32
}
