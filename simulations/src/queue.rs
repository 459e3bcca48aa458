//! The order in which things happen.
//!
//! At one moment decisions come first, in an order of their own; then everything else, as it was scheduled. So a
//! run that is told its decisions in advance goes the same way as one that makes them.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::clock::Micros;

/// The rank of everything that is not a decision.
const LAST: u32 = u32::MAX;

/// Events by time; those of one moment by rank, and then in the order in which they were scheduled.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    heap: BinaryHeap<Entry<T>>,
    scheduled: u64,
}

#[derive(Debug)]
struct Entry<T> {
    at_us: Micros,
    rank: u32,
    number: u64,
    event: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    /// The heap gives the greatest first: that must be the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at_us, other.rank, other.number).cmp(&(self.at_us, self.rank, self.number))
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), scheduled: 0 }
    }
}

impl<T> Queue<T> {
    /// Lets something happen at a time.
    pub(crate) fn push(&mut self, at_us: Micros, event: T) {
        self.push_ranked(at_us, LAST, event);
    }

    /// Lets a decision be made at a time, before what else happens then.
    pub(crate) fn push_ranked(&mut self, at_us: Micros, rank: u32, event: T) {
        self.scheduled += 1;
        self.heap.push(Entry { at_us, rank, number: self.scheduled, event });
    }

    /// The next thing to happen.
    pub(crate) fn pop(&mut self) -> Option<(Micros, T)> {
        self.heap.pop().map(|entry| (entry.at_us, entry.event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_first_and_equals_in_order() {
        let mut queue = Queue::default();
        for (at, event) in [(5, 'c'), (1, 'a'), (5, 'd'), (2, 'b')] {
            queue.push(at, event);
        }
        let order: String = std::iter::from_fn(|| queue.pop()).map(|(_, event)| event).collect();
        assert_eq!(order, "abcd");
        queue.push(7, 'c');
        queue.push_ranked(7, 2, 'b');
        queue.push_ranked(7, 1, 'a');
        let order: String = std::iter::from_fn(|| queue.pop()).map(|(_, event)| event).collect();
        assert_eq!(order, "abc");
    }
}
