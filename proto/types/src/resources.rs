//! Amounts of what a node offers and a pod needs.

use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

use crate::HugePages;

/// Amounts of the built-in resources. Arithmetic is checked: a ledger that would wrap is a bug, not a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Resources {
    /// Processor time, in thousandths of a core.
    pub cpu_millis: u64,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Writable disk, in bytes.
    pub ephemeral_storage_bytes: u64,
    /// Huge pages; they are no part of `memory_bytes`. Needs [`crate::HUGE_PAGES_LEVEL`].
    #[serde(default)]
    pub huge_pages: HugePages,
    /// What of `memory_bytes` is pinned, in bytes: a node's is what it really has of it for pods. 0 of a node that does not
    /// say. Needs [`crate::PINNED_MEMORY_LEVEL`].
    #[serde(default)]
    pub pinned_memory_bytes: u64,
}

/// What few have adds nothing to a digest where it is missing.
impl Hash for Resources {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.cpu_millis, self.memory_bytes, self.ephemeral_storage_bytes).hash(state);
        self.huge_pages.hash(state);
        if self.pinned_memory_bytes > 0 {
            ("pinned", self.pinned_memory_bytes).hash(state);
        }
    }
}

impl Resources {
    /// Nothing at all.
    pub const ZERO: Self = Self {
        cpu_millis: 0,
        memory_bytes: 0,
        ephemeral_storage_bytes: 0,
        huge_pages: HugePages::NONE,
        pinned_memory_bytes: 0,
    };

    /// The sum.
    ///
    /// # Panics
    /// When a field exceeds 64 bits: quantities are below 2^63 at the edge, so this is a broken invariant.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.zip(other, |a, b| a.checked_add(b).expect("resource amounts stay below 2^64"))
    }

    /// The difference, or `None` when any field would be negative. Of pinned memory it is never less than nothing: a node that does
    /// not say how much it has does not lack any ([`Self::pinnable_bytes`]).
    #[must_use]
    pub fn checked_minus(self, other: Self) -> Option<Self> {
        Some(Self {
            cpu_millis: self.cpu_millis.checked_sub(other.cpu_millis)?,
            memory_bytes: self.memory_bytes.checked_sub(other.memory_bytes)?,
            ephemeral_storage_bytes: self
                .ephemeral_storage_bytes
                .checked_sub(other.ephemeral_storage_bytes)?,
            huge_pages: self.huge_pages.checked_minus(other.huge_pages)?,
            pinned_memory_bytes: self.pinned_memory_bytes.saturating_sub(other.pinned_memory_bytes),
        })
    }

    /// The memory that may be pinned of what is there for pods, in bytes: what really is there, and where nobody says how much,
    /// all of it.
    #[must_use]
    pub fn pinnable_bytes(&self) -> u64 {
        match self.pinned_memory_bytes {
            0 => self.memory_bytes,
            bytes => bytes.min(self.memory_bytes),
        }
    }

    /// Field by field the larger one.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        self.zip(other, u64::max)
    }

    /// Whether every field is at most the other's.
    #[must_use]
    pub fn fits_in(self, room: Self) -> bool {
        room.checked_minus(self).is_some()
    }

    fn zip(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            cpu_millis: f(self.cpu_millis, other.cpu_millis),
            memory_bytes: f(self.memory_bytes, other.memory_bytes),
            ephemeral_storage_bytes: f(self.ephemeral_storage_bytes, other.ephemeral_storage_bytes),
            huge_pages: self.huge_pages.zip(other.huge_pages, &f),
            pinned_memory_bytes: f(self.pinned_memory_bytes, other.pinned_memory_bytes),
        }
    }
}

/// What the sandbox itself needs beside the containers: guest kernel, QEMU, agent channel.
///
/// Default rule: 64 MiB + 2 % of the memory request, at most 512 MiB; no processor time.
#[must_use]
pub fn sandbox_overhead(memory_request_bytes: u64) -> Resources {
    const MIB: u64 = 1 << 20;
    let memory_bytes = (64 * MIB + memory_request_bytes / 50).clamp(64 * MIB, 512 * MIB);
    Resources { memory_bytes, ..Resources::ZERO }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overhead_follows_the_request_within_its_bounds() {
        assert_eq!(sandbox_overhead(0).memory_bytes, 64 << 20);
        assert_eq!(sandbox_overhead(100 << 20).memory_bytes, 66 << 20);
        assert_eq!(sandbox_overhead(1 << 40).memory_bytes, 512 << 20);
    }

    #[test]
    fn fits_looks_at_every_field() {
        let room =
            Resources { cpu_millis: 1000, memory_bytes: 10, ephemeral_storage_bytes: 5, ..Resources::ZERO };
        assert!(room.fits_in(room));
        assert!(!Resources { memory_bytes: 11, ..Resources::ZERO }.fits_in(room));
        let huge_pages = HugePages { two_mib_bytes: 2 << 20, one_gib_bytes: 0 };
        assert!(!Resources { huge_pages, ..Resources::ZERO }.fits_in(room));
    }
}
