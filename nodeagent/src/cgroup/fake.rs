//! Control groups in a temporary folder that behave as the kernel's do, as far as agents can tell.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bulkhead_nodeagent_core::{Controller, Version};

use super::files::{GroupFiles, KernelFiles};

/// A machine with one hierarchy of version 2, or with one of version 1 for each controller.
#[derive(Debug)]
pub(crate) struct FakeFiles {
    root: PathBuf,
    version: Version,
}

impl FakeFiles {
    /// Its hierarchies are below `root`.
    pub(crate) fn new(root: &Path, version: Version) -> Self {
        let fake = Self { root: root.to_owned(), version };
        for mount in fake.mounts() {
            fs::create_dir_all(&mount).expect("a folder");
            fake.fill(&mount).expect("filled");
        }
        fake
    }

    fn mounts(&self) -> Vec<PathBuf> {
        match self.version {
            Version::V2 => vec![self.root.join("unified")],
            Version::V1 => Controller::ALL.map(|one| self.root.join(one.name())).to_vec(),
        }
    }

    /// What `/proc/self/mountinfo` says.
    fn mountinfo(&self) -> String {
        let line = |mount: PathBuf| match self.version {
            Version::V2 => format!("30 23 0:26 / {} rw - cgroup2 cgroup2 rw\n", mount.display()),
            Version::V1 => {
                let name = mount.file_name().unwrap_or_default().to_string_lossy().into_owned();
                format!("30 23 0:26 / {} rw - cgroup cgroup rw,{name}\n", mount.display())
            }
        };
        self.mounts().into_iter().map(line).collect()
    }

    /// The files of a group: those of the controllers that it has.
    fn fill(&self, group: &Path) -> io::Result<()> {
        let mut files = vec![("cgroup.procs", "")];
        let handed = |name: &str| {
            let parent = group.parent().unwrap_or(group);
            let is_root = self.mounts().iter().any(|mount| mount == group);
            let text = fs::read_to_string(parent.join("cgroup.subtree_control")).unwrap_or_default();
            is_root || text.split_whitespace().any(|one| one == name)
        };
        match self.version {
            Version::V2 => {
                files.extend([("cgroup.subtree_control", ""), ("cgroup.controllers", "cpu memory pids\n")]);
                if handed("cpu") {
                    files.extend([("cpu.weight", "100\n"), ("cpu.max", "max 100000\n")]);
                }
                if handed("memory") {
                    files.extend([("memory.max", "max\n"), ("memory.events", "oom 0\noom_kill 0\n")]);
                    files.extend([("memory.swap.max", "max\n"), ("memory.oom.group", "0\n")]);
                }
                if handed("pids") {
                    files.push(("pids.max", "max\n"));
                }
            }
            Version::V1 if group.starts_with(self.root.join("cpu")) => {
                files.extend([("cpu.shares", "1024\n"), ("cpu.cfs_quota_us", "-1\n")]);
                files.push(("cpu.cfs_period_us", "100000\n"));
            }
            Version::V1 if group.starts_with(self.root.join("memory")) => {
                files.push(("memory.limit_in_bytes", "9223372036854771712\n"));
                files.push(("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n"));
            }
            Version::V1 => files.push(("pids.max", "max\n")),
        }
        files.into_iter().try_for_each(|(name, content)| fs::write(group.join(name), content))
    }
}

impl GroupFiles for FakeFiles {
    fn read(&self, path: &Path) -> io::Result<String> {
        if path == Path::new("/proc/self/mountinfo") { Ok(self.mountinfo()) } else { KernelFiles.read(path) }
    }

    fn write(&self, path: &Path, value: &str) -> io::Result<()> {
        let name = path.file_name().unwrap_or_default();
        if !path.exists() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let numbers = |text: &str| text.split(' ').all(|one| one.parse::<u64>().is_ok());
        let value = match name.to_str().unwrap_or_default() {
            "cgroup.subtree_control" => value.replace('+', ""),
            _ if numbers(value) => format!("{value}\n"),
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        fs::write(path, value)
    }

    fn make(&self, group: &Path) -> io::Result<()> {
        if group.is_dir() {
            return Ok(());
        }
        fs::create_dir(group)?;
        self.fill(group)
    }

    fn remove(&self, group: &Path) -> io::Result<()> {
        if !group.is_dir() {
            return Ok(());
        }
        let has_processes = !fs::read_to_string(group.join("cgroup.procs"))?.is_empty();
        if has_processes || !self.below(group)?.is_empty() {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        fs::remove_dir_all(group)
    }

    fn below(&self, group: &Path) -> io::Result<Vec<String>> {
        KernelFiles.below(group)
    }
}
