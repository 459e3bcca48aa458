//! Room that is kept for large groups, so that small pods that keep coming do not starve them (backfill).
//!
//! ```text
//!  a group that waits for nothing but room
//!     └─► a seat for each pod that must be placed, on nodes as they will be when all that ends by itself has gone
//!            └─► NodeIndex::keep: pods of the same or a lower priority get what that leaves of those nodes, and all others
//! ```
//!
//! Only what the group will use is kept, and only where it can ever be used: where no seats are found nothing is kept, so nobody
//! waits for nothing. What ends by itself are pods of Jobs, pods that are not restarted for ever, and pods that end already.
//! As nothing of the same priority comes into kept room, the group has its seats at the latest when the pods have ended that
//! were on its nodes when it began to wait. All of this is the leader's own and is found again by the next one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use bulkhead_types::{Kind, ObjectId, Pod, PodGroupKey, RestartPolicy};

use super::index::{NodeEntry, NodeIndex, Reserve, Slot};
use super::ledgers::{Ledgers, Matters};
use super::shape::{Shape, Taking, group_id, mix64};
use super::shapes::{ShapeKey, Shapes};
use crate::State;
use crate::pod_group::Standing;
use crate::state::NodeUsage;

/// Groups for which room is kept at a time, at most: those that would be placed first.
const GROUPS_MAX: usize = 4;
/// Groups for which a run looks for seats, at most: each may look at every node and its pods.
const SEARCHES_PER_RUN: usize = 4;

/// Where a pod of a group is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeptSeat {
    pub(crate) pod: ObjectId,
    pub(crate) shape: ShapeKey,
    pub(crate) slot: Slot,
}

/// What is kept for one group.
#[derive(Clone, Debug)]
struct Kept {
    seats: Vec<KeptSeat>,
    priority: i32,
    /// The end of the index' log when the seats were looked at last.
    seen: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Reserves {
    kept: BTreeMap<PodGroupKey, Kept>,
    /// Searches of this run.
    searches: usize,
    /// Groups that have asked in this run.
    asked: BTreeSet<PodGroupKey>,
    /// Groups for which no seats were found: when the index' log ended there. They are not looked at again before it has
    /// moved.
    futile: BTreeMap<PodGroupKey, u64>,
}

/// Whether a pod's room comes back without anybody doing anything.
fn ends_by_itself(pod: &Pod) -> bool {
    let owner = pod.meta.owner.map(|owner| owner.kind);
    pod.meta.is_deleting()
        || owner == Some(Kind::Job)
        || (owner.is_none() && pod.spec.restart_policy != RestartPolicy::Always)
}

/// A node as it will be when all that ends by itself has gone.
struct Future {
    usage: NodeUsage,
    ledgers: Ledgers,
}

impl Future {
    fn of(state: &State, entry: &NodeEntry, shape: &Shape) -> Self {
        let ledgers = Ledgers::copy(entry.ledgers(), Matters { devices: true, ..shape.matters() });
        let mut future = Self { usage: entry.usage_for(&shape.asker(None)), ledgers };
        let node = entry.node.meta.id;
        let ending = |pod: &&std::sync::Arc<Pod>| !pod.status.phase.is_terminal() && ends_by_itself(pod);
        for pod in state.pods_on(node).filter(ending) {
            let request = pod.spec.scheduling_request();
            if let Some(requests) = future.usage.requests.checked_minus(request) {
                future.usage = NodeUsage { requests, pods: future.usage.pods.saturating_sub(1) };
            }
            future.ledgers.count(pod, false);
        }
        future
    }

    /// Takes a seat for a pod of a shape, if it has one there beside what was taken before.
    fn seat(&self, pod: ObjectId, shape: &Shape, entry: &NodeEntry, taking: &mut Taking) -> bool {
        let has_room = entry.has_room_beside(shape.request, self.usage.plus(taking.usage));
        if !has_room || shape.check_claims(entry, taking.claims).is_err() {
            return false;
        }
        if shape.asks_for_devices() || shape.pins_cpus() || !shape.ports.is_empty() {
            let ledgers = taking.ledgers.over(self.ledgers.view());
            if shape.check_hardware(entry, ledgers).is_err() {
                return false;
            }
            let Some(chosen) = shape.choose_hardware(ledgers) else { return false };
            taking.ledgers.take(self.ledgers.view(), (pod, &shape.ports), &chosen);
        }
        taking.usage = taking.usage.with(shape.request);
        taking.claims += shape.claims_len();
        true
    }
}

impl Reserves {
    /// A run begins.
    pub(crate) fn begin(&mut self) {
        self.asked.clear();
        self.searches = 0;
    }

    /// A run has looked at every group: what is kept for those that do not ask any more is given up.
    pub(crate) fn end(&mut self, index: &mut NodeIndex) {
        let gone: Vec<_> = self.kept.keys().filter(|key| !self.asked.contains(*key)).cloned().collect();
        gone.iter().for_each(|key| self.give_up(key, index));
        self.futile.retain(|key, _| self.asked.contains(key));
    }

    /// A group needs no more room, or others than it had.
    pub(crate) fn give_up(&mut self, key: &PodGroupKey, index: &mut NodeIndex) {
        let Some(kept) = self.kept.remove(key) else { return };
        let slots: BTreeSet<Slot> = kept.seats.iter().map(|seat| seat.slot).collect();
        slots.into_iter().for_each(|slot| index.release(slot, group_id(key)));
    }

    /// The seats that are kept for a group.
    pub(crate) fn seats(&self, key: &PodGroupKey) -> Option<&[KeptSeat]> {
        self.kept.get(key).map(|kept| kept.seats.as_slice())
    }

    /// A group waits for nothing but room: what is kept for it goes on, or is found.
    pub(crate) fn ask(
        &mut self,
        key: &PodGroupKey,
        standing: &Standing,
        (state, index, shapes): (&State, &mut NodeIndex, &Shapes),
    ) {
        let pods = required(state, standing);
        self.asked.insert(key.clone());
        if self.is_good(key, &pods, (state, index, shapes)) {
            return;
        }
        self.give_up(key, index);
        if self.kept.len() >= GROUPS_MAX {
            // One of a lower priority gives way.
            let own = pods.first().and_then(|id| shapes.of_waiting(*id)).map(|shape| shape.priority);
            let lowest = self.kept.iter().min_by_key(|(_, kept)| kept.priority);
            let Some(lower) = lowest.filter(|(_, kept)| own.is_some_and(|own| kept.priority < own)) else {
                return;
            };
            let lower = lower.0.clone();
            self.give_up(&lower, index);
        }
        if self.futile.get(key) == Some(&index.log_end()) || self.searches >= SEARCHES_PER_RUN {
            return;
        }
        self.searches += 1;
        let Some(seats) = find(state, index, shapes, key, &pods) else {
            self.futile.insert(key.clone(), index.log_end());
            return;
        };
        self.futile.remove(key);
        let mut reserves = BTreeMap::<Slot, Reserve>::new();
        let mut priority = i32::MIN;
        for seat in &seats {
            let Some(shape) = shapes.get(seat.shape) else { continue };
            priority = shape.priority;
            let reserve = reserves.entry(seat.slot).or_insert_with(|| Reserve {
                group: group_id(key),
                priority,
                usage: NodeUsage::default(),
                devices: BTreeMap::new(),
                has_shares: false,
            });
            reserve.usage = reserve.usage.with(shape.request);
            for ask in shape.needs().iter().flat_map(|(needs, _)| &needs.asks) {
                reserve.has_shares |= ask.share.is_some();
                *reserve.devices.entry(ask.resource.clone()).or_insert(0) += ask.count;
            }
        }
        reserves.into_iter().for_each(|(slot, reserve)| index.keep(slot, reserve));
        self.kept.insert(key.clone(), Kept { seats, priority, seen: index.log_end() });
    }

    /// Whether what is kept is for these pods, and will be enough.
    fn is_good(
        &mut self,
        key: &PodGroupKey,
        pods: &[ObjectId],
        (state, index, shapes): (&State, &NodeIndex, &Shapes),
    ) -> bool {
        let Some(kept) = self.kept.get_mut(key) else { return false };
        let same = kept.seats.len() == pods.len() && kept.seats.iter().all(|seat| pods.contains(&seat.pod));
        let mut slots: BTreeSet<Slot> = kept.seats.iter().map(|seat| seat.slot).collect();
        if let Some(changed) = index.changed_since(kept.seen) {
            let changed = changed.iter().map(|change| change.slot).filter(|slot| slots.contains(slot));
            slots = changed.collect();
        }
        let is_good = same
            && slots.into_iter().all(|slot| {
                let Some(entry) = index.get(slot) else { return false };
                let mut taking = Taking::default();
                let mut future = None;
                kept.seats.iter().filter(|seat| seat.slot == slot).all(|seat| {
                    let Some(shape) = shapes.get(seat.shape) else { return false };
                    if shape.priority != kept.priority || shape.check_alone(entry).is_err() {
                        return false;
                    }
                    let future = future.get_or_insert_with(|| Future::of(state, entry, shape));
                    future.seat(seat.pod, shape, entry, &mut taking)
                })
            });
        kept.seen = index.log_end();
        is_good
    }
}

/// The pods of a group that must be placed: so many of each role, and the oldest others.
pub(crate) fn required(state: &State, standing: &Standing) -> Vec<ObjectId> {
    let mut left: BTreeMap<&str, u32> = BTreeMap::new();
    let (mut chosen, mut others) = (Vec::new(), Vec::new());
    for id in &standing.waiting {
        let Some(pod) = state.pods().get(*id) else { continue };
        let task = pod.task();
        let missing = left.entry(task).or_insert_with(|| standing.missing_of(task));
        if *missing > 0 {
            *missing -= 1;
            chosen.push(*id);
        } else {
            others.push(*id);
        }
    }
    let missing = (standing.missing() as usize).saturating_sub(chosen.len());
    chosen.extend(others.into_iter().take(missing));
    chosen
}

/// Seats for all of these pods, on the nodes with most room first; `None` when there are not enough.
fn find(
    state: &State,
    index: &NodeIndex,
    shapes: &Shapes,
    key: &PodGroupKey,
    pods: &[ObjectId],
) -> Option<Vec<KeptSeat>> {
    let mut waiting = Vec::with_capacity(pods.len());
    for id in pods {
        let shape_key = shapes.key_of_waiting(*id)?;
        let shape = shapes.get(shape_key)?;
        // Who looks at other pods may find no seat beside those that are not there yet: nothing is kept.
        if shape.looks_at_pods() || !shape.may_be_placed() {
            return None;
        }
        waiting.push((Reverse((shape.request.cpu_millis, shape.request.memory_bytes)), shape_key, *id));
    }
    waiting.sort_unstable();
    let turn = group_id(key);
    let mut order: Vec<_> =
        index.entries().map(|(slot, entry)| (fullness(entry), mix64(turn ^ u64::from(slot)), slot)).collect();
    order.sort_unstable();
    let mut futures = BTreeMap::<Slot, Future>::new();
    let mut taken = BTreeMap::<Slot, Taking>::new();
    let mut seats = Vec::with_capacity(waiting.len());
    // Pods of one shape go on where the one before found its seat.
    let (mut last, mut at) = (None, 0);
    for (_, shape_key, pod) in waiting {
        if last != Some(shape_key) {
            (last, at) = (Some(shape_key), 0);
        }
        let shape = shapes.get(shape_key)?;
        loop {
            let (.., slot) = *order.get(at)?;
            let entry = index.get(slot)?;
            let future = futures.entry(slot).or_insert_with(|| Future::of(state, entry, shape));
            let is_seat = shape.check_alone(entry).is_ok()
                && future.seat(pod, shape, entry, taken.entry(slot).or_default());
            if is_seat {
                seats.push(KeptSeat { pod, shape: shape_key, slot });
                break;
            }
            at += 1;
        }
    }
    Some(seats)
}

/// How full a node is, in parts of a million of what it has most of in use.
fn fullness(entry: &NodeEntry) -> u64 {
    let (used, has) = (entry.usage.requests, entry.allocatable);
    let part = |used: u64, has: u64| (u128::from(used) * 1_000_000).checked_div(has.into()).unwrap_or(0);
    let fullest = part(used.cpu_millis, has.cpu_millis).max(part(used.memory_bytes, has.memory_bytes));
    u64::try_from(fullest).unwrap_or(u64::MAX)
}
