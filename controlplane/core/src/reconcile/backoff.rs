//! When a pod that ended may be replaced: at once the first time, later and later while it keeps failing.

use std::collections::BTreeMap;

use bulkhead_types::ObjectId;

/// First pause, in milliseconds; it doubles with every further failure.
const PAUSE_MS_MIN: u64 = 1000;
/// Longest pause, in milliseconds (that of Kubernetes' crash loops).
const PAUSE_MS_MAX: u64 = 300_000;

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    /// The last pod that ended, and when that was seen by the leader's clock.
    pod: ObjectId,
    at_ms: u64,
}

/// Failures of the pods of one workload by place (ordinal or node) since the last one there became ready. Known to the
/// leader only: its successor starts anew.
#[derive(Clone, Debug)]
pub(super) struct Backoff<K> {
    places: BTreeMap<K, Failures>,
}

impl<K> Default for Backoff<K> {
    fn default() -> Self {
        Self { places: BTreeMap::new() }
    }
}

impl<K: Ord> Backoff<K> {
    /// Notes that a pod has ended, once for each pod. Returns from when on it may be replaced, milliseconds since the
    /// epoch.
    pub(super) fn ended(&mut self, place: K, pod: ObjectId, now_ms: u64) -> u64 {
        let failures = self.places.entry(place).or_insert(Failures { count: 0, pod: ObjectId(0), at_ms: 0 });
        if failures.pod != pod {
            *failures = Failures { count: failures.count.saturating_add(1), pod, at_ms: now_ms };
        }
        let pause_ms = match failures.count {
            0 | 1 => 0,
            count => (PAUSE_MS_MIN << (count - 2).min(16)).min(PAUSE_MS_MAX),
        };
        failures.at_ms.saturating_add(pause_ms)
    }

    /// Notes that a pod became ready there, or that nothing is wanted there any more.
    pub(super) fn forgive(&mut self, place: &K) {
        self.places.remove(place);
    }

    /// Forgets the places where nothing is wanted any more.
    pub(super) fn retain(&mut self, is_wanted: impl Fn(&K) -> bool) {
        self.places.retain(|place, _| is_wanted(place));
    }

    /// A place whose pods keep failing.
    pub(super) fn failing(&self) -> Option<&K> {
        self.places.iter().find(|(_, failures)| failures.count > 1).map(|(place, _)| place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pod_counts_once_and_pauses_double_up_to_a_limit() {
        let mut backoff = Backoff::default();
        let mut check = |pod: u64, now_ms: u64, expected: u64| {
            assert_eq!(backoff.ended("a", ObjectId(pod), now_ms), expected, "pod {pod} at {now_ms}");
        };
        check(1, 5000, 5000);
        check(1, 6000, 5000);
        check(2, 7000, 8000);
        check(2, 7500, 8000);
        check(3, 9000, 11_000);
        (4..30).for_each(|pod| _ = backoff.ended("a", ObjectId(pod), 9000));
        assert_eq!(backoff.ended("a", ObjectId(30), 9000), 309_000);
        assert_eq!(backoff.failing(), Some(&"a"));
        assert_eq!(backoff.ended("b", ObjectId(31), 9000), 9000, "places fail on their own");
        backoff.forgive(&"a");
        assert_eq!(backoff.failing(), None);
        assert_eq!(backoff.ended("a", ObjectId(32), 9000), 9000);
        assert_eq!(backoff.ended("a", ObjectId(33), 9000), 10_000);
        backoff.retain(|place| *place == "b");
        assert_eq!(backoff.failing(), None, "nothing is wanted there");
    }
}
