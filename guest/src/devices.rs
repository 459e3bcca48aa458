//! What is in a container's /dev: the nodes that every program may expect, and for a privileged one all of the guest's.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

/// Folders of /dev that are the container's own file systems, and what stands for its own terminal.
const ITS_OWN: [&str; 5] = ["pts", "shm", "mqueue", "ptmx", "console"];
/// More nodes than this, and folders inside folders deeper than this, are left out.
const NODES_MAX: usize = 4096;
const DEPTH_MAX: usize = 8;

/// A node of the guest's /dev.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// Below /dev.
    path: PathBuf,
    kind: SFlag,
    /// Permissions, and device number.
    mode: u32,
    number: u64,
}

/// All device nodes below a folder, as they are now; those of a device that comes later are not seen.
pub(crate) fn list(dev: &Path) -> Vec<Node> {
    let mut nodes = Vec::new();
    let mut folders = vec![(PathBuf::new(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let Ok(entries) = fs::read_dir(dev.join(&folder)) else { continue };
        for entry in entries.flatten() {
            let path = folder.join(entry.file_name());
            let Ok(data) = entry.path().symlink_metadata() else { continue };
            let is_own = depth == 0 && ITS_OWN.iter().any(|own| Path::new(own) == path);
            let kind = match data.file_type() {
                _ if is_own => continue,
                kind if kind.is_dir() && depth < DEPTH_MAX => {
                    folders.push((path, depth + 1));
                    continue;
                }
                kind if kind.is_char_device() => SFlag::S_IFCHR,
                kind if kind.is_block_device() => SFlag::S_IFBLK,
                _ => continue,
            };
            if nodes.len() < NODES_MAX {
                nodes.push(Node { path, kind, mode: data.mode() & 0o777, number: data.rdev() });
            }
        }
    }
    nodes.sort_by(|a, b| a.path.cmp(&b.path));
    nodes
}

/// Fills the container's /dev with the nodes that every program may expect.
pub(crate) fn make() -> Result<()> {
    for (name, major, minor) in
        [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)]
    {
        let path = format!("/dev/{name}");
        mknod(path.as_str(), SFlag::S_IFCHR, Mode::empty(), makedev(major, minor))
            .with_context(|| path.clone())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
    }
    for (target, link) in [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
        ("pts/ptmx", "/dev/ptmx"),
    ] {
        symlink(target, link).context(link)?;
    }
    Ok(())
}

/// Adds those of the guest that are not there yet.
pub(crate) fn make_all(nodes: &[Node]) -> Result<()> {
    for node in nodes {
        let path = Path::new("/dev").join(&node.path);
        if path.symlink_metadata().is_ok() {
            continue;
        }
        let made = path.parent().map_or(Ok(()), fs::create_dir_all);
        made.with_context(|| format!("make the folder of {}", path.display()))?;
        mknod(&path, node.kind, Mode::empty(), node.number).with_context(|| path.display().to_string())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(node.mode))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_devices_are_found_and_nothing_else() {
        let nodes = list(Path::new("/dev"));
        let has = |path: &str| nodes.iter().any(|node| node.path == Path::new(path));
        assert!(has("null") && !has("ptmx") && !has("fd") && !has("shm"), "{nodes:?}");
        assert!(!nodes.iter().any(|node| node.path.starts_with("pts")), "terminals are the container's own");
        assert_eq!(list(Path::new("/proc/self/fdinfo")), []);
    }
}
