//! PersistentVolumeClaims, and those of StatefulSets.

use bulkhead_types::{
    AccessMode, BuiltinClass, ClaimRetention, ClaimSource, ClaimSourceKind, PersistentVolumeClaimSpec, Rare,
    VolumeClaimTemplate, VolumeClaims, VolumeSnapshotSpec, parse_units,
};

use super::decoder::{Decoder, Fields, Fixed, Schema};
use super::volume::quantity;
use crate::tree::Node;

const CLAIM: Schema = Schema {
    known: &["accessModes", "resources", "storageClassName", "volumeMode", "dataSource"],
    not_yet: &["selector", "volumeName", "dataSourceRef", "volumeAttributesClassName"],
    ..Schema::EMPTY
};
/// Claims of templates are all alike, but what each would begin with is not.
const CLAIM_OF_TEMPLATE: Schema = Schema {
    known: &["accessModes", "resources", "storageClassName", "volumeMode"],
    not_yet: &["selector", "volumeName", "dataSource", "dataSourceRef", "volumeAttributesClassName"],
    ..Schema::EMPTY
};
const SOURCE: Schema = Schema { known: &["apiGroup", "kind", "name"], ..Schema::EMPTY };
const SOURCES: [(&str, ClaimSourceKind); 2] = [
    ("PersistentVolumeClaim", ClaimSourceKind::PersistentVolumeClaim),
    ("VolumeSnapshot", ClaimSourceKind::VolumeSnapshot),
];
const SNAPSHOT: Schema =
    Schema { known: &["source"], not_yet: &["volumeSnapshotClassName"], ..Schema::EMPTY };
const SNAPSHOT_SOURCE: Schema = Schema {
    known: &["persistentVolumeClaimName"],
    not_yet: &["volumeSnapshotContentName"],
    ..Schema::EMPTY
};
const RESOURCES: Schema = Schema { known: &["requests"], not_yet: &["limits"], ..Schema::EMPTY };
const REQUESTS: Schema = Schema { known: &["storage"], ..Schema::EMPTY };
const TEMPLATE: Schema = Schema {
    known: &["metadata", "spec"],
    ignored: &["status"],
    fixed: &[("apiVersion", Fixed::Text("v1")), ("kind", Fixed::Text("PersistentVolumeClaim"))],
    ..Schema::EMPTY
};
const TEMPLATE_META: Schema = Schema {
    known: &["name", "labels", "annotations"],
    ignored: &["creationTimestamp"],
    not_yet: &["namespace", "generateName", "finalizers", "ownerReferences"],
    ..Schema::EMPTY
};
const RETENTION: Schema = Schema { known: &["whenDeleted", "whenScaled"], ..Schema::EMPTY };
const RETENTIONS: [(&str, ClaimRetention); 2] =
    [("Retain", ClaimRetention::Retain), ("Delete", ClaimRetention::Delete)];

/// What is wanted of a volume, and what it begins with.
pub(super) fn claim(
    d: &mut Decoder<'_>,
    node: &Node,
) -> Option<(PersistentVolumeClaimSpec, Rare<ClaimSource>)> {
    let fields = d.fields(node, "spec", &CLAIM)?;
    let source = fields.get("dataSource").map(|node| source(d, node, &fields.path("dataSource")));
    let spec = claim_spec(d, &fields);
    match source {
        Some(source) => Some((spec?, Rare::some(source?))),
        None => Some((spec?, Rare::NONE)),
    }
}

fn source(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<ClaimSource> {
    let fields = d.fields(node, path, &SOURCE)?;
    d.required_text(&fields, "kind")?;
    let kind = d.choice(&fields, "kind", &SOURCES);
    let name = d.required_text(&fields, "name");
    let group = d.text(&fields, "apiGroup").unwrap_or_default();
    let kind = kind?;
    // Kubernetes' default is the core group, in which there are no snapshots.
    let wanted = kind.kind().api_version().split_once('/').map_or("", |(group, _)| group);
    if group != wanted {
        let reason = match wanted {
            "" => format!("a {} is in the core group: leave the field out", kind.kind()),
            wanted => format!("a {} is in {wanted}", kind.kind()),
        };
        d.fail(fields.place("apiGroup"), &fields.path("apiGroup"), reason);
        return None;
    }
    Some(ClaimSource { kind, name: name?.into() })
}

/// Of what a snapshot is.
pub(super) fn snapshot(d: &mut Decoder<'_>, node: &Node) -> Option<VolumeSnapshotSpec> {
    let fields = d.fields(node, "spec", &SNAPSHOT)?;
    let source = child(d, &fields, "source", &SNAPSHOT_SOURCE)?;
    let claim_name = d.required_text(&source, "persistentVolumeClaimName")?.into();
    Some(VolumeSnapshotSpec { claim_name })
}

fn claim_spec(d: &mut Decoder<'_>, fields: &Fields<'_>) -> Option<PersistentVolumeClaimSpec> {
    let access_mode = access_mode(d, fields);
    volume_mode(d, fields);
    let storage_class = storage_class(d, fields);
    let resources = child(d, fields, "resources", &RESOURCES);
    let requests = resources.and_then(|resources| child(d, &resources, "requests", &REQUESTS))?;
    if requests.get("storage").is_none() {
        d.missing(&requests, "storage");
    }
    let storage_bytes = quantity(d, &requests, "storage", parse_units)?;
    Some(PersistentVolumeClaimSpec {
        access_mode: access_mode?,
        storage_bytes,
        storage_class: storage_class?,
    })
}

fn child<'n>(d: &mut Decoder<'_>, fields: &Fields<'n>, name: &str, schema: &Schema) -> Option<Fields<'n>> {
    let Some(node) = fields.get(name) else {
        d.missing(fields, name);
        return None;
    };
    d.fields(node, &fields.path(name), schema)
}

fn access_mode(d: &mut Decoder<'_>, fields: &Fields<'_>) -> Option<AccessMode> {
    if fields.get("accessModes").is_none() {
        d.missing(fields, "accessModes");
        return None;
    }
    let mut modes = d.texts(fields, "accessModes");
    modes.sort();
    modes.dedup();
    let modes: Vec<&str> = modes.iter().map(String::as_str).collect();
    let is_same = |mode: &AccessMode| {
        let mut names = mode.modes().to_vec();
        names.sort_unstable();
        names == modes
    };
    if let Some(mode) = AccessMode::ALL.into_iter().find(is_same) {
        return Some(mode);
    }
    let known = |mode: &&&str| AccessMode::ALL.iter().any(|one| one.modes().contains(*mode));
    let reason = if modes.contains(&"ReadWriteMany") {
        "volumes are local to one node, and one guest at a time writes to them: ReadWriteMany is not possible; several pods \
         of one node read by ReadOnlyMany"
            .to_owned()
    } else if let Some(other) = modes.iter().find(|mode| !known(mode)) {
        format!("{other:?} is not one of ReadWriteOnce, ReadWriteOncePod, ReadOnlyMany")
    } else if modes.is_empty() {
        "must be one of ReadWriteOnce, ReadWriteOncePod and ReadOnlyMany, or ReadWriteOnce with ReadOnlyMany"
            .to_owned()
    } else {
        "ReadWriteOncePod is possible alone only".to_owned()
    };
    d.fail(fields.place("accessModes"), &fields.path("accessModes"), reason);
    None
}

fn volume_mode(d: &mut Decoder<'_>, fields: &Fields<'_>) {
    let reason = match d.text(fields, "volumeMode").as_deref() {
        None | Some("Filesystem") => return,
        Some("Block") => {
            "block devices are not given to containers yet: use Filesystem, or leave the field out".to_owned()
        }
        Some(other) => format!("{other:?} is not one of Filesystem"),
    };
    d.fail(fields.place("volumeMode"), &fields.path("volumeMode"), reason);
}

fn storage_class(d: &mut Decoder<'_>, fields: &Fields<'_>) -> Option<BuiltinClass> {
    let Some(text) = d.text(fields, "storageClassName") else { return Some(BuiltinClass::default()) };
    let found = BuiltinClass::ALL.into_iter().find(|class| class.as_str() == text);
    if found.is_none() {
        let reason = format!(
            "there is no class {text:?}: volumes are files on nodes; use local (deleted with its claim) or local-retain \
             (kept), or leave the field out for local"
        );
        d.fail(fields.place("storageClassName"), &fields.path("storageClassName"), reason);
    }
    found
}

/// `volumeClaimTemplates` and `persistentVolumeClaimRetentionPolicy` of a StatefulSet.
pub(super) fn of_stateful_set(d: &mut Decoder<'_>, spec: &Fields<'_>) -> Rare<VolumeClaims> {
    let templates = d.each(spec, "volumeClaimTemplates", template);
    let policy = spec.get("persistentVolumeClaimRetentionPolicy");
    let policy = policy
        .and_then(|node| d.fields(node, &spec.path("persistentVolumeClaimRetentionPolicy"), &RETENTION));
    let mut retention =
        |name| policy.as_ref().and_then(|policy| d.choice(policy, name, &RETENTIONS)).unwrap_or_default();
    let (when_deleted, when_scaled) = (retention("whenDeleted"), retention("whenScaled"));
    Rare::unless_default(VolumeClaims { templates, when_deleted, when_scaled })
}

fn template(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<VolumeClaimTemplate> {
    let fields = d.fields(node, path, &TEMPLATE)?;
    let metadata = child(d, &fields, "metadata", &TEMPLATE_META);
    let spec = match fields.get("spec") {
        Some(node) => {
            d.fields(node, &fields.path("spec"), &CLAIM_OF_TEMPLATE).and_then(|fields| claim_spec(d, &fields))
        }
        None => {
            d.missing(&fields, "spec");
            None
        }
    };
    let metadata = metadata?;
    let name = d.required_text(&metadata, "name");
    let (labels, annotations) = (d.string_map(&metadata, "labels"), d.string_map(&metadata, "annotations"));
    Some(VolumeClaimTemplate { name: name?.into(), labels, annotations, spec: spec? })
}
