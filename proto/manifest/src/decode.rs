//! Documents to objects.

mod autoscaler;
mod claim;
mod config;
mod container;
mod cron_autoscaler;
mod decoder;
mod delivery;
mod descheduler;
mod device;
mod disruption_budget;
mod elastic;
mod elastic_quota;
mod job;
mod meta;
mod naming;
mod node;
mod node_pool;
mod partition;
mod placement;
mod pod;
mod probe;
mod profile;
mod queue;
mod quota;
mod security;
mod sriov;
mod stateful;
mod vertical_autoscaler;
mod volume;
mod workload;

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_types::{
    CronHorizontalPodAutoscaler, CronJob, DaemonSet, Department, DeschedulerPolicy, DeviceClass,
    ElasticQuotaTree, ElasticWorkload, HorizontalPodAutoscaler, Job, Kind, LimitRange, Name, Namespace,
    NodeOperation, NodePool, Object, ObjectMeta, ObjectRef, PersistentVolume, PersistentVolumeClaim, Pod,
    PodDisruptionBudget, PodGroup, PodStatus, Profile, Project, Queue, ResourceQuota, Shared, SriovIBNetwork,
    SriovNetwork, SriovNetworkNodePolicy, StatefulSet, StorageClass, VerticalPodAutoscaler, validate,
};

use crate::tree::{Node, Value};
use crate::{ManifestError, Parsed};
use decoder::{Decoder, Fields, Schema};

/// Kinds that Kubernetes has and Bulkhead may offer one day.
const KINDS_NOT_YET: [&str; 11] = [
    "CustomResourceDefinition",
    "EndpointSlice",
    "Endpoints",
    "Ingress",
    "NetworkPolicy",
    "ReplicationController",
    "Role",
    "RoleBinding",
    "RuntimeClass",
    "Service",
    "ServiceAccount",
];

const OBJECT: Schema =
    Schema { known: &["apiVersion", "kind", "metadata", "spec"], ignored: &["status"], ..Schema::EMPTY };
const CONFIG_MAP: Schema =
    Schema { known: &["apiVersion", "kind", "metadata", "data", "binaryData", "immutable"], ..Schema::EMPTY };
const SECRET: Schema = Schema {
    known: &["apiVersion", "kind", "metadata", "type", "data", "stringData", "immutable"],
    ..Schema::EMPTY
};
const PRIORITY_CLASS: Schema = Schema {
    known: &["apiVersion", "kind", "metadata", "value", "globalDefault", "preemptionPolicy", "description"],
    ..Schema::EMPTY
};
const LIST: Schema =
    Schema { known: &["apiVersion", "kind", "items"], ignored: &["metadata"], ..Schema::EMPTY };
const STORAGE_CLASS: Schema = Schema {
    known: &[
        "apiVersion",
        "kind",
        "metadata",
        "provisioner",
        "reclaimPolicy",
        "volumeBindingMode",
        "allowVolumeExpansion",
        "parameters",
    ],
    not_yet: &["allowedTopologies", "mountOptions"],
    ..Schema::EMPTY
};
const NAMESPACE_SPEC: Schema = Schema { ignored: &["finalizers"], ..Schema::EMPTY };

/// Reads one document: an object, or a `List` of them.
pub(crate) fn document(
    root: &Node,
    file: &str,
    default_namespace: Option<&Name>,
    parsed: &mut Vec<Parsed>,
    errors: &mut Vec<ManifestError>,
) {
    each_object(root, file, errors, &mut |root, prefix, errors| {
        parsed.extend(one(root, file, prefix, default_namespace, errors));
    });
}

/// Calls for the object of a document, or for each of a `List`, with the path to it.
pub(crate) fn each_object(
    root: &Node,
    file: &str,
    errors: &mut Vec<ManifestError>,
    call: &mut dyn FnMut(&Node, String, &mut Vec<ManifestError>),
) {
    let is_list = matches!(root.get("kind"), Some(Node { value: Value::Text(kind), .. }) if kind == "List");
    if !is_list {
        call(root, String::new(), errors);
        return;
    }
    let mut decoder = Decoder::new(file, root, String::new());
    let fields = decoder.fields(root, "", &LIST);
    if let Some(fields) = fields {
        api_version(&mut decoder, &fields, "List", "v1");
        if let Some(items) = decoder.list(&fields, "items") {
            for (index, item) in items.iter().enumerate() {
                call(item, format!("items[{index}]"), errors);
            }
        }
    }
    errors.append(&mut decoder.errors);
}

/// Which object a piece is about, as far as that can be told without a mistake.
pub(crate) fn reference(root: &Node, default_namespace: Option<&Name>) -> Option<ObjectRef> {
    let text = |node: Option<&Node>| match node.map(|node| &node.value) {
        Some(Value::Text(text) | Value::Number(text)) => Some(text.clone()),
        _ => None,
    };
    let kind = text(root.get("kind"))?;
    let kind = Kind::ALL.into_iter().find(|known| known.as_str() == kind)?;
    let metadata = root.get("metadata")?;
    let given = text(metadata.get("namespace")).filter(|text| !text.is_empty());
    let namespace = match (kind.is_namespaced(), given) {
        (false, _) => None,
        (true, Some(text)) => Some(Name::new(text).ok()?),
        (true, None) => Some(default_namespace?.clone()),
    };
    Some(ObjectRef { kind, namespace, name: Name::new(text(metadata.get("name"))?).ok()? })
}

/// Reads one object, as far as it can be read; what is wrong with it is added to the errors.
pub(crate) fn one(
    root: &Node,
    file: &str,
    prefix: String,
    default_namespace: Option<&Name>,
    errors: &mut Vec<ManifestError>,
) -> Option<Parsed> {
    let mut decoder = Decoder::new(file, root, prefix);
    let mut parsed = None;
    if let Some((object, resource_version)) = object(&mut decoder, root, default_namespace) {
        for error in validate(&object) {
            decoder.add_unless_explained(&error.path, error.reason);
        }
        let (file, line) = (file.to_owned(), root.place.line);
        let replicas = root.get("spec").and_then(|spec| spec.get("replicas"));
        let states_replicas = replicas.is_some_and(|node| !node.is_null());
        let states_class = claim::states_class(&object, root);
        parsed = Some(Parsed { object, resource_version, states_replicas, states_class, file, line });
    }
    errors.append(&mut decoder.errors);
    parsed
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
    let schema = match kind {
        Kind::ConfigMap => &CONFIG_MAP,
        Kind::Secret => &SECRET,
        Kind::PriorityClass => &PRIORITY_CLASS,
        Kind::StorageClass => &STORAGE_CLASS,
        _ => &OBJECT,
    };
    let fields = d.fields(root, "", schema)?;
    api_version(d, &fields, kind.as_str(), kind.api_version());
    let meta = meta::object(d, &fields, kind, default_namespace);
    let resource_version = meta.is_some().then(|| meta::resource_version(d, &fields)).flatten();
    let spec = fields.get("spec");
    let needs_none = matches!(
        kind,
        Kind::Namespace
            | Kind::Node
            | Kind::ConfigMap
            | Kind::Secret
            | Kind::PriorityClass
            | Kind::StorageClass
    );
    if spec.is_none() && !needs_none {
        d.missing(&fields, "spec");
    }
    let object = content(d, kind, &fields, meta, spec)?;
    Some((object, resource_version))
}

/// The object of a kind, from its metadata and spec.
fn content(
    d: &mut Decoder<'_>,
    kind: Kind,
    fields: &Fields<'_>,
    meta: Option<ObjectMeta>,
    spec: Option<&Node>,
) -> Option<Object> {
    Some(match kind {
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
        Kind::StatefulSet => {
            let spec = stateful::stateful_set(d, spec?)?;
            Object::StatefulSet(Arc::new(StatefulSet { meta: meta?, spec, status: Default::default() }))
        }
        Kind::DaemonSet => {
            let spec = stateful::daemon_set(d, spec?)?;
            Object::DaemonSet(Arc::new(DaemonSet { meta: meta?, spec, status: Default::default() }))
        }
        Kind::Job => {
            let spec = job::job(d, spec?, "spec")?;
            Object::Job(Arc::new(Job { meta: meta?, spec, status: Default::default() }))
        }
        Kind::CronJob => {
            let spec = job::cron_job(d, spec?)?;
            Object::CronJob(Arc::new(CronJob { meta: meta?, spec, status: Default::default() }))
        }
        Kind::ConfigMap => Object::ConfigMap(Arc::new(config::config_map(d, fields, meta?))),
        Kind::Secret => Object::Secret(Arc::new(config::secret(d, fields, meta?))),
        Kind::StorageClass => {
            Object::StorageClass(Arc::new(StorageClass { spec: claim::class(d, fields)?, meta: meta? }))
        }
        Kind::PersistentVolume => {
            let spec = claim::volume(d, spec?)?;
            Object::PersistentVolume(Arc::new(PersistentVolume { meta: meta?, spec }))
        }
        _ => return policy(d, kind, fields, meta, spec),
    })
}

/// The object of a kind that is about others.
fn policy(
    d: &mut Decoder<'_>,
    kind: Kind,
    fields: &Fields<'_>,
    meta: Option<ObjectMeta>,
    spec: Option<&Node>,
) -> Option<Object> {
    Some(match kind {
        Kind::HorizontalPodAutoscaler => {
            let spec = autoscaler::autoscaler(d, spec?)?;
            let status = Default::default();
            Object::HorizontalPodAutoscaler(Arc::new(HorizontalPodAutoscaler { meta: meta?, spec, status }))
        }
        Kind::CronHorizontalPodAutoscaler => {
            let spec = cron_autoscaler::cron_autoscaler(d, spec?)?;
            let status = Default::default();
            Object::CronHorizontalPodAutoscaler(Arc::new(CronHorizontalPodAutoscaler {
                meta: meta?,
                spec,
                status,
            }))
        }
        Kind::VerticalPodAutoscaler => {
            let spec = vertical_autoscaler::autoscaler(d, spec?)?;
            let status = Default::default();
            Object::VerticalPodAutoscaler(Arc::new(VerticalPodAutoscaler { meta: meta?, spec, status }))
        }
        Kind::PodDisruptionBudget => {
            let spec = disruption_budget::budget(d, spec?)?;
            let status = Default::default();
            Object::PodDisruptionBudget(Arc::new(PodDisruptionBudget { meta: meta?, spec, status }))
        }
        Kind::ElasticWorkload => {
            let (spec, status) = (elastic::workload(d, spec?)?, Default::default());
            Object::ElasticWorkload(Arc::new(ElasticWorkload { meta: meta?, spec, status }))
        }
        Kind::PriorityClass => Object::PriorityClass(Arc::new(profile::priority_class(d, fields, meta?))),
        Kind::PersistentVolumeClaim => {
            let (spec, source) = claim::claim(d, spec?)?;
            let (meta, status) = (meta?, Default::default());
            Object::PersistentVolumeClaim(Arc::new(PersistentVolumeClaim { meta, spec, source, status }))
        }
        Kind::Profile => {
            Object::Profile(Arc::new(Profile { spec: profile::profile(d, spec?)?, meta: meta? }))
        }
        Kind::ResourceQuota => {
            let (spec, status) = (quota::resource_quota(d, spec?)?, Default::default());
            Object::ResourceQuota(Arc::new(ResourceQuota { meta: meta?, spec, status }))
        }
        Kind::Project => {
            let (spec, status) = (quota::project(d, spec?)?, Default::default());
            Object::Project(Arc::new(Project { meta: meta?, spec, status }))
        }
        Kind::Department => {
            let (spec, status) = (quota::department(d, spec?)?, Default::default());
            Object::Department(Arc::new(Department { meta: meta?, spec, status }))
        }
        Kind::PodGroup => {
            let (spec, status) = (queue::pod_group(d, spec?)?, Default::default());
            Object::PodGroup(Arc::new(PodGroup { meta: meta?, spec, status }))
        }
        Kind::Queue => {
            let (spec, status) = (queue::queue(d, spec?)?, Default::default());
            Object::Queue(Arc::new(Queue { meta: meta?, spec, status }))
        }
        Kind::LimitRange => {
            Object::LimitRange(Arc::new(LimitRange { spec: quota::limit_range(d, spec?)?, meta: meta? }))
        }
        Kind::ElasticQuotaTree => {
            let (spec, status) = (elastic_quota::tree(d, spec?)?, Default::default());
            Object::ElasticQuotaTree(Arc::new(ElasticQuotaTree { meta: meta?, spec, status }))
        }
        _ => return hardware(d, kind, meta, spec),
    })
}

/// The object of a kind that is about what nodes have.
fn hardware(
    d: &mut Decoder<'_>,
    kind: Kind,
    meta: Option<ObjectMeta>,
    spec: Option<&Node>,
) -> Option<Object> {
    Some(match kind {
        Kind::VolumeSnapshot => {
            let (spec, status) = (claim::snapshot(d, spec?)?, Default::default());
            Object::VolumeSnapshot(Arc::new(bulkhead_types::VolumeSnapshot { meta: meta?, spec, status }))
        }
        Kind::DeviceClass => {
            Object::DeviceClass(Arc::new(DeviceClass { spec: device::class(d, spec?)?, meta: meta? }))
        }
        Kind::SriovNetworkNodePolicy => {
            let (spec, meta) = (sriov::policy(d, spec?)?, meta?);
            Object::SriovNetworkNodePolicy(Arc::new(SriovNetworkNodePolicy { meta, spec }))
        }
        Kind::SriovNetwork => {
            Object::SriovNetwork(Arc::new(SriovNetwork { spec: sriov::network(d, spec?)?, meta: meta? }))
        }
        Kind::SriovIBNetwork => {
            let (spec, meta) = (sriov::ib_network(d, spec?)?, meta?);
            Object::SriovIBNetwork(Arc::new(SriovIBNetwork { meta, spec }))
        }
        Kind::NodePool => {
            let (spec, status) = (node_pool::pool(d, spec?)?, Default::default());
            Object::NodePool(Arc::new(NodePool { meta: meta?, spec, status }))
        }
        Kind::NodeOperation => {
            let (spec, status) = (node_pool::operation(d, spec?)?, Default::default());
            Object::NodeOperation(Arc::new(NodeOperation { meta: meta?, spec, status }))
        }
        Kind::DeschedulerPolicy => {
            let (spec, status) = (descheduler::policy(d, spec?)?, Default::default());
            Object::DeschedulerPolicy(Arc::new(DeschedulerPolicy { meta: meta?, spec, status }))
        }
        _ => unreachable!("a {kind} is read elsewhere, or not a kind that manifests may have"),
    })
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
    // ControllerRevisions are made by their owners only, the others of what nodes report.
    let is_own = |kind: &Kind| {
        matches!(kind, Kind::ControllerRevision | Kind::ResourceSlice | Kind::SriovNetworkNodeState)
    };
    let kinds = Kind::ALL.into_iter().filter(|kind| !is_own(kind));
    let found = kinds.clone().find(|kind| kind.as_str() == text);
    if found.is_none() {
        let names: Vec<&str> = kinds.map(Kind::as_str).collect();
        let reason = if KINDS_NOT_YET.contains(&text.as_str()) {
            format!("kind {text} is not supported yet; there are {}", names.join(", "))
        } else {
            format!(
                "kind {text:?} is unknown{}; there are {}",
                decoder::suggestion(text, names.iter().copied()),
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
