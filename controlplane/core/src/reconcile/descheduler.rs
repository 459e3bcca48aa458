//! DeschedulerPolicies: looks at the intervals that they say for pods that should be elsewhere. What is evicted is checked
//! again by `decide`.

mod anti_affinity;
mod duplicates;
mod life_time;
mod node_affinity;
mod node_taints;
mod restarts;
mod spread;
mod utilization;

use std::sync::Arc;

use bulkhead_types::{
    Command, Descheduled, DeschedulerPolicy, DeschedulerStrategy, Node, Object, ObjectId, POOLS_LEVEL, Pod,
};
use smol_str::SmolStr;

use super::{Queue, Reconciler, View, work_off};
use crate::descheduler::{Plan, due_ms};
use crate::{Change, ChangeType, State};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Deschedulers {
    queue: Queue,
}

/// One run of a policy.
struct Run<'a, 'b> {
    view: &'b View<'a>,
    plan: Plan<'a>,
    strategy: SmolStr,
    found: Vec<Descheduled>,
}

impl<'a> Run<'a, '_> {
    /// All nodes, oldest first.
    fn nodes(&self) -> impl Iterator<Item = &'a Arc<Node>> + use<'a> {
        self.plan.state.nodes().iter()
    }

    /// Evicts a pod, if that is allowed and there is another node for it.
    fn evict(&mut self, node: &Node, pod: &'a Arc<Pod>, reason: String) -> bool {
        self.evict_to(node, pod, reason, |_, _| true)
    }

    /// The same, if there is another node for it among those that suit.
    fn evict_to(
        &mut self,
        node: &Node,
        pod: &'a Arc<Pod>,
        reason: String,
        suits: impl Fn(&Plan<'a>, &Node) -> bool,
    ) -> bool {
        if !self.plan.evict(pod, suits) {
            return false;
        }
        let namespace = pod.meta.namespace.as_ref().map_or("", |name| name.as_str());
        self.found.push(Descheduled {
            pod: pod.meta.id,
            name: SmolStr::new(format!("{namespace}/{}", pod.meta.name)),
            node: node.meta.name.clone(),
            strategy: self.strategy.clone(),
            reason,
        });
        true
    }

    /// Evicts every pod that has a reason against where it is.
    fn evict_where(&mut self, against: impl Fn(&Node, &Pod) -> Option<String>) {
        for node in self.nodes() {
            for pod in self.plan.pods_on(node.meta.id) {
                if self.plan.is_full() {
                    return;
                }
                if let Some(reason) = against(node, pod) {
                    self.evict(node, pod, reason);
                }
            }
        }
    }

    fn follow(&mut self, strategy: &DeschedulerStrategy) {
        self.strategy = SmolStr::new_static(strategy.as_str());
        match strategy {
            DeschedulerStrategy::LowNodeUtilization {
                thresholds,
                target_thresholds,
                measured,
                number_of_nodes,
            } => utilization::run(self, thresholds, target_thresholds, *measured, *number_of_nodes),
            DeschedulerStrategy::RemoveDuplicates => duplicates::run(self),
            DeschedulerStrategy::RemovePodsViolatingNodeAffinity => node_affinity::run(self),
            DeschedulerStrategy::RemovePodsViolatingNodeTaints { include_prefer_no_schedule } => {
                node_taints::run(self, *include_prefer_no_schedule);
            }
            DeschedulerStrategy::RemovePodsViolatingTopologySpreadConstraint => spread::run(self),
            DeschedulerStrategy::RemovePodsViolatingInterPodAntiAffinity => anti_affinity::run(self),
            DeschedulerStrategy::RemovePodsHavingTooManyRestarts {
                pod_restart_threshold,
                including_init_containers,
            } => restarts::run(self, *pod_restart_threshold, *including_init_containers),
            DeschedulerStrategy::PodLifeTime { max_pod_life_time_ms } => {
                life_time::run(self, *max_pod_life_time_ms);
            }
        }
    }
}

/// What a run of a policy would evict now.
fn find(view: &View<'_>, policy: &DeschedulerPolicy) -> Vec<Descheduled> {
    let plan = Plan::new(view.state, policy, view.now_ms);
    let mut run = Run { view, plan, strategy: SmolStr::default(), found: Vec::new() };
    policy.spec.strategies.iter().for_each(|strategy| run.follow(strategy));
    run.found
}

impl Reconciler for Deschedulers {
    fn name(&self) -> &'static str {
        "descheduler"
    }

    fn reset(&mut self, state: &State) {
        *self = Self::default();
        state.descheduler_policies().iter().for_each(|policy| self.queue.mark(policy.meta.id));
    }

    fn observe(&mut self, change: &Change) {
        let Object::DeschedulerPolicy(policy) = &change.object else { return };
        match change.change_type {
            ChangeType::Deleted => self.queue.forget(policy.meta.id),
            _ => self.queue.mark(policy.meta.id),
        }
    }

    fn reconcile(&mut self, view: &View<'_>) -> Vec<Command> {
        if view.state.feature_level() < POOLS_LEVEL {
            return Vec::new();
        }
        self.queue.begin(view.now_ms);
        work_off(self, |this| &mut this.queue, |this, id, commands| this.look(view, id, commands))
    }

    fn next_wake_ms(&self) -> Option<u64> {
        self.queue.next_wake_ms()
    }
}

impl Deschedulers {
    fn look(&mut self, view: &View<'_>, id: ObjectId, commands: &mut Vec<Command>) {
        let Some(policy) = view.state.descheduler_policies().get(id) else { return };
        let due_ms = due_ms(policy);
        if due_ms > view.now_ms {
            self.queue.wake_at(id, due_ms);
            return;
        }
        let (generation, found) = (policy.meta.generation, find(view, policy));
        commands.push(Command::Deschedule { policy: id, generation, pods: found });
    }
}
