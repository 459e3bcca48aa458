//! Control groups of the agents of a test: who is killed leaves his own behind, for his next life.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Where control groups are: version 2's, or a folder for each of version 1's.
const ROOT: &str = "/sys/fs/cgroup";

/// How long killed guests may take to be reaped.
const EMPTY_DEADLINE: Duration = Duration::from_secs(20);
/// How often it is looked: version 1 tells nobody.
const EMPTY_LOOK: Duration = Duration::from_millis(10);

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
        let until = Instant::now() + EMPTY_DEADLINE;
        of_each.chain([below]).for_each(|folder| remove(Path::new(&folder), until));
    }
}

/// Removes a group and those below it; only folders can be removed there, and need be. A guest that was just killed is in its groups
/// until it is reaped: that is waited for. Whatever else is in them stays, with its groups.
fn remove(group: &Path, until: Instant) {
    let below = std::fs::read_dir(group).into_iter().flatten().flatten();
    for entry in below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove(&entry.path(), until);
    }
    while let Err(error) = std::fs::remove_dir(group) {
        let is_busy = matches!(error.kind(), ErrorKind::ResourceBusy | ErrorKind::DirectoryNotEmpty);
        if !is_busy || Instant::now() >= until {
            if error.kind() != ErrorKind::NotFound {
                eprintln!("the control group {} stays: {error}", group.display());
            }
            return;
        }
        std::thread::sleep(EMPTY_LOOK);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_group_goes_once_what_was_killed_in_it_is_reaped() {
        let cgroups = Cgroups::new();
        let mut guest = Command::new("sleep").arg("1000").spawn().expect("it starts");
        let hierarchies = std::fs::read_dir(ROOT).into_iter().flatten().flatten().map(|entry| entry.path());
        let made = hierarchies.chain([ROOT.into()]).find_map(|root| {
            let group = root.join(cgroups.parent.trim_start_matches('/')).join("node-1/7.1");
            let enter = || std::fs::write(group.join("cgroup.procs"), guest.id().to_string());
            // Some want more before somebody may enter.
            let is_group = root.join("cgroup.procs").exists() && std::fs::create_dir_all(&group).is_ok();
            (is_group && enter().is_ok()).then_some(group)
        });
        let Some(group) = made else {
            let _ = guest.kill().and_then(|()| guest.wait());
            return eprintln!("skipped: no control group can be made here");
        };
        let parent = group.ancestors().nth(2).expect("two above").to_owned();
        let dropping = std::thread::spawn(move || drop(cgroups));
        guest.kill().expect("killed");
        guest.wait().expect("reaped");
        dropping.join().expect("no panic");
        assert!(!parent.exists(), "{} stays", parent.display());
    }
}
