//! How many pods of each ReplicaSet are ready, available, or failing: counted change by change.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_types::{Kind, Object, ObjectId, Pod, ReplicaSet};

use super::is_active;
use crate::decide::{REASON_NODE_FENCED, REASON_UNSCHEDULABLE};
use crate::{Change, ChangeType, State};

/// First pause of a set whose pods keep failing, in milliseconds; it doubles with every further round.
const FAILURE_PAUSE_MS_MIN: u64 = 1000;
/// Longest pause, in milliseconds (that of Kubernetes' crash loops).
const FAILURE_PAUSE_MS_MAX: u64 = 300_000;

/// The figures of one ReplicaSet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    min_ready_ms: u64,
    ready: u32,
    available: u32,
    /// Pods ended since the last run.
    fresh_failures: bool,
    /// Rounds of failures since the last pod became ready.
    failed_rounds: u32,
    /// The leader's clock at the last round.
    failed_at_ms: u64,
}

impl Tally {
    /// Active pods that are ready.
    pub(crate) fn ready(&self) -> u32 {
        self.ready
    }

    /// Active pods that have been ready for `min_ready_ms`.
    pub(crate) fn available(&self) -> u32 {
        self.available
    }

    /// From when on new pods may be created, by the leader's clock. The first failure costs nothing.
    pub(crate) fn create_after_ms(&self) -> u64 {
        self.failed_at_ms + self.pause_ms()
    }

    /// Whether its pods keep failing before any becomes ready.
    pub(crate) fn is_failing(&self) -> bool {
        self.failed_rounds > 1
    }

    fn pause_ms(&self) -> u64 {
        match self.failed_rounds {
            0 | 1 => 0,
            rounds => (FAILURE_PAUSE_MS_MIN << (rounds - 2).min(16)).min(FAILURE_PAUSE_MS_MAX),
        }
    }

    fn note_failures(&mut self, now_ms: u64) {
        if !std::mem::take(&mut self.fresh_failures) {
            return;
        }
        // Pods that fail together, or while the set pauses, are one round.
        if self.failed_rounds == 0 || now_ms >= self.create_after_ms() {
            self.failed_rounds = self.failed_rounds.saturating_add(1);
            self.failed_at_ms = now_ms;
        }
    }
}

/// The figures of all ReplicaSets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tallies {
    sets: BTreeMap<ObjectId, Tally>,
    /// Ready pods that are not available yet: when they will be.
    waiting: BTreeMap<(u64, ObjectId), ObjectId>,
    failing: BTreeSet<ObjectId>,
    /// Active pods that no node can take, by their set.
    unplaced: BTreeMap<ObjectId, BTreeSet<ObjectId>>,
    /// Deployments and ReplicaSets whose `min_ready_ms` changed.
    stale: BTreeSet<(Kind, ObjectId)>,
}

/// How long a set's pods must be ready; the Deployment's word counts for its sets.
pub(crate) fn min_ready_ms(state: &State, set: &ReplicaSet) -> u64 {
    let owner = set.meta.owner.and_then(|owner| state.deployments().get(owner.id));
    owner.map_or(set.spec.min_ready_ms, |deployment| deployment.spec.min_ready_ms)
}

fn set_of(pod: &Pod) -> Option<ObjectId> {
    pod.meta.owner.filter(|owner| owner.kind == Kind::ReplicaSet).map(|owner| owner.id)
}

/// Since when a pod is ready, if it counts.
fn ready_since(pod: &Pod) -> Option<u64> {
    (is_active(pod) && pod.status.ready).then_some(pod.status.ready_since_ms)
}

/// Whether a pod runs nowhere because no node can take it.
pub(super) fn is_unplaced(pod: &Pod) -> bool {
    pod.node.is_none() && is_active(pod) && pod.status.reason == REASON_UNSCHEDULABLE
}

impl Tallies {
    /// How many of a set's pods no node can take.
    pub(crate) fn unplaced(&self, set: ObjectId) -> u32 {
        self.unplaced.get(&set).map_or(0, |pods| u32::try_from(pods.len()).unwrap_or(u32::MAX))
    }

    /// The oldest pod of a set that no node can take.
    pub(crate) fn first_unplaced(&self, set: ObjectId) -> Option<ObjectId> {
        self.unplaced.get(&set)?.first().copied()
    }

    /// The figures of a set.
    pub(crate) fn of(&self, set: ObjectId) -> Tally {
        self.sets.get(&set).cloned().unwrap_or_default()
    }

    pub(super) fn reset(&mut self, state: &State) {
        *self = Self::default();
        for set in state.replica_sets().iter() {
            self.sets.insert(set.meta.id, Tally::default());
            self.rebuild(state, set);
        }
        for pod in state.pending_pods().iter().filter_map(|id| state.pods().get(*id)) {
            self.note_placement(pod.meta.id, set_of(pod), is_unplaced(pod));
        }
    }

    fn note_placement(&mut self, pod: ObjectId, set: Option<ObjectId>, unplaced: bool) {
        let Some(set) = set else { return };
        if unplaced {
            self.unplaced.entry(set).or_default().insert(pod);
        } else if let Some(pods) = self.unplaced.get_mut(&set) {
            pods.remove(&pod);
            if pods.is_empty() {
                self.unplaced.remove(&set);
            }
        }
    }

    pub(super) fn observe(&mut self, change: &Change) {
        match (&change.object, &change.former) {
            (Object::Pod(pod), former) => {
                let former = former.as_ref().and_then(|f| match f {
                    Object::Pod(pod) => Some(&**pod),
                    _ => None,
                });
                let present = (change.change_type != ChangeType::Deleted).then_some(&**pod);
                self.observe_pod(former, present);
            }
            (Object::ReplicaSet(set), former) => self.observe_set(change.change_type, set, former.as_ref()),
            (Object::Deployment(deployment), Some(Object::Deployment(former)))
                if deployment.spec.min_ready_ms != former.spec.min_ready_ms =>
            {
                self.stale.insert((Kind::Deployment, deployment.meta.id));
            }
            _ => {}
        }
    }

    fn observe_set(&mut self, change_type: ChangeType, set: &ReplicaSet, former: Option<&Object>) {
        let id = set.meta.id;
        match (change_type, former) {
            (ChangeType::Added, _) => {
                let tally = Tally { min_ready_ms: set.spec.min_ready_ms, ..Tally::default() };
                self.sets.insert(id, tally);
            }
            (ChangeType::Deleted, _) => _ = self.sets.remove(&id),
            (_, Some(Object::ReplicaSet(former))) if former.spec.min_ready_ms != set.spec.min_ready_ms => {
                self.stale.insert((Kind::ReplicaSet, id));
            }
            _ => {}
        }
    }

    fn observe_pod(&mut self, former: Option<&Pod>, present: Option<&Pod>) {
        let Some(pod) = present.or(former) else { return };
        let Some(set) = set_of(pod) else { return };
        let id = pod.meta.id;
        self.note_placement(id, Some(set), present.is_some_and(is_unplaced));
        let (was, is) = (former.and_then(ready_since), present.and_then(ready_since));
        if was != is {
            if let Some(since_ms) = was {
                self.drop_ready(set, id, since_ms);
            }
            if let Some(since_ms) = is {
                self.add_ready(set, id, since_ms);
            }
        }
        let ended = |pod: Option<&Pod>| pod.is_some_and(|p| p.status.phase.is_terminal());
        let is_fenced = pod.status.reason == REASON_NODE_FENCED;
        let fails = !ended(former) && ended(present) && !pod.meta.is_deleting() && !is_fenced;
        if let Some(tally) = self.sets.get_mut(&set).filter(|_| fails) {
            tally.fresh_failures = true;
            self.failing.insert(set);
        }
    }

    fn add_ready(&mut self, set: ObjectId, pod: ObjectId, since_ms: u64) {
        let Some(tally) = self.sets.get_mut(&set) else { return };
        tally.ready += 1;
        tally.failed_rounds = 0;
        if tally.min_ready_ms == 0 {
            tally.available += 1;
        } else {
            self.waiting.insert((since_ms.saturating_add(tally.min_ready_ms), pod), set);
        }
    }

    fn drop_ready(&mut self, set: ObjectId, pod: ObjectId, since_ms: u64) {
        // A set that is gone has no figures, but what waits for its pods must go.
        let min_ready_ms = self.sets.get(&set).map_or(0, |tally| tally.min_ready_ms);
        let waited = self.waiting.remove(&(since_ms.saturating_add(min_ready_ms), pod)).is_some();
        let Some(tally) = self.sets.get_mut(&set) else { return };
        tally.ready = tally.ready.checked_sub(1).expect("a pod that was ready was counted");
        if !waited {
            tally.available = tally.available.checked_sub(1).expect("a pod that was available was counted");
        }
    }

    /// Counts one set afresh, with its present `min_ready_ms`.
    fn rebuild(&mut self, state: &State, set: &ReplicaSet) {
        let id = set.meta.id;
        let Some(tally) = self.sets.get_mut(&id) else { return };
        let former_ms = std::mem::replace(&mut tally.min_ready_ms, min_ready_ms(state, set));
        let failed_rounds = tally.failed_rounds;
        (tally.ready, tally.available) = (0, 0);
        let ready = state.pods_of(id).filter_map(|pod| Some((pod.meta.id, ready_since(pod)?)));
        for (pod, since_ms) in ready {
            self.waiting.remove(&(since_ms.saturating_add(former_ms), pod));
            self.add_ready(id, pod, since_ms);
        }
        if let Some(tally) = self.sets.get_mut(&id) {
            tally.failed_rounds = failed_rounds;
        }
    }

    /// Lets time pass: pods become available, failures become rounds. Returns the sets whose figures changed.
    pub(super) fn advance(&mut self, state: &State, now_ms: u64) -> BTreeSet<ObjectId> {
        let mut changed = BTreeSet::new();
        for (kind, id) in std::mem::take(&mut self.stale) {
            let owned = state.owned(id, Kind::ReplicaSet);
            let sets: Vec<_> = if kind == Kind::ReplicaSet { vec![id] } else { owned.collect() };
            for set in sets.into_iter().filter_map(|id| state.replica_sets().get(id)) {
                self.rebuild(state, set);
                changed.insert(set.meta.id);
            }
        }
        for set in std::mem::take(&mut self.failing) {
            if let Some(tally) = self.sets.get_mut(&set) {
                tally.note_failures(now_ms);
            }
        }
        while let Some(first) = self.waiting.first_entry() {
            if first.key().0 > now_ms {
                break;
            }
            let set = first.remove();
            if let Some(tally) = self.sets.get_mut(&set) {
                tally.available += 1;
                changed.insert(set);
            }
        }
        changed
    }

    /// When the next pod becomes available; 0 when something waits to be counted.
    pub(super) fn next_wake_ms(&self) -> Option<u64> {
        if !self.stale.is_empty() || !self.failing.is_empty() {
            return Some(0);
        }
        self.waiting.first_key_value().map(|((due_ms, _), _)| *due_ms)
    }
}
