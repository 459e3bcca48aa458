//! The elastic quota tree: whether there is room in it for a pod, and who may be made to end for whom. Asked by the scheduler,
//! and by `decide` again.
//!
//! ```text
//!  a pod of a leaf ─► leaf and all above it stay within max?          no ─► it waits
//!                  ─► does the leaf stay within its min with it?      yes ─► its own room: borrowers of other leaves end for it
//!                                                                     no ─► borrowed: not while others take theirs back
//! ```
//!
//! Source: "Capacity scheduling" of ACK. What is guaranteed is a *leaf's* min, whatever the levels above it have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bulkhead_types::{ObjectId, Pod};

use crate::State;
use crate::queue::resource_name;
use crate::state::{Amounts, Charge, LevelKey, Levels, Sums, nominated_node};

/// What a pod asks of the tree.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) levels: Arc<Levels>,
    pub(crate) leaf: LevelKey,
    pub(crate) amounts: Amounts,
    /// Whether room is kept for it, which the State counts.
    is_kept: bool,
}

impl Ask {
    /// Of a pod; `None` of one whose namespace is in no tree.
    pub(crate) fn of(state: &State, pod: &Pod) -> Option<Self> {
        let levels = state.elastic_use.levels()?;
        let leaf = levels.leaf_of(pod.meta.namespace.as_ref())?;
        let amounts = levels.amounts(&Charge::of_pod(pod, &state.devices.classes));
        let is_kept = pod.node.is_none() && nominated_node(pod).is_some() && !pod.meta.is_deleting();
        Some(Self { levels: Arc::clone(levels), leaf, amounts, is_kept })
    }

    /// Of a pod that has its room already and shall have more.
    pub(crate) fn growth(state: &State, pod: &Pod, growth: &Charge) -> Option<Self> {
        let ask = Self::of(state, pod)?;
        let amounts = ask.levels.amounts(growth);
        Some(Self { amounts, is_kept: false, ..ask })
    }

    /// As another pod of the same kind that nothing is kept for.
    pub(crate) fn anew(mut self) -> Self {
        self.is_kept = false;
        self
    }
}

/// Sums beside those of the State.
type Extra = BTreeMap<LevelKey, Amounts>;

/// What is used of the tree, with what one command or run has done beside what the State says.
#[derive(Clone, Debug, Default)]
pub(crate) struct ElasticLedger {
    /// What it has given.
    given: Extra,
    /// What of that was kept before.
    taken_up: Extra,
    /// What ends by it.
    ended: Extra,
    /// What it keeps.
    kept: Extra,
    /// Who ends by it.
    victims: BTreeSet<ObjectId>,
}

fn of(sums: &Sums, level: LevelKey, at: usize) -> u128 {
    sums.get(&level).map_or(0, |sum| sum[at])
}

fn extra(sums: &Extra, level: LevelKey, at: usize) -> u128 {
    sums.get(&level).map_or(0, |sum| sum[at])
}

fn change(sums: &mut Extra, ask: &Ask, adds: bool) {
    for level in ask.levels.path(ask.leaf) {
        let sum = sums.entry(level).or_insert_with(|| vec![0; ask.amounts.len()]);
        for (sum, amount) in sum.iter_mut().zip(&ask.amounts) {
            *sum = if adds { *sum + amount } else { sum.saturating_sub(*amount) };
        }
    }
}

impl ElasticLedger {
    /// What a level's pods hold once those that end have gone, without what is kept.
    fn staying(&self, state: &State, level: LevelKey, at: usize) -> u128 {
        let sums = &state.elastic_use;
        let ends = of(&sums.ending, level, at) + extra(&self.ended, level, at);
        (of(&sums.placed, level, at) + extra(&self.given, level, at)).saturating_sub(ends)
    }

    /// What is kept on a level for pods that wait, but for one of them.
    fn kept(&self, state: &State, level: LevelKey, at: usize, but: &Ask) -> u128 {
        let kept = of(&state.elastic_use.kept, level, at) + extra(&self.kept, level, at);
        let own = if but.is_kept && but.levels.path(but.leaf).any(|one| one == level) {
            but.amounts[at]
        } else {
            0
        };
        kept.saturating_sub(extra(&self.taken_up, level, at)).saturating_sub(own)
    }

    /// Whether there is room for a pod now.
    ///
    /// # Errors
    /// Why not: the level, the resource, what is asked for, and what is left.
    pub(crate) fn check(&self, state: &State, ask: &Ask) -> Result<(), String> {
        self.check_max(state, ask, false)?;
        self.check_lent(state, ask)
    }

    /// Whether a pod may be lent something, if it would be. Nobody ends so that it may: it waits until the owner has its own.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn check_lent(&self, state: &State, ask: &Ask) -> Result<(), String> {
        match self.owner_that_takes_back(state, ask) {
            Some(level) if !self.is_within_min(state, ask) => Err(format!(
                "ElasticQuota {}: its min is used, and nothing is lent while {} takes its own back",
                ask.levels.get(ask.leaf).name,
                ask.levels.get(level).name
            )),
            _ => Ok(()),
        }
    }

    /// Whether there is room once all that end have gone.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn check_after(&self, state: &State, ask: &Ask) -> Result<(), String> {
        self.check_max(state, ask, true)
    }

    fn check_max(&self, state: &State, ask: &Ask, after: bool) -> Result<(), String> {
        for level in ask.levels.path(ask.leaf) {
            let Some((at, used, max)) = self.excess(state, ask, level, after) else { continue };
            let measure = &ask.levels.measures[at];
            let show = |amount: u128| measure.format_amount(u64::try_from(amount).unwrap_or(u64::MAX));
            return Err(format!(
                "ElasticQuota {}: {} of {} is asked for and {} is left: its pods have {} and may have {} together",
                ask.levels.get(level).name,
                show(ask.amounts[at]),
                resource_name(measure),
                show(max.saturating_sub(used)),
                show(used),
                show(max)
            ));
        }
        Ok(())
    }

    /// The first resource of which a level has too little, what it uses of it, and how much it may.
    fn excess(&self, state: &State, ask: &Ask, level: LevelKey, after: bool) -> Option<(usize, u128, u128)> {
        let max = &ask.levels.get(level).max;
        (0..ask.amounts.len()).filter(|at| ask.amounts[*at] > 0).find_map(|at| {
            let most = max[at]?;
            let ends = of(&state.elastic_use.ending, level, at) + extra(&self.ended, level, at);
            let still = if after { 0 } else { ends };
            let used = self.staying(state, level, at) + still + self.kept(state, level, at, ask);
            (used + ask.amounts[at] > most).then_some((at, used, most))
        })
    }

    /// Whether the pod's leaf stays within its own min with it, of what the pod asks for.
    pub(crate) fn is_within_min(&self, state: &State, ask: &Ask) -> bool {
        let min = &ask.levels.get(ask.leaf).min;
        (0..ask.amounts.len()).filter(|at| ask.amounts[*at] > 0).all(|at| {
            let used = self.staying(state, ask.leaf, at) + self.kept(state, ask.leaf, at, ask);
            used + ask.amounts[at] <= min[at]
        })
    }

    /// Another leaf for whose pods room is kept of its own min: until they have it nobody borrows anew.
    fn owner_that_takes_back(&self, state: &State, ask: &Ask) -> Option<LevelKey> {
        let (kept, levels) = (&state.elastic_use.kept, &ask.levels);
        let leaves = kept.keys().chain(self.kept.keys()).copied().filter(|level| *level != ask.leaf);
        let mut leaves = leaves.filter(|level| levels.all.iter().all(|one| one.parent != Some(*level)));
        leaves.find(|leaf| {
            let is_kept = |at: usize| self.kept(state, *leaf, at, ask) > 0;
            let is_own = |at: usize| {
                self.staying(state, *leaf, at) + self.kept(state, *leaf, at, ask) <= levels.get(*leaf).min[at]
            };
            let measures = 0..levels.measures.len();
            measures.clone().any(is_kept) && measures.filter(|at| is_kept(*at)).all(is_own)
        })
    }

    /// Whether a pod may end for one that asks: of the own leaf, and of no leaf, when it is of lower priority; of another leaf
    /// only when that has borrowed something that is asked for, and who asks takes back what is its own.
    pub(crate) fn may_end(
        &self,
        state: &State,
        (ask, is_own): (&Ask, bool),
        is_lower: bool,
        victim: &Pod,
    ) -> bool {
        match Ask::of(state, victim) {
            Some(theirs) if theirs.leaf != ask.leaf => is_own && self.relieves(state, ask, &theirs),
            _ => is_lower,
        }
    }

    /// Whether a leaf has borrowed something that a pod of it holds and another asks for.
    fn relieves(&self, state: &State, ask: &Ask, victim: &Ask) -> bool {
        let min = &victim.levels.get(victim.leaf).min;
        (0..ask.amounts.len()).any(|at| {
            ask.amounts[at] > 0 && victim.amounts[at] > 0 && self.staying(state, victim.leaf, at) > min[at]
        })
    }

    /// Whether a leaf of which pods ended since `before` has fallen below its min by that, of anything.
    pub(crate) fn has_fallen(&self, state: &State, before: &Self, ask: &Ask, leaf: LevelKey) -> bool {
        leaf != ask.leaf
            && (0..ask.amounts.len()).any(|at| {
                let (was, is) = (before.staying(state, leaf, at), self.staying(state, leaf, at));
                let min = ask.levels.get(leaf).min[at];
                was >= min && is < min
            })
    }

    /// The levels that have no room for a pod even when all that end have gone.
    pub(crate) fn full_levels(&self, state: &State, ask: &Ask) -> Vec<LevelKey> {
        ask.levels.path(ask.leaf).filter(|level| self.excess(state, ask, *level, true).is_some()).collect()
    }

    /// A pod gets room.
    pub(crate) fn take(&mut self, ask: &Ask) {
        change(&mut self.given, ask, true);
        if ask.is_kept {
            change(&mut self.taken_up, ask, true);
        }
    }

    /// Room is kept for a pod.
    pub(crate) fn keep(&mut self, ask: &Ask) {
        change(&mut self.kept, ask, true);
    }

    /// A pod that has room ends, or does not after all.
    pub(crate) fn end(&mut self, state: &State, pod: &Pod, ends: bool) {
        let is_new = if ends { self.victims.insert(pod.meta.id) } else { self.victims.remove(&pod.meta.id) };
        if let Some(ask) = Ask::of(state, pod).filter(|_| is_new) {
            change(&mut self.ended, &ask, ends);
        }
    }

    /// Whether a pod ends by what was done here.
    pub(crate) fn ends(&self, pod: ObjectId) -> bool {
        self.victims.contains(&pod)
    }
}
