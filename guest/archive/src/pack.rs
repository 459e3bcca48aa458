//! From files to a stream.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use nix::libc;
use tar::{Builder, EntryType, Header};

use crate::context;

/// What the root of a file system is called in a stream.
const ROOT_NAME: &str = "root";

/// Writes a file, or a folder with all that is below it. `path` itself may be a link; links below it are packed as
/// links. What is neither file, folder nor link, or cannot be read, is left out, and `warn` is told.
///
/// # Errors
/// When `path` cannot be read, or nothing can be written.
pub fn pack(path: &Path, out: impl Write, warn: &mut dyn FnMut(&str)) -> io::Result<()> {
    let named = context(path.display());
    let root = fs::canonicalize(path).map_err(named)?;
    let name = path.file_name().or_else(|| root.file_name()).map_or_else(|| ROOT_NAME.into(), OsString::from);
    let mut builder = Builder::new(out);
    if root.is_file() {
        // One that cannot be read is an error here: nothing else is asked for.
        drop(File::open(&root).map_err(context(path.display()))?);
    }
    let mut waiting = vec![(root, PathBuf::from(name))];
    while let Some((source, name)) = waiting.pop() {
        let meta = match fs::symlink_metadata(&source) {
            Ok(meta) => meta,
            Err(error) => {
                warn(&format!("left out: {source:?}: {error}"));
                continue;
            }
        };
        if meta.is_dir() {
            builder.append_data(&mut header(&meta, EntryType::Directory, 0), &name, io::empty())?;
            match children(&source) {
                Ok(names) => waiting.extend(names.into_iter().map(|n| (source.join(&n), name.join(&n)))),
                Err(error) => warn(&format!("left out: what is in {source:?}: {error}")),
            }
        } else if meta.is_symlink() {
            match fs::read_link(&source) {
                Ok(to) => builder.append_link(&mut header(&meta, EntryType::Symlink, 0), &name, to)?,
                Err(error) => warn(&format!("left out: {source:?}: {error}")),
            }
        } else if meta.is_file() {
            match open(&source) {
                Ok((file, meta)) => {
                    let size = meta.len();
                    let body = Exactly { file, left: size };
                    builder.append_data(&mut header(&meta, EntryType::Regular, size), &name, body)?;
                }
                Err(error) => warn(&format!("left out: {source:?}: {error}")),
            }
        } else {
            warn(&format!("left out: {source:?} is neither file, folder nor link"));
        }
    }
    builder.into_inner()?.flush()
}

/// Names in a folder, the last first.
fn children(folder: &Path) -> io::Result<Vec<OsString>> {
    let mut names =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names)
}

/// A file that is none any more by the time it is opened neither blocks nor is followed.
fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    let meta = file.metadata()?;
    if meta.is_file() { Ok((file, meta)) } else { Err(io::Error::other("is no file any more")) }
}

fn header(meta: &Metadata, kind: EntryType, size: u64) -> Header {
    let modified = meta.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(meta.permissions().mode() & 0o777);
    header.set_size(size);
    header.set_mtime(modified.map_or(0, |since| since.as_secs()));
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// As many bytes as were announced, whatever becomes of the file meanwhile: zeroes take the place of what is gone.
struct Exactly {
    file: File,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let buffer = &mut buffer[..length];
        let got = match self.file.read(buffer)? {
            0 => {
                buffer.fill(0);
                length
            }
            got => got,
        };
        self.left -= got as u64;
        Ok(got)
    }
}
