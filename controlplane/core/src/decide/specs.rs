//! Which changes of a spec are allowed, for kinds that change by [`bulkhead_types::EventKind::SpecChanged`].
//!
//! Source: the validation of updates of the Kubernetes API ("Forbidden: updates to statefulset spec for fields other
//! than ...", "field is immutable").

use std::cmp::Ordering;

use bulkhead_types::{
    CompletionMode, ConfigMap, Job, JobSpec, Object, PersistentVolumeClaimSpec, PersistentVolumeSpec, Secret,
    StatefulSet, StatefulSetSpec, StorageClassSpec,
};

/// Where a change is not allowed, and why.
type Refusal = Option<(&'static str, &'static str)>;

/// Whether two objects of one name differ in what users set beside metadata.
pub(super) fn differ(present: &Object, wanted: &Object) -> bool {
    match (present, wanted) {
        (Object::StatefulSet(a), Object::StatefulSet(b)) => a.spec != b.spec,
        (Object::DaemonSet(a), Object::DaemonSet(b)) => a.spec != b.spec,
        (Object::Job(a), Object::Job(b)) => a.spec != b.spec,
        (Object::CronJob(a), Object::CronJob(b)) => a.spec != b.spec,
        (Object::ConfigMap(a), Object::ConfigMap(b)) => {
            (a.immutable, &a.data, &a.binary_data) != (b.immutable, &b.data, &b.binary_data)
        }
        (Object::Secret(a), Object::Secret(b)) => {
            (a.immutable, a.secret_type, &a.data) != (b.immutable, b.secret_type, &b.data)
        }
        (Object::HorizontalPodAutoscaler(a), Object::HorizontalPodAutoscaler(b)) => a.spec != b.spec,
        (Object::CronHorizontalPodAutoscaler(a), Object::CronHorizontalPodAutoscaler(b)) => a.spec != b.spec,
        (Object::PodDisruptionBudget(a), Object::PodDisruptionBudget(b)) => a.spec != b.spec,
        (Object::VerticalPodAutoscaler(a), Object::VerticalPodAutoscaler(b)) => a.spec != b.spec,
        (Object::PriorityClass(a), Object::PriorityClass(b)) => {
            (a.value, a.global_default, a.preemption_policy, &a.description)
                != (b.value, b.global_default, b.preemption_policy, &b.description)
        }
        (Object::Profile(a), Object::Profile(b)) => a.spec != b.spec,
        (Object::ElasticWorkload(a), Object::ElasticWorkload(b)) => a.spec != b.spec,
        (Object::PersistentVolumeClaim(a), Object::PersistentVolumeClaim(b)) => {
            (&a.spec, &a.source) != (&b.spec, &b.source)
        }
        (Object::VolumeSnapshot(a), Object::VolumeSnapshot(b)) => a.spec != b.spec,
        (Object::StorageClass(a), Object::StorageClass(b)) => a.spec != b.spec,
        (Object::PersistentVolume(a), Object::PersistentVolume(b)) => a.spec != b.spec,
        (Object::ResourceQuota(a), Object::ResourceQuota(b)) => a.spec != b.spec,
        (Object::LimitRange(a), Object::LimitRange(b)) => a.spec != b.spec,
        (Object::DeviceClass(a), Object::DeviceClass(b)) => a.spec != b.spec,
        (Object::SriovNetworkNodePolicy(a), Object::SriovNetworkNodePolicy(b)) => a.spec != b.spec,
        (Object::SriovNetwork(a), Object::SriovNetwork(b)) => a.spec != b.spec,
        (Object::SriovIBNetwork(a), Object::SriovIBNetwork(b)) => a.spec != b.spec,
        (Object::Project(a), Object::Project(b)) => a.spec != b.spec,
        (Object::Department(a), Object::Department(b)) => a.spec != b.spec,
        (Object::PodGroup(a), Object::PodGroup(b)) => a.spec != b.spec,
        (Object::Queue(a), Object::Queue(b)) => a.spec != b.spec,
        (Object::NodePool(a), Object::NodePool(b)) => a.spec != b.spec,
        (Object::DeschedulerPolicy(a), Object::DeschedulerPolicy(b)) => a.spec != b.spec,
        (Object::NodeOperation(a), Object::NodeOperation(b)) => a.spec != b.spec,
        (Object::ElasticQuotaTree(a), Object::ElasticQuotaTree(b)) => a.spec != b.spec,
        _ => false,
    }
}

/// The first field that must not change but would; `None` when the change is allowed.
pub(super) fn immutable_change(present: &Object, wanted: &Object) -> Refusal {
    match (present, wanted) {
        (Object::StatefulSet(a), Object::StatefulSet(b)) => stateful_set(a, b),
        (Object::DaemonSet(a), Object::DaemonSet(b)) if a.spec.selector != b.spec.selector => {
            Some(("spec.selector", "cannot change after creation"))
        }
        (Object::Job(a), Object::Job(b)) => job(a, b),
        (Object::PriorityClass(a), Object::PriorityClass(b)) if a.value != b.value => {
            Some(("value", "cannot change after creation"))
        }
        (Object::PriorityClass(a), Object::PriorityClass(b))
            if a.preemption_policy != b.preemption_policy =>
        {
            Some(("preemptionPolicy", "cannot change after creation"))
        }
        (Object::ElasticWorkload(a), Object::ElasticWorkload(b))
            if a.spec.source.name != b.spec.source.name =>
        {
            Some(("spec.sourceTarget.name", "cannot change after creation"))
        }
        (Object::NodeOperation(_), Object::NodeOperation(_)) => {
            Some(("spec", "cannot change after creation: what was begun would be another thing"))
        }
        // What is known is of the one workload.
        (Object::VerticalPodAutoscaler(a), Object::VerticalPodAutoscaler(b))
            if a.spec.target != b.spec.target =>
        {
            Some(("spec.targetRef", "cannot change after creation"))
        }
        (Object::ConfigMap(a), Object::ConfigMap(b)) => config_map(a, b),
        (Object::Secret(a), Object::Secret(b)) => secret(a, b),
        (Object::PersistentVolumeClaim(a), Object::PersistentVolumeClaim(b)) if a.source != b.source => {
            Some(("spec.dataSource", "cannot change after creation"))
        }
        (Object::VolumeSnapshot(_), Object::VolumeSnapshot(_)) => {
            Some(("spec.source", "cannot change after creation"))
        }
        (Object::PersistentVolumeClaim(a), Object::PersistentVolumeClaim(b)) => claim(&a.spec, &b.spec),
        (Object::StorageClass(a), Object::StorageClass(b)) => storage_class(a.spec, b.spec),
        (Object::PersistentVolume(a), Object::PersistentVolume(b)) => persistent_volume(&a.spec, &b.spec),
        _ => None,
    }
}

fn stateful_set(present: &StatefulSet, wanted: &StatefulSet) -> Refusal {
    let StatefulSetSpec { selector, service_name, pod_management_policy, .. } = &wanted.spec;
    let spec = &present.spec;
    let changed = [
        ("spec.selector", spec.selector != *selector),
        ("spec.serviceName", spec.service_name != *service_name),
        ("spec.podManagementPolicy", spec.pod_management_policy != *pod_management_policy),
        ("spec.volumeClaimTemplates", spec.claim_templates() != wanted.spec.claim_templates()),
    ];
    let first = changed.into_iter().find_map(|(path, changed)| changed.then_some(path));
    first.map(|path| (path, "cannot change after creation"))
}

fn storage_class(present: StorageClassSpec, wanted: StorageClassSpec) -> Refusal {
    match wanted {
        _ if wanted.reclaim != present.reclaim => Some(("reclaimPolicy", "cannot change after creation")),
        _ => None,
    }
}

fn persistent_volume(present: &PersistentVolumeSpec, wanted: &PersistentVolumeSpec) -> Refusal {
    let claim = |spec: &PersistentVolumeSpec| (spec.claim_namespace.clone(), spec.claim_name.clone());
    let (claim_namespace, claim_name) = claim(present);
    if *present != (PersistentVolumeSpec { claim_namespace, claim_name, ..wanted.clone() }) {
        return Some(("spec", "cannot change but for claimRef: it says what there is"));
    }
    let is_removed = claim(wanted) == Default::default();
    (!is_removed)
        .then_some(("spec.claimRef", "can only be removed: a claim takes the volume over by volumeName"))
}

fn claim(present: &PersistentVolumeClaimSpec, wanted: &PersistentVolumeClaimSpec) -> Refusal {
    const STORAGE: &str = "spec.resources.requests.storage";
    match wanted.storage_bytes.cmp(&present.storage_bytes) {
        Ordering::Less => Some((STORAGE, "cannot shrink: what is stored might not fit")),
        _ if wanted.access_mode != present.access_mode => {
            Some(("spec.accessModes", "cannot change after creation"))
        }
        _ if (wanted.storage_class, &wanted.class) != (present.storage_class, &present.class) => {
            Some(("spec.storageClassName", "cannot change after creation"))
        }
        _ if wanted.volume_name != present.volume_name => {
            Some(("spec.volumeName", "cannot change after creation"))
        }
        // Whether it may grow is asked before.
        _ => None,
    }
}

fn job(present: &Job, wanted: &Job) -> Refusal {
    let (a, b) = (&present.spec, &wanted.spec);
    // What may change: how many at a time, whether at all, and how long.
    let fixed = JobSpec {
        parallelism: b.parallelism,
        suspend: b.suspend,
        active_deadline_ms: b.active_deadline_ms,
        backoff_limit: b.backoff_limit,
        ttl_after_finished_ms: b.ttl_after_finished_ms,
        completions: a.completions,
        template: a.template.clone(),
        ..b.clone()
    };
    let of_present = JobSpec {
        parallelism: b.parallelism,
        suspend: b.suspend,
        active_deadline_ms: b.active_deadline_ms,
        backoff_limit: b.backoff_limit,
        ttl_after_finished_ms: b.ttl_after_finished_ms,
        ..a.clone()
    };
    if a.template != b.template {
        return Some(("spec.template", "cannot change after creation"));
    }
    // Elastic indexed jobs: as many as run at a time (Kubernetes' rule).
    let is_elastic = b.completion_mode == CompletionMode::Indexed && b.completions == Some(b.parallelism);
    if a.completions != b.completions && !is_elastic {
        let reason = "cannot change after creation, but together with parallelism, to the same number";
        return Some(("spec.completions", reason));
    }
    (fixed != of_present).then_some(("spec", "only parallelism, completions, suspend, activeDeadlineSeconds, backoffLimit and ttlSecondsAfterFinished may change after creation"))
}

fn config_map(present: &ConfigMap, wanted: &ConfigMap) -> Refusal {
    let changed = (&present.data, &present.binary_data) != (&wanted.data, &wanted.binary_data);
    frozen(present.immutable, wanted.immutable, changed)
}

fn secret(present: &Secret, wanted: &Secret) -> Refusal {
    if present.secret_type != wanted.secret_type {
        return Some(("type", "cannot change after creation"));
    }
    frozen(present.immutable, wanted.immutable, present.data != wanted.data)
}

fn frozen(immutable: bool, stays: bool, changed: bool) -> Refusal {
    match (immutable, stays, changed) {
        (true, false, _) => Some(("immutable", "cannot be taken back")),
        (true, _, true) => Some(("data", "cannot change: the object is immutable")),
        _ => None,
    }
}
