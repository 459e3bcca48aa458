//! Amounts of what a node offers and a pod needs.

use serde::{Deserialize, Serialize};

/// Amounts of the built-in resources. Arithmetic is checked: a ledger that would wrap is a bug, not a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Resources {
    /// Processor time, in thousandths of a core.
    pub cpu_millis: u64,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Writable disk, in bytes.
    pub ephemeral_storage_bytes: u64,
}

impl Resources {
    /// Nothing at all.
    pub const ZERO: Self = Self { cpu_millis: 0, memory_bytes: 0, ephemeral_storage_bytes: 0 };

    /// The sum.
    ///
    /// # Panics
    /// When a field exceeds 64 bits: quantities are below 2^63 at the edge, so this is a broken invariant.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.zip(other, |a, b| a.checked_add(b).expect("resource amounts stay below 2^64"))
    }

    /// The difference, or `None` when any field would be negative.
    #[must_use]
    pub fn checked_minus(self, other: Self) -> Option<Self> {
        Some(Self {
            cpu_millis: self.cpu_millis.checked_sub(other.cpu_millis)?,
            memory_bytes: self.memory_bytes.checked_sub(other.memory_bytes)?,
            ephemeral_storage_bytes: self
                .ephemeral_storage_bytes
                .checked_sub(other.ephemeral_storage_bytes)?,
        })
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
        let room = Resources { cpu_millis: 1000, memory_bytes: 10, ephemeral_storage_bytes: 5 };
        assert!(room.fits_in(room));
        assert!(!Resources { memory_bytes: 11, ..Resources::ZERO }.fits_in(room));
    }
}
