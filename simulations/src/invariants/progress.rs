//! A rollout ends, also on a cluster without spare room: it stands still only when its own bounds leave it no step.
//!
//! New pods that find no room wait, and that is no excuse while an old one may go: with `maxUnavailable` of at least
//! 1 an old pod goes, its room is taken by a new one, and so on to the end. With `maxUnavailable` 0 and no room for
//! the surge there is no step, here as in Kubernetes.

use bulkhead_controlplane_core::State;
use bulkhead_types::{
    Deployment, DeploymentStrategy, Kind, LABEL_POD_TEMPLATE_HASH, PodTemplate, ReplicaSet,
};
use smol_str::SmolStr;

use super::{Verdict, Violation};

/// The figures of one set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Set {
    is_new: bool,
    /// Wanted pods.
    size: u32,
    /// Pods that neither end nor ended.
    active: u32,
    /// Of the wanted, those that are ready.
    ready: u32,
}

/// Checks a Deployment at rest: nothing has changed for a while, and nothing will.
///
/// # Errors
/// When its rollout could go a step further.
pub fn check(state: &State, deployment: &Deployment) -> Verdict {
    // One by steps may rest at each of them: `convergence` looks at that.
    let has_steps = deployment.spec.delivery.get().is_some();
    // While it is stopped nothing rolls, and there is nothing to roll.
    let is_held = deployment.spec.paused || deployment.spec.stopped;
    if is_held || deployment.meta.is_deleting() || has_steps {
        return Ok(());
    }
    let sets: Vec<Set> = state
        .owned(deployment.meta.id, Kind::ReplicaSet)
        .filter_map(|id| state.replica_sets().get(id))
        .map(|set| figures(state, deployment, set))
        .collect();
    match step(deployment, &sets) {
        Some(step) => {
            let text =
                format!("the rollout of {} stands still, although {step}: {sets:?}", deployment.meta.name);
            Err(Violation::new("progress", text))
        }
        None => Ok(()),
    }
}

fn figures(state: &State, deployment: &Deployment, set: &ReplicaSet) -> Set {
    let size = set.spec.replicas;
    let ready = state
        .pods_of(set.meta.id)
        .filter(|pod| !pod.meta.is_deleting() && !pod.status.phase.is_terminal() && pod.status.ready)
        .count() as u32;
    Set {
        is_new: is_same(&set.spec.template, &deployment.spec.template),
        size,
        active: state.active_pods(set.meta.id),
        ready: ready.min(size),
    }
}

/// Whether templates are the same but for the label that tells sets apart.
fn is_same(one: &PodTemplate, other: &PodTemplate) -> bool {
    fn labels(template: &PodTemplate) -> impl Iterator<Item = (&SmolStr, &SmolStr)> {
        template.labels.iter().filter(|(key, _)| *key != LABEL_POD_TEMPLATE_HASH)
    }
    one.spec == other.spec && one.annotations == other.annotations && labels(one).eq(labels(other))
}

/// A step that the bounds allow, if there is one.
fn step(deployment: &Deployment, sets: &[Set]) -> Option<&'static str> {
    let spec = &deployment.spec;
    let wanted = spec.wanted_replicas();
    let (surge, unavailable) = spec.strategy.bounds(wanted);
    let Some(place) = sets.iter().position(|set| set.is_new) else {
        return Some("there is no set of its template");
    };
    let new = sets[place];
    let old = || sets.iter().enumerate().filter(|(n, _)| *n != place).map(|(_, set)| set);
    let old_size: u32 = old().map(|set| set.size).sum();
    if old_size == 0 {
        return (new.size != wanted).then_some("only its size is wrong");
    }
    if spec.strategy == DeploymentStrategy::Recreate {
        return Some("all old pods may go");
    }
    let occupied: u32 = old().map(|set| set.active.max(set.size)).sum();
    if new.size < wanted && occupied + new.size < wanted + surge {
        return Some("one more new pod is allowed");
    }
    let available_min = wanted.saturating_sub(unavailable);
    if sets.iter().map(|set| set.ready).sum::<u32>() > available_min {
        return Some("an old pod may go");
    }
    // Of the pods that are not ready, the old ones may go as far as the new ones could take their place.
    let kept = old_size + new.ready;
    let broken: u32 = old().map(|set| set.size - set.ready).sum();
    (broken > 0 && kept > available_min).then_some("an old pod that is not ready may go")
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_types::{
        DeploymentSpec, DeploymentStatus, IntOrPercent, LabelSelector, Name, ObjectMeta, PodSpec, Shared,
        StringMap,
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

    fn rolling(surge: u32, unavailable: u32) -> DeploymentStrategy {
        DeploymentStrategy::RollingUpdate {
            max_surge: IntOrPercent::Int(surge),
            max_unavailable: IntOrPercent::Int(unavailable),
        }
    }

    fn new(size: u32, ready: u32) -> Set {
        Set { is_new: true, size, active: size, ready }
    }

    fn old(size: u32, ready: u32) -> Set {
        Set { is_new: false, ..new(size, ready) }
    }

    fn check_step(strategy: DeploymentStrategy, sets: &[Set], stands: bool) {
        let found = step(&deployment(strategy), sets);
        assert_eq!(found.is_none(), stands, "{strategy:?} {sets:?}: {found:?}");
    }

    #[test]
    fn a_rollout_that_waits_for_room_while_an_old_pod_may_go_is_noticed() {
        check_step(rolling(1, 1), &[new(1, 0), old(4, 4)], false);
        check_step(rolling(0, 1), &[new(0, 0), old(4, 4)], false);
        check_step(rolling(0, 1), &[new(1, 1), old(3, 3)], false);
        check_step(rolling(1, 1), &[new(2, 1), old(3, 3)], false);
        check_step(DeploymentStrategy::Recreate, &[new(0, 0), old(4, 4)], false);
        check_step(rolling(1, 1), &[old(4, 4)], false);
        check_step(rolling(1, 1), &[new(3, 3)], false);
    }

    #[test]
    fn bounds_that_leave_no_step_are_respected() {
        check_step(rolling(1, 0), &[new(1, 0), old(4, 4)], true);
        check_step(rolling(0, 1), &[new(1, 0), old(3, 3)], true);
        check_step(rolling(1, 1), &[new(2, 0), old(3, 3)], true);
        check_step(rolling(1, 1), &[new(4, 4), old(0, 0)], true);
        check_step(rolling(1, 1), &[new(4, 2)], true);
    }

    #[test]
    fn old_pods_that_never_came_up_make_room_first() {
        check_step(rolling(1, 1), &[new(1, 1), old(4, 2)], false);
        check_step(rolling(1, 1), &[new(2, 0), old(3, 2)], true);
    }
}
