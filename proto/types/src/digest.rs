//! A stable content hash, for state digests and template hashes.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use xxhash_rust::xxh3::Xxh3;

/// Hashes a value with XXH3 (128 bit, seed 0). Replicas compare only digests made by the same digest version.
#[must_use]
pub fn digest128<T: Hash + ?Sized>(value: &T) -> u128 {
    let mut hasher = Xxh3::new();
    value.hash(&mut hasher);
    hasher.digest128()
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
