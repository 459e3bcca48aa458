//! Pods as the templates of StatefulSets, DaemonSets and Jobs describe them.

use std::sync::Arc;

use bulkhead_schedule::format_time;
use bulkhead_types::{
    ANNOTATION_INSTANTIATE, ANNOTATION_SCHEDULED_AT, ControllerRevision, CronJob, Job, JobStatus, Kind,
    LABEL_CONTROLLER_REVISION_HASH, LABEL_JOB_COMPLETION_INDEX, LABEL_JOB_NAME, LABEL_POD_INDEX,
    LABEL_STATEFUL_SET_POD_NAME, Name, Object, ObjectId, ObjectMeta, OwnerRef, Pod, PodSpec, PodStamp,
    PodStatus, PodTemplate, Rare, Revision, Shared, StringMap, TaintEffect, Toleration, TolerationOperator,
};
use smol_str::{SmolStr, ToSmolStr};

use crate::State;

/// Taints that no pod of a DaemonSet minds: it belongs to its node, whatever happens to that (Kubernetes adds the
/// same tolerations).
const DAEMON_TOLERATIONS: [(&str, TaintEffect); 7] = [
    ("node.kubernetes.io/not-ready", TaintEffect::NoExecute),
    ("node.kubernetes.io/unreachable", TaintEffect::NoExecute),
    ("node.kubernetes.io/disk-pressure", TaintEffect::NoSchedule),
    ("node.kubernetes.io/memory-pressure", TaintEffect::NoSchedule),
    ("node.kubernetes.io/pid-pressure", TaintEffect::NoSchedule),
    ("node.kubernetes.io/unschedulable", TaintEffect::NoSchedule),
    ("node.kubernetes.io/network-unavailable", TaintEffect::NoSchedule),
];

/// When a pod comes to be.
#[derive(Clone, Copy)]
pub(crate) struct Birth {
    /// The event's revision, which is its key.
    pub(crate) revision: Revision,
    /// Log time, milliseconds since the epoch.
    pub(crate) at_ms: u64,
}

impl Birth {
    /// Of a pod that is only looked at: nothing of what it may be depends on when it comes.
    pub(crate) fn trial(state: &State) -> Self {
        Self { revision: state.revision, at_ms: state.now_ms }
    }
}

/// A pod as its ReplicaSet's template describes it.
///
/// # Panics
/// When the set is not there: `decide` allowed what it must not.
pub(crate) fn set_pod(state: &State, birth: &Birth, set: ObjectId, name: &Name) -> Pod {
    let set = state.replica_sets.get(set);
    let set = set.unwrap_or_else(|| panic!("a pod is created for a ReplicaSet that is not there"));
    let template = &set.spec.template;
    let meta = ObjectMeta {
        name: name.clone(),
        namespace: set.meta.namespace.clone(),
        id: ObjectId(birth.revision),
        revision: birth.revision,
        generation: 1,
        created_at_ms: birth.at_ms,
        deletion: None,
        labels: template.labels.clone(),
        annotations: template.annotations.clone(),
        owner: Some(OwnerRef { kind: Kind::ReplicaSet, id: set.meta.id }),
        trace_context: set.meta.trace_context.clone(),
        managers: Rare::NONE,
    };
    Pod { meta, spec: template.spec.clone(), node: None, status: PodStatus::default() }
}

/// The pod that an owner and a stamp describe.
///
/// # Panics
/// When the owner, or the ControllerRevision or node of the stamp, is not there, or the owner makes no such pods:
/// `decide` allowed what it must not.
pub(crate) fn owned_pod(state: &State, birth: &Birth, owner: OwnerRef, stamp: &PodStamp) -> Pod {
    let object = state
        .object(owner.kind, owner.id)
        .unwrap_or_else(|| panic!("a pod is created for {} {}, which is not there", owner.kind, owner.id));
    let revision = stamp.revision.map(|id| {
        state
            .controller_revisions
            .get(id)
            .unwrap_or_else(|| panic!("a pod has the template {id}, which is not there"))
    });
    let template = match (&object, revision) {
        (_, Some(revision)) => &revision.template,
        (Object::Job(job), None) => &job.spec.template,
        (Object::StatefulSet(set), None) => &set.spec.template,
        (Object::DaemonSet(set), None) => &set.spec.template,
        (other, None) => panic!("a {} makes no such pods", other.kind()),
    };
    let owner_meta = object.meta();
    let meta = ObjectMeta {
        name: stamp.name.clone(),
        namespace: owner_meta.namespace.clone(),
        id: ObjectId(birth.revision),
        revision: birth.revision,
        generation: 1,
        created_at_ms: birth.at_ms,
        deletion: None,
        labels: labels(&object, stamp, revision, template),
        annotations: annotations(&object, stamp, template),
        owner: Some(owner),
        trace_context: owner_meta.trace_context.clone(),
        managers: Rare::NONE,
    };
    let spec = match (&object, stamp.node, stamp.index) {
        (_, Some(node), _) => daemon_spec(state, node, &template.spec),
        (Object::StatefulSet(set), None, Some(ordinal)) => {
            set.spec.with_claims(&template.spec, &set.meta.name, ordinal)
        }
        _ => template.spec.clone(),
    };
    Pod { meta, spec, node: None, status: PodStatus::default() }
}

/// The completion index of a pod of an indexed Job.
pub(crate) fn completion_index(pod: &Pod) -> Option<u32> {
    pod.meta.annotations.get(LABEL_JOB_COMPLETION_INDEX)?.parse().ok()
}

/// A Job of a CronJob for a time of its schedule, milliseconds since the epoch.
pub(crate) fn scheduled_job(cron_job: &CronJob, name: Name, run_ms: u64) -> Job {
    let mut job = job_of(cron_job, name);
    let (key, value) = (SmolStr::new_static(ANNOTATION_SCHEDULED_AT), format_time(run_ms).into());
    job.meta.annotations.insert(key, value);
    job
}

/// A Job of a CronJob that somebody wants now.
pub(crate) fn manual_job(cron_job: &CronJob, name: Name) -> Job {
    let mut job = job_of(cron_job, name);
    let (key, value) = (SmolStr::new_static(ANNOTATION_INSTANTIATE), SmolStr::new_static("manual"));
    job.meta.annotations.insert(key, value);
    job
}

/// A Job as a CronJob's template describes it.
pub(crate) fn job_of(cron_job: &CronJob, name: Name) -> Job {
    let template = &cron_job.spec.job_template;
    let is_system = |key: &str| matches!(key, ANNOTATION_SCHEDULED_AT | ANNOTATION_INSTANTIATE);
    let mut meta = ObjectMeta::new(cron_job.meta.namespace.clone(), name);
    meta.labels = template.labels.clone();
    meta.annotations = template.annotations.clone();
    meta.annotations.retain(|key, _| !is_system(key));
    Job { meta, spec: template.spec.clone(), status: JobStatus::default() }
}

fn labels(
    owner: &Object,
    stamp: &PodStamp,
    revision: Option<&Arc<ControllerRevision>>,
    template: &PodTemplate,
) -> StringMap {
    let mut labels = template.labels.clone();
    let mut set = |key, value: SmolStr| _ = labels.insert(SmolStr::new_static(key), value);
    if let Some(revision) = revision {
        set(LABEL_CONTROLLER_REVISION_HASH, SmolStr::new(revision.meta.name.as_str()));
    }
    let index = stamp.index.map(|index| index.to_smolstr());
    match owner {
        Object::StatefulSet(_) => {
            set(LABEL_STATEFUL_SET_POD_NAME, SmolStr::new(stamp.name.as_str()));
            index.into_iter().for_each(|index| set(LABEL_POD_INDEX, index));
        }
        Object::Job(job) => {
            set(LABEL_JOB_NAME, SmolStr::new(job.meta.name.as_str()));
            index.into_iter().for_each(|index| set(LABEL_JOB_COMPLETION_INDEX, index));
        }
        _ => {}
    }
    labels
}

fn annotations(owner: &Object, stamp: &PodStamp, template: &PodTemplate) -> StringMap {
    let mut annotations = template.annotations.clone();
    if let (Object::Job(_), Some(index)) = (owner, stamp.index) {
        annotations.insert(SmolStr::new_static(LABEL_JOB_COMPLETION_INDEX), index.to_smolstr());
    }
    annotations
}

/// The template's spec for one node, with the tolerations that every pod of a DaemonSet has.
fn daemon_spec(state: &State, node: ObjectId, spec: &PodSpec) -> Shared<PodSpec> {
    let node =
        state.nodes.get(node).unwrap_or_else(|| panic!("a pod is for node {node}, which is not there"));
    let mut spec = with_daemon_tolerations(spec);
    spec.node_name = Some(SmolStr::new(node.meta.name.as_str()));
    Shared::new(spec)
}

/// A DaemonSet's pod spec as it counts for taints.
pub(crate) fn with_daemon_tolerations(spec: &PodSpec) -> PodSpec {
    let mut spec = spec.clone();
    for (key, effect) in DAEMON_TOLERATIONS {
        let toleration = Toleration {
            key: SmolStr::new_static(key),
            operator: TolerationOperator::Exists,
            value: SmolStr::default(),
            effect: Some(effect),
            toleration_ms: None,
        };
        if !spec.tolerations.contains(&toleration) {
            spec.tolerations.push(toleration);
        }
    }
    spec
}
