//! From a stream to files.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::symlinkat;
use tar::{Archive, Entry, EntryType};

use crate::context;

/// Longest name in a stream, in bytes.
const NAME_LENGTH_MAX: u64 = 16 * 1024;

/// What becomes of links in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// They are made as they are; none is ever followed here.
    Make,
    /// They are left out, and the caller is told: a link of somebody who is not trusted may lead anywhere.
    LeaveOut,
}

/// Reads what [`crate::pack`] wrote: into `target`, if that is a folder, and as `target` otherwise. Files that are there
/// are written over; what is neither file, folder nor link is left out, and `warn` is told.
///
/// # Errors
/// When the stream is broken or holds a path that leads out of the target, or a file cannot be written.
pub fn unpack(input: impl Read, target: &Path, links: Links, warn: &mut dyn FnMut(&str)) -> io::Result<()> {
    let mut place = Place::find(target)?;
    let mut archive = Archive::new(input);
    let (mut long_name, mut long_link) = (None, None);
    // Raw: names longer than a header's are read here, within a bound.
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        match entry.header().entry_type() {
            EntryType::GNULongName => long_name = Some(text(&mut entry)?),
            EntryType::GNULongLink => long_link = Some(text(&mut entry)?),
            kind => {
                let name = match long_name.take() {
                    Some(name) => name,
                    None => entry.path_bytes().into_owned(),
                };
                let link = match long_link.take() {
                    Some(link) => Some(link),
                    None => entry.link_name_bytes().map(std::borrow::Cow::into_owned),
                };
                let path = place.path(PathBuf::from(OsString::from_vec(name)))?;
                let link = link.map(OsString::from_vec);
                place
                    .put(&mut entry, kind, &path, link.as_deref(), links, warn)
                    .map_err(context(format_args!("{path:?}")))?;
            }
        }
    }
    if place.root.is_none() { Err(io::Error::other("nothing came")) } else { Ok(()) }
}

/// A name that did not fit in a header.
fn text(entry: &mut Entry<'_, impl Read>) -> io::Result<Vec<u8>> {
    let mut name = Vec::new();
    let length = entry.take(NAME_LENGTH_MAX + 1).read_to_end(&mut name)?;
    if length as u64 > NAME_LENGTH_MAX {
        return Err(io::Error::other(format!("a name is longer than {NAME_LENGTH_MAX} bytes")));
    }
    while name.last() == Some(&0) {
        name.pop();
    }
    Ok(name)
}

/// Where things go.
struct Place {
    /// Everything is made beneath it.
    base: OwnedFd,
    /// What the root of the stream is called here, where that is not its own name.
    renamed: Option<OsString>,
    /// What it is called in the stream; known from the first entry on.
    root: Option<OsString>,
}

fn open_base(path: &Path) -> io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    Ok(nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?)
}

impl Place {
    fn find(target: &Path) -> io::Result<Self> {
        if target.is_dir() {
            let base = open_base(target).map_err(context(target.display()))?;
            return Ok(Self { base, renamed: None, root: None });
        }
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(io::Error::other(format!("{}: nothing can be put there", target.display())));
        };
        let base = open_base(parent).map_err(context(parent.display()))?;
        Ok(Self { base, renamed: Some(name.to_owned()), root: None })
    }

    /// An entry's path beneath the base.
    fn path(&mut self, name: PathBuf) -> io::Result<PathBuf> {
        let leads_out =
            || io::Error::new(io::ErrorKind::InvalidData, format!("the path {name:?} is not acceptable"));
        let mut parts = Vec::new();
        for part in name.components() {
            match part {
                Component::Normal(part) => parts.push(part),
                _ => return Err(leads_out()),
            }
        }
        let (first, rest) = parts.split_first().ok_or_else(leads_out)?;
        if self.root.get_or_insert_with(|| (*first).to_owned()).as_os_str() != *first {
            return Err(leads_out());
        }
        let first = self.renamed.as_deref().unwrap_or(first);
        Ok([first].iter().chain(rest).collect())
    }

    fn put(
        &self,
        entry: &mut Entry<'_, impl Read>,
        kind: EntryType,
        path: &Path,
        link: Option<&OsStr>,
        links: Links,
        warn: &mut dyn FnMut(&str),
    ) -> io::Result<()> {
        let name = path.file_name().expect("plain parts only");
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.map(|parent| beneath(&self.base, parent)).transpose()?;
        let folder = parent.as_ref().unwrap_or(&self.base);
        let mode = Mode::from_bits_truncate(entry.header().mode()? & 0o777);
        match (kind, link) {
            (EntryType::Regular | EntryType::Continuous, _) => write(entry, folder, name, mode),
            (EntryType::Directory, _) => match mkdirat(folder, name, mode | Mode::S_IRWXU) {
                Err(Errno::EEXIST) => beneath(folder, Path::new(name)).map(drop),
                made => Ok(made?),
            },
            (EntryType::Symlink, Some(to)) if links == Links::Make => match symlinkat(to, folder, name) {
                Err(Errno::EEXIST) => {
                    warn(&format!("left out: the link {path:?}: something is there already"));
                    Ok(())
                }
                made => Ok(made?),
            },
            (EntryType::Symlink | EntryType::Link, _) => {
                warn(&format!("left out: {path:?} is a link"));
                Ok(())
            }
            _ => {
                warn(&format!("left out: {path:?} is neither file nor folder"));
                Ok(())
            }
        }
    }
}

/// A folder, by no link and no way out.
fn beneath(base: &impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    match openat2(base, path, how) {
        Err(Errno::ELOOP) => Err(io::Error::other("there is a link on the way, which is not followed")),
        opened => Ok(opened?),
    }
}

fn write(entry: &mut Entry<'_, impl Read>, folder: &impl AsFd, name: &OsStr, mode: Mode) -> io::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let mut file = match openat(folder, name, flags, mode) {
        Err(Errno::ELOOP) => return Err(io::Error::other("a link is there, which is not followed")),
        opened => File::from(opened?),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("something else is there already"));
    }
    file.set_len(0)?;
    let size = entry.size();
    let copied = io::copy(entry, &mut file)?;
    if copied < size {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the stream ended in the middle"));
    }
    Ok(())
}
