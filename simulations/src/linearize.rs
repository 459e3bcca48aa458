//! Whether a history of overlapping operations could have happened one after another.
//!
//! ```text
//!   invoked ├────── put 1 ──────┤ returned
//!                 ├── get → 1 ──┤                     some order of all operations that returned, each at a
//!                       ├─ put 2 ── … unknown         moment between its two ends, explains every answer
//! ```
//!
//! The search takes operations in the order of their invocation, one that may come next at a time, and goes back
//! when an answer cannot be explained (Wing and Gong 1993); what was reached once, the same operations done and
//! the same value left, is not looked at again (Lowe 2017). An operation whose outcome nobody knows may happen at
//! any time after its invocation, or never.
//!
//! Histories of different objects are independent and are checked apart. The search is bounded: beyond the bound
//! it says so, and never that all is well.

use std::collections::BTreeSet;

/// Steps after which a search is given up.
pub const STEPS_MAX: u64 = 200_000;

/// What an operation does to the one value that a history is about.
pub trait Model {
    /// The value.
    type State: Clone + Ord;
    /// An operation with its answer.
    type Operation;

    /// The value before the first operation.
    fn initial(&self) -> Self::State;

    /// The value after the operation; `None` when it cannot have given its answer here. An unknown answer is
    /// explained by every value at which the operation does something.
    fn step(&self, state: &Self::State, operation: &Self::Operation) -> Option<Self::State>;
}

/// One operation of a history.
#[derive(Clone, Debug)]
pub struct Span<T> {
    /// When it was asked for. Moments are numbered, no two are the same.
    pub invoked: u64,
    /// When its answer came; `None` when none ever came.
    pub returned: Option<u64>,
    /// What it was.
    pub operation: T,
}

/// What a search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// There is an order that explains everything.
    Linearizable,
    /// There is none.
    Impossible,
    /// The bound was reached first.
    Unchecked,
}

/// The set of operations that are done, as bits.
type Done = Vec<u64>;

fn is_done(done: &Done, place: usize) -> bool {
    done[place / 64] & (1 << (place % 64)) != 0
}

fn flip(done: &mut Done, place: usize) {
    done[place / 64] ^= 1 << (place % 64);
}

/// A choice that can be taken back.
struct Choice<S> {
    place: usize,
    before: S,
}

/// Searches for an order of the operations of `history` that explains all of their answers.
#[must_use]
pub fn check<M: Model>(model: &M, history: &[Span<M::Operation>], steps_max: u64) -> Answer {
    let mut order: Vec<&Span<M::Operation>> = history.iter().collect();
    order.sort_by_key(|span| span.invoked);
    let mut remaining = order.iter().filter(|span| span.returned.is_some()).count();
    let mut done: Done = vec![0; order.len().div_ceil(64)];
    let mut seen: BTreeSet<(Done, M::State)> = BTreeSet::new();
    let mut state = model.initial();
    let mut choices: Vec<Choice<M::State>> = Vec::new();
    let (mut steps, mut from) = (0, 0);
    while remaining > 0 {
        steps += 1;
        if steps > steps_max {
            return Answer::Unchecked;
        }
        let next = next_choice(model, &order, &mut done, &mut seen, &state, from);
        if let Some((place, after)) = next {
            choices.push(Choice { place, before: std::mem::replace(&mut state, after) });
            remaining -= usize::from(order[place].returned.is_some());
            from = 0;
            continue;
        }
        let Some(choice) = choices.pop() else { return Answer::Impossible };
        flip(&mut done, choice.place);
        remaining += usize::from(order[choice.place].returned.is_some());
        state = choice.before;
        from = choice.place + 1;
    }
    Answer::Linearizable
}

/// The first operation from `from` on that may come next, leads to something new, and is marked as done.
fn next_choice<M: Model>(
    model: &M,
    order: &[&Span<M::Operation>],
    done: &mut Done,
    seen: &mut BTreeSet<(Done, M::State)>,
    state: &M::State,
    from: usize,
) -> Option<(usize, M::State)> {
    // Nothing may come before an operation that had returned when it was asked for.
    let mut deadline = u64::MAX;
    for (place, span) in order.iter().enumerate() {
        if span.invoked > deadline {
            return None;
        }
        if is_done(done, place) {
            continue;
        }
        deadline = deadline.min(span.returned.unwrap_or(u64::MAX));
        if place < from {
            continue;
        }
        let Some(after) = model.step(state, &span.operation) else { continue };
        flip(done, place);
        if seen.insert((done.clone(), after.clone())) {
            return Some((place, after));
        }
        flip(done, place);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A register, as in the literature.
    struct Register;

    #[derive(Clone, Copy, Debug)]
    enum Op {
        Put(u64),
        Get(u64),
    }

    impl Model for Register {
        type State = u64;
        type Operation = Op;

        fn initial(&self) -> u64 {
            0
        }

        fn step(&self, state: &u64, operation: &Op) -> Option<u64> {
            match operation {
                Op::Put(value) => Some(*value),
                Op::Get(value) => (value == state).then_some(*state),
            }
        }
    }

    fn span(invoked: u64, returned: u64, operation: Op) -> Span<Op> {
        Span { invoked, returned: (returned > 0).then_some(returned), operation }
    }

    fn expect(history: &[Span<Op>], expected: Answer) {
        assert_eq!(check(&Register, history, STEPS_MAX), expected, "{history:?}");
    }

    #[test]
    fn what_can_be_explained_is_linearizable() {
        use Op::{Get, Put};
        expect(&[], Answer::Linearizable);
        expect(&[span(1, 2, Put(1)), span(3, 4, Get(1))], Answer::Linearizable);
        // Overlapping: the read may come before or after.
        expect(&[span(1, 4, Put(1)), span(2, 3, Get(0))], Answer::Linearizable);
        expect(&[span(1, 4, Put(1)), span(2, 3, Get(1))], Answer::Linearizable);
        // Two writers at once, and readers who agree on their order.
        let writers = [span(1, 10, Put(1)), span(2, 9, Put(2))];
        let agree = [writers.to_vec(), vec![span(3, 4, Get(2)), span(5, 6, Get(1))]].concat();
        expect(&agree, Answer::Linearizable);
    }

    #[test]
    fn what_cannot_be_explained_is_found() {
        use Op::{Get, Put};
        // A stale read.
        expect(&[span(1, 2, Put(1)), span(3, 4, Get(0))], Answer::Impossible);
        // A lost write.
        expect(&[span(1, 2, Put(1)), span(3, 4, Put(2)), span(5, 6, Get(1))], Answer::Impossible);
        // A value that nobody wrote.
        expect(&[span(1, 2, Get(7))], Answer::Impossible);
        // A value that comes back: readers see the new one, then the old one.
        let back = [span(1, 10, Put(1)), span(2, 3, Get(1)), span(4, 5, Get(0))];
        expect(&back, Answer::Impossible);
        // Two readers who disagree on the order of two writes.
        let disagree = [
            span(1, 20, Put(1)),
            span(2, 19, Put(2)),
            span(3, 4, Get(1)),
            span(5, 6, Get(2)),
            span(7, 8, Get(1)),
        ];
        expect(&disagree, Answer::Impossible);
    }

    #[test]
    fn an_unknown_outcome_may_take_effect_late_or_never() {
        use Op::{Get, Put};
        let unknown = span(1, 0, Put(5));
        expect(&[unknown.clone(), span(2, 3, Get(0))], Answer::Linearizable);
        expect(&[unknown.clone(), span(2, 3, Get(0)), span(4, 5, Get(5))], Answer::Linearizable);
        // It happens once: not again after it was overwritten.
        let again = [unknown.clone(), span(2, 3, Get(5)), span(4, 5, Put(6)), span(6, 7, Get(5))];
        expect(&again, Answer::Impossible);
        // And never before it was asked for.
        expect(&[span(2, 3, Get(5)), span(4, 0, Put(5))], Answer::Impossible);
    }

    #[test]
    fn the_bound_is_told_and_never_taken_for_success() {
        use Op::{Get, Put};
        let mut history: Vec<Span<Op>> = (1..=12).map(|n| span(n, 100 + n, Put(n))).collect();
        history.push(span(200, 201, Get(99)));
        assert_eq!(check(&Register, &history, 50), Answer::Unchecked);
        expect(&history[..12], Answer::Linearizable);
    }

    /// Against trying all orders, on every history of a few short operations.
    #[test]
    fn it_agrees_with_trying_all_orders() {
        let mut checked = [0; 2];
        for number in 0..4_000_u64 {
            let mut draw = number;
            let mut next = |below: u64| {
                draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (draw >> 33) % below
            };
            let history: Vec<Span<Op>> = (0..4)
                .map(|n| {
                    let invoked = next(12) * 10 + n;
                    let returned = next(5).checked_sub(1).map(|_| invoked + 5 + next(60) * 10 + n);
                    let operation = if next(2) == 0 { Op::Put(1 + next(2)) } else { Op::Get(next(3)) };
                    Span { invoked, returned, operation }
                })
                .collect();
            let expected = tries_all(&history, &mut Vec::new());
            let found = check(&Register, &history, STEPS_MAX) == Answer::Linearizable;
            assert_eq!(found, expected, "{history:?}");
            checked[usize::from(expected)] += 1;
        }
        assert!(checked.iter().all(|count| *count > 300), "{checked:?}");
    }

    fn tries_all(history: &[Span<Op>], order: &mut Vec<usize>) -> bool {
        let mut state = 0;
        for (n, place) in order.iter().enumerate() {
            let span = &history[*place];
            let too_late =
                order[n + 1..].iter().any(|later| history[*later].returned.is_some_and(|r| r < span.invoked));
            match Register.step(&state, &span.operation) {
                Some(after) if !too_late => state = after,
                _ => return false,
            }
        }
        let missing: Vec<usize> = (0..history.len()).filter(|place| !order.contains(place)).collect();
        if missing.iter().all(|place| history[*place].returned.is_none()) {
            return true;
        }
        missing.into_iter().any(|place| {
            order.push(place);
            let found = tries_all(history, order);
            order.pop();
            found
        })
    }
}
