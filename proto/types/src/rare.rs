//! Parts of a value that few have.

use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

/// What goes into a digest before a part that is there. No text that may follow instead begins with it.
const MARK: u64 = 0x5241_5245_0000_0000;

/// A part that few values have. Missing, it is one null pointer and adds nothing to the digest of the whole: digests
/// of what was made before the part existed stay as they were, so nothing is taken for changed by a new version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rare<T>(Option<Box<T>>);

impl<T> Rare<T> {
    /// No such part.
    pub const NONE: Self = Self(None);

    /// The part.
    #[must_use]
    pub fn some(value: T) -> Self {
        Self(Some(Box::new(value)))
    }

    /// The part, if it is there.
    #[must_use]
    pub fn get(&self) -> Option<&T> {
        self.0.as_deref()
    }
}

impl<T: Default + PartialEq> Rare<T> {
    /// The part, if it says anything.
    #[must_use]
    pub fn unless_default(value: T) -> Self {
        if value == T::default() { Self::NONE } else { Self::some(value) }
    }
}

impl<T> Default for Rare<T> {
    fn default() -> Self {
        Self::NONE
    }
}

impl<T> From<Option<T>> for Rare<T> {
    fn from(value: Option<T>) -> Self {
        Self(value.map(Box::new))
    }
}

impl<T: Hash> Hash for Rare<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        if let Some(value) = &self.0 {
            MARK.hash(state);
            value.hash(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest128;

    #[test]
    fn a_missing_part_leaves_the_digest_alone() {
        assert_eq!(digest128(&("a", Rare::<u32>::NONE, 7)), digest128(&("a", 7)));
        assert_ne!(digest128(&("a", Rare::some(0u32), 7)), digest128(&("a", 7)));
        assert_eq!(Rare::unless_default(0u32), Rare::NONE);
    }
}
