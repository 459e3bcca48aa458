//! Shrinks the decisions of a failing run until none of them can be left out.
//!
//! ```text
//!   decisions ─► before the failure only ─► without noise, if it still fails ─► ddmin ─► one by one
//!                                 every try is a whole run; it counts when it breaks the same invariant
//! ```

use std::sync::Arc;

use crate::script::{Decision, Header, Script};

/// How a try ended: what it broke, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which invariant; of a panic, its place.
    pub invariant: String,
    /// When, microseconds.
    pub at_us: u64,
}

/// Looks for the shortest script that breaks the same invariant.
pub struct Shrinker<F> {
    attempt: F,
    invariant: String,
    tries_left: usize,
}

impl<F: FnMut(Arc<Script>) -> Option<Failure>> Shrinker<F> {
    /// A search of at most `tries_max` runs; `attempt` runs a script.
    pub fn new(failure: &Failure, tries_max: usize, attempt: F) -> Self {
        Self { attempt, invariant: failure.invariant.clone(), tries_left: tries_max }
    }

    /// When the script fails in the same way, the time at which it does.
    fn fails(&mut self, header: &Header, decisions: &[Decision]) -> Option<u64> {
        if self.tries_left == 0 {
            return None;
        }
        self.tries_left -= 1;
        let script =
            Script { header: Header { trace_hash: None, ..header.clone() }, decisions: decisions.to_vec() };
        let failure = (self.attempt)(Arc::new(script))?;
        (failure.invariant == self.invariant).then_some(failure.at_us)
    }

    /// The shortest failing script that was found. It has no hash: it was never recorded as it is.
    pub fn shrink(&mut self, script: &Script, failed_at_us: u64) -> Script {
        let mut header = Header { trace_hash: None, ..script.header.clone() };
        let mut decisions = script.decisions.clone();
        decisions.retain(|d| d.at_us <= failed_at_us);
        let mut quiet = header.clone();
        quiet.options.be_quiet();
        if quiet != header && self.fails(&quiet, &decisions).is_some() {
            header = quiet;
        }
        let decisions = self.minimize(&header, decisions);
        // Nothing is decided after the last one: what follows is the cluster's own doing.
        let calm_at_us = decisions.last().map_or(1, |d| d.at_us + 1);
        let shorter = Header { calm_at_us, ..header.clone() };
        if calm_at_us < header.calm_at_us && self.fails(&shorter, &decisions).is_some() {
            header = shorter;
        }
        Script { header, decisions }
    }

    /// Delta debugging: leaves out ever smaller parts, as long as it fails without them.
    fn minimize(&mut self, header: &Header, mut decisions: Vec<Decision>) -> Vec<Decision> {
        let mut parts = 2;
        while !decisions.is_empty() && self.tries_left > 0 {
            let size = decisions.len().div_ceil(parts);
            let mut at = 0;
            let mut shorter = false;
            while at < decisions.len() {
                let end = (at + size).min(decisions.len());
                let rest: Vec<Decision> = decisions[..at].iter().chain(&decisions[end..]).cloned().collect();
                match self.fails(header, &rest) {
                    Some(failed_at_us) => {
                        decisions = rest;
                        let before = decisions.len();
                        decisions.retain(|d| d.at_us <= failed_at_us);
                        shorter = true;
                        if decisions.len() < before {
                            break;
                        }
                    }
                    None => at = end,
                }
            }
            if size == 1 && !shorter {
                break;
            }
            parts = if shorter { parts.max(2) } else { (parts * 2).min(decisions.len().max(2)) };
        }
        decisions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use crate::script::{VERSION, What};

    fn script(count: u64) -> Script {
        let operation = |at_us| Decision { at_us, what: What::Operation { client: 0, submission: None } };
        let header = Header {
            version: VERSION,
            options: Options::draw(1),
            calm_at_us: 10_000,
            trace_hash: Some(String::new()),
        };
        Script { header, decisions: (1..=count).map(operation).collect() }
    }

    /// Fails when all of these are there, at the last of them.
    fn check(needed: &[u64], count: u64, tries_max: usize) {
        let failure = Failure { invariant: "planted".to_owned(), at_us: count };
        let mut tries = 0;
        let mut shrinker = Shrinker::new(&failure, tries_max, |script: Arc<Script>| {
            tries += 1;
            let there = |at: &u64| script.decisions.iter().any(|d| d.at_us == *at);
            let at_us = needed.iter().copied().max()?;
            needed.iter().all(there).then(|| Failure { invariant: "planted".to_owned(), at_us })
        });
        let shrunk = shrinker.shrink(&script(count), count);
        let left: Vec<u64> = shrunk.decisions.iter().map(|d| d.at_us).collect();
        assert_eq!(left, needed, "after {tries} tries");
        let mut quiet = Options::draw(1);
        quiet.be_quiet();
        assert!(shrunk.header.options == quiet && shrunk.header.calm_at_us == needed[needed.len() - 1] + 1);
    }

    #[test]
    fn what_is_needed_stays_and_nothing_else() {
        check(&[500], 1000, 200);
        check(&[3, 400, 977], 1000, 400);
        check(&[1, 2, 3, 4, 5, 6, 7], 7, 200);
    }

    #[test]
    fn another_failure_does_not_count() {
        let failure = Failure { invariant: "one".to_owned(), at_us: 9 };
        let mut shrinker = Shrinker::new(&failure, 100, |script: Arc<Script>| {
            let invariant = if script.decisions.len() == 9 { "one" } else { "other" };
            Some(Failure { invariant: invariant.to_owned(), at_us: 9 })
        });
        assert_eq!(shrinker.shrink(&script(9), 9).decisions.len(), 9);
    }
}
