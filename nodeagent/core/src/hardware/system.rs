//! What a machine says of itself beside its devices and processors: its boot, its memory, whether there is KVM.
//!
//! Source: proc(5), "numastat" and "ksm" of Linux' documentation (`admin-guide`).

use super::{Bdf, Tree, TreeError};

/// The file of the boot's id.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Longest id of a boot that is taken over, in bytes: the kernel's has 36.
const BOOT_ID_BYTES_MAX: usize = 64;
/// What the machine's memory is used for.
pub const MEMINFO: &str = "/proc/meminfo";
/// Where the merging of pages that are alike is set up.
const KSM: &str = "/sys/kernel/mm/ksm";
/// What the thread that looks is in.
const NETWORK_NAMESPACE: &str = "/proc/thread-self/ns/net";
/// What NVIDIA's driver says of itself.
const NVIDIA_VERSION: &str = "/proc/driver/nvidia/version";

fn text(tree: &dyn Tree, path: &str) -> Result<String, TreeError> {
    tree.read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// The id of the machine's boot: another one after every boot. Empty where it is not told.
#[must_use]
pub fn boot_id(tree: &dyn Tree) -> String {
    let text = text(tree, BOOT_ID).unwrap_or_default();
    let graphic = text.lines().next().unwrap_or_default().chars().filter(char::is_ascii_graphic);
    graphic.take(BOOT_ID_BYTES_MAX).collect()
}

/// One line of a text in the form of `/proc/meminfo`, or of a NUMA node's `meminfo`, in bytes; `None` when it does not stand there.
#[must_use]
pub fn meminfo_bytes(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| {
        // Of a NUMA node: `Node 0 MemTotal: …`
        let line = match line.strip_prefix("Node ") {
            Some(rest) => rest.split_once(' ')?.1,
            None => line,
        };
        line.trim_start().strip_prefix(name)?.strip_prefix(':')
    })?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What the machine's memory is used for, as the kernel tells it; empty where it does not.
#[must_use]
pub fn meminfo(tree: &dyn Tree) -> String {
    text(tree, MEMINFO).unwrap_or_default()
}

/// The same of a NUMA node; `None` where that is not told.
#[must_use]
pub fn node_meminfo(tree: &dyn Tree, node: u32) -> Option<String> {
    text(tree, &format!("/sys/devices/system/node/node{node}/meminfo")).ok()
}

/// The machine's memory, in bytes; 0 where it is not told.
#[must_use]
pub fn total_memory_bytes(tree: &dyn Tree) -> u64 {
    meminfo_bytes(&meminfo(tree), "MemTotal").unwrap_or_default()
}

/// Whether there is a `/dev/kvm`. It may open and run no guest.
#[must_use]
pub fn has_kvm_file(tree: &dyn Tree) -> bool {
    tree.list("/dev").is_ok_and(|names| names.iter().any(|name| name == "kvm"))
}

/// Whether NVIDIA's driver is loaded.
#[must_use]
pub fn has_nvidia_driver(tree: &dyn Tree) -> bool {
    tree.read(NVIDIA_VERSION).is_ok()
}

/// What tells the network namespace of this thread from every other one; `None` where it is not told.
#[must_use]
pub fn network_namespace(tree: &dyn Tree) -> Option<String> {
    tree.link(NETWORK_NAMESPACE).ok()
}

/// The IOMMU group of a function.
///
/// # Errors
/// When it is in none, or that cannot be read.
pub fn iommu_group_of(tree: &dyn Tree, function: Bdf) -> Result<u32, TreeError> {
    let path = format!("/sys/bus/pci/devices/{function}/iommu_group");
    let target = tree.link(&path)?;
    let group = target.rsplit('/').next().and_then(|name| name.parse().ok());
    group.ok_or_else(|| TreeError::Other(format!("{path} leads to {target}, which is no IOMMU group")))
}

/// What keeps the kernel from merging pages that are alike, and what an operator does about it. The setting is the whole machine's, so no
/// agent changes it.
#[must_use]
pub fn page_merging_problem(tree: &dyn Tree) -> Option<String> {
    let run = format!("{KSM}/run");
    let asked = "guests share no memory, although --memory-sharing ksm asks for it:";
    match text(tree, &run) {
        Ok(text) if text.trim() == "1" => None,
        Ok(_) => Some(format!("{asked} the kernel merges no pages; run: echo 1 > {run}")),
        Err(error) => Some(format!("{asked} {run} ({error}); a kernel with CONFIG_KSM is needed")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::MemoryTree;
    use super::*;

    fn with(path: &str, content: impl AsRef<[u8]>) -> MemoryTree {
        let mut tree = MemoryTree::new();
        tree.file(path, content);
        tree
    }

    #[test]
    fn a_boot_has_an_id_and_nothing_else_is_one() {
        let check = |content: &[u8], expected: &str| assert_eq!(boot_id(&with(BOOT_ID, content)), expected);
        check(b"6f1a6a5e-4d3c-4a0e-9d55-1f0f3f0f2a11\n", "6f1a6a5e-4d3c-4a0e-9d55-1f0f3f0f2a11");
        check(b"", "");
        check(b"a b\x07\xffc\nd\n", "abc");
        check(&[b'x'; 9000], &"x".repeat(BOOT_ID_BYTES_MAX));
        assert_eq!(boot_id(&MemoryTree::new()), "");
    }

    #[test]
    fn memory_is_read_by_its_name() {
        let check = |text: &str, name: &str, expected: Option<u64>| {
            assert_eq!(meminfo_bytes(text, name), expected, "{name} of {text:?}");
        };
        let all =
            "MemTotal:       16384 kB\nMemFree: 7 kB\nInactive:  3 kB\nActive:  2 kB\nHugePages_Total:  5\n";
        check(all, "MemTotal", Some(16 << 20));
        check(all, "Active", Some(2048));
        check(all, "MemAvailable", None);
        check(all, "HugePages_Total", None);
        check("Node 0 MemTotal:  9000 kB\nNode 0 MemFree: 1 kB\n", "MemFree", Some(1024));
        check("Node 12 MemTotal:  1 kB\n", "MemTotal", Some(1024));
        for strange in
            ["", "MemTotal", "MemTotal:", "MemTotal: kB", "MemTotal: -1 kB", "Node", "Node ", "Node 1"]
        {
            check(strange, "MemTotal", None);
        }
        check("MemTotal: 18446744073709551615 kB", "MemTotal", None);
        assert_eq!(total_memory_bytes(&with(MEMINFO, all)), 16 << 20);
        assert_eq!(total_memory_bytes(&MemoryTree::new()), 0);
        let node = "/sys/devices/system/node/node1/meminfo";
        assert_eq!(node_meminfo(&with(node, "Node 1"), 1).as_deref(), Some("Node 1"));
        assert_eq!(node_meminfo(&with(node, "Node 1"), 0), None);
    }

    #[test]
    fn what_is_there_is_seen() {
        assert!(has_kvm_file(&with("/dev/kvm", "")) && !has_kvm_file(&with("/dev/kvmfr", "")));
        assert!(has_nvidia_driver(&with(NVIDIA_VERSION, "NVRM")) && !has_nvidia_driver(&MemoryTree::new()));
        let mut tree = MemoryTree::new();
        tree.symlink(NETWORK_NAMESPACE, "net:[4026531840]");
        assert_eq!(network_namespace(&tree).as_deref(), Some("net:[4026531840]"));
        assert_eq!(network_namespace(&MemoryTree::new()), None);
    }

    #[test]
    fn a_function_has_the_group_that_its_link_names() {
        let function: Bdf = "0000:3b:00.0".parse().expect("an address");
        let group_in = |target: &str| {
            let mut tree = MemoryTree::new();
            tree.symlink("/sys/bus/pci/devices/0000:3b:00.0/iommu_group", target);
            iommu_group_of(&tree, function)
        };
        assert_eq!(group_in("../../../kernel/iommu_groups/17"), Ok(17));
        for strange in
            ["", "../../../kernel/iommu_groups/", "../../../kernel/iommu_groups/-1", "x/../../dev/mem"]
        {
            assert!(matches!(group_in(strange), Err(TreeError::Other(_))), "{strange:?}");
        }
        assert_eq!(iommu_group_of(&MemoryTree::new(), function), Err(TreeError::NotFound));
    }

    #[test]
    fn merging_is_told_with_what_to_do() {
        let check = |tree: &MemoryTree, expected: Option<&str>| {
            let problem = page_merging_problem(tree);
            match expected {
                None => assert_eq!(problem, None),
                Some(expected) => {
                    assert!(problem.as_ref().is_some_and(|text| text.contains(expected)), "{problem:?}")
                }
            }
        };
        check(&MemoryTree::new(), Some("CONFIG_KSM"));
        for (run, expected) in [("0\n", Some("echo 1 >")), ("2\n", Some("echo 1 >")), ("1\n", None)] {
            check(&with("/sys/kernel/mm/ksm/run", run), expected);
        }
    }
}
