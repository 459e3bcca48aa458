//! Huge pages that the machine has set aside: of all of it, and of each NUMA node.
//!
//! Source: `Documentation/admin-guide/mm/hugetlbpage.rst` of the Linux kernel.

use bulkhead_types::{HugePageSize, HugePages};

use super::Tree;

/// Where the kernel tells of the pools of the whole machine.
pub const HUGE_PAGE_POOLS: &str = "/sys/kernel/mm/hugepages";

/// Where it tells of those of a NUMA node.
#[must_use]
pub fn node_huge_page_pools(numa_node: u32) -> String {
    format!("/sys/devices/system/node/node{numa_node}/hugepages")
}

/// The folder of one pool.
#[must_use]
pub fn huge_page_pool(pools: &str, size: HugePageSize) -> String {
    format!("{pools}/hugepages-{}kB", size.bytes() >> 10)
}

/// What pools have, in bytes: what is not there has none.
fn read(tree: &dyn Tree, pools: &str, count: impl Fn(&dyn Fn(&str) -> u64) -> u64) -> HugePages {
    let mut found = HugePages::NONE;
    for size in HugePageSize::ALL {
        let pool = huge_page_pool(pools, size);
        let number = |file: &str| {
            let bytes = tree.read(&format!("{pool}/{file}")).unwrap_or_default();
            String::from_utf8(bytes).ok().and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0)
        };
        found.set(size, count(&number).saturating_mul(size.bytes()));
    }
    found
}

/// All pages of these pools, whoever uses them. Sizes beyond 2 MiB and 1 GiB are nobody's.
#[must_use]
pub fn huge_pages(tree: &dyn Tree, pools: &str) -> HugePages {
    read(tree, pools, |number| number("nr_hugepages"))
}

/// The pages of these pools that nobody uses and nobody was promised. Of NUMA nodes the kernel does not tell what is promised.
#[must_use]
pub fn free_huge_pages(tree: &dyn Tree, pools: &str) -> HugePages {
    read(tree, pools, |number| number("free_hugepages").saturating_sub(number("resv_hugepages")))
}
