//! Control groups of the agents of a test: who is killed leaves his own behind, for his next life.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where control groups are: version 2's, or a folder for each of version 1's.
const ROOT: &str = "/sys/fs/cgroup";

/// A parent for the groups of agents, which goes with this value. Their guests must be gone by then.
#[derive(Debug)]
pub(crate) struct Cgroups {
    /// As `--cgroup-parent` takes it.
    pub(crate) parent: String,
}

impl Cgroups {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { parent: format!("/bulkhead/test-{}-{number}", std::process::id()) }
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        let below = format!("{ROOT}{}", self.parent);
        let hierarchies = std::fs::read_dir(ROOT).into_iter().flatten().flatten();
        let of_each = hierarchies.map(|entry| format!("{}{}", entry.path().display(), self.parent));
        of_each.chain([below]).for_each(|folder| remove(Path::new(&folder)));
    }
}

/// Removes a group and those below it, if they have no processes; only folders can be removed there, and need be.
fn remove(group: &Path) {
    let below = std::fs::read_dir(group).into_iter().flatten().flatten();
    for entry in below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove(&entry.path());
    }
    let _ = std::fs::remove_dir(group);
}
