//! How often something is told that goes back and forth, as the link of an interface with a bad cable.
//!
//! ```text
//!  first change: at once ─► second: `first` later ─► third: twice that later ─► ... ─► at most every `most`
//!                              quiet for twice as long as it had to wait: from the beginning
//! ```

/// When the next change may be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damping {
    last_ms: u64,
    apart_ms: u64,
}

/// Least times between two changes that are told, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// After the first.
    pub first_ms: u64,
    /// Of what does not come to rest.
    pub most_ms: u64,
}

impl Damping {
    /// A change is told now, after what was told before.
    pub(crate) fn told(before: Option<Self>, pace: Pace, now_ms: u64) -> Self {
        let apart_ms = match before.filter(|before| !before.is_over(now_ms)) {
            Some(before) => before.apart_ms.saturating_mul(2).min(pace.most_ms),
            None => pace.first_ms,
        };
        Self { last_ms: now_ms, apart_ms }
    }

    /// When the next change may be told, by the clock of the last.
    pub(crate) fn due_ms(self) -> u64 {
        self.last_ms.saturating_add(self.apart_ms)
    }

    /// Whether it was quiet for so long that nothing need be known of it.
    pub(crate) fn is_over(self, now_ms: u64) -> bool {
        now_ms >= self.last_ms.saturating_add(self.apart_ms.saturating_mul(2))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PACE: Pace = Pace { first_ms: 10_000, most_ms: 3_600_000 };

    /// When changes are told of something that changes at these times, in seconds; what may not be told yet is told when it may.
    fn told(changes: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let (mut damping, mut told): (Option<Damping>, Vec<u64>) = (None, Vec::new());
        for at in changes {
            let due = damping.map_or(0, Damping::due_ms).max(at * 1000);
            if told.last().is_none_or(|last| at * 1000 > *last) {
                damping = Some(Damping::told(damping, PACE, due));
                told.push(due);
            }
        }
        told.into_iter().map(|ms| ms / 1000).collect()
    }

    #[test]
    fn what_goes_back_and_forth_is_told_less_and_less_often() {
        let day = told(0..86_400);
        assert_eq!(day[..6], [0, 10, 30, 70, 150, 310]);
        assert!(day.len() < 36, "{day:?}");
        assert!(day[12..].windows(2).all(|pair| pair[1] - pair[0] == 3600), "{day:?}");
        assert_eq!(
            told([0, 1, 100, 101, 5000, 5001]),
            [0, 10, 100, 110, 5000, 5010],
            "each time from the beginning"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// Whenever it changes: two reports are never closer than the least time, and each change is told within the longest.
        #[test]
        fn reports_are_apart_and_come(mut changes in prop::collection::vec(0u64..200_000, 1..64)) {
            changes.sort_unstable();
            let all = told(changes.clone());
            prop_assert!(all.windows(2).all(|pair| pair[1] - pair[0] >= 10));
            for at in changes {
                prop_assert!(all.iter().any(|told| (at..=at + 3600).contains(told)), "{} in {:?}", at, all);
            }
        }
    }
}
