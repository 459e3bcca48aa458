//! The files that a machine shows about itself, and a tree of such files in memory.

use std::collections::{BTreeMap, BTreeSet};

/// Most bytes that are read of one file: a whole configuration space (4096) and every text of sysfs fits.
pub const FILE_BYTES_MAX: usize = 64 << 10;
/// Most names of one folder that are looked at.
pub const ENTRIES_MAX: usize = 65_536;
/// Links that are followed on one path, at most: as many as Linux does.
const LINKS_MAX: usize = 40;

/// Why something of a tree could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// It is not there.
    #[error("is not there")]
    NotFound,
    /// This process may not read it.
    #[error("may not be read by this user")]
    Denied,
    /// Anything else, in the words of the system.
    #[error("{0}")]
    Other(String),
}

impl From<TreeError> for std::io::Error {
    fn from(error: TreeError) -> Self {
        let kind = match error {
            TreeError::NotFound => std::io::ErrorKind::NotFound,
            TreeError::Denied => std::io::ErrorKind::PermissionDenied,
            TreeError::Other(_) => std::io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// Files below one root, read only. Paths begin with `/` and have no `..`.
pub trait Tree {
    /// The first [`FILE_BYTES_MAX`] bytes of a file; links are followed.
    ///
    /// # Errors
    /// When it is not there, is no file, or cannot be read.
    fn read(&self, path: &str) -> Result<Vec<u8>, TreeError>;

    /// The names in a folder, in order, [`ENTRIES_MAX`] at most; links are followed.
    ///
    /// # Errors
    /// When it is not there, is no folder, or cannot be read.
    fn list(&self, path: &str) -> Result<Vec<String>, TreeError>;

    /// What a link points at, as it is written there.
    ///
    /// # Errors
    /// When it is not there, or is no link.
    fn link(&self, path: &str) -> Result<String, TreeError>;
}

impl<T: Tree + ?Sized> Tree for Box<T> {
    fn read(&self, path: &str) -> Result<Vec<u8>, TreeError> {
        (**self).read(path)
    }

    fn list(&self, path: &str) -> Result<Vec<String>, TreeError> {
        (**self).list(path)
    }

    fn link(&self, path: &str) -> Result<String, TreeError> {
        (**self).link(path)
    }
}

/// What a path of a [`MemoryTree`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    File(Vec<u8>),
    Denied,
    Link(String),
}

/// A tree in memory. Folders are there because something is in them.
#[derive(Clone, Debug, Default)]
pub struct MemoryTree {
    entries: BTreeMap<String, Entry>,
    read_only: BTreeSet<String>,
}

impl MemoryTree {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a file there, in place of what was there.
    pub fn file(&mut self, path: &str, content: impl AsRef<[u8]>) -> &mut Self {
        self.read_only.remove(path);
        self.entries.insert(path.to_owned(), Entry::File(content.as_ref().to_vec()));
        self
    }

    /// Puts a file there that may not be written.
    pub fn read_only(&mut self, path: &str, content: impl AsRef<[u8]>) -> &mut Self {
        self.file(path, content).read_only.insert(path.to_owned());
        self
    }

    /// Puts a file there that may not be read.
    pub fn denied(&mut self, path: &str) -> &mut Self {
        self.entries.insert(path.to_owned(), Entry::Denied);
        self
    }

    /// Puts a symbolic link there.
    pub fn symlink(&mut self, path: &str, target: &str) -> &mut Self {
        self.entries.insert(path.to_owned(), Entry::Link(target.to_owned()));
        self
    }

    /// Takes away a path and everything below it.
    pub fn remove(&mut self, path: &str) -> &mut Self {
        let below = format!("{path}/");
        self.entries.retain(|entry, _| entry != path && !entry.starts_with(&below));
        self
    }

    /// Whether a file may not be written.
    pub(super) fn is_read_only(&self, path: &str) -> bool {
        self.resolve(path, true).is_ok_and(|path| self.read_only.contains(&path))
    }

    /// Gives a file that is there another content.
    pub(super) fn overwrite(&mut self, path: &str, text: &str) {
        if let Ok(path) = self.resolve(path, true) {
            self.entries.insert(path, Entry::File(text.as_bytes().to_vec()));
        }
    }

    /// The path without links in it, but maybe the last.
    fn resolve(&self, path: &str, follow_last: bool) -> Result<String, TreeError> {
        let mut rest: Vec<String> =
            path.split('/').rev().filter(|p| !p.is_empty()).map(str::to_owned).collect();
        let mut at: Vec<String> = Vec::new();
        let mut links = 0;
        while let Some(part) = rest.pop() {
            match part.as_str() {
                "." => continue,
                ".." => {
                    at.pop();
                    continue;
                }
                _ => at.push(part),
            }
            let here = format!("/{}", at.join("/"));
            if rest.is_empty() && !follow_last {
                return Ok(here);
            }
            if let Some(Entry::Link(target)) = self.entries.get(&here) {
                links += 1;
                if links > LINKS_MAX {
                    return Err(TreeError::Other("too many levels of symbolic links".to_owned()));
                }
                at.pop();
                if target.starts_with('/') {
                    at.clear();
                }
                rest.extend(target.split('/').rev().filter(|p| !p.is_empty()).map(str::to_owned));
            }
        }
        Ok(format!("/{}", at.join("/")))
    }
}

impl Tree for MemoryTree {
    fn read(&self, path: &str) -> Result<Vec<u8>, TreeError> {
        match self.entries.get(&self.resolve(path, true)?) {
            Some(Entry::File(bytes)) => Ok(bytes[..bytes.len().min(FILE_BYTES_MAX)].to_vec()),
            Some(Entry::Denied) => Err(TreeError::Denied),
            Some(Entry::Link(_)) | None if self.list(path).is_ok() => {
                Err(TreeError::Other("is a directory".to_owned()))
            }
            Some(Entry::Link(_)) | None => Err(TreeError::NotFound),
        }
    }

    fn list(&self, path: &str) -> Result<Vec<String>, TreeError> {
        let dir = self.resolve(path, true)?;
        if self.entries.contains_key(&dir) {
            return Err(TreeError::Other("not a directory".to_owned()));
        }
        let below = if dir == "/" { dir } else { format!("{dir}/") };
        let mut names: Vec<String> = self
            .entries
            .range(below.clone()..)
            .take_while(|(entry, _)| entry.starts_with(&below))
            .filter_map(|(entry, _)| Some(entry[below.len()..].split('/').next()?.to_owned()))
            .collect();
        names.sort();
        names.dedup();
        names.truncate(ENTRIES_MAX);
        if names.is_empty() { Err(TreeError::NotFound) } else { Ok(names) }
    }

    fn link(&self, path: &str) -> Result<String, TreeError> {
        match self.entries.get(&self.resolve(path, false)?) {
            Some(Entry::Link(target)) => Ok(target.clone()),
            Some(_) => Err(TreeError::Other("is no link".to_owned())),
            None if self.list(path).is_ok() => Err(TreeError::Other("is no link".to_owned())),
            None => Err(TreeError::NotFound),
        }
    }
}

/// What every tree must do; `tree` holds what [`conformance_tree`] describes.
///
/// # Panics
/// When it does something else.
pub fn check_conformance(tree: &dyn Tree) {
    assert_eq!(tree.read("/sys/a/value").as_deref(), Ok(&b"7\n"[..]));
    assert_eq!(tree.read("/sys/link/value").as_deref(), Ok(&b"7\n"[..]), "links to folders are followed");
    assert_eq!(tree.read("/sys/b/up").as_deref(), Ok(&b"7\n"[..]), "relative links are followed");
    assert_eq!(tree.read("/sys/none"), Err(TreeError::NotFound));
    assert!(tree.read("/sys/a/value/none").is_err(), "nothing is below a file");
    assert_eq!(tree.read("/sys/broken"), Err(TreeError::NotFound), "a link to nothing");
    assert!(matches!(tree.read("/sys/a"), Err(TreeError::Other(_))), "a folder is no file");
    assert!(tree.read("/sys/loop").is_err(), "a link to itself ends");
    let names = ["a", "b", "broken", "large", "link", "loop"].map(str::to_owned);
    assert_eq!(tree.list("/sys").as_deref(), Ok(&names[..]), "all names in order");
    assert_eq!(tree.list("/sys/link").as_deref(), Ok(&["value".to_owned()][..]));
    assert_eq!(tree.list("/sys/none"), Err(TreeError::NotFound));
    assert!(matches!(tree.list("/sys/a/value"), Err(TreeError::Other(_))), "a file is no folder");
    assert_eq!(tree.link("/sys/link").as_deref(), Ok("a"));
    assert_eq!(tree.link("/sys/b/up").as_deref(), Ok("../a/value"));
    assert_eq!(tree.link("/sys/none"), Err(TreeError::NotFound));
    assert!(matches!(tree.link("/sys/a"), Err(TreeError::Other(_))), "a folder is no link");
    assert_eq!(tree.read("/sys/large").map(|bytes| bytes.len()), Ok(FILE_BYTES_MAX), "files are cut");
}

/// The tree that [`check_conformance`] is about.
#[must_use]
pub fn conformance_tree() -> MemoryTree {
    let mut tree = MemoryTree::new();
    tree.file("/sys/a/value", "7\n")
        .symlink("/sys/link", "a")
        .symlink("/sys/b/up", "../a/value")
        .symlink("/sys/broken", "nowhere")
        .symlink("/sys/loop", "loop")
        .file("/sys/large", vec![b'x'; FILE_BYTES_MAX + 1]);
    tree
}

impl MemoryTree {
    /// Every file and link, for whoever makes the same tree elsewhere: a path with its content, or its target.
    pub fn contents(&self) -> impl Iterator<Item = (&str, Result<&[u8], &str>)> {
        self.entries.iter().filter_map(|(path, entry)| match entry {
            Entry::File(bytes) => Some((path.as_str(), Ok(bytes.as_slice()))),
            Entry::Link(target) => Some((path.as_str(), Err(target.as_str()))),
            Entry::Denied => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_in_memory_conforms() {
        check_conformance(&conformance_tree());
    }

    #[test]
    fn what_may_not_be_read_is_told_apart_and_what_goes_is_gone() {
        let mut tree = conformance_tree();
        tree.denied("/sys/a/secret");
        assert_eq!(tree.read("/sys/a/secret"), Err(TreeError::Denied));
        tree.remove("/sys/a");
        assert_eq!(tree.list("/sys/a"), Err(TreeError::NotFound));
        assert_eq!(tree.read("/sys/link/value"), Err(TreeError::NotFound));
    }
}
