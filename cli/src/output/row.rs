//! The columns of each kind.

mod autoscaling;
mod elastic_quotas;
mod node_pools;
mod queues;
mod quotas;
mod sriov;
mod vertical;
mod workloads;

use bulkhead_types::{
    Container, ContainerState, Deployment, Kind, LabelSelector, Namespace, Node, NodePhase, Object,
    PersistentVolumeClaim, PersistentVolumeClaimStatus, Pod, PodPhase, ReplicaSet, format_bytes,
    format_millis,
};

use crate::directory::Directory;
use crate::target::slash_name;
use crate::time::{age, short};

pub(crate) use autoscaling::{metric, scaled};
pub(crate) use vertical::{allowed, amount};
pub(crate) use workloads::{job_completions, job_status};

const NONE: &str = "<none>";

/// What a table shows beside the kind's own columns.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Columns {
    pub(crate) namespace: bool,
    pub(crate) wide: bool,
    /// `kind/name` instead of the name, when several kinds are shown.
    pub(crate) kind: bool,
    pub(crate) labels: bool,
}

const NODE_WIDE: &[&str] = &[
    "NAME",
    "STATUS",
    "AGE",
    "VERSION",
    "CPU",
    "MEMORY",
    "PODS",
    "ACCELERATOR",
    "ADDRESS",
    "KERNEL",
    "TAINTS",
    "WARNINGS",
];

const DEPLOYMENT_WIDE: &[&str] =
    &["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE", "REVISION", "CONTAINERS", "IMAGES", "SELECTOR"];

/// The header of a kind's table.
pub(crate) fn header(kind: Kind, columns: Columns) -> Vec<&'static str> {
    let own: &[&str] = match (kind, columns.wide) {
        (Kind::Namespace, _) => &["NAME", "STATUS", "AGE"],
        (Kind::Node, false) => &["NAME", "STATUS", "AGE", "VERSION", "CPU", "MEMORY"],
        (Kind::Node, true) => NODE_WIDE,
        (Kind::Pod, false) => &["NAME", "READY", "STATUS", "RESTARTS", "AGE", "NODE"],
        (Kind::Pod, true) => {
            &["NAME", "READY", "STATUS", "RESTARTS", "AGE", "NODE", "IP", "IMAGES", "MESSAGE"]
        }
        (Kind::ReplicaSet, false) => &["NAME", "DESIRED", "CURRENT", "READY", "AGE"],
        (Kind::ReplicaSet, true) => {
            &["NAME", "DESIRED", "CURRENT", "READY", "AGE", "REVISION", "CONTAINERS", "IMAGES", "SELECTOR"]
        }
        (Kind::Deployment, false) => &["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"],
        (Kind::Deployment, true) => DEPLOYMENT_WIDE,
        (Kind::StatefulSet, false) => &["NAME", "READY", "AGE"],
        (Kind::StatefulSet, true) => {
            &["NAME", "READY", "AGE", "UPDATED", "REVISION", "CONTAINERS", "IMAGES", "SELECTOR"]
        }
        (Kind::DaemonSet, wide) => workloads::daemon_set_header(wide),
        (Kind::Job, false) => &["NAME", "STATUS", "COMPLETIONS", "DURATION", "AGE"],
        (Kind::Job, true) => {
            &["NAME", "STATUS", "COMPLETIONS", "DURATION", "AGE", "ACTIVE", "FAILED", "CONTAINERS", "IMAGES"]
        }
        (Kind::CronJob, false) => {
            &["NAME", "SCHEDULE", "TIMEZONE", "SUSPEND", "ACTIVE", "LAST SCHEDULE", "AGE"]
        }
        (Kind::CronJob, true) => workloads::CRON_JOB_WIDE,
        (Kind::ConfigMap, _) => &["NAME", "DATA", "AGE"],
        (Kind::Secret, _) => &["NAME", "TYPE", "DATA", "AGE"],
        (Kind::ControllerRevision, _) => &["NAME", "CONTROLLER", "REVISION", "AGE"],
        (Kind::HorizontalPodAutoscaler, _) => {
            &["NAME", "REFERENCE", "TARGETS", "MINPODS", "MAXPODS", "REPLICAS", "AGE"]
        }
        (Kind::CronHorizontalPodAutoscaler, _) => {
            &["NAME", "REFERENCE", "TIMEZONE", "JOBS", "LAST RUN", "LAST OUTCOME", "AGE"]
        }
        (Kind::ElasticWorkload, _) => &["NAME", "REFERENCE", "REPLICAS", "READY", "UNITS", "AGE"],
        (Kind::VerticalPodAutoscaler, _) => &["NAME", "REFERENCE", "MODE", "CPU", "MEM", "PROVIDED", "AGE"],
        (Kind::PriorityClass, _) => &["NAME", "VALUE", "GLOBAL DEFAULT", "AGE"],
        (Kind::Profile, _) => &["NAME", "RULES", "AGE"],
        (Kind::PersistentVolumeClaim, _) => {
            &["NAME", "STATUS", "NODE", "CAPACITY", "ACCESS MODES", "STORAGECLASS", "AGE"]
        }
        (Kind::ResourceQuota | Kind::Department, _) => &["NAME", "USED/HARD", "AGE"],
        (Kind::PodGroup, _) => &["NAME", "STATUS", "MIN MEMBER", "PLACED", "PENDING", "QUEUE", "AGE"],
        (Kind::Queue, _) => &["NAME", "STATE", "WEIGHT", "RUNNING", "INQUEUE", "PENDING", "AGE"],
        (Kind::NodePool | Kind::NodeOperation | Kind::DeschedulerPolicy, _) => node_pools::header(kind),
        (Kind::VolumeSnapshot, _) => &["NAME", "READYTOUSE", "SOURCEPVC", "RESTORESIZE", "NODE", "AGE"],
        (Kind::StorageClass, _) => {
            &["NAME", "PROVISIONER", "RECLAIMPOLICY", "VOLUMEBINDINGMODE", "ALLOWVOLUMEEXPANSION", "AGE"]
        }
        (Kind::PersistentVolume, _) => {
            &["NAME", "CAPACITY", "NODE", "STATUS", "CLAIM", "STORAGECLASS", "AGE"]
        }
        (Kind::ElasticQuotaTree, _) => &["NAME", "LEVELS", "NAMESPACES", "USED/MAX", "AGE"],
        (Kind::Project, _) => &["NAME", "DEPARTMENT", "USED/HARD", "AGE"],
        (Kind::LimitRange, _) => &["NAME", "TYPES", "AGE"],
        (Kind::DeviceClass, _) => &["NAME", "RESOURCE", "SHARED AS", "AGE"],
        (Kind::ResourceSlice, _) => &["NAME", "DEVICES", "CORDONED", "AGE"],
        (Kind::SriovNetworkNodePolicy, _) => &["NAME", "RESOURCE", "PRIORITY", "VFS", "TYPE", "AGE"],
        (Kind::SriovNetwork | Kind::SriovIBNetwork, _) => {
            &["NAME", "RESOURCE", "PODS OF", "RANGE", "VLAN", "AGE"]
        }
        (Kind::SriovNetworkNodeState, _) => &["NAME", "NICS", "SYNC STATUS", "STEP", "AGE"],
        (Kind::PodDisruptionBudget, _) => {
            &["NAME", "MIN AVAILABLE", "MAX UNAVAILABLE", "ALLOWED DISRUPTIONS", "AGE"]
        }
    };
    let namespace = (columns.namespace && kind.is_namespaced()).then_some("NAMESPACE");
    namespace.into_iter().chain(own.iter().copied()).chain(columns.labels.then_some("LABELS")).collect()
}

/// A claim's cells after its name.
fn claim(claim: &PersistentVolumeClaim) -> Vec<String> {
    let PersistentVolumeClaimStatus { phase, node_name, capacity_bytes, .. } = &claim.status;
    // Kubernetes' word for a claim that waits for its last pod.
    let phase = if claim.meta.is_deleting() { "Terminating" } else { phase.as_str() };
    let capacity = if *capacity_bytes == 0 { String::new() } else { format_bytes(*capacity_bytes) };
    let (mode, class) = (claim.spec.access_mode.short(), claim.spec.class_name());
    let age = age(claim.meta.created_at_ms);
    vec![phase.to_owned(), node_name.to_string(), capacity, mode.to_owned(), class.to_owned(), age]
}

/// The cells of a node's devices after its name.
fn slice(slice: &bulkhead_types::ResourceSlice) -> Vec<String> {
    let figures = [slice.devices.len(), slice.cordoned.len()].map(|figure| figure.to_string());
    [figures.to_vec(), vec![age(slice.meta.created_at_ms)]].concat()
}

/// An object's row.
pub(crate) fn row(object: &Object, columns: Columns, directory: &Directory) -> Vec<String> {
    let meta = object.meta();
    let name = if columns.kind { slash_name(&object.object_ref()) } else { meta.name.to_string() };
    let (middle, wide) = match object {
        Object::Namespace(o) => (namespace(o), vec![]),
        Object::Node(o) => node(o),
        Object::Pod(o) => pod(o, directory),
        Object::ReplicaSet(o) => replica_set(o),
        Object::Deployment(o) => deployment(o),
        Object::StatefulSet(o) => workloads::stateful_set(o),
        Object::DaemonSet(o) => workloads::daemon_set(o),
        Object::Job(o) => workloads::job(o),
        Object::CronJob(o) => workloads::cron_job(o),
        Object::ConfigMap(o) => {
            let entries = o.data.len() + o.binary_data.len();
            (vec![entries.to_string(), age(o.meta.created_at_ms)], vec![])
        }
        Object::Secret(o) => {
            let kind = o.secret_type.as_str().to_owned();
            (vec![kind, o.data.len().to_string(), age(o.meta.created_at_ms)], vec![])
        }
        Object::ControllerRevision(o) => workloads::controller_revision(o, directory),
        Object::HorizontalPodAutoscaler(o) => autoscaling::autoscaler(o),
        Object::CronHorizontalPodAutoscaler(o) => autoscaling::cron_autoscaler(o),
        Object::PodDisruptionBudget(o) => autoscaling::budget(o),
        Object::ElasticWorkload(o) => autoscaling::elastic_workload(o),
        Object::VerticalPodAutoscaler(o) => vertical::autoscaler(o),
        Object::PriorityClass(o) => {
            let age = age(o.meta.created_at_ms);
            (vec![o.value.to_string(), o.global_default.to_string(), age], vec![])
        }
        Object::PersistentVolumeClaim(o) => (claim(o), vec![]),
        Object::ResourceQuota(o) => (quotas::quota(o), vec![]),
        Object::LimitRange(o) => (quotas::limit_range(o), vec![]),
        Object::DeviceClass(o) => {
            let shared =
                o.spec.sharing.as_ref().map_or("", |sharing| sharing.extended_resource_name.as_str());
            let resource = o.spec.extended_resource_name.to_string();
            (vec![resource, or_none(shared), age(o.meta.created_at_ms)], vec![])
        }
        Object::ResourceSlice(o) => (slice(o), vec![]),
        Object::SriovNetworkNodePolicy(o) => (sriov::policy(o), vec![]),
        Object::SriovNetwork(o) => (sriov::network(&o.meta, &o.spec), vec![]),
        Object::SriovIBNetwork(o) => (sriov::network(&o.meta, &o.spec.as_network()), vec![]),
        Object::SriovNetworkNodeState(o) => (sriov::state(o), vec![]),
        Object::Department(o) => (quotas::department(o), vec![]),
        Object::PodGroup(o) => (queues::pod_group(o), vec![]),
        Object::Queue(o) => (queues::queue(o), vec![]),
        Object::NodePool(o) => (node_pools::pool(o), vec![]),
        Object::DeschedulerPolicy(o) => (node_pools::descheduler(o), vec![]),
        Object::NodeOperation(o) => (node_pools::operation(o), vec![]),
        Object::PersistentVolume(o) => (super::describe::volume_cells(o), vec![]),
        Object::StorageClass(o) => (super::describe::class_cells(o), vec![]),
        Object::VolumeSnapshot(o) => (super::describe::snapshot_cells(o), vec![]),
        Object::ElasticQuotaTree(o) => (elastic_quotas::tree(o), vec![]),
        Object::Project(o) => (quotas::project(o), vec![]),
        Object::Profile(o) => (vec![o.spec.rules.len().to_string(), age(o.meta.created_at_ms)], vec![]),
    };
    let mut cells = Vec::new();
    if let Some(namespace) = meta.namespace.as_ref().filter(|_| columns.namespace) {
        cells.push(namespace.to_string());
    }
    cells.push(name);
    cells.extend(middle);
    if columns.wide {
        cells.extend(wide);
    }
    if columns.labels {
        cells.push(pairs(meta.labels.iter().map(|(k, v)| (k.as_str(), v.as_str()))));
    }
    cells
}

/// `a=b,c=d`, or `<none>`.
pub(crate) fn pairs<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let text = pairs.map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",");
    if text.is_empty() { NONE.to_owned() } else { text }
}

fn or_none(text: impl Into<String>) -> String {
    let text = text.into();
    if text.is_empty() { NONE.to_owned() } else { text }
}

fn namespace(namespace: &Namespace) -> Vec<String> {
    let status = if namespace.meta.is_deleting() { "Terminating" } else { "Active" };
    vec![status.to_owned(), age(namespace.meta.created_at_ms)]
}

/// `Ready`, `NotReady`, with `Fenced` when nothing unique can run there, with `SchedulingDisabled` when cordoned.
pub(crate) fn node_status(node: &Node) -> String {
    let ready = match node.status.phase {
        NodePhase::Ready => "Ready",
        NodePhase::Unreachable => "NotReady",
        NodePhase::Fenced => "NotReady,Fenced",
    };
    let cordoned = if node.spec.unschedulable { ",SchedulingDisabled" } else { "" };
    format!("{ready}{cordoned}")
}

fn node(node: &Node) -> (Vec<String>, Vec<String>) {
    let facts = &node.status.facts;
    let taints: Vec<String> =
        node.spec.taints.iter().map(|t| format!("{}={}:{:?}", t.key, t.value, t.effect)).collect();
    let middle = vec![
        node_status(node),
        age(node.meta.created_at_ms),
        or_none(facts.agent_version.as_str()),
        format_millis(facts.allocatable.cpu_millis),
        format_bytes(facts.allocatable.memory_bytes),
    ];
    let wide = vec![
        facts.pods_max.to_string(),
        or_none(facts.accelerator.as_str()),
        or_none(facts.address.as_str()),
        or_none(facts.kernel_version.as_str()),
        or_none(taints.join(",")),
        or_none(facts.warnings.join("; ")),
    ];
    (middle, wide)
}

fn pod(pod: &Pod, directory: &Directory) -> (Vec<String>, Vec<String>) {
    // As in Kubernetes: sidecars count, other init containers do not.
    let sidecars = || pod.spec.sidecars().map(|c| c.name.as_str());
    let sidecar_statuses =
        pod.status.init_containers.iter().filter(|s| sidecars().any(|name| name == s.name));
    let ready = pod.status.containers.iter().chain(sidecar_statuses).filter(|c| c.ready).count();
    let node = match pod.node {
        Some(id) => directory.name_of(Kind::Node, id).map_or_else(|| id.to_string(), |name| name.to_string()),
        None => NONE.to_owned(),
    };
    let middle = vec![
        format!("{ready}/{}", pod.spec.containers.len() + sidecars().count()),
        pod_status(pod),
        restarts(pod),
        age(pod.meta.created_at_ms),
        node,
    ];
    let address = pod.status.addresses.get().and_then(|told| told.pod_ips.first());
    let address = address.map_or_else(|| NONE.to_owned(), ToString::to_string);
    (middle, vec![address, images(&pod.spec.containers), or_none(pod.status.message.as_str())])
}

/// What stands in a pod's STATUS column: the most telling of its phase and its containers' states.
pub(crate) fn pod_status(pod: &Pod) -> String {
    let status = &pod.status;
    if pod.meta.is_deleting() && !status.phase.is_terminal() {
        return if status.reason == "NodeLost" { "Unknown" } else { "Terminating" }.to_owned();
    }
    let init_total = pod.spec.init_containers.len();
    if status.phase == PodPhase::Pending && init_total > 0 && !status.init_containers.is_empty() {
        let is_sidecar = |name: &str| pod.spec.sidecars().any(|sidecar| sidecar.name == name);
        let is_done = |c: &bulkhead_types::ContainerStatus| match &c.state {
            ContainerState::Terminated(t) => t.exit_code == 0,
            ContainerState::Running { .. } => is_sidecar(&c.name) && c.ready,
            ContainerState::Waiting { .. } => false,
        };
        if let Some((done, current)) = status.init_containers.iter().enumerate().find(|(_, c)| !is_done(c)) {
            return match reason_of(&current.state) {
                Some(reason) if reason != "PodInitializing" => format!("Init:{reason}"),
                _ => format!("Init:{done}/{init_total}"),
            };
        }
    }
    // The first container that says something, as kubectl has it; but no pod that failed says Completed.
    let mut reasons = status.containers.iter().filter_map(|c| reason_of(&c.state));
    let troubled = match status.phase {
        PodPhase::Failed => reasons.find(|reason| reason != "Completed"),
        _ => reasons.next(),
    };
    match (troubled, status.reason.as_str()) {
        (_, reason) if !reason.is_empty() => reason.to_owned(),
        (Some(reason), _) => reason,
        (None, _) => match status.phase {
            PodPhase::Pending => "Pending",
            PodPhase::Running => "Running",
            PodPhase::Succeeded => "Completed",
            PodPhase::Failed => "Error",
        }
        .to_owned(),
    }
}

fn reason_of(state: &ContainerState) -> Option<String> {
    match state {
        ContainerState::Running { .. } => None,
        ContainerState::Waiting { reason, .. } => (!reason.is_empty()).then(|| reason.to_string()),
        ContainerState::Terminated(t) if !t.reason.is_empty() => Some(t.reason.to_string()),
        ContainerState::Terminated(t) if t.signal != 0 => Some(format!("Signal:{}", t.signal)),
        ContainerState::Terminated(t) => Some(format!("ExitCode:{}", t.exit_code)),
    }
}

fn restarts(pod: &Pod) -> String {
    let status = &pod.status;
    let count: u64 = status.containers.iter().map(|c| u64::from(c.restart_count)).sum::<u64>()
        + u64::from(status.sandbox_restarts);
    let last =
        status.containers.iter().filter_map(|c| c.last_termination.as_ref()).map(|t| t.finished_at_ms).max();
    match last {
        Some(at_ms) if count > 0 && at_ms > 0 => {
            let ago = crate::time::now_ms().saturating_sub(at_ms) / 1000;
            format!("{count} ({} ago)", short(ago))
        }
        _ => count.to_string(),
    }
}

fn images(containers: &[Container]) -> String {
    containers.iter().map(|c| c.image.as_str()).collect::<Vec<_>>().join(",")
}

fn names(containers: &[Container]) -> String {
    containers.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(",")
}

/// A selector in its text form.
pub(crate) fn selector(selector: &LabelSelector) -> String {
    use bulkhead_types::LabelOperator::{DoesNotExist, Exists, In, NotIn};
    let labels = selector.match_labels.iter().map(|(k, v)| format!("{k}={v}"));
    let expressions = selector.match_expressions.iter().map(|r| match r.operator {
        In => format!("{} in ({})", r.key, r.values.join(",")),
        NotIn => format!("{} notin ({})", r.key, r.values.join(",")),
        Exists => r.key.to_string(),
        DoesNotExist => format!("!{}", r.key),
    });
    or_none(labels.chain(expressions).collect::<Vec<_>>().join(","))
}

fn replica_set(set: &ReplicaSet) -> (Vec<String>, Vec<String>) {
    let (spec, status) = (&set.spec, &set.status);
    let middle = vec![
        spec.replicas.to_string(),
        status.replicas.to_string(),
        status.ready_replicas.to_string(),
        age(set.meta.created_at_ms),
    ];
    let containers = &spec.template.spec.containers;
    let wide = vec![
        spec.rollout_revision.to_string(),
        names(containers),
        images(containers),
        selector(&spec.selector),
    ];
    (middle, wide)
}

fn deployment(deployment: &Deployment) -> (Vec<String>, Vec<String>) {
    let (spec, status) = (&deployment.spec, &deployment.status);
    let middle = vec![
        format!("{}/{}", status.ready_replicas, spec.replicas),
        status.updated_replicas.to_string(),
        status.available_replicas.to_string(),
        age(deployment.meta.created_at_ms),
    ];
    let containers = &spec.template.spec.containers;
    let wide = vec![
        status.rollout_revision.to_string(),
        names(containers),
        images(containers),
        selector(&spec.selector),
    ];
    (middle, wide)
}
