//! DaemonSets: one pod on every node that suits, whatever nodes come, go and change.
//!
//! Source: "DaemonSet" and "Perform a Rolling Update on a DaemonSet" in the Kubernetes documentation.

mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bulkhead_types::{
    Command, ControllerRevision, DaemonSet, Kind, Name, Node, Object, ObjectId, ObjectStatus, OwnerRef, Pod,
    PodStamp, Rejection,
};
use smol_str::SmolStr;

use super::backoff::Backoff;
use super::blocked::{self, Blocked, stamp_refusal};
use super::history::{History, is_doomed};
use super::{Queue, Reconciler, View, names, work_off};
use crate::workload::{self, Fleet, Seen, Standing, Verdict};
use crate::{Change, ChangeType, State};

/// Pods created or deleted by one command, at most.
const PODS_PER_COMMAND: usize = 500;
/// Pods of one set created or deleted per run, at most.
const PODS_PER_RUN: usize = 4000;
/// Names tried for each pod.
const NAME_TRIES: u64 = 4;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct DaemonSets {
    queue: Queue,
    blocked: Blocked,
    sets: BTreeMap<ObjectId, Known>,
}

/// What is kept of one set between runs.
#[derive(Debug, Default)]
struct Known {
    fleet: Fleet,
    backoff: Backoff<SmolStr>,
}

fn set_of(pod: &Pod) -> Option<ObjectId> {
    pod.meta.owner.filter(|owner| owner.kind == Kind::DaemonSet).map(|owner| owner.id)
}

impl Reconciler for DaemonSets {
    fn name(&self) -> &'static str {
        "daemon-set"
    }

    fn reset(&mut self, state: &State) {
        *self = Self::default();
        for set in state.daemon_sets().iter() {
            let fleet = Fleet::of(state, set, "", 0);
            self.sets.insert(set.meta.id, Known { fleet, ..Known::default() });
            self.queue.mark(set.meta.id);
        }
    }

    fn observe(&mut self, change: &Change) {
        self.blocked.observe(change);
        let gone = change.change_type == ChangeType::Deleted;
        match &change.object {
            Object::DaemonSet(set) if gone => {
                self.queue.forget(set.meta.id);
                self.sets.remove(&set.meta.id);
            }
            Object::DaemonSet(set) => {
                self.sets.entry(set.meta.id).or_default();
                self.queue.mark(set.meta.id);
            }
            Object::ControllerRevision(row) => {
                let owner = row.meta.owner.filter(|owner| self.sets.contains_key(&owner.id));
                owner.into_iter().for_each(|owner| self.queue.mark(owner.id));
            }
            Object::Node(node) => self.observe_node(node, gone),
            Object::Pod(pod) => self.observe_pod(pod, gone),
            _ => {}
        }
    }

    fn reconcile(&mut self, view: &View<'_>) -> Vec<Command> {
        self.queue.begin(view.now_ms);
        self.blocked.wake(&mut self.queue, view);
        work_off(
            self,
            |this| &mut this.queue,
            |this, id, commands| {
                let set = view.state.daemon_sets().get(id).filter(|set| !is_doomed(view.state, &set.meta));
                let (Some(set), Some(known)) = (set, this.sets.get_mut(&id)) else { return };
                let mut pass = Pass { view, set, known, commands, wake_at_ms: None, refusal: None };
                pass.run();
                let (place, waits) = ((id, set.meta.namespace.as_ref()), pass.refusal.is_some());
                this.blocked.set(&mut this.queue, view, place, waits);
                let wake_at_ms = pass.wake_at_ms.into_iter().chain(pass.known.fleet.next_ripe_ms()).min();
                wake_at_ms.into_iter().for_each(|at_ms| this.queue.wake_at(id, at_ms));
            },
        )
    }

    fn next_wake_ms(&self) -> Option<u64> {
        if self.blocked.has_news() { Some(0) } else { self.queue.next_wake_ms() }
    }
}

impl DaemonSets {
    fn observe_node(&mut self, node: &Node, gone: bool) {
        for (id, known) in &mut self.sets {
            let name = node.meta.name.as_str();
            if known.fleet.put_node(name, (!gone).then_some(node)) {
                self.queue.mark(*id);
            }
            if gone {
                known.backoff.forgive(&SmolStr::new(name));
            }
        }
    }

    fn observe_pod(&mut self, pod: &Pod, gone: bool) {
        let Some(id) = set_of(pod) else { return };
        let Some(known) = self.sets.get_mut(&id) else { return };
        let (node, seen) = (workload::node_of(pod), (!gone).then(|| Seen::of(pod)));
        if seen.as_ref().is_some_and(Seen::is_ready) {
            known.backoff.forgive(&node);
        }
        if known.fleet.put_pod(&node, pod.meta.id, seen) {
            self.queue.mark(id);
        }
    }
}

/// One look at one DaemonSet.
struct Pass<'a> {
    view: &'a View<'a>,
    set: &'a Arc<DaemonSet>,
    known: &'a mut Known,
    commands: &'a mut Vec<Command>,
    wake_at_ms: Option<u64>,
    /// Why the next pod does not fit, if it does not.
    refusal: Option<Rejection>,
}

impl Pass<'_> {
    fn owner(&self) -> OwnerRef {
        OwnerRef { kind: Kind::DaemonSet, id: self.set.meta.id }
    }

    fn run(&mut self) {
        let history = History {
            view: self.view,
            owner: self.owner(),
            meta: &self.set.meta,
            template: &self.set.spec.template,
            limit: self.set.spec.revision_history_limit,
        };
        let mut collision_count = self.set.status.collision_count;
        let update = history.sync(&mut collision_count, self.commands);
        let name = update.map(|row| SmolStr::new(row.meta.name.as_str()));
        let name = name.unwrap_or_else(|| self.set.status.update_revision.clone());
        if let Some(update) = update {
            self.known.fleet.catch_up(self.view.state, self.set, &name, self.view.now_ms);
            debug_assert!(
                self.known.fleet.agrees_with(&Fleet::of(self.view.state, self.set, &name, self.view.now_ms)),
                "kept change by change"
            );
            let Known { fleet, backoff } = &mut *self.known;
            backoff.retain(|node| fleet.concerns(node));
            self.replace_ended();
            self.create(update);
            self.give_up();
        }
        let (fleet, failing) = (&self.known.fleet, self.known.backoff.failing());
        let is_refused = self.refusal.is_some();
        let mut status =
            status::status(self.set, fleet, name, update.is_some(), failing, is_refused, self.view.now_ms);
        status.collision_count = collision_count;
        if let Some(refusal) = &self.refusal {
            blocked::tell(&mut status.conditions, refusal, self.view.now_ms);
        }
        let live: BTreeSet<_> = fleet.revisions().cloned().collect();
        history.clean_up(|name| live.contains(name) || status.update_revision == name, self.commands);
        if status != self.set.status {
            let (id, status) = (self.set.meta.id, ObjectStatus::DaemonSet(status));
            self.commands.push(Command::SetStatus { id, status });
        }
    }

    /// Pods that ended are asked to go, so that others may come; on nodes where they keep failing later and later.
    fn replace_ended(&mut self) {
        let (now_ms, mut doomed) = (self.view.now_ms, Vec::new());
        for node in self.known.fleet.ended().iter().take(PODS_PER_RUN) {
            for seen in self.known.fleet.pods(node).filter(|seen| seen.standing == Standing::Ended) {
                let due_ms = self.known.backoff.ended(node.clone(), seen.id, now_ms);
                if due_ms <= now_ms {
                    doomed.push(seen.id);
                } else {
                    self.wake_at_ms = self.wake_at_ms.into_iter().chain([due_ms]).min();
                }
            }
        }
        self.delete(&doomed, "Ended");
    }

    /// Pods where none is, and with a surge beside those of another template.
    fn create(&mut self, update: &ControllerRevision) {
        let (state, fleet) = (self.view.state, &self.known.fleet);
        let surge = if fleet.surges() { fleet.spare_surge() as usize } else { 0 };
        let outdated = fleet.with(Verdict::Outdated).chain(fleet.with(Verdict::OutdatedLost)).take(surge);
        let nodes = fleet.with(Verdict::Gap).chain(outdated).take(PODS_PER_RUN);
        let mut stamps = Vec::new();
        for node in nodes.filter_map(|name| fleet.node(name)) {
            let name = fresh_name(state, self.set, node);
            stamps.extend(name.map(|name| PodStamp {
                name,
                index: None,
                node: Some(node),
                revision: Some(update.meta.id),
            }));
        }
        if let Some(first) = stamps.first() {
            self.refusal = stamp_refusal(state, &Object::DaemonSet(Arc::clone(self.set)), first);
            if self.refusal.is_some() {
                return;
            }
        }
        let (owner, generation) = (self.owner(), self.set.meta.generation);
        for pods in stamps.chunks(PODS_PER_COMMAND) {
            self.commands.push(Command::CreateOwnedPods { owner, generation, pods: pods.to_vec() });
        }
    }

    /// Pods go that may not be where they are or whose successor is available, and those of another template: first
    /// those that are not available, then as many as may be unavailable, on lost nodes last.
    fn give_up(&mut self) {
        let fleet = &self.known.fleet;
        let excess = fleet.with(Verdict::Excess).take(PODS_PER_RUN).flat_map(|node| fleet.excess(node));
        let excess: Vec<_> = excess.collect();
        let spare = if fleet.surges() { 0 } else { fleet.spare() as usize };
        let outdated = fleet.with(Verdict::Outdated).chain(fleet.with(Verdict::OutdatedLost)).take(spare);
        let outdated = fleet.with(Verdict::OutdatedUnwell).chain(outdated).take(PODS_PER_RUN);
        let outdated = outdated.flat_map(|node| fleet.pods(node)).filter(|seen| seen.is_active());
        let outdated: Vec<_> = outdated.map(|seen| seen.id).collect();
        self.delete(&excess, "NotWantedHere");
        self.delete(&outdated, "Replaced");
    }

    fn delete(&mut self, pods: &[ObjectId], reason: &'static str) {
        let (owner, generation) = (self.owner(), self.set.meta.generation);
        for pods in pods.chunks(PODS_PER_COMMAND) {
            let (pods, reason) = (pods.to_vec(), SmolStr::new_static(reason));
            self.commands.push(Command::DeleteOwnedPods { owner, generation, pods, reason });
        }
    }
}

/// A name that no pod has, derived from the set, the node and the revision.
fn fresh_name(state: &State, set: &DaemonSet, node: ObjectId) -> Option<Name> {
    let names = (0..NAME_TRIES)
        .map(|turn| names::pod_name(&set.meta.name, &(set.meta.id, node, state.revision(), turn)));
    let is_free = |name: &Name| state.find(Kind::Pod, set.meta.namespace.as_ref(), name).is_none();
    names.into_iter().find(is_free)
}
