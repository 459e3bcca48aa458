//! Room that is kept for large groups, so that small pods that keep coming do not starve them (backfill).
//!
//! ```text
//!  a group that waits for nothing but room
//!     └─► a seat for each pod that must be placed, on nodes as they will be when all that ends by itself has gone
//!            └─► NodeIndex::keep: pods of the same or a lower priority get what that leaves of those nodes, and all others
//! ```
//!
//! Only what the group will use is kept, and only where it can ever be used: where no seats are found nothing is kept, so nobody
//! waits for nothing. Nodes of pods that others may keep off (affinity, spreading) are kept whole: whoever came there might be in their way,
//! however small he is. What pods do in the rest of a topology domain moves the seats, and is not held up. What ends by itself are pods of Jobs, pods that are not restarted for ever, and pods that end already.
//! As nothing of the same priority comes into kept room, the group has its seats at the latest when the pods have ended that
//! were on its nodes when it began to wait. All of this is the leader's own and is found again by the next one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use bulkhead_types::{Kind, ObjectId, Pod, PodGroupKey, RestartPolicy};

use super::hall::Stage;
use super::index::{NodeEntry, NodeIndex, Reserve, Slot, SlotChange};
use super::ledgers::{Ledgers, Matters};
use super::shape::{Shape, Taking, group_id, mix64};
use super::shapes::{ShapeKey, Shapes};
use crate::State;
use crate::placement::Vicinity;
use crate::pod_group::Standing;
use crate::state::NodeUsage;

/// Groups for which room is kept at a time, at most: those that would be placed first.
const GROUPS_MAX: usize = 4;
/// Groups for which a run looks for seats, at most: each may look at every node and its pods.
const SEARCHES_PER_RUN: usize = 4;
/// Nodes that are asked for seats of one group, at most; a group for which that is not enough has none.
const TRIES_MAX: usize = 1 << 20;

/// Domains that the first pod of a group is tried in, at most, where it must be near others.
const DOMAINS_MAX: usize = 32;

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
    fn of(state: &State, entry: &NodeEntry, shape: &Shape, matters: Matters) -> Self {
        let ledgers = Ledgers::copy(entry.ledgers(), matters);
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
        (state, index, shapes, vicinity): (&State, &mut NodeIndex, &Shapes, &Vicinity),
    ) {
        let pods = required(state, standing);
        self.asked.insert(key.clone());
        if self.is_good(key, &pods, (state, index, shapes, vicinity)) {
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
        let Some(seats) = find((state, index, shapes, vicinity), key, &pods) else {
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
                is_whole: false,
            });
            reserve.is_whole |= shape.may_be_kept_off();
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
    fn is_good(&mut self, key: &PodGroupKey, pods: &[ObjectId], scene: Scene<'_>) -> bool {
        let (_, index, shapes, _) = scene;
        let Some(kept) = self.kept.get_mut(key) else { return false };
        let same = kept.seats.len() == pods.len() && kept.seats.iter().all(|seat| pods.contains(&seat.pod));
        let slots: BTreeSet<Slot> = kept.seats.iter().map(|seat| seat.slot).collect();
        let changed = index.changed_since(kept.seen);
        let of_seats = |changed: &[SlotChange]| {
            changed.iter().map(|change| change.slot).filter(|slot| slots.contains(slot)).collect()
        };
        let own = || kept.seats.iter().filter_map(|seat| shapes.get(seat.shape));
        let changed: BTreeSet<Slot> = match changed {
            Some([]) => BTreeSet::new(),
            // What happens on other nodes matters to those who look at other pods.
            Some(changed) if !own().any(Shape::looks_at_pods) => of_seats(changed),
            _ => slots.clone(),
        };
        let suits = |seat: &&KeptSeat| {
            let shape = shapes.get(seat.shape).filter(|shape| shape.waiting.contains(&seat.pod));
            shape.is_some_and(|shape| shape.priority == kept.priority && shape.may_be_placed())
        };
        let is_good = same && kept.seats.iter().all(|seat| suits(&seat)) && {
            let mut seating = Seating::new(scene, own());
            seating.take_all(kept.seats.iter().filter(|seat| changed.contains(&seat.slot)))
        };
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

/// What seats are looked for on: the State, nodes, shapes, and who is near whom.
type Scene<'a> = (&'a State, &'a NodeIndex, &'a Shapes, &'a Vicinity);

/// Nodes as they will be, and what is taken of them.
struct Seating<'a> {
    scene: Scene<'a>,
    futures: BTreeMap<Slot, Future>,
    taken: BTreeMap<Slot, Taking>,
    /// Only where others matter. Who ends by himself is gone from nodes with a seat.
    vicinity: Option<Vicinity>,
    cleared: BTreeSet<Slot>,
    /// Which ledgers matter to any of the pods.
    matters: Matters,
    tries: usize,
}

impl<'a> Seating<'a> {
    fn new<'s>(scene: Scene<'a>, shapes: impl Iterator<Item = &'s Shape>) -> Self {
        let (looks, matters) = Stage::needs(shapes);
        let matters = Matters { devices: true, ..matters };
        let vicinity = looks.then(|| scene.3.clone());
        let (futures, taken, cleared) = Default::default();
        Self { scene, futures, taken, vicinity, cleared, matters, tries: 0 }
    }

    /// Takes a seat for a pod of a shape, if it has one there.
    fn take(&mut self, pod: ObjectId, shape: &Shape, slot: Slot) -> bool {
        let (state, index, ..) = self.scene;
        let Some(entry) = index.get(slot) else { return false };
        self.tries += 1;
        if self.tries > TRIES_MAX || shape.check_alone(entry).is_err() {
            return false;
        }
        let node = entry.node.meta.id;
        let cleared = self.vicinity.as_ref().map(|vicinity| {
            let mut vicinity = vicinity.clone();
            if !self.cleared.contains(&slot) {
                let ending = state.pods_on(node).filter(|pod| !pod.status.phase.is_terminal());
                ending.filter(|pod| ends_by_itself(pod)).for_each(|pod| vicinity.release(pod, &entry.node));
            }
            vicinity
        });
        if cleared.as_ref().is_some_and(|vicinity| shape.check_others(entry, vicinity).is_err()) {
            return false;
        }
        let future =
            self.futures.entry(slot).or_insert_with(|| Future::of(state, entry, shape, self.matters));
        if !future.seat(pod, shape, entry, self.taken.entry(slot).or_default()) {
            return false;
        }
        if let Some((mut vicinity, pod)) = cleared.zip(state.pods().get(pod)) {
            vicinity.bind(pod, &entry.node);
            self.vicinity = Some(vicinity);
            self.cleared.insert(slot);
        }
        true
    }

    /// Whether all of these seats can be taken, in whichever order.
    fn take_all<'s>(&mut self, seats: impl Iterator<Item = &'s KeptSeat>) -> bool {
        let shapes = self.scene.2;
        let mut left: Vec<&KeptSeat> = seats.collect();
        loop {
            let before = left.len();
            left.retain(|seat| {
                shapes.get(seat.shape).is_none_or(|shape| !self.take(seat.pod, shape, seat.slot))
            });
            if left.is_empty() || left.len() == before || self.vicinity.is_none() {
                return left.is_empty();
            }
        }
    }
}

/// Seats for all of these pods; `None` when there are not enough. Where the first must be near others, every domain that they can
/// be in has its turn, the largest first: where the first of them goes decides about the rest.
fn find(scene: Scene<'_>, key: &PodGroupKey, pods: &[ObjectId]) -> Option<Vec<KeptSeat>> {
    let (state, index, shapes, _) = scene;
    let mut wanting = Vec::with_capacity(pods.len());
    for id in pods {
        let shape_key = shapes.key_of_waiting(*id)?;
        let shape = shapes.get(shape_key).filter(|shape| shape.may_be_placed())?;
        wanting.push((Reverse((shape.request.cpu_millis, shape.request.memory_bytes)), shape_key, *id));
    }
    wanting.sort_unstable();
    let wanting: Vec<(ShapeKey, ObjectId)> = wanting.into_iter().map(|(_, key, id)| (key, id)).collect();
    let turn = group_id(key);
    let mut order: Vec<_> =
        index.entries().map(|(slot, entry)| (fullness(entry), mix64(turn ^ u64::from(slot)), slot)).collect();
    order.sort_unstable();
    let order: Vec<Slot> = order.into_iter().map(|(.., slot)| slot).collect();
    let mut tries = 0;
    if let Some(seats) = seat_all(scene, &wanting, &order, &mut tries) {
        return Some(seats);
    }
    let first = wanting.first().and_then(|(_, id)| state.pods().get(*id))?;
    let affinity = first.spec.placement()?.pod_affinity.get()?;
    let topology_key = &affinity.required.first()?.topology_key;
    let mut room = BTreeMap::<&str, u64>::new();
    for (_, entry) in index.entries() {
        if let Some(domain) = entry.node.label(topology_key) {
            *room.entry(domain).or_default() += entry.allocatable.cpu_millis;
        }
    }
    let mut domains: Vec<_> = room.into_iter().map(|(domain, room)| (Reverse(room), domain)).collect();
    domains.sort_unstable();
    domains.into_iter().take(DOMAINS_MAX).find_map(|(_, domain)| {
        let is_there = |slot: &Slot| {
            index.get(*slot).is_some_and(|entry| entry.node.label(topology_key) == Some(domain))
        };
        let (there, elsewhere): (Vec<Slot>, Vec<Slot>) = order.iter().partition(|slot| is_there(slot));
        seat_all(scene, &wanting, &[there, elsewhere].concat(), &mut tries)
    })
}

/// Seats for all of these pods, on the first nodes that have one. Those for which others must be there first are tried again when
/// those are.
fn seat_all(
    scene: Scene<'_>,
    wanting: &[(ShapeKey, ObjectId)],
    order: &[Slot],
    tries: &mut usize,
) -> Option<Vec<KeptSeat>> {
    let shapes = scene.2;
    let of_pods = wanting.iter().filter_map(|(key, _)| shapes.get(*key));
    let mut seating = Seating { tries: *tries, ..Seating::new(scene, of_pods) };
    let looks = seating.vicinity.is_some();
    let (mut left, mut seats) = (wanting.to_vec(), Vec::with_capacity(wanting.len()));
    loop {
        let before = seats.len();
        // Pods of one shape go on where the one before found its seat, unless others matter.
        let (mut last, mut at) = (None, 0);
        left.retain(|(shape_key, pod)| {
            if last != Some(*shape_key) || looks {
                (last, at) = (Some(*shape_key), 0);
            }
            let Some(shape) = shapes.get(*shape_key) else { return true };
            while let Some(slot) = order.get(at).copied() {
                if seating.take(*pod, shape, slot) {
                    seats.push(KeptSeat { pod: *pod, shape: *shape_key, slot });
                    return false;
                }
                at += 1;
            }
            true
        });
        *tries = seating.tries;
        if left.is_empty() {
            return Some(seats);
        }
        if seats.len() == before || !looks {
            return None;
        }
    }
}

/// How full a node is, in parts of a million of what it has most of in use.
fn fullness(entry: &NodeEntry) -> u64 {
    let (used, has) = (entry.usage.requests, entry.allocatable);
    let part = |used: u64, has: u64| (u128::from(used) * 1_000_000).checked_div(has.into()).unwrap_or(0);
    let fullest = part(used.cpu_millis, has.cpu_millis).max(part(used.memory_bytes, has.memory_bytes));
    u64::try_from(fullest).unwrap_or(u64::MAX)
}
