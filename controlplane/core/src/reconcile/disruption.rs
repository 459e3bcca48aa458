//! PodDisruptionBudgets: their status. Evictions do not rely on it: `decide` looks for itself.

use std::collections::BTreeMap;

use bulkhead_types::{
    Command, ConditionStatus, DISRUPTION_ALLOWED, DisruptionBudgetStatus, LabelSelector, Name, Object,
    ObjectId, ObjectStatus, Pod, PodDisruptionBudget,
};

use super::job::stays;
use super::{Queue, Reconciler, View, work_off};
use crate::conditions::set_condition;
use crate::disruption::figures;
use crate::{Change, ChangeType, State};

/// A budget is counted no more often than so, in milliseconds: counting goes through the pods of its namespace.
const COUNT_MS: u64 = 1000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Budgets {
    queue: Queue,
    /// The budgets of each namespace.
    selectors: BTreeMap<Option<Name>, BTreeMap<ObjectId, LabelSelector>>,
    /// When each was counted last, milliseconds since the epoch.
    counted_ms: BTreeMap<ObjectId, u64>,
}

impl Budgets {
    fn note(&mut self, budget: &PodDisruptionBudget) {
        let of_namespace = self.selectors.entry(budget.meta.namespace.clone()).or_default();
        of_namespace.insert(budget.meta.id, budget.spec.selector.clone());
        self.queue.mark(budget.meta.id);
    }

    fn mark(&mut self, namespace: &Option<Name>, matches: impl Fn(&LabelSelector) -> bool) {
        for (id, selector) in self.selectors.get(namespace).into_iter().flatten() {
            if matches(selector) {
                self.queue.mark(*id);
            }
        }
    }
}

/// Whether a change of a pod matters to its budgets.
fn matters(former: &Pod, present: &Pod) -> bool {
    let gist = |pod: &Pod| (pod.status.ready, pod.meta.is_deleting(), pod.status.phase.is_terminal());
    gist(former) != gist(present) || former.meta.labels != present.meta.labels
}

impl Reconciler for Budgets {
    fn name(&self) -> &'static str {
        "disruption"
    }

    fn reset(&mut self, state: &State) {
        *self = Self::default();
        state.pod_disruption_budgets().iter().for_each(|budget| self.note(budget));
    }

    fn observe(&mut self, change: &Change) {
        let namespace = &change.object.meta().namespace;
        match (&change.object, &change.former) {
            (Object::PodDisruptionBudget(budget), _) if change.change_type == ChangeType::Deleted => {
                let id = budget.meta.id;
                self.queue.forget(id);
                self.counted_ms.remove(&id);
                if let Some(of_namespace) = self.selectors.get_mut(namespace) {
                    of_namespace.remove(&id);
                    if of_namespace.is_empty() {
                        self.selectors.remove(namespace);
                    }
                }
            }
            (Object::PodDisruptionBudget(budget), _) => self.note(budget),
            (Object::Pod(pod), Some(Object::Pod(former)))
                if change.change_type == ChangeType::Modified && !matters(former, pod) => {}
            (Object::Pod(pod), Some(Object::Pod(former))) => {
                let labels = [&former.meta.labels, &pod.meta.labels];
                self.mark(namespace, |selector| labels.iter().any(|labels| selector.matches(labels)));
            }
            (Object::Pod(pod), _) => self.mark(namespace, |selector| selector.matches(&pod.meta.labels)),
            (Object::Deployment(new), Some(Object::Deployment(old)))
                if new.spec.replicas == old.spec.replicas => {}
            (Object::StatefulSet(new), Some(Object::StatefulSet(old)))
                if new.spec.replicas == old.spec.replicas => {}
            (
                Object::Deployment(_) | Object::StatefulSet(_) | Object::ReplicaSet(_) | Object::DaemonSet(_),
                _,
            ) => self.mark(namespace, |_| true),
            _ => {}
        }
    }

    fn reconcile(&mut self, view: &View<'_>) -> Vec<Command> {
        self.queue.begin(view.now_ms);
        work_off(
            self,
            |this| &mut this.queue,
            |this, id, commands| {
                let found = view.state.pod_disruption_budgets().get(id);
                let Some(budget) = found.filter(|budget| stays(view.state, &budget.meta)) else { return };
                let is_seen = budget.status.observed_generation == budget.meta.generation;
                let next_ms = this.counted_ms.get(&id).map_or(0, |at_ms| at_ms + COUNT_MS);
                if is_seen && view.now_ms < next_ms {
                    this.queue.wake_at(id, next_ms);
                    return;
                }
                this.counted_ms.insert(id, view.now_ms);
                let status = counted(view.state, budget, view.now_ms);
                if status != budget.status {
                    let status = ObjectStatus::PodDisruptionBudget(status);
                    commands.push(Command::SetStatus { id, status });
                }
            },
        )
    }

    fn next_wake_ms(&self) -> Option<u64> {
        self.queue.next_wake_ms()
    }
}

fn counted(state: &State, budget: &PodDisruptionBudget, now_ms: u64) -> DisruptionBudgetStatus {
    let figures = figures(state, budget);
    let mut status = DisruptionBudgetStatus {
        observed_generation: budget.meta.generation,
        disruptions_allowed: figures.allowed,
        current_healthy: figures.current_healthy,
        desired_healthy: figures.desired_healthy,
        expected_pods: figures.expected,
        conditions: budget.status.conditions.clone(),
    };
    let (holds, reason) = match figures.allowed {
        0 => (ConditionStatus::False, "InsufficientPods"),
        _ => (ConditionStatus::True, "SufficientPods"),
    };
    set_condition(&mut status.conditions, now_ms, (DISRUPTION_ALLOWED, holds), reason, "");
    status
}
