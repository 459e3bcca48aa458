//! Sets of indexes, kept as ranges.

use serde::{Deserialize, Serialize};

/// A set of numbers as ascending, disjoint ranges that do not touch: `0-2,5,7-8` in text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct IndexSet {
    /// First and last of each range.
    ranges: Vec<(u32, u32)>,
}

/// Why a text is no [`IndexSet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexSetError {
    /// A part is no number and no range.
    #[error("must be numbers and ranges such as 0-2,5,7-8")]
    Form,
    /// A range does not follow the one before.
    #[error("must be in ascending order, without overlap")]
    Order,
}

impl IndexSet {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.ranges.iter().map(|(first, last)| u64::from(last - first) + 1).sum()
    }

    /// The largest.
    #[must_use]
    pub fn last(&self) -> Option<u32> {
        self.ranges.last().map(|(_, last)| *last)
    }

    /// The ranges, first and last of each, in ascending order.
    #[must_use]
    pub fn ranges(&self) -> &[(u32, u32)] {
        &self.ranges
    }

    /// Whether `index` is in it. Costs the logarithm of the number of ranges.
    #[must_use]
    pub fn contains(&self, index: u32) -> bool {
        let at = self.ranges.partition_point(|(first, _)| *first <= index);
        at.checked_sub(1).is_some_and(|at| self.ranges[at].1 >= index)
    }

    /// Adds `index`; returns whether it is new.
    pub fn insert(&mut self, index: u32) -> bool {
        if self.contains(index) {
            return false;
        }
        let at = self.ranges.partition_point(|(first, _)| *first <= index);
        let joins_left = at > 0 && self.ranges[at - 1].1.checked_add(1) == Some(index);
        let joins_right = self.ranges.get(at).is_some_and(|(first, _)| index.checked_add(1) == Some(*first));
        match (joins_left, joins_right) {
            (true, true) => {
                self.ranges[at - 1].1 = self.ranges[at].1;
                self.ranges.remove(at);
            }
            (true, false) => self.ranges[at - 1].1 = index,
            (false, true) => self.ranges[at].0 = index,
            (false, false) => self.ranges.insert(at, (index, index)),
        }
        true
    }

    /// All of them, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.ranges.iter().flat_map(|(first, last)| *first..=*last)
    }

    /// A set of ranges.
    ///
    /// # Errors
    /// When they are not ascending and disjoint. Ranges that touch are joined.
    pub fn from_ranges(ranges: impl IntoIterator<Item = (u32, u32)>) -> Result<Self, IndexSetError> {
        let mut set = Self::default();
        for (first, last) in ranges {
            let follows = set.last().is_none_or(|before| before < first);
            if first > last || !follows {
                return Err(IndexSetError::Order);
            }
            match set.ranges.last_mut() {
                Some((_, before)) if *before + 1 == first => *before = last,
                _ => set.ranges.push((first, last)),
            }
        }
        Ok(set)
    }
}

impl FromIterator<u32> for IndexSet {
    fn from_iter<I: IntoIterator<Item = u32>>(indexes: I) -> Self {
        let mut set = Self::default();
        for index in indexes {
            set.insert(index);
        }
        set
    }
}

impl std::fmt::Display for IndexSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (position, (first, last)) in self.ranges.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl std::str::FromStr for IndexSet {
    type Err = IndexSetError;
    fn from_str(text: &str) -> Result<Self, IndexSetError> {
        let number = |text: &str| text.parse::<u32>().map_err(|_| IndexSetError::Form);
        let parts = text.split(',').filter(|_| !text.is_empty());
        let ranges = parts.map(|part| match part.split_once('-') {
            Some((first, last)) => Ok((number(first)?, number(last)?)),
            None => number(part).map(|index| (index, index)),
        });
        Self::from_ranges(ranges.collect::<Result<Vec<_>, _>>()?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_are_ranges_in_order() {
        let check = |text: &str, expected: Result<&str, IndexSetError>| {
            let found = text.parse::<IndexSet>().map(|set| set.to_string());
            assert_eq!(found, expected.map(str::to_owned), "{text}");
        };
        check("", Ok(""));
        check("7", Ok("7"));
        check("0-2,5,7-8", Ok("0-2,5,7-8"));
        check("0-2,3,4-5", Ok("0-5"));
        check("2-1", Err(IndexSetError::Order));
        check("0-2,2", Err(IndexSetError::Order));
        check("5,1", Err(IndexSetError::Order));
        check("a", Err(IndexSetError::Form));
        check("1,", Err(IndexSetError::Form));
        check("-1", Err(IndexSetError::Form));
    }

    proptest! {
        #[test]
        fn it_is_a_set(indexes in proptest::collection::vec(0..40u32, 0..60)) {
            let set: IndexSet = indexes.iter().copied().collect();
            let model: BTreeSet<u32> = indexes.iter().copied().collect();
            prop_assert!(set.iter().eq(model.iter().copied()));
            prop_assert_eq!(set.count(), model.len() as u64);
            for index in 0..41 {
                prop_assert_eq!(set.contains(index), model.contains(&index));
            }
            prop_assert_eq!(set.to_string().parse::<IndexSet>(), Ok(set));
        }
    }
}
