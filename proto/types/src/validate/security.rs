//! Rules for security contexts and messages of ends.

use std::collections::BTreeSet;

use smol_str::SmolStr;

use super::pod::{cut, no_nul};
use super::{Path, Report};
use crate::{
    ANNOTATION_SYSCTLS, CAPABILITIES_ALL, CAPABILITY_NAMES, Container, PodSpec, SYSCTL_VALUE_BYTES_MAX,
    SYSCTLS_MAX, StringMap, Sysctl,
};

/// Largest id of a user or group (Kubernetes: 2^31 - 1).
const ID_MAX: u32 = i32::MAX as u32;
/// Most further groups of a pod, and most names of capabilities in a list.
pub const SUPPLEMENTAL_GROUPS_MAX: usize = 64;
/// Longest path of a message, in bytes.
const MESSAGE_PATH_BYTES_MAX: usize = 1024;

/// Checks what holds for all containers of a pod.
pub(super) fn pod(spec: &PodSpec, path: &Path<'_>, report: &mut Report) {
    let Some(security) = spec.security() else { return };
    let path = path.field("securityContext");
    id(security.run_as_user, &path.field("runAsUser"), report);
    id(security.run_as_group, &path.field("runAsGroup"), report);
    id(security.fs_group, &path.field("fsGroup"), report);
    let groups = path.field("supplementalGroups");
    report.at_most(&groups, "groups", security.supplemental_groups.len(), SUPPLEMENTAL_GROUPS_MAX);
    for (index, group) in security.supplemental_groups.iter().enumerate() {
        id(Some(*group), &groups.index(index), report);
    }
    sysctls(&security.sysctls, &path.field("sysctls"), report);
}

/// Checks the settings of the guest's kernel that annotations say; `path` is what holds the annotations.
pub(super) fn annotated_sysctls(annotations: &StringMap, path: &Path<'_>, report: &mut Report) {
    let path = path.field("annotations");
    report.check(&path.key(ANNOTATION_SYSCTLS), Sysctl::annotated(annotations).map(drop));
}

fn sysctls(sysctls: &[Sysctl], path: &Path<'_>, report: &mut Report) {
    report.at_most(path, "settings", sysctls.len(), SYSCTLS_MAX);
    let mut seen = BTreeSet::new();
    for (index, sysctl) in sysctls.iter().enumerate() {
        let path = path.index(index);
        let name = path.field("name");
        if !sysctl.has_valid_name() {
            let reason = format!(
                "{:?} is no name of a setting, such as net.core.somaxconn: at most 253 of a-z, 0-9, '-' and '_' in parts \
                 between '.' or '/'",
                cut(&sysctl.name)
            );
            report.push(&name, reason);
            continue;
        }
        if let Some(why) = sysctl.refusal() {
            report.push(&name, format!("{:?} {why}", sysctl.name));
        }
        if !seen.insert(sysctl.path()) {
            report.push(&name, format!("{:?} is set twice", sysctl.name));
        }
        let value = path.field("value");
        no_nul(&sysctl.value, &value, report);
        if sysctl.value.len() > SYSCTL_VALUE_BYTES_MAX {
            report.push(&value, format!("must be at most {SYSCTL_VALUE_BYTES_MAX} bytes long"));
        }
    }
}

/// Checks what a container says for itself.
pub(super) fn container(spec: &PodSpec, container: &Container, path: &Path<'_>, report: &mut Report) {
    message(container, path, report);
    let path = path.field("securityContext");
    let found = spec.security_of(container);
    if found.run_as_non_root == Some(true) && found.run_as_user == Some(0) {
        report.push(&path.field("runAsUser"), "is 0, which runAsNonRoot refuses");
    }
    let Some(security) = container.security() else { return };
    id(security.run_as_user, &path.field("runAsUser"), report);
    id(security.run_as_group, &path.field("runAsGroup"), report);
    let (capabilities, lists) = (&security.capabilities, path.field("capabilities"));
    for (field, names) in [("add", &capabilities.add), ("drop", &capabilities.drop)] {
        let path = lists.field(field);
        report.at_most(&path, "capabilities", names.len(), SUPPLEMENTAL_GROUPS_MAX);
        for (index, name) in names.iter().enumerate() {
            capability(name, &path.index(index), report);
        }
    }
    if security.allow_privilege_escalation == Some(false) && security.privileged {
        let reason = "cannot be false for a privileged container: it has every right already";
        report.push(&path.field("allowPrivilegeEscalation"), reason);
    }
    let gives_all = |name: &SmolStr| name == "SYS_ADMIN" || name == CAPABILITIES_ALL;
    if security.allow_privilege_escalation == Some(false) && capabilities.add.iter().any(gives_all) {
        let reason = "cannot be false when SYS_ADMIN is given: with it a program gets every other right";
        report.push(&path.field("allowPrivilegeEscalation"), reason);
    }
}

fn message(container: &Container, path: &Path<'_>, report: &mut Report) {
    let Some(text) = container.options.get().and_then(|options| options.termination_message_path.as_ref())
    else {
        return;
    };
    let path = path.field("terminationMessagePath");
    no_nul(text, &path, report);
    let plain = |part: &str| !matches!(part, "" | "." | "..");
    let good = text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(plain));
    if !good || text.len() > MESSAGE_PATH_BYTES_MAX {
        report.push(
            &path,
            format!("{:?} must be an absolute path without empty parts, '.' and '..'", cut(text)),
        );
    }
}

fn id(id: Option<u32>, path: &Path<'_>, report: &mut Report) {
    if id.is_some_and(|id| id > ID_MAX) {
        report.push(path, format!("must be between 0 and {ID_MAX}"));
    }
}

fn capability(name: &SmolStr, path: &Path<'_>, report: &mut Report) {
    if name == CAPABILITIES_ALL || CAPABILITY_NAMES.contains(&name.as_str()) {
        return;
    }
    let bare = name.to_ascii_uppercase();
    let bare = bare.strip_prefix("CAP_").unwrap_or(&bare);
    let reason = if CAPABILITY_NAMES.contains(&bare) {
        format!("{:?} must be written as {bare:?}", cut(name))
    } else {
        format!("{:?} is no capability of Linux, such as NET_BIND_SERVICE, or ALL", cut(name))
    };
    report.push(path, reason);
}
