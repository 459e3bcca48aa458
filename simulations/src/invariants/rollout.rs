//! A rollout keeps to its surge and to its unavailable, a ReplicaSet to its size, and Recreate to its order.
//!
//! Looked at is every change of a ReplicaSet's size that the deployment reconciler makes:
//!
//! - a set that grows: the sizes of all sets together are at most wanted + surge;
//! - a set that shrinks: the available pods that stay are at least wanted − unavailable, or no fewer than before.
//!   Not while the wanted number itself changed a moment ago, and not while the rollout is held back: then sets
//!   shrink in proportion, whatever is available (as in Kubernetes);
//! - with Recreate, a new set grows only when no pod of another set lives.
//!
//! A leader decides on its State, and its command is applied a little later: a guest may have died in between,
//! which nobody can help. So a change is wrong only when it is wrong on *every* one of the last States, with the
//! sizes as they are now. What happens to available pods by themselves is not the rollout's doing and is not
//! looked at.

use std::collections::VecDeque;

use bulkhead_controlplane_core::State;
use bulkhead_types::{Deployment, DeploymentStrategy, EventKind, Kind, ObjectId, Pod, Transaction};

use super::{Verdict, Violation, ensure};

/// The actor whose changes are looked at.
const ACTOR: &str = "system:deployment";

/// The figures of one set, for one State.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Set {
    id: ObjectId,
    /// Its size before the change, and after it.
    before: u32,
    after: u32,
    available: u32,
    /// Pods that have not ended.
    living: u32,
}

/// Checks a transaction. `recent` holds the States before the last transactions, this one included; `after` is
/// the State after it.
///
/// # Errors
/// When it is wrong on all of them.
pub fn check(recent: &VecDeque<State>, after: &State, transaction: &Transaction) -> Verdict {
    for event in &transaction.events {
        match &event.kind {
            EventKind::PodCreated { replica_set, .. } => check_size(after, *replica_set)?,
            EventKind::ReplicaSetScaled { id, replicas } if transaction.actor == ACTOR => {
                check_resize(recent, after, transaction.at_ms, *id, *replicas)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_size(after: &State, set: ObjectId) -> Verdict {
    let Some(wanted) = after.replica_sets().get(set).map(|set| set.spec.replicas) else { return Ok(()) };
    let active = after.active_pods(set);
    ensure(active <= wanted, "rollout", || format!("ReplicaSet {set} has {active} pods, {wanted} are wanted"))
}

fn check_resize(recent: &VecDeque<State>, after: &State, at_ms: u64, id: ObjectId, to: u32) -> Verdict {
    let Some(before) = recent.back() else { return Ok(()) };
    let Some(owner) = after.replica_sets().get(id).and_then(|set| set.meta.owner) else { return Ok(()) };
    let from = before.replica_sets().get(id).map_or(0, |set| set.spec.replicas);
    let mut problem = None;
    for state in recent.iter().rev() {
        let Some(deployment) = state.deployments().get(owner.id) else { continue };
        let sets = figures(state, before, after, deployment, at_ms);
        let rescaled = recent.iter().any(|s| {
            s.deployments()
                .get(owner.id)
                .is_some_and(|d| d.spec.wanted_replicas() != deployment.spec.wanted_replicas())
        });
        match judge(deployment, &sets, id, rescaled) {
            None => return Ok(()),
            Some(text) => _ = problem.get_or_insert(text),
        }
    }
    match problem {
        Some(text) => Err(Violation::new("rollout", format!("ReplicaSet {id} from {from} to {to}: {text}"))),
        None => Ok(()),
    }
}

/// The sets of a Deployment, with the sizes of now and the pods of `state`.
fn figures(state: &State, before: &State, after: &State, deployment: &Deployment, at_ms: u64) -> Vec<Set> {
    let size = |state: &State, id| state.replica_sets().get(id).map_or(0, |set| set.spec.replicas);
    let is_available = |pod: &Pod| {
        let since_ms = at_ms.saturating_sub(pod.status.ready_since_ms);
        is_active(pod) && pod.status.ready && since_ms >= deployment.spec.min_ready_ms
    };
    after
        .owned(deployment.meta.id, Kind::ReplicaSet)
        .map(|id| Set {
            id,
            before: size(before, id),
            after: size(after, id),
            available: state.pods_of(id).filter(|pod| is_available(pod)).count() as u32,
            living: state.pods_of(id).filter(|pod| !pod.status.phase.is_terminal()).count() as u32,
        })
        .collect()
}

fn is_active(pod: &Pod) -> bool {
    !pod.meta.is_deleting() && !pod.status.phase.is_terminal()
}

/// What is wrong with a change of the set `id`, if something is.
fn judge(deployment: &Deployment, sets: &[Set], id: ObjectId, rescaled: bool) -> Option<String> {
    let spec = &deployment.spec;
    let wanted = spec.wanted_replicas();
    let (surge, unavailable) = spec.strategy.bounds(wanted);
    let set = sets.iter().find(|set| set.id == id)?;
    if set.after > set.before {
        let total: u32 = sets.iter().map(|set| set.after).sum();
        let total_max = wanted + surge;
        if total > total_max {
            return Some(format!("{total} in all, at most {total_max} are allowed: {sets:?}"));
        }
        let others: u32 = sets.iter().filter(|other| other.id != id).map(|other| other.living).sum();
        let recreates = spec.strategy == DeploymentStrategy::Recreate && !spec.paused && !rescaled;
        if recreates && set.before == 0 && others > 0 {
            return Some(format!("it begins while {others} pods of other sets live"));
        }
        return None;
    }
    if spec.strategy == DeploymentStrategy::Recreate || spec.paused || rescaled {
        return None;
    }
    let staying = |size: fn(&Set) -> u32| sets.iter().map(|set| set.available.min(size(set))).sum::<u32>();
    let (had, has) = (staying(|set| set.before), staying(|set| set.after));
    let available_min = wanted.saturating_sub(unavailable).min(had);
    (has < available_min).then(|| format!("{has} available pods stay, {available_min} must: {sets:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_types::{
        DeploymentSpec, DeploymentStatus, IntOrPercent, LabelSelector, Name, ObjectMeta, PodSpec,
        PodTemplate, Shared, StringMap,
    };

    fn deployment(strategy: DeploymentStrategy) -> Deployment {
        let template = PodTemplate {
            labels: StringMap::new(),
            annotations: StringMap::new(),
            spec: Shared::new(PodSpec::default()),
        };
        let spec = DeploymentSpec {
            replicas: 4,
            selector: LabelSelector::default(),
            template,
            strategy,
            min_ready_ms: 0,
            progress_deadline_ms: 1,
            revision_history_limit: 1,
            paused: false,
            stopped: false,
            delivery: Default::default(),
        };
        let meta = ObjectMeta::new(None, Name::new("d").expect("a name"));
        Deployment { meta, spec, status: DeploymentStatus::default() }
    }

    fn set(id: u64, before: u32, after: u32, available: u32) -> Set {
        Set { id: ObjectId(id), before, after, available, living: before }
    }

    #[test]
    fn steps_outside_of_the_bounds_are_noticed() {
        let one_by_one = DeploymentStrategy::RollingUpdate {
            max_surge: IntOrPercent::Int(1),
            max_unavailable: IntOrPercent::Int(1),
        };
        let check = |strategy, sets: [Set; 2], changed: u64, good: bool| {
            let found = judge(&deployment(strategy), &sets, ObjectId(changed), false);
            assert_eq!(found.is_none(), good, "{sets:?}: {found:?}");
        };
        check(one_by_one, [set(1, 4, 4, 4), set(2, 0, 1, 0)], 2, true);
        check(one_by_one, [set(1, 4, 4, 4), set(2, 0, 2, 0)], 2, false);
        check(one_by_one, [set(1, 4, 3, 4), set(2, 1, 1, 0)], 1, true);
        check(one_by_one, [set(1, 4, 2, 4), set(2, 1, 1, 0)], 1, false);
        // What is down already may go; what is up may not.
        check(one_by_one, [set(1, 4, 2, 2), set(2, 1, 1, 0)], 1, true);
        check(one_by_one, [set(1, 4, 1, 2), set(2, 1, 1, 0)], 1, false);
        let recreate = DeploymentStrategy::Recreate;
        check(recreate, [set(1, 4, 0, 4), set(2, 0, 0, 0)], 1, true);
        check(recreate, [set(1, 0, 0, 0), set(2, 0, 4, 0)], 2, true);
        check(recreate, [Set { living: 1, ..set(1, 0, 0, 0) }, set(2, 0, 4, 0)], 2, false);
    }

    #[test]
    fn after_a_change_of_the_wanted_number_sets_may_shrink_in_proportion() {
        let strategy = DeploymentStrategy::RollingUpdate {
            max_surge: IntOrPercent::Int(1),
            max_unavailable: IntOrPercent::Int(0),
        };
        let sets = [set(1, 6, 2, 6), set(2, 2, 2, 0)];
        assert!(judge(&deployment(strategy), &sets, ObjectId(1), true).is_none());
        assert!(judge(&deployment(strategy), &sets, ObjectId(1), false).is_some());
    }
}
