//! Huge pages of the machine that runs the tests: set aside for one test, and given back.

use std::path::Path;

use bulkhead_types::{
    ContainerOptions, HugePageMedium, HugePages, PodIntent, PodOptions, PodSpec, Rare, Shared, Volume,
    VolumeMount, VolumeSource,
};
use rustix::fd::OwnedFd;
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create};

const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";
const PAGE_BYTES: u64 = 2 << 20;

fn number(file: &str) -> u64 {
    let text = std::fs::read_to_string(Path::new(POOL).join(file)).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// Pages that nobody uses.
pub fn free() -> u64 {
    number("free_hugepages")
}

/// The machine's pool, larger than it was for as long as this lives.
pub struct Pool {
    before: u64,
}

impl Pool {
    /// Sets so many pages of 2 MiB aside; `None`, with a word, where that cannot be.
    pub fn set_aside(pages: u64) -> Option<Self> {
        let before = number("nr_hugepages");
        let pool = Self { before };
        if let Err(error) = pool.resize(before + pages) {
            eprintln!("skipped: no huge pages can be set aside here: {error}");
            return None;
        }
        if number("nr_hugepages") < before + pages {
            eprintln!("skipped: the machine finds fewer than {pages} huge pages");
            return None;
        }
        Some(pool)
    }

    fn resize(&self, pages: u64) -> std::io::Result<()> {
        std::fs::write(Path::new(POOL).join("nr_hugepages"), pages.to_string())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let _ = self.resize(self.before);
    }
}

/// Uses so many pages until it is dropped.
pub fn hold(pages: u64) -> OwnedFd {
    let file =
        memfd_create("held", MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB).expect("a memfd of huge pages");
    fallocate(&file, FallocateFlags::empty(), 0, pages * PAGE_BYTES).expect("there are so many");
    file
}

/// The pod with so many pages, and a volume of them at `/pages`.
pub fn with_pages(mut pod: PodIntent, pages: u64) -> PodIntent {
    let mut spec = PodSpec::clone(&pod.spec);
    let source = VolumeSource::EmptyDir {
        memory: false,
        size_limit_bytes: None,
        huge_pages: Rare::some(HugePageMedium::Any),
    };
    let volumes = vec![Volume { name: "pages".into(), source }];
    spec.options = Rare::some(PodOptions { volumes, ..PodOptions::default() });
    let mount =
        VolumeMount { name: "pages".into(), mount_path: "/pages".into(), sub_path: None, read_only: false };
    spec.containers[0].options = Rare::some(ContainerOptions {
        volume_mounts: vec![mount],
        huge_pages: HugePages { two_mib_bytes: pages * PAGE_BYTES, one_gib_bytes: 0 },
        ..ContainerOptions::default()
    });
    pod.spec = Shared::new(spec);
    pod
}
