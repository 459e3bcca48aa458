//! The machine's own files: the tree that the real hardware is read through.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use bulkhead_nodeagent_core::hardware::{Bdf, ENTRIES_MAX, FILE_BYTES_MAX, MachineSettings, Tree, TreeError};
use bulkhead_nodeagent_core::passthrough::Machine;

use crate::vfio;

/// Files below a root: `/`, or a copy of another machine's files.
#[derive(Clone, Debug)]
pub struct MachineTree {
    root: PathBuf,
}

impl MachineTree {
    /// The files below `root`. Links that begin with `/` lead out of a copy; sysfs has none.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder below which the files are.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}

/// What an error of the system is to who looks at files.
pub(crate) fn told(error: io::Error) -> TreeError {
    match error.kind() {
        io::ErrorKind::NotFound => TreeError::NotFound,
        io::ErrorKind::PermissionDenied => TreeError::Denied,
        _ => TreeError::Other(error.to_string()),
    }
}

impl Tree for MachineTree {
    fn read(&self, path: &str) -> Result<Vec<u8>, TreeError> {
        let file = File::open(self.path(path)).map_err(told)?;
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX as u64).read_to_end(&mut bytes).map_err(told)?;
        Ok(bytes)
    }

    fn list(&self, path: &str) -> Result<Vec<String>, TreeError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.path(path)).map_err(told)?.take(ENTRIES_MAX) {
            // A name that is no text is nothing that the kernel made.
            names.extend(entry.map_err(told)?.file_name().into_string().ok());
        }
        names.sort();
        Ok(names)
    }

    fn link(&self, path: &str) -> Result<String, TreeError> {
        let path = self.path(path);
        match fs::read_link(&path) {
            Ok(target) => Ok(target.to_string_lossy().into_owned()),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                Err(TreeError::Other("is no link".to_owned()))
            }
            Err(error) => Err(told(error)),
        }
    }
}

impl MachineSettings for MachineTree {
    fn set(&mut self, path: &str, text: &str) -> Result<(), TreeError> {
        self.write(path, text)
    }

    fn may_set(&self, path: &str) -> bool {
        rustix::fs::access(self.path(path), rustix::fs::Access::WRITE_OK).is_ok()
    }
}

impl Machine for MachineTree {
    fn write(&mut self, path: &str, text: &str) -> Result<(), TreeError> {
        // The file is there, or nothing is written: sysfs makes none, and a copy of one shall not grow.
        let mut file = OpenOptions::new().write(true).open(self.path(path)).map_err(told)?;
        // In one call: the kernel takes each as a whole command.
        let written = file.write(text.as_bytes()).map_err(told)?;
        if written == text.len() {
            Ok(())
        } else {
            Err(TreeError::Other(format!("took {written} bytes only")))
        }
    }

    fn try_group(&mut self, group: u32) -> Result<(), TreeError> {
        let path = self.path(&format!("/dev/vfio/{group}"));
        OpenOptions::new().read(true).write(true).open(path).map(drop).map_err(told)
    }

    fn vfio_files(&self) -> Result<BTreeMap<String, u32>, TreeError> {
        vfio::open_files(&self.path("/proc")).map_err(told)
    }

    fn hot_reset(&mut self, address: Bdf, groups: &BTreeSet<u32>) -> Result<(), TreeError> {
        // A copy of another machine's files has no kernel.
        if self.root() != Path::new("/") {
            return Err(TreeError::NotFound);
        }
        vfio::hot_reset(address, groups).map_err(told)
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_nodeagent_core::hardware::{
        boot_id, check_conformance, check_machine_settings, conformance_tree, discover, has_kvm_file,
        iommu_group_of, network_namespace, total_memory_bytes,
    };

    use super::*;

    #[test]
    fn real_files_conform_as_those_in_memory_do() {
        let dir = tempfile::tempdir().expect("temporary directory");
        for (path, content) in conformance_tree().contents() {
            let path = dir.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().expect("below the root")).expect("a folder");
            match content {
                Ok(bytes) => fs::write(&path, bytes).expect("a file"),
                Err(target) => std::os::unix::fs::symlink(target, &path).expect("a link"),
            }
        }
        check_conformance(&MachineTree::new(dir.path()));
    }

    #[test]
    fn real_files_and_this_kernel_take_settings_as_those_in_memory_do() {
        let dir = tempfile::tempdir().expect("temporary directory");
        fs::create_dir(dir.path().join("folder")).expect("a folder");
        fs::write(dir.path().join("folder/word"), "unknown\n").expect("a file");
        check_machine_settings(&mut MachineTree::new(dir.path()), "/folder/word");
        // The name of the thread that runs this, which may always be set.
        check_machine_settings(&mut MachineTree::new("/"), "/proc/thread-self/comm");
    }

    #[test]
    fn this_machine_says_of_itself_what_it_is() {
        let tree = MachineTree::new("/");
        assert_eq!(boot_id(&tree).len(), 36);
        assert!(total_memory_bytes(&tree) > 0);
        assert_eq!(has_kvm_file(&tree), Path::new("/dev/kvm").exists());
        assert!(network_namespace(&tree).is_some_and(|name| name.starts_with("net:[")));
        let nowhere = "0000:ff:1f.7".parse().expect("an address");
        assert_eq!(iommu_group_of(&tree, nowhere), Err(TreeError::NotFound));
        for function in discover(&tree).functions.values() {
            assert_eq!(iommu_group_of(&tree, function.address).ok(), function.iommu_group, "{function:?}");
        }
    }

    #[test]
    fn this_machine_is_read_without_a_mistake() {
        let found = discover(&MachineTree::new("/"));
        assert_eq!(found.problems, [], "as its user may");
        for (address, function) in &found.functions {
            assert_eq!(*address, function.address);
            assert!(function.vendor != 0 && function.root.starts_with("pci"), "{function:?}");
        }
    }
}
