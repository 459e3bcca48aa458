//! The pods of one StatefulSet by ordinal, sorted by how they are: every question costs a look into a set, every
//! change of a pod the logarithm of their number.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bulkhead_types::{Name, Pod, PodManagementPolicy, StatefulSet, StatefulSetUpdateStrategy};
use smol_str::SmolStr;

use super::{Seen, Standing};
use crate::State;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Roster {
    ordinals: Range<u32>,
    min_ready_ms: u64,
    /// Up to when time has passed, milliseconds since the epoch.
    now_ms: u64,
    /// All pods, and whether each counts as available.
    pods: BTreeMap<u32, (Seen, bool)>,
    /// Wanted ordinals without a pod.
    missing: BTreeSet<u32>,
    /// Wanted ordinals whose pod is not available.
    unwell: BTreeSet<u32>,
    /// Active pods that are not wanted.
    surplus: BTreeSet<u32>,
    /// Pods that ended and were not asked to go.
    ended: BTreeSet<u32>,
    /// Pods that were asked to go.
    ending: BTreeSet<u32>,
    /// Active pods of wanted ordinals by revision, and whether they are available.
    revisions: BTreeMap<(SmolStr, bool), BTreeSet<u32>>,
    /// Active pods by revision, those of unwanted ordinals included.
    counts: BTreeMap<SmolStr, u32>,
    lives: u32,
    ready: u32,
    available: u32,
    /// Ready pods that are not available yet: when they will be.
    ripening: BTreeSet<(u64, u32)>,
}

/// The ordinal in a pod's name.
pub(crate) fn ordinal_of(pod: &Pod) -> Option<u32> {
    pod.meta.name.as_str().rsplit_once('-')?.1.parse().ok()
}

/// The name of a StatefulSet's pod; `None` when it would be too long.
pub(crate) fn pod_name(set: &Name, ordinal: u32) -> Option<Name> {
    Name::new(format!("{set}-{ordinal}")).ok()
}

impl Roster {
    /// The pods of a set at a time. Costs time in proportion to their number.
    pub(crate) fn of(state: &State, set: &StatefulSet, now_ms: u64) -> Self {
        let mut roster = Self {
            ordinals: set.spec.ordinals(),
            min_ready_ms: set.spec.min_ready_ms,
            now_ms,
            ..Self::default()
        };
        roster.missing = roster.ordinals.clone().collect();
        for pod in state.pods_of(set.meta.id) {
            if let Some(ordinal) = ordinal_of(pod) {
                roster.put(ordinal, Some(Seen::of(pod)));
            }
        }
        roster
    }

    /// Follows a change of the set's spec, and lets time pass.
    pub(crate) fn catch_up(&mut self, set: &StatefulSet, now_ms: u64) {
        self.now_ms = now_ms;
        let (ordinals, min_ready_ms) = (set.spec.ordinals(), set.spec.min_ready_ms);
        if (&ordinals, min_ready_ms) != (&self.ordinals, self.min_ready_ms) {
            let pods = std::mem::take(&mut self.pods);
            *self = Self { ordinals, min_ready_ms, now_ms, ..Self::default() };
            self.missing = self.ordinals.clone().collect();
            pods.into_iter().for_each(|(ordinal, (seen, _))| _ = self.put(ordinal, Some(seen)));
        }
        while let Some((due_ms, ordinal)) = self.ripening.first().copied().filter(|(ms, _)| *ms <= now_ms) {
            self.ripening.remove(&(due_ms, ordinal));
            if let Some((seen, _)) = self.pods.get(&ordinal).cloned() {
                self.put(ordinal, Some(seen));
            }
        }
    }

    /// Puts what is known of an ordinal's pod in the place of what was. Returns whether that is news.
    pub(crate) fn put(&mut self, ordinal: u32, seen: Option<Seen>) -> bool {
        let former = self.pods.remove(&ordinal);
        if let Some((former, well)) = &former {
            self.sort(ordinal, former, *well, false);
        }
        let is_news = former.as_ref().map(|(seen, _)| seen) != seen.as_ref();
        let is_wanted = self.ordinals.contains(&ordinal);
        let Some(seen) = seen else {
            toggle(&mut self.missing, ordinal, is_wanted);
            return is_news;
        };
        self.missing.remove(&ordinal);
        let available_at_ms = seen.available_at_ms(self.min_ready_ms);
        let well = available_at_ms.is_some_and(|at_ms| at_ms <= self.now_ms);
        self.sort(ordinal, &seen, well, true);
        self.pods.insert(ordinal, (seen, well));
        is_news
    }

    /// Takes a pod into, or out of, all that it is listed and counted in.
    fn sort(&mut self, ordinal: u32, seen: &Seen, well: bool, is_in: bool) {
        let is_wanted = self.ordinals.contains(&ordinal);
        toggle(&mut self.unwell, ordinal, is_in && is_wanted && !well);
        toggle(&mut self.surplus, ordinal, is_in && !is_wanted && seen.is_active());
        toggle(&mut self.ended, ordinal, is_in && seen.standing == Standing::Ended);
        toggle(&mut self.ending, ordinal, is_in && matches!(seen.standing, Standing::Ending { .. }));
        count(&mut self.lives, seen.lives(), is_in);
        count(&mut self.ready, seen.is_ready(), is_in);
        count(&mut self.available, well, is_in);
        if let Some(at_ms) = seen.available_at_ms(self.min_ready_ms).filter(|_| !well) {
            if is_in {
                self.ripening.insert((at_ms, ordinal));
            } else {
                self.ripening.remove(&(at_ms, ordinal));
            }
        }
        if !seen.is_active() {
            return;
        }
        let total = self.counts.entry(seen.revision.clone()).or_default();
        count(total, true, is_in);
        if *total == 0 {
            self.counts.remove(&seen.revision);
        }
        if is_wanted {
            let key = (seen.revision.clone(), well);
            let group = self.revisions.entry(key.clone()).or_default();
            toggle(group, ordinal, is_in);
            if group.is_empty() {
                self.revisions.remove(&key);
            }
        }
    }

    /// Whether an ordinal's pod may be created now: in order, each when all before are available.
    pub(crate) fn may_create(&self, set: &StatefulSet, ordinal: u32) -> bool {
        let in_turn = match set.spec.pod_management_policy {
            PodManagementPolicy::Parallel => true,
            PodManagementPolicy::OrderedReady => self.first_gap() == Some(ordinal),
        };
        self.missing.contains(&ordinal) && in_turn
    }

    /// Whether a pod that is not wanted may be asked to go now: in order, from the highest down, each when nothing else
    /// is about to go and all wanted ones are available. How those that go themselves are does not matter: waiting
    /// for them would protect nothing.
    pub(crate) fn may_shrink(&self, set: &StatefulSet, ordinal: u32) -> bool {
        let in_turn = match set.spec.pod_management_policy {
            PodManagementPolicy::Parallel => true,
            PodManagementPolicy::OrderedReady => {
                self.first_gap().is_none() && self.ending.is_empty() && self.surplus.last() == Some(&ordinal)
            }
        };
        self.surplus.contains(&ordinal) && in_turn
    }

    /// How many more available pods a rolling update may give up now.
    pub(crate) fn spare(&self, set: &StatefulSet) -> u32 {
        // One after another: what is too many goes first.
        let waits =
            set.spec.pod_management_policy == PodManagementPolicy::OrderedReady && !self.surplus.is_empty();
        if waits { 0 } else { set.spec.max_unavailable().saturating_sub(self.unavailable()) }
    }

    /// Whether an ordinal's pod may be asked to go now.
    pub(crate) fn may_go(&self, set: &StatefulSet, update: &str, ordinal: u32) -> bool {
        let Some((seen, well)) = self.pods.get(&ordinal) else { return false };
        if !seen.is_active() {
            return seen.standing == Standing::Ended;
        }
        if !self.ordinals.contains(&ordinal) {
            return self.may_shrink(set, ordinal);
        }
        let rolls = matches!(set.spec.update_strategy, StatefulSetUpdateStrategy::RollingUpdate { .. });
        let outdated = rolls && ordinal >= set.spec.partition_ordinal() && seen.revision != update;
        outdated && (!well || self.spare(set) > 0)
    }

    /// What is known of an ordinal's pod.
    pub(crate) fn get(&self, ordinal: u32) -> Option<&Seen> {
        self.pods.get(&ordinal).map(|(seen, _)| seen)
    }

    /// Wanted ordinals without a pod.
    pub(crate) fn missing(&self) -> &BTreeSet<u32> {
        &self.missing
    }

    /// Active pods that are not wanted.
    pub(crate) fn surplus(&self) -> &BTreeSet<u32> {
        &self.surplus
    }

    /// Pods that ended and were not asked to go.
    pub(crate) fn ended(&self) -> &BTreeSet<u32> {
        &self.ended
    }

    /// Whether some pod was asked to go and is still there.
    pub(crate) fn is_ending(&self) -> bool {
        !self.ending.is_empty()
    }

    /// The lowest wanted ordinal that has no available pod.
    pub(crate) fn first_gap(&self) -> Option<u32> {
        self.missing.first().into_iter().chain(self.unwell.first()).min().copied()
    }

    /// Wanted ordinals that have no available pod.
    pub(crate) fn unavailable(&self) -> u32 {
        u32::try_from(self.missing.len() + self.unwell.len()).unwrap_or(u32::MAX)
    }

    /// Active pods of wanted ordinals from `from` on that have another revision than `update`, the highest first:
    /// those that are available, or those that are not.
    pub(crate) fn outdated(&self, update: &str, from: u32, well: bool) -> impl Iterator<Item = u32> + '_ {
        let groups = self.revisions.iter().filter(|((name, is_well), _)| *is_well == well && name != update);
        let mut groups: Vec<_> = groups.map(|(_, group)| group.range(from..).rev().peekable()).collect();
        std::iter::from_fn(move || {
            let highest = (0..groups.len()).max_by_key(|at| groups[*at].peek().copied())?;
            groups[highest].next().copied()
        })
    }

    /// Active pods of a revision.
    pub(crate) fn count_of(&self, revision: &str) -> u32 {
        self.counts.get(revision).copied().unwrap_or(0)
    }

    /// Active pods of wanted ordinals of a revision that are available.
    pub(crate) fn well_of(&self, revision: &SmolStr) -> usize {
        self.revisions.get(&(revision.clone(), true)).map_or(0, BTreeSet::len)
    }

    /// The revisions of active pods.
    pub(crate) fn revisions(&self) -> impl Iterator<Item = &SmolStr> {
        self.counts.keys()
    }

    /// Pods that have not ended, those that end included.
    pub(crate) fn lives(&self) -> u32 {
        self.lives
    }

    /// Active pods that are ready.
    pub(crate) fn ready(&self) -> u32 {
        self.ready
    }

    /// Active pods that are available.
    pub(crate) fn available(&self) -> u32 {
        self.available
    }

    /// When the next pod becomes available, milliseconds since the epoch.
    pub(crate) fn next_ripe_ms(&self) -> Option<u64> {
        self.ripening.first().map(|(due_ms, _)| *due_ms)
    }
}

fn toggle(set: &mut BTreeSet<u32>, ordinal: u32, is_in: bool) {
    if is_in {
        set.insert(ordinal);
    } else {
        set.remove(&ordinal);
    }
}

fn count(total: &mut u32, counts: bool, is_in: bool) {
    match (counts, is_in) {
        (true, true) => *total += 1,
        (true, false) => *total = total.checked_sub(1).expect("what leaves was counted"),
        _ => {}
    }
}
