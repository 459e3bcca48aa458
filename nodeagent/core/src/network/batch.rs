//! Which changes of the network are made together.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use bulkhead_types::ObjectId;

/// Changes that are made together at most: each waits for the taps of all.
pub const BATCH_MAX: usize = 32;

/// What a change of the network is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    /// Whose guests come or go.
    pub pod: ObjectId,
    /// The addresses that they have, and get.
    pub addresses: BTreeSet<Ipv4Addr>,
}

/// How many of the changes that wait, from the first on, are made together: at most [`BATCH_MAX`], one for each pod, and none that gives
/// an address to one guest beside one that takes it from another. So each pod's changes stay in order, and the rules of an
/// address are removed before it has others.
#[must_use]
pub fn together(waiting: impl IntoIterator<Item = Touched>) -> usize {
    let (mut pods, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    let joins = |change: &Touched| {
        let joins = pods.insert(change.pod) && change.addresses.is_disjoint(&addresses);
        addresses.extend(&change.addresses);
        joins
    };
    waiting.into_iter().take(BATCH_MAX).take_while(joins).count()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Pods and the last bytes of their addresses.
    type Guests = BTreeMap<u64, u8>;
    /// A pod, and the address that it gets, if any.
    type Change = (u64, Option<u8>);

    fn count(waiting: &[Change], guests: &Guests) -> usize {
        together(waiting.iter().map(|(pod, wanted)| {
            let all = guests.get(pod).into_iter().chain(wanted);
            let addresses = all.map(|last| Ipv4Addr::new(10, 200, 1, *last)).collect();
            Touched { pod: ObjectId(*pod), addresses }
        }))
    }

    fn check(waiting: &[Change], there: &[(u64, u8)], expected: usize) {
        let there = there.iter().copied().collect();
        assert_eq!(count(waiting, &there), expected, "{waiting:?} where there is {there:?}");
    }

    #[test]
    fn what_goes_together_is_of_different_pods_and_addresses() {
        check(&[], &[], 0);
        check(&[(1, Some(1)), (2, Some(2)), (3, None)], &[(3, 3)], 3);
        check(&[(1, None), (2, None), (1, Some(1))], &[(1, 1), (2, 2)], 2);
        // A pod's next guest has the address of its last one.
        check(&[(1, Some(1)), (2, Some(2))], &[(1, 1)], 2);
        // Another pod's does not come before that is released, and not beside it.
        check(&[(1, None), (2, Some(1))], &[(1, 1)], 1);
        check(&[(2, Some(1)), (1, None)], &[(1, 1)], 1);
        check(&[(1, Some(1)), (2, Some(1))], &[], 1);
        // The pod gets another address, and what it had is not given away beside that.
        check(&[(1, Some(5)), (2, Some(1)), (3, None)], &[(1, 1)], 1);
        let many: Vec<_> = (1..=100).map(|n| (n.into(), Some(n))).collect();
        check(&many, &[], BATCH_MAX);
    }

    /// An address that another has is not given.
    fn put(guests: &mut Guests, (pod, wanted): Change) {
        guests.remove(&pod);
        if let Some(address) = wanted
            && guests.values().all(|other| *other != address)
        {
            guests.insert(pod, address);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// All that waits is made, and nothing of a batch depends on another part of it.
        #[test]
        fn batches_are_all_that_waits_and_have_no_order(
            waiting in vec((1..7_u64, proptest::option::of(1..8_u8)), 0..80),
        ) {
            let (mut left, mut there) = (waiting.as_slice(), Guests::new());
            while !left.is_empty() {
                let count = count(left, &there);
                prop_assert!((1..=BATCH_MAX).contains(&count));
                let (batch, rest) = left.split_at(count);
                let pods: BTreeSet<_> = batch.iter().map(|(pod, _)| pod).collect();
                prop_assert_eq!(pods.len(), count);
                let (mut forth, mut back) = (there.clone(), there);
                batch.iter().for_each(|change| put(&mut forth, *change));
                batch.iter().rev().for_each(|change| put(&mut back, *change));
                prop_assert_eq!(&forth, &back);
                (left, there) = (rest, forth);
            }
        }
    }
}
