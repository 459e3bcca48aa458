use proptest::prelude::*;

use super::*;

const DAY: u64 = HALF_LIFE_MS;

/// A measurement: how much, its weight in thousandths, and when.
type Sample = (u64, u64, u64);

fn filled(buckets: Buckets, samples: &[Sample]) -> Histogram {
    let mut histogram = Histogram::new(buckets, 10 * DAY);
    samples.iter().for_each(|(amount, weight, at_ms)| histogram.add(*amount, *weight, *at_ms));
    histogram
}

/// The median, the 90th and the 95th of a hundred.
fn check(buckets: Buckets, samples: &[Sample], expected: [Option<u64>; 3]) {
    let histogram = filled(buckets, samples);
    let found = [50, 90, 95].map(|share| histogram.percentile(Percent(share)));
    assert_eq!(found, expected, "{samples:?}");
}

#[test]
fn percentiles_are_ends_of_buckets() {
    use Buckets::{CpuMillis, MemoryBytes};
    let now = 10 * DAY;
    check(CpuMillis, &[], [None; 3]);
    check(CpuMillis, &[(0, 1000, now)], [Some(10); 3]);
    check(CpuMillis, &[(9, 1000, now)], [Some(10); 3]);
    check(CpuMillis, &[(10, 1000, now)], [Some(20); 3]);
    check(CpuMillis, &[(5, 1000, now), (15, 1000, now)], [Some(10), Some(20), Some(20)]);
    // Of a day ago it counts half: two of three, then four of five.
    check(CpuMillis, &[(5, 1000, now), (15, 1000, now + DAY)], [Some(20); 3]);
    check(CpuMillis, &[(5, 8000, now), (15, 1000, now + DAY)], [Some(10), Some(20), Some(20)]);
    // A weight of nothing says nothing.
    check(CpuMillis, &[(500, 0, now)], [None; 3]);
    // The last bucket has no end.
    let last = CpuMillis.end(HISTOGRAM_BUCKETS_MAX);
    check(CpuMillis, &[(u64::MAX, 1, now)], [Some(last); 3]);
    check(MemoryBytes, &[(15_000_000, 1000, now)], [Some(20_500_000); 3]);
    assert!((1_000_000..1_100_000).contains(&last), "{last}");
}

#[test]
fn each_bucket_is_a_twentieth_wider() {
    for buckets in [Buckets::CpuMillis, Buckets::MemoryBytes] {
        let starts = buckets.starts();
        assert_eq!(starts[0], 0);
        assert!(starts.is_sorted_by(|a, b| a < b), "{starts:?}");
        for (bucket, start) in starts.iter().enumerate() {
            assert_eq!(buckets.find(*start), bucket);
            assert!(bucket == 0 || buckets.find(start - 1) == bucket - 1);
        }
    }
}

#[test]
fn old_measurements_are_forgotten_without_an_end() {
    let mut histogram = filled(Buckets::CpuMillis, &[(5, 1000, 10 * DAY)]);
    for day in 11..400 {
        histogram.add(5000, 1000, day * DAY);
    }
    // All that is left of it is below the smallest weight.
    assert_eq!(histogram.percentile(Percent(1)), histogram.percentile(Percent(100)));
    // From long before the reference: no weight.
    histogram.add(5, 1000, 0);
    assert_eq!(histogram.percentile(Percent(1)), histogram.percentile(Percent(100)));
}

/// By all measurements: the amount up to which the share lies, in order.
fn naive(samples: &[Sample], share: u8) -> Option<u64> {
    let single = |(amount, weight, at_ms): &Sample| {
        (*amount, Histogram::new(Buckets::CpuMillis, 10 * DAY).decayed(*weight, *at_ms))
    };
    let mut weighed: Vec<(u64, u128)> = samples.iter().map(single).collect();
    weighed.sort_unstable();
    let total: u128 = weighed.iter().map(|(_, weight)| weight).sum();
    let mut sum = 0;
    weighed.into_iter().find_map(|(amount, weight)| {
        sum += weight;
        (total > 0 && sum * 100 >= total * u128::from(share)).then_some(amount)
    })
}

fn samples() -> impl Strategy<Value = Vec<Sample>> {
    let at_ms = 8 * DAY..30 * DAY;
    proptest::collection::vec((0u64..1_000_000, 0u64..5000, at_ms), 0..60)
}

proptest! {
    #[test]
    fn it_says_what_all_measurements_say_within_a_bucket(samples in samples(), share in 1u8..=100) {
        let found = filled(Buckets::CpuMillis, &samples).percentile(Percent(share));
        let exact = naive(&samples, share).map(|amount| Buckets::CpuMillis.end(Buckets::CpuMillis.find(amount)));
        prop_assert_eq!(found, exact);
    }

    #[test]
    fn the_order_of_measurements_does_not_matter(
        (samples, shuffled) in samples().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
    ) {
        let (one, other) = (filled(Buckets::CpuMillis, &samples), filled(Buckets::CpuMillis, &shuffled));
        prop_assert_eq!(&one, &other);
        prop_assert_eq!(one.checkpoint(), other.checkpoint());
    }

    #[test]
    fn percentiles_rise(samples in samples(), a in 1u8..=100, b in 1u8..=100) {
        let histogram = filled(Buckets::MemoryBytes, &samples);
        let (low, high) = (a.min(b), a.max(b));
        prop_assert!(histogram.percentile(Percent(low)) <= histogram.percentile(Percent(high)));
    }

    #[test]
    fn what_is_taken_back_was_never_there(samples in samples(), more in samples()) {
        let mut histogram = filled(Buckets::CpuMillis, &samples);
        let newest_ms = histogram.newest_ms;
        more.iter().for_each(|(amount, weight, at_ms)| histogram.add(*amount, *weight, *at_ms));
        more.iter().for_each(|(amount, weight, at_ms)| histogram.subtract(*amount, *weight, *at_ms));
        histogram.newest_ms = newest_ms;
        prop_assert_eq!(histogram, filled(Buckets::CpuMillis, &samples));
    }

    /// Equal weights, far fewer than the checkpoint tells apart: shares are kept well enough for every percentile.
    #[test]
    fn a_checkpoint_is_small_and_says_the_same(
        amounts in proptest::collection::vec(0u64..1_000_000, 0..40), at_ms in 9 * DAY..60 * DAY, share in 1u8..=100,
    ) {
        let samples: Vec<Sample> = amounts.iter().map(|amount| (*amount, 1000, at_ms)).collect();
        let histogram = filled(Buckets::CpuMillis, &samples);
        let checkpoint = histogram.checkpoint();
        prop_assert!(checkpoint.weights.len() <= HISTOGRAM_BUCKETS_MAX);
        prop_assert!(checkpoint.weights.iter().all(|weight| *weight <= CHECKPOINT_WEIGHT_MAX));
        let restored = Histogram::restore(Buckets::CpuMillis, &checkpoint, 10 * DAY);
        let bucket = |one: &Histogram| one.percentile(Percent(share)).map(|end| Buckets::CpuMillis.find(end));
        // Rounding may pass the share over to the next amount that was measured, not beyond.
        let near = |by: i16| {
            let share = u8::try_from((i16::from(share) + by).clamp(1, 100)).unwrap_or(100);
            histogram.percentile(Percent(share)).map(|end| Buckets::CpuMillis.find(end))
        };
        prop_assert!(near(-1) <= bucket(&restored) && bucket(&restored) <= near(1));
        // What is measured from then on counts as much against it as before.
        let again = restored.checkpoint();
        prop_assert_eq!(again.weights, checkpoint.weights);
        prop_assert!(again.total_weight.abs_diff(checkpoint.total_weight) <= 200);
    }
}
