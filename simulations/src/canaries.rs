//! The table of planted bugs: mistakes that systems like this one have made, each behind a feature of its own.
//!
//! `make canaries` lets the simulator find them, one at a time. One that it does not find says that the workload, the
//! faults or the invariants are too weak there; one that can do no harm, because another layer saves it, does not
//! belong here. Where each was found is in `docs/canaries.md`.
//!
//! A new one: a line with `planted!("canary_…")` of the crate `bulkhead-canary` where it belongs, a feature in that
//! crate's manifest and in this one's, and a row here. `tests/canaries.rs` holds the four against each other.

use std::cell::Cell;

use bulkhead_types::digest128;

/// A planted bug.
#[derive(Clone, Copy, Debug)]
pub struct Canary {
    /// The feature that it is behind.
    pub name: &'static str,
    /// Where it is planted, below the root of the repository.
    pub place: &'static str,
    /// What is wrong.
    pub breaks: &'static str,
    /// The invariants that are expected to see it first; `panic` for an assertion of the code itself.
    pub seen_by: &'static [&'static str],
    /// Seeds that may be needed to find it.
    pub seeds: u64,
}

/// Seeds for most of them: several times what was needed.
const SEEDS: u64 = 40;
/// Seeds for those that need a coincidence.
const SEEDS_RARE: u64 = 200;

const fn canary(
    name: &'static str,
    place: &'static str,
    breaks: &'static str,
    seen_by: &'static [&'static str],
) -> Canary {
    Canary { name, place, breaks, seen_by, seeds: SEEDS }
}

const fn rare(
    name: &'static str,
    place: &'static str,
    breaks: &'static str,
    seen_by: &'static [&'static str],
) -> Canary {
    Canary { seeds: SEEDS_RARE, ..canary(name, place, breaks, seen_by) }
}

const REPLICA: &str = "controlplane/core/src/replica.rs";
const LOG_VIEW: &str = "controlplane/core/src/replica/log_view.rs";
const SERVER: &str = "controlplane/core/src/server.rs";
const PROPOSALS: &str = "controlplane/core/src/server/proposals.rs";
const READS: &str = "controlplane/core/src/server/reads.rs";
const LEADER: &str = "controlplane/core/src/server/leader.rs";
const APPLY: &str = "controlplane/core/src/server/apply.rs";
const MEMBERSHIP: &str = "controlplane/core/src/server/membership.rs";
const SNAPSHOTS: &str = "controlplane/core/src/server/snapshots.rs";
const REQUESTS: &str = "controlplane/core/src/state/requests.rs";
const RECORDS: &str = "controlplane/core/src/state/records.rs";
const VICINITY: &str = "controlplane/core/src/placement/vicinity.rs";
const DECIDE: &str = "controlplane/core/src/decide.rs";
const DECIDE_NODES: &str = "controlplane/core/src/decide/nodes.rs";
const DECIDE_PODS: &str = "controlplane/core/src/decide/pods.rs";
const DECIDE_RECONCILERS: &str = "controlplane/core/src/decide/reconcilers.rs";
const DECIDE_GARBAGE: &str = "controlplane/core/src/decide/garbage.rs";
const RECONCILE: &str = "controlplane/core/src/reconcile.rs";
const FENCING: &str = "controlplane/core/src/reconcile/fencing.rs";
const ROLLING: &str = "controlplane/core/src/reconcile/deployment/rolling.rs";
const WATCH: &str = "controlplane/core/src/watch.rs";
const HISTORY: &str = "controlplane/disk/src/history.rs";
const AGENT: &str = "nodeagent/core/src/agent.rs";
const SESSION: &str = "nodeagent/core/src/session.rs";
const POD: &str = "nodeagent/core/src/pod/mod.rs";
const POD_MACHINE: &str = "nodeagent/core/src/pod/machine.rs";
const LOG_ENGINE: &str = "storage/src/log_engine.rs";

/// All of them.
pub const CANARIES: &[Canary] = &[
    canary(
        "canary_agent_forgets_guests",
        AGENT,
        "an agent that restarts does not adopt running guests",
        &["physical"],
    ),
    canary(
        "canary_batch_append",
        REPLICA,
        "raft 0.7.0's batch append: entries that do not exist are acknowledged",
        &["panic", "promises"],
    ),
    canary(
        "canary_blind_to_own_writes",
        RECONCILE,
        "a reconciler runs again while its own commands are under way: surge is counted twice",
        &["rollout"],
    ),
    canary(
        "canary_bundle_half_applied",
        DECIDE,
        "a refused bundle leaves what its first commands did",
        &["digests"],
    ),
    canary(
        "canary_bundle_out_of_order",
        DECIDE,
        "events of a bundle are emitted out of order",
        &["revisions"],
    ),
    canary(
        "canary_cleaned_up_before_death",
        POD_MACHINE,
        "a guest's disks and devices are freed before it is dead",
        &["physical"],
    ),
    canary(
        "canary_commit_on_election",
        REPLICA,
        "a leader applies before a quorum has it",
        &["prefix", "panic"],
    ),
    canary("canary_conf_change_twice", APPLY, "a change of the membership is applied twice", &["fatal"]),
    canary(
        "canary_create_unchecked",
        DECIDE_RECONCILERS,
        "pods are created as the reconciler asked, without another look at the set's size",
        &["rollout"],
    ),
    canary(
        "canary_dedup_window_short",
        REQUESTS,
        "answers are forgotten before retries end",
        &["exactly_once"],
    ),
    canary(
        "canary_deleted_while_running",
        DECIDE_PODS,
        "a pod's room is given away before its agent says that it is gone",
        &["physical"],
    ),
    rare(
        "canary_drop_all_ignored",
        PROPOSALS,
        "a leader that is deposed keeps who waited, and answers them by other entries",
        &["reports", "convergence"],
    ),
    canary("canary_ended_runs_again", POD, "a pod that has ended runs again", &["physical"]),
    rare(
        "canary_fenced_session_goes_on",
        DECIDE_NODES,
        "the session of a node that was fenced goes on: its guests live although others may have taken their place",
        &["physical", "unique"],
    ),
    rare(
        "canary_fenced_without_margin",
        FENCING,
        "a node is fenced after a lease, without waiting for slow clocks and slow kills",
        &["physical", "unique"],
    ),
    rare(
        "canary_flush_answers_for_later_writes",
        REPLICA,
        "one flush vouches for writes that came after it",
        &["promises"],
    ),
    canary(
        "canary_garbage_of_live_owner",
        DECIDE_GARBAGE,
        "the garbage collector takes children of an owner that lives",
        &["garbage"],
    ),
    canary(
        "canary_guard_not_armed",
        POD_MACHINE,
        "a guest that must be unique starts without a guard: nobody ends it when its agent is dead",
        &["unique", "physical"],
    ),
    canary(
        "canary_hash_order",
        DECIDE_PODS,
        "events in the order of a hash map, which differs between replicas",
        &["prefix", "digests"],
    ),
    rare(
        "canary_hasty_fence",
        LEADER,
        "a new leader does not wait until what an earlier one renewed is over before it fences a node",
        &["physical", "unique"],
    ),
    canary(
        "canary_hasty_leader",
        LEADER,
        "a new leader does not wait one lease before it calls nodes lost",
        &["leases"],
    ),
    canary("canary_learner_votes", MEMBERSHIP, "a joining learner counts as a voter", &["membership"]),
    rare(
        "canary_lease_from_receipt",
        SESSION,
        "a lease is counted from the acknowledgement's arrival instead of from the report",
        &["leases"],
    ),
    rare(
        "canary_lease_from_registration",
        SESSION,
        "an agent takes its registration for a lease",
        &["unique", "leases"],
    ),
    canary(
        "canary_log_cut_before_events",
        HISTORY,
        "events are written a moment later, and the snapshot that cuts their log does not wait for them",
        &["history"],
    ),
    canary(
        "canary_log_cut_before_snapshot",
        SNAPSHOTS,
        "the log is cut before the snapshot that covers it is durable",
        &["start"],
    ),
    canary(
        "canary_log_time_goes_back",
        DECIDE,
        "log time follows the proposer's clock backwards",
        &["revisions"],
    ),
    canary(
        "canary_one_sided_anti_affinity",
        VICINITY,
        "only the pod that keeps others off is kept off itself: those that are there are not asked",
        &["placement"],
    ),
    canary(
        "canary_outdated_intent_obeyed",
        AGENT,
        "an agent obeys an intent that is older than the last one",
        &["physical"],
    ),
    canary(
        "canary_precondition_checked_early",
        PROPOSALS,
        "preconditions are checked when a command arrives, not when it is applied",
        &["revisions"],
    ),
    canary(
        "canary_read_before_apply",
        READS,
        "a confirmed read is served before its index is applied",
        &["reads"],
    ),
    canary("canary_read_without_quorum", SERVER, "a read is served without asking a quorum", &["reads"]),
    canary(
        "canary_reply_before_fsync",
        REPLICA,
        "votes and acknowledgements leave before the disk has them",
        &["promises", "panic"],
    ),
    canary(
        "canary_snapshot_one_entry_early",
        SNAPSHOTS,
        "a snapshot is labelled one entry early, whose commands then happen twice",
        &["digests"],
    ),
    canary(
        "canary_snapshot_without_requests",
        RECORDS,
        "snapshots leave out the answers to requests",
        &["snapshot"],
    ),
    canary("canary_surge_counted_twice", ROLLING, "a rollout's surge is added twice", &["rollout"]),
    canary(
        "canary_tail_kept_on_conflict",
        LOG_VIEW,
        "entries that another leader replaced stay in the log",
        &["panic", "prefix"],
    ),
    rare(
        "canary_torn_tail_left",
        LOG_ENGINE,
        "a torn record is passed over but not cut off",
        &["panic", "disk"],
    ),
    canary(
        "canary_unavailable_counted_twice",
        ROLLING,
        "a rollout takes down twice as many pods as allowed",
        &["rollout"],
    ),
    rare(
        "canary_vote_not_flushed",
        LOG_ENGINE,
        "a vote that comes without entries is not flushed",
        &["promises"],
    ),
    canary(
        "canary_vote_not_persisted",
        REPLICA,
        "the vote is not written: a member votes twice in one term",
        &["promises"],
    ),
    canary(
        "canary_watch_gap_across_snapshot",
        WATCH,
        "a watch goes on after a snapshot replaced the State, as if nothing was missing",
        &["watch"],
    ),
];

/// The planted bugs that a text stands for, so many. Texts that differ spread them evenly. Those that need a
/// coincidence are not among them: a part is for every change, and must not take long.
#[must_use]
pub fn part(text: &str, size: usize) -> Vec<&'static Canary> {
    let quick: Vec<&Canary> = CANARIES.iter().filter(|canary| canary.seeds <= SEEDS).collect();
    let start = digest128(&("canaries", text)) % (quick.len() as u128);
    quick.iter().copied().cycle().skip(start as usize).take(size.min(quick.len())).collect()
}

thread_local! {
    static STEP: Cell<u64> = const { Cell::new(0) };
}

/// Notes how far this thread's run is: a panic takes the world with it, and its step must be told.
pub(crate) fn note_step(step: u64) {
    STEP.set(step);
}

/// The last step of this thread's last run.
#[must_use]
pub fn last_step() -> u64 {
    STEP.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_their_size_and_differ() {
        let names =
            |text: &str| part(text, 3).iter().map(|canary| canary.name.to_owned()).collect::<Vec<_>>();
        assert_eq!(names("a").len(), 3);
        assert_eq!(names("a"), names("a"));
        assert!((0..50).any(|n| names(&n.to_string()) != names("a")));
        assert!(part("a", 1000).iter().all(|canary| canary.seeds == SEEDS));
    }
}
