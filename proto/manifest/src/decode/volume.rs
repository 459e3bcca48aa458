//! Volumes, mounts, and variables that come from elsewhere.

use bulkhead_types::{
    ConfigKeyRef, ConfigKind, ConfigProjection, ContainerResource, DownwardItem, DownwardSource, EnvFrom,
    EnvSource, FILE_MODE_DEFAULT, HugePageMedium, KeyToPath, PodField, Projection, ResourceField, Volume,
    VolumeMount, VolumeSource, parse_millis, parse_units,
};

use super::decoder::{Decoder, Fields, Fixed, Schema};
use crate::tree::{Node, Value};

const VOLUME: Schema = Schema {
    known: &["name", "emptyDir", "configMap", "secret", "downwardAPI", "projected", "persistentVolumeClaim"],
    not_yet: &[
        "awsElasticBlockStore",
        "azureDisk",
        "azureFile",
        "cephfs",
        "cinder",
        "csi",
        "ephemeral",
        "fc",
        "flexVolume",
        "flocker",
        "gcePersistentDisk",
        "gitRepo",
        "glusterfs",
        "hostPath",
        "image",
        "iscsi",
        "nfs",
        "photonPersistentDisk",
        "portworxVolume",
        "quobyte",
        "rbd",
        "scaleIO",
        "storageos",
        "vsphereVolume",
    ],
    ..Schema::EMPTY
};
const CLAIM: Schema = Schema { known: &["claimName", "readOnly"], ..Schema::EMPTY };
const EMPTY_DIR: Schema = Schema { known: &["medium", "sizeLimit"], ..Schema::EMPTY };
const CONFIG_MAP: Schema = Schema { known: &["name", "items", "defaultMode", "optional"], ..Schema::EMPTY };
const SECRET: Schema = Schema { known: &["secretName", "items", "defaultMode", "optional"], ..Schema::EMPTY };
const PROJECTED_CONFIG: Schema = Schema { known: &["name", "items", "optional"], ..Schema::EMPTY };
const DOWNWARD: Schema = Schema { known: &["items", "defaultMode"], ..Schema::EMPTY };
const PROJECTED_DOWNWARD: Schema = Schema { known: &["items"], ..Schema::EMPTY };
const PROJECTED: Schema = Schema { known: &["sources", "defaultMode"], ..Schema::EMPTY };
const SOURCE: Schema = Schema {
    known: &["configMap", "secret", "downwardAPI"],
    not_yet: &["clusterTrustBundle", "podCertificate", "serviceAccountToken"],
    ..Schema::EMPTY
};
const KEY_TO_PATH: Schema = Schema { known: &["key", "path", "mode"], ..Schema::EMPTY };
const DOWNWARD_ITEM: Schema =
    Schema { known: &["path", "mode", "fieldRef", "resourceFieldRef"], ..Schema::EMPTY };
const FIELD_REF: Schema =
    Schema { known: &["fieldPath"], fixed: &[("apiVersion", Fixed::Text("v1"))], ..Schema::EMPTY };
const RESOURCE_REF: Schema = Schema { known: &["containerName", "resource", "divisor"], ..Schema::EMPTY };
const MOUNT: Schema = Schema {
    known: &["name", "mountPath", "subPath", "readOnly"],
    fixed: &[("mountPropagation", Fixed::Text("None")), ("recursiveReadOnly", Fixed::Text("Disabled"))],
    not_yet: &["subPathExpr"],
    ..Schema::EMPTY
};
const VALUE_FROM: Schema = Schema {
    known: &["configMapKeyRef", "secretKeyRef", "fieldRef", "resourceFieldRef"],
    not_yet: &["fileKeyRef"],
    ..Schema::EMPTY
};
const KEY_REF: Schema = Schema { known: &["name", "key", "optional"], ..Schema::EMPTY };
const ENV_FROM: Schema = Schema { known: &["prefix", "configMapRef", "secretRef"], ..Schema::EMPTY };
const NAME_REF: Schema = Schema { known: &["name", "optional"], ..Schema::EMPTY };

/// The one of these fields that is there; anything else than one is a mistake.
pub(super) fn one_of<'n>(
    d: &mut Decoder<'_>,
    fields: &Fields<'n>,
    names: &[&'static str],
    node: &Node,
    path: &str,
) -> Option<(&'static str, &'n Node)> {
    let found: Vec<_> = names.iter().filter_map(|name| Some((*name, fields.get(name)?))).collect();
    match found.as_slice() {
        [one] => Some(*one),
        [] => {
            d.fail(node.place, path, format!("needs one of {}", names.join(", ")));
            None
        }
        [_, (second, there), ..] => {
            d.fail(
                there.place,
                &fields.path(second),
                format!("only one of {} is possible", names.join(", ")),
            );
            None
        }
    }
}

/// One volume.
pub(super) fn volume(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<Volume> {
    let fields = d.fields(node, path, &VOLUME)?;
    let name = d.required_text(&fields, "name").unwrap_or_default();
    if VOLUME.not_yet.iter().any(|other| fields.get(other).is_some()) {
        // Told already; that none of the others is there would only mislead.
        return None;
    }
    let (kind, inner) = one_of(d, &fields, &VOLUME.known[1..], node, path)?;
    let path = fields.path(kind);
    let source = match kind {
        "emptyDir" => empty_dir(d, inner, &path)?,
        "persistentVolumeClaim" => {
            let fields = d.fields(inner, &path, &CLAIM)?;
            let claim_name = d.required_text(&fields, "claimName").unwrap_or_default().into();
            let read_only = d.boolean(&fields, "readOnly").unwrap_or_default();
            VolumeSource::PersistentVolumeClaim { claim_name, read_only }
        }
        "projected" => {
            let fields = d.fields(inner, &path, &PROJECTED)?;
            let sources = d.each(&fields, "sources", projection);
            VolumeSource::Projected {
                sources,
                default_mode: mode(d, &fields, "defaultMode").unwrap_or(FILE_MODE_DEFAULT),
            }
        }
        kind => {
            let schema = match kind {
                "configMap" => &CONFIG_MAP,
                "secret" => &SECRET,
                _ => &DOWNWARD,
            };
            let fields = d.fields(inner, &path, schema)?;
            let default_mode = mode(d, &fields, "defaultMode").unwrap_or(FILE_MODE_DEFAULT);
            let source = files(d, &fields, kind, if kind == "secret" { "secretName" } else { "name" });
            VolumeSource::Files { source, default_mode }
        }
    };
    Some(Volume { name: name.into(), source })
}

/// What an emptyDir may be made of; memory is `None`.
const MEDIA: [(&str, Option<HugePageMedium>); 4] = {
    let [any, two, one] = HugePageMedium::NAMES;
    [("Memory", None), (any.0, Some(any.1)), (two.0, Some(two.1)), (one.0, Some(one.1))]
};

fn empty_dir(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<VolumeSource> {
    let fields = d.fields(node, path, &EMPTY_DIR)?;
    let medium = match d.text(&fields, "medium") {
        Some(text) if text.is_empty() => None,
        _ => d.choice(&fields, "medium", &MEDIA),
    };
    let size_limit_bytes = quantity(d, &fields, "sizeLimit", parse_units);
    let (memory, huge_pages) = (medium == Some(None), medium.flatten().into());
    Some(VolumeSource::EmptyDir { memory, size_limit_bytes, huge_pages })
}

fn projection(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<Projection> {
    let fields = d.fields(node, path, &SOURCE)?;
    if SOURCE.not_yet.iter().any(|other| fields.get(other).is_some()) {
        return None;
    }
    let (kind, inner) = one_of(d, &fields, SOURCE.known, node, path)?;
    let schema = if kind == "downwardAPI" { &PROJECTED_DOWNWARD } else { &PROJECTED_CONFIG };
    let inner = d.fields(inner, &fields.path(kind), schema)?;
    Some(files(d, &inner, kind, "name"))
}

fn files(d: &mut Decoder<'_>, fields: &Fields<'_>, kind: &str, names_it: &str) -> Projection {
    if kind == "downwardAPI" {
        return Projection::DownwardApi { items: d.each(fields, "items", downward_item) };
    }
    let source = ConfigProjection {
        name: d.required_text(fields, names_it).unwrap_or_default().into(),
        optional: d.boolean(fields, "optional").unwrap_or_default(),
        items: d.each(fields, "items", key_to_path),
    };
    if kind == "secret" { Projection::Secret(source) } else { Projection::ConfigMap(source) }
}

fn key_to_path(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<KeyToPath> {
    let fields = d.fields(node, path, &KEY_TO_PATH)?;
    let (key, path) = (d.required_text(&fields, "key"), d.required_text(&fields, "path"));
    Some(KeyToPath { key: key?.into(), path: path?, mode: mode(d, &fields, "mode") })
}

fn downward_item(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<DownwardItem> {
    let fields = d.fields(node, path, &DOWNWARD_ITEM)?;
    let file = d.required_text(&fields, "path");
    let (kind, inner) = one_of(d, &fields, &["fieldRef", "resourceFieldRef"], node, path)?;
    let source = downward(d, inner, &fields.path(kind), kind);
    Some(DownwardItem { path: file?, source: source?, mode: mode(d, &fields, "mode") })
}

fn downward(d: &mut Decoder<'_>, node: &Node, path: &str, kind: &str) -> Option<DownwardSource> {
    if kind == "fieldRef" {
        let fields = d.fields(node, path, &FIELD_REF)?;
        let text = d.required_text(&fields, "fieldPath")?;
        return match PodField::parse(&text) {
            Ok(field) => Some(DownwardSource::Field(field)),
            Err(error) => {
                d.fail(fields.place("fieldPath"), &fields.path("fieldPath"), error.to_string());
                None
            }
        };
    }
    let fields = d.fields(node, path, &RESOURCE_REF)?;
    if fields.get("resource").is_none() {
        d.missing(&fields, "resource");
    }
    let names = ContainerResource::ALL.map(|one| (one.as_str(), one));
    let resource = d.choice(&fields, "resource", &names)?;
    let given = quantity(d, &fields, "divisor", if resource.is_cpu() { parse_millis } else { parse_units });
    // Kubernetes' "0" means 1 as well.
    let divisor = given.filter(|divisor| *divisor > 0);
    let container_name = d.text(&fields, "containerName").filter(|name| !name.is_empty()).map(Into::into);
    let default = if resource.is_cpu() { ResourceField::CORE } else { 1 };
    Some(DownwardSource::Resource(ResourceField {
        container_name,
        resource,
        divisor: divisor.unwrap_or(default),
    }))
}

pub(super) fn quantity<E: std::fmt::Display>(
    d: &mut Decoder<'_>,
    fields: &Fields<'_>,
    name: &str,
    parse: fn(&str) -> Result<u64, E>,
) -> Option<u64> {
    let node = fields.get(name)?;
    let (Value::Text(text) | Value::Number(text)) = &node.value else {
        d.fail(node.place, &fields.path(name), format!("expected a quantity, found {}", node.describe()));
        return None;
    };
    match parse(text) {
        Ok(amount) => Some(amount),
        Err(error) => {
            d.fail(node.place, &fields.path(name), error.to_string());
            None
        }
    }
}

/// Permissions: octal as in `0644` (YAML 1.1, which Kubernetes reads) or `0o644`, or decimal.
fn mode(d: &mut Decoder<'_>, fields: &Fields<'_>, name: &str) -> Option<u32> {
    let node = fields.get(name)?;
    let read = match &node.value {
        Value::Number(text) => match text.strip_prefix("0o").or_else(|| text.strip_prefix('0')) {
            Some(digits) if !digits.is_empty() => u32::from_str_radix(digits, 8).ok(),
            _ => text.parse().ok(),
        },
        _ => None,
    };
    if read.is_none() {
        let reason = format!("expected permissions such as 0644, found {}", node.describe());
        d.fail(node.place, &fields.path(name), reason);
    }
    read
}

/// One mount.
pub(super) fn mount(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<VolumeMount> {
    let fields = d.fields(node, path, &MOUNT)?;
    let (name, mount_path) = (d.required_text(&fields, "name"), d.required_text(&fields, "mountPath"));
    Some(VolumeMount {
        name: name?.into(),
        mount_path: mount_path?,
        sub_path: d.text(&fields, "subPath").filter(|path| !path.is_empty()),
        read_only: d.boolean(&fields, "readOnly").unwrap_or_default(),
    })
}

/// Where a variable's value comes from.
pub(super) fn value_from(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<EnvSource> {
    let fields = d.fields(node, path, &VALUE_FROM)?;
    if VALUE_FROM.not_yet.iter().any(|other| fields.get(other).is_some()) {
        return None;
    }
    let (kind, inner) = one_of(d, &fields, VALUE_FROM.known, node, path)?;
    let path = fields.path(kind);
    if kind == "fieldRef" || kind == "resourceFieldRef" {
        return downward(d, inner, &path, kind).map(EnvSource::Downward);
    }
    let fields = d.fields(inner, &path, &KEY_REF)?;
    let (name, key) = (d.required_text(&fields, "name"), d.required_text(&fields, "key"));
    let optional = d.boolean(&fields, "optional").unwrap_or_default();
    let key = ConfigKeyRef { name: name?.into(), key: key?.into(), optional };
    Some(if kind == "secretKeyRef" { EnvSource::SecretKey(key) } else { EnvSource::ConfigMapKey(key) })
}

/// A set of variables.
pub(super) fn env_from(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<EnvFrom> {
    let fields = d.fields(node, path, &ENV_FROM)?;
    let prefix = d.text(&fields, "prefix").unwrap_or_default().into();
    let (kind, inner) = one_of(d, &fields, &ENV_FROM.known[1..], node, path)?;
    let inner = d.fields(inner, &fields.path(kind), &NAME_REF)?;
    let kind = if kind == "secretRef" { ConfigKind::Secret } else { ConfigKind::ConfigMap };
    let optional = d.boolean(&inner, "optional").unwrap_or_default();
    Some(EnvFrom { prefix, kind, name: d.required_text(&inner, "name")?.into(), optional })
}
