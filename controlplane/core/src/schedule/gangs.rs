//! Groups end whole for others: a pod without which its group has fewer than it must have takes all of that along.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bulkhead_types::{ObjectId, Pod, PodGroupKey, QUEUES_LEVEL};

use super::held::HeldPod;
use crate::pod_group::{self, Standing, key_of};
use crate::{State, priority};

/// Pods that end together or not at all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unit {
    /// On the node that is looked at.
    pub(crate) here: Vec<HeldPod>,
    /// On others.
    elsewhere: Vec<HeldPod>,
}

impl Unit {
    pub(crate) fn pods(&self) -> impl Iterator<Item = HeldPod> + '_ {
        self.here.iter().chain(&self.elsewhere).copied()
    }
}

/// A group of which not all that are on a node may end alone.
#[derive(Debug)]
struct Gang {
    /// Pods of it on other nodes; `None` when one of them may not end for whom it is asked.
    elsewhere: Option<Vec<HeldPod>>,
    /// Those here that may end alone, the least important first.
    surplus: Vec<ObjectId>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Gangs {
    gangs: BTreeMap<PodGroupKey, Gang>,
    of: BTreeMap<ObjectId, PodGroupKey>,
}

impl Gangs {
    /// Of pods that may all end for who asks; `may_end` says whether others of their groups may, by their priorities.
    /// Those that are `gone` end already.
    pub(crate) fn of(
        state: &State,
        below: &[HeldPod],
        gone: &BTreeSet<ObjectId>,
        may_end: impl Fn(&Pod, i32) -> bool,
    ) -> Self {
        let mut gangs = Self::default();
        if state.feature_level() < QUEUES_LEVEL {
            return gangs;
        }
        let mut here = BTreeMap::<PodGroupKey, Vec<HeldPod>>::new();
        for pod in below {
            if let Some(key) = state.pods().get(pod.id).and_then(|pod| key_of(state, pod)) {
                here.entry(key).or_default().push(*pod);
            }
        }
        for (key, pods) in here {
            let standing = Standing::of(state, &key);
            let task = |id: ObjectId| state.pods().get(id).map_or("", |pod| pod.task());
            let ended: Vec<ObjectId> = match gone.is_empty() {
                true => Vec::new(),
                false => pod_group::holders(state, &key)
                    .map(|pod| pod.meta.id)
                    .filter(|id| gone.contains(id))
                    .collect(),
            };
            if !standing.breaks_without(ended.iter().copied().chain(pods.iter().map(|pod| pod.id)).map(task))
            {
                continue;
            }
            let mut surplus = Vec::new();
            for pod in &pods {
                let with = ended.iter().chain(&surplus).copied().chain([pod.id]);
                if !standing.breaks_without(with.map(task)) {
                    surplus.push(pod.id);
                }
            }
            let is_here = |id: ObjectId| pods.iter().any(|pod| pod.id == id);
            let stays = |pod: &&Arc<Pod>| !is_here(pod.meta.id) && !gone.contains(&pod.meta.id);
            let elsewhere = pod_group::holders(state, &key).filter(stays).map(|pod| {
                let theirs = priority::of(state, &pod.spec).map(|theirs| theirs.value);
                theirs.filter(|theirs| may_end(pod, *theirs)).map(|priority| HeldPod {
                    id: pod.meta.id,
                    priority,
                    bound_at_ms: pod.status.bound_at_ms,
                    request: pod.spec.scheduling_request(),
                })
            });
            let elsewhere = elsewhere.collect();
            gangs.of.extend(pods.iter().map(|pod| (pod.id, key.clone())));
            gangs.gangs.insert(key, Gang { elsewhere, surplus });
        }
        gangs
    }

    /// Whether every pod ends for itself.
    pub(crate) fn is_empty(&self) -> bool {
        self.gangs.is_empty()
    }

    /// What may end, the least important first, groups after others of the same priority: groups as wholes, or only those of
    /// them that they can spare.
    pub(crate) fn units(&self, below: &[HeldPod], as_wholes: bool) -> Vec<Unit> {
        let mut units = Vec::with_capacity(below.len());
        let mut wholes = BTreeMap::<&PodGroupKey, Unit>::new();
        for pod in below {
            let single = || Unit { here: vec![*pod], elsewhere: Vec::new() };
            let Some(key) = self.of.get(&pod.id) else {
                units.push(single());
                continue;
            };
            let gang = &self.gangs[key];
            match (as_wholes, &gang.elsewhere) {
                (true, Some(elsewhere)) => {
                    let whole = wholes
                        .entry(key)
                        .or_insert_with(|| Unit { here: Vec::new(), elsewhere: elsewhere.clone() });
                    whole.here.push(*pod);
                }
                (false, _) if gang.surplus.contains(&pod.id) => units.push(single()),
                _ => {}
            }
        }
        if !wholes.is_empty() {
            units.extend(wholes.into_values());
            let highest = |unit: &Unit| unit.pods().map(|pod| pod.priority).max();
            units.sort_by_key(|unit| (highest(unit), unit.pods().count() > 1));
        }
        units
    }
}
