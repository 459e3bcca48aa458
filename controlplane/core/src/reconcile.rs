//! Reconcilers: what the State is, and what it should be, become commands. They run on the leader only.
//!
//! ```text
//!  changes ──observe──► dirty sets ──run(State, now)──► proposals ──► log ──► decide ──► changes ─┐
//!     ▲                                   ▲                              │                        │
//!     └───────────────────────────────────┼──────────────────────────────┼────────────────────────┘
//!                                         └── settled (applied, refused, dropped)
//! ```
//!
//! A reconciler runs again only when nothing of it is in flight, so it always sees its own writes. What it
//! looked at is checked again by `decide`: a stale leader may propose nonsense, but never do harm. Nothing in
//! here is replicated: a new leader starts from [`Reconcilers::reset`].

mod autoscaler;
mod backoff;
mod blocked;
mod conditions;
mod cron_autoscaler;
mod cron_job;
mod daemon_set;
pub(crate) mod deployment;
mod descheduler;
mod device_classes;
mod device_labels;
mod disruption;
mod elastic;
mod elastic_quota;
mod eviction_rate;
pub mod fencing;
mod garbage;
mod history;
mod job;
mod looks;
mod names;
mod node_lifecycle;
mod node_operation;
mod node_pool;
mod pod_group;
mod queue;
mod quota;
mod replica_set;
mod resize;
mod soft;
mod sriov;
mod stateful_set;
mod tally;
mod vertical_autoscaler;

use bulkhead_canary::planted;
use bulkhead_types::{Command, Pod, ReplicaSet};

use crate::schedule::Scheduler;
use crate::{Change, State};

use queue::work_off;

pub use eviction_rate::EvictionRates;
pub(crate) use queue::Queue;
pub use soft::{MetricAnswer, MetricSample, Sample, SoftState, USAGE_AGE_MS_MAX};
pub(crate) use tally::Tallies;

/// Commands that one reconciler proposes per run, at most (the last object that it looks at may exceed it by
/// what that object needs).
pub(crate) const COMMANDS_PER_RUN: usize = 128;
/// Objects that one reconciler looks at per run, at most.
pub(crate) const OBJECTS_PER_RUN: usize = 512;

/// Reconcilers that have no part in a trial.
const OFF_TRIAL: [&str; 8] = [
    "descheduler",
    "node-lifecycle",
    "node-operation",
    "cron-job",
    "cron-autoscaler",
    "autoscaler",
    "vertical-autoscaler",
    "garbage",
];

/// What reconcilers look at.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The State, with every settled proposal applied.
    pub state: &'a State,
    /// The leader's clock, milliseconds since the epoch; never before `state.now_ms()`.
    pub now_ms: u64,
    /// The leader's monotonic clock, milliseconds since its process began; it may show too little, never too much.
    pub up_ms: u64,
    /// What only the leader knows.
    pub soft: &'a SoftState,
}

/// What an operator may choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReconcileConfig {
    /// How long a node may be silent before it is unreachable, in milliseconds.
    pub lease_ms: u64,
    /// How long a node may be unreachable before its pods are replaced, in milliseconds (Kubernetes adds a
    /// toleration of 300 seconds by default). Pods that must be unique are replaced when it is fenced.
    pub eviction_ms: u64,
    /// How fast that goes when many nodes are unreachable.
    pub eviction_rates: EvictionRates,
    /// How long a node may take from the end of its lease until the last guest that must be unique is dead, in
    /// milliseconds.
    pub fence_kill_ms: u64,
    /// How many pods that ended are kept for their logs; the oldest go first.
    pub terminated_pods_max: usize,
}

impl Default for ReconcileConfig {
    fn default() -> Self {
        Self {
            lease_ms: 10_000,
            eviction_ms: 300_000,
            eviction_rates: EvictionRates::default(),
            fence_kill_ms: fencing::FENCE_KILL_MS_DEFAULT,
            terminated_pods_max: 1000,
        }
    }
}

/// One command that a reconciler wants. Each is submitted, and refused, alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Who wants it; the actor is `system:<reconciler>`.
    pub reconciler: &'static str,
    /// What.
    pub command: Command,
}

/// A [`Context`] with what all reconcilers share.
pub(crate) struct View<'a> {
    pub(crate) state: &'a State,
    pub(crate) now_ms: u64,
    pub(crate) up_ms: u64,
    pub(crate) soft: &'a SoftState,
    pub(crate) tallies: &'a Tallies,
    pub(crate) config: &'a ReconcileConfig,
}

/// One family of rules.
pub(crate) trait Reconciler: Send {
    /// Its name, as in `system:<name>`.
    fn name(&self) -> &'static str;
    /// Forgets everything, and takes everything in the State for dirty.
    fn reset(&mut self, state: &State);
    /// Notes what an applied change makes dirty. Cheap.
    fn observe(&mut self, change: &Change);
    /// Notes that time alone changed a ReplicaSet's availability.
    fn availability_changed(&mut self, _set: &ReplicaSet) {}
    /// Looks at what is dirty or due, within the bounds above. Called only when all earlier commands settled.
    fn reconcile(&mut self, view: &View<'_>) -> Vec<Command>;
    /// When to look again, milliseconds since the epoch; 0 for at once.
    fn next_wake_ms(&self) -> Option<u64>;
}

struct Entry {
    reconciler: Box<dyn Reconciler>,
    in_flight: usize,
}

/// All reconcilers of a leader.
pub struct Reconcilers {
    config: ReconcileConfig,
    tallies: Tallies,
    entries: Vec<Entry>,
}

impl std::fmt::Debug for Reconcilers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let in_flight = self.entries.iter().map(|e| (e.reconciler.name(), e.in_flight));
        f.debug_map().entries(in_flight).finish()
    }
}

impl Reconcilers {
    /// Reconcilers that know of nothing yet: call [`Self::reset`] before the first run.
    #[must_use]
    pub fn new(config: ReconcileConfig) -> Self {
        let reconcilers: Vec<Box<dyn Reconciler>> = vec![
            Box::new(node_lifecycle::NodeLifecycle::default()),
            Box::new(deployment::Deployments::default()),
            Box::new(replica_set::ReplicaSets::default()),
            Box::new(stateful_set::StatefulSets::default()),
            Box::new(daemon_set::DaemonSets::default()),
            Box::new(cron_job::CronJobs::default()),
            Box::new(job::Jobs::default()),
            Box::new(elastic::ElasticWorkloads::default()),
            Box::new(cron_autoscaler::CronAutoscalers::default()),
            Box::new(autoscaler::Autoscalers::default()),
            Box::new(vertical_autoscaler::VerticalAutoscalers::default()),
            Box::new(disruption::Budgets::default()),
            Box::new(pod_group::PodGroups::default()),
            Box::new(quota::Quotas::default()),
            Box::new(elastic_quota::ElasticQuotas::default()),
            Box::new(device_classes::DeviceClasses::default()),
            Box::new(device_labels::NodeLabels::default()),
            Box::new(sriov::SriovPolicies::default()),
            Box::new(node_pool::NodePools::default()),
            Box::new(node_operation::NodeOperations::default()),
            Box::new(descheduler::Deschedulers::default()),
            Box::new(resize::Resizes::default()),
            Box::new(Scheduler::default()),
            Box::new(garbage::Garbage::default()),
        ];
        let entries = reconcilers.into_iter().map(|reconciler| Entry { reconciler, in_flight: 0 }).collect();
        Self { config, tallies: Tallies::default(), entries }
    }

    /// Those that go by what the State says, and not by calendars, measurements or silence: for a trial, in which nothing is
    /// heard and time only passes to see how it ends.
    #[must_use]
    pub fn on_trial(config: ReconcileConfig) -> Self {
        let mut all = Self::new(config);
        all.entries.retain(|entry| !OFF_TRIAL.contains(&entry.reconciler.name()));
        all
    }

    /// Starts over, as a new leader does once its term's first entry was applied: everything is dirty and
    /// nothing is in flight. Costs time in proportion to the State.
    pub fn reset(&mut self, state: &State) {
        self.tallies.reset(state);
        for entry in &mut self.entries {
            entry.in_flight = 0;
            entry.reconciler.reset(state);
        }
    }

    /// Notes an applied change. To be called for every one, in order, before the next run.
    pub fn observe(&mut self, change: &Change) {
        self.tallies.observe(change);
        for entry in &mut self.entries {
            entry.reconciler.observe(change);
        }
    }

    /// Runs every reconciler that has something to do and nothing in flight. A bounded amount per call.
    pub fn run(&mut self, cx: &Context<'_>) -> Vec<Proposal> {
        for id in self.tallies.advance(cx.state, cx.now_ms) {
            let Some(set) = cx.state.replica_sets().get(id) else { continue };
            for entry in &mut self.entries {
                entry.reconciler.availability_changed(set);
            }
        }
        let mut proposals = Vec::new();
        let may_run = |e: &&mut Entry| e.in_flight == 0 || planted!("canary_blind_to_own_writes");
        for entry in self.entries.iter_mut().filter(may_run) {
            if entry.reconciler.next_wake_ms().is_none_or(|wake_ms| wake_ms > cx.now_ms) {
                continue;
            }
            let view = View {
                state: cx.state,
                now_ms: cx.now_ms,
                up_ms: cx.up_ms,
                soft: cx.soft,
                tallies: &self.tallies,
                config: &self.config,
            };
            let commands = entry.reconciler.reconcile(&view);
            entry.in_flight = commands.len();
            let reconciler = entry.reconciler.name();
            proposals.extend(commands.into_iter().map(|command| Proposal { reconciler, command }));
        }
        proposals
    }

    /// Notes that one proposal of a reconciler was applied, refused or dropped. When it was applied, its
    /// changes were observed before.
    pub fn settled(&mut self, reconciler: &'static str) {
        if let Some(entry) = self.entries.iter_mut().find(|e| e.reconciler.name() == reconciler) {
            // After a reset, answers to proposals of before may still arrive.
            entry.in_flight = entry.in_flight.saturating_sub(1);
        }
    }

    /// When to run again although nothing changed, milliseconds since the epoch; 0 for at once.
    #[must_use]
    pub fn next_wake_ms(&self) -> Option<u64> {
        let idle = self.entries.iter().filter(|e| e.in_flight == 0);
        idle.filter_map(|e| e.reconciler.next_wake_ms()).chain(self.tallies.next_wake_ms()).min()
    }
}

/// Neither ending nor ended.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !pod.meta.is_deleting() && !pod.status.phase.is_terminal()
}

/// Active, and ready for `min_ready_ms` at least.
pub(crate) fn is_available(pod: &Pod, min_ready_ms: u64, now_ms: u64) -> bool {
    is_active(pod) && pod.status.ready && pod.status.ready_since_ms.saturating_add(min_ready_ms) <= now_ms
}
