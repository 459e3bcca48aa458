//! Security contexts.

use bulkhead_types::{
    Capabilities, FsGroupChangePolicy, PodSecurityContext, Rare, SeccompProfile, SecurityContext, Sysctl,
};
use smol_str::SmolStr;

use super::decoder::{Decoder, Fields, Fixed, Schema};
use crate::tree::{Node, Value};

const CONTAINER: Schema = Schema {
    known: &[
        "runAsUser",
        "runAsGroup",
        "runAsNonRoot",
        "readOnlyRootFilesystem",
        "allowPrivilegeEscalation",
        "privileged",
        "capabilities",
        "seccompProfile",
    ],
    fixed: &[("procMount", Fixed::Text("Default"))],
    not_yet: &["appArmorProfile", "seLinuxOptions", "windowsOptions"],
    ..Schema::EMPTY
};
const POD: Schema = Schema {
    known: &[
        "runAsUser",
        "runAsGroup",
        "runAsNonRoot",
        "supplementalGroups",
        "fsGroup",
        "fsGroupChangePolicy",
        "seccompProfile",
        "sysctls",
    ],
    fixed: &[("supplementalGroupsPolicy", Fixed::Text("Merge"))],
    not_yet: &["appArmorProfile", "seLinuxChangePolicy", "seLinuxOptions", "windowsOptions"],
    ..Schema::EMPTY
};
const CHANGE_POLICIES: [(&str, FsGroupChangePolicy); 2] =
    [("Always", FsGroupChangePolicy::Always), ("OnRootMismatch", FsGroupChangePolicy::OnRootMismatch)];
const CAPABILITIES: Schema = Schema { known: &["add", "drop"], ..Schema::EMPTY };
const SYSCTL: Schema = Schema { known: &["name", "value"], ..Schema::EMPTY };
const SECCOMP: Schema = Schema { known: &["type", "localhostProfile"], ..Schema::EMPTY };

/// What a container says for itself.
pub(super) fn container(d: &mut Decoder<'_>, container: &Fields<'_>) -> Rare<SecurityContext> {
    let Some(fields) = section(d, container, &CONTAINER) else { return Rare::NONE };
    Rare::unless_default(SecurityContext {
        run_as_user: id(d, &fields, "runAsUser"),
        run_as_group: id(d, &fields, "runAsGroup"),
        run_as_non_root: d.boolean(&fields, "runAsNonRoot"),
        read_only_root_filesystem: d.boolean(&fields, "readOnlyRootFilesystem"),
        allow_privilege_escalation: d.boolean(&fields, "allowPrivilegeEscalation"),
        capabilities: capabilities(d, &fields),
        seccomp_profile: seccomp(d, &fields),
        privileged: d.boolean(&fields, "privileged").unwrap_or_default(),
    })
}

/// What holds for all containers.
pub(super) fn pod(d: &mut Decoder<'_>, spec: &Fields<'_>) -> Rare<PodSecurityContext> {
    let Some(fields) = section(d, spec, &POD) else { return Rare::NONE };
    Rare::unless_default(PodSecurityContext {
        run_as_user: id(d, &fields, "runAsUser"),
        run_as_group: id(d, &fields, "runAsGroup"),
        run_as_non_root: d.boolean(&fields, "runAsNonRoot"),
        supplemental_groups: d.each(&fields, "supplementalGroups", group),
        fs_group: id(d, &fields, "fsGroup"),
        fs_group_change_policy: d.choice(&fields, "fsGroupChangePolicy", &CHANGE_POLICIES),
        seccomp_profile: seccomp(d, &fields),
        sysctls: d.each(&fields, "sysctls", sysctl),
    })
}

fn sysctl(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<Sysctl> {
    let fields = d.fields(node, path, &SYSCTL)?;
    let (name, value) = (d.required_text(&fields, "name"), d.required_text(&fields, "value"));
    Some(Sysctl { name: name?.into(), value: value? })
}

fn section<'n>(d: &mut Decoder<'_>, outer: &Fields<'n>, schema: &Schema) -> Option<Fields<'n>> {
    outer.get("securityContext").and_then(|node| d.fields(node, &outer.path("securityContext"), schema))
}

fn id(d: &mut Decoder<'_>, fields: &Fields<'_>, name: &str) -> Option<u32> {
    d.number(fields, name, i32::MAX as u64).and_then(|id| u32::try_from(id).ok())
}

fn group(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<u32> {
    let found = match &node.value {
        Value::Number(text) => text.parse().ok().filter(|id| i32::try_from(*id).is_ok()),
        _ => None,
    };
    if found.is_none() {
        d.fail(
            node.place,
            path,
            format!("expected a group from 0 to {}, found {}", i32::MAX, node.describe()),
        );
    }
    found
}

fn capabilities(d: &mut Decoder<'_>, security: &Fields<'_>) -> Capabilities {
    let fields = security
        .get("capabilities")
        .and_then(|node| d.fields(node, &security.path("capabilities"), &CAPABILITIES));
    let Some(fields) = fields else { return Capabilities::default() };
    let mut names = |name| d.texts(&fields, name).into_iter().map(SmolStr::from).collect();
    Capabilities { add: names("add"), drop: names("drop") }
}

fn seccomp(d: &mut Decoder<'_>, security: &Fields<'_>) -> Option<SeccompProfile> {
    let (node, path) = (security.get("seccompProfile")?, security.path("seccompProfile"));
    let fields = d.fields(node, &path, &SECCOMP)?;
    match d.required_text(&fields, "type")?.as_str() {
        "RuntimeDefault" => return Some(SeccompProfile::RuntimeDefault),
        "Unconfined" => return Some(SeccompProfile::Unconfined),
        "Localhost" => {
            let reason = "Localhost is not offered: nodes hold no profiles of tenants; use RuntimeDefault";
            d.fail(fields.place("type"), &fields.path("type"), reason);
        }
        other => {
            let reason = format!("{other:?} is not one of RuntimeDefault, Unconfined");
            d.fail(fields.place("type"), &fields.path("type"), reason);
        }
    }
    None
}
