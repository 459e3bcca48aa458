//! How a Deployment's ReplicaSets change their sizes: pure arithmetic.
//!
//! Source: "Deployments" in the Kubernetes documentation ("Rolling Update Deployment", "Proportional scaling",
//! "Recreate Deployment"). Stricter than Kubernetes in two places, because everything is read at one instant:
//! pods that a set has beyond its wanted number count against the surge until they are asked to end, and do
//! not count as available, because they are about to go.

use bulkhead_canary::planted;
use bulkhead_types::ObjectId;

/// One ReplicaSet's figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SetSize {
    /// Which.
    pub(super) id: ObjectId,
    /// Wanted pods.
    pub(super) replicas: u32,
    /// Active pods.
    pub(super) active: u32,
    /// Available pods.
    pub(super) available: u32,
}

impl SetSize {
    /// Pods that it has or may create at any moment.
    fn occupied(&self) -> u32 {
        self.active.max(self.replicas)
    }

    /// Available pods that stay so when surplus ones have gone.
    fn lasting(&self) -> u32 {
        self.available.min(self.replicas)
    }
}

/// What a Deployment allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Wanted pods.
    pub(super) desired: u32,
    /// Pods above that.
    pub(super) surge: u32,
    /// Pods below that.
    pub(super) unavailable: u32,
}

impl Bounds {
    pub(super) fn total_max(&self) -> u32 {
        let twice = if planted!("canary_surge_counted_twice") { self.surge } else { 0 };
        self.desired.saturating_add(self.surge).saturating_add(twice)
    }

    pub(super) fn available_min(&self) -> u32 {
        let twice = if planted!("canary_unavailable_counted_twice") { self.unavailable } else { 0 };
        self.desired.saturating_sub(self.unavailable).saturating_sub(twice)
    }
}

/// A set's new size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resize {
    /// Which set.
    pub(super) id: ObjectId,
    /// Its size now.
    pub(super) from: u32,
    /// Its new size.
    pub(super) to: u32,
}

fn resize(set: &SetSize, to: u32) -> Option<Resize> {
    (set.replicas != to).then_some(Resize { id: set.id, from: set.replicas, to })
}

fn sum(sets: impl Iterator<Item = u32>) -> u32 {
    sets.fold(0, u32::saturating_add)
}

/// One step of a rolling update. `old` is in order of creation. Empty when nothing may move now.
pub(super) fn roll(bounds: Bounds, new: SetSize, old: &[SetSize]) -> Vec<Resize> {
    if let Some(step) = grow_new(bounds, &new, old) {
        return vec![step];
    }
    shrink_old(bounds, &new, old)
}

/// The new set's size: up as far as the surge allows, or down to what is wanted.
fn grow_new(bounds: Bounds, new: &SetSize, old: &[SetSize]) -> Option<Resize> {
    if new.replicas >= bounds.desired {
        return resize(new, bounds.desired);
    }
    let taken = sum(old.iter().map(SetSize::occupied)).saturating_add(new.replicas);
    let room = bounds.total_max().saturating_sub(taken);
    resize(new, new.replicas + room.min(bounds.desired - new.replicas))
}

/// Old sets' sizes: first the pods that are not available, then as many as availability allows.
fn shrink_old(bounds: Bounds, new: &SetSize, old: &[SetSize]) -> Vec<Resize> {
    let total = sum(old.iter().chain([new]).map(|set| set.replicas));
    let new_unavailable = new.replicas - new.lasting();
    let mut spare = total.saturating_sub(bounds.available_min()).saturating_sub(new_unavailable);
    let mut sizes: Vec<u32> = old.iter().map(|set| set.replicas).collect();
    for (size, set) in sizes.iter_mut().zip(old) {
        let gone = (set.replicas - set.lasting()).min(spare);
        *size -= gone;
        spare -= gone;
    }
    let available = sum(old.iter().chain([new]).map(SetSize::lasting));
    let mut spare = available.saturating_sub(bounds.available_min());
    for size in &mut sizes {
        let gone = (*size).min(spare);
        *size -= gone;
        spare -= gone;
    }
    old.iter().zip(sizes).filter_map(|(set, to)| resize(set, to)).collect()
}

/// One move of sets towards the sizes that they shall have, as [`roll`] makes it: the first that may grow grows;
/// when none may, those that are too large give up first what is not available, then what availability allows.
/// Those that come first in `goals` grow, and shrink, first.
pub(super) fn toward(bounds: Bounds, goals: &[(SetSize, u32)]) -> Vec<Resize> {
    let occupied = sum(goals.iter().map(|(set, _)| set.occupied()));
    let grown = goals.iter().filter(|(set, goal)| set.replicas < *goal).find_map(|(set, goal)| {
        let taken = occupied - set.occupied() + set.replicas;
        let room = bounds.total_max().saturating_sub(taken);
        resize(set, set.replicas + room.min(goal - set.replicas))
    });
    if let Some(grown) = grown {
        return vec![grown];
    }
    let total = sum(goals.iter().map(|(set, _)| set.replicas));
    let kept = goals.iter().filter(|(set, goal)| set.replicas <= *goal);
    let kept_unavailable = sum(kept.map(|(set, _)| set.replicas - set.lasting()));
    let mut spare = total.saturating_sub(bounds.available_min()).saturating_sub(kept_unavailable);
    let mut sizes: Vec<u32> = goals.iter().map(|(set, _)| set.replicas).collect();
    for (size, (set, goal)) in sizes.iter_mut().zip(goals) {
        let gone = (set.replicas - set.lasting()).min(spare).min(set.replicas.saturating_sub(*goal));
        *size -= gone;
        spare -= gone;
    }
    let available = sum(goals.iter().map(|(set, _)| set.lasting()));
    let mut spare = available.saturating_sub(bounds.available_min());
    for (size, (_, goal)) in sizes.iter_mut().zip(goals) {
        let gone = size.saturating_sub(*goal).min(spare);
        *size -= gone;
        spare -= gone;
    }
    goals.iter().zip(sizes).filter_map(|((set, _), to)| resize(set, to)).collect()
}

/// All of these sets to zero.
pub(super) fn drop_all(sets: &[SetSize]) -> Vec<Resize> {
    sets.iter().filter_map(|set| resize(set, 0)).collect()
}

/// The new set to its full size.
pub(super) fn fill_new(desired: u32, new: SetSize) -> Vec<Resize> {
    resize(&new, desired).into_iter().collect()
}

/// Sizes after the wanted number changed in the middle of a rollout: the active sets keep their proportions.
/// `total_max_before` is the former wanted number with its surge. `sets` is in order of creation.
pub(super) fn proportional(bounds: Bounds, total_max_before: u32, sets: &[SetSize]) -> Vec<Resize> {
    let mut active: Vec<&SetSize> = sets.iter().filter(|set| set.replicas > 0).collect();
    let total: i64 = active.iter().map(|set| i64::from(set.replicas)).sum();
    let allowed = if bounds.desired == 0 { 0 } else { i64::from(bounds.total_max()) };
    let to_add = allowed - total;
    // The larger sets first; among equals the newer when growing, the older when shrinking.
    active.sort_by_key(|set| {
        let age = i128::from(set.id.0);
        (std::cmp::Reverse(set.replicas), if to_add > 0 { -age } else { age })
    });
    let mut added = 0i64;
    let mut sizes = Vec::with_capacity(active.len());
    for set in &active {
        let share = share(set.replicas, allowed, i64::from(total_max_before.max(1)));
        let left = to_add - added;
        let share = if to_add > 0 { share.clamp(0, left) } else { share.clamp(left, 0) };
        added += share;
        sizes.push(i64::from(set.replicas) + share);
    }
    // What rounding left over goes to the largest, as far as it has that many.
    let mut left = to_add - added;
    for size in &mut sizes {
        let step = left.max(-*size);
        *size += step;
        left -= step;
    }
    let sized = active.iter().zip(sizes);
    sized.filter_map(|(set, to)| resize(set, u32::try_from(to).unwrap_or(u32::MAX))).collect()
}

/// How much a set of `replicas` grows when the whole goes from `before` to `after`, rounded to the nearest.
fn share(replicas: u32, after: i64, before: i64) -> i64 {
    let scaled = (2 * i64::from(replicas) * after + before) / (2 * before);
    scaled - i64::from(replicas)
}

#[cfg(test)]
mod tests;
