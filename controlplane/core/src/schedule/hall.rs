//! Nodes as they will be for a group, beside what its pods have taken of them, once those that end there have gone.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_types::{ObjectId, Pod};

use super::held::HeldIndex;
use super::index::{Asker, NodeIndex, Slot};
use super::ledgers::{LedgerView, Ledgers, Matters};
use super::reserves::KeptSeat;
use super::shape::Shape;
use super::shapes::Shapes;
use crate::placement::Vicinity;
use crate::priority::Priorities;
use crate::{NodeUsage, State};

/// What a group is tried out on.
pub(crate) struct Stage<'a> {
    pub(crate) state: &'a State,
    pub(crate) index: &'a NodeIndex,
    pub(crate) shapes: &'a Shapes,
    pub(crate) vicinity: &'a Vicinity,
    pub(crate) priorities: &'a Priorities,
    pub(crate) held: &'a mut HeldIndex,
    /// The group, as who asks for room.
    pub(crate) asker: Asker,
    /// Whether any of its pods looks at other pods, and which ledgers matter to any.
    pub(crate) needs: (bool, Matters),
}

impl Stage<'_> {
    /// What any of these shapes asks for beside room.
    pub(crate) fn needs<'s>(shapes: impl Iterator<Item = &'s Shape>) -> (bool, Matters) {
        shapes.fold((false, Matters::default()), |(looks, matters), shape| {
            (looks || shape.looks_at_pods(), matters.or(shape.matters()))
        })
    }
}

/// A node of which somebody has taken something, or on which somebody ends.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    pub(crate) usage: NodeUsage,
    pub(crate) ledgers: Ledgers,
    /// How many claims the group's pods use there.
    pub(crate) claims: usize,
}

impl Opened {
    /// A node once all that end there already have gone, with those.
    pub(crate) fn fresh(stage: &mut Stage<'_>, slot: Slot) -> Option<(Self, Vec<ObjectId>)> {
        let entry = stage.index.get(slot)?;
        let mut ledgers = Ledgers::copy(entry.ledgers(), stage.needs.1);
        let usage = entry.usage_for(&stage.asker);
        let held = stage.held.get(stage.state, stage.priorities, entry.node.meta.id);
        let requests = usage.requests.checked_minus(held.ending_room.requests)?;
        let usage = NodeUsage { requests, pods: usage.pods.saturating_sub(held.ending_room.pods) };
        let ending = held.ending.clone();
        if !ledgers.is_empty() {
            let pods = ending.iter().filter_map(|id| stage.state.pods().get(*id));
            pods.for_each(|pod| ledgers.count(pod, false));
        }
        Some((Self { usage, ledgers, claims: 0 }, ending))
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Hall {
    pub(crate) opened: BTreeMap<Slot, Opened>,
    /// Only where others matter to the group.
    pub(crate) vicinity: Option<Vicinity>,
    /// Who ends for the group.
    pub(crate) gone: BTreeSet<ObjectId>,
    /// Claims of its pods: where those are is known when they are bound.
    claims: BTreeSet<ObjectId>,
}

impl Hall {
    pub(crate) fn new(stage: &Stage<'_>) -> Self {
        let vicinity = stage.needs.0.then(|| stage.vicinity.clone());
        Self { opened: BTreeMap::new(), vicinity, gone: BTreeSet::new(), claims: BTreeSet::new() }
    }

    fn open(&mut self, stage: &mut Stage<'_>, slot: Slot) -> Option<&mut Opened> {
        if !self.opened.contains_key(&slot) {
            let (fresh, ending) = Opened::fresh(stage, slot)?;
            if let Some((vicinity, entry)) = self.vicinity.as_mut().zip(stage.index.get(slot)) {
                let pods = ending.iter().filter_map(|id| stage.state.pods().get(*id));
                pods.for_each(|pod| vicinity.release(pod, &entry.node));
            }
            self.opened.insert(slot, fresh);
        }
        self.opened.get_mut(&slot)
    }

    /// Somebody ends for the group.
    pub(crate) fn leave(&mut self, stage: &mut Stage<'_>, pod: &Pod) {
        self.gone.insert(pod.meta.id);
        let Some(slot) = pod.node.and_then(|node| stage.index.slot_of(node)) else { return };
        let Some(opened) = self.open(stage, slot) else { return };
        opened.usage = opened.usage.without(pod.spec.scheduling_request());
        opened.ledgers.count(pod, false);
        if let Some((vicinity, entry)) = self.vicinity.as_mut().zip(stage.index.get(slot)) {
            vicinity.release(pod, &entry.node);
        }
    }

    /// Whether claims let a pod of a shape be with the others.
    pub(crate) fn has_claims(&self, shape: &Shape) -> bool {
        shape.place.as_ref().is_ok_and(|place| !place.claims.iter().any(|claim| self.claims.contains(claim)))
    }

    /// Takes a seat for a pod of a shape; returns whether it has one there.
    pub(crate) fn seat(&mut self, stage: &mut Stage<'_>, shape: &Shape, pod: ObjectId, slot: Slot) -> bool {
        let Some(entry) = stage.index.get(slot) else { return false };
        let is_no_place = shape.check_alone(entry).is_err() || entry.is_reserved(&stage.asker);
        if is_no_place || !self.has_claims(shape) || self.open(stage, slot).is_none() {
            return false;
        }
        let Self { opened, vicinity, claims, .. } = self;
        let Some(opened) = opened.get_mut(&slot) else { return false };
        if !entry.has_room_beside(shape.request, opened.usage)
            || shape.check_claims(entry, opened.claims).is_err()
            || vicinity.as_ref().is_some_and(|vicinity| shape.check_others(entry, vicinity).is_err())
            || shape.check_ledgers(entry, None, opened.ledgers.view()).is_err()
        {
            return false;
        }
        let Some(chosen) = shape.choose_hardware(opened.ledgers.view()) else { return false };
        opened.ledgers.take(LedgerView::default(), (pod, &shape.ports), &chosen);
        opened.usage = opened.usage.with(shape.request);
        opened.claims += shape.claims_len();
        claims.extend(shape.place.iter().flat_map(|place| place.claims.iter().copied()));
        if let Some((vicinity, pod)) = vicinity.as_mut().zip(stage.state.pods().get(pod)) {
            vicinity.bind(pod, &entry.node);
        }
        true
    }

    /// Whether all of these seats are there, in whichever order they are taken.
    pub(crate) fn seats_all(&mut self, stage: &mut Stage<'_>, seats: &[KeptSeat]) -> bool {
        let shapes = stage.shapes;
        let mut left: Vec<&KeptSeat> = seats.iter().collect();
        loop {
            let before = left.len();
            left.retain(|seat| {
                shapes.get(seat.shape).is_none_or(|shape| !self.seat(stage, shape, seat.pod, seat.slot))
            });
            if left.is_empty() || left.len() == before {
                return left.is_empty();
            }
        }
    }
}
