//! What a pod takes from ConfigMaps, Secrets and itself: by name, never with the values.

use bulkhead_types::{
    ConfigKeyRef, ConfigKind, Container, DownwardSource, EnvSource, EnvVar, PodSpec, Projection, Volume,
    VolumeSource,
};

/// A line for each set of variables and each variable of a container.
pub(super) fn environment(container: &Container) -> Vec<String> {
    let sets = container.env_from().iter().map(|from| {
        let prefix = if from.prefix.is_empty() { String::new() } else { format!(" as {}...", from.prefix) };
        format!("<all of {}{prefix}>", object(from.kind, &from.name))
    });
    sets.chain(container.env.iter().map(variable)).collect()
}

fn variable(var: &EnvVar) -> String {
    let key = |kind, key: &ConfigKeyRef| format!("<key {} of {}>", key.key, object(kind, &key.name));
    let value = match var.value_from.get() {
        None => var.value.clone(),
        Some(EnvSource::ConfigMapKey(of)) => key(ConfigKind::ConfigMap, of),
        Some(EnvSource::SecretKey(of)) => key(ConfigKind::Secret, of),
        Some(EnvSource::Downward(DownwardSource::Field(field))) => format!("<{field}>"),
        Some(EnvSource::Downward(DownwardSource::Resource(field))) => {
            format!("<{}>", field.resource.as_str())
        }
    };
    format!("{}={value}", var.name)
}

fn object(kind: ConfigKind, name: &str) -> String {
    format!("{} {name}", kind.kind())
}

/// A line for each mount of a container.
pub(super) fn mounts(container: &Container) -> Vec<String> {
    let line = |mount: &bulkhead_types::VolumeMount| {
        let part = mount.sub_path.as_ref().map_or(String::new(), |path| format!("/{path}"));
        let how = if mount.read_only { " (read-only)" } else { "" };
        format!("{} from {}{part}{how}", mount.mount_path, mount.name)
    };
    container.volume_mounts().iter().map(line).collect()
}

/// A line for each volume of a pod.
pub(super) fn volumes(spec: &PodSpec) -> Vec<String> {
    spec.volumes().iter().map(|volume| format!("{}: {}", volume.name, content(volume))).collect()
}

fn content(volume: &Volume) -> String {
    match (&volume.source, volume.projections()) {
        (VolumeSource::EmptyDir { memory: true, .. }, _) => "empty at first, in memory".to_owned(),
        (VolumeSource::PersistentVolumeClaim { claim_name, read_only }, _) => {
            let how = if *read_only { " (read-only)" } else { "" };
            format!("PersistentVolumeClaim {claim_name}{how}")
        }
        (VolumeSource::EmptyDir { huge_pages, .. }, _) if huge_pages.get().is_some() => {
            "empty at first, in huge pages".to_owned()
        }
        (VolumeSource::EmptyDir { memory: false, .. }, _) | (_, None) => "empty at first".to_owned(),
        (_, Some((sources, _))) => sources.iter().map(source).collect::<Vec<_>>().join(", "),
    }
}

fn source(source: &Projection) -> String {
    match source {
        Projection::ConfigMap(one) => object(ConfigKind::ConfigMap, &one.name),
        Projection::Secret(one) => object(ConfigKind::Secret, &one.name),
        Projection::DownwardApi { .. } => "the pod's own fields".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_types::{ConfigProjection, ContainerOptions, EnvFrom, PodOptions, Rare, VolumeMount};

    use super::*;

    #[test]
    fn references_are_shown_by_name() {
        let token = ConfigKeyRef { name: "keys".into(), key: "token".into(), optional: false };
        let options = ContainerOptions {
            env_from: vec![EnvFrom {
                prefix: "P_".into(),
                kind: ConfigKind::ConfigMap,
                name: "settings".into(),
                optional: false,
            }],
            volume_mounts: vec![VolumeMount {
                name: "v".into(),
                mount_path: "/x".to_owned(),
                sub_path: Some("y".to_owned()),
                read_only: true,
            }],
            ..ContainerOptions::default()
        };
        let container = Container {
            env: vec![
                EnvVar { name: "A".to_owned(), value: "1".to_owned(), ..EnvVar::default() },
                EnvVar {
                    name: "B".to_owned(),
                    value_from: Rare::some(EnvSource::SecretKey(token)),
                    ..EnvVar::default()
                },
            ],
            options: Rare::some(options),
            ..Container::default()
        };
        let shown = ["<all of ConfigMap settings as P_...>", "A=1", "B=<key token of Secret keys>"];
        assert_eq!(environment(&container), shown);
        assert_eq!(mounts(&container), ["/x from v/y (read-only)"]);
        let keys = ConfigProjection { name: "keys".into(), optional: false, items: vec![] };
        let source = VolumeSource::Files { source: Projection::Secret(keys), default_mode: 0o644 };
        let options =
            PodOptions { volumes: vec![Volume { name: "v".into(), source }], ..PodOptions::default() };
        let spec = PodSpec { options: Rare::some(options), ..PodSpec::default() };
        assert_eq!(volumes(&spec), ["v: Secret keys"]);
    }
}
