//! Random numbers that follow from the seed: one stream per component, so that a draw more in one of them
//! changes nothing in the others.

use bulkhead_types::digest128;
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use uuid::Uuid;

use crate::network::Host;

/// One component's stream of random numbers.
#[derive(Clone, Debug)]
pub(crate) struct Rng(ChaCha8Rng);

impl Rng {
    /// The stream of the `number`th component of this name.
    #[must_use]
    pub(crate) fn child(seed: u64, name: &str, number: u64) -> Self {
        let digest = digest128(&("simulation", seed, name, number));
        // The low half is as good as any other: XXH3 spreads over all bits.
        Self(ChaCha8Rng::seed_from_u64(digest as u64))
    }

    /// The stream of one direction between two hosts.
    #[must_use]
    pub(crate) fn link(seed: u64, from: Host, to: Host) -> Self {
        Self(ChaCha8Rng::seed_from_u64(digest128(&("link", seed, from, to)) as u64))
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn range(&mut self, low: u64, high: u64) -> u64 {
        self.0.random_range(low..=high)
    }

    /// A place in something of this length.
    ///
    /// # Panics
    /// When there is nothing to choose from.
    pub(crate) fn below(&mut self, length: usize) -> usize {
        self.0.random_range(0..length)
    }

    /// Whether something of this probability, in thousandths, happens now.
    pub(crate) fn chance(&mut self, permille: u64) -> bool {
        permille > 0 && self.range(0, 999) < permille
    }

    /// One of several.
    ///
    /// # Panics
    /// When there is none.
    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// Puts things into any order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last + 1);
            items.swap(last, other);
        }
    }

    /// A time until the next of events that come independently, `mean` apart on average; at least 1.
    pub(crate) fn wait(&mut self, mean: u64) -> u64 {
        let uniform: f64 = self.0.random_range(f64::EPSILON..1.0);
        ((-uniform.ln() * mean as f64) as u64).max(1)
    }

    /// A random UUID; never nil.
    pub(crate) fn uuid(&mut self) -> Uuid {
        let high = u128::from(self.0.next_u64()) << 64;
        Uuid::from_u128(high | u128::from(self.0.next_u64().max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_repeat_and_differ_by_name_and_number() {
        let draw = |name, number| Rng::child(7, name, number).range(0, u64::MAX);
        assert_eq!(draw("network", 0), draw("network", 0));
        assert_ne!(draw("network", 0), draw("network", 1));
        assert_ne!(draw("network", 0), draw("disk", 0));
    }

    #[test]
    fn waits_have_their_mean() {
        let mut rng = Rng::child(1, "wait", 0);
        let sum: u64 = (0..10_000).map(|_| rng.wait(1000)).sum();
        assert!((900..1100).contains(&(sum / 10_000)), "{sum}");
    }
}
