//! Log files that a container writes itself, printed and followed as `tail -F` does, in a process of the container's own.
//!
//! ```text
//!  pattern ─► expand ─► files, folders ─► inotify
//!                         │  read on from where each was read to; again from its beginning when it was cut, or when
//!                         ▼  another file has its name: the old one is read to its end before
//!                       output
//! ```
//! A round looks at all files once. It waits for the kernel's word that something changed, and reads no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// Most files at a time, the first by name.
const FILES_MAX: usize = 64;
/// Most folders, and most names in one, that are looked through.
const FOLDERS_MAX: usize = 256;
const NAMES_MAX: usize = 16 * 1024;
/// Bytes of one file in one round, so that one that grows without end holds up no other.
const ROUND_LENGTH: u64 = 1 << 20;
/// How far back the last lines of a file are looked for, in bytes.
const TAIL_LENGTH_MAX: u64 = 4 << 20;
const BUFFER_LENGTH: usize = 16 * 1024;

/// What is to be printed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// An absolute path; `*` and `?` stand for any text and any character of a name.
    pub(crate) pattern: &'a str,
    /// Go on with what comes, and with files that come.
    pub(crate) follow: bool,
    /// Only so many of the last lines of each file that is there at first.
    pub(crate) tail_lines: Option<u64>,
}

/// A file that is being read.
#[derive(Debug)]
struct Reading {
    file: File,
    /// Device and inode: another file may get its name.
    identity: (u64, u64),
    at: u64,
}

/// What a pattern stands for now.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    files: BTreeSet<PathBuf>,
    /// Those in which another one may come.
    folders: BTreeSet<PathBuf>,
}

/// Prints everything; with `follow` it never ends but by an error or by the end of its process.
///
/// # Errors
/// When nothing can be written any more, when no file is there and none is waited for, or when changes cannot be waited for.
pub(crate) fn print(wanted: Wanted<'_>, out: impl Write) -> io::Result<()> {
    let mut tail = Tail::new(wanted, out);
    if !wanted.follow {
        while tail.round(&expand(wanted.pattern))? {}
        return if tail.found_any { Ok(()) } else { Err(io::Error::other("no such file")) };
    }
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC)?;
    let mut watched = BTreeSet::new();
    loop {
        let found = expand(wanted.pattern);
        // What changes after a watch is there is told; what changed before is seen by another look.
        let is_new = watch(&inotify, &found, &mut watched);
        let moved = tail.round(&found)?;
        if !is_new && !moved {
            tail.out.flush()?;
            match inotify.read_events() {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// True when something is watched that was not. What cannot be watched has just gone, which its folder tells.
fn watch(inotify: &Inotify, found: &Found, watched: &mut BTreeSet<(PathBuf, u64)>) -> bool {
    let flags = AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_MODIFY
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_DELETE_SELF;
    let wanted: BTreeSet<(PathBuf, u64)> = found
        .files
        .iter()
        .chain(&found.folders)
        .filter_map(|path| Some((path.clone(), fs::metadata(path).ok()?.ino())))
        .collect();
    let mut is_new = false;
    for one in wanted.difference(watched) {
        is_new |= inotify.add_watch(&one.0, flags).is_ok();
    }
    *watched = wanted;
    is_new
}

struct Tail<'a, W> {
    wanted: Wanted<'a>,
    out: W,
    readings: BTreeMap<PathBuf, Reading>,
    /// Whose output was printed last.
    last: Option<PathBuf>,
    at_line_start: bool,
    is_first: bool,
    found_any: bool,
}

impl<'a, W: Write> Tail<'a, W> {
    fn new(wanted: Wanted<'a>, out: W) -> Self {
        let readings = BTreeMap::new();
        Self { wanted, out, readings, last: None, at_line_start: true, is_first: true, found_any: false }
    }

    /// Prints what is new; false when nothing was.
    fn round(&mut self, found: &Found) -> io::Result<bool> {
        let mut moved = false;
        let gone: Vec<PathBuf> =
            self.readings.keys().filter(|path| !found.files.contains(*path)).cloned().collect();
        for path in gone {
            moved |= self.finish(&path)?;
        }
        for path in &found.files {
            let Some((file, identity, length)) = open(path) else { continue };
            self.found_any = true;
            match self.readings.get_mut(path) {
                Some(reading) if reading.identity == identity => {
                    if length < reading.at {
                        reading.at = 0;
                    }
                }
                Some(_) => {
                    moved |= self.finish(path)?;
                    self.readings.insert(path.clone(), Reading { file, identity, at: 0 });
                }
                None => {
                    let at = match self.wanted.tail_lines.filter(|_| self.is_first) {
                        Some(lines) => tail_offset(&file, length, lines)?,
                        None => 0,
                    };
                    self.readings.insert(path.clone(), Reading { file, identity, at });
                }
            }
            moved |= self.read_on(path)? > 0;
        }
        self.is_first = false;
        Ok(moved)
    }

    /// A file that is not there under its name any more: all that is left of it.
    fn finish(&mut self, path: &Path) -> io::Result<bool> {
        let mut moved = false;
        while self.read_on(path)? > 0 {
            moved = true;
        }
        self.readings.remove(path);
        Ok(moved)
    }

    /// A bounded part of what is there; how much that was.
    fn read_on(&mut self, path: &Path) -> io::Result<u64> {
        let mut total = 0;
        let mut buffer = [0; BUFFER_LENGTH];
        while total < ROUND_LENGTH {
            let Some(reading) = self.readings.get_mut(path) else { break };
            reading.file.seek(SeekFrom::Start(reading.at))?;
            // One that cannot be read any more has no more.
            let Ok(length @ 1..) = reading.file.read(&mut buffer) else { break };
            reading.at += length as u64;
            total += length as u64;
            self.name(path)?;
            self.out.write_all(&buffer[..length])?;
            self.at_line_start = buffer[length - 1] == b'\n';
        }
        Ok(total)
    }

    /// Says whose the next output is, where it may be of several.
    fn name(&mut self, path: &Path) -> io::Result<()> {
        if !has_wildcard(self.wanted.pattern) || self.last.as_deref() == Some(path) {
            return Ok(());
        }
        let line_end = if self.at_line_start { "" } else { "\n" };
        self.last = Some(path.to_owned());
        writeln!(self.out, "{line_end}==> {} <==", path.display())
    }
}

/// A file that has contents: pipes, devices and folders have none that could be read again.
fn open(path: &Path) -> Option<(File, (u64, u64), u64)> {
    let flags = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    let data = file.metadata().ok().filter(fs::Metadata::is_file)?;
    Some((file, (data.dev(), data.ino()), data.len()))
}

/// Where the last lines begin; a last line without its end counts as one.
fn tail_offset(mut file: &File, length: u64, lines: u64) -> io::Result<u64> {
    let from = length.saturating_sub(TAIL_LENGTH_MAX);
    file.seek(SeekFrom::Start(from))?;
    let mut text = Vec::new();
    file.take(length - from).read_to_end(&mut text)?;
    let body = text.strip_suffix(b"\n").unwrap_or(&text);
    let mut left = lines;
    if left == 0 {
        return Ok(from + text.len() as u64);
    }
    for (at, byte) in body.iter().enumerate().rev() {
        if *byte == b'\n' {
            left -= 1;
            if left == 0 {
                return Ok(from + at as u64 + 1);
            }
        }
    }
    Ok(from)
}

fn has_wildcard(text: &str) -> bool {
    text.contains(['*', '?'])
}

/// What a pattern stands for. Names that begin with a dot are meant only where the pattern's do, as in a shell.
fn expand(pattern: &str) -> Found {
    let parts: Vec<&str> = Path::new(pattern)
        .components()
        .filter_map(|part| if let Component::Normal(name) = part { name.to_str() } else { None })
        .collect();
    let mut found = Found::default();
    let mut paths = vec![PathBuf::from("/")];
    for (depth, part) in parts.iter().enumerate() {
        let mut next = Vec::new();
        for folder in paths.into_iter().take(FOLDERS_MAX) {
            if !folder.is_dir() {
                continue;
            }
            if has_wildcard(part) {
                next.extend(
                    names_in(&folder).filter(|name| matches(part, name)).map(|name| folder.join(name)),
                );
            } else if folder.join(part).symlink_metadata().is_ok() {
                next.push(folder.join(part));
            }
            // Where all is there already, only the folder with the files can bring another.
            let is_last = depth + 1 == parts.len();
            if is_last || has_wildcard(part) || next.is_empty() {
                found.folders.insert(folder);
            }
        }
        next.sort();
        paths = next;
    }
    found.files = paths.into_iter().filter(|path| path.is_file()).take(FILES_MAX).collect();
    found
}

fn names_in(folder: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().take(NAMES_MAX);
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

/// Whether a name is one that a pattern means.
fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where the last star stands, and what it stands for ends.
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((at, end)) => {
                    star = Some((at, end + 1));
                    (p, n) = (at + 1, end + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
#[path = "tail_tests.rs"]
mod tests;
