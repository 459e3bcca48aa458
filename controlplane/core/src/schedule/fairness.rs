//! Who is next among pods of the same priority: the queue with the smallest share, and in it the job with the smallest.
//!
//! Source: "Dominant Resource Fairness" (Ghodsi et al., 2011). A share is the largest fraction of any resource that is used,
//! of queues divided by their weight; a job's share counts what it is about to get, so that the smaller of two that have
//! nothing yet goes first. Only as long as somebody waits in another queue than the default one, or with a PodGroup, is
//! anything of this looked at.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_types::{Measure, Name, QUEUE_DEFAULT};

use crate::State;
use crate::elastic_quota::ElasticLedger;
use crate::queue::{self, QueueLedger};
use crate::state::{Charge, QuotaUse};

/// A share is counted in so many parts of the whole.
const WHOLE: u128 = 1_000_000_000;

/// The shares of a queue and of a job, in parts of a billion; the smaller goes first.
pub(crate) type Rank = (u64, u64);

/// Whom a shape's pods count for. `None` is the default queue.
type QueueKey = Option<Name>;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Fairness {
    /// What the cluster has; empty while nobody asks.
    total: BTreeMap<Measure, u128>,
    /// What queues use, decisions of this run included, and their weights. Empty with one queue only.
    queues: BTreeMap<QueueKey, (QuotaUse, u32)>,
    /// What this run has given to queues.
    pub(crate) ledger: QueueLedger,
    /// What it has given in the elastic quota tree.
    pub(crate) elastic: ElasticLedger,
}

impl Fairness {
    /// A run begins, with pods of these queues waiting; jobs are compared when some are known.
    pub(crate) fn begin(&mut self, state: &State, queues: &BTreeSet<QueueKey>, are_jobs: bool) {
        *self = Self::default();
        let are_many = queues.iter().any(Option::is_some);
        if !are_many && !are_jobs {
            return;
        }
        let mut used = self.count(state);
        if !are_many {
            return;
        }
        for queue in queues {
            let name = queue.as_ref().map_or(QUEUE_DEFAULT, |name| name.as_str());
            let object = Name::new(name).ok().and_then(|name| queue::find(state, &name));
            let weight = object.map_or(1, |queue| queue.spec.weight.max(1));
            let own = queue.as_ref().and_then(|name| state.queue_use.of_queue(name));
            let own = own.map(|own| QuotaUse::clone(own)).unwrap_or_default();
            self.queues.insert(queue.clone(), (own, weight));
        }
        // What is used of no other queue is used of the default one.
        for own in state.queue_use.queues() {
            used.subtract_all_of(own);
        }
        if let Some(default) = self.queues.get_mut(&None) {
            default.0 = used;
        }
    }

    /// What there is, and what of it is used. Costs time in proportion to the number of nodes.
    fn count(&mut self, state: &State) -> QuotaUse {
        let mut used = QuotaUse::NONE;
        for node in state.nodes().iter() {
            let (has, usage) = (node.status.facts.allocatable, state.node_usage(node.meta.id));
            let plain = [
                (Measure::RequestsCpu, has.cpu_millis, usage.requests.cpu_millis),
                (Measure::RequestsMemory, has.memory_bytes, usage.requests.memory_bytes),
            ];
            let counts = state.node_devices(node.meta.id).map(|devices| devices.counts()).unwrap_or_default();
            let devices = counts
                .into_iter()
                .map(|(resource, count)| (Measure::Extended(resource), count.allocatable, count.allocated));
            let pages = has.huge_pages.sizes().map(|(size, bytes)| {
                (Measure::of_huge_pages(size), bytes, usage.requests.huge_pages.of(size))
            });
            for (measure, has, uses) in plain.into_iter().chain(devices).chain(pages) {
                used.add_amount(&measure, uses);
                *self.total.entry(measure).or_insert(0) += u128::from(has);
            }
        }
        used
    }

    fn share(&self, used: impl Fn(&Measure) -> u128) -> u128 {
        let part = |(measure, total): (&Measure, &u128)| (used(measure) * WHOLE).checked_div(*total);
        self.total.iter().filter_map(part).max().unwrap_or(0)
    }

    /// Whether shares of queues change with what is placed.
    pub(crate) fn are_many(&self) -> bool {
        !self.queues.is_empty()
    }

    /// The share of a job with what it has and is about to get.
    pub(crate) fn job_share(&self, used: &QuotaUse) -> u64 {
        u64::try_from(self.share(|measure| used.of(measure))).unwrap_or(u64::MAX)
    }

    /// The share of a queue by its weight.
    pub(crate) fn queue_share(&self, queue: &QueueKey) -> u64 {
        let Some((used, weight)) = self.queues.get(queue) else { return 0 };
        let share = self.share(|measure| used.of(measure)) / u128::from(*weight);
        u64::try_from(share).unwrap_or(u64::MAX)
    }

    /// Something of a queue gets room in this run.
    pub(crate) fn took(&mut self, queue: &QueueKey, charge: &Charge) {
        if let Some((used, _)) = self.queues.get_mut(queue) {
            used.add(charge);
        }
        if let Some(name) = queue {
            self.ledger.take(name, charge);
        }
    }
}
