//! A Deployment's status and conditions.
//!
//! Source: "Deployment status" in the Kubernetes documentation; reasons are Kubernetes' words.

use bulkhead_types::{
    Condition, ConditionStatus, Deployment, DeploymentStatus, REASON_ABORTED, REASON_FAILURE_LIMIT,
};
use smol_str::SmolStr;

use super::rolling::{Bounds, SetSize};
use crate::quota::REASON_FAILED_CREATE;
use crate::reconcile::conditions::Conditions;

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const REPLICA_FAILURE: &str = "ReplicaFailure";
const REASON_COMPLETE: &str = "NewReplicaSetAvailable";
const REASON_TIMED_OUT: &str = "ProgressDeadlineExceeded";
const REASON_PAUSED: &str = "DeploymentPaused";
const REASON_STEP_PAUSED: &str = "DeliveryPaused";
const REASON_STOPPED: &str = "DeploymentStopped";

/// Why a delivery by steps stands where it is, and shall.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// It waits for a time, or for somebody; in words.
    Paused(String),
    /// It was ended: reason and message.
    Aborted(SmolStr, String),
    /// So many pods are of the new template, and no more shall be.
    Partitioned(u32),
}

/// What one look at a Deployment found.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// The set of the present template.
    pub(super) new: Option<SetSize>,
    /// All others.
    pub(super) old: Vec<SetSize>,
    /// Ready pods of all sets.
    pub(super) ready: u32,
    /// The name of the new set, or of the one that is about to be created.
    pub(super) new_name: String,
    /// Its revision; 0 when there is none yet.
    pub(super) rollout_revision: u64,
    /// How often the new set's name was taken.
    pub(super) collision_count: u32,
    /// Whether the new set is being created just now.
    pub(super) creates: bool,
    /// A set whose pods keep failing.
    pub(super) failing: Option<String>,
    /// How many pods of the new set no node can take, and why.
    pub(super) unplaced: Option<(u32, String)>,
    /// Why pods of a set, or the new set, cannot be created.
    pub(super) refused: Option<String>,
    /// Whether it is the new set that cannot be.
    pub(super) is_refused: bool,
    /// Whether they wait for room that the bounds let no old pod give up.
    pub(super) blocked: bool,
    /// Why a delivery by steps stands where it is.
    pub(super) hold: Option<Hold>,
}

/// The status that follows from what was found.
pub(super) fn status(
    deployment: &Deployment,
    bounds: Bounds,
    found: &Found,
    now_ms: u64,
) -> DeploymentStatus {
    let sets = || found.old.iter().chain(&found.new);
    let sum = |count: fn(&SetSize) -> u32| sets().map(count).fold(0, u32::saturating_add);
    let available = sum(|set| set.available);
    let former = &deployment.status;
    let mut status = DeploymentStatus {
        observed_generation: deployment.meta.generation,
        rollout_revision: if found.rollout_revision == 0 {
            former.rollout_revision
        } else {
            found.rollout_revision
        },
        replicas: sum(|set| set.active),
        updated_replicas: found.new.map_or(0, |set| set.active),
        ready_replicas: found.ready,
        available_replicas: available,
        unavailable_replicas: sum(|set| set.replicas).saturating_sub(available),
        collision_count: found.collision_count,
        conditions: former.conditions.clone(),
        delivery: former.delivery.clone(),
    };
    let mut conditions = Conditions { list: &mut status.conditions, now_ms };
    if deployment.spec.stopped {
        let message =
            format!("Deployment is stopped; {} replicas run once it is started.", deployment.spec.replicas);
        conditions.set_text(AVAILABLE, ConditionStatus::False, REASON_STOPPED, message);
    } else if available >= bounds.available_min() {
        let message = "Deployment has minimum availability.".to_owned();
        conditions.set(AVAILABLE, ConditionStatus::True, "MinimumReplicasAvailable", message);
    } else {
        let message = "Deployment does not have minimum availability.".to_owned();
        conditions.set(AVAILABLE, ConditionStatus::False, "MinimumReplicasUnavailable", message);
    }
    match failure(deployment, found) {
        Some((reason, message)) => {
            conditions.set_text(REPLICA_FAILURE, ConditionStatus::True, reason, message);
        }
        None => conditions.remove(REPLICA_FAILURE),
    }
    progress(deployment, found, &mut status, now_ms);
    status
}

/// Why pods are missing, when it is not a matter of time alone.
fn failure(deployment: &Deployment, found: &Found) -> Option<(&'static str, String)> {
    if let Some(set) = &found.failing {
        return Some(("PodsFailing", format!("Pods of ReplicaSet \"{set}\" end before any becomes ready.")));
    }
    if let Some(why) = &found.refused {
        return Some((REASON_FAILED_CREATE, why.clone()));
    }
    let (count, why) = found.unplaced.as_ref()?;
    let mut message = format!("{count} pods of ReplicaSet \"{}\" cannot be placed: {why}", found.new_name);
    if found.blocked {
        let name = &deployment.meta.name;
        message.push_str(&format!(
            "; no old pod may end first, because maxUnavailable comes out as 0: allow 1, such as with \
             `bulkhead set strategy deployment/{name} --max-unavailable 1`, or add room"
        ));
    }
    Some(("PodsUnschedulable", message))
}

/// Whether a rollout is complete by these figures.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus, found: &Found) -> bool {
    let desired = deployment.spec.wanted_replicas();
    let updated = match found.hold {
        Some(Hold::Partitioned(goal)) => goal,
        _ => desired,
    };
    status.updated_replicas == updated
        && status.replicas == desired
        && status.available_replicas == desired
        && status.observed_generation >= deployment.meta.generation
}

/// When a rollout that stands still is reported, milliseconds since the epoch; `None` when none is running.
pub(super) fn deadline_ms(deployment: &Deployment, status: &DeploymentStatus) -> Option<u64> {
    let condition = find(status, PROGRESSING)?;
    let held = deployment.spec.paused || deployment.spec.stopped;
    let ended = [REASON_COMPLETE, REASON_TIMED_OUT, REASON_STEP_PAUSED, REASON_ABORTED, REASON_FAILURE_LIMIT];
    let runs = !held && !ended.contains(&&*condition.reason);
    runs.then(|| condition.last_update_ms.saturating_add(deployment.spec.progress_deadline_ms))
}

/// The reason of a delivery that was ended.
fn reason_of(reason: &str) -> &'static str {
    if reason == REASON_FAILURE_LIMIT { REASON_FAILURE_LIMIT } else { REASON_ABORTED }
}

fn find<'a>(status: &'a DeploymentStatus, condition_type: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|c| c.condition_type == condition_type)
}

fn progress(deployment: &Deployment, found: &Found, status: &mut DeploymentStatus, now_ms: u64) {
    let former = &deployment.status;
    let complete = is_complete(deployment, status, found) && !found.creates && found.new.is_some();
    let deadline_ms = deadline_ms(deployment, status);
    let reason = find(status, PROGRESSING).map(|c| c.reason.clone()).unwrap_or_default();
    let name = &found.new_name;
    let old = |status: &DeploymentStatus| status.replicas.saturating_sub(status.updated_replicas);
    let moved = status.updated_replicas > former.updated_replicas
        || old(status) < old(former)
        || status.ready_replicas > former.ready_replicas
        || status.available_replicas > former.available_replicas;
    let is_another = found.rollout_revision != 0 && found.rollout_revision != former.rollout_revision;
    // A complete Deployment that only loses and regains pods, or is scaled, is not rolling out.
    let is_partitioned = matches!(found.hold, Some(Hold::Partitioned(_)));
    let was_complete =
        reason == REASON_COMPLETE && (is_partitioned || status.replicas == status.updated_replicas);
    let was_held = [REASON_PAUSED, REASON_STEP_PAUSED, REASON_ABORTED, REASON_FAILURE_LIMIT];
    let mut conditions = Conditions { list: &mut status.conditions, now_ms };
    if deployment.spec.stopped {
        let message = "Deployment is stopped".to_owned();
        conditions.set(PROGRESSING, ConditionStatus::Unknown, REASON_STOPPED, message);
    } else if deployment.spec.paused {
        // A time-out that was reported stays until the rollout moves again.
        if reason != REASON_TIMED_OUT {
            let message = "Deployment is paused".to_owned();
            conditions.set(PROGRESSING, ConditionStatus::Unknown, REASON_PAUSED, message);
        }
    } else if let Some(Hold::Aborted(reason, message)) = &found.hold {
        conditions.set_text(PROGRESSING, ConditionStatus::False, reason_of(reason), message.clone());
    } else if let Some(Hold::Paused(message)) = &found.hold {
        conditions.set_text(PROGRESSING, ConditionStatus::Unknown, REASON_STEP_PAUSED, message.clone());
    } else if found.creates {
        let message = format!("Created new replica set \"{name}\"");
        // The name tells sets apart: should the creation be refused, the clock does not start anew.
        let said = former.conditions.iter().any(|c| c.condition_type == PROGRESSING && c.message == message);
        if !said {
            conditions.renew(PROGRESSING, "NewReplicaSetCreated", message);
        }
    } else if is_another {
        conditions.renew(PROGRESSING, "FoundNewReplicaSet", format!("Found new replica set \"{name}\""));
    } else if complete && reason != REASON_COMPLETE {
        let message = format!("ReplicaSet \"{name}\" has successfully progressed.");
        conditions.renew(PROGRESSING, REASON_COMPLETE, message);
    } else if complete || was_complete {
    } else if reason == REASON_STOPPED {
        let message = "Deployment is started".to_owned();
        conditions.set(PROGRESSING, ConditionStatus::Unknown, "DeploymentStarted", message);
    } else if was_held.contains(&&*reason) {
        let message = "Deployment is resumed".to_owned();
        conditions.set(PROGRESSING, ConditionStatus::Unknown, "DeploymentResumed", message);
    } else if moved {
        conditions.renew(PROGRESSING, "ReplicaSetUpdated", format!("ReplicaSet \"{name}\" is progressing."));
    } else if deadline_ms.is_some_and(|deadline_ms| now_ms > deadline_ms) {
        let message = format!("ReplicaSet \"{name}\" has timed out progressing.");
        conditions.set(PROGRESSING, ConditionStatus::False, REASON_TIMED_OUT, message);
    }
}
