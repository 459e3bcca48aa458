//! The nodes on which pods of one shape would make others end, by how bad that is; repaired from the index' log.

use std::collections::BTreeSet;

use bulkhead_types::{ObjectId, QUEUES_LEVEL};

use super::held::HeldIndex;
use super::index::{NodeIndex, Slot};
use super::reclaim::Reclaim;
use super::shape::{Shape, mix64};
use super::victims::{Cost, Obstacle, Victims, select};
use crate::State;
use crate::disruption::Allowance;
use crate::placement::Vicinity;
use crate::priority::Priorities;

/// What a search looks at.
pub(crate) struct Scene<'a> {
    pub(crate) state: &'a State,
    pub(crate) index: &'a NodeIndex,
    pub(crate) vicinity: &'a Vicinity,
    pub(crate) priorities: &'a Priorities,
    pub(crate) held: &'a mut HeldIndex,
    /// What budgets allow after what this run has chosen.
    pub(crate) allowance: &'a Allowance,
    /// Of a pod in the elastic quota tree.
    pub(crate) reclaim: Option<&'a Reclaim>,
    /// Which run of the scheduler this is, and how often budgets changed.
    pub(crate) now: (u64, u64),
}

impl Scene<'_> {
    /// Who would end in a slot.
    pub(crate) fn victims(&mut self, shape: &Shape, slot: Slot) -> Result<Victims, Obstacle> {
        let entry = self.index.get(slot).ok_or(Obstacle::NotHelpful)?;
        let held = self.held.get(self.state, self.priorities, entry.node.meta.id);
        select((self.state, self.vicinity), shape, entry, held, (self.allowance, self.reclaim))
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Search {
    /// Up to where the index' log is worked in, in which run, for which priority.
    seen: Option<(u64, (u64, u64), i32)>,
    /// Candidates, those of the same cost in an order that says nothing.
    by_cost: BTreeSet<(Cost, u64, Slot)>,
    of_slot: Vec<Option<Cost>>,
}

impl Search {
    /// Whether nothing was found, and nothing has changed since.
    pub(crate) fn is_exhausted(&self, scene: &Scene<'_>, shape: &Shape) -> bool {
        let is_now = |(position, now, priority): (u64, (u64, u64), i32)| {
            position == scene.index.log_end() && now.1 == scene.now.1 && priority == shape.priority
        };
        // The tree is not in the index' log.
        let is_this_run = self.seen.is_some_and(|(_, now, _)| now == scene.now);
        self.by_cost.is_empty() && self.seen.is_some_and(is_now) && (scene.reclaim.is_none() || is_this_run)
    }

    /// The node where the fewest and lowest pods would end for a pod of the shape.
    pub(crate) fn choose(
        &mut self,
        scene: &mut Scene<'_>,
        shape: &Shape,
        pod: ObjectId,
    ) -> Option<(Slot, Victims)> {
        self.catch_up(scene, shape);
        let turn = mix64(pod.0);
        loop {
            let first = *self.by_cost.first()?;
            let (cost, from) = (first.0, (first.0, turn, 0));
            let next = self.by_cost.range(from..).next().filter(|found| found.0 == cost);
            let slot = next.unwrap_or(&first).2;
            // What was found may be worse by now: budgets and others are looked at again.
            let found = scene.victims(shape, slot).ok();
            match found {
                Some(victims) if victims.cost <= cost => return Some((slot, victims)),
                found => self.set(slot, found.map(|victims| victims.cost)),
            }
        }
    }

    fn catch_up(&mut self, scene: &mut Scene<'_>, shape: &Shape) {
        let end = scene.index.log_end();
        let (now, priority) = (scene.now, shape.priority);
        // Budgets and others reach over nodes: what they say is not worked in from run to run.
        let reaches = shape.looks_at_pods()
            || scene.reclaim.is_some()
            || !scene.state.pod_disruption_budgets().is_empty()
            || (scene.state.feature_level() >= QUEUES_LEVEL && scene.state.has_pod_groups());
        let is_lasting = |then: (u64, u64)| then == now || (!reaches && then.1 == now.1);
        let seen = self.seen.filter(|(_, then, former)| *former == priority && is_lasting(*then));
        let changed = seen.and_then(|(position, ..)| scene.index.changed_since(position));
        match changed.filter(|changed| changed.len() <= scene.index.slots_len()) {
            Some(changed) => {
                let slots: BTreeSet<Slot> = changed.iter().map(|change| change.slot).collect();
                slots.into_iter().for_each(|slot| self.look(scene, shape, slot));
            }
            None => {
                (self.by_cost, self.of_slot) = Default::default();
                (0..scene.index.slots_len() as Slot).for_each(|slot| self.look(scene, shape, slot));
            }
        }
        self.seen = Some((end, now, priority));
    }

    fn look(&mut self, scene: &mut Scene<'_>, shape: &Shape, slot: Slot) {
        let cost = scene.victims(shape, slot).ok().map(|victims| victims.cost);
        self.set(slot, cost);
    }

    fn set(&mut self, slot: Slot, cost: Option<Cost>) {
        let at = slot as usize;
        if at >= self.of_slot.len() {
            self.of_slot.resize(at + 1, None);
        }
        if self.of_slot[at] == cost {
            return;
        }
        let key = |cost: Cost| (cost, mix64(slot.into()), slot);
        if let Some(former) = std::mem::replace(&mut self.of_slot[at], cost) {
            self.by_cost.remove(&key(former));
        }
        self.by_cost.extend(cost.map(key));
    }
}
