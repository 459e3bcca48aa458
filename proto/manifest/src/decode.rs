//! Documents to objects.

mod container;
mod decoder;
mod meta;
mod node;
mod pod;
mod workload;

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_types::{Kind, Name, Namespace, Object, ObjectRef, Pod, PodStatus, Shared, validate};

use crate::tree::{Node, Value};
use crate::{ManifestError, Parsed};
use decoder::{Decoder, Fields, Schema};

/// Kinds that Kubernetes has and Bulkhead may offer one day.
const KINDS_NOT_YET: [&str; 24] = [
    "ConfigMap",
    "CronJob",
    "CustomResourceDefinition",
    "DaemonSet",
    "EndpointSlice",
    "Endpoints",
    "HorizontalPodAutoscaler",
    "Ingress",
    "Job",
    "LimitRange",
    "NetworkPolicy",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "PodDisruptionBudget",
    "PriorityClass",
    "ReplicationController",
    "ResourceQuota",
    "Role",
    "RoleBinding",
    "RuntimeClass",
    "Secret",
    "Service",
    "ServiceAccount",
    "StatefulSet",
];

const OBJECT: Schema =
    Schema { known: &["apiVersion", "kind", "metadata", "spec"], ignored: &["status"], ..Schema::EMPTY };
const LIST: Schema =
    Schema { known: &["apiVersion", "kind", "items"], ignored: &["metadata"], ..Schema::EMPTY };
const NAMESPACE_SPEC: Schema = Schema { ignored: &["finalizers"], ..Schema::EMPTY };

/// Reads one document: an object, or a `List` of them.
pub(crate) fn document(
    root: &Node,
    file: &str,
    default_namespace: Option<&Name>,
    parsed: &mut Vec<Parsed>,
    errors: &mut Vec<ManifestError>,
) {
    let is_list = matches!(root.get("kind"), Some(Node { value: Value::Text(kind), .. }) if kind == "List");
    if !is_list {
        one(root, file, String::new(), default_namespace, parsed, errors);
        return;
    }
    let mut decoder = Decoder::new(file, root, String::new());
    let fields = decoder.fields(root, "", &LIST);
    if let Some(fields) = fields {
        api_version(&mut decoder, &fields, "List", "v1");
        if let Some(items) = decoder.list(&fields, "items") {
            for (index, item) in items.iter().enumerate() {
                one(item, file, format!("items[{index}]"), default_namespace, parsed, errors);
            }
        }
    }
    errors.append(&mut decoder.errors);
}

fn one(
    root: &Node,
    file: &str,
    prefix: String,
    default_namespace: Option<&Name>,
    parsed: &mut Vec<Parsed>,
    errors: &mut Vec<ManifestError>,
) {
    let mut decoder = Decoder::new(file, root, prefix);
    if let Some((object, resource_version)) = object(&mut decoder, root, default_namespace) {
        for error in validate(&object) {
            decoder.add_unless_explained(&error.path, error.reason);
        }
        let (file, line) = (file.to_owned(), root.place.line);
        parsed.push(Parsed { object, resource_version, file, line });
    }
    errors.append(&mut decoder.errors);
}

fn object(
    d: &mut Decoder<'_>,
    root: &Node,
    default_namespace: Option<&Name>,
) -> Option<(Object, Option<u64>)> {
    if !matches!(root.value, Value::Map(_)) {
        d.fail(
            root.place,
            "",
            format!("expected an object with apiVersion, kind and metadata, found {}", root.describe()),
        );
        return None;
    }
    let kind = kind(d, root)?;
    let fields = d.fields(root, "", &OBJECT)?;
    api_version(d, &fields, kind.as_str(), kind.api_version());
    let meta = meta::object(d, &fields, kind, default_namespace);
    let resource_version = meta.is_some().then(|| meta::resource_version(d, &fields)).flatten();
    let spec = fields.get("spec");
    if spec.is_none() && !matches!(kind, Kind::Namespace | Kind::Node) {
        d.missing(&fields, "spec");
    }
    let object = match kind {
        Kind::Namespace => {
            if let Some(spec) = spec {
                d.fields(spec, "spec", &NAMESPACE_SPEC);
            }
            Object::Namespace(Arc::new(Namespace { meta: meta? }))
        }
        Kind::Node => {
            let node = node::node(d, spec);
            Object::Node(Arc::new(node(meta?)))
        }
        Kind::Pod => {
            let spec = Shared::new(pod::spec(d, spec?, "spec")?);
            Object::Pod(Arc::new(Pod { meta: meta?, spec, node: None, status: PodStatus::default() }))
        }
        Kind::ReplicaSet => {
            let spec = workload::replica_set(d, spec?)?;
            Object::ReplicaSet(Arc::new(bulkhead_types::ReplicaSet {
                meta: meta?,
                spec,
                status: Default::default(),
            }))
        }
        Kind::Deployment => {
            let spec = workload::deployment(d, spec?)?;
            Object::Deployment(Arc::new(bulkhead_types::Deployment {
                meta: meta?,
                spec,
                status: Default::default(),
            }))
        }
    };
    Some((object, resource_version))
}

fn kind(d: &mut Decoder<'_>, root: &Node) -> Option<Kind> {
    let Some(node) = root.get("kind").filter(|n| !n.is_null()) else {
        d.fail(root.place, "kind", "is required".to_owned());
        return None;
    };
    let Value::Text(text) = &node.value else {
        d.fail(node.place, "kind", format!("expected a string, found {}", node.describe()));
        return None;
    };
    let found = Kind::ALL.into_iter().find(|kind| kind.as_str() == text);
    if found.is_none() {
        let names = Kind::ALL.map(Kind::as_str);
        let reason = if KINDS_NOT_YET.contains(&text.as_str()) {
            format!("kind {text} is not supported yet; there are {}", names.join(", "))
        } else {
            format!(
                "kind {text:?} is unknown{}; there are {}",
                decoder::suggestion(text, names),
                names.join(", ")
            )
        };
        d.fail(node.place, "kind", reason);
    }
    found
}

fn api_version(d: &mut Decoder<'_>, fields: &Fields<'_>, kind: &str, expected: &str) {
    let Some(found) = d.required_text(fields, "apiVersion") else { return };
    if found != expected {
        let place = fields.place("apiVersion");
        d.fail(place, "apiVersion", format!("{kind} is in {expected}, found {found:?}"));
    }
}

/// Refuses objects that are given more than once: which one should hold?
pub(crate) fn refuse_repeated(parsed: &[Parsed], errors: &mut Vec<ManifestError>) {
    let mut seen: BTreeMap<ObjectRef, &Parsed> = BTreeMap::new();
    for one in parsed {
        let object_ref = one.object.object_ref();
        if let Some(first) = seen.get(&object_ref) {
            errors.push(ManifestError {
                file: one.file.clone(),
                line: one.line,
                column: 1,
                path: "metadata.name".to_owned(),
                reason: format!("{object_ref} is given twice, first at {}:{}", first.file, first.line),
            });
        } else {
            seen.insert(object_ref, one);
        }
    }
}
