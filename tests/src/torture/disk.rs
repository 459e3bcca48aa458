//! The disk of each host: a small file system of its own in a file, so that it can be filled and stalled, or a plain
//! folder where the machine cannot mount one.

use std::fs;
use std::path::{Path, PathBuf};

use super::network::run;

/// Size of the file system. Sparse: what is not used takes no room.
const DISK_MIB: u64 = 320;
/// Free space that is left on a full disk: below the reserve that a server keeps.
const LEFT_BYTES: u64 = 8 << 20;
/// How often a disk is copied until nothing was written meanwhile.
const COPIES_MAX: usize = 20;
/// What takes up the room.
const BALLOON: &str = "balloon";

/// A host's disk.
#[derive(Debug)]
pub(crate) struct Disk {
    path: PathBuf,
    image: Option<PathBuf>,
}

impl Disk {
    /// A disk below `dir`; a folder, with the reason, where nothing can be mounted.
    pub(crate) fn new(dir: &Path, host: usize) -> (Self, Option<String>) {
        let path = dir.join(format!("host-{host}"));
        fs::create_dir_all(&path).expect("a folder");
        let image = dir.join(format!("host-{host}.img"));
        match mount(&image, &path) {
            Ok(()) => (Self { path, image: Some(image) }, None),
            Err(reason) => (Self { path, image: None }, Some(reason)),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn is_mounted(&self) -> bool {
        self.image.is_some()
    }

    /// Takes up all room but a little.
    pub(crate) fn fill(&self) -> Result<(), String> {
        let stat = nix::sys::statvfs::statvfs(&self.path).map_err(|e| e.to_string())?;
        let free = stat.blocks_available() * stat.fragment_size();
        let size = free.saturating_sub(LEFT_BYTES);
        run(&format!("fallocate -l {size} {}", self.path.join(BALLOON).display())).map(drop)
    }

    /// Stops all writes to it until [`thaw`](Self::thaw): they hang.
    pub(crate) fn freeze(&self) -> Result<(), String> {
        run(&format!("fsfreeze -f {}", self.path.display())).map(drop)
    }

    pub(crate) fn thaw(&self) {
        if self.is_mounted() {
            let _ = run(&format!("fsfreeze -u {}", self.path.display()));
        }
    }

    /// Loses what never reached the device: its file is copied as it is now, without what the kernel still keeps in
    /// memory, and takes the place of what the unmounting makes of it. No process may use the disk.
    pub(crate) fn lose_power(&self) -> Result<(), String> {
        let image = self.image.as_ref().expect("only a mounted disk can lose power");
        let lost = image.with_extension("lost");
        let (image_name, lost_name) = (image.display(), lost.display());
        for _ in 0..COPIES_MAX {
            run(&format!("cp --sparse=always {image_name} {lost_name}"))?;
            // The kernel may write in the middle of a copy, which no loss of power can look like.
            if run(&format!("cmp -s {image_name} {lost_name}")).is_ok() {
                run(&format!("umount {}", self.path.display()))?;
                fs::rename(&lost, image).map_err(|e| e.to_string())?;
                return run(&format!("mount -o loop {image_name} {}", self.path.display())).map(drop);
            }
        }
        Err(format!("{image_name} is written all the time"))
    }

    /// Room again, and no stall.
    pub(crate) fn heal(&self) {
        self.thaw();
        let _ = fs::remove_file(self.path.join(BALLOON));
    }
}

fn mount(image: &Path, path: &Path) -> Result<(), String> {
    let file = fs::File::create(image).map_err(|e| e.to_string())?;
    file.set_len(DISK_MIB << 20).map_err(|e| e.to_string())?;
    run(&format!("mkfs.ext4 -q -F {}", image.display()))?;
    run(&format!("mount -o loop {} {}", image.display(), path.display())).map(drop)
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.heal();
        if self.is_mounted() {
            let _ = run(&format!("umount {}", self.path.display()));
        }
    }
}

/// Mounts below a folder.
pub(crate) fn mounts_below(dir: &Path) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let dir = dir.display().to_string();
    mounts.lines().filter(|line| line.contains(&dir)).map(str::to_owned).collect()
}
