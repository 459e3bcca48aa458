//! A StatefulSet's status and conditions.

use bulkhead_types::{ConditionStatus, Rejection, StatefulSet, StatefulSetStatus};
use smol_str::SmolStr;

use crate::reconcile::View;
use crate::reconcile::blocked;
use crate::reconcile::conditions::Conditions;
use crate::workload::{self, Roster};

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const REPLICA_FAILURE: &str = "ReplicaFailure";

/// The status that follows from the pods. `update` is the name of the wanted revision, once there is one.
pub(super) fn status(
    view: &View<'_>,
    set: &StatefulSet,
    roster: &Roster,
    update: Option<SmolStr>,
    collision_count: u32,
) -> StatefulSetStatus {
    let former = &set.status;
    let is_known = update.is_some();
    let update_revision = update.unwrap_or_else(|| former.update_revision.clone());
    let current = workload::current(view.state, set).map(|row| SmolStr::new(row.meta.name.as_str()));
    let replicas = set.spec.wanted_replicas();
    let complete =
        is_known && roster.well_of(&update_revision) == replicas as usize && roster.lives() == replicas;
    let current_revision = match current {
        Some(name) if !complete => name,
        _ => update_revision.clone(),
    };
    let mut status = StatefulSetStatus {
        observed_generation: if is_known { set.meta.generation } else { former.observed_generation },
        replicas: roster.lives(),
        ready_replicas: roster.ready(),
        available_replicas: roster.available(),
        current_replicas: roster.count_of(&current_revision),
        updated_replicas: roster.count_of(&update_revision),
        current_revision,
        update_revision,
        collision_count,
        conditions: former.conditions.clone(),
    };
    let rolls = !is_known || status.current_revision != status.update_revision;
    let gap = roster.first_gap();
    let mut conditions = Conditions { list: &mut status.conditions, now_ms: view.now_ms };
    if set.spec.stopped {
        let message =
            format!("StatefulSet is stopped; {} replicas run once it is started.", set.spec.replicas);
        conditions.set(AVAILABLE, ConditionStatus::False, "StatefulSetStopped", message);
    } else if gap.is_none() {
        let message = "Every wanted pod is available.".to_owned();
        conditions.set(AVAILABLE, ConditionStatus::True, "AllReplicasAvailable", message);
    } else {
        let message = "Some wanted pod is missing or not available.".to_owned();
        conditions.set(AVAILABLE, ConditionStatus::False, "ReplicasUnavailable", message);
    }
    if rolls {
        let message = "Pods have different templates.".to_owned();
        conditions.set(PROGRESSING, ConditionStatus::True, "RollingOut", message);
    } else {
        let message = "Every pod has the wanted template.".to_owned();
        conditions.set(PROGRESSING, ConditionStatus::True, "RolloutComplete", message);
    }
    status
}

/// The status, with what is said of a pod that does not fit in a quota, or of an ordinal whose pods keep failing.
pub(super) fn with_failure(
    mut status: StatefulSetStatus,
    now_ms: u64,
    failing: Option<&u32>,
    refusal: Option<&Rejection>,
) -> StatefulSetStatus {
    if let Some(refusal) = refusal {
        blocked::tell(&mut status.conditions, refusal, now_ms);
        return status;
    }
    let mut conditions = Conditions { list: &mut status.conditions, now_ms };
    match failing {
        Some(ordinal) => {
            let message = format!("Pods of ordinal {ordinal} end before any becomes ready.");
            conditions.set(REPLICA_FAILURE, ConditionStatus::True, "PodsFailing", message);
        }
        None => conditions.remove(REPLICA_FAILURE),
    }
    status
}
