//! Resizes that wait for room: tried again when something of their node goes, and now and then without a reason, because
//! quotas may be in the way.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_types::{Command, Object, ObjectId, Pod, RESIZE_LEVEL};

use super::{Queue, Reconciler, View, work_off};
use crate::resize::{Room, is_waiting, room, waiting};
use crate::{Change, ChangeType, State};

/// To the next look without any reason, in milliseconds.
const LOOK_MS: u64 = 30_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Resizes {
    /// Pods to look at.
    queue: Queue,
    /// Those that wait, by node.
    waiting: BTreeMap<ObjectId, BTreeSet<ObjectId>>,
}

impl Resizes {
    fn note(&mut self, pod: &Pod, waits: bool) {
        let Some(node) = pod.node else { return };
        if waits {
            self.waiting.entry(node).or_default().insert(pod.meta.id);
            self.queue.mark(pod.meta.id);
            return;
        }
        self.queue.forget(pod.meta.id);
        if let Some(pods) = self.waiting.get_mut(&node) {
            pods.remove(&pod.meta.id);
            if pods.is_empty() {
                self.waiting.remove(&node);
            }
        }
    }

    /// Something of a node may have become free.
    fn wake(&mut self, node: ObjectId) {
        for pod in self.waiting.get(&node).into_iter().flatten() {
            self.queue.keep(*pod);
        }
    }
}

impl Reconciler for Resizes {
    fn name(&self) -> &'static str {
        "resize"
    }

    fn reset(&mut self, state: &State) {
        *self = Self::default();
        state.pods().iter().filter(|pod| is_waiting(pod)).for_each(|pod| self.note(pod, true));
    }

    fn observe(&mut self, change: &Change) {
        let gone = change.change_type == ChangeType::Deleted;
        let waits = !gone && waiting(&change.object).is_some();
        let waited = change.former.as_ref().is_some_and(|former| waiting(former).is_some());
        match &change.object {
            Object::Pod(pod) if waits || waited => self.note(pod, waits),
            _ => {}
        }
        match (&change.object, &change.former) {
            _ if self.waiting.is_empty() => {}
            (Object::Pod(pod), Some(Object::Pod(former))) => {
                let ended = pod.status.phase.is_terminal() != former.status.phase.is_terminal();
                if let Some(node) = former.node.filter(|_| gone || ended || pod.spec != former.spec) {
                    self.wake(node);
                }
            }
            (Object::Node(node), _) => self.wake(node.meta.id),
            _ => {}
        }
    }

    fn reconcile(&mut self, view: &View<'_>) -> Vec<Command> {
        if view.state.feature_level() < RESIZE_LEVEL {
            *self = Self::default();
            return Vec::new();
        }
        self.queue.begin(view.now_ms);
        work_off(
            self,
            |this| &mut this.queue,
            |this, id, commands| {
                let Some(pod) = view.state.pods().get(id).filter(|pod| is_waiting(pod)) else { return };
                let desired = &pod.resize().expect("it waits").desired;
                match room(view.state, pod, desired) {
                    Room::Now | Room::Never(_) => commands.push(Command::AdmitResizes { pods: vec![id] }),
                    Room::Later(_) | Room::Refused(_) => this.queue.wake_at(id, view.now_ms + LOOK_MS),
                }
            },
        )
    }

    fn next_wake_ms(&self) -> Option<u64> {
        self.queue.next_wake_ms()
    }
}
