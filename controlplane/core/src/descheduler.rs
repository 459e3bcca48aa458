//! Which pods a DeschedulerPolicy may evict: the rules that hold whatever strategy asks, for the reconciler that proposes and
//! for `decide` that does.
//!
//! ```text
//!  a strategy names a pod ─► may it ever be evicted ─► is its owner left alone ─► does it fit elsewhere ─► is there room in
//!  and why                   (Plan::is_evictable)      (cool-down)                 (the scheduler's rules)  limits and budgets
//! ```
//!
//! What a run has planned so far counts: a node that is given one pod has room for one less, and who leaves is counted
//! nowhere any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bulkhead_types::{
    COOLING_OWNERS_MAX, CoolingOwner, DESCHEDULED_PER_RUN_MAX, DeschedulerPolicy, Kind, Name, Node, ObjectId,
    PRIORITY_MAX, Pod, VolumeSource,
};

use crate::State;
use crate::disruption::Allowance;
use crate::placement::{Vicinity, check_fit};
use crate::ports::TakenPorts;
use crate::priority::Priorities;
use crate::state::NodeUsage;

/// Most questions about one pod on one node that a run asks.
const FIT_CHECKS_MAX: usize = 500_000;

/// What one run of a policy evicts.
pub(crate) struct Plan<'a> {
    pub(crate) state: &'a State,
    policy: &'a DeschedulerPolicy,
    priorities: Priorities,
    allowance: Allowance,
    /// Who is near whom once everything planned is done.
    vicinity: Vicinity,
    usage: BTreeMap<ObjectId, NodeUsage>,
    /// Ports that pods have where they would go.
    ports: TakenPorts,
    taken: BTreeSet<ObjectId>,
    per_node: BTreeMap<ObjectId, u32>,
    per_namespace: BTreeMap<Option<Name>, u32>,
    total: u32,
    /// Owners whose pods are left alone since earlier runs.
    cooling: BTreeSet<ObjectId>,
    /// Those of which this run evicts some.
    owners: BTreeSet<ObjectId>,
    fit_checks: usize,
    last_target: Option<ObjectId>,
}

impl<'a> Plan<'a> {
    pub(crate) fn new(state: &'a State, policy: &'a DeschedulerPolicy, now_ms: u64) -> Self {
        Self {
            state,
            policy,
            priorities: Priorities::read(state),
            allowance: Allowance::default(),
            vicinity: state.vicinity.clone(),
            usage: BTreeMap::new(),
            ports: TakenPorts::default(),
            taken: BTreeSet::new(),
            per_node: BTreeMap::new(),
            per_namespace: BTreeMap::new(),
            total: 0,
            cooling: cooling(policy, now_ms).map(|one| one.owner).collect(),
            owners: BTreeSet::new(),
            fit_checks: 0,
            last_target: None,
        }
    }

    /// Whether the run may evict no more.
    pub(crate) fn is_full(&self) -> bool {
        let most = self
            .policy
            .spec
            .max_total
            .map_or(DESCHEDULED_PER_RUN_MAX, |most| most.min(DESCHEDULED_PER_RUN_MAX));
        self.total >= most || self.fit_checks >= FIT_CHECKS_MAX
    }

    /// What a node's pods reserve once everything planned is done.
    pub(crate) fn usage(&self, node: ObjectId) -> NodeUsage {
        self.usage.get(&node).copied().unwrap_or_else(|| self.state.node_usage(node))
    }

    /// The node that was found for the pod that was evicted last.
    pub(crate) fn last_target(&self) -> Option<ObjectId> {
        self.last_target
    }

    /// Who is near whom then.
    pub(crate) fn vicinity(&self) -> &Vicinity {
        &self.vicinity
    }

    /// The pods of a node that stay as things stand, lowest priority and youngest first; those that may not be evicted
    /// included.
    pub(crate) fn pods_on(&self, node: ObjectId) -> Vec<&'a Arc<Pod>> {
        let stays = |pod: &&Arc<Pod>| is_there(pod) && !self.taken.contains(&pod.meta.id);
        let mut pods: Vec<_> = self.state.pods_on(node).filter(stays).collect();
        pods.sort_by_key(|pod| {
            (self.priority(pod), std::cmp::Reverse((pod.meta.created_at_ms, pod.meta.id)))
        });
        pods
    }

    fn priority(&self, pod: &Pod) -> i32 {
        self.priorities.of(pod.spec.priority_class()).map_or(0, |priority| priority.value)
    }

    /// Whether a pod may be evicted by this policy at all: somebody starts another one, nothing of it is bound to its node,
    /// and the policy means it.
    pub(crate) fn is_evictable(&self, pod: &Pod) -> bool {
        let spec = &self.policy.spec;
        let namespace = pod.meta.namespace.as_ref();
        let is_meant = namespace.is_none_or(|name| {
            !spec.exclude.contains(name) && (spec.include.is_empty() || spec.include.contains(name))
        });
        let is_owned = pod.meta.owner.is_some_and(|owner| owner.kind != Kind::DaemonSet);
        let priority = self.priority(pod);
        let threshold = spec.priority_threshold.unwrap_or(i32::MAX);
        let has_scratch =
            pod.spec.volumes().iter().any(|volume| matches!(volume.source, VolumeSource::EmptyDir { .. }));
        is_there(pod)
            && is_owned
            && is_meant
            && spec.label_selector.get().is_none_or(|selector| selector.matches(&pod.meta.labels))
            && priority <= PRIORITY_MAX
            && priority < threshold
            && pod.spec.claims().next().is_none()
            && !pod.spec.asks_for_devices()
            // Groups are placed together: one member elsewhere is no gain.
            && pod.group_key().is_none()
            && (spec.evict_local_storage_pods || !has_scratch)
    }

    /// Evicts a pod, if everything that holds whatever strategy asks allows it, and there is another node for it among those
    /// that the strategy suggests. Tells whether it does.
    pub(crate) fn evict(&mut self, pod: &'a Arc<Pod>, suits: impl Fn(&Self, &Node) -> bool) -> bool {
        let Some(from) = pod.node.and_then(|id| self.state.nodes.get(id)) else { return false };
        if self.is_full() || self.taken.contains(&pod.meta.id) || !self.is_evictable(pod) {
            return false;
        }
        let Some(owner) = owner_of(self.state, pod).filter(|owner| self.may_be_disturbed(*owner)) else {
            return false;
        };
        let spec = &self.policy.spec;
        let most = |limit: Option<u32>| limit.unwrap_or(u32::MAX);
        let on_node = self.per_node.get(&from.meta.id).copied().unwrap_or(0);
        let in_namespace = self.per_namespace.get(&pod.meta.namespace).copied().unwrap_or(0);
        if on_node >= most(spec.max_per_node) || in_namespace >= most(spec.max_per_namespace) {
            return false;
        }
        let Some(to) = self.other_node(pod, from, suits) else { return false };
        if self.allowance.take(self.state, pod).is_err() {
            return false;
        }
        self.take(pod, from, to, owner);
        true
    }

    fn may_be_disturbed(&self, owner: ObjectId) -> bool {
        let has_room = self.cooling.len() + self.owners.len() < COOLING_OWNERS_MAX;
        !self.cooling.contains(&owner) && (has_room || self.owners.contains(&owner))
    }

    /// A node that the scheduler could place the pod on when it is gone from its own: the one with the fewest pods, by
    /// creation where they are equal.
    fn other_node(
        &mut self,
        pod: &Arc<Pod>,
        from: &Node,
        suits: impl Fn(&Self, &Node) -> bool,
    ) -> Option<&'a Arc<Node>> {
        let state = self.state;
        let mut vicinity = self.vicinity.clone();
        vicinity.release(pod, from);
        let outlook = vicinity.outlook(pod);
        let request = pod.spec.scheduling_request();
        let mut best: Option<(u32, &Arc<Node>)> = None;
        for node in state.nodes.iter().filter(|node| node.meta.id != from.meta.id) {
            let usage = self.usage(node.meta.id);
            let is_better = best.is_none_or(|(pods, _)| usage.pods < pods);
            self.fit_checks += usize::from(is_better);
            let fits = is_better
                && check_fit(&pod.spec, request, node, usage).is_ok()
                && self.ports.are_free(state, pod, node.meta.id)
                && outlook.as_ref().is_none_or(|outlook| vicinity.check(outlook, node).is_ok())
                && suits(self, node);
            if fits {
                best = Some((usage.pods, node));
            }
        }
        best.map(|(_, node)| node)
    }

    fn take(&mut self, pod: &Pod, from: &Node, to: &Node, owner: ObjectId) {
        let request = pod.spec.scheduling_request();
        let (left, more) = (self.usage(from.meta.id).without(request), self.usage(to.meta.id).with(request));
        self.usage.insert(from.meta.id, left);
        self.usage.insert(to.meta.id, more);
        self.ports.take(self.state, pod, to.meta.id);
        self.vicinity.release(pod, from);
        self.vicinity.bind(pod, to);
        self.taken.insert(pod.meta.id);
        self.last_target = Some(to.meta.id);
        *self.per_node.entry(from.meta.id).or_default() += 1;
        *self.per_namespace.entry(pod.meta.namespace.clone()).or_default() += 1;
        self.total += 1;
        self.owners.insert(owner);
    }

    /// The owners that are left alone after this run, by id.
    pub(crate) fn cooling_after(&self, now_ms: u64) -> Vec<CoolingOwner> {
        let mut all: BTreeMap<ObjectId, u64> =
            cooling(self.policy, now_ms).map(|one| (one.owner, one.evicted_at_ms)).collect();
        all.extend(self.owners.iter().map(|owner| (*owner, now_ms)));
        all.into_iter().map(|(owner, evicted_at_ms)| CoolingOwner { owner, evicted_at_ms }).collect()
    }
}

/// The owners that are left alone still.
fn cooling(policy: &DeschedulerPolicy, now_ms: u64) -> impl Iterator<Item = &CoolingOwner> {
    let for_ms = policy.spec.cool_down_ms;
    policy.status.cooling.iter().filter(move |one| one.evicted_at_ms.saturating_add(for_ms) > now_ms)
}

/// On a node, neither ending nor ended.
fn is_there(pod: &Pod) -> bool {
    pod.node.is_some() && !pod.meta.is_deleting() && !pod.status.phase.is_terminal()
}

/// Who starts another pod in a pod's place, over rollouts too: the Deployment of its ReplicaSet.
pub(crate) fn owner_of(state: &State, pod: &Pod) -> Option<ObjectId> {
    let owner = pod.meta.owner?;
    let of_set = state.replica_sets.get(owner.id).and_then(|set| set.meta.owner);
    Some(of_set.map_or(owner.id, |deployment| deployment.id))
}

/// When a policy's next run is due, milliseconds since the epoch: a spec that is new, or another one, is followed at once.
pub(crate) fn due_ms(policy: &DeschedulerPolicy) -> u64 {
    if policy.status.observed_generation != policy.meta.generation {
        return 0;
    }
    policy.status.last_run_ms.saturating_add(policy.spec.interval_ms)
}
