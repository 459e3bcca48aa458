//! A rollout keeps to its surge and to its unavailable.

use std::collections::VecDeque;

use bulkhead_controlplane_core::State;
use bulkhead_types::Transaction;

use super::Verdict;

/// Placeholder until the reconcilers land.
///
/// # Errors
/// Never.
pub fn check(_before: &VecDeque<State>, _after: &State, _transaction: &Transaction) -> Verdict {
    Ok(())
}
