//! What must never be, one file per property.
//!
//! | file | property | looked at |
//! |---|---|---|
//! | `digests` | replicas with the same applied index have the same digest | after every entry of every server |
//! | `prefix` | all replicas apply the same transactions at the same index | after every entry of every server |
//! | `acknowledged` | what a client was told is what the log says, for ever | at every answer, and at the end |
//! | `answers` | the same request id gets the same answer, whoever is asked | when clients ask again |
//! | `exactly_once` | a request happens at most once, and never when it was refused | at every new entry |
//! | `revisions` | revisions grow by one, log time never goes back, a stale precondition never holds | at every new entry |
//! | `reads` | a confirmed read sees everything that was acknowledged before it was asked for, another one the revision that it asked for | at every read |
//! | `linearizability` | puts, compare-and-sets, deletions and reads of an object have an order that explains all answers | at the end |
//! | `watch` | streams have every change once, in order, whole transactions, true bookmarks, and go on elsewhere without a gap | at every message to a watcher |
//! | `history` | a server's event store is what the log says, and begins anew only after a peer's snapshot | at every start, and at the end |
//! | `binding` | a pod is bound to a node that is ready, not cordoned and has the room, at that very moment | at every binding |
//! | `placement` | affinity, anti-affinity from both sides and spreading hold, at that very moment | at every binding |
//! | `preemption` | who ends for a higher one is lower, needed and allowed to; nobody waits for whom others would end | at every new entry, and at the end |
//! | `queues` | groups of pods are bound as wholes, queues hold no more than their capability and get nothing while they are closed | at every new entry |
//! | `node_pools` | a pool changes nothing of a node that is the node's own, and no operation has more nodes in work than its batch | at every new entry |
//! | `descheduler` | a policy leaves owners alone as long as it says, and evicts nobody in a dry run | at every run of one |
//! | `elastic` | no level of the elastic quota tree gets more than its max | at every new entry |
//! | `cpus` | no CPU that a pod has for itself has two holders, in the log and among living guests, and each is where its policy wants it | at every binding, and every start of a guest |
//! | `ports` | no port of a node is published by two pods, and none where the agent cannot | at every binding |
//! | `images` | what is known of nodes' images is what they have | at the end |
//! | `devices` | no card has two holders, in the log and among living guests, and none is given away that is not well | at every binding, and every start of a guest |
//! | `garbage` | the garbage collector takes only what nobody wants | at every deletion of its |
//! | `membership` | Raft's configuration is what State says of the members | after every entry of every server |
//! | `promises` | term, vote and log that a server told its peers survive its crash | at every start |
//! | `reports` | what an agent was told is known is in the log | at every acknowledgement |
//! | `leases` | a node is called unreachable only after its agent's lease | at every node that is lost |
//! | `ledger` | no node is oversubscribed, no index drifts from its objects | every few hundred entries, and at the end |
//! | `rebuilt` | State from events, and from a snapshot and what follows it, equals live State | every few hundred entries, at every start |
//! | `physical` | what guests hold fits their node; a pod has one guest, where it was bound; what is gone is gone | at every change of a guest |
//! | `unique` | a pod that must be unique lives once, and never longer than its node's lease, whether its agent lives or not | at every start and end of a guest, and every few seconds |
//! | `stateful_set` | ordinals come, go and are replaced in their order and within their bound, one pod of each | at every creation and deletion by its reconciler |
//! | `daemon_set` | nodes that suit get one pod, two with a surge, and no more are without than allowed | at every creation and deletion by its reconciler |
//! | `rollout` | a rollout keeps to its surge and to its unavailable | at every change of a ReplicaSet's size |
//! | `delivery` | a delivery by steps has no more new pods than its step allows, and passes over no pause | at every change of a ReplicaSet's size, and of a step |
//! | `progress` | a rollout ends, also on a full cluster: it stands still only where its bounds leave it no step | at the end |
//! | `job_ends` | the end of each pod of a Job is counted once, as a success only when its guest said so | at every new entry |
//! | `jobs` | a Job that gets a pod has no more than its parallelism; its result is final | at every new entry |
//! | `cron_jobs` | a CronJob starts at most one job for each time | at every new entry |
//! | `autoscaling` | an autoscaler keeps to its bounds, and is no faster than its policies | at every new entry |
//! | `volumes` | a volume has one writer and is not written to while it is copied; nothing is deleted that is needed; nothing shrinks | at every start of a guest, task and deletion, and at every new entry |
//! | `resizes` | guests that change fit their node, no pod has more than it was given, and no resize is left that could be done | at every resize of a guest, and at the end |
//! | `convergence` | after the faults everything satisfiable runs and nothing else does | at the end |
//!
//! The model has no devices, because the control plane has none yet. Clients ask for no quotas: that what namespaces,
//! projects and departments have is counted rightly is a part of `ledger`; that nothing goes above a quota is not looked at
//! here, but by the laws of `controlplane/core/tests/reconcile/quota_laws.rs`.

pub mod acknowledged;
pub mod answers;
pub mod autoscaling;
pub mod binding;
pub mod convergence;
pub mod cpus;
pub mod cron_jobs;
pub mod daemon_set;
pub mod delivery;
pub mod descheduler;
pub mod devices;
pub mod digests;
pub mod elastic;
pub mod exactly_once;
pub mod garbage;
pub mod history;
pub mod images;
pub mod job_ends;
pub mod jobs;
pub mod leases;
pub mod ledger;
pub mod linearizability;
pub mod membership;
pub mod networks;
pub mod node_pools;
pub mod physical;
pub mod placement;
pub mod ports;
pub mod preemption;
pub mod prefix;
pub mod progress;
pub mod promises;
pub mod queues;
pub mod reads;
pub mod rebuilt;
pub mod reports;
pub mod resizes;
pub mod revisions;
pub mod rollout;
#[cfg(test)]
mod sets;
pub mod stateful_set;
pub mod unique;
pub mod volumes;
pub mod watch;

/// Something that must never be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which property does not hold.
    pub invariant: &'static str,
    /// What was seen.
    pub detail: String,
}

impl Violation {
    /// A violation of a property.
    #[must_use]
    pub fn new(invariant: &'static str, detail: impl Into<String>) -> Self {
        Self { invariant, detail: detail.into() }
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.invariant, self.detail)
    }
}

/// What a checker says.
pub type Verdict = Result<(), Violation>;

/// A violation unless this holds.
pub(crate) fn ensure(holds: bool, invariant: &'static str, detail: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(Violation::new(invariant, detail())) }
}
