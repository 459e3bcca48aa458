//! A stable content hash, for state digests and template hashes.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// Hashes a value with XXH3 (128 bit, seed 0). Replicas compare only digests made by the same digest version.
#[must_use]
pub fn digest128<T: Hash + ?Sized>(value: &T) -> u128 {
    let mut hasher = Blocks { block: [0; BLOCK_BYTES], filled: 0, before: None };
    value.hash(&mut hasher);
    hasher.digest()
}

/// Most values are hashed in one go out of one block; longer ones are handed on block by block.
const BLOCK_BYTES: usize = 512;

/// Collects the many small writes of `Hash`: hashing is fast on long runs of bytes only. The result is that of a
/// hasher that sees each write.
struct Blocks {
    block: [u8; BLOCK_BYTES],
    filled: usize,
    /// What came before the block.
    before: Option<Xxh3>,
}

impl Blocks {
    fn digest(mut self) -> u128 {
        let rest = &self.block[..self.filled];
        match &mut self.before {
            None => xxh3_128(rest),
            Some(before) => {
                before.update(rest);
                before.digest128()
            }
        }
    }
}

impl Hasher for Blocks {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(free) = self.block.get_mut(self.filled..self.filled + bytes.len()) {
            free.copy_from_slice(bytes);
            self.filled += bytes.len();
            return;
        }
        let before = self.before.get_or_insert_with(Xxh3::new);
        before.update(&self.block[..self.filled]);
        before.update(bytes);
        self.filled = 0;
    }

    /// Of no use here, and never asked for.
    fn finish(&self) -> u64 {
        unreachable!("digests have 128 bits")
    }
}

/// The version of what goes into digests; raised whenever the layout of a hashed type changes.
pub const DIGEST_VERSION: u32 = 1;

/// An immutable value shared by many owners (a pod template), hashed once.
#[derive(Clone, Debug)]
pub struct Shared<T> {
    value: Arc<T>,
    digest: u128,
}

impl<T: Hash> Shared<T> {
    /// Wraps a value and remembers its digest.
    #[must_use]
    pub fn new(value: T) -> Self {
        let digest = digest128(&value);
        Self { value: Arc::new(value), digest }
    }
}

impl<T> Shared<T> {
    /// The digest of the value.
    #[must_use]
    pub fn digest(&self) -> u128 {
        self.digest
    }
}

impl<T> std::ops::Deref for Shared<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: PartialEq> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest && (Arc::ptr_eq(&self.value, &other.value) || self.value == other.value)
    }
}

impl<T: Eq> Eq for Shared<T> {}

impl<T> Hash for Shared<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

impl<T: Serialize> Serialize for Shared<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de> + Hash> Deserialize<'de> for Shared<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::new(T::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_any_length_have_the_digest_of_a_hasher_that_sees_each_write() {
        for length in [0, 1, 8, 100, 503, 504, 505, 511, 512, 513, 1000, 3000] {
            for piece in [1, 7, 64, 600] {
                let bytes: Vec<u8> = (0..length).map(|n| (n * 31 % 251) as u8).collect();
                let pieces: Vec<&[u8]> = bytes.chunks(piece).collect();
                let mut plain = Xxh3::new();
                pieces.hash(&mut plain);
                assert_eq!(digest128(&pieces), plain.digest128(), "{length} bytes in pieces of {piece}");
            }
        }
    }
}
