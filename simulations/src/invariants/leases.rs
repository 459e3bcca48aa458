//! A node is called unreachable only when its agent's lease has run out: the agent counts from when it sent what was
//! acknowledged, the leader from when it heard it, so the agent's end comes first.
//!
//! Holds while clocks drift within their bound; a wall clock that is set takes the leader's count with it.

use bulkhead_types::ObjectId;

use super::{Verdict, ensure};

/// Checks a node that has just been called unreachable. `left_ms` is what its agent has left of its lease, by its
/// own clock; `drift_ms` what two clocks may differ by in the length of a lease.
///
/// # Errors
/// When the agent may still act on the lease.
pub fn check(node: ObjectId, left_ms: u64, drift_ms: u64) -> Verdict {
    ensure(left_ms <= drift_ms, "leases", || {
        format!("node {node} is called unreachable while its agent's lease has {left_ms} ms to run")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_still_runs_is_noticed() {
        assert!(check(ObjectId(1), 0, 0).is_ok());
        assert!(check(ObjectId(1), 90, 100).is_ok());
        assert!(check(ObjectId(1), 101, 100).is_err());
    }
}
