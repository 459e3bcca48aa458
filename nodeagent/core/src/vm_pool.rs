//! Guests that are booted before there are pods for them: how many to boot, when, and which pod may have one. Pure.
//!
//! ```text
//!  want() ─► booting ─ booted() ─► idle ─ take() ─► a pod's
//!               └──── failed() ──────┘      gone: the next is booted, after a wait that grows with failures in a row
//! ```
//!
//! A row of failures ends with a guest that a pod got, or that had waited for long: one that boots and dies at once is a failure like one
//! that does not boot.

use std::collections::{BTreeMap, BTreeSet};

use crate::qemu::GuestPages;
use crate::{GuestSize, StartVm};

/// Guests of the pool that boot at a time: pods that start go first.
const BOOTS_MAX: usize = 1;
/// Wait after the first failure, in milliseconds; doubled with each that follows.
const RETRY_FIRST_MS: u64 = 1_000;
/// Longest wait after a failure, in milliseconds.
const RETRY_LAST_MS: u64 = 60_000;
/// A guest that waited for so long was well, in milliseconds.
const WELL_MS: u64 = 10 * RETRY_LAST_MS;
/// Disks that can be added to one guest of the pool: that many root ports are free in it, and the next one for its network card.
pub const VM_POOL_DISKS_MAX: usize = 8;
/// Most guests of a pool.
pub const VM_POOL_GUESTS_MAX: u32 = 256;

/// The pool of one node.
#[derive(Clone, Debug)]
pub struct VmPool {
    size: GuestSize,
    guests: usize,
    booting: BTreeSet<u64>,
    /// Those that wait for pods, and since when.
    idle: BTreeMap<u64, u64>,
    next: u64,
    failures: u32,
    retry_at_ms: u64,
}

impl VmPool {
    /// A pool of so many guests of one size. Numbers of guests go on from `first`: a folder that an earlier agent left is of another
    /// guest.
    #[must_use]
    pub fn new(size: GuestSize, guests: u32, first: u64) -> Self {
        let guests = guests.min(VM_POOL_GUESTS_MAX) as usize;
        let (booting, idle) = (BTreeSet::new(), BTreeMap::new());
        Self { size, guests, booting, idle, next: first, failures: 0, retry_at_ms: 0 }
    }

    /// A number for a guest that nobody had yet.
    pub fn number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    /// How large its guests are.
    #[must_use]
    pub fn size(&self) -> GuestSize {
        self.size
    }

    /// The guest to boot now, if one is missing and may be booted. Its end, good or bad, is told by [`Self::booted`] or
    /// [`Self::failed`].
    pub fn want(&mut self, now_ms: u64) -> Option<u64> {
        let is_full = self.booting.len() + self.idle.len() >= self.guests;
        if is_full || self.booting.len() >= BOOTS_MAX || now_ms < self.retry_at_ms {
            return None;
        }
        let number = self.number();
        self.booting.insert(number);
        Some(number)
    }

    /// A guest waits for a pod.
    pub fn booted(&mut self, number: u64, now_ms: u64) {
        if self.booting.remove(&number) {
            self.idle.insert(number, now_ms);
        }
    }

    /// A guest did not boot, or ended while it waited for a pod.
    pub fn failed(&mut self, number: u64, now_ms: u64) {
        let (booting, idle_since_ms) = (self.booting.remove(&number), self.idle.remove(&number));
        if idle_since_ms.is_some_and(|since_ms| now_ms.saturating_sub(since_ms) >= WELL_MS) {
            self.failures = 0;
        }
        if booting || idle_since_ms.is_some() {
            let wait_ms =
                RETRY_FIRST_MS.checked_shl(self.failures).unwrap_or(RETRY_LAST_MS).min(RETRY_LAST_MS);
            self.retry_at_ms = now_ms.saturating_add(wait_ms);
            self.failures = self.failures.saturating_add(1).min(16);
        }
    }

    /// Gives the guest away that has waited longest.
    pub fn take(&mut self) -> Option<u64> {
        let (number, _) = self.idle.pop_first()?;
        self.failures = 0;
        Some(number)
    }

    /// When [`Self::want`] should be asked again although nothing happened.
    #[must_use]
    pub fn deadline_ms(&self) -> Option<u64> {
        let is_full = self.booting.len() + self.idle.len() >= self.guests;
        (!is_full && self.booting.len() < BOOTS_MAX).then_some(self.retry_at_ms)
    }
}

/// Why a pod's guest must be booted for it; `None`: it can be one that was booted before. `places_memory`: its memory is to be on certain
/// NUMA nodes of a machine that has several.
///
/// What a guest has from its start cannot be given to one that runs already: nodes of devices in its QEMU's jail and memory that is
/// pinned for them, and where its memory is. Disks, a network card, the lease that its guard goes by and the CPUs that its threads
/// run on can.
#[must_use]
pub fn needs_own_boot(start: &StartVm, disks: usize, places_memory: bool) -> Option<&'static str> {
    let pod = &start.pod;
    [
        (
            !pod.devices.is_empty() || !pod.networks.is_empty(),
            "it has devices of the host, which its QEMU must be let at and its memory be pinned for from the start",
        ),
        (!GuestPages::of(&pod.spec).is_none(), "it has memory of huge pages"),
        (places_memory && pod.cpus.is_some(), "its memory is to be on the NUMA node of its CPUs from the start"),
        (disks > VM_POOL_DISKS_MAX, "it has more disks than can be added to a guest that runs"),
    ]
    .into_iter()
    .find_map(|(holds, why)| holds.then_some(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: GuestSize = GuestSize { cpus: 1, memory_bytes: 160 << 20 };

    #[test]
    fn a_pool_is_filled_one_by_one_and_refilled() {
        let mut pool = VmPool::new(SIZE, 2, 7);
        assert_eq!((pool.take(), pool.deadline_ms()), (None, Some(0)));
        assert_eq!((pool.want(0), pool.want(0)), (Some(7), None), "one at a time");
        assert_eq!(pool.deadline_ms(), None, "the boot's end is waited for");
        pool.booted(7, 0);
        assert_eq!(pool.want(1), Some(8));
        assert_eq!(pool.take(), Some(7), "also while another boots");
        pool.booted(8, 0);
        assert_eq!(pool.want(2), Some(9));
        pool.booted(9, 0);
        assert_eq!((pool.want(3), pool.deadline_ms()), (None, None), "it is full");
        assert_eq!((pool.take(), pool.take(), pool.take()), (Some(8), Some(9), None), "oldest first");
        pool.booted(7, 0);
        assert_eq!(pool.take(), None, "one that was given away does not come back");
    }

    #[test]
    fn guests_that_die_while_they_wait_are_replaced_ever_later() {
        let mut pool = VmPool::new(SIZE, 1, 0);
        let mut now_ms = 0;
        let mut die = |pool: &mut VmPool| {
            let number = pool.want(now_ms).expect("it is missing");
            pool.booted(number, now_ms);
            pool.failed(number, now_ms + WELL_MS - 1);
            pool.failed(number, now_ms + WELL_MS - 1);
            let at_ms = pool.deadline_ms().expect("it is missing");
            let wait_ms = at_ms - (now_ms + WELL_MS - 1);
            now_ms = at_ms;
            wait_ms / 1_000
        };
        let waits: Vec<u64> = (0..8).map(|_| die(&mut pool)).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        let number = pool.want(u64::MAX).expect("it is missing");
        pool.booted(number, u64::MAX);
        assert_eq!(pool.take(), Some(number));
        assert_eq!(die(&mut pool), 1, "a pod had use of one");
    }

    #[test]
    fn boots_that_fail_are_tried_again_ever_later() {
        let mut pool = VmPool::new(SIZE, 1, 0);
        let mut now_ms = 0;
        let mut waits = Vec::new();
        for _ in 0..9 {
            let number = pool.want(now_ms).expect("it is missing");
            pool.failed(number, now_ms);
            pool.failed(number, now_ms);
            let at_ms = pool.deadline_ms().expect("it is missing");
            assert_eq!(pool.want(at_ms - 1), None);
            waits.push((at_ms - now_ms) / 1_000);
            now_ms = at_ms;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        let number = pool.want(now_ms).expect("it is missing");
        pool.booted(number, now_ms);
        pool.failed(number, now_ms + WELL_MS);
        assert_eq!(pool.deadline_ms(), Some(now_ms + WELL_MS + 1_000), "one that was well ends the row");
        let mut none = VmPool::new(SIZE, 0, 0);
        assert_eq!((none.want(0), none.deadline_ms()), (None, None));
    }
}
