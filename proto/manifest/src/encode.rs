//! Objects as Kubernetes-shaped values and text.

mod autoscaler;
mod claim;
mod config;
mod cron_autoscaler;
mod delivery;
mod descheduler;
mod device;
mod disruption_budget;
mod elastic;
mod elastic_quota;
mod job;
mod naming;
mod node_pool;
mod placement;
mod pod;
mod profile;
mod queue;
mod quota;
mod running;
mod sriov;
mod stateful;
mod vertical_autoscaler;
mod volume;
mod workload;
mod yaml;

pub use device::device_value;

use bulkhead_types::{
    FIELD_ITSELF, FieldManager, FieldSet, Kind, Name, Node, NodeImage, NodePhase, NodePrecondition, Object,
    ObjectId, ObjectMeta, Pod, Resources, StringMap, Taint, TaintEffect, format_bytes, format_millis,
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// What an object does not know by itself: what its cluster and other objects are called.
#[derive(Clone, Copy)]
pub struct Names<'a> {
    /// The cluster's identity, from which uids derive; without it there are none.
    pub cluster_id: Option<Uuid>,
    /// The name of another object, for `ownerReferences` and `nodeName`; `None` when it is gone.
    pub name_of: &'a dyn Fn(Kind, ObjectId) -> Option<Name>,
}

impl std::fmt::Debug for Names<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Names").field("cluster_id", &self.cluster_id).finish_non_exhaustive()
    }
}

/// The object as Kubernetes would show it: apiVersion, kind, metadata, spec, status.
///
/// What Kubernetes has no field for stands in `status`: a ReplicaSet's `rolloutRevision`, a node's `accelerator`.
#[must_use]
pub fn to_value(object: &Object, names: Names<'_>) -> Value {
    let (spec, status) = match object {
        Object::Namespace(o) => {
            (None, Some(json!({"phase": if o.meta.is_deleting() { "Terminating" } else { "Active" }})))
        }
        Object::Node(o) => (Some(node_spec(o)), Some(node_status(o))),
        Object::Pod(o) => pod_parts(o, names),
        Object::ReplicaSet(o) => {
            (Some(workload::replica_set_spec(&o.spec)), Some(workload::replica_set_status(o)))
        }
        Object::Deployment(o) => {
            (Some(workload::deployment_spec(&o.spec)), Some(workload::deployment_status(o)))
        }
        Object::StatefulSet(o) => {
            (Some(stateful::stateful_set_spec(&o.spec)), Some(stateful::stateful_set_status(&o.status)))
        }
        Object::DaemonSet(o) => {
            (Some(stateful::daemon_set_spec(&o.spec)), Some(stateful::daemon_set_status(&o.status)))
        }
        Object::Job(o) => (Some(job::job_spec(&o.spec)), Some(job::job_status(&o.status))),
        Object::CronJob(o) => cron_job_parts(o, names),
        Object::HorizontalPodAutoscaler(_)
        | Object::CronHorizontalPodAutoscaler(_)
        | Object::VerticalPodAutoscaler(_)
        | Object::ElasticWorkload(_)
        | Object::PodDisruptionBudget(_) => policy(object),
        Object::Profile(o) => (Some(profile::profile_spec(&o.spec)), None),
        Object::ResourceQuota(_)
        | Object::Project(_)
        | Object::Department(_)
        | Object::PodGroup(_)
        | Object::Queue(_)
        | Object::ElasticQuotaTree(_)
        | Object::LimitRange(_) => shares(object),
        Object::DeviceClass(_)
        | Object::ResourceSlice(_)
        | Object::SriovNetworkNodePolicy(_)
        | Object::SriovNetwork(_)
        | Object::SriovIBNetwork(_)
        | Object::SriovNetworkNodeState(_)
        | Object::NodePool(_)
        | Object::NodeOperation(_)
        | Object::DeschedulerPolicy(_) => hardware(object),
        Object::PersistentVolumeClaim(_) | Object::VolumeSnapshot(_) | Object::PersistentVolume(_) => {
            claim::parts(object)
        }
        Object::ConfigMap(_)
        | Object::Secret(_)
        | Object::ControllerRevision(_)
        | Object::StorageClass(_)
        | Object::PriorityClass(_) => (None, None),
    };
    let kind = object.kind();
    let mut value = Fields::new()
        .text("apiVersion", kind.api_version())
        .text("kind", kind.as_str())
        .set("metadata", metadata(object.meta(), names));
    if let Some(spec) = spec {
        value = value.set("spec", spec);
    }
    if let Some(status) = status {
        value = value.set("status", status);
    }
    beside_metadata(object, value).finish()
}

/// With what stands beside the metadata of kinds without a spec.
fn beside_metadata(object: &Object, value: Fields) -> Fields {
    match object {
        Object::ConfigMap(o) => config::config_map(o, value),
        Object::Secret(o) => config::secret(o, value),
        Object::ControllerRevision(o) => stateful::controller_revision(o, value),
        Object::PriorityClass(o) => profile::priority_class(o, value),
        Object::StorageClass(o) => claim::class_fields(&o.spec, value),
        _ => value,
    }
}

/// Spec and status of what says who may use how much.
fn shares(object: &Object) -> (Option<Value>, Option<Value>) {
    let (spec, status) = match object {
        Object::ResourceQuota(o) => (quota::quota_spec(&o.spec), quota::status(&o.status)),
        Object::Project(o) => (quota::project_spec(&o.spec), quota::status(&o.status)),
        Object::Department(o) => (quota::department_spec(&o.spec), quota::status(&o.status)),
        Object::PodGroup(o) => (queue::pod_group_spec(&o.spec), queue::pod_group_status(&o.status)),
        Object::Queue(o) => (queue::queue_spec(&o.spec), queue::queue_status(&o.status)),
        Object::ElasticQuotaTree(o) => (elastic_quota::spec(&o.spec), elastic_quota::status(&o.status)),
        Object::LimitRange(o) => return (Some(quota::limit_range_spec(&o.spec)), None),
        _ => return (None, None),
    };
    (Some(spec), Some(status))
}

/// Spec and status of a CronJob: its runs by name.
fn cron_job_parts(o: &bulkhead_types::CronJob, names: Names<'_>) -> (Option<Value>, Option<Value>) {
    let active = o.status.active.iter().filter_map(|id| (names.name_of)(Kind::Job, *id));
    let active = active
        .map(|name| json!({"apiVersion": Kind::Job.api_version(), "kind": "Job", "name": name.as_str()}));
    (Some(job::cron_job_spec(&o.spec)), Some(job::cron_job_status(&o.status, active)))
}

/// Spec and status of what nodes have, and what is wanted of it.
fn hardware(object: &Object) -> (Option<Value>, Option<Value>) {
    match object {
        Object::DeviceClass(o) => (Some(device::class_spec(&o.spec)), None),
        Object::ResourceSlice(o) => (Some(device::slice_spec(o)), None),
        Object::SriovNetworkNodePolicy(o) => (Some(sriov::policy_spec(&o.spec)), None),
        Object::SriovNetwork(o) => (Some(sriov::network_spec(&o.spec)), None),
        Object::SriovIBNetwork(o) => (Some(sriov::ib_network_spec(&o.spec)), None),
        Object::SriovNetworkNodeState(o) => {
            (Some(sriov::state_spec(&o.spec)), Some(sriov::state_status(&o.status)))
        }
        Object::NodePool(o) => (Some(node_pool::pool_spec(&o.spec)), Some(node_pool::pool_status(&o.status))),
        Object::NodeOperation(o) => {
            (Some(node_pool::operation_spec(&o.spec)), Some(node_pool::operation_status(&o.status)))
        }
        Object::DeschedulerPolicy(o) => {
            (Some(descheduler::policy_spec(&o.spec)), Some(descheduler::policy_status(&o.status)))
        }
        other => unreachable!("a {} is no hardware", other.kind()),
    }
}

/// Spec and status of a pod: the node that it is on, or else the one that it asks for.
fn pod_parts(o: &Pod, names: Names<'_>) -> (Option<Value>, Option<Value>) {
    let node = o.node.and_then(|id| (names.name_of)(Kind::Node, id));
    let node = node.map(|n| n.to_string()).or_else(|| o.spec.node_name.as_ref().map(ToString::to_string));
    let nominated = o.status.nominated_node.get().and_then(|id| (names.name_of)(Kind::Node, *id));
    let status = pod::status(o, nominated.as_ref().map(Name::as_str));
    (Some(pod::spec(&o.desired_spec(), node.as_deref())), Some(status))
}

/// Spec and status of an object of a kind that says how many pods there are, how large, or how many stay.
fn policy(object: &Object) -> (Option<Value>, Option<Value>) {
    match object {
        Object::HorizontalPodAutoscaler(o) => (
            Some(autoscaler::autoscaler_spec(&o.spec)),
            Some(autoscaler::autoscaler_status(&o.spec, &o.status)),
        ),
        Object::CronHorizontalPodAutoscaler(o) => (
            Some(cron_autoscaler::cron_autoscaler_spec(&o.spec)),
            Some(cron_autoscaler::cron_autoscaler_status(&o.spec, &o.status)),
        ),
        Object::VerticalPodAutoscaler(o) => (
            Some(vertical_autoscaler::autoscaler_spec(&o.spec)),
            Some(vertical_autoscaler::autoscaler_status(&o.spec, &o.status)),
        ),
        Object::PodDisruptionBudget(o) => {
            (Some(disruption_budget::budget_spec(&o.spec)), Some(disruption_budget::budget_status(&o.status)))
        }
        Object::ElasticWorkload(o) => {
            (Some(elastic::workload_spec(&o.spec)), Some(elastic::workload_status(&o.status)))
        }
        other => unreachable!("a {} is written elsewhere", other.kind()),
    }
}

/// The object as YAML; [`crate::parse`] reads its spec again.
#[must_use]
pub fn to_yaml(object: &Object, names: Names<'_>) -> String {
    value_to_yaml(&to_value(object, names))
}

/// Any value as YAML, such as a `List` of what [`to_value`] made.
#[must_use]
pub fn value_to_yaml(value: &Value) -> String {
    yaml::print(value)
}

fn metadata(meta: &ObjectMeta, names: Names<'_>) -> Value {
    let mut fields = Fields::new()
        .text("name", meta.name.as_str())
        .optional("namespace", meta.namespace.as_ref().map(Name::as_str))
        .map("labels", &meta.labels)
        .map("annotations", &meta.annotations);
    let uid = |id: ObjectId| names.cluster_id.map(|cluster| id.uid(cluster).to_string());
    if meta.id != ObjectId(0) {
        fields = fields.optional("uid", uid(meta.id).as_deref());
    }
    if meta.revision > 0 {
        fields = fields
            .text("resourceVersion", &meta.revision.to_string())
            .set("generation", meta.generation.into())
            .time("creationTimestamp", meta.created_at_ms);
    }
    if let Some(deletion) = &meta.deletion {
        fields = fields
            .time("deletionTimestamp", deletion.requested_at_ms.saturating_add(deletion.grace_ms))
            .set("deletionGracePeriodSeconds", (deletion.grace_ms / 1000).into());
    }
    if let Some(owner) = meta.owner {
        let reference = Fields::new()
            .text("apiVersion", owner.kind.api_version())
            .text("kind", owner.kind.as_str())
            .optional("name", (names.name_of)(owner.kind, owner.id).as_ref().map(Name::as_str))
            .optional("uid", uid(owner.id).as_deref())
            .set("controller", true.into())
            .set("blockOwnerDeletion", true.into());
        fields = fields.set("ownerReferences", vec![reference.finish()].into());
    }
    if let Some(managers) = meta.managers.get() {
        fields = fields.list("managedFields", managers.managers.iter().map(manager));
    }
    fields.finish()
}

/// In Kubernetes' form: `f:` before fields, `k:` before keys of items.
fn manager(manager: &FieldManager) -> Value {
    json!({
        "manager": manager.manager.as_str(),
        "operation": format!("{:?}", manager.operation),
        "fieldsType": "FieldsV1",
        "fieldsV1": managed(&manager.set()),
    })
}

fn managed(fields: &FieldSet) -> Value {
    let entries = fields.iter().map(|(step, below)| {
        let name = match step.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(key) => format!("k:{key}"),
            None if step == FIELD_ITSELF => step.to_string(),
            None => format!("f:{step}"),
        };
        (name, managed(below))
    });
    Value::Object(entries.collect())
}

fn node_spec(node: &Node) -> Value {
    let mut fields = Fields::new();
    if node.spec.unschedulable {
        fields = fields.set("unschedulable", true.into());
    }
    if let Some(gpu) = node.spec.gpu.get() {
        fields = fields.text("gpuMode", &gpu.mode).text("partitionStrategy", gpu.strategy.as_str());
    }
    fields.list("taints", node.spec.taints.iter().map(taint)).finish()
}

fn taint(taint: &Taint) -> Value {
    Fields::new()
        .text("key", &taint.key)
        .nonempty("value", &taint.value)
        .text("effect", effect(taint.effect))
        .finish()
}

fn effect(effect: TaintEffect) -> &'static str {
    match effect {
        TaintEffect::NoSchedule => "NoSchedule",
        TaintEffect::PreferNoSchedule => "PreferNoSchedule",
        TaintEffect::NoExecute => "NoExecute",
    }
}

fn node_status(node: &Node) -> Value {
    let (status, facts) = (&node.status, &node.status.facts);
    let (ready, reason, message) = match status.phase {
        NodePhase::Ready => ("True", "LeaseHeld", "the node's agent renews its lease"),
        NodePhase::Unreachable => ("Unknown", "LeaseExpired", "the node's agent does not renew its lease"),
        NodePhase::Fenced => ("Unknown", "NodeFenced", "its unique pods are over, and may run elsewhere"),
    };
    let condition = Fields::new()
        .text("type", "Ready")
        .text("status", ready)
        .text("reason", reason)
        .text("message", message)
        .time("lastTransitionTime", status.phase_since_ms)
        .finish();
    let info = Fields::new()
        .nonempty("bootID", &facts.boot_id)
        .nonempty("kernelVersion", &facts.kernel_version)
        .nonempty("agentVersion", &facts.agent_version)
        .finish();
    let mut fields = Fields::new()
        .set("capacity", amounts(facts.capacity, facts.pods_max))
        .set("allocatable", amounts(facts.allocatable, facts.pods_max))
        .set("conditions", vec![condition].into())
        .set("nodeInfo", info)
        .nonempty("accelerator", &facts.accelerator)
        .set("incarnation", status.incarnation.into())
        .list("warnings", facts.warnings.iter().map(|w| Value::from(w.as_str())));
    let images = status.images.get().into_iter().flat_map(|images| &images.images);
    fields = fields.list("images", images.map(image));
    let preconditions = facts.preconditions.get().into_iter().flat_map(|told| &told.preconditions);
    fields = fields.list("preconditions", preconditions.map(precondition));
    if !facts.address.is_empty() {
        fields = fields.set("addresses", json!([{"type": "Agent", "address": facts.address.as_str()}]));
    }
    fields.finish()
}

fn precondition(one: &NodePrecondition) -> Value {
    Fields::new()
        .text("name", &one.name)
        .text("need", &format!("{:?}", one.need))
        .text("outcome", &format!("{:?}", one.outcome))
        .nonempty("found", &one.found)
        .nonempty("remedy", &one.remedy)
        .finish()
}

/// As Kubernetes writes them, the digest among the names.
fn image(image: &NodeImage) -> Value {
    let names: Vec<&str> = image.names.iter().chain([&image.digest]).map(|name| name.as_str()).collect();
    json!({"names": names, "sizeBytes": image.size_bytes})
}

fn amounts(resources: Resources, pods: u32) -> Value {
    let mut amounts = json!({
        "cpu": format_millis(resources.cpu_millis),
        "memory": format_bytes(resources.memory_bytes),
        "ephemeral-storage": format_bytes(resources.ephemeral_storage_bytes),
        "pods": pods.to_string(),
    });
    for (size, bytes) in resources.huge_pages.sizes() {
        amounts[size.resource()] = format_bytes(bytes).into();
    }
    amounts
}

/// Milliseconds since the epoch as RFC 3339 in whole seconds, as Kubernetes writes times.
fn time(ms: u64) -> Option<String> {
    let seconds = i64::try_from(ms / 1000).ok()?;
    jiff::Timestamp::from_second(seconds).ok().map(|t| t.to_string())
}

/// A map under construction; what is empty is left out.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn new() -> Self {
        Self::default()
    }

    fn set(mut self, name: &str, value: Value) -> Self {
        self.0.insert(name.to_owned(), value);
        self
    }

    fn text(self, name: &str, text: &str) -> Self {
        self.set(name, text.into())
    }

    fn nonempty(self, name: &str, text: &str) -> Self {
        if text.is_empty() { self } else { self.text(name, text) }
    }

    fn optional(self, name: &str, text: Option<&str>) -> Self {
        match text {
            Some(text) => self.text(name, text),
            None => self,
        }
    }

    fn maybe(self, name: &str, value: Option<Value>) -> Self {
        match value {
            Some(value) => self.set(name, value),
            None => self,
        }
    }

    fn number(self, name: &str, number: Option<u64>) -> Self {
        self.maybe(name, number.map(Into::into))
    }

    /// A time, unless it is 0: never.
    fn time(self, name: &str, ms: u64) -> Self {
        let text = if ms == 0 { None } else { time(ms) };
        self.optional(name, text.as_deref())
    }

    fn map(self, name: &str, map: &StringMap) -> Self {
        if map.is_empty() {
            return self;
        }
        let entries = map.iter().map(|(k, v)| (k.to_string(), Value::from(v.as_str())));
        self.set(name, Value::Object(entries.collect()))
    }

    fn list(self, name: &str, items: impl Iterator<Item = Value>) -> Self {
        let items: Vec<Value> = items.collect();
        if items.is_empty() { self } else { self.set(name, items.into()) }
    }

    fn finish(self) -> Value {
        Value::Object(self.0)
    }
}
