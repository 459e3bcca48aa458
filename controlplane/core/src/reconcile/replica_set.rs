//! ReplicaSets: as many active pods as wanted, and a status that says how they are.

mod ranking;

use std::collections::BTreeSet;
use std::sync::Arc;

use bulkhead_types::{Command, Kind, Name, Object, ObjectId, Pod, Rejection, ReplicaSet, ReplicaSetStatus};
use smol_str::SmolStr;

use super::blocked::{self, Blocked};
use super::tally::min_ready_ms;
use super::{Queue, Reconciler, View, is_active, is_available, names, work_off};
use crate::owned_pod::{Birth, set_pod};
use crate::quota::pod_refusal;
use crate::{Change, ChangeType, State};

/// Pods created or deleted by one command, at most.
const PODS_PER_COMMAND: usize = 500;
/// Pods of one set created or deleted per run, at most.
const PODS_PER_RUN: usize = 4000;
/// Names tried for each pod: only a set of millions meets its own names.
const NAME_TRIES: u64 = 4;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct ReplicaSets {
    queue: Queue,
    blocked: Blocked,
}

/// Whether a change of a pod matters to its set.
fn matters(former: &Pod, present: &Pod) -> bool {
    is_active(former) != is_active(present)
        || former.status.ready != present.status.ready
        || former.status.ready_since_ms != present.status.ready_since_ms
}

impl Reconciler for ReplicaSets {
    fn name(&self) -> &'static str {
        "replica-set"
    }

    fn reset(&mut self, state: &State) {
        *self = Self::default();
        state.replica_sets().iter().for_each(|set| self.queue.mark(set.meta.id));
    }

    fn observe(&mut self, change: &Change) {
        self.blocked.observe(change);
        match (&change.object, &change.former) {
            (Object::ReplicaSet(set), _) if change.change_type == ChangeType::Deleted => {
                self.queue.forget(set.meta.id);
            }
            (Object::ReplicaSet(set), _) => self.queue.mark(set.meta.id),
            (Object::Pod(pod), former) => {
                let Some(owner) = pod.meta.owner.filter(|owner| owner.kind == Kind::ReplicaSet) else {
                    return;
                };
                let passed_over = match former {
                    Some(Object::Pod(former)) if change.change_type == ChangeType::Modified => {
                        !matters(former, pod)
                    }
                    _ => false,
                };
                if !passed_over {
                    self.queue.mark(owner.id);
                }
            }
            _ => {}
        }
    }

    fn availability_changed(&mut self, set: &ReplicaSet) {
        self.queue.keep(set.meta.id);
    }

    fn reconcile(&mut self, view: &View<'_>) -> Vec<Command> {
        self.queue.begin(view.now_ms);
        self.blocked.wake(&mut self.queue, view);
        work_off(
            self,
            |this| &mut this.queue,
            |this, id, commands| {
                if let Some(set) = view.state.replica_sets().get(id) {
                    this.reconcile_set(view, set, commands);
                }
            },
        )
    }

    fn next_wake_ms(&self) -> Option<u64> {
        if self.blocked.has_news() { Some(0) } else { self.queue.next_wake_ms() }
    }
}

impl ReplicaSets {
    fn reconcile_set(&mut self, view: &View<'_>, set: &Arc<ReplicaSet>, commands: &mut Vec<Command>) {
        let (id, wanted, active) = (set.meta.id, set.spec.replicas, view.state.active_pods(set.meta.id));
        let tally = view.tallies.of(id);
        let mut refusal = None;
        if active > wanted {
            delete_surplus(view, set, (active - wanted) as usize, commands);
        } else if active < wanted && may_create(view.state, set) {
            if view.now_ms < tally.create_after_ms() {
                self.queue.wake_at(id, tally.create_after_ms());
            } else {
                refusal = next_refusal(view.state, set);
                if refusal.is_none() {
                    create_pods(view.state, set, (wanted - active) as usize, commands);
                }
            }
        }
        let place = (id, set.meta.namespace.as_ref());
        self.blocked.set(&mut self.queue, view, place, refusal.is_some());
        let status = ReplicaSetStatus {
            observed_generation: set.meta.generation,
            replicas: active,
            ready_replicas: tally.ready(),
            available_replicas: tally.available(),
            failure: blocked::failure(&set.status.failure, refusal.as_ref(), view.now_ms),
        };
        if status != set.status {
            commands.push(Command::SetReplicaSetStatus { replica_set: id, status });
        }
    }
}

/// Whether the set and everything above it stay: else its pods are the garbage collector's.
fn may_create(state: &State, set: &ReplicaSet) -> bool {
    let meta = &set.meta;
    let orphan = meta.owner.is_some_and(|owner| state.object(owner.kind, owner.id).is_none());
    let namespace = meta.namespace.as_ref().and_then(|name| state.find(Kind::Namespace, None, name));
    let namespace = namespace.and_then(|id| state.namespaces().get(id));
    !orphan && !meta.is_deleting() && namespace.is_some_and(|ns| !ns.meta.is_deleting())
}

/// Why a further pod does not fit, if it does not. All pods of a set are alike.
fn next_refusal(state: &State, set: &ReplicaSet) -> Option<Rejection> {
    let pod = || set_pod(state, &Birth::trial(state), set.meta.id, &set.meta.name);
    pod_refusal(state, pod, set.meta.namespace.as_ref())
}

fn create_pods(state: &State, set: &ReplicaSet, count: usize, commands: &mut Vec<Command>) {
    let names = fresh_names(state, set, count.min(PODS_PER_RUN));
    for names in names.chunks(PODS_PER_COMMAND) {
        commands.push(Command::CreatePods { replica_set: set.meta.id, names: names.to_vec() });
    }
}

/// Names that no pod has, derived from the set and the revision.
fn fresh_names(state: &State, set: &ReplicaSet, count: usize) -> Vec<Name> {
    let (mut seen, mut fresh) = (BTreeSet::new(), Vec::with_capacity(count));
    for position in 0..count as u64 * NAME_TRIES {
        if fresh.len() == count {
            break;
        }
        let name = names::pod_name(&set.meta.name, &(set.meta.id, state.revision(), position));
        let taken = state.find(Kind::Pod, set.meta.namespace.as_ref(), &name).is_some();
        if !taken && seen.insert(name.clone()) {
            fresh.push(name);
        }
    }
    fresh
}

fn delete_surplus(view: &View<'_>, set: &ReplicaSet, count: usize, commands: &mut Vec<Command>) {
    let min_ready_ms = min_ready_ms(view.state, set);
    let is_available = |pod: &Pod| is_available(pod, min_ready_ms, view.now_ms);
    let pods = view.state.pods_of(set.meta.id).filter(|pod| is_active(pod)).cloned().collect();
    let doomed: Vec<ObjectId> = ranking::first_to_go(pods, count.min(PODS_PER_RUN), is_available);
    for pods in doomed.chunks(PODS_PER_COMMAND) {
        commands.push(Command::DeletePods {
            pods: pods.to_vec(),
            surplus_of: Some(set.meta.id),
            reason: SmolStr::new_static("ScaledDown"),
        });
    }
}
