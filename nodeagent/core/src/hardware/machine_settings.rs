//! Files of sysfs and procfs by which the kernel is told something that is the machine's and no function's: whether it forwards packets,
//! which function is to have its driver.

use super::{MemoryTree, Tree, TreeError};

/// The file by which drivers of the bus are asked to take a function.
pub const DRIVERS_PROBE: &str = "/sys/bus/pci/drivers_probe";

/// Files that are read, and some of them told.
pub trait MachineSettings: Tree {
    /// Writes a text into a file that is there, in one call: none is made.
    ///
    /// # Errors
    /// When it is not there, this process may not write it, or what the kernel says.
    fn set(&mut self, path: &str, text: &str) -> Result<(), TreeError>;

    /// Whether it is there and this process may write it, as far as its permissions say.
    fn may_set(&self, path: &str) -> bool;
}

impl MachineSettings for MemoryTree {
    fn set(&mut self, path: &str, text: &str) -> Result<(), TreeError> {
        // Whoever may not read it may not write it; a folder is no file.
        let _ = self.read(path)?;
        if self.is_read_only(path) {
            return Err(TreeError::Denied);
        }
        self.overwrite(path, text);
        Ok(())
    }

    fn may_set(&self, path: &str) -> bool {
        self.read(path).is_ok() && !self.is_read_only(path)
    }
}

/// What all settings do. `path` is a file that takes words of seven letters; afterwards it has another one.
///
/// # Panics
/// When they do something else.
pub fn check_machine_settings(settings: &mut dyn MachineSettings, path: &str) {
    let text = |settings: &dyn MachineSettings, path: &str| {
        settings.read(path).map(|bytes| String::from_utf8_lossy(&bytes).trim_end().to_owned())
    };
    for word in ["another", "setting"] {
        assert!(settings.may_set(path));
        assert_eq!(settings.set(path, word), Ok(()));
        assert_eq!(text(settings, path).as_deref(), Ok(word));
    }
    let nothing = format!("{path}-none");
    assert!(!settings.may_set(&nothing));
    assert_eq!(settings.set(&nothing, "another"), Err(TreeError::NotFound));
    assert_eq!(text(settings, &nothing), Err(TreeError::NotFound), "no file is made");
    let (folder, _) = path.rsplit_once('/').expect("an absolute path");
    assert!(settings.set(folder, "another").is_err(), "a folder is no file");
    assert_eq!(text(settings, path).as_deref(), Ok("setting"), "nothing else is written");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_in_memory_takes_settings() {
        let mut tree = MemoryTree::new();
        tree.file("/proc/self/comm", "unknown\n");
        check_machine_settings(&mut tree, "/proc/self/comm");
        tree.symlink("/proc/thread", "self");
        check_machine_settings(&mut tree, "/proc/thread/comm");
    }

    #[test]
    fn what_may_not_be_written_keeps_what_it_has() {
        let mut tree = MemoryTree::new();
        tree.read_only("/proc/a", "1").denied("/proc/b");
        for path in ["/proc/a", "/proc/b"] {
            assert!(!tree.may_set(path));
            assert_eq!(tree.set(path, "0"), Err(TreeError::Denied));
        }
        assert_eq!(tree.read("/proc/a"), Ok(b"1".to_vec()));
    }
}
