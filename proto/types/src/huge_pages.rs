//! Huge pages: what nodes set aside of them, and what containers ask for.
//!
//! Source: "Manage HugePages" in the Kubernetes documentation. Of x86-64's sizes there are 2 MiB and 1 GiB.

use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

use crate::{PodSpec, StringMap};

/// Kata's annotation of a pod whose guest's memory is all of huge pages, `true`.
pub const ANNOTATION_ENABLE_HUGEPAGES: &str = "io.katacontainers.config.hypervisor.enable_hugepages";

/// One size of huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum HugePageSize {
    /// 2 MiB.
    TwoMib = 1,
    /// 1 GiB.
    OneGib = 2,
}

impl HugePageSize {
    /// Both, the smaller first.
    pub const ALL: [Self; 2] = [Self::TwoMib, Self::OneGib];

    /// How large one page is, in bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        match self {
            Self::TwoMib => 2 << 20,
            Self::OneGib => 1 << 30,
        }
    }

    /// The size as Kubernetes writes it: `2Mi`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TwoMib => "2Mi",
            Self::OneGib => "1Gi",
        }
    }

    /// The name of the resource: `hugepages-2Mi`.
    #[must_use]
    pub fn resource(self) -> &'static str {
        match self {
            Self::TwoMib => "hugepages-2Mi",
            Self::OneGib => "hugepages-1Gi",
        }
    }

    /// The size that a resource is of.
    #[must_use]
    pub fn of_resource(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|size| size.resource() == name)
    }
}

/// Amounts of huge pages, in bytes by their size. None at all adds nothing to a digest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HugePages {
    /// In pages of 2 MiB, in bytes.
    pub two_mib_bytes: u64,
    /// In pages of 1 GiB, in bytes.
    pub one_gib_bytes: u64,
}

impl Hash for HugePages {
    fn hash<H: Hasher>(&self, state: &mut H) {
        if !self.is_none() {
            ("huge pages", self.two_mib_bytes, self.one_gib_bytes).hash(state);
        }
    }
}

impl HugePages {
    /// None.
    pub const NONE: Self = Self { two_mib_bytes: 0, one_gib_bytes: 0 };

    /// Whether there are none of any size.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }

    /// Those of one size, in bytes.
    #[must_use]
    pub fn of(&self, size: HugePageSize) -> u64 {
        match size {
            HugePageSize::TwoMib => self.two_mib_bytes,
            HugePageSize::OneGib => self.one_gib_bytes,
        }
    }

    /// Sets those of one size, in bytes.
    pub fn set(&mut self, size: HugePageSize, bytes: u64) {
        match size {
            HugePageSize::TwoMib => self.two_mib_bytes = bytes,
            HugePageSize::OneGib => self.one_gib_bytes = bytes,
        }
    }

    /// The sizes of which there are some, with how many bytes.
    pub fn sizes(self) -> impl Iterator<Item = (HugePageSize, u64)> {
        HugePageSize::ALL.into_iter().map(move |size| (size, self.of(size))).filter(|(_, bytes)| *bytes > 0)
    }

    /// All sizes together, in bytes.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.two_mib_bytes.saturating_add(self.one_gib_bytes)
    }

    /// Size by size what `f` makes of both.
    #[must_use]
    pub fn zip(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            two_mib_bytes: f(self.two_mib_bytes, other.two_mib_bytes),
            one_gib_bytes: f(self.one_gib_bytes, other.one_gib_bytes),
        }
    }

    /// The difference, or `None` when any size would be negative.
    #[must_use]
    pub fn checked_minus(self, other: Self) -> Option<Self> {
        Some(Self {
            two_mib_bytes: self.two_mib_bytes.checked_sub(other.two_mib_bytes)?,
            one_gib_bytes: self.one_gib_bytes.checked_sub(other.one_gib_bytes)?,
        })
    }

    /// Whether of every size there is at most what the other has.
    #[must_use]
    pub fn fits_in(self, room: Self) -> bool {
        room.checked_minus(self).is_some()
    }

    /// What a guest needs beside the pages that its containers ask for: `memory_bytes` of its ordinary memory, for the kernel's
    /// tables of all of them (64 bytes for each 4 KiB, rounded up) and what the kernel keeps in each part of the memory; and of
    /// pages of 1 GiB, which the kernel can only give whole, those that its tables of them break into.
    #[must_use]
    pub fn guest_overhead(self) -> (u64, Self) {
        const NODE_BYTES: u64 = 16 << 20;
        /// Pages of 1 GiB of which one more holds the tables.
        const TABLED_PAGES: u64 = 56;
        let memory = if self.two_mib_bytes == 0 { 0 } else { NODE_BYTES + self.two_mib_bytes / 50 };
        let pages = self.one_gib_bytes / HugePageSize::OneGib.bytes();
        let more = if pages == 0 { 0 } else { 1 + pages / TABLED_PAGES };
        (memory, Self { two_mib_bytes: 0, one_gib_bytes: more << 30 })
    }
}

/// Which huge pages an `emptyDir` is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HugePageMedium {
    /// `HugePages`: those of the one size that the pod asks for.
    Any = 1,
    /// `HugePages-2Mi`.
    TwoMib = 2,
    /// `HugePages-1Gi`.
    OneGib = 3,
}

impl HugePageMedium {
    /// All, as manifests write them.
    pub const NAMES: [(&'static str, Self); 3] =
        [("HugePages", Self::Any), ("HugePages-2Mi", Self::TwoMib), ("HugePages-1Gi", Self::OneGib)];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, one)| *one == self).map_or("HugePages", |(name, _)| name)
    }

    /// The size, of a pod with such pages; `None` when it has none of them, or `HugePages` could be either.
    #[must_use]
    pub fn size(self, pages: HugePages) -> Option<HugePageSize> {
        let wanted = match self {
            Self::TwoMib => HugePageSize::TwoMib,
            Self::OneGib => HugePageSize::OneGib,
            Self::Any => {
                let mut sizes = pages.sizes();
                let (only, _) = sizes.next()?;
                return sizes.next().is_none().then_some(only);
            }
        };
        (pages.of(wanted) > 0).then_some(wanted)
    }
}

/// How the memory of a guest is had from its host. The control plane's own: it says so of each pod that it makes, from
/// [`crate::PINNED_MEMORY_LEVEL`] on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GuestMemory {
    /// All of it at the start, and never given back: devices of the host may write anywhere in it. It is counted as large as
    /// the guest is, whatever its containers request.
    pub pinned: bool,
    /// All of it is of huge pages of 2 MiB ([`ANNOTATION_ENABLE_HUGEPAGES`]).
    pub huge_pages: bool,
}

/// Tables of pinned memory on the host, as a share of it: 8 bytes for each page of 4 KiB for the processor, and as many for
/// the IOMMU.
pub const PINNED_TABLES_SHARE: u64 = 256;
/// Memory for the containers of a guest when its spec says nothing of memory, in bytes.
pub const GUEST_MEMORY_UNSAID_BYTES: u64 = 128 << 20;

impl GuestMemory {
    /// How the memory of a pod's guest is to be had that has devices of the host or not.
    #[must_use]
    pub fn of(annotations: &StringMap, has_devices: bool) -> Self {
        let huge_pages = annotations.get(ANNOTATION_ENABLE_HUGEPAGES).is_some_and(|value| value == "true");
        Self { pinned: has_devices, huge_pages }
    }
}

impl PodSpec {
    /// The most huge pages that its containers ask for at a time.
    #[must_use]
    pub fn huge_pages(&self) -> HugePages {
        if self.options_of_all().all(|options| options.huge_pages.is_none()) {
            return HugePages::NONE;
        }
        self.requests().huge_pages
    }

    /// How the memory of its guest is had.
    #[must_use]
    pub fn guest_memory(&self) -> GuestMemory {
        self.options.get().and_then(|options| options.guest_memory.get()).copied().unwrap_or_default()
    }

    /// The ordinary memory of its guest, in bytes: what its containers may use, and overhead; all but the huge pages that they
    /// ask for.
    #[must_use]
    pub fn guest_memory_bytes(&self) -> u64 {
        let size = self.guest_size();
        let memory = if size.memory_bytes == 0 { GUEST_MEMORY_UNSAID_BYTES } else { size.memory_bytes };
        memory
            .saturating_add(crate::sandbox_overhead(memory).memory_bytes)
            .saturating_add(size.huge_pages.guest_overhead().0)
    }

    /// The memory of the host that its guest takes at its start and keeps, in bytes; 0 of a guest whose memory is not pinned. Of
    /// huge pages only the tables count, because the pages are counted by themselves.
    #[must_use]
    pub fn pinned_memory_bytes(&self) -> u64 {
        let how = self.guest_memory();
        if !how.pinned {
            return 0;
        }
        let (own, pages) = (self.guest_memory_bytes(), self.huge_pages().total_bytes());
        let tables = own.saturating_add(pages) / PINNED_TABLES_SHARE;
        if how.huge_pages { tables } else { own.saturating_add(tables) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest128;

    const BOTH: HugePages = HugePages { two_mib_bytes: 4 << 20, one_gib_bytes: 1 << 30 };

    #[test]
    fn none_at_all_leaves_a_digest_alone() {
        assert_eq!(digest128(&("a", HugePages::NONE, 7)), digest128(&("a", 7)));
        let other = HugePages { two_mib_bytes: 1 << 30, one_gib_bytes: 4 << 20 };
        assert_ne!(digest128(&BOTH), digest128(&other));
    }

    #[test]
    fn a_medium_is_of_pages_that_the_pod_has() {
        let two = HugePages { two_mib_bytes: 2 << 20, one_gib_bytes: 0 };
        let check = |medium: HugePageMedium, pages, expected| {
            assert_eq!(medium.size(pages), expected, "{} of {pages:?}", medium.name());
        };
        check(HugePageMedium::Any, two, Some(HugePageSize::TwoMib));
        check(HugePageMedium::Any, BOTH, None);
        check(HugePageMedium::Any, HugePages::NONE, None);
        check(HugePageMedium::OneGib, BOTH, Some(HugePageSize::OneGib));
        check(HugePageMedium::OneGib, two, None);
    }

    #[test]
    fn the_kernels_tables_are_overhead() {
        assert_eq!(HugePages::NONE.guest_overhead(), (0, HugePages::NONE));
        let (memory, pages) = BOTH.guest_overhead();
        assert!(memory > BOTH.two_mib_bytes / 64 && pages.one_gib_bytes == 1 << 30, "{memory} {pages:?}");
        let many = HugePages { two_mib_bytes: 0, one_gib_bytes: 112 << 30 };
        assert_eq!(many.guest_overhead().1.one_gib_bytes, 3 << 30);
    }
}
