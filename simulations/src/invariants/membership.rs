//! Raft's configuration is what State says of the members: whoever is a learner does not vote, and whoever was
//! removed has no part in it.

use std::collections::BTreeSet;

use bulkhead_types::MemberId;

use super::{Verdict, ensure};

/// Who votes and who only learns, by one account. Those who are on their way out of a joint configuration are in
/// neither.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// Members whose votes count.
    pub voters: BTreeSet<MemberId>,
    /// Members that only follow.
    pub learners: BTreeSet<MemberId>,
}

/// Compares what one server's Raft and its State say at the same entry.
///
/// # Errors
/// When they differ. State knows no member before the cluster has its identity.
pub fn check(member: MemberId, raft: &Roles, state: &Roles) -> Verdict {
    ensure(state.voters.is_empty() || raft == state, "membership", || {
        format!("server {member}: raft has {raft:?}, State has {state:?}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_learner_that_votes_is_noticed() {
        let roles = |voters: &[u64], learners: &[u64]| Roles {
            voters: voters.iter().copied().map(MemberId).collect(),
            learners: learners.iter().copied().map(MemberId).collect(),
        };
        let own = MemberId(1);
        assert!(check(own, &roles(&[1, 2], &[3]), &roles(&[1, 2], &[3])).is_ok());
        assert!(check(own, &roles(&[1, 2, 3], &[]), &roles(&[1, 2], &[3])).is_err());
        assert!(check(own, &roles(&[1, 2, 3], &[]), &roles(&[1, 2], &[])).is_err());
        assert!(check(own, &roles(&[1], &[]), &roles(&[], &[])).is_ok(), "not initialised yet");
    }
}
