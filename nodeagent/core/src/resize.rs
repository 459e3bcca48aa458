//! In-place resize of a guest: in which order host, machine and containers change, and what came of it.
//!
//! ```text
//!  1  host limits        to the larger of both: neither QEMU nor the guest runs into the old ones
//!  2  machine grows      memory, then virtual processors
//!  3  containers         their control groups in the guest; what shrinks shrinks here first
//!  4  machine shrinks    virtual processors, then memory
//!  5  host limits        to what is wanted
//! ```
//!
//! Every step says where to go, not by how much, so all of it may be done again after a crash at any point.

use bulkhead_types::{ContainerSize, ObjectId, PodIntent};
use smol_str::SmolStr;

use crate::GuestSize;

/// How long a resize may take until it is asked for again, in milliseconds. Whoever does it gives up before.
pub const RESIZE_ANSWER_MS: u64 = 120_000;
/// What the machine reserves address space for beyond a guest's own size, so that it can grow: this many times its size.
const GROWTH_FACTOR: u64 = 8;
/// Guests get at least so much room to grow, in bytes.
const GROWTH_BYTES_MIN: u64 = 4 << 30;
/// Most of that, in bytes.
const GROWTH_BYTES_MAX: u64 = 1 << 40;
/// Granularity of memory that comes and goes (a `virtio-mem` block, and one of Linux' memory blocks on x86), in bytes.
pub const MEMORY_BLOCK_BYTES: u64 = 128 << 20;
/// So many virtual processors can be added to a guest, at least.
const CPUS_ROOM_MIN: u32 = 8;

/// What a running guest should become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResizeVm {
    /// Its pod as it should be.
    pub pod: PodIntent,
    /// Which of its guests.
    pub instance: u32,
    /// What its containers had.
    pub from: Vec<ContainerSize>,
    /// The most that they may have: what was begun since and never finished may be done in part.
    pub most: Vec<ContainerSize>,
    /// The least that they may have, by the same: where it is as it was before, nobody need be restarted, unless what was begun took
    /// something away meanwhile.
    pub least: Vec<ContainerSize>,
    /// How large the guest was for that.
    pub was: GuestSize,
    /// How large it should be.
    pub size: GuestSize,
}

/// Why a guest is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResizeFailure {
    /// One CamelCase word, of [`crate::reason`].
    pub reason: SmolStr,
    /// The same for people.
    pub message: String,
    /// It is of no use to try again with this guest; nothing was changed.
    pub refused: bool,
}

/// What came of a [`ResizeVm`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resized {
    /// Whose guest.
    pub pod: ObjectId,
    /// Which of its guests.
    pub instance: u32,
    /// What its containers should have.
    pub sizes: Vec<ContainerSize>,
    /// Whether they have.
    pub result: Result<(), ResizeFailure>,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResizeStep {
    /// The limits of the host's control groups are those of a guest of this size and pod.
    Host {
        /// Of the larger of both, or of what is wanted.
        larger: bool,
    },
    /// The machine has so much memory, in bytes.
    Memory {
        /// In bytes.
        memory_bytes: u64,
    },
    /// The machine has so many virtual processors.
    Cpus {
        /// How many.
        cpus: u32,
    },
    /// Every container has its limits.
    Containers,
}

/// The steps from one size to another, in order.
#[must_use]
pub fn resize_steps(was: GuestSize, size: GuestSize) -> Vec<ResizeStep> {
    let memory = ResizeStep::Memory { memory_bytes: size.memory_bytes };
    let cpus = ResizeStep::Cpus { cpus: size.cpus };
    let mut steps = vec![ResizeStep::Host { larger: true }];
    if size.memory_bytes >= was.memory_bytes {
        steps.push(memory);
    }
    if size.cpus >= was.cpus {
        steps.push(cpus);
    }
    steps.push(ResizeStep::Containers);
    if size.cpus < was.cpus {
        steps.push(cpus);
    }
    if size.memory_bytes < was.memory_bytes {
        steps.push(memory);
    }
    steps.push(ResizeStep::Host { larger: false });
    steps
}

/// What a guest's machine can become without a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growth {
    /// Most virtual processors.
    pub cpus_max: u32,
    /// Most memory beyond its first, in bytes: a multiple of [`MEMORY_BLOCK_BYTES`].
    pub memory_bytes: u64,
}

impl Growth {
    /// Of a guest that starts with this size. What is never used of it costs address space, and 256 KiB of the guest's memory
    /// for each processor.
    #[must_use]
    pub fn of(size: GuestSize) -> Self {
        let most = u32::try_from(crate::CPUS_MAX).expect("a small number");
        let room = size.memory_bytes.saturating_mul(GROWTH_FACTOR).clamp(GROWTH_BYTES_MIN, GROWTH_BYTES_MAX);
        Self {
            cpus_max: size.cpus.saturating_mul(2).max(CPUS_ROOM_MIN).min(most.max(size.cpus)),
            memory_bytes: room.div_ceil(MEMORY_BLOCK_BYTES) * MEMORY_BLOCK_BYTES,
        }
    }

    /// How much memory must be added to a guest that started with `first_bytes`, so that it has as much as is wanted; in whole
    /// blocks. `None` when that is more than can be.
    #[must_use]
    pub fn added_bytes(self, first_bytes: u64, wanted_bytes: u64) -> Option<u64> {
        let more = wanted_bytes.saturating_sub(first_bytes);
        let blocks = more.div_ceil(MEMORY_BLOCK_BYTES) * MEMORY_BLOCK_BYTES;
        (blocks <= self.memory_bytes).then_some(blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn size(cpus: u32, mib: u64) -> GuestSize {
        GuestSize { cpus, memory_bytes: mib * MIB }
    }

    #[test]
    fn what_grows_comes_before_the_containers_and_what_shrinks_after_them() {
        use ResizeStep::{Containers, Cpus, Host, Memory};
        let check = |was, is, expected: &[ResizeStep]| {
            let steps = resize_steps(was, is);
            let middle = &steps[1..steps.len() - 1];
            assert_eq!(
                (steps[0], *steps.last().expect("there")),
                (Host { larger: true }, Host { larger: false })
            );
            assert_eq!(middle, expected);
        };
        let (one, four) = (Cpus { cpus: 1 }, Cpus { cpus: 4 });
        let (little, much) = (Memory { memory_bytes: 100 * MIB }, Memory { memory_bytes: 900 * MIB });
        check(size(1, 100), size(4, 900), &[much, four, Containers]);
        check(size(4, 900), size(1, 100), &[Containers, one, little]);
        check(size(1, 900), size(4, 100), &[four, Containers, little]);
        check(size(4, 100), size(1, 900), &[much, Containers, one]);
        check(size(1, 100), size(1, 100), &[little, one, Containers]);
    }

    #[test]
    fn there_is_room_to_grow_and_a_bound() {
        let growth = Growth::of(size(1, 256));
        assert_eq!(growth, Growth { cpus_max: 8, memory_bytes: 4 << 30 });
        assert_eq!(Growth::of(size(200, 256)).cpus_max, 255);
        let added = |mib: u64| growth.added_bytes(256 * MIB, mib * MIB).map(|bytes| bytes / MIB);
        assert_eq!(
            [added(100), added(256), added(257), added(512)],
            [Some(0), Some(0), Some(128), Some(256)]
        );
        assert_eq!((added(256 + 4096), added(257 + 4096)), (Some(4096), None));
    }
}
