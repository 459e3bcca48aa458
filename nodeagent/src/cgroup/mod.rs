//! The control groups of guests' processes: made before QEMU starts, gone after it.
//!
//! ```text
//!  <mount>/<parent>/<agent>/<pod>.<instance>      one in every hierarchy with a controller of ours
//! ```
//!
//! What is written where is in the core ([`bulkhead_nodeagent_core::HostLimits`]); this does it. A host that lets this agent make no
//! groups is told apart, with what to do: guests run there without limits on the host.

#[cfg(test)]
mod fake;
mod files;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bulkhead_nodeagent_core::{
    Controller, Hierarchy, HostLimits, Setting, Version, hierarchies, oom_file, oom_kills,
};
use bulkhead_types::ObjectId;

pub(crate) use files::{GroupFiles, KernelFiles};

/// The parent of all groups when nobody says otherwise.
pub const CGROUP_PARENT_DEFAULT: &str = "/bulkhead";
/// How long a killed process may be in its groups after it was seen to end.
const EMPTY_DEADLINE: Duration = Duration::from_secs(2);
/// How often it is looked: version 1 tells nobody that a group is empty.
const EMPTY_LOOK: Duration = Duration::from_millis(5);
/// The group with which it is found out whether groups can be made.
const TRIAL: &str = "trial";
/// Limits of that one.
const TRIAL_LIMITS: HostLimits =
    HostLimits { cpu_shares: 2, cpu_millis: 1000, memory_bytes: 64 << 20, pids: 16 };
const REMEDY: &str = "run the agent as root on a host whose cgroup file systems are writable, or with --cgroup-parent and a group that \
    is delegated to it (systemd: Delegate=yes and DelegateSubgroup=)";

/// One hierarchy, with the agent's own group in it.
#[derive(Debug)]
struct Place {
    version: Version,
    controllers: Vec<Controller>,
    base: PathBuf,
}

/// The groups of one agent's guests.
#[derive(Debug)]
pub(crate) struct Cgroups {
    files: Arc<dyn GroupFiles>,
    places: Vec<Place>,
    problems: Vec<String>,
}

impl Cgroups {
    /// The groups of an agent below `parent` (a path from the hierarchies' roots); `None`: none, and that is no problem. What
    /// cannot be had is in [`Self::problems`].
    pub(crate) fn open(files: Arc<dyn GroupFiles>, parent: Option<&str>, agent: &str) -> Self {
        let mut cgroups = Self { files, places: Vec::new(), problems: Vec::new() };
        let Some(parent) = parent else { return cgroups };
        let mountinfo = match cgroups.files.read(Path::new("/proc/self/mountinfo")) {
            Ok(text) => text,
            Err(error) => {
                cgroups.problems.push(format!("pods have no limits on the host: no list of mounts: {error}"));
                return cgroups;
            }
        };
        let unified = |mount: &str| {
            let file = Path::new(mount).join("cgroup.controllers");
            cgroups.files.read(&file).unwrap_or_default()
        };
        let found = hierarchies(&mountinfo, unified);
        let names = |controllers: &[Controller]| {
            controllers.iter().map(|one| one.name()).collect::<Vec<_>>().join(", ")
        };
        let has = |one: &Controller| found.iter().any(|hierarchy| hierarchy.controllers.contains(one));
        let lacking: Vec<_> = Controller::ALL.into_iter().filter(|one| !has(one)).collect();
        if !lacking.is_empty() {
            let remedy = "mount the cgroup file system, and boot without cgroup_disable=";
            cgroups.problems.push(format!(
                "pods have no limit of {} on the host: there is no such cgroup controller; {remedy}",
                names(&lacking)
            ));
        }
        for hierarchy in found {
            match cgroups.prepare(&hierarchy, parent, agent) {
                Ok(place) => cgroups.places.push(place),
                Err(error) => cgroups.problems.push(format!(
                    "pods have no limit of {} on the host: {error}; {REMEDY}",
                    names(&hierarchy.controllers)
                )),
            }
        }
        cgroups
    }

    /// What an operator should know.
    pub(crate) fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Makes the agent's own group, and tries one of a guest.
    fn prepare(&self, hierarchy: &Hierarchy, parent: &str, agent: &str) -> io::Result<Place> {
        let words: Vec<_> = hierarchy.controllers.iter().map(|one| format!("+{}", one.name())).collect();
        let mut group = PathBuf::from(&hierarchy.mount);
        for name in parent.split('/').filter(|name| !name.is_empty()).chain([agent]) {
            self.hand_down(hierarchy.version, &group, &words.join(" "))?;
            group.push(name);
            self.files.make(&group).map_err(at(&group))?;
        }
        self.hand_down(hierarchy.version, &group, &words.join(" "))?;
        let place =
            Place { version: hierarchy.version, controllers: hierarchy.controllers.clone(), base: group };
        self.make(&place, TRIAL, TRIAL_LIMITS)?;
        let trial = place.base.join(TRIAL);
        self.files.remove(&trial).map_err(at(&trial))?;
        Ok(place)
    }

    /// Version 2's groups have the controllers that their parent hands down.
    fn hand_down(&self, version: Version, group: &Path, words: &str) -> io::Result<()> {
        if version == Version::V1 {
            return Ok(());
        }
        let file = group.join("cgroup.subtree_control");
        self.files.write(&file, words).map_err(at(&file))
    }

    /// A group with its limits, anew.
    fn make(&self, place: &Place, name: &str, limits: HostLimits) -> io::Result<PathBuf> {
        let group = place.base.join(name);
        self.files.remove(&group).map_err(at(&group))?;
        self.files.make(&group).map_err(at(&group))?;
        self.limit(place, &group, limits)?;
        Ok(group)
    }

    /// Other limits for a guest's groups that are there already.
    ///
    /// # Errors
    /// When one cannot be set.
    pub(crate) fn change(&self, name: &str, limits: HostLimits) -> io::Result<()> {
        self.places.iter().try_for_each(|place| self.limit(place, &place.base.join(name), limits))
    }

    /// What is refused is tried again after everything else: version 1 has no limit of memory above that of memory and swap together,
    /// which is larger only then.
    fn limit(&self, place: &Place, group: &Path, limits: HostLimits) -> io::Result<()> {
        let settings =
            place.controllers.iter().flat_map(|controller| limits.settings(*controller, place.version));
        let write = |setting: &Setting| {
            let file = group.join(setting.file);
            self.files.write(&file, &setting.value).map_err(at(&file))
        };
        let refused: Vec<Setting> = settings.filter(|setting| write(setting).is_err()).collect();
        refused.iter().try_for_each(|setting| match write(setting) {
            Err(error) if !setting.optional => Err(error),
            _ => Ok(()),
        })
    }

    /// Makes the groups of a guest. The answer is the files that its process writes 0 to.
    ///
    /// # Errors
    /// When one cannot be made, or one of that name has processes; then there is none.
    pub(crate) fn create(&self, name: &str, limits: HostLimits) -> io::Result<Vec<PathBuf>> {
        let made = self.places.iter().map(|place| self.make(place, name, limits));
        let made: io::Result<Vec<_>> = made.collect();
        if made.is_err() {
            let _ = self.remove(name);
        }
        Ok(made?.into_iter().map(|group| group.join("cgroup.procs")).collect())
    }

    /// The memory that a guest's process might use, in bytes, if the kernel killed it because it used more.
    pub(crate) fn out_of_memory(&self, name: &str) -> Option<u64> {
        let place = self.places.iter().find(|place| place.controllers.contains(&Controller::Memory))?;
        let group = place.base.join(name);
        let killed =
            self.files.read(&group.join(oom_file(place.version))).is_ok_and(|text| oom_kills(&text) > 0);
        let limit = match place.version {
            Version::V1 => "memory.limit_in_bytes",
            Version::V2 => "memory.max",
        };
        let limit = || self.files.read(&group.join(limit)).ok()?.trim().parse().ok();
        killed.then(|| limit().unwrap_or(0))
    }

    /// Removes the groups of a guest that has ended; those that are not there are fine.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        let mut result = Ok(());
        // All of them, whatever becomes of one.
        for group in self.places.iter().map(|place| place.base.join(name)) {
            result = result.and(self.files.remove(&group).map_err(at(&group)));
        }
        result
    }

    /// Removes the groups of a guest whose process has ended, as soon as the kernel lets it: threads of a process that was killed, and
    /// one that is not reaped yet, are in them for a moment. Waits; not for the threads of a runtime.
    ///
    /// # Errors
    /// When something is in them for longer than that takes.
    pub(crate) fn remove_once_empty(&self, name: &str) -> io::Result<()> {
        let until = Instant::now() + EMPTY_DEADLINE;
        loop {
            match self.remove(name) {
                Err(error) if is_busy(&error) && Instant::now() < until => std::thread::sleep(EMPTY_LOOK),
                result => return result,
            }
        }
    }

    /// Removes the groups of all guests of a pod that were not removed when they ended, if nothing is in them.
    pub(crate) fn remove_of(&self, pod: ObjectId) -> io::Result<()> {
        let prefix = format!("{}.", pod.0);
        let found = self.places.iter().flat_map(|place| self.files.below(&place.base).unwrap_or_default());
        let of_pod: BTreeSet<String> = found.filter(|name| name.starts_with(&prefix)).collect();
        of_pod.iter().try_for_each(|name| self.remove_once_empty(name))
    }

    /// The agent ends: its own groups go, unless guests are in them.
    pub(crate) fn close(&self) {
        for place in &self.places {
            if let Err(error) = self.files.remove(&place.base) {
                tracing::debug!(group = %place.base.display(), %error, "the agent's control group stays");
            }
        }
    }

    /// Removes all groups but these: what an agent that crashed left.
    pub(crate) fn keep_only(&self, names: &BTreeSet<String>) {
        let found: BTreeSet<String> =
            self.places.iter().flat_map(|place| self.files.below(&place.base).unwrap_or_default()).collect();
        for name in found.difference(names) {
            match self.remove_once_empty(name) {
                Ok(()) => tracing::info!(group = name, "a control group that was left is removed"),
                Err(error) => tracing::warn!(group = name, %error, "a control group cannot be removed"),
            }
        }
    }
}

#[cfg(test)]
impl Cgroups {
    /// Removes the agent's own groups and their parent, for tests.
    pub(crate) fn remove_parent(&self, parent: &str) {
        for place in &self.places {
            let _ = self.files.remove(&place.base);
            for group in place.base.ancestors().skip(1).take(parent.split('/').count() - 1) {
                let _ = self.files.remove(group);
            }
        }
    }
}

/// Whether the kernel keeps a group because of what is in it (`rmdir` of a group, cgroups(7)).
fn is_busy(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::DirectoryNotEmpty)
}

/// An error with its path.
fn at(path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests;
