//! As whom containers run, and what they may do.
//!
//! Source: "SecurityContext v1 core", "PodSecurityContext v1 core" and "Configure a Security Context" in the Kubernetes
//! documentation; capabilities(7) for the names.

use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{Container, PodSpec, Sysctl};

/// Linux' capabilities without their `CAP_`; each one's place is its number.
pub const CAPABILITY_NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];
/// Every capability, in `add` and `drop`.
pub const CAPABILITIES_ALL: &str = "ALL";
/// What a container has when nothing else is said: what container runtimes give, without `MKNOD`: there is no device
/// filter in a guest, so a node would open the disks of the pod's other containers. Bit n is capability n.
pub const CAPABILITIES_DEFAULT: u64 = mask(&[
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SYS_CHROOT",
    "AUDIT_WRITE",
    "SETFCAP",
]);

const fn mask(names: &[&str]) -> u64 {
    let (mut set, mut at) = (0, 0);
    while at < names.len() {
        set |= number_bit(names[at]);
        at += 1;
    }
    set
}

const fn number_bit(name: &str) -> u64 {
    let mut number = 0;
    while number < CAPABILITY_NAMES.len() {
        if equal(name.as_bytes(), CAPABILITY_NAMES[number].as_bytes()) {
            return 1 << number;
        }
        number += 1;
    }
    0
}

const fn equal(a: &[u8], b: &[u8]) -> bool {
    let mut at = 0;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    at == a.len() && at == b.len()
}

/// What is given to a container, and taken from it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Capabilities {
    /// Names without `CAP_`, or `ALL`.
    pub add: Vec<SmolStr>,
    /// The same.
    pub drop: Vec<SmolStr>,
}

impl Capabilities {
    /// What is left of the default: bit n is capability n. `ALL` comes first, then what is given, then what is taken.
    #[must_use]
    pub fn bits(&self) -> u64 {
        let has_all = |names: &[SmolStr]| names.iter().any(|name| name == CAPABILITIES_ALL);
        let bits = |names: &[SmolStr]| names.iter().fold(0, |set, name| set | number_bit(name));
        let base = match (has_all(&self.add), has_all(&self.drop)) {
            (_, true) => 0,
            (true, false) => (1 << CAPABILITY_NAMES.len()) - 1,
            (false, false) => CAPABILITIES_DEFAULT,
        };
        (base | bits(&self.add)) & !bits(&self.drop)
    }
}

/// When what is in a volume that outlives the pod is given to the pod's group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FsGroupChangePolicy {
    /// Whenever it is mounted.
    Always = 1,
    /// When the volume's own folder does not belong to it, or not by the rights that it would have.
    OnRootMismatch = 2,
}

/// Which system calls a container may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SeccompProfile {
    /// All but those that are for whoever runs the guest.
    RuntimeDefault = 1,
    /// All.
    Unconfined = 2,
}

/// As whom a container runs, and what it may do. What is unset is the pod's, or the image's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityContext {
    /// User id; the image's USER when unset.
    pub run_as_user: Option<u32>,
    /// Group id; the user's when unset.
    pub run_as_group: Option<u32>,
    /// Refuses to start it as user 0.
    pub run_as_non_root: Option<bool>,
    /// Its root file system takes no writes.
    pub read_only_root_filesystem: Option<bool>,
    /// Whether programs may have more rights than whoever starts them; they may when unset.
    pub allow_privilege_escalation: Option<bool>,
    /// What it may do.
    pub capabilities: Capabilities,
    /// Its system calls.
    pub seccomp_profile: Option<SeccompProfile>,
    /// It may do in its guest what the guest itself may. Needs [`crate::PRIVILEGED_LEVEL`].
    #[serde(default)]
    pub privileged: bool,
}

impl Hash for SecurityContext {
    /// As of [`crate::ContainerOptions`]: what came later adds nothing where it is not said.
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.run_as_user, self.run_as_group, self.run_as_non_root, self.read_only_root_filesystem)
            .hash(state);
        (self.allow_privilege_escalation, &self.capabilities, &self.seccomp_profile).hash(state);
        if self.privileged {
            "privileged".hash(state);
        }
    }
}

/// What holds for all containers of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodSecurityContext {
    /// As in [`SecurityContext`].
    pub run_as_user: Option<u32>,
    /// As in [`SecurityContext`].
    pub run_as_group: Option<u32>,
    /// As in [`SecurityContext`].
    pub run_as_non_root: Option<bool>,
    /// Further groups of every container's user.
    pub supplemental_groups: Vec<u32>,
    /// A further group that owns the pod's volumes.
    pub fs_group: Option<u32>,
    /// When what is in volumes that outlive the pod is given to that group; [`FsGroupChangePolicy::Always`] when unset. Needs
    /// [`crate::FS_GROUP_CHANGE_POLICY_LEVEL`].
    #[serde(default)]
    pub fs_group_change_policy: Option<FsGroupChangePolicy>,
    /// As in [`SecurityContext`].
    pub seccomp_profile: Option<SeccompProfile>,
    /// Settings of the guest's kernel, in order. Needs [`crate::PRIVILEGED_LEVEL`].
    #[serde(default)]
    pub sysctls: Vec<Sysctl>,
}

impl Hash for PodSecurityContext {
    /// As of [`crate::ContainerOptions`]: what came later adds nothing where it is not said.
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.run_as_user, self.run_as_group, self.run_as_non_root, &self.supplemental_groups).hash(state);
        (self.fs_group, &self.seccomp_profile).hash(state);
        if !self.sysctls.is_empty() {
            ("sysctls", &self.sysctls).hash(state);
        }
        if let Some(policy) = self.fs_group_change_policy {
            ("fsGroupChangePolicy", policy).hash(state);
        }
    }
}

/// Every capability that there is: bit n is capability n.
pub const CAPABILITIES_EVERY: u64 = (1 << CAPABILITY_NAMES.len()) - 1;

impl SecurityContext {
    /// What the container may do: bit n is capability n. Who is privileged may do everything, whatever else is said.
    #[must_use]
    pub fn capability_bits(&self) -> u64 {
        if self.privileged { CAPABILITIES_EVERY } else { self.capabilities.bits() }
    }
}

impl Container {
    /// What it says for itself.
    #[must_use]
    pub fn security(&self) -> Option<&SecurityContext> {
        self.options.get()?.security.get()
    }
}

impl PodSpec {
    /// What holds for all containers.
    #[must_use]
    pub fn security(&self) -> Option<&PodSecurityContext> {
        self.options.get()?.security.get()
    }

    /// What holds for a container: its own word, then the pod's.
    #[must_use]
    pub fn security_of(&self, container: &Container) -> SecurityContext {
        let mut found = container.security().cloned().unwrap_or_default();
        if let Some(pod) = self.security() {
            found.run_as_user = found.run_as_user.or(pod.run_as_user);
            found.run_as_group = found.run_as_group.or(pod.run_as_group);
            found.run_as_non_root = found.run_as_non_root.or(pod.run_as_non_root);
            found.seccomp_profile = found.seccomp_profile.or(pod.seccomp_profile);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(add: &[&str], drop: &[&str], expected: u64) {
        let names = |names: &[&str]| names.iter().map(SmolStr::new).collect();
        assert_eq!(
            Capabilities { add: names(add), drop: names(drop) }.bits(),
            expected,
            "+{add:?} -{drop:?}"
        );
    }

    #[test]
    fn what_came_later_adds_nothing_to_a_digest_where_it_is_not_said() {
        use crate::digest::digest128;
        use crate::{ContainerOptions, Rare};
        let (none, unsaid) = (None::<u32>, None::<bool>);
        let seccomp = None::<SeccompProfile>;
        let security = SecurityContext::default();
        let before = (none, none, unsaid, unsaid, unsaid, Capabilities::default(), &seccomp);
        assert_eq!(digest128(&security), digest128(&before));
        assert_ne!(digest128(&SecurityContext { privileged: true, ..security }), digest128(&before));
        let security = PodSecurityContext::default();
        let before = (none, none, unsaid, Vec::<u32>::new(), none, &seccomp);
        assert_eq!(digest128(&security), digest128(&before));
        let sysctls = vec![Sysctl { name: "net.core.somaxconn".into(), value: "1".into() }];
        assert_ne!(digest128(&PodSecurityContext { sysctls, ..security.clone() }), digest128(&before));
        let policy = Some(FsGroupChangePolicy::OnRootMismatch);
        let changed = PodSecurityContext { fs_group_change_policy: policy, ..security };
        assert_ne!(digest128(&changed), digest128(&before));
        let get = |host| crate::ProbeHandler::TcpSocket { port: crate::PortRef::Number(1), host };
        assert_eq!(digest128(&get(Rare::NONE)), digest128(&(2_isize, crate::PortRef::Number(1))));
        assert_ne!(digest128(&get(Rare::NONE)), digest128(&get(Rare::some("localhost".to_owned()))));
        let options = ContainerOptions::default();
        let probe = Rare::<crate::Probe>::NONE;
        let lists = (Vec::<crate::EnvFrom>::new(), Vec::<crate::VolumeMount>::new());
        let before = (lists, (&probe, &probe, &probe), Rare::<crate::Lifecycle>::NONE, false);
        let before = (before, Rare::<SecurityContext>::NONE, None::<String>, false);
        let before = (before, Rare::<crate::ExtendedResources>::NONE);
        assert_eq!(digest128(&options), digest128(&before));
        assert_ne!(digest128(&ContainerOptions { stdin: true, ..options }), digest128(&before));
    }

    #[test]
    fn capabilities_are_given_and_taken() {
        check(&[], &[], CAPABILITIES_DEFAULT);
        check(&["NET_ADMIN"], &[], CAPABILITIES_DEFAULT | 1 << 12);
        check(&[], &["CHOWN"], CAPABILITIES_DEFAULT & !1);
        check(&[], &["ALL"], 0);
        check(&["NET_BIND_SERVICE"], &["ALL"], 1 << 10);
        check(&["ALL"], &["SYS_MODULE"], ((1 << 41) - 1) & !(1 << 16));
        check(&["CHOWN"], &["CHOWN"], CAPABILITIES_DEFAULT & !1);
    }

    #[test]
    fn who_is_privileged_may_do_everything() {
        let drop = Capabilities { add: vec![], drop: vec![CAPABILITIES_ALL.into()] };
        let plain = SecurityContext { capabilities: drop, ..SecurityContext::default() };
        assert_eq!(plain.capability_bits(), 0);
        let privileged = SecurityContext { privileged: true, ..plain };
        assert_eq!(privileged.capability_bits(), (1 << 41) - 1);
    }

    #[test]
    fn the_default_holds_no_way_out() {
        assert_eq!(CAPABILITIES_DEFAULT.count_ones(), 13);
        assert_eq!(CAPABILITIES_DEFAULT & mask(&["SYS_MODULE", "SYS_ADMIN", "MKNOD", "SYS_PTRACE"]), 0);
    }

    #[test]
    fn a_containers_own_word_wins() {
        let own =
            SecurityContext { run_as_user: Some(7), run_as_non_root: Some(false), ..Default::default() };
        let of_pod = PodSecurityContext {
            run_as_user: Some(8),
            run_as_group: Some(9),
            run_as_non_root: Some(true),
            ..Default::default()
        };
        let options = crate::ContainerOptions { security: crate::Rare::some(own), ..Default::default() };
        let container = Container { options: crate::Rare::some(options), ..Container::default() };
        let options = crate::PodOptions { security: crate::Rare::some(of_pod), ..Default::default() };
        let spec = PodSpec { options: crate::Rare::some(options), ..PodSpec::default() };
        let found = spec.security_of(&container);
        assert_eq!((found.run_as_user, found.run_as_group), (Some(7), Some(9)));
        assert_eq!(found.run_as_non_root, Some(false));
    }
}
