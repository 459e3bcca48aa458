//! Rules for what a pod takes from ConfigMaps, Secrets and itself.

use std::collections::BTreeSet;

use super::config::check_key;
use super::pod::{cut, is_env_name, no_nul};
use super::{AMOUNT_MAX, Path, Report, huge_pages as of_huge_pages};
use crate::{
    ConfigProjection, Container, DownwardSource, EnvSource, EnvVar, Name, PodField, PodSpec, Projection,
    ResourceField, Volume, VolumeSource, check_label_key, is_dns_label,
};

/// Most volumes of a pod, and most mounts of a container.
pub const VOLUMES_MAX: usize = 64;
/// Most sources of variable sets of a container, and most sources of a projected volume.
pub const SOURCES_MAX: usize = 64;
/// Most items of one source.
pub const ITEMS_OF_SOURCE_MAX: usize = 1024;
/// Longest path in a volume or of a mount, in bytes.
const PATH_BYTES_MAX: usize = 1024;
/// Every permission bit.
const MODE_MAX: u32 = 0o777;

/// Checks the volumes of a pod.
pub(super) fn volumes(spec: &PodSpec, path: &Path<'_>, report: &mut Report) {
    let path = path.field("volumes");
    report.at_most(&path, "volumes", spec.volumes().len(), VOLUMES_MAX);
    let mut names = BTreeSet::new();
    for (index, one) in spec.volumes().iter().enumerate() {
        let path = path.index(index);
        if !is_dns_label(&one.name) {
            report.push(&path.field("name"), format!("{:?} must be a DNS label", cut(&one.name)));
        } else if !names.insert(&one.name) {
            let reason = format!("{:?} is used twice: names of volumes are unique in a pod", one.name);
            report.push(&path.field("name"), reason);
        }
        volume(spec, one, &path, report);
    }
}

fn volume(spec: &PodSpec, volume: &Volume, path: &Path<'_>, report: &mut Report) {
    match &volume.source {
        VolumeSource::EmptyDir { size_limit_bytes, huge_pages, memory } => {
            if let Some(medium) = huge_pages.get() {
                of_huge_pages::medium(
                    spec,
                    *medium,
                    *memory,
                    &path.field("emptyDir").field("medium"),
                    report,
                );
            }
            if size_limit_bytes.is_some_and(|bytes| bytes == 0 || bytes > AMOUNT_MAX) {
                let reason = "must be more than nothing, and at most 2^53";
                report.push(&path.field("emptyDir").field("sizeLimit"), reason);
            }
        }
        VolumeSource::Files { source, default_mode } => {
            let name = match source {
                Projection::ConfigMap(_) => "configMap",
                Projection::Secret(_) => "secret",
                Projection::DownwardApi { .. } => "downwardAPI",
            };
            let path = path.field(name);
            mode(*default_mode, &path.field("defaultMode"), report);
            let names_it = if name == "secret" { "secretName" } else { "name" };
            projection(spec, source, &path, names_it, report);
        }
        // See `claim`.
        VolumeSource::PersistentVolumeClaim { .. } => {}
        VolumeSource::Projected { sources, default_mode } => {
            let path = path.field("projected");
            mode(*default_mode, &path.field("defaultMode"), report);
            let path = path.field("sources");
            report.at_most(&path, "sources", sources.len(), SOURCES_MAX);
            for (index, source) in sources.iter().enumerate() {
                let name = match source {
                    Projection::ConfigMap(_) => "configMap",
                    Projection::Secret(_) => "secret",
                    Projection::DownwardApi { .. } => "downwardAPI",
                };
                projection(spec, source, &path.index(index).field(name), "name", report);
            }
        }
    }
}

fn projection(spec: &PodSpec, source: &Projection, path: &Path<'_>, name: &'static str, report: &mut Report) {
    match source {
        Projection::ConfigMap(one) | Projection::Secret(one) => config(one, path, name, report),
        Projection::DownwardApi { items } => {
            let path = path.field("items");
            report.at_most(&path, "items", items.len(), ITEMS_OF_SOURCE_MAX);
            for (index, item) in items.iter().enumerate() {
                let path = path.index(index);
                relative(&item.path, &path.field("path"), report);
                item.mode.iter().for_each(|m| mode(*m, &path.field("mode"), report));
                downward(spec, &item.source, &path, report);
                if let DownwardSource::Field(field) = &item.source
                    && field.is_address()
                {
                    let path = path.field("fieldRef");
                    report.push(&path.field("fieldPath"), format!("{field} is told in variables only"));
                }
                if let DownwardSource::Resource(ResourceField { container_name: None, .. }) = &item.source {
                    let path = path.field("resourceFieldRef");
                    report.push(&path.field("containerName"), "is required in a volume");
                }
            }
        }
    }
}

fn config(source: &ConfigProjection, path: &Path<'_>, name: &'static str, report: &mut Report) {
    report.check(&path.field(name), Name::new(&source.name).map(drop));
    let path = path.field("items");
    report.at_most(&path, "items", source.items.len(), ITEMS_OF_SOURCE_MAX);
    for (index, item) in source.items.iter().enumerate() {
        let path = path.index(index);
        check_key(&item.key, &path.field("key"), report);
        relative(&item.path, &path.field("path"), report);
        item.mode.iter().for_each(|m| mode(*m, &path.field("mode"), report));
    }
}

fn mode(mode: u32, path: &Path<'_>, report: &mut Report) {
    if mode > MODE_MAX {
        report.push(path, "must be between 0 and 0777");
    }
}

/// A path in a volume: relative, plain, and not one of the names that the volume's own bookkeeping uses.
fn relative(text: &str, path: &Path<'_>, report: &mut Report) {
    no_nul(text, path, report);
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    let good = text.split('/').all(plain) && !text.starts_with("..") && text.len() <= PATH_BYTES_MAX;
    if !good {
        let reason = format!(
            "{:?} must be a relative path without empty parts, '.' and '..', must not begin with '..', and must have at \
             most {PATH_BYTES_MAX} bytes",
            cut(text)
        );
        report.push(path, reason);
    }
}

fn downward(spec: &PodSpec, source: &DownwardSource, path: &Path<'_>, report: &mut Report) {
    match source {
        DownwardSource::Field(PodField::Label(key) | PodField::Annotation(key)) => {
            let path = path.field("fieldRef");
            report.check(&path.field("fieldPath"), check_label_key(&key.to_ascii_lowercase()));
        }
        DownwardSource::Field(_) => {}
        DownwardSource::Resource(field) => {
            let path = path.field("resourceFieldRef");
            if field.divisor == 0 {
                report.push(&path.field("divisor"), "must be more than 0");
            }
            if let Some(name) = &field.container_name
                && !spec.all_containers().any(|c| c.name == *name)
            {
                let reason = format!("{:?} is no container of the pod", cut(name));
                report.push(&path.field("containerName"), reason);
            }
        }
    }
}

/// Checks where a variable's value comes from.
pub(super) fn value_from(spec: &PodSpec, var: &EnvVar, path: &Path<'_>, report: &mut Report) {
    let Some(source) = var.value_from.get() else { return };
    if !var.value.is_empty() {
        report.push(&path.field("value"), "must be empty when valueFrom is set");
    }
    let path = path.field("valueFrom");
    let (name, key) = match source {
        EnvSource::ConfigMapKey(key) => ("configMapKeyRef", key),
        EnvSource::SecretKey(key) => ("secretKeyRef", key),
        EnvSource::Downward(DownwardSource::Field(PodField::Labels | PodField::Annotations)) => {
            let path = path.field("fieldRef");
            return report
                .push(&path.field("fieldPath"), "is possible in a volume only: name a key in ['...']");
        }
        EnvSource::Downward(source) => return downward(spec, source, &path, report),
    };
    let path = path.field(name);
    report.check(&path.field("name"), Name::new(&key.name).map(drop));
    check_key(&key.key, &path.field("key"), report);
}

/// Checks a container's sets of variables and its mounts.
pub(super) fn container(spec: &PodSpec, container: &Container, path: &Path<'_>, report: &mut Report) {
    let sources = path.field("envFrom");
    report.at_most(&sources, "sources", container.env_from().len(), SOURCES_MAX);
    for (index, from) in container.env_from().iter().enumerate() {
        let path = sources.index(index);
        let name = match from.kind {
            crate::ConfigKind::ConfigMap => "configMapRef",
            crate::ConfigKind::Secret => "secretRef",
        };
        report.check(&path.field(name).field("name"), Name::new(&from.name).map(drop));
        if !from.prefix.is_empty() && !is_env_name(&from.prefix) {
            report.push(&path.field("prefix"), "must be printable ASCII without '='");
        }
    }
    mounts(spec, container, path, report);
}

fn mounts(spec: &PodSpec, container: &Container, path: &Path<'_>, report: &mut Report) {
    let path = path.field("volumeMounts");
    report.at_most(&path, "mounts", container.volume_mounts().len(), VOLUMES_MAX);
    let mut paths = BTreeSet::new();
    for (index, mount) in container.volume_mounts().iter().enumerate() {
        let path = path.index(index);
        if !spec.volumes().iter().any(|v| v.name == mount.name) {
            report.push(&path.field("name"), format!("{:?} is no volume of the pod", cut(&mount.name)));
        }
        let at = path.field("mountPath");
        let target = mount.mount_path.trim_end_matches('/');
        no_nul(target, &at, report);
        let plain = target.split('/').skip(1).all(|part| !part.is_empty() && part != "." && part != "..");
        if !target.starts_with('/') || !plain || target.contains(':') || target.len() > PATH_BYTES_MAX {
            let reason = format!(
                "{:?} must be an absolute path below /, without ':', empty parts, '.' and '..'",
                cut(&mount.mount_path)
            );
            report.push(&at, reason);
        } else if !paths.insert(target) {
            report.push(&at, format!("{:?} is used twice in the container", cut(target)));
        }
        if let Some(sub_path) = &mount.sub_path {
            relative(sub_path, &path.field("subPath"), report);
        }
    }
}

/// Bytes of a pod's options, roughly.
pub(super) fn bytes(spec: &PodSpec) -> usize {
    const ENTRY_BYTES: usize = 64;
    let projection = |one: &Projection| match one {
        Projection::ConfigMap(c) | Projection::Secret(c) => {
            let items = c.items.iter().map(|i| i.key.len() + i.path.len() + ENTRY_BYTES);
            c.name.len() + items.sum::<usize>() + ENTRY_BYTES
        }
        Projection::DownwardApi { items } => items.iter().map(|i| i.path.len() + 2 * ENTRY_BYTES).sum(),
    };
    let volume = |v: &Volume| {
        let sources = v.projections().map_or(0, |(sources, _)| sources.iter().map(projection).sum());
        v.name.len() + ENTRY_BYTES + sources
    };
    let container = |c: &Container| {
        let from = c.env_from().iter().map(|f| f.prefix.len() + f.name.len() + ENTRY_BYTES);
        let sub_path = |m: &crate::VolumeMount| m.sub_path.as_ref().map_or(0, String::len);
        let mounts = c.volume_mounts().iter().map(|m| m.mount_path.len() + sub_path(m) + ENTRY_BYTES);
        let values = c.env.iter().filter(|v| v.value_from.get().is_some()).count() * 2 * ENTRY_BYTES;
        from.sum::<usize>() + mounts.sum::<usize>() + values
    };
    spec.volumes().iter().map(volume).sum::<usize>() + spec.all_containers().map(container).sum::<usize>()
}
