//! Nodes for all pods of a group that waits and fits nowhere, and who ends for them: as few and as low as possible over all of
//! them.
//!
//! ```text
//!  pods, the largest first ─► the node where the least ends for it, beside what was taken and who has gone already
//!     └─► all have a seat ─► who need not end stays, the most important first: with the seats as they are, or with others
//! ```
//!
//! Seats that are free cost nothing and are taken first. A group that ends whole makes room on all of its nodes: their prices are
//! found anew. What this costs is bounded by [`PRICES_MAX`] and [`TRIES_MAX`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use bulkhead_types::ObjectId;

use super::hall::{Hall, Opened, Stage};
use super::held::HeldPod;
use super::index::Slot;
use super::reserves::KeptSeat;
use super::shape::{Shape, mix64};
use super::shapes::ShapeKey;
use super::victims::{Cost, Obstacle, Site, Victims, select_below};
use crate::disruption::{Allowance, victims_max};
use crate::pod_group::{self, key_of};
use crate::{NodeUsage, priority};

/// Prices of nodes that a search finds, at most.
const PRICES_MAX: usize = 1 << 16;
/// Seats that are tried to find others without somebody, at most.
const TRIES_MAX: usize = 1 << 20;
/// Pods or groups of them for which other seats are tried, at most: the most important ones.
const REARRANGED_MAX: usize = 64;
/// How often it is asked who need not end, at most.
const ROUNDS_MAX: usize = 8;

/// The nodes of a shape by what a seat there costs. What it says of nodes may be outdated: each is asked again when it is taken.
#[derive(Debug, Default)]
struct Prices {
    by_cost: BTreeSet<(Cost, u64, Slot)>,
    of_slot: BTreeMap<Slot, Cost>,
    /// How many seats were taken when it was made.
    made_at: usize,
}

impl Prices {
    fn set(&mut self, slot: Slot, cost: Option<Cost>) {
        let key = |cost: Cost| (cost, mix64(slot.into()), slot);
        if let Some(former) = self.of_slot.remove(&slot) {
            self.by_cost.remove(&key(former));
        }
        if let Some(cost) = cost {
            self.of_slot.insert(slot, cost);
            self.by_cost.insert(key(cost));
        }
    }
}

/// See the module.
pub(crate) struct GroupSearch<'s, 'a> {
    stage: &'s mut Stage<'a>,
    hall: Hall,
    /// What budgets allow beside those that end.
    allowance: Allowance,
    prices: BTreeMap<ShapeKey, Prices>,
    /// In an order in which each fits beside those before.
    seats: Vec<KeptSeat>,
    victims: BTreeSet<ObjectId>,
    /// Both by slot, while it is asked who need not end.
    victims_at: BTreeMap<Slot, Vec<ObjectId>>,
    seats_at: BTreeMap<Slot, Vec<usize>>,
    /// The pods, the largest first.
    pods: Vec<(ObjectId, ShapeKey)>,
    priced: usize,
    tried: usize,
    /// Whether a budget kept somebody.
    is_kept_by_budget: bool,
}

impl<'s, 'a> GroupSearch<'s, 'a> {
    /// `allowance` is what budgets allow after what this run has chosen.
    pub(crate) fn new(
        stage: &'s mut Stage<'a>,
        mut pods: Vec<(ObjectId, ShapeKey)>,
        allowance: Allowance,
    ) -> Self {
        let hall = Hall::new(stage);
        let shapes = stage.shapes;
        let size = |key: ShapeKey| {
            let request = shapes.get(key).map(|shape| shape.request);
            request.map(|request| (Reverse(request.cpu_millis), Reverse(request.memory_bytes)))
        };
        pods.sort_by_key(|(pod, key)| (size(*key), *pod));
        let (prices, seats, victims, victims_at, seats_at) = Default::default();
        let (priced, tried, is_kept_by_budget) = (0, 0, false);
        Self {
            stage,
            hall,
            allowance,
            prices,
            seats,
            victims,
            victims_at,
            seats_at,
            pods,
            priced,
            tried,
            is_kept_by_budget,
        }
    }

    /// Finds the seats, in an order in which each fits beside those before, and who ends for them.
    ///
    /// # Errors
    /// Why there are none.
    pub(crate) fn run(mut self) -> Result<(Vec<KeptSeat>, Vec<ObjectId>), Obstacle> {
        let mut left = self.pods.clone();
        loop {
            let (before, mut still) = (self.seats.len(), Vec::new());
            for (pod, key) in left {
                if !self.place(pod, key)? {
                    still.push((pod, key));
                }
            }
            left = still;
            if left.is_empty() {
                break;
            }
            // Only what other pods say can be another answer next time.
            if self.seats.len() == before || !self.stage.needs.0 {
                return Err(if self.is_kept_by_budget { Obstacle::Budget } else { Obstacle::NoVictims });
            }
        }
        self.spare();
        let state = self.stage.state;
        if self.victims.len() > victims_max(state) {
            return Err(Obstacle::TooMany);
        }
        let victims = self.victims.clone();
        if !self.fits(&victims, None) || !self.are_of_use() {
            return Err(Obstacle::NoVictims);
        }
        Ok((self.seats, victims.into_iter().collect()))
    }

    /// A seat for one pod, where the least ends for it.
    fn place(&mut self, pod: ObjectId, key: ShapeKey) -> Result<bool, Obstacle> {
        let shapes = self.stage.shapes;
        let Some(shape) = shapes.get(key) else { return Ok(false) };
        let known = self.prices.get(&key);
        if known.is_none_or(|known| known.by_cost.is_empty() && known.made_at < self.seats.len()) {
            let mut prices = Prices { made_at: self.seats.len(), ..Prices::default() };
            for slot in 0..self.stage.index.slots_len() as Slot {
                prices.set(slot, self.price(shape, slot)?.map(|victims| victims.cost));
            }
            self.prices.insert(key, prices);
        }
        loop {
            let prices = self.prices.get(&key).expect("prices that were just made");
            let Some((cost, _, slot)) = prices.by_cost.first().copied() else { return Ok(false) };
            let found = self.price(shape, slot)?;
            match found {
                Some(victims) if victims.cost <= cost => {
                    self.take(shape, (pod, key), slot, victims)?;
                    return Ok(true);
                }
                found => {
                    let prices = self.prices.get_mut(&key).expect("prices that were just made");
                    prices.set(slot, found.map(|victims| victims.cost));
                }
            }
        }
    }

    /// Who would end for a pod of a shape in a slot.
    fn price(&mut self, shape: &Shape, slot: Slot) -> Result<Option<Victims>, Obstacle> {
        let Self { stage, hall, allowance, .. } = self;
        let Some(entry) = stage.index.get(slot) else { return Ok(None) };
        if shape.check_alone(entry).is_err() || entry.is_reserved(&stage.asker) || !hall.has_claims(shape) {
            return Ok(None);
        }
        self.priced += 1;
        if self.priced > PRICES_MAX {
            return Err(Obstacle::TooLarge);
        }
        let opened = hall.opened.get(&slot).cloned().map(|opened| (opened, Vec::new()));
        let Some((opened, ending)) = opened.or_else(|| Opened::fresh(stage, slot)) else { return Ok(None) };
        if shape.check_claims(entry, opened.claims).is_err() {
            return Ok(None);
        }
        let held = stage.held.get(stage.state, stage.priorities, entry.node.meta.id);
        let stays = |pod: &&HeldPod| !hall.gone.contains(&pod.id);
        let below: Vec<HeldPod> = held.below(shape.priority).iter().filter(stays).copied().collect();
        let all = below.iter().fold(NodeUsage::default(), |sum, pod| sum.with(pod.request));
        let least = opened.usage.requests.checked_minus(all.requests);
        let least =
            least.map(|requests| NodeUsage { requests, pods: opened.usage.pods.saturating_sub(all.pods) });
        if !least.is_some_and(|least| entry.has_room_beside(shape.request, least)) {
            return Ok(None);
        }
        let vicinity = hall.vicinity.as_ref().filter(|_| shape.looks_at_pods()).map(|vicinity| {
            let mut vicinity = vicinity.clone();
            let pods = ending.iter().filter_map(|id| stage.state.pods().get(*id));
            pods.for_each(|pod| vicinity.release(pod, &entry.node));
            vicinity
        });
        let site = Site::beside(stage.state, shape, entry, (opened.usage, opened.ledgers), vicinity);
        match select_below(site, &below, &hall.gone, allowance) {
            Ok(victims) => Ok(Some(victims)),
            Err(obstacle) => {
                self.is_kept_by_budget |= obstacle == Obstacle::Budget;
                Ok(None)
            }
        }
    }

    /// A pod gets a seat, and those in its way end.
    fn take(
        &mut self,
        shape: &Shape,
        (pod, key): (ObjectId, ShapeKey),
        slot: Slot,
        victims: Victims,
    ) -> Result<(), Obstacle> {
        let (state, mut changed) = (self.stage.state, BTreeSet::from([slot]));
        for victim in victims.pods.iter().filter_map(|id| state.pods().get(*id)) {
            if self.allowance.take(state, victim).is_err() {
                return Err(Obstacle::Budget);
            }
            changed.extend(victim.node.and_then(|node| self.stage.index.slot_of(node)));
            self.hall.leave(self.stage, victim);
            self.victims.insert(victim.meta.id);
        }
        if !self.hall.seat(self.stage, shape, pod, slot) {
            return Err(Obstacle::NoVictims);
        }
        self.seats.push(KeptSeat { pod, shape: key, slot });
        let shapes = self.stage.shapes;
        for key in self.prices.keys().copied().collect::<Vec<_>>() {
            let Some(shape) = shapes.get(key) else { continue };
            for slot in &changed {
                let cost = self.price(shape, *slot)?.map(|victims| victims.cost);
                self.prices.get_mut(&key).into_iter().for_each(|prices| prices.set(*slot, cost));
            }
        }
        Ok(())
    }

    /// Those that need not end stay, the most important first.
    fn spare(&mut self) {
        let mut rearranged = 0;
        self.lay_out();
        for _ in 0..ROUNDS_MAX {
            let mut is_stable = true;
            for unit in self.units() {
                let fewer: BTreeSet<ObjectId> = self.victims.difference(&unit).copied().collect();
                let nodes = unit.iter().filter_map(|id| self.stage.state.pods().get(*id)?.node);
                let slots = nodes.filter_map(|node| self.stage.index.slot_of(node)).collect();
                if self.fits(&fewer, Some(&slots)) {
                    (self.victims, is_stable) = (fewer, false);
                    continue;
                }
                if rearranged < REARRANGED_MAX {
                    rearranged += 1;
                    if let Some(seats) = self.rearrange(&fewer) {
                        (self.seats, self.victims, is_stable) = (seats, fewer, false);
                        self.lay_out();
                    }
                }
            }
            if is_stable {
                return;
            }
        }
    }

    /// Victims that stay together or not at all, the most important first: groups that end whole, and others.
    fn units(&self) -> Vec<BTreeSet<ObjectId>> {
        let state = self.stage.state;
        let mut units = pod_group::units(state, &self.victims);
        units.sort_by_cached_key(|unit| {
            let pods = || unit.iter().filter_map(|id| state.pods().get(*id));
            let highest = pods().filter_map(|pod| Some(priority::of(state, &pod.spec)?.value)).max();
            (Reverse(highest), pods().map(|pod| pod.status.bound_at_ms).min(), unit.first().copied())
        });
        units
    }

    fn lay_out(&mut self) {
        (self.victims_at, self.seats_at) = Default::default();
        for id in &self.victims {
            let node = self.stage.state.pods().get(*id).and_then(|pod| pod.node);
            if let Some(slot) = node.and_then(|node| self.stage.index.slot_of(node)) {
                self.victims_at.entry(slot).or_default().push(*id);
            }
        }
        for (at, seat) in self.seats.iter().enumerate() {
            self.seats_at.entry(seat.slot).or_default().push(at);
        }
    }

    /// Whether the seats are there, each beside those before, when only these of the victims end. Where no other pods matter it is
    /// enough to ask certain slots.
    fn fits(&mut self, victims: &BTreeSet<ObjectId>, slots: Option<&BTreeSet<Slot>>) -> bool {
        let everywhere = || self.victims_at.keys().chain(self.seats_at.keys()).copied().collect();
        let slots: BTreeSet<Slot> = match slots.filter(|_| !self.stage.needs.0) {
            Some(slots) => slots.clone(),
            None => everywhere(),
        };
        let (state, shapes) = (self.stage.state, self.stage.shapes);
        let mut hall = Hall::new(self.stage);
        let ends = slots.iter().filter_map(|slot| self.victims_at.get(slot)).flatten();
        for victim in ends.filter(|id| victims.contains(id)).filter_map(|id| state.pods().get(*id)) {
            hall.leave(self.stage, victim);
        }
        let seats: BTreeSet<usize> =
            slots.iter().filter_map(|slot| self.seats_at.get(slot)).flatten().copied().collect();
        seats.into_iter().map(|at| &self.seats[at]).all(|seat| {
            shapes.get(seat.shape).is_some_and(|shape| hall.seat(self.stage, shape, seat.pod, seat.slot))
        })
    }

    /// Other seats for all of the pods when only these end, on the nodes that were found.
    fn rearrange(&mut self, victims: &BTreeSet<ObjectId>) -> Option<Vec<KeptSeat>> {
        let (state, shapes) = (self.stage.state, self.stage.shapes);
        let mut hall = Hall::new(self.stage);
        let mut slots: Vec<Slot> = self.seats.iter().map(|seat| seat.slot).collect();
        for victim in victims.iter().filter_map(|id| state.pods().get(*id)) {
            slots.extend(victim.node.and_then(|node| self.stage.index.slot_of(node)));
            hall.leave(self.stage, victim);
        }
        let mut seen = BTreeSet::new();
        slots.retain(|slot| seen.insert(*slot));
        let (mut seats, mut left) = (Vec::with_capacity(self.pods.len()), self.pods.clone());
        loop {
            let (before, mut still, mut from) = (seats.len(), Vec::new(), (None, 0));
            for (pod, key) in left {
                let shape = shapes.get(key)?;
                // Pods of one shape go on where the one before found its seat, unless others matter.
                if from.0 != Some(key) || self.stage.needs.0 {
                    from = (Some(key), 0);
                }
                let found = (from.1..slots.len()).find(|at| {
                    self.tried += 1;
                    self.tried <= TRIES_MAX && hall.seat(self.stage, shape, pod, slots[*at])
                });
                from.1 = found.unwrap_or(slots.len());
                match found {
                    Some(at) => seats.push(KeptSeat { pod, shape: key, slot: slots[at] }),
                    None => still.push((pod, key)),
                }
            }
            left = still;
            if left.is_empty() {
                return Some(seats);
            }
            if seats.len() == before || !self.stage.needs.0 {
                return None;
            }
        }
    }

    /// Whether all who end do so on a node of a seat, or with others of their group that do.
    fn are_of_use(&self) -> bool {
        let state = self.stage.state;
        let nodes: BTreeSet<Slot> = self.seats.iter().map(|seat| seat.slot).collect();
        let pods = || self.victims.iter().filter_map(|id| state.pods().get(*id));
        let is_there =
            |node: ObjectId| self.stage.index.slot_of(node).is_some_and(|slot| nodes.contains(&slot));
        let (there, elsewhere): (Vec<_>, Vec<_>) = pods().partition(|pod| pod.node.is_some_and(is_there));
        let keys: BTreeSet<_> = there.iter().filter_map(|pod| key_of(state, pod)).collect();
        let holds = |key: &_| pod_group::holders(state, key).all(|pod| self.victims.contains(&pod.meta.id));
        elsewhere.iter().all(|pod| key_of(state, pod).is_some_and(|key| keys.contains(&key) && holds(&key)))
    }
}
