//! The few operations that control groups need of their file system.

use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

/// Groups are folders, their settings files in them.
pub(crate) trait GroupFiles: fmt::Debug + Send + Sync {
    /// The content of a file.
    fn read(&self, path: &Path) -> io::Result<String>;
    /// Writes to a file that is there; the kernel may refuse the value.
    fn write(&self, path: &Path, value: &str) -> io::Result<()>;
    /// Makes a group; one that is there is fine.
    fn make(&self, group: &Path) -> io::Result<()>;
    /// Removes a group without processes and without groups below it; one that is not there is fine.
    fn remove(&self, group: &Path) -> io::Result<()>;
    /// Names of the groups directly below one.
    fn below(&self, group: &Path) -> io::Result<Vec<String>>;
}

/// The kernel's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KernelFiles;

impl GroupFiles for KernelFiles {
    fn read(&self, path: &Path) -> io::Result<String> {
        fs::read_to_string(path)
    }

    fn write(&self, path: &Path, value: &str) -> io::Result<()> {
        // One call: the kernel takes each as a whole value.
        fs::OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
    }

    fn make(&self, group: &Path) -> io::Result<()> {
        match fs::create_dir(group) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    fn remove(&self, group: &Path) -> io::Result<()> {
        match fs::remove_dir(group) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn below(&self, group: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(group)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                names.extend(entry.file_name().into_string().ok());
            }
        }
        names.sort();
        Ok(names)
    }
}
