//! Settings of a guest's kernel.
//!
//! Source: "Using sysctls in a Kubernetes Cluster" and `ValidateSysctls` of Kubernetes' validation for names; sysctl(8) for the
//! two ways of writing one. A guest's kernel is its pod's own, so what Kubernetes calls unsafe, and what is in no
//! namespace, is as safe here as the rest.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::StringMap;

/// Longest name, in bytes (Kubernetes).
pub const SYSCTL_NAME_BYTES_MAX: usize = 253;
/// Longest value, in bytes.
pub const SYSCTL_VALUE_BYTES_MAX: usize = 1024;
/// Most settings of one pod.
pub const SYSCTLS_MAX: usize = 64;

/// The same settings as an annotation of a pod, `net.core.somaxconn=1024,vm.max_map_count=262144` (ACK sandboxed containers).
pub const ANNOTATION_SYSCTLS: &str = "securecontainer.alibabacloud.com/sysctls";

/// Of a setting that cannot be read, so much is shown.
const SHOWN_CHARS_MAX: usize = 64;

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
    /// What the annotation [`ANNOTATION_SYSCTLS`] says; nothing without it.
    ///
    /// # Errors
    /// Why it cannot be, with what would be acceptable.
    pub fn annotated(annotations: &StringMap) -> Result<Vec<Self>, String> {
        let Some(text) = annotations.get(ANNOTATION_SYSCTLS) else { return Ok(Vec::new()) };
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let all = parts.map(Self::written).collect::<Result<Vec<_>, _>>()?;
        let paths: BTreeSet<String> = all.iter().map(Self::path).collect();
        if paths.len() < all.len() {
            return Err("sets something twice: write each setting once".to_owned());
        }
        if all.len() > SYSCTLS_MAX {
            return Err(format!("has {} settings: write at most {SYSCTLS_MAX}", all.len()));
        }
        Ok(all)
    }

    fn written(part: &str) -> Result<Self, String> {
        let shown: String = part.chars().take(SHOWN_CHARS_MAX).collect();
        let (name, value) = part.split_once('=').ok_or_else(|| {
            format!("{shown:?} is no setting: write name=value, several with ',' between them")
        })?;
        let one = Self { name: name.trim().into(), value: value.trim().to_owned() };
        if !one.has_valid_name() {
            return Err(format!(
                "{shown:?} does not begin with the name of a setting, such as net.core.somaxconn"
            ));
        }
        if let Some(why) = one.refusal() {
            return Err(format!("{} {why}", one.name));
        }
        if one.value.len() > SYSCTL_VALUE_BYTES_MAX || one.value.contains('\0') {
            return Err(format!(
                "the value of {} is longer than {SYSCTL_VALUE_BYTES_MAX} bytes, or has a NUL",
                one.name
            ));
        }
        Ok(one)
    }

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

    fn check_annotation(text: &str, expected: Result<&[(&str, &str)], &str>) {
        let annotations: StringMap = [(ANNOTATION_SYSCTLS.into(), text.into())].into_iter().collect();
        let found = Sysctl::annotated(&annotations);
        match expected {
            Ok(all) => {
                let found = found.expect(text);
                let found: Vec<_> = found.iter().map(|one| (one.name.as_str(), one.value.as_str())).collect();
                assert_eq!(found, all, "{text}");
            }
            Err(part) => {
                let why = found.expect_err(text);
                assert!(why.contains(part), "{text}: {why}");
            }
        }
    }

    #[test]
    fn an_annotation_says_the_same() {
        let example = "net.ipv4.ip_forward=1, kernel.sem=250 32000 32 128,";
        check_annotation(example, Ok(&[("net.ipv4.ip_forward", "1"), ("kernel.sem", "250 32000 32 128")]));
        check_annotation("", Ok(&[]));
        check_annotation("net.core.somaxconn", Err("write name=value"));
        check_annotation("../../etc/passwd=1", Err("does not begin with the name"));
        check_annotation("kernel.hostname=x", Err("spec.hostname"));
        check_annotation("vm.swappiness=1,vm/swappiness=2", Err("twice"));
        check_annotation(&format!("vm.swappiness={}", "1".repeat(1025)), Err("longer than 1024"));
        let many = (0..65).map(|n| format!("vm.a{n}=1")).collect::<Vec<_>>().join(",");
        check_annotation(&many, Err("at most 64"));
        assert_eq!(Sysctl::annotated(&StringMap::new()), Ok(Vec::new()));
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
