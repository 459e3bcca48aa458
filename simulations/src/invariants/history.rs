//! A server's event store holds what the log says, record for record, without a gap.

use bulkhead_storage::EventRecord;
use bulkhead_types::{MemberId, Revision, digest128};

use super::{Verdict, Violation};

/// What stands for a record of the event store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Its first and its last revision.
    pub revisions: (Revision, Revision),
    /// Stands for its bytes.
    pub digest: u128,
}

/// The mark of a record.
#[must_use]
pub fn mark(record: &EventRecord) -> Mark {
    Mark { revisions: (record.first_revision, record.last_revision), digest: digest128(&record.bytes) }
}

/// Checks the records of a server against those of the log, both by revision. `upto` is the revision that the
/// store must have reached, when that is known.
///
/// # Errors
/// With the first record that differs, or is missing.
pub fn check(member: MemberId, stored: &[Mark], log: &[Mark], upto: Option<Revision>) -> Verdict {
    let violation = |text: String| Err(Violation::new("history", format!("server {member}: {text}")));
    let newest = stored.last().map_or(0, |mark| mark.revisions.1);
    if let Some(upto) = upto.filter(|upto| newest != *upto && !stored.is_empty()) {
        return violation(format!("its events end at revision {newest}, its State is at {upto}"));
    }
    let Some(first) = stored.first() else { return Ok(()) };
    let start = log.partition_point(|mark| mark.revisions.0 < first.revisions.0);
    for (n, found) in stored.iter().enumerate() {
        let expected = log.get(start + n);
        if expected != Some(found) {
            return violation(format!("it holds {found:?}, the log says {expected:?}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark_of(first: Revision, last: Revision, digest: u128) -> Mark {
        Mark { revisions: (first, last), digest }
    }

    #[test]
    fn other_missing_and_late_records_are_noticed() {
        let log = [mark_of(1, 2, 7), mark_of(3, 3, 8), mark_of(4, 6, 9)];
        let expect = |stored: &[Mark], upto: Option<Revision>, good: bool| {
            let verdict = check(MemberId(1), stored, &log, upto);
            assert_eq!(verdict.is_ok(), good, "{stored:?}: {verdict:?}");
        };
        expect(&log, Some(6), true);
        expect(&log[1..], Some(6), true);
        expect(&log[..2], None, true);
        expect(&[], Some(6), true);
        expect(&log[..2], Some(6), false);
        expect(&[log[0], log[2]], None, false);
        expect(&[mark_of(1, 2, 1)], None, false);
        expect(&[mark_of(1, 3, 7)], None, false);
        expect(&[log[2], mark_of(7, 7, 1)], None, false);
    }
}
