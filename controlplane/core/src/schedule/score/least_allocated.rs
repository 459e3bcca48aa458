//! Prefers nodes of which less is reserved: the mean free share of processor time and memory.

use super::{Shares, WHOLE};

/// 100 for an empty node, 0 for a full one.
pub(super) fn score(after: Shares) -> u32 {
    ((2 * WHOLE - after.cpu - after.memory) / 200) as u32
}
