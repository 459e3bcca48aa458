//! Unpacks the layers of an image into one directory. Layers are hostile.
//!
//! Every path is resolved by the kernel below the directory's descriptor (`openat2`, `RESOLVE_IN_ROOT`): links that
//! an earlier entry planted lead to where they would lead inside the container, never outside. The last component is
//! never followed. Sizes, entries and depth are bounded.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;
use tar::EntryType;

use super::error::{ImageError, IoContext as _};

/// Deepest path of an entry, in components.
const DEPTH_MAX: usize = 128;
/// Deepest tree that is removed; deeper ones can only come from a layer that builds them through links.
const REMOVE_DEPTH_MAX: usize = 512;
/// Longest head of an entry: its header, its long names and its extended headers.
const ENTRY_HEAD_LENGTH_MAX: u64 = 1 << 20;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What an image may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UnpackLimits {
    /// Unpacked bytes over all layers, tar headers included.
    pub(super) bytes_max: u64,
    /// Entries over all layers.
    pub(super) entries_max: u64,
}

/// The directory that layers are unpacked into, lowest first.
#[derive(Debug)]
pub(super) struct Unpacker {
    root: OwnedFd,
    limits: UnpackLimits,
    bytes: u64,
    entries: u64,
    /// Modification times of directories in seconds, set at the end because entries inside change them.
    directory_times: BTreeMap<PathBuf, i64>,
    keep_owners: bool,
}

/// One layer on its way.
struct Layer {
    /// What this layer has written; its whiteouts spare these.
    written: BTreeSet<PathBuf>,
}

/// Where an entry goes.
struct Place {
    path: PathBuf,
    parent: OwnedFd,
    name: OsString,
}

impl Unpacker {
    /// Unpacks into `root`, which exists and is empty. Owners are kept if this process may set them.
    pub(super) fn new(root: &Path, limits: UnpackLimits) -> Result<Self, ImageError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, flags, Mode::empty()).at("open", root)?;
        let keep_owners = rustix::process::geteuid().is_root();
        Ok(Self { root, limits, bytes: 0, entries: 0, directory_times: BTreeMap::new(), keep_owners })
    }

    /// Unpacks one layer: a tar, plain or packed with gzip or zstd.
    pub(super) fn apply(&mut self, layer: impl Read) -> Result<(), ImageError> {
        let left = self.limits.bytes_max.saturating_sub(self.bytes);
        // One more than the limit may be read, so that reaching it can be told from ending there.
        let mut bounded = decompress(layer)?.take(left.saturating_add(1));
        let result = self.apply_entries(&mut bounded);
        self.bytes += left.saturating_add(1) - bounded.limit();
        self.check_bytes()?;
        result
    }

    fn check_bytes(&self) -> Result<(), ImageError> {
        if self.bytes > self.limits.bytes_max {
            return Err(ImageError::TooLarge { what: "unpacked bytes", limit: self.limits.bytes_max });
        }
        Ok(())
    }

    /// Gives all directories the times their entries had.
    pub(super) fn finish(self) -> Result<OwnedFd, ImageError> {
        for (path, seconds) in &self.directory_times {
            // A later layer may have replaced or removed it.
            let Ok(parent) = self.open_dir(path.parent().unwrap_or(Path::new(""))) else { continue };
            if let Some(name) = path.file_name() {
                match set_times(&parent, name, *seconds) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(errno) => return Err(ImageError::io("set the time of", path, errno.into())),
                }
            }
        }
        Ok(self.root)
    }

    fn apply_entries(&mut self, tar: impl Read) -> Result<(), ImageError> {
        // The tar reader keeps long names and extended headers in memory, so what it may read between two entries is
        // bounded.
        let window = Rc::new(Cell::new(u64::MAX));
        let mut archive = tar::Archive::new(WindowReader { inner: tar, window: Rc::clone(&window) });
        let mut layer = Layer { written: BTreeSet::new() };
        let mut entries = archive.entries().at("read", Path::new("layer"))?;
        loop {
            window.set(ENTRY_HEAD_LENGTH_MAX);
            let Some(entry) = entries.next() else { break };
            window.set(u64::MAX);
            let mut entry = entry.at("read", Path::new("layer"))?;
            self.entries += 1;
            if self.entries > self.limits.entries_max {
                return Err(ImageError::TooLarge { what: "entries", limit: self.limits.entries_max });
            }
            self.apply_entry(&mut layer, &mut entry)?;
            // What is left of it would otherwise count as the next entry's head.
            io::copy(&mut entry, &mut io::sink()).at("read", Path::new("layer"))?;
        }
        Ok(())
    }

    fn apply_entry<R: Read>(
        &mut self,
        layer: &mut Layer,
        entry: &mut tar::Entry<'_, R>,
    ) -> Result<(), ImageError> {
        let raw = entry.path_bytes().into_owned();
        let path = clean_path(&raw)?;
        let kind = entry.header().entry_type();
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            // The root itself: only its attributes count.
            return if kind.is_dir() { self.set_root_attributes(entry) } else { Ok(()) };
        };
        let refuse =
            |reason| ImageError::HostileLayer { path: String::from_utf8_lossy(&raw).into_owned(), reason };
        let parent_path = path.parent().unwrap_or(Path::new(""));
        if name.as_bytes().starts_with(WHITEOUT) {
            return self.apply_whiteout(layer, parent_path, name.as_bytes(), refuse);
        }
        let parent = self.make_dirs(parent_path)?;
        let place = Place { parent, name, path };
        if !matches!(kind, EntryType::Directory) {
            remove_tree(place.parent.as_fd(), &place.name, 0).at("replace", &place.path)?;
        }
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.write_file(entry, &place)?
            }
            EntryType::Directory => self.write_directory(entry, &place)?,
            EntryType::Symlink => {
                let target = entry.link_name_bytes().ok_or_else(|| refuse("a symlink without a target"))?;
                rustix::fs::symlinkat(OsStr::from_bytes(&target), &place.parent, &place.name)
                    .at("link", &place.path)?;
                self.set_attributes(entry, &place, false)?;
            }
            EntryType::Link => {
                let target = entry.link_name_bytes().ok_or_else(|| refuse("a hard link without a target"))?;
                self.write_hard_link(&clean_path(&target)?, &place)?;
            }
            EntryType::Fifo => {
                rustix::fs::mknodat(&place.parent, &place.name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
                    .at("make", &place.path)?;
                self.set_attributes(entry, &place, true)?;
            }
            // Device nodes: the guest makes the ones that containers may have. Others are extensions of tar.
            _ => return Ok(()),
        }
        layer.written.insert(place.path);
        Ok(())
    }

    fn write_file<R: Read>(
        &mut self,
        entry: &mut tar::Entry<'_, R>,
        place: &Place,
    ) -> Result<(), ImageError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&place.parent, &place.name, flags, Mode::RUSR | Mode::WUSR);
        let mut file = File::from(fd.at("make", &place.path)?);
        let left = self.limits.bytes_max.saturating_sub(self.bytes);
        let written =
            io::copy(&mut entry.by_ref().take(left.saturating_add(1)), &mut file).at("write", &place.path)?;
        if entry.header().entry_type() == EntryType::GNUSparse {
            self.bytes += written; // Its holes are in no byte of the layer.
        }
        if written > left {
            return Err(ImageError::TooLarge { what: "unpacked bytes", limit: self.limits.bytes_max });
        }
        self.set_attributes(entry, place, true)?;
        set_xattrs(entry, file.as_fd(), &place.path)
    }

    fn write_directory<R: Read>(
        &mut self,
        entry: &mut tar::Entry<'_, R>,
        place: &Place,
    ) -> Result<(), ImageError> {
        let is_dir = |stat: &rustix::fs::Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        match rustix::fs::statat(&place.parent, &place.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if is_dir(&stat) => {}
            Ok(_) | Err(Errno::NOENT) => {
                remove_tree(place.parent.as_fd(), &place.name, 0).at("replace", &place.path)?;
                rustix::fs::mkdirat(&place.parent, &place.name, Mode::RWXU).at("make", &place.path)?;
            }
            Err(errno) => return Err(ImageError::io("look at", &place.path, errno.into())),
        }
        self.set_attributes(entry, place, true)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd =
            rustix::fs::openat(&place.parent, &place.name, flags, Mode::empty()).at("open", &place.path)?;
        self.directory_times.insert(place.path.clone(), mtime(entry));
        set_xattrs(entry, fd.as_fd(), &place.path)
    }

    fn write_hard_link(&self, target: &Path, place: &Place) -> Result<(), ImageError> {
        let refuse =
            |reason| ImageError::HostileLayer { path: place.path.to_string_lossy().into_owned(), reason };
        let name = target.file_name().ok_or_else(|| refuse("a hard link to the root"))?;
        let parent = self.open_dir(target.parent().unwrap_or(Path::new("")));
        let parent = parent.map_err(|_| refuse("a hard link to a file that is not there"))?;
        // Without AT_SYMLINK_FOLLOW: a link to a symlink is a second name of the symlink.
        match rustix::fs::linkat(&parent, name, &place.parent, &place.name, AtFlags::empty()) {
            Ok(()) => Ok(()),
            Err(Errno::NOENT) => Err(refuse("a hard link to a file that is not there")),
            Err(Errno::PERM) => Err(refuse("a hard link to something that is no file")),
            Err(errno) => Err(ImageError::io("link", &place.path, errno.into())),
        }
    }

    fn apply_whiteout(
        &self,
        layer: &Layer,
        parent_path: &Path,
        name: &[u8],
        refuse: impl Fn(&'static str) -> ImageError,
    ) -> Result<(), ImageError> {
        let Ok(parent) = self.open_dir(parent_path) else { return Ok(()) };
        if name == OPAQUE {
            return remove_lower(parent.as_fd(), parent_path, layer, 0).at("empty", parent_path);
        }
        let hidden = OsStr::from_bytes(&name[WHITEOUT.len()..]);
        if hidden.as_bytes().starts_with(WHITEOUT) {
            return Ok(()); // Bookkeeping of a union file system, no file of the image.
        }
        if hidden.is_empty() || hidden == "." || hidden == ".." {
            return Err(refuse("a whiteout of no file"));
        }
        let path = parent_path.join(hidden);
        if layer.written.contains(&path) {
            return Ok(());
        }
        remove_tree(parent.as_fd(), hidden, 0).at("remove", &path)
    }

    /// Opens a directory as the container would see it.
    fn open_dir(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve)
    }

    /// Opens a directory and makes what is missing on the way, as root's, with mode 755.
    fn make_dirs(&self, path: &Path) -> Result<OwnedFd, ImageError> {
        match self.open_dir(path) {
            Ok(dir) => return Ok(dir),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => return Err(ImageError::io("open", path, errno.into())),
        }
        let mut so_far = PathBuf::new();
        let mut dir = self.open_dir(Path::new("")).at("open", path)?;
        for component in path.components() {
            let name = component.as_os_str();
            so_far.push(name);
            dir = match self.open_dir(&so_far) {
                Ok(next) => next,
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    // A file or a dangling link in the way of a directory: the layer wants the directory.
                    remove_tree(dir.as_fd(), name, 0).at("replace", &so_far)?;
                    let mode = Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH;
                    rustix::fs::mkdirat(&dir, name, mode).at("make", &so_far)?;
                    set_times(&dir, name, 0).at("set the time of", &so_far)?;
                    self.open_dir(&so_far).at("open", &so_far)?
                }
                Err(errno) => return Err(ImageError::io("open", &so_far, errno.into())),
            };
        }
        Ok(dir)
    }

    /// Owner first, because a change of owner clears the set-user-id bit.
    fn set_attributes<R: Read>(
        &self,
        entry: &tar::Entry<'_, R>,
        place: &Place,
        has_mode: bool,
    ) -> Result<(), ImageError> {
        if self.keep_owners {
            let (uid, gid) = owner(entry);
            rustix::fs::chownat(&place.parent, &place.name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                .at("set the owner of", &place.path)?;
        }
        if has_mode {
            let mode = Mode::from_raw_mode(entry.header().mode().unwrap_or(0o644) & 0o7777);
            // chmodat follows links, but this name was just made and is none.
            rustix::fs::chmodat(&place.parent, &place.name, mode, AtFlags::empty())
                .at("set the mode of", &place.path)?;
        }
        set_times(&place.parent, &place.name, mtime(entry)).at("set the time of", &place.path)
    }

    fn set_root_attributes<R: Read>(&self, entry: &tar::Entry<'_, R>) -> Result<(), ImageError> {
        let root = self.open_dir(Path::new("")).at("open", Path::new("/"))?;
        if self.keep_owners {
            let (uid, gid) = owner(entry);
            rustix::fs::fchown(&root, uid, gid).at("set the owner of", Path::new("/"))?;
        }
        let mode = Mode::from_raw_mode(entry.header().mode().unwrap_or(0o755) & 0o7777);
        rustix::fs::fchmod(&root, mode).at("set the mode of", Path::new("/"))
    }
}

fn owner<R: Read>(entry: &tar::Entry<'_, R>) -> (Option<Uid>, Option<Gid>) {
    let id = |value: io::Result<u64>| {
        value.ok().and_then(|id| u32::try_from(id).ok()).filter(|id| *id != u32::MAX)
    };
    let uid = id(entry.header().uid()).unwrap_or(0);
    let gid = id(entry.header().gid()).unwrap_or(0);
    (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
}

fn mtime<R: Read>(entry: &tar::Entry<'_, R>) -> i64 {
    entry.header().mtime().ok().and_then(|seconds| i64::try_from(seconds).ok()).unwrap_or(0)
}

fn set_times(parent: impl AsFd, name: &OsStr, seconds: i64) -> rustix::io::Result<()> {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)
}

/// Keeps file capabilities and user attributes; others mean nothing in a guest or could mislead the host.
fn set_xattrs<R: Read>(entry: &mut tar::Entry<'_, R>, fd: impl AsFd, path: &Path) -> Result<(), ImageError> {
    const PREFIX: &[u8] = b"SCHILY.xattr.";
    let Ok(Some(extensions)) = entry.pax_extensions() else { return Ok(()) };
    for extension in extensions.flatten() {
        let Some(name) = extension.key_bytes().strip_prefix(PREFIX) else { continue };
        if name != b"security.capability" && !name.starts_with(b"user.") {
            continue;
        }
        match rustix::fs::fsetxattr(&fd, name, extension.value_bytes(), XattrFlags::empty()) {
            // The file system under the store, or a process without privileges, may not be able to hold it.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(errno) => return Err(ImageError::io("set an attribute of", path, errno.into())),
        }
    }
    Ok(())
}

/// The path below the root: no leading slash, no `.`; `..` is refused rather than resolved.
fn clean_path(raw: &[u8]) -> Result<PathBuf, ImageError> {
    let refuse =
        |reason| ImageError::HostileLayer { path: String::from_utf8_lossy(raw).into_owned(), reason };
    let mut path = PathBuf::new();
    for component in Path::new(OsStr::from_bytes(raw)).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir => return Err(refuse("it leaves the image with ..")),
            Component::Prefix(_) => return Err(refuse("it has a prefix")),
        }
    }
    if raw.contains(&0) {
        return Err(refuse("it contains a NUL byte"));
    }
    if path.components().count() > DEPTH_MAX {
        return Err(refuse("it is too deep"));
    }
    Ok(path)
}

/// Removes a file or a whole directory; nothing there is fine.
fn remove_tree(parent: impl AsFd, name: &OsStr, depth: usize) -> rustix::io::Result<()> {
    let stat = match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return rustix::fs::unlinkat(&parent, name, AtFlags::empty());
    }
    if depth > REMOVE_DEPTH_MAX {
        return Err(Errno::LOOP);
    }
    let dir = open_child(&parent, name)?;
    for child in children(&dir)? {
        remove_tree(&dir, &child, depth + 1)?;
    }
    rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR)
}

/// Removes what lower layers left in a directory and spares what this layer has written.
fn remove_lower(dir: impl AsFd, path: &Path, layer: &Layer, depth: usize) -> rustix::io::Result<()> {
    if depth > REMOVE_DEPTH_MAX {
        return Err(Errno::LOOP);
    }
    for name in children(&dir)? {
        let child = path.join(&name);
        let first_below = layer.written.range(child.clone()..).next();
        if first_below.is_none_or(|written| !written.starts_with(&child)) {
            remove_tree(&dir, &name, depth)?;
        } else if let Ok(child_dir) = open_child(&dir, &name) {
            remove_lower(&child_dir, &child, layer, depth + 1)?;
        }
    }
    Ok(())
}

fn open_child(parent: impl AsFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

fn children(dir: impl AsFd) -> rustix::io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_bytes().to_owned();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(&name).to_owned());
        }
    }
    Ok(names)
}

/// Recognises gzip and zstd by their first bytes.
fn decompress<'a>(layer: impl Read + 'a) -> Result<Box<dyn Read + 'a>, ImageError> {
    let mut layer = BufReader::new(layer);
    let mut magic = Vec::new();
    (&mut layer).take(4).read_to_end(&mut magic).at("read", Path::new("layer"))?;
    let whole = io::Cursor::new(magic.clone()).chain(layer);
    // Some tools (umoci 0.4) leave out the padding after the last entry and the end marker, which other readers
    // bear. That nothing else is missing is what the layer's digest says.
    let end = || io::repeat(0).take(TAR_END_BYTES);
    Ok(match magic.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(whole).chain(end())),
        [0x28, 0xb5, 0x2f, 0xfd] => {
            Box::new(zstd::Decoder::new(whole).at("unpack", Path::new("layer"))?.chain(end()))
        }
        _ => Box::new(whole.chain(end())),
    })
}

/// The padding of the last entry (below one block of 512 bytes) and the end marker (two blocks).
const TAR_END_BYTES: u64 = 3 * 512;

/// Delivers at most `window` bytes, which the owner of the other handle opens and closes.
struct WindowReader<R> {
    inner: R,
    window: Rc<Cell<u64>>,
}

impl<R: Read> Read for WindowReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let window = self.window.get();
        if window == 0 {
            return Err(io::Error::other("the name or the extended header of an entry is too long"));
        }
        let length = buffer.len().min(usize::try_from(window).unwrap_or(usize::MAX));
        let length = self.inner.read(&mut buffer[..length])?;
        self.window.set(window - length as u64);
        Ok(length)
    }
}

#[cfg(test)]
#[path = "layer_tests.rs"]
mod tests;
