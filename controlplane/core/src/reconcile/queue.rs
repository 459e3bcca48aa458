//! Which objects to look at: at once, or at a time; and again, later and later, when a proposal had no effect.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_types::{Command, ObjectId};

use super::{COMMANDS_PER_RUN, OBJECTS_PER_RUN};

/// First wait after a proposal without effect, in milliseconds; it doubles with each further one.
const RETRY_MS_MIN: u64 = 100;
/// Longest wait, in milliseconds.
const RETRY_MS_MAX: u64 = 30_000;

/// A work queue of objects.
///
/// Whoever proposes something for an object says so with [`Self::proposed`]. When no change of that object was
/// marked until the next [`Self::begin`], the proposal was refused or dropped, and the object comes back after
/// a wait that grows: never a hot loop.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    dirty: BTreeSet<ObjectId>,
    timers: BTreeSet<(u64, ObjectId)>,
    /// The one timer of each object.
    due: BTreeMap<ObjectId, u64>,
    proposed: BTreeSet<ObjectId>,
    failures: BTreeMap<ObjectId, u32>,
}

/// One run over what waits in a reconciler's queue, within the bounds of a run. What a command was proposed for is
/// noted, so that it is looked at again when that had no effect.
pub(super) fn work_off<R>(
    reconciler: &mut R,
    queue: fn(&mut R) -> &mut Queue,
    mut one: impl FnMut(&mut R, ObjectId, &mut Vec<Command>),
) -> Vec<Command> {
    let mut commands = Vec::new();
    for _ in 0..OBJECTS_PER_RUN {
        if commands.len() >= COMMANDS_PER_RUN {
            break;
        }
        let Some(id) = queue(reconciler).pop() else { break };
        let before = commands.len();
        one(reconciler, id, &mut commands);
        if commands.len() > before {
            queue(reconciler).proposed(id);
        }
    }
    commands
}

impl Queue {
    /// Something about the object changed.
    pub(crate) fn mark(&mut self, id: ObjectId) {
        self.dirty.insert(id);
        self.proposed.remove(&id);
        self.failures.remove(&id);
    }

    /// The object has work left.
    pub(crate) fn keep(&mut self, id: ObjectId) {
        self.dirty.insert(id);
    }

    /// The object is to be looked at again at a time, unless an earlier one is set.
    pub(crate) fn wake_at(&mut self, id: ObjectId, at_ms: u64) {
        match self.due.get(&id) {
            Some(present) if *present <= at_ms => {}
            _ => {
                self.cancel(id);
                self.due.insert(id, at_ms);
                self.timers.insert((at_ms, id));
            }
        }
    }

    /// The object is gone.
    pub(crate) fn forget(&mut self, id: ObjectId) {
        self.dirty.remove(&id);
        self.proposed.remove(&id);
        self.failures.remove(&id);
        self.cancel(id);
    }

    /// Something was proposed for the object.
    pub(crate) fn proposed(&mut self, id: ObjectId) {
        self.proposed.insert(id);
    }

    /// A run begins, with everything settled: proposals without effect are put off, due objects become dirty.
    pub(crate) fn begin(&mut self, now_ms: u64) {
        for id in std::mem::take(&mut self.proposed) {
            let failures = self.failures.entry(id).or_insert(0);
            let wait_ms = (RETRY_MS_MIN << (*failures).min(16)).min(RETRY_MS_MAX);
            *failures = failures.saturating_add(1);
            self.wake_at(id, now_ms + wait_ms);
        }
        while let Some((at_ms, id)) = self.timers.first().copied().filter(|(at_ms, _)| *at_ms <= now_ms) {
            self.timers.remove(&(at_ms, id));
            self.due.remove(&id);
            self.dirty.insert(id);
        }
    }

    /// The next dirty object, in id order.
    pub(crate) fn pop(&mut self) -> Option<ObjectId> {
        self.dirty.pop_first()
    }

    /// When there is something to do; 0 for at once. A proposal in doubt counts as something to do.
    pub(crate) fn next_wake_ms(&self) -> Option<u64> {
        if !self.dirty.is_empty() || !self.proposed.is_empty() {
            return Some(0);
        }
        self.timers.first().map(|(at_ms, _)| *at_ms)
    }

    fn cancel(&mut self, id: ObjectId) {
        if let Some(at_ms) = self.due.remove(&id) {
            self.timers.remove(&(at_ms, id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ObjectId = ObjectId(1);

    #[test]
    fn a_proposal_without_effect_comes_back_later_and_later() {
        let mut queue = Queue::default();
        queue.mark(A);
        let mut waits = Vec::new();
        let mut now_ms = 1000;
        for _ in 0..12 {
            queue.begin(now_ms);
            assert_eq!(queue.pop(), Some(A));
            queue.proposed(A);
            assert_eq!(queue.next_wake_ms(), Some(0), "whether it had an effect is looked at next");
            queue.begin(now_ms);
            assert_eq!(queue.pop(), None);
            let due_ms = queue.next_wake_ms().expect("a retry is due");
            waits.push(due_ms - now_ms);
            now_ms = due_ms;
        }
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000, 30_000]);
        queue.begin(now_ms);
        queue.mark(A);
        assert_eq!(queue.pop(), Some(A));
        queue.proposed(A);
        queue.begin(now_ms);
        assert_eq!(queue.next_wake_ms(), Some(now_ms + 100), "a change forgives");
    }

    #[test]
    fn the_earliest_timer_counts() {
        let mut queue = Queue::default();
        queue.wake_at(A, 50);
        queue.wake_at(A, 70);
        queue.wake_at(A, 20);
        queue.begin(19);
        assert_eq!(queue.pop(), None);
        queue.begin(20);
        assert_eq!(queue.pop(), Some(A));
        assert_eq!(queue.next_wake_ms(), None, "an object has one timer");
        queue.wake_at(A, 30);
        queue.forget(A);
        assert_eq!(queue.next_wake_ms(), None);
    }
}
