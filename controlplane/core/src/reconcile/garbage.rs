//! Garbage: what an owner left behind, what is in a namespace that ends, and ended pods beyond the limit.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_canary::planted;
use bulkhead_types::{Command, Kind, Name, Object, ObjectId, Pod};
use smol_str::SmolStr;

use super::{Queue, Reconciler, View};
use crate::decide::disposal;
use crate::{Change, ChangeType, State};

/// Objects collected by one command, at most.
const OBJECTS_PER_COMMAND: usize = 2000;
/// Objects collected per run, at most.
const OBJECTS_PER_RUN: usize = 4 * OBJECTS_PER_COMMAND;
/// Ended pods removed by one command, at most.
const PODS_PER_COMMAND: usize = 1000;

/// What workloads own.
const OWNED_KINDS: [Kind; 5] =
    [Kind::Pod, Kind::ReplicaSet, Kind::Deployment, Kind::Job, Kind::ControllerRevision];

/// Stands in the queue for the ended pods; no object has this key.
const ENDED_PODS: ObjectId = ObjectId(0);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Garbage {
    /// Owners that are gone, and namespaces that end.
    queue: Queue,
    /// The names of namespaces that end.
    doomed: BTreeMap<Name, ObjectId>,
    /// Of those: all that is left in them is ending already.
    emptied: BTreeSet<ObjectId>,
    /// Ended pods that nobody has asked to go.
    terminated: BTreeSet<ObjectId>,
    /// Claims that end, by namespace and name: they wait for their last pod.
    ending_claims: BTreeMap<(Option<Name>, SmolStr), ObjectId>,
    /// Snapshots that end, in the same way: they wait for the last claim that is made of them.
    ending_snapshots: BTreeMap<(Option<Name>, SmolStr), ObjectId>,
}

impl Reconciler for Garbage {
    fn name(&self) -> &'static str {
        "garbage"
    }

    fn reset(&mut self, state: &State) {
        *self = Self::default();
        for object in state.objects() {
            self.note(&object, false);
            // An owner that is gone stands in the queue by the key that its objects still carry.
            if let Some(owner) = object.meta().owner.filter(|o| state.object(o.kind, o.id).is_none()) {
                self.queue.mark(owner.id);
            }
        }
    }

    fn observe(&mut self, change: &Change) {
        self.note(&change.object, change.change_type == ChangeType::Deleted);
    }

    fn reconcile(&mut self, view: &View<'_>) -> Vec<Command> {
        self.queue.begin(view.now_ms);
        let (mut commands, mut room) = (Vec::new(), OBJECTS_PER_RUN);
        while room > 0 {
            let Some(id) = self.queue.pop() else { break };
            if id == ENDED_PODS {
                self.thin_out(view, &mut commands);
                continue;
            }
            let found = self.find(view.state, id, room);
            if found.is_empty() {
                continue;
            }
            room -= found.len().min(room);
            for objects in found.chunks(OBJECTS_PER_COMMAND) {
                commands.push(Command::CollectGarbage { objects: objects.to_vec() });
            }
            self.queue.proposed(id);
        }
        commands
    }

    fn next_wake_ms(&self) -> Option<u64> {
        self.queue.next_wake_ms()
    }
}

impl Garbage {
    fn note(&mut self, object: &Object, gone: bool) {
        let meta = object.meta();
        if let Object::PersistentVolumeClaim(claim) = object
            && let Some(source) = claim.source.get()
        {
            // What it is made of may wait for it to have its copy.
            let key = (meta.namespace.clone(), source.name.clone());
            self.ending_claims.get(&key).into_iter().for_each(|id| self.queue.mark(*id));
            self.ending_snapshots.get(&key).into_iter().for_each(|id| self.queue.mark(*id));
        }
        match object {
            Object::Namespace(_) if gone => {
                self.doomed.remove(&meta.name);
                self.emptied.remove(&meta.id);
                self.queue.forget(meta.id);
            }
            Object::Namespace(_) if meta.is_deleting() => {
                self.doomed.insert(meta.name.clone(), meta.id);
                self.queue.mark(meta.id);
            }
            Object::ReplicaSet(_)
            | Object::Deployment(_)
            | Object::StatefulSet(_)
            | Object::DaemonSet(_)
            | Object::Job(_)
            | Object::CronJob(_)
            | Object::ElasticWorkload(_)
                if gone || planted!("canary_garbage_of_live_owner") =>
            {
                self.queue.mark(meta.id);
            }
            Object::PersistentVolumeClaim(claim) if gone || meta.is_deleting() => {
                let key = (meta.namespace.clone(), SmolStr::new(claim.meta.name.as_str()));
                if gone {
                    self.ending_claims.remove(&key);
                    self.queue.forget(meta.id);
                } else {
                    self.ending_claims.insert(key, meta.id);
                    self.queue.mark(meta.id);
                }
            }
            Object::VolumeSnapshot(snapshot) => {
                // The claim that it is of may have waited for it.
                let key = (meta.namespace.clone(), snapshot.spec.claim_name.clone());
                self.ending_claims.get(&key).into_iter().for_each(|id| self.queue.mark(*id));
                let own = (meta.namespace.clone(), SmolStr::new(meta.name.as_str()));
                if gone {
                    self.ending_snapshots.remove(&own);
                    self.queue.forget(meta.id);
                } else if meta.is_deleting() {
                    self.ending_snapshots.insert(own, meta.id);
                    self.queue.mark(meta.id);
                }
            }
            Object::Pod(pod) => {
                if gone || pod.status.phase.is_terminal() {
                    self.release_claims(pod);
                }
                if !gone && pod.status.phase.is_terminal() && !meta.is_deleting() {
                    self.terminated.insert(meta.id);
                    self.queue.mark(ENDED_PODS);
                } else if self.terminated.remove(&meta.id) {
                    // One less, by our own word or another's: are there still too many?
                    self.queue.mark(ENDED_PODS);
                }
            }
            _ => {}
        }
        // What goes takes its place in its owner's and its namespace's list with it.
        if gone || meta.is_deleting() {
            let namespace = meta.namespace.as_ref().and_then(|name| self.doomed.get(name));
            namespace.into_iter().for_each(|id| self.queue.mark(*id));
        }
    }

    /// A pod has no guest any more: claims that wait for that are looked at.
    fn release_claims(&mut self, pod: &Pod) {
        for name in pod.spec.claims() {
            let key = (pod.meta.namespace.clone(), name.clone());
            self.ending_claims.get(&key).into_iter().for_each(|id| self.queue.mark(*id));
        }
    }

    /// What is garbage by this owner or namespace, up to `room` objects.
    fn find(&mut self, state: &State, id: ObjectId, room: usize) -> Vec<(Kind, ObjectId)> {
        let is_garbage = |kind: Kind, id: ObjectId| {
            state.object(kind, id).is_some_and(|object| disposal(state, &object).is_some())
        };
        if is_garbage(Kind::PersistentVolumeClaim, id) {
            return vec![(Kind::PersistentVolumeClaim, id)];
        }
        if is_garbage(Kind::VolumeSnapshot, id) {
            return vec![(Kind::VolumeSnapshot, id)];
        }
        let Some(namespace) = state.namespaces().get(id) else {
            let owned = OWNED_KINDS.into_iter();
            let owned = owned.flat_map(|kind| state.owned(id, kind).map(move |id| (kind, id)));
            return owned.filter(|(kind, id)| is_garbage(*kind, *id)).take(room).collect();
        };
        if is_garbage(Kind::Namespace, id) {
            return vec![(Kind::Namespace, id)];
        }
        if self.emptied.contains(&id) {
            return Vec::new();
        }
        let inside = state.in_namespace(&namespace.meta.name);
        let found: Vec<_> = inside.filter(|(kind, id)| is_garbage(*kind, *id)).take(room).collect();
        // Nothing new may enter: from now on only the last one's end matters.
        if found.is_empty() {
            self.emptied.insert(id);
        }
        found
    }

    /// Lets the oldest of too many ended pods go.
    fn thin_out(&mut self, view: &View<'_>, commands: &mut Vec<Command>) {
        let excess = self.terminated.len().saturating_sub(view.config.terminated_pods_max);
        if excess == 0 {
            return;
        }
        let pods = self.terminated.iter().copied().take(excess.min(PODS_PER_COMMAND)).collect();
        let reason = SmolStr::new_static("TerminatedPodLimit");
        commands.push(Command::DeletePods { pods, surplus_of: None, reason });
        self.queue.proposed(ENDED_PODS);
    }
}
