//! Volumes in a container: taken in the guest's file tree, put in the container's.
//!
//! Paths of the volume are resolved so that no link in it leads out of it, and paths of the container only after its
//! root is the root: a container's user may have written either.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context as _, Result};
use bulkhead_guest_protocol::host::MountConfig;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};

use crate::sys;
use crate::volumes::{Volumes, path_of};

/// A volume, or a part of one, that is mounted nowhere yet.
pub(crate) struct Tree<'a> {
    config: &'a MountConfig,
    tree: OwnedFd,
    is_dir: bool,
    read_only: bool,
}

/// Takes what is to be mounted; before the guest's file tree is let go of.
///
/// # Errors
/// With the mount whose volume has no such part.
pub(crate) fn take<'a>(mounts: &'a [MountConfig], volumes: &Volumes) -> Result<Vec<Tree<'a>>> {
    mounts
        .iter()
        .map(|config| {
            take_one(config, volumes).with_context(|| {
                format!("volume {} for {}: subPath {:?}", config.volume, config.path, config.sub_path)
            })
        })
        .collect()
}

fn take_one<'a>(config: &'a MountConfig, volumes: &Volumes) -> Result<Tree<'a>> {
    let begins_empty = volumes.begins_empty(&config.volume);
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = nix::fcntl::open(&path_of(&config.volume), flags, Mode::empty())?;
    let part = match config.sub_path.as_str() {
        "" => root,
        sub_path => open_part(root, sub_path, begins_empty)?,
    };
    let is_dir = SFlag::from_bits_truncate(fstat(&part)?.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
    let tree = sys::clone_tree(part.as_fd()).context("take the mount")?;
    Ok(Tree { config, tree, is_dir, read_only: config.read_only || !begins_empty })
}

/// Takes one file of the guest's, to be mounted where `config` says.
///
/// # Errors
/// When it is not there.
pub(crate) fn take_file<'a>(file: &Path, config: &'a MountConfig) -> Result<Tree<'a>> {
    let file = nix::fcntl::open(file, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    let tree = sys::clone_tree(file.as_fd()).context("take the mount")?;
    Ok(Tree { config, tree, is_dir: false, read_only: false })
}

/// A file or folder below `root`; folders that are missing are made where that is possible.
fn open_part(root: OwnedFd, sub_path: &str, make: bool) -> Result<OwnedFd> {
    match open_beneath(&root, sub_path) {
        Err(Errno::ENOENT) if make => {}
        result => return Ok(result?),
    }
    let mut folder = root;
    for part in sub_path.split('/') {
        match mkdirat(&folder, part, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        folder = open_beneath(&folder, part)?;
    }
    Ok(folder)
}

fn open_beneath(folder: &impl AsFd, path: &str) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(folder, path, how)
}

/// Puts everything in its place; the container's root is the root by now.
///
/// # Errors
/// With the path at which nothing can be mounted.
pub(crate) fn put(trees: &[Tree<'_>]) -> Result<()> {
    trees.iter().try_for_each(|tree| put_one(tree).with_context(|| format!("mount at {}", tree.config.path)))
}

fn put_one(tree: &Tree<'_>) -> Result<()> {
    let target = Path::new(&tree.config.path);
    if tree.is_dir {
        fs::create_dir_all(target)?;
    } else if !target.exists() {
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        File::create(target)?;
    }
    sys::move_tree(tree.tree.as_fd(), AT_FDCWD, target)?;
    let mut flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    if tree.read_only {
        flags |= MsFlags::MS_RDONLY;
    }
    mount(None::<&str>, target, None::<&str>, flags, None::<&str>)?;
    Ok(())
}
