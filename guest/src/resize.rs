//! Other sizes while the guest runs: processors and memory that its machine got or shall give up, and its containers' groups.
//!
//! Source: `admin-guide/mm/memory-hotplug.rst` and `core-api/cpu_hotplug.rst` of Linux' documentation. Nothing here waits: the
//! host asks again until what it added is there.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail};
use bulkhead_guest_protocol::MEMORY_MODULE_PATHS;
use bulkhead_guest_protocol::host::{ContainerLimits, Resize};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

use crate::container::Container;

const CPUS: &str = "/sys/devices/system/cpu";
const AUTO_ONLINE: &str = "/sys/devices/system/memory/auto_online_blocks";
/// What is added may leave again: no memory of the kernel's own goes there.
const MOVABLE: &str = "online_movable";

/// The drivers of memory that comes and goes: loaded when they are first needed, because most guests never do.
static MEMORY_MODULES: OnceLock<Vec<File>> = OnceLock::new();

/// Keeps the drivers' files from an initramfs that is about to be out of reach. Older agents bring none.
pub(crate) fn keep_modules() {
    let files = MEMORY_MODULE_PATHS.iter().filter_map(|path| File::open(path).ok()).collect();
    let _ = MEMORY_MODULES.set(files);
}

/// Numbers of a list of CPUs (`0-3,6`).
fn cpu_list(text: &str) -> Vec<u32> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<u32>().ok()?..=last.parse::<u32>().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

fn cpus(root: &Path, which: &str) -> Vec<u32> {
    cpu_list(&fs::read_to_string(root.join(which)).unwrap_or_default())
}

/// Uses the first `wanted` processors and no others; how many are in use then. Those that are not there yet are used when this is
/// asked for again.
fn use_cpus(root: &Path, wanted: u32) -> io::Result<u32> {
    let (present, online) = (cpus(root, "present"), cpus(root, "online"));
    let file = |cpu: u32| root.join(format!("cpu{cpu}/online"));
    let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
    for cpu in present.iter().take(wanted).filter(|cpu| !online.contains(cpu)) {
        fs::write(file(*cpu), "1")?;
    }
    // The last first: processor 0 stays, and whoever takes them away begins there.
    for cpu in present.iter().skip(wanted).rev().filter(|cpu| online.contains(cpu)) {
        fs::write(file(*cpu), "0")?;
    }
    Ok(u32::try_from(cpus(root, "online").len()).unwrap_or(u32::MAX))
}

/// Loads the drivers; memory that is added from then on is used at once.
fn use_memory() -> Result<()> {
    fs::write(AUTO_ONLINE, MOVABLE).context("the kernel adds no memory while it runs")?;
    let modules = MEMORY_MODULES.get().map(Vec::as_slice).unwrap_or_default();
    if modules.is_empty() {
        bail!("the initramfs has no drivers for memory that comes and goes");
    }
    for module in modules {
        match finit_module(module, c"", ModuleInitFlags::empty()) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error).context("load a driver for memory that comes and goes"),
        }
    }
    Ok(())
}

/// Which containers must be restarted for what they have now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    /// Their places.
    pub(crate) restart: Vec<usize>,
    /// Processors in use.
    pub(crate) cpus: u32,
}

/// Why something is not so.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A container uses more memory than it should have; nothing was changed.
    InUse(String),
    Other(anyhow::Error),
}

/// Does what can be done now.
pub(crate) fn resize(resize: &Resize, containers: &mut [Container]) -> Result<Done, Failure> {
    check_use(&resize.containers, containers).map_err(Failure::InUse)?;
    apply(resize, containers).map_err(Failure::Other)
}

fn apply(resize: &Resize, containers: &mut [Container]) -> Result<Done> {
    if resize.memory {
        use_memory()?;
    }
    let root = PathBuf::from(CPUS);
    let cpus = match resize.cpus {
        0 => u32::try_from(cpus(&root, "online").len()).unwrap_or(u32::MAX),
        wanted => use_cpus(&root, wanted).context("processors")?,
    };
    for limits in &resize.containers {
        let container = containers.iter_mut().find(|one| one.config.name == limits.name);
        container.with_context(|| format!("there is no container {}", limits.name))?.set_limits(limits)?;
    }
    // Those too that got theirs before this failed for another one.
    let mut restart = Vec::new();
    for (at, container) in containers.iter_mut().enumerate() {
        if container.take_restart() {
            restart.push(at);
        }
    }
    Ok(Done { restart, cpus })
}

/// Kubernetes' rule: a limit of memory does not go below what is in use. One that is restarted for it has nothing then.
fn check_use(limits: &[ContainerLimits], containers: &[Container]) -> Result<(), String> {
    for one in limits.iter().filter(|one| one.memory_bytes > 0 && !one.restart) {
        let container = containers.iter().find(|container| container.config.name == one.name);
        let used = container.and_then(Container::usage).map_or(0, |usage| usage.memory_bytes);
        if used > one.memory_bytes {
            return Err(format!(
                "container {} uses {used} bytes of memory, {} were asked for",
                one.name, one.memory_bytes
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bulkhead_guest_protocol::host::ContainerConfig;

    use super::*;

    #[test]
    fn lists_of_processors_are_read() {
        assert_eq!(cpu_list("0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(cpu_list("\n"), Vec::<u32>::new());
        assert_eq!(cpu_list("0"), [0]);
    }

    #[test]
    fn a_container_is_restarted_for_its_limits_although_another_one_failed() {
        let container = |name: &str| {
            Container::new(ContainerConfig { name: name.to_owned(), ..ContainerConfig::default() })
        };
        let mut containers = [container("web"), container("log")];
        let limits = |name: &str, cpu_millis, restart| ContainerLimits {
            name: name.to_owned(),
            cpu_millis,
            restart,
            ..ContainerLimits::default()
        };
        let mut check = |limits: &[ContainerLimits], expected: Option<&[usize]>| {
            let wish = Resize { containers: limits.to_vec(), ..Resize::default() };
            let done = resize(&wish, &mut containers).ok().map(|done| done.restart);
            assert_eq!(done.as_deref(), expected, "{limits:?}");
        };
        let both = [limits("log", 500, true), limits("web", 700, false)];
        check(&[both[0].clone(), limits("none", 1, true)], None);
        check(&both, Some(&[1]));
        check(&both, Some(&[]));
        check(&[limits("web", 900, true)], Some(&[0]));
    }

    #[test]
    fn the_first_processors_are_used_and_the_others_are_not() {
        let root = std::env::temp_dir().join(format!("bulkhead-cpus-{}", std::process::id()));
        for cpu in 1..4 {
            fs::create_dir_all(root.join(format!("cpu{cpu}"))).expect("made");
        }
        let check = |present: &str, online: &str, wanted: u32, written: &[(u32, &str)]| {
            for cpu in 1..4 {
                fs::write(root.join(format!("cpu{cpu}/online")), "-").expect("written");
            }
            fs::write(root.join("present"), present).expect("written");
            fs::write(root.join("online"), online).expect("written");
            let in_use = use_cpus(&root, wanted).expect("done");
            assert_eq!(in_use as usize, cpu_list(online).len(), "what the kernel says counts");
            for cpu in 1..4 {
                let expected = written.iter().find(|(one, _)| *one == cpu).map_or("-", |(_, text)| text);
                assert_eq!(
                    fs::read_to_string(root.join(format!("cpu{cpu}/online"))).expect("there"),
                    expected
                );
            }
        };
        check("0-2", "0", 3, &[(1, "1"), (2, "1")]);
        check("0-3", "0-3", 2, &[(2, "0"), (3, "0")]);
        check("0", "0", 4, &[]);
        check("0-1", "0-1", 2, &[]);
        fs::remove_dir_all(&root).expect("removed");
    }
}
