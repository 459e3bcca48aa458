//! How far a group of pods is that are placed together or not at all: what `decide` and the scheduler both ask.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bulkhead_types::{
    GROUP_PREEMPTION_LEVEL, HugePageSize, Measure, Node, NodePhase, ObjectId, POD_GROUP_LEVEL,
    POD_GROUP_PODS_MAX, Pod, PodGroup, PodGroupKey, PodPhase, QUEUES_LEVEL,
};
use smol_str::SmolStr;

use crate::queue::{self, QueueLedger};
use crate::state::Charge;
use crate::{State, priority};

/// How many of a role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Role {
    /// Must be placed.
    least: u32,
    placed: u32,
    waiting: u32,
}

impl Role {
    fn missing(self) -> u32 {
        self.least.saturating_sub(self.placed)
    }
}

/// A group as it is now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    /// How many must be placed together: the most that its PodGroup or any of its pods says.
    pub(crate) least: u32,
    /// How many have a node, and do not end, and have not failed.
    pub(crate) placed: u32,
    /// How many hold room and stay.
    pub(crate) holding: u32,
    /// Those that wait for a node, oldest first.
    pub(crate) waiting: Vec<ObjectId>,
    /// Whether all of them have the same priority.
    pub(crate) is_even: bool,
    /// Its PodGroup.
    pub(crate) object: Option<Arc<PodGroup>>,
    /// A pod names a PodGroup that is not there.
    is_orphan: bool,
    /// The roles of which the PodGroup says how many must be placed.
    roles: BTreeMap<SmolStr, Role>,
    /// The priority of its pods, as far as they have the same.
    priority: Option<i32>,
}

/// The group of a pod.
pub(crate) fn key_of(state: &State, pod: &Pod) -> Option<PodGroupKey> {
    match state.feature_level() {
        QUEUES_LEVEL.. => pod.group_key(),
        _ => pod.group().map(|(key, _)| key),
    }
}

impl Standing {
    pub(crate) fn of(state: &State, key: &PodGroupKey) -> Self {
        let object = queue::pod_group(state, key).cloned();
        let mut standing = Self { is_even: true, ..Self::default() };
        if let Some(group) = &object {
            standing.least = group.spec.min_member;
            let role =
                |(task, least): (&SmolStr, &u32)| (task.clone(), Role { least: *least, ..Role::default() });
            standing.roles = group.spec.min_task_member.iter().map(role).collect();
        }
        let mut first = None;
        let is_of = |pod: &&Arc<Pod>| counts(pod) && key_of(state, pod).as_ref() == Some(key);
        for pod in state.pods_of_group(key).filter(is_of) {
            let by_labels = pod.group();
            standing.least = standing.least.max(by_labels.as_ref().map_or(0, |(_, least)| *least));
            standing.is_orphan |= by_labels.is_none() && object.is_none();
            let mut role = standing.roles.get_mut(pod.task());
            if pod.node.is_some() {
                standing.placed += 1;
                standing.holding += u32::from(!pod.status.phase.is_terminal());
                role.iter_mut().for_each(|role| role.placed += 1);
            } else {
                standing.waiting.push(pod.meta.id);
                role.iter_mut().for_each(|role| role.waiting += 1);
            }
            let own = priority::of(state, &pod.spec).map(|own| own.value);
            standing.is_even &= *first.get_or_insert(own) == own;
        }
        standing.priority = first.flatten();
        standing.object = object;
        standing
    }

    /// How many more must be placed together; with 0 each may be placed by itself.
    pub(crate) fn missing(&self) -> u32 {
        let of_roles = self.roles.values().map(|role| role.missing()).sum();
        self.least.saturating_sub(self.placed).max(of_roles)
    }

    /// How many more of a role must be placed.
    pub(crate) fn missing_of(&self, task: &str) -> u32 {
        self.roles.get(task).map_or(0, |role| role.missing())
    }

    /// Whether its pods wait for each other.
    pub(crate) fn is_held(&self) -> bool {
        self.is_orphan || self.missing() > 0
    }

    /// Whether it has all that it must have, and would not any more without pods of these roles.
    pub(crate) fn breaks_without<'a>(&self, tasks: impl Iterator<Item = &'a str>) -> bool {
        if self.is_held() {
            return false;
        }
        let (mut count, mut by_task) = (0u32, BTreeMap::<&str, u32>::new());
        for task in tasks {
            count += 1;
            *by_task.entry(task).or_insert(0) += 1;
        }
        let is_short = |(task, gone): (&&str, &u32)| {
            self.roles.get(*task).is_some_and(|role| role.placed - role.least < *gone)
        };
        count > 0 && (self.placed - self.least < count || by_task.iter().any(is_short))
    }

    /// Whether pods of these roles are all that must be placed together.
    ///
    /// # Errors
    /// How many more there must be.
    pub(crate) fn check_together<'a>(&self, tasks: impl Iterator<Item = &'a str>) -> Result<(), String> {
        let (mut count, mut by_task) = (0u32, BTreeMap::<&str, u32>::new());
        for task in tasks {
            count += 1;
            *by_task.entry(task).or_insert(0) += 1;
        }
        if count < self.missing() {
            return Err(format!("{} more must be placed together, these are {count}", self.missing()));
        }
        for (task, role) in &self.roles {
            let found = by_task.get(task.as_str()).copied().unwrap_or(0);
            if found < role.missing() {
                let missing = role.missing();
                return Err(format!(
                    "{missing} more of role {task} must be placed together, these are {found}"
                ));
            }
        }
        Ok(())
    }

    /// Why its pods wait although there may be room; `None` when only room is missing.
    pub(crate) fn hold(&self, state: &State, key: &PodGroupKey) -> Option<String> {
        let name = &key.name;
        if self.is_orphan {
            return Some(format!(
                "PodGroup {name} does not exist: create it, or let the pod name another one"
            ));
        }
        if !self.is_even {
            return Some(format!("pod group {name}: its pods are not of the same priority"));
        }
        let group = self.object.as_ref();
        if let Some(class) = group.and_then(|group| group.spec.priority_class_name.as_ref()) {
            match priority::of_class(state, class) {
                None => return Some(format!("pod group {name}: PriorityClass {class} does not exist")),
                Some(value) if !self.waiting.is_empty() && self.priority != Some(value) => {
                    return Some(format!(
                        "pod group {name}: its pods are not of the priority of its PriorityClass {class}"
                    ));
                }
                Some(_) => {}
            }
        }
        if let Some(reason) = self.is_full(state, key, self.missing()) {
            return Some(reason);
        }
        let known = self.placed as usize + self.waiting.len();
        if self.waiting.len() < self.missing() as usize {
            let least = known + self.missing() as usize - self.waiting.len();
            return Some(format!(
                "pod group {name}: {known} of {least} pods that are placed together are there"
            ));
        }
        let short = self.roles.iter().find(|(_, role)| role.waiting < role.missing());
        if let Some((task, role)) = short {
            let known = role.placed + role.waiting;
            return Some(format!(
                "pod group {name}: {known} of {} pods of role {task} that are placed together are there",
                role.least
            ));
        }
        None
    }

    /// Why no more of its pods may have a node, when so many more would.
    pub(crate) fn is_full(&self, state: &State, key: &PodGroupKey, more: u32) -> Option<String> {
        let is_full = state.feature_level() >= GROUP_PREEMPTION_LEVEL
            && self.holding.saturating_add(more) > POD_GROUP_PODS_MAX;
        is_full.then(|| full(key))
    }

    /// The priority of its pods, as far as they have the same.
    pub(crate) fn priority(&self) -> Option<i32> {
        self.priority
    }

    /// Until when it is put off, milliseconds since the epoch; 0 when it is not.
    pub(crate) fn put_off_until_ms(&self) -> u64 {
        self.object.as_ref().map_or(0, |group| group.status.backoff_until_ms)
    }

    /// Whether what the group needs at least is free in its queue.
    ///
    /// # Errors
    /// What is not.
    pub(crate) fn check_least(
        &self,
        state: &State,
        key: &PodGroupKey,
        ledger: &QueueLedger,
    ) -> Result<(), String> {
        let Some(group) = &self.object else { return Ok(()) };
        let least = &group.spec.min_resources;
        let queue = queue::of(state, Some(key), None);
        if let Some(reason) = queue.as_ref().and_then(|queue| queue::closed(state, queue)) {
            return Err(reason);
        }
        match &queue {
            Some(queue) if !least.is_empty() => {
                ledger.check_least(state, queue, least, &state.queue_use.of_group(key))
            }
            _ => Ok(()),
        }
    }

    /// Whether what the group needs at least is free in the cluster, once certain pods have gone.
    ///
    /// # Errors
    /// What is not.
    pub(crate) fn check_free(
        &self,
        state: &State,
        key: &PodGroupKey,
        gone: &[ObjectId],
    ) -> Result<(), String> {
        let Some(group) = &self.object else { return Ok(()) };
        let least = &group.spec.min_resources;
        if least.is_empty() {
            return Ok(());
        }
        let held = state.queue_use.of_group(key);
        let mut free = Free::of(state);
        gone.iter().filter_map(|id| state.pods.get(*id)).for_each(|pod| free.leave(state, pod));
        for measure in least.measures() {
            let asked = u128::from(least.of(measure).unwrap_or(0)).saturating_sub(held.of(measure));
            let there = free.of_measure(measure);
            if asked > there {
                let show = |amount: u128| measure.format_amount(u64::try_from(amount).unwrap_or(u64::MAX));
                let resource = queue::resource_name(measure);
                return Err(format!(
                    "minResources: {} of {resource} is needed, {} is free",
                    show(asked),
                    show(there)
                ));
            }
        }
        Ok(())
    }
}

/// Why a group gets no more nodes.
pub(crate) fn full(key: &PodGroupKey) -> String {
    let name = &key.name;
    format!("pod group {name}: {POD_GROUP_PODS_MAX} of its pods have a node, and no more may have one")
}

/// The pods of a group that hold room and stay: who ends when it ends whole.
pub(crate) fn holders<'a>(state: &'a State, key: &'a PodGroupKey) -> impl Iterator<Item = &'a Arc<Pod>> {
    let holds =
        |pod: &&Arc<Pod>| pod.node.is_some() && !pod.meta.is_deleting() && !pod.status.phase.is_terminal();
    let is_of = move |pod: &&Arc<Pod>| key_of(state, pod).as_ref() == Some(key);
    state.pods_of_group(key).filter(holds).filter(is_of)
}

/// Victims that stay together or not at all: groups that end whole because they would have too few, and others.
pub(crate) fn units(state: &State, victims: &BTreeSet<ObjectId>) -> Vec<BTreeSet<ObjectId>> {
    let (mut units, mut groups) = (Vec::new(), BTreeMap::<_, BTreeSet<ObjectId>>::new());
    for pod in victims.iter().filter_map(|id| state.pods().get(*id)) {
        match key_of(state, pod).filter(|_| state.feature_level() >= QUEUES_LEVEL) {
            Some(key) => _ = groups.entry(key).or_default().insert(pod.meta.id),
            None => units.push(BTreeSet::from([pod.meta.id])),
        }
    }
    for (key, pods) in groups {
        let task = |id: &ObjectId| state.pods().get(*id).map_or("", |pod| pod.task());
        match Standing::of(state, &key).breaks_without(pods.iter().map(task)) {
            true => units.push(pods),
            false => units.extend(pods.into_iter().map(|id| BTreeSet::from([id]))),
        }
    }
    units
}

/// What ends, or has failed, is no part of a group any more; what has succeeded still is.
fn counts(pod: &Arc<Pod>) -> bool {
    !pod.meta.is_deleting() && pod.status.phase != PodPhase::Failed
}

/// The group that a pod must be placed with: it has one, and too few of that have a node yet.
pub(crate) fn held_by(state: &State, pod: &Pod) -> Option<PodGroupKey> {
    if state.feature_level() < POD_GROUP_LEVEL {
        return None;
    }
    let key = key_of(state, pod)?;
    Standing::of(state, &key).is_held().then_some(key)
}

fn takes_pods(node: &Arc<Node>) -> bool {
    node.status.phase == NodePhase::Ready && !node.spec.unschedulable && !node.meta.is_deleting()
}

/// What nodes that take pods have free, together.
#[derive(Debug, Default)]
struct Free {
    cpu_millis: u128,
    memory_bytes: u128,
    ephemeral_storage_bytes: u128,
    pods: u128,
    extended: BTreeMap<SmolStr, u128>,
}

impl Free {
    /// Costs time in proportion to the number of nodes.
    fn of(state: &State) -> Self {
        let mut free = Self::default();
        for node in state.nodes().iter().filter(|node| takes_pods(node)) {
            let (has, used) = (node.status.facts.allocatable, state.node_usage(node.meta.id));
            let left = |has: u64, used: u64| u128::from(has.saturating_sub(used));
            free.cpu_millis += left(has.cpu_millis, used.requests.cpu_millis);
            free.memory_bytes += left(has.memory_bytes, used.requests.memory_bytes);
            free.ephemeral_storage_bytes +=
                left(has.ephemeral_storage_bytes, used.requests.ephemeral_storage_bytes);
            free.pods += left(node.status.facts.pods_max.into(), used.pods.into());
            let counts = state.node_devices(node.meta.id).map(|devices| devices.counts()).unwrap_or_default();
            for size in HugePageSize::ALL {
                let left = left(has.huge_pages.of(size), used.requests.huge_pages.of(size));
                if left > 0 {
                    *free.extended.entry(size.resource().into()).or_insert(0) += left;
                }
            }
            for (resource, count) in counts {
                *free.extended.entry(resource).or_insert(0) += left(count.allocatable, count.allocated);
            }
        }
        free
    }

    /// A pod on a node that takes pods gives back what it holds.
    fn leave(&mut self, state: &State, pod: &Pod) {
        let node = pod.node.and_then(|node| state.nodes().get(node));
        if pod.status.phase.is_terminal() || !node.is_some_and(takes_pods) {
            return;
        }
        for (measure, amount) in Charge::of_pod(pod, &state.devices.classes).iter() {
            let sum = match measure {
                Measure::RequestsCpu => &mut self.cpu_millis,
                Measure::RequestsMemory => &mut self.memory_bytes,
                Measure::RequestsEphemeralStorage => &mut self.ephemeral_storage_bytes,
                Measure::Pods => &mut self.pods,
                Measure::Extended(resource) => self.extended.entry(resource.clone()).or_insert(0),
                _ => continue,
            };
            *sum += u128::from(amount);
        }
    }

    fn of_measure(&self, measure: &Measure) -> u128 {
        match measure {
            Measure::RequestsCpu => self.cpu_millis,
            Measure::RequestsMemory => self.memory_bytes,
            Measure::RequestsEphemeralStorage => self.ephemeral_storage_bytes,
            Measure::Pods => self.pods,
            Measure::Extended(resource) => self.extended.get(resource).copied().unwrap_or(0),
            _ => 0,
        }
    }
}
