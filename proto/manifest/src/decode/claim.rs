//! PersistentVolumeClaims, and those of StatefulSets; their classes, and what they leave behind.

use bulkhead_types::{
    AccessMode, BuiltinClass, ClaimRetention, ClaimSource, ClaimSourceKind, Object, ObjectId, PROVISIONER,
    PersistentVolumeClaimSpec, PersistentVolumeSpec, Rare, StorageClassSpec, VolumeClaimTemplate,
    VolumeClaims, VolumeSnapshotSpec, parse_units,
};
use uuid::Uuid;

use smol_str::SmolStr;

use super::decoder::{Decoder, Fields, Fixed, Schema};
use super::volume::quantity;
use crate::tree::{Node, Value};

const CLAIM: Schema = Schema {
    known: &["accessModes", "resources", "storageClassName", "volumeMode", "dataSource", "volumeName"],
    not_yet: &["selector", "dataSourceRef", "volumeAttributesClassName"],
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
const PERSISTENT_VOLUME: Schema = Schema {
    known: &["capacity", "claimRef", "storageClassName", "node", "volume"],
    fixed: &[("persistentVolumeReclaimPolicy", Fixed::Text("Retain"))],
    not_yet: &["accessModes", "mountOptions", "nodeAffinity", "volumeAttributesClassName"],
    ..Schema::EMPTY
};
const CLAIM_REF: Schema = Schema {
    known: &["namespace", "name"],
    ignored: &["uid", "resourceVersion"],
    fixed: &[("apiVersion", Fixed::Text("v1")), ("kind", Fixed::Text("PersistentVolumeClaim"))],
    ..Schema::EMPTY
};
const CAPACITY: Schema = Schema { known: &["storage"], ..Schema::EMPTY };
const PARAMETERS: Schema = Schema { known: &["driver", FS_TYPE], ..Schema::EMPTY };
/// Kubernetes' name of the parameter.
const FS_TYPE: &str = "csi.storage.k8s.io/fstype";
const RECLAIMS: [(&str, BuiltinClass); 2] =
    [("Delete", BuiltinClass::Local), ("Retain", BuiltinClass::LocalRetain)];
/// What keeps volumes.
const DRIVERS: [(&str, ()); 1] = [("file", ())];
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
    let (storage_class, class) = storage_class(d, fields);
    let resources = child(d, fields, "resources", &RESOURCES);
    let requests = resources.and_then(|resources| child(d, &resources, "requests", &REQUESTS))?;
    if requests.get("storage").is_none() {
        d.missing(&requests, "storage");
    }
    let storage_bytes = quantity(d, &requests, "storage", parse_units)?;
    Some(PersistentVolumeClaimSpec {
        access_mode: access_mode?,
        storage_bytes,
        storage_class,
        class,
        volume_name: d.text(fields, "volumeName").map(SmolStr::from).into(),
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

/// The class: one that is always there, or the name of another. Left out it is `local`, or what the servers make of that
/// ([`crate::Parsed::states_class`]).
fn storage_class(d: &mut Decoder<'_>, fields: &Fields<'_>) -> (BuiltinClass, Rare<SmolStr>) {
    let Some(text) = d.text(fields, "storageClassName") else { return Default::default() };
    match BuiltinClass::ALL.into_iter().find(|class| class.as_str() == text) {
        Some(class) => (class, Rare::NONE),
        None => (BuiltinClass::default(), Rare::some(text.into())),
    }
}

/// What is wanted of a StorageClass, which is beside its metadata.
pub(super) fn class(d: &mut Decoder<'_>, fields: &Fields<'_>) -> Option<StorageClassSpec> {
    let provisioner = d.required_text(fields, "provisioner");
    if provisioner.is_some_and(|name| name != PROVISIONER) {
        let reason = format!("volumes are local to their nodes: the only provisioner is {PROVISIONER}");
        d.fail(fields.place("provisioner"), "provisioner", reason);
    }
    let reclaim = d.choice(fields, "reclaimPolicy", &RECLAIMS).unwrap_or_default();
    if d.text(fields, "volumeBindingMode").is_some_and(|mode| mode != "WaitForFirstConsumer") {
        let reason =
            "a volume is made on the node of its first pod: use WaitForFirstConsumer, or leave the field out";
        d.fail(fields.place("volumeBindingMode"), "volumeBindingMode", reason);
    }
    let allow_volume_expansion = d.boolean(fields, "allowVolumeExpansion").unwrap_or_default();
    if let Some(node) = fields.get("parameters") {
        let parameters = d.fields(node, "parameters", &PARAMETERS)?;
        d.choice(&parameters, "driver", &DRIVERS);
        if d.text(&parameters, FS_TYPE).is_some_and(|format| format != "ext4") {
            d.fail(parameters.place(FS_TYPE), &parameters.path(FS_TYPE), "the only file system is ext4");
        }
    }
    Some(StorageClassSpec { reclaim, allow_volume_expansion })
}

/// What a document says of a retained volume. The ids of its node and of its claim's namespace are the servers' to know: nothing
/// here can change but `claimRef`.
pub(super) fn volume(d: &mut Decoder<'_>, node: &Node) -> Option<PersistentVolumeSpec> {
    let fields = d.fields(node, "spec", &PERSISTENT_VOLUME)?;
    let capacity = child(d, &fields, "capacity", &CAPACITY);
    let capacity_bytes = capacity.and_then(|capacity| quantity(d, &capacity, "storage", parse_units));
    let claim = fields.get("claimRef").and_then(|node| d.fields(node, &fields.path("claimRef"), &CLAIM_REF));
    let mut of_claim =
        |name| claim.as_ref().and_then(|claim| d.required_text(claim, name)).unwrap_or_default();
    let (claim_namespace, claim_name) = (of_claim("namespace").into(), of_claim("name").into());
    let (_, class) = storage_class(d, &fields);
    let node_name = d.required_text(&fields, "node");
    let volume = d.required_text(&fields, "volume")?;
    let Ok(volume) = Uuid::parse_str(&volume) else {
        d.fail(fields.place("volume"), &fields.path("volume"), "must be a UUID");
        return None;
    };
    Some(PersistentVolumeSpec {
        node: ObjectId(0),
        node_name: node_name?.into(),
        volume,
        capacity_bytes: capacity_bytes?,
        claim_namespace,
        claim_namespace_id: ObjectId(0),
        claim_name,
        class,
        first_used_at_ms: Rare::NONE,
    })
}

/// Where an object has claims, whether the document says the class of each.
pub(super) fn states_class(object: &Object, root: &Node) -> Vec<bool> {
    let says = |claim: Option<&Node>| {
        let class = claim.and_then(|claim| claim.get("spec")).and_then(|spec| spec.get("storageClassName"));
        class.is_some_and(|class| !class.is_null())
    };
    match object {
        Object::PersistentVolumeClaim(_) => vec![says(Some(root))],
        Object::StatefulSet(set) => {
            let templates = root.get("spec").and_then(|spec| spec.get("volumeClaimTemplates"));
            let items = match templates.map(|templates| &templates.value) {
                Some(Value::List(items)) => items.as_slice(),
                _ => &[],
            };
            (0..set.spec.claim_templates().len()).map(|index| says(items.get(index))).collect()
        }
        _ => Vec::new(),
    }
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
