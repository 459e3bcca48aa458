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

/// What a store must reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Everything after this revision must be there: that of the newest snapshot that a peer sent, before which a
    /// history may have a gap and begins anew; 0 when none was sent.
    pub since: Revision,
    /// Everything up to this revision must be there, and nothing after it.
    pub upto: Revision,
}

/// What a store holds.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// The first revision of its oldest record and the last one of its newest.
    pub bounds: Option<(Revision, Revision)>,
    /// All of its records, or the newest of them.
    pub records: &'a [Mark],
}

/// Checks the records of a server against those of the log, both by revision.
///
/// # Errors
/// With the first record that differs, or is missing.
pub fn check(member: MemberId, stored: Stored<'_>, log: &[Mark], reach: Reach) -> Verdict {
    let violation = |text: String| Err(Violation::new("history", format!("server {member}: {text}")));
    let begins = log.partition_point(|mark| mark.revisions.0 <= reach.since);
    let ends = log.partition_point(|mark| mark.revisions.1 <= reach.upto);
    let wanted = log.get(begins..ends).unwrap_or_default();
    let (oldest, newest) = stored.bounds.unwrap_or((Revision::MAX, 0));
    if let Some(missing) = wanted.iter().find(|mark| mark.revisions.0 < oldest || mark.revisions.1 > newest) {
        return violation(format!("it holds {:?}, {missing:?} is missing: {reach:?}", stored.bounds));
    }
    if newest > reach.upto {
        return violation(format!("its events end at revision {newest}, its State is at {}", reach.upto));
    }
    let last = stored.records.last().map(|mark| mark.revisions.1);
    if last != stored.bounds.map(|(_, newest)| newest) {
        return violation(format!("it holds {:?}, its newest record is {last:?}", stored.bounds));
    }
    let Some(first) = stored.records.first() else { return Ok(()) };
    let start = log.partition_point(|mark| mark.revisions.0 < first.revisions.0);
    for (n, found) in stored.records.iter().enumerate() {
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

    fn log() -> [Mark; 3] {
        [mark_of(1, 2, 7), mark_of(3, 3, 8), mark_of(4, 6, 9)]
    }

    fn expect(records: &[Mark], (since, upto): (Revision, Revision), good: bool) {
        let bounds = records.first().zip(records.last());
        let bounds = bounds.map(|(first, last)| (first.revisions.0, last.revisions.1));
        let verdict = check(MemberId(1), Stored { bounds, records }, &log(), Reach { since, upto });
        assert_eq!(verdict.is_ok(), good, "{records:?} since {since}: {verdict:?}");
    }

    #[test]
    fn other_missing_and_late_records_are_noticed() {
        let log = log();
        expect(&log, (0, 6), true);
        expect(&log[..2], (0, 3), true);
        expect(&log[..2], (0, 6), false);
        expect(&log, (0, 3), false);
        expect(&[log[0], log[2]], (0, 6), false);
        expect(&[mark_of(1, 2, 1)], (0, 2), false);
        expect(&[mark_of(1, 3, 7)], (0, 3), false);
        expect(&[log[2], mark_of(7, 7, 1)], (3, 7), false);
    }

    #[test]
    fn a_history_that_begins_anew_without_a_peer_s_snapshot_is_noticed() {
        let log = log();
        expect(&log[1..], (2, 6), true);
        expect(&log[1..], (0, 6), false);
        expect(&[], (6, 6), true);
        expect(&[], (3, 6), false);
        expect(&[], (0, 6), false);
        expect(&log, (6, 6), true);
    }

    #[test]
    fn the_newest_records_are_enough() {
        let check = |bounds, records: &[Mark], good: bool| {
            let verdict = check(MemberId(1), Stored { bounds, records }, &log(), Reach { since: 0, upto: 6 });
            assert_eq!(verdict.is_ok(), good, "{bounds:?} {records:?}: {verdict:?}");
        };
        check(Some((1, 6)), &log()[2..], true);
        check(Some((3, 6)), &log()[2..], false);
        check(Some((1, 6)), &log()[..2], false);
        check(Some((1, 6)), &[], false);
    }
}
