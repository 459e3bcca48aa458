//! Reads are linearizable: a confirmed read sees every write that was acknowledged, and everything that another
//! read returned, before it was asked for; and what it sees is what the log says at that revision.

use bulkhead_types::Revision;

use super::{Verdict, ensure};

/// Checks what a read saw against the highest revision that any client knew of when it was asked for.
///
/// # Errors
/// When the read is older.
pub fn check(floor: Revision, seen: Revision) -> Verdict {
    ensure(seen >= floor, "reads", || {
        format!(
            "a read returned revision {seen}, although revision {floor} was known before it was asked for"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_read_is_noticed() {
        assert!(check(5, 5).is_ok());
        assert!(check(5, 9).is_ok());
        assert!(check(5, 4).is_err());
    }
}
