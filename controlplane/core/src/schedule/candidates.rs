//! The feasible slots of one shape, in buckets by score.

use super::index::Slot;

/// Ranks are below this.
pub(crate) const RANKS: usize = 512;
const WORDS: usize = RANKS / 64;
const ABSENT: u32 = u32::MAX;

/// Slots in buckets by rank, the highest rank first. Every change and every look at the top is O(1).
#[derive(Clone, Debug, Default)]
pub(crate) struct Candidates {
    /// Empty until the first slot comes: a shape that nothing suits costs no memory.
    buckets: Vec<Vec<Slot>>,
    /// Which buckets are not empty.
    occupied: [u64; WORDS],
    /// Of each slot: its rank and its place in that bucket.
    places: Vec<(u32, u32)>,
    len: u32,
}

impl Candidates {
    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// How many slots are feasible.
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// A slot's rank, if it is feasible.
    pub(crate) fn rank_of(&self, slot: Slot) -> Option<u32> {
        self.places.get(slot as usize).map(|(rank, _)| *rank).filter(|rank| *rank != ABSENT)
    }

    /// Gives a slot its rank, or takes it out.
    pub(crate) fn set(&mut self, slot: Slot, rank: Option<u32>) {
        let at = slot as usize;
        if at >= self.places.len() {
            if rank.is_none() {
                return;
            }
            self.places.resize(at + 1, (ABSENT, 0));
            self.buckets.resize(RANKS, Vec::new());
        }
        let (present, place) = self.places[at];
        if rank.unwrap_or(ABSENT) == present {
            return;
        }
        if present != ABSENT {
            self.take_out(present as usize, place as usize);
            self.places[at] = (ABSENT, 0);
        }
        if let Some(rank) = rank {
            let bucket = &mut self.buckets[rank as usize];
            self.places[at] = (rank, bucket.len() as u32);
            bucket.push(slot);
            self.occupied[rank as usize / 64] |= 1 << (rank % 64);
            self.len += 1;
        }
    }

    fn take_out(&mut self, rank: usize, place: usize) {
        let bucket = &mut self.buckets[rank];
        bucket.swap_remove(place);
        if let Some(moved) = bucket.get(place) {
            self.places[*moved as usize].1 = place as u32;
        }
        if bucket.is_empty() {
            self.occupied[rank / 64] &= !(1 << (rank % 64));
        }
        self.len -= 1;
    }

    /// The slots in order of rank, those of one rank in an order that `hash` turns.
    pub(crate) fn best(&self, hash: u64) -> impl Iterator<Item = (u32, Slot)> + '_ {
        let words = self.occupied.iter().enumerate().rev();
        let ranks = words.flat_map(|(word, bits)| Bits(*bits).map(move |bit| word * 64 + bit));
        ranks.flat_map(move |rank| {
            let bucket = &self.buckets[rank];
            let turn = (hash % bucket.len() as u64) as usize;
            bucket[turn..].iter().chain(&bucket[..turn]).map(move |slot| (rank as u32, *slot))
        })
    }
}

/// The set bits of a word, the highest first.
struct Bits(u64);

impl Iterator for Bits {
    type Item = usize;
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let bit = 63 - self.0.leading_zeros();
        self.0 &= !(1 << bit);
        Some(bit as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_sorted_map(
            changes in prop::collection::vec((0u32..40, prop::option::of(0u32..RANKS as u32)), 0..200),
            hash in any::<u64>(),
        ) {
            let (mut candidates, mut model) = (Candidates::default(), BTreeMap::new());
            for (slot, rank) in changes {
                candidates.set(slot, rank);
                match rank {
                    Some(rank) => _ = model.insert(slot, rank),
                    None => _ = model.remove(&slot),
                }
                let found: Vec<_> = candidates.best(hash).collect();
                prop_assert!(found.is_sorted_by_key(|(rank, _)| std::cmp::Reverse(*rank)));
                let found: BTreeMap<_, _> = found.into_iter().map(|(rank, slot)| (slot, rank)).collect();
                prop_assert_eq!(candidates.len() as usize, model.len());
                prop_assert_eq!(&found, &model);
            }
        }
    }
}
