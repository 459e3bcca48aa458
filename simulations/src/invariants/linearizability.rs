//! What clients saw of an object could have happened one operation after another, each between its asking and
//! its answer: writes, compare-and-sets, deletions and reads of objects that only clients change.
//!
//! Every write writes a value that no other does, so a revision stands for a value: a compare-and-set names the
//! value that it expects, and the same value with two revisions, or two values with the same, is wrong in itself.
//! Revisions also grow along the order that is found. A history for which the search is given up counts as
//! unchecked, never as passed.

use std::collections::BTreeMap;

use bulkhead_types::Revision;

use super::{Verdict, Violation};
use crate::linearize::{self, Answer, Model, STEPS_MAX, Span};

/// What a client did to an object, and was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The object was to have this value, whatever it was; the revision when that is known.
    Put(u64, Option<Revision>),
    /// The object was to have a value if it had the other (`None`: if it did not exist).
    CompareAndSet {
        /// What it should have had.
        expected: Option<u64>,
        /// What it was to have.
        value: u64,
        /// What the client was told.
        told: Told,
    },
    /// The object was to go.
    Delete(Told),
    /// The object had this value and revision; `None` when it did not exist.
    Get(Option<(u64, Revision)>),
}

/// What a client was told about a change that may be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Done, at this revision.
    Done(Revision),
    /// Refused, because the object was not as expected.
    Refused,
    /// Nothing.
    Unknown,
}

/// An object with one value. The State is the value, and the highest revision known to be reached.
struct Register;

impl Model for Register {
    type State = (Option<u64>, Revision);
    type Operation = Operation;

    fn initial(&self) -> Self::State {
        (None, 0)
    }

    fn step(&self, (value, reached): &Self::State, operation: &Operation) -> Option<Self::State> {
        let at = |after: Option<u64>, revision: Option<Revision>| match revision {
            Some(revision) => (revision > *reached).then_some((after, revision)),
            None => Some((after, *reached)),
        };
        match operation {
            Operation::Put(wanted, revision) => at(Some(*wanted), *revision),
            Operation::CompareAndSet { expected, value: wanted, told } => {
                { decided(*told, value == expected).and_then(|revision| at(Some(*wanted), revision)) }
                    .or_else(|| refused(*told, value != expected).then_some((*value, *reached)))
            }
            Operation::Delete(told) => decided(*told, value.is_some())
                .and_then(|revision| at(None, revision))
                .or_else(|| refused(*told, value.is_none()).then_some((*value, *reached))),
            Operation::Get(seen) => {
                let same = seen.map(|(value, _)| value) == *value;
                let revision = seen.map_or(*reached, |(_, revision)| revision);
                (same && (seen.is_none() || revision >= *reached)).then_some((*value, revision.max(*reached)))
            }
        }
    }
}

/// Whether a change happens: `Some` with its revision, if known.
fn decided(told: Told, holds: bool) -> Option<Option<Revision>> {
    match told {
        Told::Done(revision) if holds => Some(Some(revision)),
        Told::Unknown if holds => Some(None),
        _ => None,
    }
}

fn refused(told: Told, fails: bool) -> bool {
    told == Told::Refused && fails
}

/// What became of all histories.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Histories that have an order.
    pub linearizable: u64,
    /// Histories whose search was given up.
    pub unchecked: u64,
    /// Operations in all of them.
    pub operations: u64,
}

/// Checks the history of each object.
///
/// # Errors
/// With the first object whose history has no order.
pub fn check(histories: &BTreeMap<String, Vec<Span<Operation>>>) -> Result<Checked, Violation> {
    let mut checked = Checked::default();
    for (object, history) in histories {
        check_revisions(object, history)?;
        checked.operations += history.len() as u64;
        match linearize::check(&Register, history, STEPS_MAX) {
            Answer::Linearizable => checked.linearizable += 1,
            Answer::Unchecked => checked.unchecked += 1,
            Answer::Impossible => {
                let text = format!("no order explains what clients saw of {object}: {}", list(history));
                return Err(Violation::new("linearizability", text));
            }
        }
    }
    Ok(checked)
}

/// The operations, one a line.
fn list(history: &[Span<Operation>]) -> String {
    let line = |span: &Span<Operation>| {
        let returned = span.returned.map_or_else(|| "never".to_owned(), |at| at.to_string());
        format!("\n  {} to {returned}: {:?}", span.invoked, span.operation)
    };
    history.iter().map(line).collect()
}

/// A revision stands for one value, and a value for one revision.
fn check_revisions(object: &str, history: &[Span<Operation>]) -> Verdict {
    let (mut by_value, mut by_revision) = (BTreeMap::new(), BTreeMap::new());
    for span in history {
        let known = match span.operation {
            Operation::Put(value, Some(revision))
            | Operation::CompareAndSet { value, told: Told::Done(revision), .. }
            | Operation::Get(Some((value, revision))) => Some((value, revision)),
            _ => None,
        };
        let Some((value, revision)) = known else { continue };
        let same = *by_value.entry(value).or_insert(revision) == revision
            && *by_revision.entry(revision).or_insert(value) == value;
        super::ensure(same, "linearizability", || {
            format!("{object}: value {value} and revision {revision} do not stand for each other")
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use Operation::{CompareAndSet, Delete, Get, Put};

    fn expect(operations: &[(u64, u64, Operation)], good: bool) {
        let span = |(invoked, returned, operation): &(u64, u64, Operation)| Span {
            invoked: *invoked,
            returned: (*returned > 0).then_some(*returned),
            operation: *operation,
        };
        let histories = [("a".to_owned(), operations.iter().map(span).collect())].into();
        let found = check(&histories);
        assert_eq!(found.is_ok(), good, "{found:?}");
    }

    fn cas(expected: Option<u64>, value: u64, told: Told) -> Operation {
        CompareAndSet { expected, value, told }
    }

    #[test]
    fn good_histories_pass() {
        let done = |revision| Told::Done(revision);
        expect(&[(1, 2, Put(1, Some(5))), (3, 4, Get(Some((1, 5)))), (5, 6, Delete(done(6)))], true);
        expect(
            &[(1, 2, Delete(Told::Refused)), (3, 4, cas(None, 1, done(2))), (5, 6, Get(Some((1, 2))))],
            true,
        );
        // Of two compare-and-sets at a time one wins.
        let both = [(2, 9, cas(Some(1), 2, done(6))), (3, 8, cas(Some(1), 3, Told::Refused))];
        expect(&[&[(0, 1, Put(1, Some(5)))][..], &both].concat(), true);
        // Nobody knows whether it happened; a reader sees that it did.
        expect(&[(1, 0, Put(1, None)), (2, 3, Get(None)), (4, 5, Get(Some((1, 9))))], true);
    }

    #[test]
    fn bad_histories_are_noticed() {
        let done = |revision| Told::Done(revision);
        expect(&[(1, 2, Put(1, Some(5))), (3, 4, Get(None))], false);
        // A lost update: both compare-and-sets win.
        let both = [(2, 9, cas(Some(1), 2, done(6))), (3, 8, cas(Some(1), 3, done(7)))];
        expect(&[&[(0, 1, Put(1, Some(5)))][..], &both].concat(), false);
        // One is refused although nothing was in its way.
        expect(&[(0, 1, Put(1, Some(5))), (2, 3, cas(Some(1), 3, Told::Refused))], false);
        // Revisions that go back along the only order.
        expect(&[(1, 2, Put(1, Some(5))), (3, 4, Put(2, Some(4)))], false);
        // One value with two revisions, and two values with one.
        expect(&[(1, 2, Put(1, Some(5))), (3, 4, Get(Some((1, 6))))], false);
        expect(&[(1, 9, Put(1, Some(5))), (2, 8, Put(2, Some(5)))], false);
        // A deletion that was acknowledged, undone.
        expect(&[(1, 2, Put(1, Some(5))), (3, 4, Delete(done(6))), (5, 6, Get(Some((1, 5))))], false);
    }
}
