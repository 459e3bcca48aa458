//! Whether the elastic quota tree holds, asked of the tree as it is written and of every pod: slow, obvious, and without any of
//! the code that decides.

use std::sync::Arc;

use bulkhead_types::{ElasticQuota, EventKind, HugePageSize, Measure, ObjectId, Pod, Transaction};

use super::preemption::priority;
use crate::State;

/// The levels of a pod from the root to its leaf; `None` of one that is in no tree.
fn levels_of<'a>(state: &'a State, pod: &Pod) -> Option<Vec<&'a ElasticQuota>> {
    fn find<'a>(level: &'a ElasticQuota, pod: &Pod, path: &mut Vec<&'a ElasticQuota>) -> bool {
        path.push(level);
        let is_it = pod.meta.namespace.as_ref().is_some_and(|name| level.namespaces.contains(name));
        if is_it || level.children.iter().any(|child| find(child, pod, path)) {
            return true;
        }
        path.pop();
        false
    }
    let tree = state.elastic_quota_trees().iter().next()?;
    let mut path = Vec::new();
    find(&tree.spec.root, pod, &mut path).then_some(path)
}

/// Whether a pod is in the tree.
#[must_use]
pub fn is_in_tree(state: &State, pod: &Pod) -> bool {
    levels_of(state, pod).is_some()
}

fn measures(state: &State) -> Vec<Measure> {
    let tree = state.elastic_quota_trees().iter().next();
    tree.map(|tree| tree.spec.root.max.measures().cloned().collect()).unwrap_or_default()
}

fn amount(pod: &Pod, measure: &Measure) -> u64 {
    match measure {
        Measure::RequestsCpu => pod.spec.scheduling_request().cpu_millis,
        Measure::RequestsMemory => pod.spec.scheduling_request().memory_bytes,
        Measure::RequestsEphemeralStorage => pod.spec.scheduling_request().ephemeral_storage_bytes,
        Measure::Pods => 1,
        Measure::Extended(resource) if HugePageSize::of_resource(resource).is_some() => {
            let size = HugePageSize::of_resource(resource).expect("one of the sizes");
            pod.spec.scheduling_request().huge_pages.of(size)
        }
        Measure::Extended(resource) => {
            let all = pod.spec.containers.iter().flat_map(|container| container.extended_resources());
            all.filter(|(name, _)| *name == resource).map(|(_, amount)| amount).sum()
        }
        _ => 0,
    }
}

fn has_room(pod: &Pod) -> bool {
    pod.node.is_some() && !pod.status.phase.is_terminal()
}

fn waits_with_room_kept(pod: &Pod) -> bool {
    pod.node.is_none()
        && !pod.meta.is_deleting()
        && !pod.status.phase.is_terminal()
        && pod.status.nominated_node.get().is_some()
}

/// What some pods below a level ask for together.
fn sum(state: &State, level: &ElasticQuota, measure: &Measure, counts: impl Fn(&Pod) -> bool) -> u64 {
    let is_below = |pod: &Pod| {
        levels_of(state, pod).is_some_and(|levels| levels.iter().any(|one| one.name == level.name))
    };
    let pods = state.pods().iter().filter(|pod| counts(pod) && is_below(pod));
    pods.map(|pod| amount(pod, measure)).sum()
}

/// Whether every level of a pod stays within its max with it once certain pods and all that end have gone, beside what is kept
/// for others that wait. True of a pod that is in no tree.
#[must_use]
pub fn fits_without(state: &State, pod: &Pod, gone: &[ObjectId]) -> bool {
    let counts = |other: &Pod| {
        let stays = has_room(other) && !other.meta.is_deleting() && !gone.contains(&other.meta.id);
        other.meta.id != pod.meta.id && (stays || waits_with_room_kept(other))
    };
    fits_beside(state, pod, counts)
}

fn fits_beside(state: &State, pod: &Pod, counts: impl Fn(&Pod) -> bool) -> bool {
    let measures = measures(state);
    levels_of(state, pod).into_iter().flatten().all(|level| {
        measures.iter().filter(|measure| amount(pod, measure) > 0).all(|measure| {
            let held = sum(state, level, measure, &counts) + amount(pod, measure);
            level.max.of(measure).is_none_or(|max| held <= max)
        })
    })
}

/// Whether a pod may wait although it fits somewhere: the tree has no room for it, or takes room back for another.
#[must_use]
pub fn may_wait(state: &State, pod: &Pod) -> bool {
    let counts =
        |other: &Pod| other.meta.id != pod.meta.id && (has_room(other) || waits_with_room_kept(other));
    let takes_back = || {
        let mut waiting = state.pods().iter().filter(|other| waits_with_room_kept(other));
        waiting.any(|other| is_in_tree(state, other))
    };
    is_in_tree(state, pod) && (!fits_beside(state, pod, counts) || takes_back())
}

/// Whether a pod would be within its leaf's min.
fn is_own(state: &State, pod: &Pod) -> bool {
    let Some(leaf) = levels_of(state, pod).and_then(|levels| levels.last().copied()) else { return false };
    let counts = |other: &Pod| {
        let stays = has_room(other) && !other.meta.is_deleting();
        other.meta.id != pod.meta.id && (stays || waits_with_room_kept(other))
    };
    measures(state).iter().filter(|measure| amount(pod, measure) > 0).all(|measure| {
        sum(state, leaf, measure, counts) + amount(pod, measure) <= leaf.min.of(measure).unwrap_or(0)
    })
}

fn stays(pod: &Pod) -> bool {
    has_room(pod) && !pod.meta.is_deleting()
}

/// Whether one pod may end for another, by priority or because it holds what its leaf has borrowed.
#[must_use]
pub fn may_end(state: &State, pod: &Pod, victim: &Pod) -> bool {
    let (own, theirs) = (priority(state, pod), priority(state, victim));
    let is_lower = theirs.is_some() && own.is_some() && theirs < own;
    let leaf = |pod: &Pod| levels_of(state, pod).and_then(|levels| levels.last().copied());
    let (Some(mine), Some(others)) = (leaf(pod), leaf(victim)) else { return is_lower };
    if mine.name == others.name {
        return is_lower;
    }
    let is_borrowed = |measure: &Measure| {
        amount(pod, measure) > 0
            && amount(victim, measure) > 0
            && sum(state, others, measure, stays) > others.min.of(measure).unwrap_or(0)
    };
    is_own(state, pod) && theirs.is_some() && measures(state).iter().any(is_borrowed)
}

/// A leaf, other than a pod's own, that falls below its min when these pods end for that one.
#[must_use]
pub fn fallen(state: &State, pod: &Pod, victims: &[ObjectId]) -> Option<String> {
    let own = levels_of(state, pod)?.last()?.name.clone();
    let victims: Vec<&Arc<Pod>> = victims.iter().filter_map(|id| state.pods().get(*id)).collect();
    let leaves = victims.iter().filter_map(|victim| levels_of(state, victim)?.last().copied());
    let mut leaves = leaves.filter(|leaf| leaf.name != own);
    let falls = |leaf: &&ElasticQuota| {
        measures(state).iter().any(|measure| {
            let min = leaf.min.of(measure).unwrap_or(0);
            let was = sum(state, leaf, measure, stays);
            let is = sum(state, leaf, measure, |one| {
                stays(one) && !victims.iter().any(|victim| victim.meta.id == one.meta.id)
            });
            was >= min && is < min
        })
    };
    leaves.find(falls).map(|leaf| leaf.name.to_string())
}

/// Judges the bindings of a transaction by the States before and after it: no level has more than its max, unless that was
/// lowered, and then it gets no more.
///
/// # Errors
/// What is wrong.
pub fn judge(before: &State, after: &State, transaction: &Transaction) -> Result<(), String> {
    for event in &transaction.events {
        let EventKind::PodBound(binding) = &event.kind else { continue };
        let Some(pod) = before.pods().get(binding.pod) else { continue };
        for level in levels_of(before, pod).into_iter().flatten() {
            for measure in measures(before) {
                let held = sum(after, level, &measure, has_room);
                let max = level.max.of(&measure).unwrap_or(u64::MAX);
                if held > max && held > sum(before, level, &measure, has_room) {
                    return Err(format!(
                        "level {} holds {held} of {}, and may hold {max}",
                        level.name,
                        measure.name()
                    ));
                }
            }
        }
    }
    Ok(())
}
