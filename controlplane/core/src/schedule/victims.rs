//! Which pods of a node would end for one that waits: as few and as low as possible.
//!
//! Source: `SelectVictimsOnNode` and `pickOneNodeForPreemption` of Kubernetes' scheduler, with two differences: a disruption
//! budget is never gone below, and the room of pods that end already counts as free.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use bulkhead_types::ObjectId;

use super::gangs::{Gangs, Unit};
use super::held::{Held, HeldPod};
use super::index::NodeEntry;
use super::ledgers::Ledgers;
use super::reclaim::{self, Reclaim};
use super::shape::Shape;
use crate::disruption::{Allowance, victims_max};
use crate::elastic_quota::ElasticLedger;
use crate::placement::Vicinity;
use crate::{NodeUsage, State};

/// How bad it is that certain pods end; the lower the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cost {
    /// The highest priority among them; below all priorities when there is none.
    highest: i64,
    /// Their priorities together, each counted from the lowest there is: so more pods are never better.
    sum: u64,
    count: u32,
    /// The earliest time at which one of the highest priority got its node: the latest of these is best.
    start: Reverse<u64>,
}

impl Cost {
    /// Nobody ends who does not end already.
    const NOTHING: Self = Self { highest: i64::MIN, sum: 0, count: 0, start: Reverse(u64::MAX) };

    fn of(victims: &[HeldPod]) -> Self {
        let Some(highest) = victims.iter().map(|pod| pod.priority).max() else { return Self::NOTHING };
        let shifted = |pod: &HeldPod| (i64::from(pod.priority) - i64::from(i32::MIN)).unsigned_abs();
        let first = victims.iter().filter(|pod| pod.priority == highest).map(|pod| pod.bound_at_ms).min();
        Self {
            highest: highest.into(),
            sum: victims.iter().map(shifted).sum(),
            count: victims.len() as u32,
            start: Reverse(first.unwrap_or_default()),
        }
    }
}

/// The pods that would end, and how bad that is.
#[derive(Clone, Debug)]
pub(crate) struct Victims {
    pub(crate) cost: Cost,
    pub(crate) pods: Vec<ObjectId>,
}

/// Why nobody's end makes room on a node, in Kubernetes' words where it has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Obstacle {
    NotHelpful,
    NoVictims,
    Budget,
    TooMany,
    TooLarge,
}

impl Obstacle {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::NotHelpful => "Preemption is not helpful for scheduling",
            Self::NoVictims => "No preemption victims found for incoming pod",
            Self::Budget => "Preemption would go below a PodDisruptionBudget",
            Self::TooMany => "Too many pods would have to end",
            Self::TooLarge => "Too many nodes and pods would have to be looked at",
        }
    }
}

/// A node as it will be for pods of one shape when certain pods have gone.
#[derive(Clone)]
pub(super) struct Site<'a> {
    state: &'a State,
    shape: &'a Shape,
    entry: &'a NodeEntry,
    usage: NodeUsage,
    /// Only where others matter to the shape.
    vicinity: Option<Vicinity>,
    /// Only as far as the shape asks for what is in them.
    ledgers: Ledgers,
    /// The pod for which it is asked, when room is kept for it already.
    pod: Option<ObjectId>,
}

impl<'a> Site<'a> {
    /// `held` is what is on the node; room is kept there for `pod`, if that is one.
    fn new(
        (state, vicinity): (&'a State, &Vicinity),
        shape: &'a Shape,
        entry: &'a NodeEntry,
        held: &Held,
        pod: Option<ObjectId>,
    ) -> Self {
        let usage = entry.usage_for(&shape.asker(pod));
        let requests = usage.requests.checked_minus(held.ending_room.requests);
        let requests = requests.expect("what ends is a part of what is used");
        let usage = NodeUsage { requests, pods: usage.pods - held.ending_room.pods };
        let vicinity = shape.looks_at_pods().then(|| vicinity.clone());
        let ledgers = Ledgers::copy(entry.ledgers(), shape.matters());
        let mut site = Self { state, shape, entry, usage, vicinity, ledgers, pod };
        held.ending.iter().for_each(|id| site.count(*id, false));
        site
    }

    /// One of which some is taken already, and on which nobody ends by himself any more.
    pub(super) fn beside(
        state: &'a State,
        shape: &'a Shape,
        entry: &'a NodeEntry,
        (usage, ledgers): (NodeUsage, Ledgers),
        vicinity: Option<Vicinity>,
    ) -> Self {
        Self { state, shape, entry, usage, vicinity, ledgers, pod: None }
    }

    fn count(&mut self, pod: ObjectId, is_there: bool) {
        if self.vicinity.is_none() && self.ledgers.is_empty() {
            return;
        }
        let Some(pod) = self.state.pods().get(pod) else { return };
        match (&mut self.vicinity, is_there) {
            (Some(vicinity), true) => drop(vicinity.bind(pod, &self.entry.node)),
            (Some(vicinity), false) => vicinity.release(pod, &self.entry.node),
            (None, _) => {}
        }
        self.ledgers.count(pod, is_there);
    }

    fn leave(&mut self, pod: &HeldPod) {
        self.usage = self.usage.without(pod.request);
        self.count(pod.id, false);
    }

    fn stay(&mut self, pod: &HeldPod) {
        self.usage = self.usage.with(pod.request);
        self.count(pod.id, true);
    }

    fn fits(&self) -> bool {
        self.entry.has_room_beside(self.shape.request, self.usage)
            && self
                .vicinity
                .as_ref()
                .is_none_or(|vicinity| self.shape.check_others(self.entry, vicinity).is_ok())
            && self.shape.check_ledgers(self.entry, self.pod, self.ledgers.view()).is_ok()
    }
}

/// Whether a pod for which room is kept on a node can use it once all that end there have gone.
pub(crate) fn can_use(
    (state, vicinity): (&State, &Vicinity),
    shape: &Shape,
    entry: &NodeEntry,
    held: &Held,
    pod: ObjectId,
) -> bool {
    shape.check_alone(entry).is_ok() && Site::new((state, vicinity), shape, entry, held, Some(pod)).fits()
}

/// Who would end on a node for a pod of a shape for which no room is kept yet.
///
/// # Errors
/// Why that would make no room.
pub(crate) fn select(
    (state, vicinity): (&State, &Vicinity),
    shape: &Shape,
    entry: &NodeEntry,
    held: &Held,
    (allowance, reclaim): (&Allowance, Option<&Reclaim>),
) -> Result<Victims, Obstacle> {
    if let Some(reclaim) = reclaim {
        return select_in_tree((state, vicinity), shape, entry, held, (allowance, reclaim));
    }
    shape.check_alone(entry).map_err(|_| Obstacle::NotHelpful)?;
    let usage = entry.usage_for(&shape.asker(None));
    let below = held.below(shape.priority);
    // A look at the sums alone first: most nodes that are no candidates are none by them.
    let all = below.iter().fold(held.ending_room, |sum, pod| sum.with(pod.request));
    let least = NodeUsage {
        requests: usage.requests.checked_minus(all.requests).expect("what is held is used"),
        pods: usage.pods - all.pods,
    };
    if !entry.has_room_beside(shape.request, least) {
        return Err(Obstacle::NoVictims);
    }
    let site = Site::new((state, vicinity), shape, entry, held, None);
    select_below(site, below, &BTreeSet::new(), allowance)
}

/// Who of these ends so that there is room; who is `gone` ends already.
pub(super) fn select_below(
    site: Site<'_>,
    below: &[HeldPod],
    gone: &BTreeSet<ObjectId>,
    allowance: &Allowance,
) -> Result<Victims, Obstacle> {
    if site.fits() {
        return Ok(Victims { cost: Cost::NOTHING, pods: Vec::new() });
    }
    let (state, priority) = (site.state, site.shape.priority);
    let gangs = Gangs::of(state, below, gone, |_, theirs| theirs < priority);
    let whole = gangs.units(below, true);
    let found = choose(state, site.clone(), whole, allowance);
    if gangs.is_empty() {
        return found;
    }
    // Or without a group, as far as it has more than it must.
    let apart = choose(state, site, gangs.units(below, false), allowance);
    match (found, apart) {
        (Ok(whole), Ok(apart)) => Ok(if apart.cost < whole.cost { apart } else { whole }),
        (Ok(found), Err(_)) | (Err(_), Ok(found)) => Ok(found),
        (Err(obstacle), Err(_)) => Err(obstacle),
    }
}

/// Who ends of those that may, so that there is room.
fn choose(
    state: &State,
    mut site: Site<'_>,
    units: Vec<Unit>,
    allowance: &Allowance,
) -> Result<Victims, Obstacle> {
    let count = units.len();
    let removed = match state.pod_disruption_budgets().is_empty() {
        true => units,
        false => {
            let mut allowance = allowance.clone();
            let mut may_end = |unit: &Unit| {
                let mut trial = allowance.clone();
                let allowed = unit.pods().all(|pod| {
                    let pod = state.pods().get(pod.id);
                    pod.is_some_and(|pod| trial.take(state, pod).is_ok())
                });
                if allowed {
                    allowance = trial;
                }
                allowed
            };
            units.into_iter().filter(|unit| may_end(unit)).collect()
        }
    };
    removed.iter().flat_map(|unit| &unit.here).for_each(|pod| site.leave(pod));
    if !site.fits() {
        return Err(if removed.len() < count { Obstacle::Budget } else { Obstacle::NoVictims });
    }
    // Those that need not end stay, the highest first.
    let mut victims: Vec<HeldPod> = Vec::new();
    for unit in removed.iter().rev() {
        unit.here.iter().for_each(|pod| site.stay(pod));
        if !site.fits() {
            unit.here.iter().for_each(|pod| site.leave(pod));
            victims.extend(unit.pods());
        }
    }
    if victims.len() > victims_max(state) {
        return Err(Obstacle::TooMany);
    }
    Ok(Victims { cost: Cost::of(&victims), pods: victims.iter().map(|pod| pod.id).collect() })
}

/// The same for a pod in the elastic quota tree: there must be room on the node and in the tree, and those who end for the latter
/// may be anywhere.
fn select_in_tree(
    (state, vicinity): (&State, &Vicinity),
    shape: &Shape,
    entry: &NodeEntry,
    held: &Held,
    (allowance, reclaim): (&Allowance, &Reclaim),
) -> Result<Victims, Obstacle> {
    shape.check_alone(entry).map_err(|_| Obstacle::NotHelpful)?;
    if reclaim.ledger.check_lent(state, &reclaim.ask).is_err() {
        return Err(Obstacle::NoVictims);
    }
    let site = Site::new((state, vicinity), shape, entry, held, None);
    let is_tight = !site.fits();
    let cut =
        Cut { site, reclaim, ledger: reclaim.ledger.clone(), allowance, removed: Vec::new(), refused: false };
    if !is_tight {
        return cut.choose(Vec::new());
    }
    let may_end = |pod: &&HeldPod| reclaim.may_end_held(state, pod);
    let mut here: Vec<HeldPod> = held.staying().iter().filter(may_end).copied().collect();
    reclaim::sort(state, &mut here);
    let gangs = reclaim.gangs(state, &here);
    let found = cut.clone().choose(gangs.units(&here, true));
    if gangs.is_empty() {
        return found;
    }
    let apart = cut.choose(gangs.units(&here, false));
    match (found, apart) {
        (Ok(whole), Ok(apart)) => Ok(if apart.cost < whole.cost { apart } else { whole }),
        (Ok(found), Err(_)) | (Err(_), Ok(found)) => Ok(found),
        (Err(obstacle), Err(_)) => Err(obstacle),
    }
}

/// A node and the tree without some pods.
#[derive(Clone)]
struct Cut<'a> {
    site: Site<'a>,
    reclaim: &'a Reclaim,
    /// With what ends here.
    ledger: ElasticLedger,
    /// What budgets allow beside that.
    allowance: &'a Allowance,
    removed: Vec<Unit>,
    /// Whether a budget kept somebody.
    refused: bool,
}

impl Cut<'_> {
    /// Who ends: on the node as few as make room there, then wherever the tree is full; nobody who need not.
    fn choose(mut self, here: Vec<Unit>) -> Result<Victims, Obstacle> {
        here.into_iter().for_each(|unit| self.remove(unit));
        if !self.site.fits() {
            return Err(self.obstacle());
        }
        self.spare(|cut| cut.site.fits());
        let pool = std::sync::Arc::clone(&self.reclaim.pool);
        for unit in pool.iter() {
            if self.has_room() {
                break;
            }
            let state = self.site.state;
            let may_end = |pod: HeldPod| self.reclaim.may_end_held(state, &pod) && !self.ledger.ends(pod.id);
            if unit.pods().all(may_end) {
                self.remove(unit.clone());
            }
        }
        if !self.has_room() {
            return Err(self.obstacle());
        }
        self.spare(|cut| cut.site.fits() && cut.has_room());
        let victims: Vec<HeldPod> = self.removed.iter().flat_map(Unit::pods).collect();
        if victims.len() > victims_max(self.site.state) {
            return Err(Obstacle::TooMany);
        }
        Ok(Victims { cost: Cost::of(&victims), pods: victims.iter().map(|pod| pod.id).collect() })
    }

    fn obstacle(&self) -> Obstacle {
        if self.refused { Obstacle::Budget } else { Obstacle::NoVictims }
    }

    fn has_room(&self) -> bool {
        self.ledger.check_after(self.site.state, &self.reclaim.ask).is_ok()
    }

    /// Pods leave, unless a budget or the min of their leaf keeps one of them.
    fn remove(&mut self, unit: Unit) {
        let state = self.site.state;
        let mut allowance = self.allowance.clone();
        let pods = self.removed.iter().chain([&unit]).flat_map(Unit::pods);
        let pods: Vec<_> = pods.filter_map(|pod| state.pods().get(pod.id)).collect();
        if !state.pod_disruption_budgets().is_empty()
            && !pods.iter().all(|pod| allowance.take(state, pod).is_ok())
        {
            self.refused = true;
            return;
        }
        self.leave(&unit, true);
        let (ask, before) = (&self.reclaim.ask, &self.reclaim.ledger);
        let leaves = unit.pods().filter_map(|pod| state.pods().get(pod.id)?.meta.namespace.clone());
        let mut leaves = leaves.filter_map(|namespace| ask.levels.leaf_of(Some(&namespace)));
        let has_fallen = leaves.any(|leaf| self.ledger.has_fallen(state, before, ask, leaf));
        drop(leaves);
        if has_fallen {
            self.leave(&unit, false);
            return;
        }
        self.removed.push(unit);
    }

    fn leave(&mut self, unit: &Unit, leaves: bool) {
        let state = self.site.state;
        for held in unit.pods() {
            let Some(pod) = state.pods().get(held.id) else { continue };
            self.ledger.end(state, pod, leaves);
            match (pod.node == Some(self.site.entry.node.meta.id), leaves) {
                (true, true) => self.site.leave(&held),
                (true, false) => self.site.stay(&held),
                (false, _) => {}
            }
        }
    }

    /// Those that need not end stay, the most important first.
    fn spare(&mut self, is_enough: impl Fn(&Self) -> bool) {
        for unit in std::mem::take(&mut self.removed).into_iter().rev() {
            self.leave(&unit, false);
            if !is_enough(self) {
                self.leave(&unit, true);
                self.removed.insert(0, unit);
            }
        }
    }
}
