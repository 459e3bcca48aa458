//! The volumes of the pod: where they are mounted in the guest, and how files get into those that the host fills.
//!
//! ```text
//!  <volume>/..data ─► ..7/            one swap of this link makes all new files visible at once (Kubernetes' way)
//!  <volume>/key    ─► ..data/key      one link for each first part of a path
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Seek as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use bulkhead_guest_protocol::host::{
    FsGroupPolicy, PodConfig, VolumeConfig, VolumeFile, VolumeFiles, VolumeKind,
};
use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::fstatvfs;
use nix::unistd::{Gid, chown};

use crate::ownership::{Given, is_given};
use crate::setup::{find_disk, mount_at};

/// Where volumes are mounted in the guest.
const ROOT: &str = "/run/bulkhead-volumes";
/// The link to the folder with the present files.
const DATA: &str = "..data";
/// Largest size of a volume with files, in bytes: twice what the control plane sends, for the moment of a swap.
const FILES_LENGTH_MAX: u64 = 16 << 20;

/// The volumes of the pod.
#[derive(Debug, Default)]
pub(crate) struct Volumes {
    kinds: BTreeMap<String, VolumeKind>,
    /// Those whose disk nobody writes to.
    read_only: BTreeSet<String>,
    /// The serials of those that have a disk.
    disks: BTreeMap<String, String>,
    /// Files that came in parts, the last of which is still to come.
    partial: BTreeMap<String, Vec<VolumeFile>>,
    /// Files that came before the pod was configured.
    early: BTreeMap<String, Vec<VolumeFile>>,
    /// The group that owns everything, when the pod names one.
    fs_group: Option<Gid>,
    /// Those whose content is to be given to the group before the pod begins.
    ungiven: Vec<Given>,
}

impl Volumes {
    /// Mounts every volume and fills those with files.
    ///
    /// # Errors
    /// With the volume that cannot be made.
    pub(crate) fn configure(&mut self, pod: &PodConfig) -> Result<()> {
        self.fs_group = pod.fs_group.map(Gid::from_raw);
        for volume in &pod.volumes {
            let owner = self.fs_group.map(|group| (group, pod.fs_group_policy()));
            let is_given =
                mount_volume(volume, owner).with_context(|| format!("make volume {}", volume.name))?;
            if !is_given {
                self.ungiven.push(Given { volume: volume.name.clone(), path: path_of(&volume.name) });
            }
            self.kinds.insert(volume.name.clone(), volume.kind());
            if volume.read_only {
                self.read_only.insert(volume.name.clone());
            }
            if !volume.disk_serial.is_empty() {
                self.disks.insert(volume.name.clone(), volume.disk_serial.clone());
            }
        }
        for (volume, files) in std::mem::take(&mut self.early) {
            self.fill(&volume, &files)?;
        }
        Ok(())
    }

    /// The volumes whose content is to be given to the pod's group, once.
    pub(crate) fn take_ungiven(&mut self) -> Vec<Given> {
        std::mem::take(&mut self.ungiven)
    }

    /// The host begins a new conversation: what of files came in the last one is sent again, from the beginning.
    pub(crate) fn forget_partial(&mut self) {
        self.partial.clear();
    }

    /// Takes files from the host; what is complete becomes visible, or waits for the configuration.
    pub(crate) fn take(&mut self, message: VolumeFiles, is_configured: bool) {
        let partial = self.partial.entry(message.volume.clone()).or_default();
        for file in message.files {
            match partial.last_mut().filter(|last| file.continues && last.path == file.path) {
                Some(last) => last.data.extend_from_slice(&file.data),
                None => partial.push(file),
            }
        }
        if message.more {
            return;
        }
        let files = self.partial.remove(&message.volume).unwrap_or_default();
        if !is_configured {
            self.early.insert(message.volume, files);
        } else if let Err(error) = self.fill(&message.volume, &files) {
            eprintln!("bulkhead-guest: {error:#}");
        }
    }

    fn fill(&self, volume: &str, files: &[VolumeFile]) -> Result<()> {
        if self.kinds.get(volume) != Some(&VolumeKind::Files) {
            eprintln!("bulkhead-guest: files for {volume}, which is no volume with files, are left out");
            return Ok(());
        }
        replace_files(&path_of(volume), files, self.fs_group).with_context(|| format!("fill volume {volume}"))
    }

    /// Makes the file system of a volume fill its disk.
    ///
    /// # Errors
    /// When there is no such volume, or as the kernel says.
    pub(crate) fn grow(&self, volume: &str, disk_bytes: u64) -> Result<()> {
        let serial = self.disks.get(volume).with_context(|| format!("{volume} is no volume with a disk"))?;
        fill_disk(&path_of(volume), &find_disk(serial)?, disk_bytes)
    }

    /// Where a volume is whose file system can be held still.
    ///
    /// # Errors
    /// When there is no such volume.
    pub(crate) fn freezable(&self, volume: &str) -> Result<PathBuf> {
        let has_disk = self.disks.contains_key(volume) && !self.read_only.contains(volume);
        ensure!(has_disk, "{volume} is no volume with a disk that is written to");
        Ok(path_of(volume))
    }

    /// Whether a folder that a mount names may be made: in volumes that are empty at first.
    pub(crate) fn begins_empty(&self, volume: &str) -> bool {
        let is_written = !self.read_only.contains(volume);
        is_written && self.kinds.get(volume).is_some_and(|kind| *kind != VolumeKind::Files)
    }
}

/// Where a volume is mounted in the guest. The name was checked when it was received.
pub(crate) fn path_of(volume: &str) -> PathBuf {
    Path::new(ROOT).join(volume)
}

/// Mounts a volume; whether what is in it belongs to the pod's group, or need not.
fn mount_volume(volume: &VolumeConfig, owner: Option<(Gid, FsGroupPolicy)>) -> Result<bool> {
    let fs_group = owner.map(|(group, _)| group);
    let path = path_of(&volume.name);
    let target = path.to_str().context("a volume's name is ASCII")?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    match volume.kind() {
        VolumeKind::Files => {
            let options = format!("mode=0755,size={FILES_LENGTH_MAX}");
            mount_at("tmpfs", target, flags | MsFlags::MS_NOEXEC, &options)?;
            return Ok(true);
        }
        VolumeKind::Memory if volume.size_bytes > 0 => {
            mount_at("tmpfs", target, flags, &format!("mode=0777,size={}", volume.size_bytes))?;
        }
        VolumeKind::Memory => mount_at("tmpfs", target, flags, "mode=0777")?,
        VolumeKind::HugePages => {
            let size =
                if volume.size_bytes > 0 { format!(",size={}", volume.size_bytes) } else { String::new() };
            let options = format!("mode=0777,pagesize={}{size}", volume.page_bytes);
            mount_at("hugetlbfs", target, flags, &options)?;
        }
        VolumeKind::Disk | VolumeKind::Unspecified => {
            let disk = find_disk(&volume.disk_serial)?;
            fs::create_dir_all(&path)?;
            if volume.read_only {
                // The kernel may have to write back a journal first, into what this guest has for itself.
                let flags = flags | MsFlags::MS_NOATIME | MsFlags::MS_RDONLY;
                mount(Some(&disk), &path, Some("ext4"), flags, None::<&str>)
                    .with_context(|| format!("mount {}", disk.display()))?;
                return Ok(true);
            }
            mount(Some(&disk), &path, Some("ext4"), flags | MsFlags::MS_NOATIME, None::<&str>)
                .with_context(|| format!("mount {}", disk.display()))?;
            // The disk may have grown while no guest had it. With the size that it has the volume works as well.
            if let Err(error) = fill_disk(&path, &disk, 0) {
                eprintln!("bulkhead-guest: volume {}: {error:#}", volume.name);
            }
            let lost_and_found = path.join("lost+found");
            if !lost_and_found.is_dir() {
                return match owner {
                    Some((_, FsGroupPolicy::Always)) => Ok(false),
                    Some((group, FsGroupPolicy::OnRootMismatch)) => is_given(&path, group),
                    Some((_, FsGroupPolicy::RootOnly)) => keep_permissions(&path, fs_group).map(|()| true),
                    None => Ok(true),
                };
            }
            open_to_all(&path, fs_group)?;
            // The tools that check file systems want it; nothing else does. Without it the volume counts as used.
            fs::remove_dir(lost_and_found)?;
            return Ok(true);
        }
    }
    open_to_all(&path, fs_group)?;
    Ok(true)
}

/// Makes the file system at `path` fill its disk, which shall have so many bytes at least; nothing happens when it does.
/// The kernel does it beside whatever is written (`filesystems/ext4/` of Linux' documentation, `EXT4_IOC_RESIZE_FS`).
///
/// # Errors
/// When the kernel does not know of the disk's size yet, or refuses.
pub(crate) fn fill_disk(path: &Path, disk: &Path, disk_bytes: u64) -> Result<()> {
    let present = fs::File::open(disk).and_then(|mut disk| disk.seek(io::SeekFrom::End(0)));
    let present = present.with_context(|| format!("look at {}", disk.display()))?;
    ensure!(present >= disk_bytes, "{} has {present} bytes yet, not {disk_bytes}", disk.display());
    let root = fs::File::open(path)?;
    let block_length = fstatvfs(&root)?.fragment_size();
    ensure!(block_length > 0, "a file system without blocks");
    crate::sys::resize_ext4(&root, present / block_length).context("make the file system larger")
}

/// Everybody in the pod may write into a volume that is new, as in Kubernetes.
fn open_to_all(path: &Path, fs_group: Option<Gid>) -> Result<()> {
    give_to(path, fs_group)?;
    // With a group, everything in it gets that group.
    let mode = if fs_group.is_some() { 0o2777 } else { 0o777 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(())
}

/// A volume that an earlier guest had keeps the permissions that it has, but that the pod's group may write.
fn keep_permissions(path: &Path, fs_group: Option<Gid>) -> Result<()> {
    if fs_group.is_some() {
        give_to(path, fs_group)?;
        let present = fs::metadata(path)?.permissions().mode();
        fs::set_permissions(path, fs::Permissions::from_mode((present & 0o7777) | 0o2070))?;
    }
    Ok(())
}

fn give_to(path: &Path, group: Option<Gid>) -> Result<()> {
    chown(path, None, group).with_context(|| format!("give {} to its group", path.display()))
}

/// Makes exactly these files visible in `dir`, all at once. Does nothing when they are there already.
///
/// # Errors
/// When they cannot be written; what was visible before stays.
fn replace_files(dir: &Path, files: &[VolumeFile], group: Option<Gid>) -> Result<()> {
    let link = dir.join(DATA);
    let former = fs::read_link(&link).ok();
    if let Some(former) = &former
        && holds(&dir.join(former), files, group)?
    {
        return Ok(());
    }
    let number = former.as_deref().and_then(|name| name.to_str()?.strip_prefix("..")?.parse::<u64>().ok());
    let name = format!("..{}", number.unwrap_or(0) + 1);
    let fresh = dir.join(&name);
    // What is left of a try that failed.
    remove_dir(&fresh)?;
    write_files(&fresh, files, group)?;
    let staged = dir.join("..data_tmp");
    remove_file(&staged)?;
    symlink(&name, &staged)?;
    fs::rename(&staged, &link)?;
    link_first_parts(dir, files)?;
    if let Some(former) = former {
        remove_dir(&dir.join(former))?;
    }
    Ok(())
}

fn write_files(dir: &Path, files: &[VolumeFile], group: Option<Gid>) -> Result<()> {
    fs::create_dir(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    for file in files {
        let path = dir.join(&file.path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, &file.data).with_context(|| file.path.clone())?;
        give_to(&path, group)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode_of(file, group)))?;
    }
    Ok(())
}

/// The group that owns a file may read it (Kubernetes' rule).
fn mode_of(file: &VolumeFile, group: Option<Gid>) -> u32 {
    (file.mode & 0o777) | if group.is_some() { 0o440 } else { 0 }
}

/// One link for each first part of a path; those of files that are no more go.
fn link_first_parts(dir: &Path, files: &[VolumeFile]) -> Result<()> {
    let wanted: BTreeSet<&str> = files.iter().filter_map(|file| file.path.split('/').next()).collect();
    for part in &wanted {
        match symlink(Path::new(DATA).join(part), dir.join(part)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => result?,
        }
    }
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if !name.to_str().is_some_and(|name| name.starts_with("..") || wanted.contains(name)) {
            remove_file(&dir.join(name))?;
        }
    }
    Ok(())
}

/// Whether the folder holds exactly these files.
fn holds(dir: &Path, files: &[VolumeFile], group: Option<Gid>) -> Result<bool> {
    let same = |file: &VolumeFile| {
        let path = dir.join(&file.path);
        let mode = fs::metadata(&path).map(|m| m.permissions().mode() & 0o777);
        mode.is_ok_and(|mode| mode == mode_of(file, group))
            && fs::read(&path).is_ok_and(|data| data == file.data)
    };
    Ok(files.iter().all(same) && count_files(dir)? == files.len())
}

fn count_files(dir: &Path) -> io::Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        count += if entry.file_type()?.is_dir() { count_files(&entry.path())? } else { 1 };
    }
    Ok(count)
}

fn remove_dir(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, data: &str, mode: u32) -> VolumeFile {
        VolumeFile { path: path.into(), mode, data: data.into(), continues: false }
    }

    /// What a container sees: every path without those of the bookkeeping, with content and permissions.
    fn seen(dir: &Path) -> Vec<String> {
        let mut lines = Vec::new();
        for entry in fs::read_dir(dir).expect("listed").flatten() {
            let name = entry.file_name().into_string().expect("text");
            if name.starts_with("..") {
                continue;
            }
            if entry.path().is_dir() {
                lines.extend(seen(&entry.path()).into_iter().map(|line| format!("{name}/{line}")));
            } else {
                let mode = fs::metadata(entry.path()).expect("there").permissions().mode() & 0o777;
                lines.push(format!("{name} {} {mode:o}", fs::read_to_string(entry.path()).expect("read")));
            }
        }
        lines.sort();
        lines
    }

    fn temporary(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("bulkhead-volumes-{name}-{}", std::process::id()));
        remove_dir(&dir).expect("removed");
        fs::create_dir(&dir).expect("made");
        dir
    }

    #[test]
    fn files_of_which_only_a_part_came_are_forgotten_with_their_host() {
        let mut volumes = Volumes::default();
        let part = |files: Vec<VolumeFile>, more| VolumeFiles { volume: "config".into(), files, more };
        volumes.take(part(vec![file("gone", "old", 0o644), file("a", "o", 0o644)], true), false);
        volumes.forget_partial();
        volumes.take(part(vec![file("a", "n", 0o644)], true), false);
        let rest = VolumeFile { continues: true, ..file("a", "ew", 0o644) };
        volumes.take(part(vec![rest], false), false);
        assert_eq!(volumes.early["config"], [file("a", "new", 0o644)]);
    }

    #[test]
    fn files_are_replaced_at_once() {
        let dir = temporary("replace");
        let check = |files: &[VolumeFile], expected: &[&str], target: &str| {
            replace_files(&dir, files, None).expect("replaced");
            assert_eq!(seen(&dir), expected);
            assert_eq!(fs::read_link(dir.join(DATA)).expect("a link"), Path::new(target));
            let own = fs::read_dir(&dir).expect("listed").flatten();
            let own = own.filter(|e| e.file_name().to_str().is_some_and(|name| name.starts_with("..")));
            assert_eq!(own.count(), 2, "the link and one folder");
        };
        let two = [file("a", "1", 0o644), file("sub/dir/b", "2", 0o400)];
        check(&two, &["a 1 644", "sub/dir/b 2 400"], "..1");
        check(&two, &["a 1 644", "sub/dir/b 2 400"], "..1");
        check(
            &[file("a", "1", 0o600), file("sub/dir/b", "2", 0o400)],
            &["a 1 600", "sub/dir/b 2 400"],
            "..2",
        );
        check(&[file("c", "3", 0o644)], &["c 3 644"], "..3");
        check(&[], &[], "..4");
        remove_dir(&dir).expect("removed");
    }

    #[test]
    fn parts_become_whole_files() {
        let mut volumes = Volumes::default();
        let message = |files: Vec<VolumeFile>, more| VolumeFiles { volume: "v".into(), files, more };
        let rest = |data: &str| VolumeFile { continues: true, ..file("a", data, 0o644) };
        volumes.take(message(vec![file("a", "1", 0o644)], true), false);
        volumes.take(message(vec![rest("2")], true), false);
        assert!(volumes.early.is_empty());
        volumes.take(message(vec![rest("3"), file("b", "", 0o644)], false), false);
        assert_eq!(volumes.early["v"], [file("a", "123", 0o644), file("b", "", 0o644)]);
        assert!(volumes.partial.is_empty());
    }
}
