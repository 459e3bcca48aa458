//! cgroup v2: one group for the pod, one below it for each container.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bulkhead_guest_protocol::host::ContainerConfig;

const ROOT: &str = "/sys/fs/cgroup";
const POD: &str = "/sys/fs/cgroup/pod";
const CONTROLLERS: &str = "+cpu +memory +pids";
const HUGE_PAGES_CONTROLLER: &str = "+hugetlb";

/// Length of the period that a CPU limit refers to (the kernel's default).
const CPU_PERIOD_USEC: u64 = 100_000;
/// The kernel refuses smaller quotas.
const CPU_QUOTA_USEC_MIN: u64 = 1_000;
/// Shares of one whole CPU, and the bounds of version 1: weights follow from them as Kubernetes computes them (KEP-2254).
const SHARES_PER_CPU: u64 = 1024;
const SHARES_MIN: u64 = 2;
const SHARES_MAX: u64 = 262_144;
/// A fork bomb must not take all process ids of the guest: what a container may have where the host does not say it.
const PIDS_MAX: u32 = 4_096;

/// What a group has used and uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct UsageSample {
    pub(crate) cpu_usec: u64,
    pub(crate) memory_bytes: u64,
}

/// One group.
#[derive(Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes the pod's group, in which there may be so many processes (0: as many as in its containers), and hands the
    /// controllers down to it.
    pub(crate) fn make_pod(pids_max: u32) -> io::Result<Self> {
        fs::write(format!("{ROOT}/cgroup.subtree_control"), CONTROLLERS)?;
        fs::create_dir_all(POD)?;
        fs::write(format!("{POD}/cgroup.subtree_control"), CONTROLLERS)?;
        // Kernels may be built without it; then all containers share the pod's pages.
        let of_pages = fs::write(format!("{ROOT}/cgroup.subtree_control"), HUGE_PAGES_CONTROLLER)
            .and_then(|()| fs::write(format!("{POD}/cgroup.subtree_control"), HUGE_PAGES_CONTROLLER));
        if let Err(error) = of_pages {
            eprintln!("bulkhead-guest: huge pages of containers are not limited: {error}");
        }
        let pod = Self { path: POD.into() };
        pod.write("pids.max", &pids_of_pod(pids_max))?;
        Ok(pod)
    }

    /// Makes a container's group with its limits, in a pod that may have so many processes. It stays for all instances, so usage adds up over them.
    pub(crate) fn make_container(config: &ContainerConfig, pids_max: u32) -> io::Result<Self> {
        let cgroup = Self { path: Path::new(POD).join(&config.name) };
        fs::create_dir_all(&cgroup.path)?;
        cgroup.write("pids.max", &pids_of_container(pids_max).to_string())?;
        // The container dies as a whole, as with Kubernetes: half a container helps nobody.
        cgroup.write("memory.oom.group", "1")?;
        for (file, bytes) in
            [("hugetlb.2MB.max", config.two_mib_pages_bytes), ("hugetlb.1GB.max", config.one_gib_pages_bytes)]
        {
            // A container that asks for none gets none (Kubernetes' rule).
            if cgroup.path.join(file).exists() {
                cgroup.write(file, &bytes.to_string())?;
            }
        }
        cgroup.limit(config)?;
        Ok(cgroup)
    }

    /// The limits of a container.
    pub(crate) fn limit(&self, config: &ContainerConfig) -> io::Result<()> {
        let memory = match config.memory_bytes {
            0 => "max".to_owned(),
            bytes => bytes.to_string(),
        };
        self.write("memory.max", &memory)?;
        self.write("cpu.weight", &weight(config.cpu_request_millis).to_string())?;
        let quota = match config.cpu_millis {
            0 => "max".to_owned(),
            millis => (millis.saturating_mul(CPU_PERIOD_USEC) / 1000).max(CPU_QUOTA_USEC_MIN).to_string(),
        };
        self.write("cpu.max", &format!("{quota} {CPU_PERIOD_USEC}"))
    }

    /// Moves the calling process into the group.
    pub(crate) fn join(&self) -> io::Result<()> {
        self.write("cgroup.procs", "0")
    }

    /// How often the kernel killed something here for lack of memory.
    pub(crate) fn oom_kills(&self) -> u64 {
        self.read("memory.events").and_then(|text| field(&text, "oom_kill")).unwrap_or(0)
    }

    /// CPU time since the start and working set; zeroes where the kernel tells nothing.
    pub(crate) fn usage(&self) -> UsageSample {
        let cpu_usec = self.read("cpu.stat").and_then(|text| field(&text, "usage_usec")).unwrap_or(0);
        let charged = self.read("memory.current").and_then(|text| text.trim().parse().ok()).unwrap_or(0_u64);
        let inactive = self.read("memory.stat").and_then(|text| field(&text, "inactive_file")).unwrap_or(0);
        UsageSample { cpu_usec, memory_bytes: charged.saturating_sub(inactive) }
    }

    fn read(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.path.join(file)).ok()
    }

    fn write(&self, file: &str, value: &str) -> io::Result<()> {
        let path = self.path.join(file);
        fs::write(&path, value)
            .map_err(|e| io::Error::new(e.kind(), format!("{}={value}: {e}", path.display())))
    }
}

/// What the kernel is told of a pod that may have so many processes.
fn pids_of_pod(pids_max: u32) -> String {
    if pids_max == 0 { "max".to_owned() } else { pids_max.to_string() }
}

/// How many one container of it may have.
fn pids_of_container(pids_max: u32) -> u32 {
    if pids_max == 0 { PIDS_MAX } else { pids_max }
}

/// A container's part when CPUs are scarce.
fn weight(request_millis: u64) -> u64 {
    let shares = (request_millis.saturating_mul(SHARES_PER_CPU) / 1000).clamp(SHARES_MIN, SHARES_MAX);
    1 + (shares - SHARES_MIN) * 9_999 / (SHARES_MAX - SHARES_MIN)
}

/// The number behind `name` in a flat-keyed file.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_follow_requests_within_the_kernels_bounds() {
        for (request, expected) in [(0, 1), (1, 1), (100, 4), (1000, 39), (4000, 157), (u64::MAX, 10_000)] {
            assert_eq!(weight(request), expected, "{request}");
        }
    }

    #[test]
    fn a_pod_has_as_many_processes_as_its_host_says() {
        assert_eq!((pids_of_pod(100).as_str(), pids_of_container(100)), ("100", 100));
        assert_eq!(
            (pids_of_pod(0).as_str(), pids_of_container(0)),
            ("max", 4096),
            "a host of an earlier version"
        );
    }

    #[test]
    fn fields_are_found_by_whole_name() {
        let text = "low 0\noom 3\noom_kill 2\noom_group_kill 1\n";
        assert_eq!(field(text, "oom_kill"), Some(2));
        assert_eq!(field(text, "oom"), Some(3));
        assert_eq!(field(text, "max"), None);
    }
}
