//! A stable content hash, for state digests and template hashes.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// Hashes a value with XXH3 (128 bit, seed 0). Replicas compare only digests made by the same digest version.
#[must_use]
pub fn digest128<T: Hash + ?Sized>(value: &T) -> u128 {
    let mut gatherer = Gatherer { buffer: [0; GATHERED_BYTES], used: 0, begun: None };
    value.hash(&mut gatherer);
    gatherer.digest128()
}

/// Bytes gathered before they are hashed: most objects are below it.
const GATHERED_BYTES: usize = 512;

/// Puts the many small pieces that a value hashes together: XXH3 takes longer to begin, and to take in a few bytes,
/// than to hash what one object has.
struct Gatherer {
    buffer: [u8; GATHERED_BYTES],
    used: usize,
    /// What did not fit is hashed piece by piece.
    begun: Option<Box<Xxh3>>,
}

impl Gatherer {
    fn digest128(mut self) -> u128 {
        let rest = &self.buffer[..self.used];
        match &mut self.begun {
            None => xxh3_128(rest),
            Some(begun) => {
                begun.update(rest);
                begun.digest128()
            }
        }
    }

    #[cold]
    fn spill(&mut self, bytes: &[u8]) {
        let begun = self.begun.get_or_insert_default();
        begun.update(&self.buffer[..self.used]);
        self.used = 0;
        begun.update(bytes);
    }
}

impl Hasher for Gatherer {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        match self.buffer[self.used..].split_at_mut_checked(bytes.len()) {
            Some((room, _)) => {
                room.copy_from_slice(bytes);
                self.used += bytes.len();
            }
            None => self.spill(bytes),
        }
    }

    /// # Panics
    /// Always: digests have 128 bits.
    fn finish(&self) -> u64 {
        unreachable!("a digest has 128 bits")
    }
}

/// The version of what goes into digests; raised whenever the layout of a hashed type changes.
pub const DIGEST_VERSION: u32 = 1;

/// An immutable value shared by many owners (a pod template), hashed once.
#[derive(Debug)]
pub struct Shared<T>(Arc<Hashed<T>>);

/// A value beside its digest: every owner holds one pointer.
#[derive(Debug)]
struct Hashed<T> {
    digest: u128,
    value: T,
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Hash> Shared<T> {
    /// Wraps a value and remembers its digest.
    #[must_use]
    pub fn new(value: T) -> Self {
        let digest = digest128(&value);
        Self(Arc::new(Hashed { digest, value }))
    }
}

impl<T> Shared<T> {
    /// The digest of the value.
    #[must_use]
    pub fn digest(&self) -> u128 {
        self.0.digest
    }

    /// Whether both are one in memory.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> std::ops::Deref for Shared<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T: PartialEq> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || (self.0.digest == other.0.digest && self.0.value == other.0.value)
    }
}

impl<T: Eq> Eq for Shared<T> {}

impl<T> Hash for Shared<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.digest.hash(state);
    }
}

impl<T: Serialize> Serialize for Shared<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.value.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de> + Hash> Deserialize<'de> for Shared<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::new(T::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_have_the_digest_of_their_whole(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..700), 0..6)
        ) {
            struct Pieces(Vec<Vec<u8>>);
            impl Hash for Pieces {
                fn hash<H: Hasher>(&self, state: &mut H) {
                    self.0.iter().for_each(|piece| state.write(piece));
                }
            }
            let mut streamed = Xxh3::new();
            pieces.iter().for_each(|piece| streamed.update(piece));
            prop_assert_eq!(digest128(&Pieces(pieces)), streamed.digest128());
        }
    }
}
