//! StatefulSets, DaemonSets and ControllerRevisions as values.

use bulkhead_types::{
    ControllerRevision, DaemonSetSpec, DaemonSetStatus, DaemonSetUpdateStrategy, PodManagementPolicy,
    StatefulSetSpec, StatefulSetStatus, StatefulSetUpdateStrategy,
};
use serde_json::{Value, json};

use super::Fields;
use super::workload::{conditions, selector, share, template};

/// What is wanted of a StatefulSet.
pub(super) fn stateful_set_spec(spec: &StatefulSetSpec) -> Value {
    let strategy = match spec.update_strategy {
        StatefulSetUpdateStrategy::OnDelete => json!({"type": "OnDelete"}),
        StatefulSetUpdateStrategy::RollingUpdate { partition, max_unavailable } => json!({
            "type": "RollingUpdate",
            "rollingUpdate": {"partition": partition, "maxUnavailable": share(max_unavailable)},
        }),
    };
    let policy = match spec.pod_management_policy {
        PodManagementPolicy::OrderedReady => "OrderedReady",
        PodManagementPolicy::Parallel => "Parallel",
    };
    let fields = Fields::new()
        .set("replicas", spec.replicas.into())
        .nonempty("serviceName", &spec.service_name)
        .text("podManagementPolicy", policy)
        .set("updateStrategy", strategy)
        .set("minReadySeconds", (spec.min_ready_ms / 1000).into())
        .set("revisionHistoryLimit", spec.revision_history_limit.into())
        .set("selector", selector(&spec.selector))
        .set("template", template(&spec.template));
    let fields = if spec.stopped { fields.set("stopped", true.into()) } else { fields };
    let fields = match spec.claims.get() {
        Some(claims) => super::claim::of_stateful_set(claims, fields),
        None => fields,
    };
    match spec.ordinals_start {
        0 => fields,
        start => fields.set("ordinals", json!({"start": start})),
    }
    .finish()
}

/// What is known of a StatefulSet.
pub(super) fn stateful_set_status(status: &StatefulSetStatus) -> Value {
    Fields::new()
        .set("observedGeneration", status.observed_generation.into())
        .set("replicas", status.replicas.into())
        .set("readyReplicas", status.ready_replicas.into())
        .set("availableReplicas", status.available_replicas.into())
        .set("currentReplicas", status.current_replicas.into())
        .set("updatedReplicas", status.updated_replicas.into())
        .nonempty("currentRevision", &status.current_revision)
        .nonempty("updateRevision", &status.update_revision)
        .set("collisionCount", status.collision_count.into())
        .list("conditions", conditions(&status.conditions))
        .finish()
}

/// What is wanted of a DaemonSet.
pub(super) fn daemon_set_spec(spec: &DaemonSetSpec) -> Value {
    let strategy = match spec.update_strategy {
        DaemonSetUpdateStrategy::OnDelete => json!({"type": "OnDelete"}),
        DaemonSetUpdateStrategy::RollingUpdate { max_unavailable, max_surge } => json!({
            "type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": share(max_unavailable), "maxSurge": share(max_surge)},
        }),
    };
    Fields::new()
        .set("updateStrategy", strategy)
        .set("minReadySeconds", (spec.min_ready_ms / 1000).into())
        .set("revisionHistoryLimit", spec.revision_history_limit.into())
        .set("selector", selector(&spec.selector))
        .set("template", template(&spec.template))
        .finish()
}

/// What is known of a DaemonSet.
pub(super) fn daemon_set_status(status: &DaemonSetStatus) -> Value {
    Fields::new()
        .set("observedGeneration", status.observed_generation.into())
        .set("desiredNumberScheduled", status.desired_number_scheduled.into())
        .set("currentNumberScheduled", status.current_number_scheduled.into())
        .set("numberMisscheduled", status.number_misscheduled.into())
        .set("numberReady", status.number_ready.into())
        .set("numberAvailable", status.number_available.into())
        .set("numberUnavailable", status.number_unavailable.into())
        .set("updatedNumberScheduled", status.updated_number_scheduled.into())
        .nonempty("updateRevision", &status.update_revision)
        .set("collisionCount", status.collision_count.into())
        .list("conditions", conditions(&status.conditions))
        .finish()
}

/// A ControllerRevision's fields beside its metadata, as Kubernetes has them at the root.
pub(super) fn controller_revision(revision: &ControllerRevision, fields: Fields) -> Fields {
    fields
        .set("revision", revision.revision.into())
        .set("data", json!({"spec": {"template": template(&revision.template)}}))
}
