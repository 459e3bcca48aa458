//! Prefers nodes of which less is reserved: the mean free share of processor time and memory.

use super::most_allocated::Part;
use super::{Shares, WHOLE};

/// 100 for an empty node, 0 for a full one.
pub(super) fn score(after: Shares) -> u32 {
    ((2 * WHOLE - after.cpu - after.memory) / 200) as u32
}

/// The same in ten thousandths, of resources by their weights (Kubernetes' rule: what would be more than there is counts as
/// full). Devices count for pods that ask for them.
pub(super) fn weighted(parts: impl Iterator<Item = Part>) -> u64 {
    let (sum, weights) = parts.fold((0, 0), |(sum, weights), part| {
        (sum + part.weight * (WHOLE - part.share().unwrap_or(WHOLE)), weights + part.weight)
    });
    sum / weights.max(1)
}
