//! All replicas apply the same transactions at the same index: one log.

use bulkhead_controlplane_core::Applied;
use bulkhead_types::{MemberId, digest128};

use super::{Verdict, ensure};

/// What an entry did, as one number: its transactions with their events, outcomes and log time.
#[must_use]
pub fn content(applied: &[Applied]) -> u128 {
    let mut sum = digest128(&applied.len());
    for one in applied {
        sum = digest128(&(sum, &one.transaction, one.repeated));
    }
    sum
}

/// Checks what one replica applied against what the first one applied there.
///
/// # Errors
/// When they differ.
pub fn check(member: MemberId, index: u64, found: u128, expected: u128) -> Verdict {
    ensure(found == expected, "prefix", || {
        format!("server {member} applied another entry {index} than the first replica did")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_types::{Transaction, digest128};
    use uuid::Uuid;

    fn applied(at_ms: u64) -> Applied {
        let transaction = Transaction {
            request_id: Uuid::from_u128(1),
            actor: "user:a".into(),
            at_ms,
            trace_context: None,
            outcome: Ok(1),
            events: Vec::new(),
        };
        Applied { transaction, changes: Vec::new(), repeated: false }
    }

    #[test]
    fn every_difference_between_entries_is_noticed() {
        let same = content(&[applied(1)]);
        assert!(check(MemberId(2), 9, content(&[applied(1)]), same).is_ok());
        assert!(check(MemberId(2), 9, content(&[applied(2)]), same).is_err());
        assert!(check(MemberId(2), 9, content(&[]), same).is_err());
        assert!(check(MemberId(2), 9, content(&[Applied { repeated: true, ..applied(1) }]), same).is_err());
        assert_ne!(digest128(&1u64), digest128(&2u64));
    }
}
