//! What makes a submitted object acceptable, however it arrived: as a manifest or as a message.
//!
//! Source: "API Conventions" and the API reference of Kubernetes for the rules; bounds that Kubernetes leaves
//! open are set here, because everything that is stored is replicated and kept in memory.

mod autoscaler;
mod bandwidth;
mod claim;
mod config;
mod descheduler;
mod device;
mod disruption_budget;
mod elastic;
mod elastic_quota;
mod huge_pages;
mod image;
mod job;
mod naming;
mod node_pool;
mod path;
mod placement;
mod pod;
mod probe;
mod profile;
mod pull_secrets;
mod queue;
mod quota;
mod security;
mod sriov;
mod vertical_autoscaler;
mod volume;
mod workload;

use std::collections::BTreeSet;

pub use claim::shared_reason;
pub use image::{ImageReferenceError, check_image_reference};
use path::Path;
pub use placement::{
    AFFINITY_TERMS_MAX, LABEL_KEYS_MAX, NODE_REQUIREMENTS_MAX, REQUIREMENT_VALUES_MAX,
    SPREAD_CONSTRAINTS_MAX, SPREAD_NUMBER_MAX, TERM_NAMESPACES_MAX,
};
pub use probe::{HTTP_HEADERS_MAX, HTTP_TEXT_BYTES_MAX};
pub use security::SUPPLEMENTAL_GROUPS_MAX;
pub use volume::{ITEMS_OF_SOURCE_MAX, SOURCES_MAX, VOLUMES_MAX};

use crate::{
    ANNOTATED_SYSCTLS_LEVEL, ANNOTATIONS_BYTES_MAX, BANDWIDTH_LEVEL, CRON_JOB_NAME_LENGTH_MAX,
    FEATURE_LEVEL_MAX, LABELS_MAX, Node, Object, ObjectMeta, POD_GROUP_LEVEL, QUEUES_LEVEL, StringMap,
    check_group_labels, check_label_key, check_label_value,
};

/// Most containers of a pod; init containers are counted for themselves. From [`crate::GUEST_DISKS_LEVEL`] on
/// [`GUEST_DISKS_MAX`] is below it.
pub const CONTAINERS_MAX: usize = 64;
/// Most disks of a pod's guest ([`crate::PodSpec::disks`]): it has places for no more.
pub const GUEST_DISKS_MAX: usize = 28;
/// Most environment variables of a container.
pub const ENV_MAX: usize = 1024;
/// Most ports of a container.
pub const PORTS_MAX: usize = 256;
/// Most words of a container's command, and of its arguments.
pub const ARGS_MAX: usize = 1024;
/// Most tolerations of a pod, and most taints of a node.
pub const TAINTS_MAX: usize = 256;
/// Most bytes of an object's texts, keys and lists together, roughly.
pub const OBJECT_BYTES_MAX: usize = 1 << 20;
/// Largest amount of one resource of one container: the sum over a pod stays far below 2^63.
pub const AMOUNT_MAX: u64 = 1 << 53;
/// Longest duration of a spec, in milliseconds: what Kubernetes' 32-bit seconds hold.
pub const DURATION_MS_MAX: u64 = i32::MAX as u64 * 1000;
/// Most old ReplicaSets that a Deployment may keep.
pub const REVISION_HISTORY_LIMIT_MAX: u32 = 1000;
/// Most surge in per cent.
pub const SURGE_PERCENT_MAX: u32 = 1000;
/// Most errors that [`validate`] lists; an object that is wrong in more places shows the others afterwards.
pub const FIELD_ERRORS_MAX: usize = 100;

/// One field is not acceptable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct FieldError {
    /// Where, as in Kubernetes' messages: `spec.template.spec.containers[0].ports[1].name`; keys of maps stand
    /// in brackets too: `metadata.labels[app.kubernetes.io/name]`.
    pub path: String,
    /// Why, with what would be acceptable.
    pub reason: String,
}

/// Checks what a client may submit: names, labels, selector, template, containers, amounts, sizes.
///
/// Status, ids and revisions are the control plane's own and not looked at. An empty list means acceptable;
/// at most [`FIELD_ERRORS_MAX`] errors are listed.
#[must_use]
pub fn validate(object: &Object) -> Vec<FieldError> {
    validate_at(object, FEATURE_LEVEL_MAX)
}

/// The same by the rules of a feature level: what a log of that level holds was judged by them.
#[must_use]
pub fn validate_at(object: &Object, level: u32) -> Vec<FieldError> {
    let mut report = Report { level, ..Report::default() };
    let root = Path::Root;
    meta(object, &mut report);
    match object {
        Object::Namespace(_) => {}
        Object::Node(node) => taints(node, &mut report),
        Object::Pod(p) => pod::spec(&p.spec, &root.field("spec"), &mut report),
        Object::ReplicaSet(set) => workload::replica_set(&set.spec, &root.field("spec"), &mut report),
        Object::Deployment(d) => workload::deployment(&d.spec, &root.field("spec"), &mut report),
        Object::StatefulSet(s) => {
            workload::stateful_set(&s.meta.name, &s.spec, &root.field("spec"), &mut report)
        }
        Object::DaemonSet(s) => workload::daemon_set(&s.spec, &root.field("spec"), &mut report),
        Object::Job(j) => job::job(&j.spec, &root.field("spec"), &mut report),
        Object::CronJob(j) => cron_job(j, &mut report),
        Object::ConfigMap(c) => config::config_map(c, &mut report),
        Object::Secret(s) => config::secret(s, level, &mut report),
        Object::HorizontalPodAutoscaler(a) => autoscaler::autoscaler(a, &mut report),
        Object::CronHorizontalPodAutoscaler(a) => {
            autoscaler::cron_autoscaler(&a.spec, &root.field("spec"), &mut report);
        }
        Object::PodDisruptionBudget(b) => {
            disruption_budget::budget(&b.spec, &root.field("spec"), &mut report);
        }
        Object::ElasticWorkload(w) => elastic::workload(&w.spec, &root.field("spec"), &mut report),
        Object::VerticalPodAutoscaler(a) => {
            vertical_autoscaler::autoscaler(&a.spec, &root.field("spec"), &mut report);
        }
        Object::PriorityClass(c) => profile::priority_class(c, &mut report),
        Object::Profile(p) => profile::profile(&p.spec, &root.field("spec"), &mut report),
        Object::PersistentVolumeClaim(c) => claim::whole(c, &root.field("spec"), &mut report),
        Object::StorageClass(class) => claim::class(class, &root, &mut report),
        Object::PersistentVolume(v) => claim::volume(&v.spec, &root.field("spec"), &mut report),
        Object::VolumeSnapshot(s) => claim::snapshot(&s.spec, &root.field("spec"), &mut report),
        Object::ResourceQuota(q) => quota::hard(&q.spec.hard, &root.field("spec"), &mut report),
        Object::Project(p) => quota::hard(&p.spec.hard, &root.field("spec"), &mut report),
        Object::Department(d) => quota::hard(&d.spec.hard, &root.field("spec"), &mut report),
        Object::PodGroup(g) => queue::pod_group(&g.spec, &root.field("spec"), &mut report),
        Object::Queue(q) => queue::queue(q, &root.field("spec"), &mut report),
        Object::LimitRange(r) => quota::limit_range(&r.spec, &root.field("spec"), &mut report),
        Object::DeviceClass(c) => device::class(&c.spec, &root.field("spec"), &mut report),
        Object::ControllerRevision(_) => {
            report.push(&root.field("kind"), "ControllerRevisions are made by their owners only");
        }
        Object::SriovNetworkNodePolicy(p) => sriov::policy(&p.spec, &root.field("spec"), &mut report),
        Object::SriovNetwork(n) => sriov::network(&n.spec, &root.field("spec"), &mut report),
        Object::SriovIBNetwork(n) => sriov::network(&n.spec.as_network(), &root.field("spec"), &mut report),
        Object::ElasticQuotaTree(t) => elastic_quota::tree(t, &mut report),
        Object::SriovNetworkNodeState(_) => {
            let reason = "SriovNetworkNodeStates are made of policies and of what nodes report only";
            report.push(&root.field("kind"), reason);
        }
        Object::DeschedulerPolicy(p) => descheduler::policy(&p.spec, &root.field("spec"), &mut report),
        Object::NodePool(p) => node_pool::pool(&p.spec, &root.field("spec"), &mut report),
        Object::NodeOperation(o) => node_pool::operation(&o.spec, &root.field("spec"), &mut report),
        Object::ResourceSlice(_) => {
            report.push(&root.field("kind"), "ResourceSlices are made of what nodes report only");
        }
    }
    if level >= POD_GROUP_LEVEL {
        pod_annotations(object, level, &mut report);
    }
    let bytes = object_bytes(object);
    if bytes > OBJECT_BYTES_MAX {
        report.push(
            &root.field("metadata"),
            format!("the object holds about {bytes} bytes: at most {OBJECT_BYTES_MAX} are stored"),
        );
    }
    report.errors
}

fn cron_job(job: &crate::CronJob, report: &mut Report) {
    let root = Path::Root;
    if job.meta.name.as_str().len() > CRON_JOB_NAME_LENGTH_MAX {
        let reason =
            format!("must be at most {CRON_JOB_NAME_LENGTH_MAX} bytes: the time of a run is joined to it");
        report.push(&root.field("metadata").field("name"), reason);
    }
    job::cron_job(&job.spec, &root.field("spec"), report);
}

/// The labels and annotations by which pods are of a group, of a queue, and limited.
fn pod_annotations(object: &Object, level: u32, report: &mut Report) {
    if level >= BANDWIDTH_LEVEL {
        bandwidth::profile(object, report);
    }
    let root = Path::Root;
    let spec = root.field("spec");
    let template = spec.field("template");
    let of_jobs = spec.field("jobTemplate");
    let of_jobs = of_jobs.field("spec");
    let job_template = of_jobs.field("template");
    let (labels, annotations, path) = match object {
        Object::Pod(pod) => (&pod.meta.labels, &pod.meta.annotations, &root),
        Object::CronJob(job) if level >= QUEUES_LEVEL => {
            let template = &job.spec.job_template.spec.template;
            (&template.labels, &template.annotations, &job_template)
        }
        other => match template_of(other) {
            Some((labels, annotations)) => (labels, annotations, &template),
            None => return,
        },
    };
    let path = path.field("metadata");
    if let Err((key, reason)) = check_group_labels(labels) {
        report.push(&path.field("labels").key(key), reason);
    }
    if level >= QUEUES_LEVEL {
        queue::names(labels, annotations, &path, report);
    }
    if level >= BANDWIDTH_LEVEL {
        bandwidth::limits(annotations, &path, report);
    }
    if level >= ANNOTATED_SYSCTLS_LEVEL {
        security::annotated_sysctls(annotations, &path, report);
    }
}

/// Labels and annotations of a workload's pods.
fn template_of(object: &Object) -> Option<(&StringMap, &StringMap)> {
    let template = match object {
        Object::ReplicaSet(set) => &set.spec.template,
        Object::Deployment(one) => &one.spec.template,
        Object::StatefulSet(set) => &set.spec.template,
        Object::DaemonSet(set) => &set.spec.template,
        Object::Job(job) => &job.spec.template,
        _ => return None,
    };
    Some((&template.labels, &template.annotations))
}

/// Collects errors, up to the bound.
#[derive(Default)]
struct Report {
    errors: Vec<FieldError>,
    /// The feature level by whose rules is judged.
    level: u32,
}

impl Report {
    fn push(&mut self, path: &Path<'_>, reason: impl Into<String>) {
        if self.errors.len() < FIELD_ERRORS_MAX {
            self.errors.push(FieldError { path: path.to_string(), reason: reason.into() });
        }
    }

    fn check<E: std::fmt::Display>(&mut self, path: &Path<'_>, result: Result<(), E>) {
        if let Err(error) = result {
            self.push(path, error.to_string());
        }
    }

    fn at_most(&mut self, path: &Path<'_>, what: &str, found: usize, most: usize) {
        if found > most {
            self.push(path, format!("has {found} {what}: at most {most} are allowed"));
        }
    }

    fn duration(&mut self, path: &Path<'_>, ms: u64) {
        if ms > DURATION_MS_MAX {
            self.push(path, format!("must be at most {} seconds", DURATION_MS_MAX / 1000));
        }
    }
}

fn meta(object: &Object, report: &mut Report) {
    let root = Path::Root;
    let path = root.field("metadata");
    let ObjectMeta { namespace, labels: own, annotations: notes, .. } = object.meta();
    let kind = object.kind();
    match (kind.is_namespaced(), namespace) {
        (true, None) => {
            report.push(&path.field("namespace"), format!("is required: a {kind} lives in a namespace"));
        }
        (false, Some(_)) => {
            report.push(&path.field("namespace"), format!("must not be set: a {kind} lives in no namespace"));
        }
        _ => {}
    }
    labels(own, &path.field("labels"), report);
    annotations(notes, &path.field("annotations"), report);
}

/// Labels of an object, of a template, or wanted of a node.
fn labels(map: &StringMap, path: &Path<'_>, report: &mut Report) {
    report.at_most(path, "entries", map.len(), LABELS_MAX);
    for (key, value) in map {
        report.check(&path.key(key), check_label_key(key));
        report.check(&path.key(key), check_label_value(value));
    }
}

fn annotations(map: &StringMap, path: &Path<'_>, report: &mut Report) {
    report.at_most(path, "entries", map.len(), LABELS_MAX);
    for key in map.keys() {
        // Kubernetes checks annotation keys without regard to case: their prefix may hold capitals.
        report.check(&path.key(key), check_label_key(&key.to_ascii_lowercase()));
    }
    let bytes = map_bytes(map);
    if bytes > ANNOTATIONS_BYTES_MAX {
        report.push(path, format!("has {bytes} bytes: at most {ANNOTATIONS_BYTES_MAX} are allowed"));
    }
}

fn taints(node: &Node, report: &mut Report) {
    if let Some(gpu) = node.spec.gpu.get() {
        device::node_gpu(gpu, &Path::Root.field("spec"), report);
    }
    let (root, mut seen) = (Path::Root, BTreeSet::new());
    let spec = root.field("spec");
    let path = spec.field("taints");
    report.at_most(&path, "taints", node.spec.taints.len(), TAINTS_MAX);
    for (index, taint) in node.spec.taints.iter().enumerate() {
        let path = path.index(index);
        report.check(&path.field("key"), check_label_key(&taint.key));
        report.check(&path.field("value"), check_label_value(&taint.value));
        if !seen.insert((&taint.key, taint.effect)) {
            report.push(&path, format!("repeats key {:?} with the same effect", taint.key));
        }
    }
}

/// Bytes of a map's texts.
fn map_bytes(map: &StringMap) -> usize {
    map.iter().map(|(key, value)| key.len() + value.len()).sum()
}

fn object_bytes(object: &Object) -> usize {
    let meta = map_bytes(&object.meta().labels) + map_bytes(&object.meta().annotations);
    meta + match object {
        Object::Namespace(_) | Object::PersistentVolumeClaim(_) => 0,
        Object::Node(node) => node.spec.taints.iter().map(|t| t.key.len() + t.value.len()).sum(),
        Object::Pod(p) => pod::bytes(&p.spec),
        Object::ReplicaSet(set) => workload::template_bytes(&set.spec.template),
        Object::Deployment(d) => workload::template_bytes(&d.spec.template),
        Object::StatefulSet(s) => workload::template_bytes(&s.spec.template) + claim::bytes(&s.spec),
        Object::DaemonSet(s) => workload::template_bytes(&s.spec.template),
        Object::Job(j) => workload::template_bytes(&j.spec.template),
        Object::CronJob(j) => {
            let template = &j.spec.job_template;
            map_bytes(&template.labels)
                + map_bytes(&template.annotations)
                + workload::template_bytes(&template.spec.template)
        }
        // Data has a bound of its own.
        Object::ConfigMap(_) | Object::Secret(_) => 0,
        Object::ControllerRevision(r) => workload::template_bytes(&r.template),
        // Lists have bounds of their own.
        Object::HorizontalPodAutoscaler(_)
        | Object::CronHorizontalPodAutoscaler(_)
        | Object::VerticalPodAutoscaler(_)
        | Object::PodDisruptionBudget(_)
        | Object::ResourceQuota(_)
        | Object::LimitRange(_)
        | Object::Project(_)
        | Object::Department(_)
        | Object::PodGroup(_)
        | Object::Queue(_)
        | Object::DeviceClass(_)
        | Object::SriovNetworkNodePolicy(_)
        | Object::SriovNetwork(_)
        | Object::SriovIBNetwork(_)
        | Object::SriovNetworkNodeState(_)
        | Object::NodePool(_)
        | Object::NodeOperation(_)
        | Object::DeschedulerPolicy(_)
        | Object::ElasticQuotaTree(_)
        | Object::VolumeSnapshot(_)
        | Object::StorageClass(_)
        | Object::PersistentVolume(_)
        | Object::ResourceSlice(_) => 0,
        Object::PriorityClass(c) => c.description.len(),
        Object::Profile(p) => profile::bytes(&p.spec),
        Object::ElasticWorkload(w) => elastic::bytes(&w.spec),
    }
}

#[cfg(test)]
mod tests;
