//! The feasible slots of one shape: in cells of nodes that other pods let it be on, or not, alike; in each cell in buckets
//! by rank.

use std::collections::BTreeMap;

use super::index::Slot;

/// Ranks are below this.
pub(crate) const RANKS: usize = 512;
const ABSENT: u32 = u32::MAX;

/// Where a slot is.
#[derive(Clone, Copy, Debug)]
struct Place {
    cell: u32,
    rank: u32,
    at: u32,
}

const NOWHERE: Place = Place { cell: ABSENT, rank: 0, at: 0 };

/// Slots of equal coordinates.
#[derive(Clone, Debug, Default)]
struct Cell {
    coordinates: Box<[u32]>,
    buckets: BTreeMap<u32, Vec<Slot>>,
    len: u32,
}

/// See the module. Every change costs the logarithm of the number of cells and ranks; so does a look at a cell's top.
#[derive(Clone, Debug, Default)]
pub(crate) struct Candidates {
    cells: Vec<Cell>,
    /// Those that are not empty.
    by_coordinates: BTreeMap<Box<[u32]>, u32>,
    free: Vec<u32>,
    places: Vec<Place>,
    len: u32,
}

/// A look at a cell that is not empty.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CellView<'a> {
    pub(crate) cell: u32,
    pub(crate) coordinates: &'a [u32],
    /// The best rank in it.
    pub(crate) top: u32,
    /// How many slots it has.
    pub(crate) len: u32,
}

impl Candidates {
    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// How many slots there are.
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    fn place_of(&self, slot: Slot) -> Option<Place> {
        self.places.get(slot as usize).copied().filter(|place| place.cell != ABSENT)
    }

    /// A slot's rank, if it is feasible.
    pub(crate) fn rank_of(&self, slot: Slot) -> Option<u32> {
        self.place_of(slot).map(|place| place.rank)
    }

    /// Gives a slot its rank and coordinates, or takes it out.
    pub(crate) fn set(&mut self, slot: Slot, suits: Option<(u32, &[u32])>) {
        let present = self.place_of(slot);
        let Some((rank, coordinates)) = suits else {
            present.into_iter().for_each(|place| self.take_out(slot, place));
            return;
        };
        let is_there =
            present.is_some_and(|place| *self.cells[place.cell as usize].coordinates == *coordinates);
        match present {
            Some(place) if is_there && place.rank == rank => return,
            Some(place) if is_there => return self.set_rank(slot, place, rank),
            Some(place) => self.take_out(slot, place),
            None => {}
        }
        let cell = match self.by_coordinates.get(coordinates) {
            Some(cell) => *cell,
            None => self.new_cell(coordinates),
        };
        self.put_in(slot, cell, rank);
    }

    /// Gives a feasible slot another rank, or takes it out.
    pub(crate) fn set_rank_only(&mut self, slot: Slot, rank: Option<u32>) {
        let Some(place) = self.place_of(slot) else { return };
        match rank {
            None => self.take_out(slot, place),
            Some(rank) if rank != place.rank => self.set_rank(slot, place, rank),
            Some(_) => {}
        }
    }

    fn set_rank(&mut self, slot: Slot, place: Place, rank: u32) {
        // The cell stays, even if it is empty for a moment.
        self.leave_bucket(place);
        self.len -= 1;
        self.put_in(slot, place.cell, rank);
    }

    fn new_cell(&mut self, coordinates: &[u32]) -> u32 {
        let cell = self.free.pop().unwrap_or_else(|| {
            self.cells.push(Cell::default());
            self.cells.len() as u32 - 1
        });
        self.cells[cell as usize].coordinates = coordinates.into();
        self.by_coordinates.insert(coordinates.into(), cell);
        cell
    }

    fn put_in(&mut self, slot: Slot, cell: u32, rank: u32) {
        let at = slot as usize;
        if at >= self.places.len() {
            self.places.resize(at + 1, NOWHERE);
        }
        let found = &mut self.cells[cell as usize];
        let bucket = found.buckets.entry(rank).or_default();
        self.places[at] = Place { cell, rank, at: bucket.len() as u32 };
        bucket.push(slot);
        found.len += 1;
        self.len += 1;
    }

    fn take_out(&mut self, slot: Slot, place: Place) {
        self.leave_bucket(place);
        self.places[slot as usize] = NOWHERE;
        self.len -= 1;
        let cell = &self.cells[place.cell as usize];
        if cell.len == 0 {
            self.by_coordinates.remove(&cell.coordinates);
            self.free.push(place.cell);
        }
    }

    fn leave_bucket(&mut self, place: Place) {
        let cell = &mut self.cells[place.cell as usize];
        let bucket = cell.buckets.get_mut(&place.rank).expect("the bucket of a slot");
        bucket.swap_remove(place.at as usize);
        if let Some(moved) = bucket.get(place.at as usize) {
            self.places[*moved as usize].at = place.at;
        }
        if bucket.is_empty() {
            cell.buckets.remove(&place.rank);
        }
        cell.len -= 1;
    }

    /// The cells that are not empty, in order of their coordinates.
    pub(crate) fn cells(&self) -> impl Iterator<Item = CellView<'_>> {
        self.by_coordinates.values().map(|cell| {
            let Cell { coordinates, buckets, len } = &self.cells[*cell as usize];
            let top = buckets.last_key_value().map_or(0, |(rank, _)| *rank);
            CellView { cell: *cell, coordinates, top, len: *len }
        })
    }

    /// The slots of a cell in order of rank, those of one rank in an order that `hash` turns.
    pub(crate) fn best(&self, cell: u32, hash: u64) -> impl Iterator<Item = (u32, Slot)> + '_ {
        let buckets = self.cells.get(cell as usize).into_iter().flat_map(|cell| cell.buckets.iter().rev());
        buckets.flat_map(move |(rank, bucket)| {
            let turn = (hash % bucket.len() as u64) as usize;
            bucket[turn..].iter().chain(&bucket[..turn]).map(move |slot| (*rank, *slot))
        })
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
            changes in prop::collection::vec(
                (0u32..40, prop::option::of((0u32..RANKS as u32, 0u32..3)), any::<bool>()), 0..200),
            hash in any::<u64>(),
        ) {
            let (mut candidates, mut model) = (Candidates::default(), BTreeMap::new());
            for (slot, suits, rank_only) in changes {
                if rank_only {
                    candidates.set_rank_only(slot, suits.map(|(rank, _)| rank));
                    if let Some((_, cell)) = model.remove(&slot) {
                        model.extend(suits.map(|(rank, _)| (slot, (rank, cell))));
                    }
                } else {
                    let coordinates = suits.map(|(rank, cell)| (rank, [cell, 7]));
                    candidates.set(slot, coordinates.as_ref().map(|(rank, at)| (*rank, &at[..])));
                    model.remove(&slot);
                    model.extend(suits.map(|suits| (slot, suits)));
                }
                prop_assert_eq!(candidates.len() as usize, model.len());
                let mut found = BTreeMap::new();
                for view in candidates.cells() {
                    let best: Vec<_> = candidates.best(view.cell, hash).collect();
                    prop_assert!(best.is_sorted_by_key(|(rank, _)| std::cmp::Reverse(*rank)));
                    prop_assert_eq!((best[0].0, best.len()), (view.top, view.len as usize));
                    found.extend(best.into_iter().map(|(rank, slot)| (slot, (rank, view.coordinates[0]))));
                }
                prop_assert_eq!(&found, &model);
                for slot in 0..40 {
                    prop_assert_eq!(candidates.rank_of(slot), model.get(&slot).map(|(rank, _)| *rank));
                }
            }
        }
    }
}
