//! What PodDisruptionBudgets allow. Asked by the reconciler that writes their status, and by `decide` when an eviction
//! is applied.
//!
//! Source: "Disruptions" in the Kubernetes documentation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bulkhead_types::{
    DisruptionBound, GROUP_PREEMPTION_LEVEL, IntOrPercent, Kind, ObjectId, Pod, PodDisruptionBudget,
    PodPhase, UnhealthyPodEvictionPolicy, VICTIMS_MAX, VICTIMS_MAX_BEFORE_GROUPS,
};

use crate::State;

/// How many pods may end for one, or for a group.
pub(crate) fn victims_max(state: &State) -> usize {
    match state.feature_level() {
        GROUP_PREEMPTION_LEVEL.. => VICTIMS_MAX,
        _ => VICTIMS_MAX_BEFORE_GROUPS,
    }
}

/// What is true of a budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// How many pods are wanted.
    pub expected: u32,
    /// How many must stay healthy.
    pub desired_healthy: u32,
    /// How many are: ready, and not ending.
    pub current_healthy: u32,
    /// How many evictions are allowed.
    pub allowed: u32,
}

fn is_healthy(pod: &Pod) -> bool {
    pod.status.ready && !pod.meta.is_deleting() && !pod.status.phase.is_terminal()
}

/// The budgets that a pod counts for, in id order.
pub(crate) fn budgets_of<'a>(
    state: &'a State,
    pod: &'a Pod,
) -> impl Iterator<Item = &'a Arc<PodDisruptionBudget>> {
    let ids = state.index.of_kind(Kind::PodDisruptionBudget, pod.meta.namespace.as_ref());
    let budgets = ids.filter_map(|id| state.pod_disruption_budgets.get(id));
    budgets.filter(|budget| budget.spec.selector.matches(&pod.meta.labels))
}

/// What is true of a budget now. Costs time in proportion to the pods of its namespace.
#[must_use]
pub fn figures(state: &State, budget: &PodDisruptionBudget) -> Figures {
    let ids = state.index.of_kind(Kind::Pod, budget.meta.namespace.as_ref());
    let pods = ids.filter_map(|id| state.pods.get(id));
    let pods: Vec<&Arc<Pod>> = pods
        .filter(|pod| !pod.status.phase.is_terminal() && budget.spec.selector.matches(&pod.meta.labels))
        .collect();
    let healthy = pods.iter().filter(|pod| is_healthy(pod)).count();
    let current_healthy = u32::try_from(healthy).unwrap_or(u32::MAX);
    let (expected, desired_healthy) = match budget.spec.bound {
        DisruptionBound::MinAvailable(IntOrPercent::Int(least)) => {
            (u32::try_from(pods.len()).unwrap_or(u32::MAX), least)
        }
        DisruptionBound::MinAvailable(share) => {
            let expected = wanted(state, &pods);
            (expected, share.resolve(expected, true))
        }
        DisruptionBound::MaxUnavailable(most) => {
            let expected = wanted(state, &pods);
            (expected, expected.saturating_sub(most.resolve(expected, true)))
        }
    };
    let allowed = if expected == 0 { 0 } else { current_healthy.saturating_sub(desired_healthy) };
    Figures { expected, desired_healthy, current_healthy, allowed }
}

/// How many pods the owners of these want together; a pod that nobody scales stands for itself.
fn wanted(state: &State, pods: &[&Arc<Pod>]) -> u32 {
    let (mut owners, mut sum) = (BTreeSet::<(Kind, ObjectId)>::new(), 0u32);
    for pod in pods {
        let size = scaled_owner(state, pod)
            .map_or(Some(1), |(kind, id, size)| owners.insert((kind, id)).then_some(size));
        sum = sum.saturating_add(size.unwrap_or(0));
    }
    sum
}

/// Who says how many of such pods there shall be, and how many.
fn scaled_owner(state: &State, pod: &Pod) -> Option<(Kind, ObjectId, u32)> {
    let owner = pod.meta.owner?;
    match owner.kind {
        Kind::ReplicaSet => {
            let set = state.replica_sets.get(owner.id)?;
            let deployment = set.meta.owner.and_then(|owner| state.deployments.get(owner.id));
            Some(match deployment {
                Some(deployment) => (Kind::Deployment, deployment.meta.id, deployment.spec.replicas),
                None => (Kind::ReplicaSet, owner.id, set.spec.replicas),
            })
        }
        Kind::StatefulSet => {
            state.stateful_sets.get(owner.id).map(|set| (owner.kind, owner.id, set.spec.replicas))
        }
        Kind::DaemonSet => {
            let set = state.daemon_sets.get(owner.id)?;
            Some((owner.kind, owner.id, set.status.desired_number_scheduled))
        }
        _ => None,
    }
}

/// Whether a pod's end is no loss: it does not run yet, or ends already.
fn is_no_loss(pod: &Pod) -> bool {
    pod.status.phase == PodPhase::Pending || pod.status.phase.is_terminal() || pod.meta.is_deleting()
}

fn allows(budget: &PodDisruptionBudget, figures: Figures, pod: &Pod) -> bool {
    let always = budget.spec.unhealthy_pod_eviction_policy == UnhealthyPodEvictionPolicy::AlwaysAllow;
    if always && !pod.status.ready {
        return true;
    }
    let is_well = figures.current_healthy >= figures.desired_healthy && figures.desired_healthy > 0;
    figures.allowed > 0 || (!pod.status.ready && is_well)
}

/// The budget that does not allow a pod's eviction, with its figures; `None` when all allow it.
pub(crate) fn refusing<'a>(
    state: &'a State,
    pod: &'a Pod,
) -> Option<(&'a Arc<PodDisruptionBudget>, Figures)> {
    if is_no_loss(pod) {
        return None;
    }
    let mut budgets = budgets_of(state, pod).map(|budget| (budget, figures(state, budget)));
    budgets.find(|(budget, figures)| !allows(budget, *figures, pod))
}

/// What budgets still allow while several pods are chosen to end together: as if they were evicted one after another.
#[derive(Clone, Debug, Default)]
pub(crate) struct Allowance {
    figures: BTreeMap<ObjectId, Figures>,
}

impl Allowance {
    /// Counts one more that ends. A budget is counted once, however many of its pods are asked for.
    ///
    /// # Errors
    /// The budget that does not allow it; then nothing is counted.
    pub(crate) fn take<'a>(
        &mut self,
        state: &'a State,
        pod: &'a Pod,
    ) -> Result<(), &'a Arc<PodDisruptionBudget>> {
        if is_no_loss(pod) {
            return Ok(());
        }
        let budgets: Vec<_> = budgets_of(state, pod).collect();
        for budget in &budgets {
            let found = self.figures.entry(budget.meta.id).or_insert_with(|| figures(state, budget));
            if !allows(budget, *found, pod) {
                return Err(budget);
            }
        }
        for budget in budgets.iter().filter(|_| is_healthy(pod)) {
            let found = self.figures.get_mut(&budget.meta.id).expect("a budget that was just asked");
            found.current_healthy = found.current_healthy.saturating_sub(1);
            found.allowed = found.allowed.saturating_sub(1);
        }
        Ok(())
    }
}
