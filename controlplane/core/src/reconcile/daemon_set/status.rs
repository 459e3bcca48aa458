//! A DaemonSet's status and conditions.

use bulkhead_types::{ConditionStatus, DaemonSet, DaemonSetStatus};
use smol_str::SmolStr;

use crate::reconcile::conditions::Conditions;
use crate::workload::Fleet;

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const REPLICA_FAILURE: &str = "ReplicaFailure";

/// The status that follows from the nodes. `update` is the name of the wanted revision, which may not be there yet;
/// `failing` names a node whose pods keep failing; `is_refused`: a pod
/// does not fit in a quota.
pub(super) fn status(
    set: &DaemonSet,
    fleet: &Fleet,
    update: SmolStr,
    is_known: bool,
    failing: Option<&SmolStr>,
    is_refused: bool,
    now_ms: u64,
) -> DaemonSetStatus {
    if !is_known {
        // Nobody has looked at the nodes with the new template yet.
        return DaemonSetStatus { update_revision: update, ..set.status.clone() };
    }
    let figures = fleet.totals();
    let mut status = DaemonSetStatus {
        observed_generation: set.meta.generation,
        desired_number_scheduled: figures.desired,
        current_number_scheduled: figures.scheduled,
        number_misscheduled: figures.misscheduled,
        number_ready: figures.ready,
        number_available: figures.available,
        number_unavailable: figures.desired.saturating_sub(figures.available),
        updated_number_scheduled: figures.updated,
        update_revision: update,
        collision_count: set.status.collision_count,
        conditions: set.status.conditions.clone(),
    };
    let complete = figures.updated == figures.desired && figures.surging == 0;
    let mut conditions = Conditions { list: &mut status.conditions, now_ms };
    if figures.available == figures.desired {
        let message = "Every node that suits has an available pod.".to_owned();
        conditions.set(AVAILABLE, ConditionStatus::True, "AllNodesAvailable", message);
    } else {
        let message = "Some node that suits has no available pod.".to_owned();
        conditions.set(AVAILABLE, ConditionStatus::False, "NodesUnavailable", message);
    }
    if complete {
        let message = "Every node that suits has a pod of the wanted template.".to_owned();
        conditions.set(PROGRESSING, ConditionStatus::True, "RolloutComplete", message);
    } else {
        let message = "Nodes have pods of different templates, or none.".to_owned();
        conditions.set(PROGRESSING, ConditionStatus::True, "RollingOut", message);
    }
    match failing {
        // Said by the caller, beside what was said before.
        _ if is_refused => {}
        Some(node) => {
            let message = format!("Pods on node \"{node}\" end before any becomes ready.");
            conditions.set(REPLICA_FAILURE, ConditionStatus::True, "PodsFailing", message);
        }
        None => conditions.remove(REPLICA_FAILURE),
    }
    status
}
