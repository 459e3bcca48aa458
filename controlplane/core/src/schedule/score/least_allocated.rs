//! Prefers nodes of which less is reserved: the mean free share of processor time and memory.

use bulkhead_types::Resources;

use super::shares_after;
use crate::schedule::index::NodeEntry;

/// 100 for an empty node, 0 for a full one.
pub(super) fn score(request: Resources, entry: &NodeEntry) -> u32 {
    let (cpu, memory) = shares_after(request, entry);
    ((20_000 - cpu - memory) / 200) as u32
}
