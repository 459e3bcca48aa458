//! Volumes, mounts, and variables that come from elsewhere, as values.

use bulkhead_types::{
    ConfigKeyRef, ConfigKind, ConfigProjection, DownwardItem, DownwardSource, EnvFrom, EnvSource, EnvVar,
    Projection, ResourceField, Volume, VolumeMount, VolumeSource, format_bytes, format_millis,
};
use serde_json::{Value, json};

use super::Fields;

/// One volume.
pub(super) fn volume(volume: &Volume) -> Value {
    let (kind, content) = match &volume.source {
        VolumeSource::EmptyDir { memory, size_limit_bytes, huge_pages } => {
            let of_memory = if *memory { "Memory" } else { "" };
            let fields = Fields::new()
                .nonempty("medium", huge_pages.get().map_or(of_memory, |medium| medium.name()))
                .optional("sizeLimit", size_limit_bytes.map(format_bytes).as_deref());
            ("emptyDir", fields)
        }
        VolumeSource::Files { source, default_mode } => {
            let (kind, fields) = projection(source, "secretName");
            (kind, fields.set("defaultMode", (*default_mode).into()))
        }
        VolumeSource::PersistentVolumeClaim { claim_name, read_only } => {
            let fields = Fields::new().text("claimName", claim_name);
            let fields = if *read_only { fields.set("readOnly", true.into()) } else { fields };
            ("persistentVolumeClaim", fields)
        }
        VolumeSource::Projected { sources, default_mode } => {
            let sources = sources.iter().map(|source| {
                let (kind, fields) = projection(source, "name");
                json!({ kind: fields.finish() })
            });
            let fields = Fields::new()
                .set("sources", sources.collect::<Vec<_>>().into())
                .set("defaultMode", (*default_mode).into());
            ("projected", fields)
        }
    };
    Fields::new().text("name", &volume.name).set(kind, content.finish()).finish()
}

fn projection(source: &Projection, secret_name: &str) -> (&'static str, Fields) {
    match source {
        Projection::ConfigMap(one) => ("configMap", config(one, "name")),
        Projection::Secret(one) => ("secret", config(one, secret_name)),
        Projection::DownwardApi { items } => {
            ("downwardAPI", Fields::new().list("items", items.iter().map(downward_item)))
        }
    }
}

fn config(source: &ConfigProjection, names_it: &str) -> Fields {
    let items = source.items.iter().map(|item| {
        let fields = Fields::new().text("key", &item.key).text("path", &item.path);
        fields.number("mode", item.mode.map(Into::into)).finish()
    });
    let fields = Fields::new().text(names_it, &source.name).list("items", items);
    if source.optional { fields.set("optional", true.into()) } else { fields }
}

fn downward_item(item: &DownwardItem) -> Value {
    let (kind, source) = downward(&item.source);
    let fields = Fields::new().text("path", &item.path).set(kind, source);
    fields.number("mode", item.mode.map(Into::into)).finish()
}

fn downward(source: &DownwardSource) -> (&'static str, Value) {
    match source {
        DownwardSource::Field(field) => ("fieldRef", json!({ "fieldPath": field.to_string() })),
        DownwardSource::Resource(ResourceField { container_name, resource, divisor }) => {
            let divisor = if resource.is_cpu() { format_millis(*divisor) } else { format_bytes(*divisor) };
            let fields = Fields::new()
                .optional("containerName", container_name.as_deref())
                .text("resource", resource.as_str())
                .text("divisor", &divisor);
            ("resourceFieldRef", fields.finish())
        }
    }
}

/// One mount.
pub(super) fn mount(mount: &VolumeMount) -> Value {
    let fields = Fields::new()
        .text("name", &mount.name)
        .text("mountPath", &mount.mount_path)
        .optional("subPath", mount.sub_path.as_deref());
    if mount.read_only { fields.set("readOnly", true.into()) } else { fields }.finish()
}

/// One variable.
pub(super) fn env_var(var: &EnvVar) -> Value {
    let Some(source) = var.value_from.get() else { return json!({ "name": var.name, "value": var.value }) };
    let (kind, source) = match source {
        EnvSource::ConfigMapKey(key) => ("configMapKeyRef", key_ref(key)),
        EnvSource::SecretKey(key) => ("secretKeyRef", key_ref(key)),
        EnvSource::Downward(source) => downward(source),
    };
    json!({ "name": var.name, "valueFrom": { kind: source } })
}

fn key_ref(key: &ConfigKeyRef) -> Value {
    let fields = Fields::new().text("name", &key.name).text("key", &key.key);
    if key.optional { fields.set("optional", true.into()) } else { fields }.finish()
}

/// A set of variables.
pub(super) fn env_from(from: &EnvFrom) -> Value {
    let kind = match from.kind {
        ConfigKind::ConfigMap => "configMapRef",
        ConfigKind::Secret => "secretRef",
    };
    let source = Fields::new().text("name", &from.name);
    let source = if from.optional { source.set("optional", true.into()) } else { source };
    Fields::new().nonempty("prefix", &from.prefix).set(kind, source.finish()).finish()
}
