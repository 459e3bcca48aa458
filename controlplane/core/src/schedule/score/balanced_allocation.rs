//! Prefers nodes whose processor time and memory run out together: neither is left over without the other.

use bulkhead_types::Resources;

use super::{SCORE_MAX, shares_after};
use crate::schedule::index::NodeEntry;

/// 100 when both are reserved in the same share, less by half their difference in per cent.
pub(super) fn score(request: Resources, entry: &NodeEntry) -> u32 {
    let (cpu, memory) = shares_after(request, entry);
    SCORE_MAX - (cpu.abs_diff(memory) / 200) as u32
}
