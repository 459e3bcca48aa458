//! One probe of one container: when it asks, and what the answers come to.
//!
//! ```text
//!  start ─► initial delay ─► ask ─► answer, or none in time ─► so many alike in a row: a verdict
//!                             ▲                 │
//!                             └──── period ─────┘
//! ```
//! Source: "Configure Probes" in the Kubernetes documentation.

use bulkhead_guest_protocol::host::ProbeConfig;

/// A question that is not answered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    number: u64,
    until_ms: u64,
}

/// What follows from an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing yet: too few alike in a row, or as before.
    None,
    Succeeded,
    Failed,
}

/// One probe of one container.
#[derive(Debug)]
pub(super) struct Prober {
    config: ProbeConfig,
    /// When to ask next; `None` while it is not to ask at all.
    next_ms: Option<u64>,
    asked: Option<Asked>,
    succeeds: bool,
    /// Answers alike so far.
    in_a_row: u32,
}

impl Prober {
    pub(super) fn new(config: &ProbeConfig) -> Self {
        Self { config: config.clone(), next_ms: None, asked: None, succeeds: false, in_a_row: 0 }
    }

    /// From now on it asks: first when the delay since the container's start has passed.
    pub(super) fn start(&mut self, started_ms: u64, now_ms: u64) {
        let first_ms = started_ms.saturating_add(self.config.initial_delay_ms);
        *self = Self { next_ms: Some(first_ms.max(now_ms)), ..Self::new(&self.config) };
    }

    /// From now on it does not ask. What was asked and not answered is returned.
    pub(super) fn stop(&mut self) -> Option<u64> {
        self.next_ms = None;
        self.asked.take().map(|asked| asked.number)
    }

    /// When time alone makes something happen, in monotonic milliseconds.
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.next_ms.map(|next_ms| self.asked.map_or(next_ms, |asked| asked.until_ms))
    }

    /// Whether it is time to ask.
    pub(super) fn is_due(&self, now_ms: u64) -> bool {
        self.asked.is_none() && self.next_ms.is_some_and(|next_ms| now_ms >= next_ms)
    }

    /// It asks now.
    pub(super) fn ask(&mut self, number: u64, now_ms: u64) {
        self.asked = Some(Asked { number, until_ms: now_ms.saturating_add(self.config.timeout_ms) });
        self.next_ms = Some(now_ms.saturating_add(self.config.period_ms));
    }

    /// The question that got no answer in time.
    pub(super) fn overdue(&self, now_ms: u64) -> Option<u64> {
        self.asked.filter(|asked| now_ms >= asked.until_ms).map(|asked| asked.number)
    }

    /// Whether this is the answer that it waits for.
    pub(super) fn awaits(&self, number: u64) -> bool {
        self.asked.is_some_and(|asked| asked.number == number)
    }

    /// The question was not asked; it is as if it had not been due.
    pub(super) fn withdraw(&mut self, number: u64) {
        if self.awaits(number) {
            self.asked = None;
        }
    }

    /// Takes the answer; a verdict is given once, when enough of them were alike.
    pub(super) fn answer(&mut self, succeeds: bool) -> Verdict {
        self.asked = None;
        if self.succeeds != succeeds {
            self.in_a_row = 0;
        }
        self.succeeds = succeeds;
        self.in_a_row = self.in_a_row.saturating_add(1);
        let (threshold, verdict) = match succeeds {
            true => (self.config.success_threshold, Verdict::Succeeded),
            false => (self.config.failure_threshold, Verdict::Failed),
        };
        if self.in_a_row == threshold { verdict } else { Verdict::None }
    }

    /// How long an answer may take, in milliseconds.
    pub(super) fn timeout_ms(&self) -> u64 {
        self.config.timeout_ms
    }

    /// Failures in a row that count.
    pub(super) fn failure_threshold(&self) -> u32 {
        self.config.failure_threshold
    }

    /// Grace when its failure ends the container, in milliseconds.
    pub(super) fn grace_ms(&self) -> Option<u64> {
        self.config.grace_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn probe(delay_ms: u64, period_ms: u64, success: u32, failure: u32) -> Prober {
        Prober::new(&ProbeConfig {
            initial_delay_ms: delay_ms,
            period_ms,
            timeout_ms: 1_000,
            success_threshold: success,
            failure_threshold: failure,
            ..Default::default()
        })
    }

    #[test]
    fn it_asks_after_the_delay_and_then_each_period() {
        let mut prober = probe(5_000, 10_000, 1, 3);
        assert_eq!(prober.due_ms(), None);
        prober.start(100, 200);
        assert_eq!(prober.due_ms(), Some(5_100));
        assert!(!prober.is_due(5_099) && prober.is_due(5_100));
        prober.ask(1, 5_100);
        assert_eq!(prober.due_ms(), Some(6_100));
        assert_eq!((prober.overdue(6_099), prober.overdue(6_100)), (None, Some(1)));
        prober.answer(true);
        assert_eq!(prober.due_ms(), Some(15_100));
        prober.ask(2, 15_100);
        assert_eq!(prober.stop(), Some(2));
        assert_eq!(prober.due_ms(), None);
        // A delay that is over counts no more.
        prober.start(100, 20_000);
        assert_eq!(prober.due_ms(), Some(20_000));
    }

    /// `1` success, `0` failure; the verdicts as `S`, `F` and `.`.
    fn check(success: u32, failure: u32, answers: &str, expected: &str) {
        let mut prober = probe(0, 1, success, failure);
        let verdicts = answers.chars().map(|answer| match prober.answer(answer == '1') {
            Verdict::None => '.',
            Verdict::Succeeded => 'S',
            Verdict::Failed => 'F',
        });
        assert_eq!(verdicts.collect::<String>(), expected, "{success} {failure} {answers}");
    }

    #[test]
    fn verdicts_need_answers_alike_in_a_row() {
        check(1, 3, "1", "S");
        check(1, 3, "11", "S.");
        check(1, 3, "0000", "..F.");
        check(1, 3, "001000", "..S..F");
        check(2, 1, "1011", ".F.S");
        check(1, 1, "1010", "SFSF");
    }

    proptest! {
        #[test]
        fn it_never_asks_twice_at_once_nor_more_often_than_each_period(
            delay_ms in 0..5_000_u64, period_ms in 1..5_000_u64, waits in proptest::collection::vec(0..3_000_u64, 1..40)
        ) {
            let mut prober = probe(delay_ms, period_ms, 1, 3);
            prober.start(0, 0);
            let (mut now_ms, mut last_ms) = (0, None);
            for (number, wait_ms) in waits.into_iter().enumerate() {
                now_ms = prober.due_ms().expect("it runs").max(now_ms);
                prop_assert!(prober.is_due(now_ms) && now_ms >= delay_ms);
                prop_assert!(last_ms.is_none_or(|last_ms: u64| now_ms - last_ms >= period_ms));
                prober.ask(number as u64, now_ms);
                last_ms = Some(now_ms);
                prop_assert!(!prober.is_due(u64::MAX));
                now_ms += wait_ms;
                prober.answer(wait_ms < 1_000);
            }
        }
    }
}
