//! What happened: a hash over all of it, and the last lines for people.

use std::collections::VecDeque;

use bulkhead_types::digest128;

use crate::clock::Micros;
use crate::network::Host;

/// How many lines are kept for the report of a failure.
const LINES_MAX: usize = 400;

/// How much is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// The hash only.
    Hash,
    /// The hash, and the last lines.
    Tail,
    /// The hash, and every line is printed as it comes.
    Print,
}

/// The record of a run.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u128,
    detail: Detail,
    tail: VecDeque<String>,
}

impl Trace {
    /// Nothing happened yet.
    #[must_use]
    pub(crate) fn new(detail: Detail) -> Self {
        Self { hash: 0, detail, tail: VecDeque::new() }
    }

    /// Notes one event: `label` and `number` are part of the hash, the text is for people.
    pub(crate) fn note(
        &mut self,
        at_us: Micros,
        host: Host,
        label: &'static str,
        number: u128,
        text: impl FnOnce() -> String,
    ) {
        self.hash = digest128(&(self.hash, at_us, host, label, number));
        if self.detail == Detail::Hash {
            return;
        }
        let line = format!("{:>13.6} {host:<9} {label} {}", at_us as f64 / 1e6, text());
        if self.detail == Detail::Print {
            println!("{line}");
            return;
        }
        if self.tail.len() == LINES_MAX {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }

    /// The hash of everything so far.
    #[must_use]
    pub(crate) fn hash(&self) -> u128 {
        self.hash
    }

    /// The last lines.
    #[must_use]
    pub(crate) fn into_tail(self) -> Vec<String> {
        self.tail.into()
    }
}
