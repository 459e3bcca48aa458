//! Groups of pods that are placed together or not at all: nothing is held while a group waits. A group is tried out beside
//! what is there, and only when all that it needs have a node is anything reserved.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bulkhead_types::{ObjectId, POD_GROUP_PODS_MAX, PodGroupKey, Resources};

use super::fairness::Fairness;
use super::index::{NodeIndex, Slot};
use super::reserves::{KeptSeat, required};
use super::shape::{Choice, Shape, Taking};
use super::shapes::{ShapeKey, Shapes};
use crate::State;
use crate::cpus::Chosen;
use crate::elastic_quota::Ask;
use crate::placement::Vicinity;
use crate::pod_group::Standing;
use crate::queue;
use crate::state::{Charge, QuotaUse};

/// Groups that a run tries out, at most.
const TRIALS_PER_RUN: usize = 64;

/// What a trial was made of.
#[derive(Clone, Debug, PartialEq)]
struct Basis {
    /// The end of the index' log.
    position: u64,
    /// Pods that wait, those of them that may be tried, and the youngest.
    waiting: (usize, usize, Option<ObjectId>),
    /// How many must be placed together, and whether their priorities allow it.
    standing: (u32, bool),
    /// The revisions of its PodGroup and queue, what that queue uses, and whether the group is put off.
    named: (u64, u64, Option<Arc<QuotaUse>>, bool),
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct PodGroups {
    /// Groups that wait for more than their first look: why, and what that was found by.
    waiting: BTreeMap<PodGroupKey, (Basis, Wait)>,
    /// When a group that is put off may be tried again, milliseconds since the epoch: the earliest.
    again_at_ms: Option<u64>,
    /// Trials of this run.
    trials: usize,
    /// Groups that have been looked at in this run.
    seen: BTreeSet<PodGroupKey>,
    /// How many pods of groups hold room, with those that this run has placed.
    holding: BTreeMap<PodGroupKey, u32>,
}

/// Why a group waits.
#[derive(Clone, Debug)]
struct Wait {
    message: String,
    needs_room: bool,
}

/// A pod of a group with its node.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    pub(crate) pod: ObjectId,
    pub(crate) shape: ShapeKey,
    pub(crate) choice: Choice,
    pub(crate) chosen: Chosen,
}

/// What became of a group in this run.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// All that it needs have a node.
    Seated(Vec<Seat>),
    /// It waits.
    Waits {
        /// Whether its pods are others than those that were told why.
        is_news: bool,
        /// Whether it waits for nothing but room.
        needs_room: bool,
        /// Whether it waits for something else than before.
        is_other: bool,
    },
    /// It is looked at in another run.
    Later,
}

impl PodGroups {
    /// A run begins.
    pub(crate) fn begin(&mut self) {
        self.trials = 0;
        self.again_at_ms = None;
        self.waiting.retain(|key, _| self.seen.contains(key));
        self.seen.clear();
    }

    /// What groups name changed: all are to be looked at anew.
    pub(crate) fn forget(&mut self) {
        self.waiting.clear();
    }

    /// How many pods of groups that wait hold room.
    pub(crate) fn count(&mut self, holding: impl Iterator<Item = (PodGroupKey, u32)>) {
        self.holding = holding.collect();
    }

    /// One more of a group gets room in this run.
    pub(crate) fn took(&mut self, key: &PodGroupKey) {
        self.holding.get_mut(key).into_iter().for_each(|holding| *holding += 1);
    }

    /// Whether a group holds as many as it may.
    pub(crate) fn is_full(&self, key: &PodGroupKey) -> bool {
        self.holding.get(key).is_some_and(|holding| *holding >= POD_GROUP_PODS_MAX)
    }

    /// Whether a group is looked at for the first time in this run.
    pub(crate) fn is_first_look(&mut self, key: &PodGroupKey) -> bool {
        self.seen.insert(key.clone())
    }

    /// Why a group waits.
    pub(crate) fn message(&self, key: &PodGroupKey) -> Option<&str> {
        self.waiting.get(key).map(|(_, wait)| wait.message.as_str())
    }

    /// When a group that is put off may be tried again, milliseconds since the epoch.
    pub(crate) fn again_at_ms(&self) -> Option<u64> {
        self.again_at_ms
    }

    /// Looks for nodes for a group.
    pub(crate) fn place(&mut self, key: &PodGroupKey, standing: &Standing, scene: &mut Trial<'_>) -> Verdict {
        let may_be_tried = |id: &&ObjectId| scene.shapes.key_of_waiting(**id).is_some();
        let tried = standing.waiting.iter().filter(may_be_tried).count();
        let basis = Basis {
            position: scene.index.log_end(),
            waiting: (standing.waiting.len(), tried, standing.waiting.last().copied()),
            standing: (standing.least, standing.is_even),
            named: self.named(key, standing, scene),
        };
        let former = self.waiting.get(key);
        if let Some((_, wait)) = former.filter(|(former, _)| *former == basis) {
            return Verdict::Waits { is_news: false, needs_room: wait.needs_room, is_other: false };
        }
        let is_news = former.is_none_or(|(former, _)| {
            (former.waiting, former.standing, former.named.3)
                != (basis.waiting, basis.standing, basis.named.3)
        });
        let (message, needs_room) = if let Some(reason) = standing.hold(scene.state, key) {
            (reason, false)
        } else if basis.named.3 {
            (format!("pod group {}: waited for longer than its time-out, and is put off", key.name), false)
        } else if let Err(reason) = standing.check_least(scene.state, key, &scene.fairness.ledger) {
            (format!("pod group {}: {reason}", key.name), false)
        } else if let Err(reason) = standing.check_free(scene.state, key, &[]) {
            (format!("pod group {}: {reason}", key.name), true)
        } else if self.trials >= TRIALS_PER_RUN {
            return Verdict::Later;
        } else {
            self.trials += 1;
            match scene.seat_all(key, standing) {
                Ok(mut seats) => {
                    self.waiting.remove(key);
                    // A group that would have more than it may gets what it must have.
                    let held = self.holding.get(key).copied().unwrap_or(0);
                    if seats.len() > POD_GROUP_PODS_MAX.saturating_sub(held) as usize {
                        let must: BTreeSet<_> = required(scene.state, standing).into_iter().collect();
                        seats.retain(|seat| must.contains(&seat.pod));
                    }
                    return Verdict::Seated(seats);
                }
                Err(why) => why,
            }
        };
        let is_other =
            former.is_some_and(|(_, wait)| !(needs_room && wait.needs_room) && wait.message != message);
        self.waiting.insert(key.clone(), (basis, Wait { message, needs_room }));
        Verdict::Waits { is_news, needs_room, is_other }
    }

    /// What of a group's PodGroup and queue an answer relies on.
    fn named(
        &mut self,
        key: &PodGroupKey,
        standing: &Standing,
        scene: &Trial<'_>,
    ) -> (u64, u64, Option<Arc<QuotaUse>>, bool) {
        let Some(group) = &standing.object else { return Default::default() };
        let queue = queue::of(scene.state, Some(key), None);
        let revision = |queue| queue::find(scene.state, queue).map_or(0, |queue| queue.meta.generation + 1);
        let used = queue.as_ref().and_then(|queue| scene.state.queue_use.of_queue(queue).cloned());
        let until_ms = group.status.backoff_until_ms;
        let is_put_off = until_ms > scene.now_ms;
        if is_put_off {
            self.again_at_ms = self.again_at_ms.into_iter().chain([until_ms]).min();
        }
        (group.meta.generation, queue.as_ref().map_or(0, revision), used, is_put_off)
    }
}

/// What a group is tried out on.
pub(crate) struct Trial<'a> {
    pub(crate) state: &'a State,
    pub(crate) index: &'a NodeIndex,
    pub(crate) shapes: &'a mut Shapes,
    /// Who is near whom, with what this run has decided.
    pub(crate) vicinity: &'a Vicinity,
    /// Claims of pods that were placed in this run.
    pub(crate) claims: &'a BTreeSet<ObjectId>,
    /// What queues have room for.
    pub(crate) fairness: &'a Fairness,
    /// The seats that are kept for the group.
    pub(crate) kept: Option<&'a [KeptSeat]>,
    /// Milliseconds since the epoch.
    pub(crate) now_ms: u64,
}

impl Trial<'_> {
    /// Nodes for all that must be placed together, and for more of the group as far as there is room.
    ///
    /// # Errors
    /// Why there are not enough, and whether it is room that is missing.
    fn seat_all(&mut self, key: &PodGroupKey, standing: &Standing) -> Result<Vec<Seat>, (String, bool)> {
        let must = required(self.state, standing);
        let seats = self.seat(&standing.waiting, &must.iter().copied().collect());
        let task = |seat: &Seat| self.state.pods().get(seat.pod).map_or("", |pod| pod.task());
        let mut found = seats.len();
        let enough = match standing.check_together(seats.iter().map(task)) {
            Ok(()) => Some(seats),
            Err(_) => self.seat_kept(&must),
        };
        if let Some(seats) = enough {
            let (seats, reason) = self.within_queues(seats);
            let task = |seat: &Seat| self.state.pods().get(seat.pod).map_or("", |pod| pod.task());
            match (standing.check_together(seats.iter().map(task)), reason) {
                (Ok(()), _) => return Ok(seats),
                (Err(_), Some(reason)) => return Err((format!("pod group {}: {reason}", key.name), false)),
                (Err(_), None) => found = seats.len(),
            }
        }
        let message = format!(
            "pod group {}: 0/{} nodes are available: there is room for {found} of {} pods that are placed together",
            key.name,
            self.index.len(),
            standing.missing()
        );
        Err((message, true))
    }

    /// Those of the seats for which the pods' queues and the elastic quota tree have room, and why others have none.
    fn within_queues(&self, seats: Vec<Seat>) -> (Vec<Seat>, Option<String>) {
        let (mut ledger, mut refusal) = (self.fairness.ledger.clone(), None);
        let mut elastic = self.fairness.elastic.clone();
        let mut within = Vec::with_capacity(seats.len());
        for seat in seats {
            let Some(pod) = self.state.pods().get(seat.pod) else { continue };
            let ask = Ask::of(self.state, pod);
            if let Some(Err(reason)) = ask.as_ref().map(|ask| elastic.check(self.state, ask)) {
                refusal = Some(reason);
                continue;
            }
            if let Some(name) = queue::of_pod(self.state, pod) {
                let charge = Charge::of_pod(pod, &self.state.devices.classes);
                if let Err(reason) = ledger.check(self.state, &name, &charge) {
                    refusal = Some(reason);
                    continue;
                }
                ledger.take(&name, &charge);
            }
            ask.iter().for_each(|ask| elastic.take(ask));
            within.push(seat);
        }
        (within, refusal)
    }

    /// The seats that are kept for these pods, once all of them are free. Those for which others must be there first are tried
    /// again when those are.
    fn seat_kept(&mut self, must: &[ObjectId]) -> Option<Vec<Seat>> {
        let kept = self.kept.filter(|kept| kept.len() == must.len())?;
        let wanted: BTreeSet<ObjectId> = must.iter().copied().collect();
        let mut taken = BTreeMap::<Slot, Taking>::new();
        let (mut claims, mut vicinity) = (self.claims.clone(), self.vicinity.clone());
        let mut seats = Vec::with_capacity(kept.len());
        let mut left: Vec<&KeptSeat> = kept.iter().filter(|seat| wanted.contains(&seat.pod)).collect();
        loop {
            let before = seats.len();
            left.retain(|seat| {
                let found = self.take_kept(seat, (&mut taken, &mut claims, &mut vicinity));
                let is_left = found.is_none();
                seats.extend(found);
                is_left
            });
            if left.is_empty() || seats.len() == before || !self.vicinity.is_kept() {
                return (seats.len() == must.len()).then_some(seats);
            }
        }
    }

    fn take_kept(
        &self,
        seat: &KeptSeat,
        (taken, claims, vicinity): (&mut BTreeMap<Slot, Taking>, &mut BTreeSet<ObjectId>, &mut Vicinity),
    ) -> Option<Seat> {
        let shape = self.shapes.get(seat.shape).filter(|shape| shape.waiting.contains(&seat.pod))?;
        let own = shape.place.as_ref().ok()?.claims.clone();
        let entry = self.index.get(seat.slot)?;
        let taking = taken.entry(seat.slot).or_default();
        let usage = entry.usage_for(&shape.asker(None)).plus(taking.usage);
        if own.iter().any(|claim| claims.contains(claim))
            || shape.check_alone(entry).is_err()
            || shape.check_claims(entry, taking.claims).is_err()
            || !entry.has_room_beside(shape.request, usage)
            || shape.check_others(entry, vicinity).is_err()
        {
            return None;
        }
        let ledgers = taking.ledgers.over(entry.ledgers());
        shape.check_ledgers(entry, None, ledgers).ok()?;
        let chosen = shape.choose_hardware(ledgers)?;
        taking.ledgers.take(entry.ledgers(), (seat.pod, &shape.ports), &chosen);
        taking.usage = taking.usage.with(shape.request);
        taking.claims += own.len();
        claims.extend(own);
        if let Some(pod) = self.state.pods().get(seat.pod) {
            vicinity.bind(pod, &entry.node);
        }
        let choice = Choice { slot: seat.slot, score: 0, nodes: 1 };
        Some(Seat { pod: seat.pod, shape: seat.shape, choice, chosen })
    }

    /// Nodes for as many of the pods as there is room for: first those that must have one, the largest of them first. Those for
    /// which others must be there first are tried again when those are.
    fn seat(&mut self, pods: &[ObjectId], must: &BTreeSet<ObjectId>) -> Vec<Seat> {
        let size = |id: &ObjectId| {
            let request = self.state.pods().get(*id).map(|pod| pod.spec.scheduling_request());
            request.map(|request| (Reverse(request.cpu_millis), Reverse(request.memory_bytes)))
        };
        let mut left: Vec<_> = pods.to_vec();
        left.sort_by_key(|id| (!must.contains(id), size(id), *id));
        let (mut taken, mut vicinity) = (BTreeMap::<Slot, Taking>::new(), self.vicinity.clone());
        let mut claims = self.claims.clone();
        let mut seats: Vec<Seat> = Vec::new();
        loop {
            let before = seats.len();
            left.retain(|id| match self.seat_one(*id, &taken, &vicinity, &mut claims) {
                Some((seat, request)) => {
                    let entry = self.index.get(seat.choice.slot).expect("a candidate slot holds a node");
                    let taking = taken.entry(seat.choice.slot).or_default();
                    taking.usage = taking.usage.with(request);
                    taking.claims += self.shapes.get(seat.shape).map_or(0, Shape::claims_len);
                    let ports = self.shapes.get(seat.shape).map_or(&[][..], |shape| &shape.ports);
                    taking.ledgers.take(entry.ledgers(), (*id, ports), &seat.chosen);
                    if let Some(pod) = self.state.pods().get(*id) {
                        vicinity.bind(pod, &entry.node);
                    }
                    seats.push(seat);
                    false
                }
                None => true,
            });
            // Only what other pods say can be another answer next time.
            if seats.len() == before || left.is_empty() || !self.vicinity.is_kept() {
                return seats;
            }
        }
    }

    fn seat_one(
        &mut self,
        pod: ObjectId,
        taken: &BTreeMap<Slot, Taking>,
        vicinity: &Vicinity,
        claims: &mut BTreeSet<ObjectId>,
    ) -> Option<(Seat, Resources)> {
        let key = self.shapes.key_of_waiting(pod)?;
        let shape: &mut Shape = self.shapes.get_mut(key)?;
        let own = shape.place.as_ref().ok()?.claims.clone();
        if !shape.may_be_placed() || own.iter().any(|claim| claims.contains(claim)) {
            return None;
        }
        shape.catch_up(self.index, self.state, self.vicinity);
        let choice = shape.choose_beside(pod, self.index, taken, vicinity)?;
        let present = self.index.ledgers(choice.slot);
        let ledgers = taken.get(&choice.slot).map_or(present, |taking| taking.ledgers.over(present));
        let chosen = shape.choose_hardware(ledgers)?;
        claims.extend(own);
        Some((Seat { pod, shape: key, choice, chosen }, shape.request))
    }
}
