//! The table of planted bugs.

/// A planted bug.
#[derive(Clone, Copy, Debug)]
pub struct Canary {
    /// The feature that it is behind.
    pub name: &'static str,
    /// Seeds that may be needed to find it.
    pub seeds: u64,
}

/// All of them.
pub const CANARIES: &[Canary] = &[
    Canary { name: "canary_agent_forgets_guests", seeds: 200 },
    Canary { name: "canary_batch_append", seeds: 200 },
    Canary { name: "canary_bind_twice", seeds: 200 },
    Canary { name: "canary_bind_unchecked", seeds: 200 },
    Canary { name: "canary_blind_to_own_writes", seeds: 200 },
    Canary { name: "canary_bundle_half_applied", seeds: 200 },
    Canary { name: "canary_bundle_out_of_order", seeds: 200 },
    Canary { name: "canary_cleaned_up_before_death", seeds: 200 },
    Canary { name: "canary_commit_on_election", seeds: 200 },
    Canary { name: "canary_conf_change_twice", seeds: 200 },
    Canary { name: "canary_create_unchecked", seeds: 200 },
    Canary { name: "canary_dedup_window_short", seeds: 200 },
    Canary { name: "canary_deleted_while_running", seeds: 200 },
    Canary { name: "canary_drop_all_ignored", seeds: 200 },
    Canary { name: "canary_election_during_install", seeds: 200 },
    Canary { name: "canary_ended_runs_again", seeds: 200 },
    Canary { name: "canary_flush_answers_for_later_writes", seeds: 200 },
    Canary { name: "canary_garbage_of_live_owner", seeds: 200 },
    Canary { name: "canary_hash_order", seeds: 200 },
    Canary { name: "canary_hasty_leader", seeds: 200 },
    Canary { name: "canary_leader_acts_early", seeds: 200 },
    Canary { name: "canary_learner_votes", seeds: 200 },
    Canary { name: "canary_lease_from_receipt", seeds: 200 },
    Canary { name: "canary_lease_without_quorum", seeds: 200 },
    Canary { name: "canary_log_cut_before_snapshot", seeds: 200 },
    Canary { name: "canary_log_time_goes_back", seeds: 200 },
    Canary { name: "canary_outdated_intent_obeyed", seeds: 200 },
    Canary { name: "canary_precondition_checked_early", seeds: 200 },
    Canary { name: "canary_read_before_apply", seeds: 200 },
    Canary { name: "canary_read_without_quorum", seeds: 200 },
    Canary { name: "canary_reply_before_fsync", seeds: 200 },
    Canary { name: "canary_room_freed_before_death", seeds: 200 },
    Canary { name: "canary_snapshot_not_flushed", seeds: 200 },
    Canary { name: "canary_snapshot_one_entry_early", seeds: 200 },
    Canary { name: "canary_snapshot_without_requests", seeds: 200 },
    Canary { name: "canary_surge_counted_twice", seeds: 200 },
    Canary { name: "canary_tail_kept_on_conflict", seeds: 200 },
    Canary { name: "canary_torn_tail_left", seeds: 200 },
    Canary { name: "canary_truncation_not_replayed", seeds: 200 },
    Canary { name: "canary_unavailable_counted_twice", seeds: 200 },
    Canary { name: "canary_vote_lost_by_compaction", seeds: 200 },
    Canary { name: "canary_vote_not_flushed", seeds: 200 },
    Canary { name: "canary_vote_not_persisted", seeds: 200 },
];

/// The planted bugs that a text stands for, so many.
#[must_use]
pub fn part(text: &str, size: usize) -> Vec<&'static Canary> {
    let start = bulkhead_types::digest128(&("part", text)) % (CANARIES.len() as u128);
    CANARIES.iter().cycle().skip(start as usize).take(size.min(CANARIES.len())).collect()
}
