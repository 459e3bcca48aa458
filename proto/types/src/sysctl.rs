//! Settings of a guest's kernel.
//!
//! Source: "Using sysctls in a Kubernetes Cluster" and `ValidateSysctls` of Kubernetes' validation for names; sysctl(8) for the
//! two ways of writing one. A guest's kernel is its pod's own, so what Kubernetes calls unsafe, and what is in no
//! namespace, is as safe here as the rest.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// Longest name, in bytes (Kubernetes).
pub const SYSCTL_NAME_BYTES_MAX: usize = 253;
/// Longest value, in bytes.
pub const SYSCTL_VALUE_BYTES_MAX: usize = 1024;
/// Most settings of one pod.
pub const SYSCTLS_MAX: usize = 64;

/// What the pod has by other means, or what the guest needs as it is, and why; as paths.
const REFUSED: [(&str, &str); 4] = [
    ("kernel/hostname", "is the pod's hostname: say it in spec.hostname"),
    ("kernel/domainname", "is each container's own and would not reach it"),
    ("kernel/ns_last_pid", "is each container's own and would not reach it"),
    ("kernel/panic", "must stay as it is: by its guest's end a node learns that its kernel has panicked"),
];
/// Those of System V IPC and of POSIX queues, which every container has for itself; as beginnings of paths.
const OF_EACH_CONTAINER: [&str; 5] =
    ["kernel/auto_msgmni", "kernel/msg", "kernel/sem", "kernel/shm", "fs/mqueue/"];

/// One setting of a kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sysctl {
    /// As `net.core.somaxconn`, or with '/' for '.'.
    pub name: SmolStr,
    /// What is written.
    pub value: String,
}

impl Sysctl {
    /// The file of it below `/proc/sys`. Of '.' and '/' the one that comes first separates, and the other one stands for it
    /// inside a part, as in `net.ipv4.conf.eth0/100.forwarding`.
    #[must_use]
    pub fn path(&self) -> String {
        let is_path = self.name.find(['.', '/']).is_some_and(|at| self.name.as_bytes()[at] == b'/');
        let swap = |c| match c {
            '.' => '/',
            '/' => '.',
            other => other,
        };
        if is_path { self.name.to_string() } else { self.name.chars().map(swap).collect() }
    }

    /// Whether it is one of each container, and not one of the guest.
    #[must_use]
    pub fn is_of_each_container(&self) -> bool {
        let path = self.path();
        OF_EACH_CONTAINER.iter().any(|start| path.starts_with(start))
    }

    /// Why it cannot be set, if it is so.
    #[must_use]
    pub fn refusal(&self) -> Option<&'static str> {
        let path = self.path();
        REFUSED.iter().find(|(refused, _)| *refused == path).map(|(_, why)| *why)
    }

    /// Kubernetes' rule for names: parts of a-z, 0-9, '-' and '_' that begin and end with a letter or digit, between '.' or
    /// '/'.
    #[must_use]
    pub fn has_valid_name(&self) -> bool {
        let outer = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let part = |part: &str| {
            let bytes = part.as_bytes();
            let ends = [bytes.first(), bytes.last()].into_iter().all(|end| end.is_some_and(|b| outer(*b)));
            ends && bytes.iter().all(|b| outer(*b) || matches!(b, b'-' | b'_'))
        };
        self.name.len() <= SYSCTL_NAME_BYTES_MAX && self.name.split(['.', '/']).all(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, path: Option<&str>, of_each_container: bool) {
        let sysctl = Sysctl { name: name.into(), value: String::new() };
        assert_eq!(sysctl.has_valid_name().then(|| sysctl.path()).as_deref(), path, "{name}");
        assert_eq!(sysctl.is_of_each_container(), of_each_container, "{name}");
    }

    #[test]
    fn names_are_written_in_two_ways() {
        check("net.core.somaxconn", Some("net/core/somaxconn"), false);
        check("net/core/somaxconn", Some("net/core/somaxconn"), false);
        check("net.ipv4.conf.eth0/100.forwarding", Some("net/ipv4/conf/eth0.100/forwarding"), false);
        check("net/ipv4/conf/eth0.100/forwarding", Some("net/ipv4/conf/eth0.100/forwarding"), false);
        check("kernel.shm_rmid_forced", Some("kernel/shm_rmid_forced"), true);
        check("fs.mqueue.msg_max", Some("fs/mqueue/msg_max"), true);
        check("fs.file-max", Some("fs/file-max"), false);
        for bad in [
            "",
            ".",
            "a..b",
            "a/../b",
            "/etc/passwd",
            "A.b",
            "a.-b",
            "a.b_",
            "a b",
            "a.b\n",
            &"a".repeat(254),
        ] {
            check(bad, None, false);
        }
    }

    #[test]
    fn what_cannot_be_set_says_why() {
        let refusal = |name: &str| Sysctl { name: name.into(), value: String::new() }.refusal();
        assert!(refusal("kernel.hostname").is_some_and(|why| why.contains("spec.hostname")));
        assert!(refusal("kernel/panic").is_some());
        assert_eq!(refusal("kernel.panic_on_oops"), None);
        assert_eq!(refusal("vm.max_map_count"), None);
    }
}
