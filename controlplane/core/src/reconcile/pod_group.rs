//! PodGroups and Queues: their status. Only one thing relies on it: a group that waited for longer than its time-out is put
//! off until the time that its status says.

use std::collections::BTreeMap;

use bulkhead_types::{
    Command, ConditionStatus, Measure, Name, Object, ObjectId, ObjectStatus, POD_GROUP_SCHEDULED,
    POD_GROUP_TIMED_OUT, Pod, PodGroup, PodGroupKey, PodGroupPhase, PodGroupStatus, PodPhase, QUEUE_DEFAULT,
    QuotaAmounts, QuotaResource, SCHEDULE_BACKOFF_MS, is_counted_by_queues,
};

use super::job::stays;
use super::{Queue, Reconciler, View, work_off};
use crate::conditions::set_condition;
use crate::pod_group::Standing;
use crate::{Change, ChangeType, State, queue};

/// An object is counted no more often than so, in milliseconds: counting goes through its pods or groups.
const COUNT_MS: u64 = 1000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct PodGroups {
    queue: Queue,
    groups: BTreeMap<PodGroupKey, (ObjectId, Name)>,
    queues: BTreeMap<Name, ObjectId>,
    /// When each was counted last, milliseconds since the epoch.
    counted_ms: BTreeMap<ObjectId, u64>,
}

/// Whether a change of a pod matters to its group and queue.
fn matters(former: &Pod, present: &Pod) -> bool {
    let gist = |pod: &Pod| (pod.node, pod.status.phase, pod.meta.is_deleting(), pod.status.message.clone());
    gist(former) != gist(present)
}

impl PodGroups {
    fn mark_queue(&mut self, name: &Name) {
        if let Some(id) = self.queues.get(name) {
            self.queue.mark(*id);
        }
    }

    fn observe_pod(&mut self, pod: &Pod) {
        if let Some((id, name)) = pod.group_key().and_then(|key| self.groups.get(&key)).cloned() {
            self.queue.mark(id);
            self.mark_queue(&name);
        } else if let Some(name) = pod.own_queue() {
            self.mark_queue(&name);
        }
    }

    fn observe_group(&mut self, group: &PodGroup, is_gone: bool) {
        let (id, key) = (group.meta.id, group.key());
        if let Some((_, name)) = self.groups.remove(&key) {
            self.mark_queue(&name);
        }
        self.mark_queue(&group.spec.queue);
        if is_gone {
            self.queue.forget(id);
            self.counted_ms.remove(&id);
        } else {
            self.groups.insert(key, (id, group.spec.queue.clone()));
            self.queue.mark(id);
        }
    }

    fn observe_queue(&mut self, queue: &bulkhead_types::Queue, is_gone: bool) {
        let (id, name) = (queue.meta.id, &queue.meta.name);
        let groups: Vec<_> =
            self.groups.values().filter(|(_, queue)| queue == name).map(|(id, _)| *id).collect();
        groups.into_iter().for_each(|id| self.queue.mark(id));
        if is_gone {
            self.queue.forget(id);
            self.counted_ms.remove(&id);
            self.queues.remove(name);
        } else {
            self.queues.insert(name.clone(), id);
            self.queue.mark(id);
        }
    }
}

impl Reconciler for PodGroups {
    fn name(&self) -> &'static str {
        "pod-group"
    }

    fn reset(&mut self, state: &State) {
        *self = Self::default();
        state.queues().iter().for_each(|queue| self.observe_queue(queue, false));
        state.pod_groups().iter().for_each(|group| self.observe_group(group, false));
    }

    fn observe(&mut self, change: &Change) {
        let is_gone = change.change_type == ChangeType::Deleted;
        match (&change.object, &change.former) {
            (Object::PodGroup(group), _) => self.observe_group(group, is_gone),
            (Object::Queue(queue), _) => self.observe_queue(queue, is_gone),
            (Object::Pod(_), _) if self.groups.is_empty() && self.queues.is_empty() => {}
            (Object::Pod(pod), Some(Object::Pod(former)))
                if change.change_type == ChangeType::Modified
                    && former.meta.annotations == pod.meta.annotations
                    && !matters(former, pod) => {}
            (Object::Pod(pod), former) => {
                if let Some(Object::Pod(former)) = former {
                    self.observe_pod(former);
                }
                self.observe_pod(pod);
            }
            _ => {}
        }
    }

    fn reconcile(&mut self, view: &View<'_>) -> Vec<Command> {
        self.queue.begin(view.now_ms);
        work_off(
            self,
            |this| &mut this.queue,
            |this, id, commands| {
                let next_ms = this.counted_ms.get(&id).map_or(0, |at_ms| at_ms + COUNT_MS);
                if view.now_ms < next_ms {
                    this.queue.wake_at(id, next_ms);
                    return;
                }
                let status = if let Some(group) = view.state.pod_groups().get(id) {
                    if !stays(view.state, &group.meta) {
                        return;
                    }
                    let (status, wake_ms) = status_of(view.state, group, view.now_ms);
                    wake_ms.into_iter().for_each(|at_ms| this.queue.wake_at(id, at_ms));
                    (status != group.status).then_some(ObjectStatus::PodGroup(status))
                } else if let Some(queue) = view.state.queues().get(id) {
                    let status = status_of_queue(view.state, queue);
                    (status != queue.status).then_some(ObjectStatus::Queue(status))
                } else {
                    return;
                };
                this.counted_ms.insert(id, view.now_ms);
                commands.extend(status.map(|status| Command::SetStatus { id, status }));
            },
        )
    }

    fn next_wake_ms(&self) -> Option<u64> {
        self.queue.next_wake_ms()
    }
}

/// The status of a group, and when it becomes another by itself.
fn status_of(state: &State, group: &PodGroup, now_ms: u64) -> (PodGroupStatus, Option<u64>) {
    let key = group.key();
    let standing = Standing::of(state, &key);
    let mut status = PodGroupStatus { observed_generation: group.meta.generation, ..group.status.clone() };
    (status.pending, status.running, status.succeeded, status.failed) = (0, 0, 0, 0);
    for pod in state.pods_of_group(&key) {
        let figure = match (pod.status.phase, pod.node.is_some()) {
            (PodPhase::Succeeded, _) => &mut status.succeeded,
            (PodPhase::Failed, _) => &mut status.failed,
            _ if pod.meta.is_deleting() => continue,
            (_, true) => &mut status.running,
            (_, false) => &mut status.pending,
        };
        *figure += 1;
    }
    if status.backoff_until_ms <= now_ms {
        status.backoff_until_ms = 0;
    }
    let closed = queue::of(state, Some(&key), None).and_then(|queue| queue::closed(state, &queue));
    let hold = closed.or_else(|| standing.hold(state, &key));
    status.phase = match () {
        () if status.succeeded >= group.spec.min_member => PodGroupPhase::Completed,
        () if !standing.is_held() => PodGroupPhase::Running,
        () if standing.placed > 0 => PodGroupPhase::Unknown,
        () if hold.is_some() || status.backoff_until_ms > 0 => PodGroupPhase::Pending,
        () => PodGroupPhase::Inqueue,
    };
    let waits = standing.is_held() && hold.is_none() && status.phase != PodGroupPhase::Completed;
    match (waits && status.backoff_until_ms == 0, status.waiting_since_ms) {
        (true, 0) => status.waiting_since_ms = now_ms,
        (true, _) => {}
        (false, _) => status.waiting_since_ms = 0,
    }
    let due_ms = group.spec.schedule_timeout_ms.filter(|_| status.waiting_since_ms > 0);
    let due_ms = due_ms.map(|timeout_ms| status.waiting_since_ms.saturating_add(timeout_ms));
    if let Some(timeout_ms) = group.spec.schedule_timeout_ms.filter(|_| due_ms.is_some_and(|at| at <= now_ms))
    {
        let (least_ms, most_ms) = SCHEDULE_BACKOFF_MS;
        let wait_ms = timeout_ms.clamp(least_ms, most_ms);
        (status.backoff_until_ms, status.waiting_since_ms) = (now_ms + wait_ms, 0);
        if status.phase == PodGroupPhase::Inqueue {
            status.phase = PodGroupPhase::Pending;
        }
        let message = format!(
            "no nodes for it within {} s; it is put off for {} s and holds nothing",
            timeout_ms / 1000,
            wait_ms / 1000
        );
        let holds = (POD_GROUP_TIMED_OUT, ConditionStatus::True);
        set_condition(&mut status.conditions, now_ms, holds, "NoNodesInTime", &message);
    }
    tell(state, &standing, hold.as_deref(), &mut status, now_ms);
    let wake_ms = match status.backoff_until_ms {
        0 => due_ms.filter(|at_ms| *at_ms > now_ms),
        until_ms => Some(until_ms),
    };
    (status, wake_ms)
}

/// The condition that says whether it has its nodes.
fn tell(state: &State, standing: &Standing, hold: Option<&str>, status: &mut PodGroupStatus, now_ms: u64) {
    let (holds, reason, message) = match status.phase {
        PodGroupPhase::Completed => (ConditionStatus::True, "Completed", String::new()),
        PodGroupPhase::Running => {
            status.conditions.retain(|condition| condition.condition_type != POD_GROUP_TIMED_OUT);
            (ConditionStatus::True, "Placed", "as many of its pods as must have a node".to_owned())
        }
        _ => match hold {
            Some(reason) => (ConditionStatus::False, "NotReady", reason.to_owned()),
            None if status.backoff_until_ms > 0 => {
                (ConditionStatus::False, "PutOff", "it waited for longer than its time-out".to_owned())
            }
            None => {
                let first = standing.waiting.first().and_then(|id| state.pods().get(*id));
                let message = first.map(|pod| pod.status.message.clone()).unwrap_or_default();
                (ConditionStatus::False, "NotEnoughResources", message)
            }
        },
    };
    set_condition(&mut status.conditions, now_ms, (POD_GROUP_SCHEDULED, holds), reason, &message);
}

fn status_of_queue(state: &State, queue: &bulkhead_types::Queue) -> bulkhead_types::QueueStatus {
    let name = &queue.meta.name;
    let mut status = bulkhead_types::QueueStatus {
        observed_generation: queue.meta.generation,
        state: queue.spec.state,
        ..Default::default()
    };
    let used = state.queue_use.of_queue(name);
    if let Some(used) = used {
        let extended = used.extended().map(|resource| Measure::Extended(resource.clone()));
        let measures = Measure::all().filter(is_counted_by_queues).chain(extended);
        let amounts = measures.map(|measure| {
            let amount = u64::try_from(used.of(&measure)).unwrap_or(u64::MAX);
            (QuotaResource::from(measure), amount)
        });
        status.allocated = amounts.filter(|(_, amount)| *amount > 0).collect::<QuotaAmounts>();
    }
    if queue.spec.state == bulkhead_types::QueueState::Closed && used.is_some() {
        status.state = bulkhead_types::QueueState::Closing;
    }
    for group in state.pod_groups().iter().filter(|group| group.spec.queue == *name) {
        let figure = match group.status.phase {
            PodGroupPhase::Pending => &mut status.pending,
            PodGroupPhase::Inqueue => &mut status.inqueue,
            PodGroupPhase::Running => &mut status.running,
            PodGroupPhase::Unknown => &mut status.unknown,
            PodGroupPhase::Completed => &mut status.completed,
        };
        *figure += 1;
    }
    debug_assert!(name.as_str() != QUEUE_DEFAULT || used.is_none(), "the default queue is not counted");
    status
}
