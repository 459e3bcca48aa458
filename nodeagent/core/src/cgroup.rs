//! What a pod's QEMU may use of the host, as the kernel's control groups are told: values and formats, no files.
//!
//! Source: `admin-guide/cgroup-v2.rst`, `admin-guide/cgroup-v1/`, `scheduler/sched-bwc.rst` of Linux' documentation; shares and
//! weights as Kubernetes computes them (KEP-2254).
//!
//! Groups of a pod: `<mount>/<parent>/<agent>/<pod>.<instance>`, one in every hierarchy that has a controller of ours.

use bulkhead_types::{ObjectId, PodIntent};

use crate::GuestSize;

/// Shares of one whole CPU (version 1's default of a group).
const SHARES_PER_CPU: u64 = 1024;
/// Fewest shares that the kernel takes: what asks for nothing, and every batch pod, gets these.
const SHARES_MIN: u64 = 2;
/// Most shares that the kernel takes.
const SHARES_MAX: u64 = 262_144;
/// Length of the period that a quota refers to, in µs (the kernel's default).
const PERIOD_USEC: u64 = 100_000;
/// What QEMU's own threads may use beside the guest's processors, in thousandths of a CPU.
const OVERHEAD_CPU_MILLIS: u64 = 250;
/// QEMU's program, libraries, heap and devices' buffers, in bytes.
const OVERHEAD_MEMORY_BYTES: u64 = 192 << 20;
/// Page tables, dirty bitmaps and the like: this share of the guest's memory.
const OVERHEAD_MEMORY_SHARE: u64 = 50;
/// Stacks and state of one virtual processor, in bytes.
const OVERHEAD_MEMORY_PER_CPU: u64 = 2 << 20;
/// Most that emulation translates ahead (QEMU's default `tb-size`), in bytes.
const TRANSLATED_BYTES_MAX: u64 = 1 << 30;
/// QEMU's main loop, its pool of at most 64 workers for each context, and room.
const OVERHEAD_PIDS: u64 = 160;

/// One kind of resource that the kernel divides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Controller {
    /// `cpu`
    Cpu,
    /// `memory`
    Memory,
    /// `pids`
    Pids,
}

impl Controller {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Cpu, Self::Memory, Self::Pids];

    /// The kernel's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Pids => "pids",
        }
    }
}

/// The kernel's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy for each set of controllers.
    V1,
    /// One for all.
    V2,
}

/// A mounted hierarchy that has controllers of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Its interface.
    pub version: Version,
    /// Where it is mounted.
    pub mount: String,
    /// Ours among its controllers.
    pub controllers: Vec<Controller>,
}

/// The hierarchies of a machine: version 2's where it has a controller, else version 1's (hybrid machines have both).
/// `mountinfo` is the text of `/proc/self/mountinfo` (proc(5)), `unified` tells the content of `cgroup.controllers` of a mount.
#[must_use]
pub fn hierarchies(mountinfo: &str, unified: impl Fn(&str) -> String) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    let mut missing = Controller::ALL.to_vec();
    let mut take = |version, mount: &str, has: &dyn Fn(&str) -> bool| {
        let (ours, rest): (Vec<_>, Vec<_>) = missing.iter().partition(|controller| has(controller.name()));
        missing = rest;
        if !ours.is_empty() {
            found.push(Hierarchy { version, mount: mount.to_owned(), controllers: ours });
        }
    };
    for (mount, _, _) in mounts(mountinfo).filter(|(_, kind, _)| *kind == "cgroup2") {
        let controllers = unified(mount);
        take(Version::V2, mount, &|name| controllers.split_whitespace().any(|one| one == name));
    }
    for (mount, _, options) in mounts(mountinfo).filter(|(_, kind, _)| *kind == "cgroup") {
        take(Version::V1, mount, &|name| options.split(',').any(|one| one == name));
    }
    found
}

/// Mount point, type and the file system's own options of every mount.
fn mounts(mountinfo: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    mountinfo.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        let (kind, options) = (after.next()?, after.nth(1).unwrap_or_default());
        Some((before.split(' ').nth(4)?, kind, options))
    })
}

/// The name of a guest's group.
#[must_use]
pub fn group_name(pod: ObjectId, instance: u32) -> String {
    format!("{}.{instance}", pod.0)
}

/// What one guest may use of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostLimits {
    /// Its part when CPUs are scarce, in version 1's shares: 1024 for each CPU that was asked for.
    pub cpu_shares: u64,
    /// Most processor time, in thousandths of a CPU.
    pub cpu_millis: u64,
    /// Most memory, in bytes: the guest's, and what QEMU needs itself.
    pub memory_bytes: u64,
    /// Most threads.
    pub pids: u64,
}

/// One file of a group and what is written to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The file's name.
    pub file: &'static str,
    /// Its content.
    pub value: String,
    /// Older kernels, and those that were built without, do not have the file.
    pub optional: bool,
}

impl HostLimits {
    /// The limits of a pod's guest. `emulated`: QEMU executes the guest's instructions itself, which costs processor time and
    /// memory that no container used; then its processors are the limit, whatever the containers' is.
    #[must_use]
    pub fn new(pod: &PodIntent, size: GuestSize, emulated: bool) -> Self {
        let cpus = u64::from(size.cpus);
        let whole = Self::of_size(size, emulated);
        let asked = if pod.batch { 0 } else { pod.spec.requests().cpu_millis };
        let mut all = pod.spec.init_containers.iter().chain(&pod.spec.containers);
        let all_limited = all.all(|one| one.limits.cpu_millis.is_some());
        let guest_millis = match all_limited && !emulated {
            true => pod.spec.guest_size().cpu_millis.min(cpus * 1000),
            false => cpus * 1000,
        };
        Self {
            cpu_shares: (asked.saturating_mul(SHARES_PER_CPU) / 1000).clamp(SHARES_MIN, SHARES_MAX),
            cpu_millis: guest_millis + OVERHEAD_CPU_MILLIS,
            ..whole
        }
    }

    /// The limits of a guest of this size that has no pod: all of its processors, which have to wait for everybody else's.
    #[must_use]
    pub fn of_size(size: GuestSize, emulated: bool) -> Self {
        let cpus = u64::from(size.cpus);
        let own = OVERHEAD_MEMORY_BYTES
            + size.memory_bytes / OVERHEAD_MEMORY_SHARE
            + cpus * OVERHEAD_MEMORY_PER_CPU;
        let translated = if emulated { TRANSLATED_BYTES_MAX } else { 0 };
        Self {
            cpu_shares: SHARES_MIN,
            cpu_millis: cpus * 1000 + OVERHEAD_CPU_MILLIS,
            memory_bytes: size.memory_bytes.saturating_add(own).saturating_add(translated),
            pids: cpus + OVERHEAD_PIDS,
        }
    }

    /// Enough for both.
    #[must_use]
    pub fn larger(self, other: Self) -> Self {
        Self {
            cpu_shares: self.cpu_shares.max(other.cpu_shares),
            cpu_millis: self.cpu_millis.max(other.cpu_millis),
            memory_bytes: self.memory_bytes.max(other.memory_bytes),
            pids: self.pids.max(other.pids),
        }
    }

    /// Version 2's weight of the shares.
    fn weight(self) -> u64 {
        1 + (self.cpu_shares - SHARES_MIN) * 9_999 / (SHARES_MAX - SHARES_MIN)
    }

    /// What is written for one controller, in order.
    #[must_use]
    pub fn settings(self, controller: Controller, version: Version) -> Vec<Setting> {
        let must = |file, value: u64| Setting { file, value: value.to_string(), optional: false };
        let may = |file, value: u64| Setting { file, value: value.to_string(), optional: true };
        let quota = self.cpu_millis.saturating_mul(PERIOD_USEC) / 1000;
        match (controller, version) {
            (Controller::Cpu, Version::V2) => vec![
                must("cpu.weight", self.weight()),
                Setting { value: format!("{quota} {PERIOD_USEC}"), ..must("cpu.max", 0) },
            ],
            (Controller::Cpu, Version::V1) => vec![
                must("cpu.shares", self.cpu_shares),
                must("cpu.cfs_period_us", PERIOD_USEC),
                must("cpu.cfs_quota_us", quota),
            ],
            // Nothing is swapped out, as on Kubernetes' nodes: a guest that waits for the host's disk helps nobody.
            (Controller::Memory, Version::V2) => {
                vec![
                    must("memory.max", self.memory_bytes),
                    may("memory.swap.max", 0),
                    may("memory.oom.group", 1),
                ]
            }
            (Controller::Memory, Version::V1) => vec![
                must("memory.limit_in_bytes", self.memory_bytes),
                may("memory.memsw.limit_in_bytes", self.memory_bytes),
            ],
            (Controller::Pids, _) => vec![must("pids.max", self.pids)],
        }
    }
}

/// The file that tells how often the kernel killed something in a group for want of memory.
#[must_use]
pub fn oom_file(version: Version) -> &'static str {
    match version {
        Version::V1 => "memory.oom_control",
        Version::V2 => "memory.events",
    }
}

/// How often, by that file's content; both versions have the same line.
#[must_use]
pub fn oom_kills(text: &str) -> u64 {
    let number = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
    number.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with systemd in its hybrid mode.
    const HYBRID: &str = "\
        31 23 0:28 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/unified rw,nosuid shared:5 - cgroup2 cgroup2 rw,nsdelegate\n\
        33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:6 - cgroup cgroup rw,cpu,cpuacct\n\
        34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";

    fn check(mountinfo: &str, unified: &str, expected: &[(Version, &str, &[Controller])]) {
        let found = hierarchies(mountinfo, |_| unified.to_owned());
        let found: Vec<_> =
            found.iter().map(|h| (h.version, h.mount.as_str(), h.controllers.as_slice())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn hierarchies_of_machines() {
        use Controller::{Cpu, Memory, Pids};
        let one = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        check(one, "cpuset cpu io memory pids\n", &[(Version::V2, "/sys/fs/cgroup", &[Cpu, Memory, Pids])]);
        check(one, "", &[]);
        let cpu: (_, _, &[_]) = (Version::V1, "/sys/fs/cgroup/cpu,cpuacct", &[Cpu]);
        check(HYBRID, "", &[cpu, (Version::V1, "/sys/fs/cgroup/memory", &[Memory])]);
        check(HYBRID, "memory pids", &[(Version::V2, "/sys/fs/cgroup/unified", &[Memory, Pids]), cpu]);
        check("rubbish\n\n - \n", "cpu", &[]);
    }

    #[test]
    fn kills_are_read_from_both_versions() {
        assert_eq!(oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), 3);
        assert_eq!(oom_kills("low 0\nhigh 0\nmax 5\noom 1\noom_kill 2\noom_group_kill 1\n"), 2);
        assert_eq!(oom_kills(""), 0);
    }
}
