//! Replicas with the same applied index have the same digest.

use bulkhead_types::MemberId;

use super::{Verdict, ensure};

/// Checks one replica's digest against the one that stands for its index.
///
/// # Errors
/// When they differ.
pub fn check(member: MemberId, index: u64, found: u128, expected: u128) -> Verdict {
    ensure(found == expected, "digests", || {
        format!(
            "server {member} has digest {found:032x} after entry {index}, the first replica had {expected:032x}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_different_digest_is_noticed() {
        assert!(check(MemberId(1), 5, 7, 7).is_ok());
        assert!(check(MemberId(1), 5, 7, 8).is_err());
    }
}
