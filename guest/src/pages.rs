//! Huge pages of the guest: set aside before any container starts.
//!
//! The pages that the host backs with its own are in NUMA nodes without CPUs, which come last. The kernel keeps tables in those
//! too, so the last pages are of other nodes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use bulkhead_guest_protocol::host::PodConfig;

const NODES: &str = "/sys/devices/system/node";
const KIB: u64 = 1 << 10;
const TWO_MIB: u64 = 2 << 20;
const ONE_GIB: u64 = 1 << 30;

/// Sets the pod's pages of 2 MiB aside, and looks whether the kernel did so with those of 1 GiB as it booted.
///
/// # Errors
/// How many pages of which size there are and should be.
pub(crate) fn set_aside(config: &PodConfig) -> Result<()> {
    take(Path::new(NODES), TWO_MIB, config.two_mib_pages_bytes / TWO_MIB)?;
    // A running kernel seldom has such a page whole: whatever is missing now will be missing.
    let found: u64 = nodes(Path::new(NODES))?.iter().map(|node| present(node, ONE_GIB)).sum();
    let wanted = config.one_gib_pages_bytes / ONE_GIB;
    ensure!(found >= wanted, "the guest has {found} huge pages of 1Gi, the pod asks for {wanted}");
    Ok(())
}

fn take(root: &Path, page_bytes: u64, wanted: u64) -> Result<()> {
    if wanted == 0 {
        return Ok(());
    }
    let nodes = nodes(root)?;
    let missing = spread(&nodes, wanted, |node, count| {
        let file = count_file(node, page_bytes);
        fs::write(&file, count.to_string()).with_context(|| format!("write {}", file.display()))?;
        // The kernel takes as many as it finds.
        Ok(present(node, page_bytes))
    })?;
    let size = page_bytes >> 20;
    ensure!(
        missing == 0,
        "the guest lacks {missing} of the {wanted} huge pages of {size}Mi that the pod asks for"
    );
    Ok(())
}

/// Asks the last node for all, those before for what is missing then; how many are missing in the end.
fn spread<N>(nodes: &[N], wanted: u64, mut ask: impl FnMut(&N, u64) -> Result<u64>) -> Result<u64> {
    let mut left = wanted;
    for node in nodes.iter().rev() {
        if left > 0 {
            left = left.saturating_sub(ask(node, left)?);
        }
    }
    Ok(left)
}

/// The NUMA nodes, by number.
fn nodes(root: &Path) -> Result<Vec<PathBuf>> {
    let names = fs::read_dir(root).with_context(|| format!("list {}", root.display()))?;
    let number = |name: &str| name.strip_prefix("node")?.parse::<u32>().ok();
    let mut found: Vec<(u32, PathBuf)> = names
        .flatten()
        .filter_map(|entry| Some((number(entry.file_name().to_str()?)?, entry.path())))
        .collect();
    found.sort_unstable();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

fn count_file(node: &Path, page_bytes: u64) -> PathBuf {
    node.join(format!("hugepages/hugepages-{}kB/nr_hugepages", page_bytes / KIB))
}

fn present(node: &Path, page_bytes: u64) -> u64 {
    let text = fs::read_to_string(count_file(node, page_bytes)).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nodes that have so many pages; what each is asked for, from the last on, and how many are missing.
    fn check(has: &[u64], wanted: u64, asked: &[u64], missing: u64) {
        let mut seen = Vec::new();
        let found = spread(has, wanted, |has, count| {
            seen.push(count);
            Ok(count.min(*has))
        });
        assert_eq!((found.expect("nothing fails"), seen.as_slice()), (missing, asked), "{has:?} {wanted}");
    }

    #[test]
    fn what_the_last_node_lacks_is_of_those_before() {
        check(&[100, 25], 32, &[32, 7], 0);
        check(&[100, 32], 32, &[32], 0);
        check(&[100, 3, 25], 32, &[32, 7, 4], 0);
        check(&[5, 25], 32, &[32, 7], 2);
        check(&[], 1, &[], 1);
        assert!(spread(&[0], 1, |_, _| anyhow::bail!("no such file")).is_err());
    }

    #[test]
    fn nodes_are_asked_by_number() {
        let root = std::env::temp_dir().join(format!("bulkhead-pages-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        for node in ["node0", "node9", "node10"] {
            let file = count_file(&root.join(node), TWO_MIB);
            fs::create_dir_all(file.parent().expect("a folder")).expect("made");
            fs::write(file, "0\n").expect("written");
        }
        fs::write(root.join("possible"), "0-10\n").expect("written");
        take(&root, TWO_MIB, 7).expect("the files take it");
        let found = ["node0", "node9", "node10"].map(|node| present(&root.join(node), TWO_MIB));
        fs::remove_dir_all(&root).expect("removed");
        assert_eq!(found, [0, 0, 7]);
    }
}
