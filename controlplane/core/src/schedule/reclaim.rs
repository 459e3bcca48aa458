//! Who takes back from whom in the elastic quota tree: pods of other leaves that have borrowed, for pods of a leaf that is within
//! its own min.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use bulkhead_types::{Kind, ObjectId, Pod};

use super::gangs::{Gangs, Unit};
use super::held::HeldPod;
use crate::State;
use crate::elastic_quota::{Ask, ElasticLedger};
use crate::priority::Priorities;

/// Of a pod in the tree that fits nowhere.
#[derive(Clone)]
pub(crate) struct Reclaim {
    pub(crate) ask: Ask,
    /// Whether it takes what is its leaf's own.
    is_own: bool,
    priority: i32,
    /// What is used, with what this run has done.
    pub(crate) ledger: ElasticLedger,
    /// Whose end makes room in levels that are full, wherever they are; the least important first.
    pub(crate) pool: Arc<Vec<Unit>>,
}

impl Reclaim {
    pub(crate) fn new(
        state: &State,
        priorities: &Priorities,
        (ask, priority): (Ask, i32),
        ledger: &ElasticLedger,
    ) -> Self {
        let is_own = ledger.is_within_min(state, &ask);
        let mut reclaim = Self { ask, is_own, priority, ledger: ledger.clone(), pool: Arc::default() };
        reclaim.pool = Arc::new(reclaim.find_pool(state, priorities));
        reclaim
    }

    /// The same after more was done in this run; what may end by then is asked of each again.
    pub(crate) fn again(&self, state: &State, ledger: &ElasticLedger) -> Self {
        let is_own = ledger.is_within_min(state, &self.ask);
        Self { is_own, ledger: ledger.clone(), ..self.clone() }
    }

    fn find_pool(&self, state: &State, priorities: &Priorities) -> Vec<Unit> {
        let full = self.ledger.full_levels(state, &self.ask);
        if full.is_empty() {
            return Vec::new();
        }
        let levels = &self.ask.levels;
        let is_below = |leaf| levels.path(leaf).any(|level| full.contains(&level));
        let mut pool = Vec::new();
        for (namespace, _) in levels.namespaces().filter(|(_, leaf)| is_below(*leaf)) {
            let pods = state.index.of_kind(Kind::Pod, Some(namespace)).filter_map(|id| state.pods().get(id));
            let stays = |pod: &&Arc<Pod>| {
                pod.node.is_some() && !pod.status.phase.is_terminal() && !pod.meta.is_deleting()
            };
            pool.extend(pods.filter(stays).filter_map(|pod| {
                let priority = priorities.of(pod.spec.priority_class())?.value;
                let (id, request) = (pod.meta.id, pod.spec.scheduling_request());
                let held = HeldPod { id, priority, bound_at_ms: pod.status.bound_at_ms, request };
                self.may_end(state, pod, priority).then_some(held)
            }));
        }
        sort(state, &mut pool);
        self.gangs(state, &pool).units(&pool, true)
    }

    /// Which of these end only with others.
    pub(crate) fn gangs(&self, state: &State, pods: &[HeldPod]) -> Gangs {
        Gangs::of(state, pods, &BTreeSet::new(), |pod, priority| self.may_end(state, pod, priority))
    }

    /// Whether a pod may end for this one.
    pub(crate) fn may_end(&self, state: &State, victim: &Pod, priority: i32) -> bool {
        let who = (&self.ask, self.is_own);
        !self.ledger.ends(victim.meta.id) && self.ledger.may_end(state, who, priority < self.priority, victim)
    }

    /// The same by its id.
    pub(crate) fn may_end_held(&self, state: &State, victim: &HeldPod) -> bool {
        state.pods().get(victim.id).is_some_and(|pod| self.may_end(state, pod, victim.priority))
    }
}

/// The lowest priority first, of equals those that are not ready, and of those the one that came last.
pub(crate) fn sort(state: &State, pods: &mut [HeldPod]) {
    let is_ready = |id: ObjectId| state.pods().get(id).is_some_and(|pod| pod.status.ready);
    pods.sort_by_cached_key(|pod| {
        (pod.priority, is_ready(pod.id), Reverse(pod.bound_at_ms), Reverse(pod.id))
    });
}
