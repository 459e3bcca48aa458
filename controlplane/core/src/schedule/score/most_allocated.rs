//! Prefers nodes that are in use already, so that others stay whole for large pods: binpack.
//!
//! Source: "Resource Bin Packing" in the Kubernetes documentation and Volcano's plugin `binpack`: for each resource
//! `weight × (asked + used) / allocatable`, summed, by the sum of the weights. What the pod does not ask for counts neither above nor
//! below; what would be more than there is counts nothing, and its weight does.

use super::WHOLE;

/// One resource of a node, with what a pod asks of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) weight: u64,
    pub(super) asked: u64,
    pub(super) used: u64,
    pub(super) has: u64,
}

impl Part {
    /// The share that is used with the pod, in ten thousandths; `None` when that is more than there is.
    pub(super) fn share(self) -> Option<u64> {
        let after = self.asked.checked_add(self.used).filter(|after| *after <= self.has)?;
        Some(super::share(after, self.has))
    }
}

/// In ten thousandths: all of them for a node that is full then.
pub(super) fn score(parts: impl Iterator<Item = Part>) -> u64 {
    let asked = parts.filter(|part| part.asked > 0);
    let (sum, weights) = asked.fold((0, 0), |(sum, weights), part| {
        (sum + part.weight * part.share().unwrap_or(0), weights + part.weight)
    });
    (sum / weights.max(1)).min(WHOLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asked, used, allocatable and weight of processor time, memory and cards; the score times the plugin's weight 5.
    fn check(parts: [[u64; 4]; 3], expected: f64) {
        let part = |[asked, used, has, weight]: [u64; 4]| Part { weight, asked, used, has };
        let weighted = 5.0 * 100.0 * score(parts.into_iter().map(part)) as f64 / WHOLE as f64;
        assert_eq!(weighted, expected);
    }

    #[test]
    fn the_worked_figures_come_out() {
        // Weights 1, 1 and 2; the pod asks for 2 processors, 4 GiB and 4 cards.
        check([[2, 4, 8, 1], [4, 8, 16, 1], [4, 4, 8, 2]], 437.5);
        check([[2, 6, 8, 1], [4, 8, 16, 1], [4, 4, 8, 2]], 468.75);
        // No cards: neither above nor below the line.
        check([[2, 4, 8, 1], [4, 8, 16, 1], [0, 4, 8, 2]], 375.0);
        // More processors than there are.
        check([[2, 7, 8, 1], [4, 8, 16, 1], [4, 4, 8, 2]], 343.75);
    }
}
