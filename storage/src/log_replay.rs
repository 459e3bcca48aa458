//! From the records of the log tree to its present state. Pure, and the same for every engine.

use std::collections::VecDeque;

use crate::{
    CutTail, LogEntry, StorageError,
    codec::{self, Damage},
    engine::{KeyRange, Pair},
    keys::{self, Tree},
    log_record::LogRecord,
};

/// Records read at once; two pages are in memory at a time.
const PAGE_RECORDS: usize = 64;

/// Which live entries one stored record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) seq: u64,
    pub(crate) follows: u64,
    /// Last index among its entries that is still in force; `None` when none is.
    pub(crate) live_last: Option<u64>,
    /// First index among its entries; meaningless without a live one.
    pub(crate) first: u64,
    /// The record is nothing but a hard state, so that a newer hard state makes it needless.
    pub(crate) bare: bool,
}

impl Span {
    pub(crate) fn truncate(&mut self, from: u64) {
        self.live_last =
            self.live_last.and_then(|last| if from > self.first { Some(last.min(from - 1)) } else { None });
    }
}

/// State of the log, and where its parts are stored. Grows record by record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Replay {
    pub(crate) hard_state: Option<Vec<u8>>,
    pub(crate) first_index: u64,
    pub(crate) last_index: u64,
    /// Stored records in order of their sequence numbers.
    pub(crate) spans: VecDeque<Span>,
    pub(crate) next_seq: u64,
    entries: VecDeque<LogEntry>,
}

impl Default for Replay {
    fn default() -> Self {
        let (spans, entries) = (VecDeque::new(), VecDeque::new());
        Self { hard_state: None, first_index: 1, last_index: 0, spans, next_seq: 1, entries }
    }
}

impl Replay {
    /// Replays the records that `fetch` reads page by page (it gets where to start and how many to read at most). A
    /// torn last record that was never acknowledged is left out and reported.
    pub(crate) fn run(
        mut fetch: impl FnMut(&KeyRange, usize) -> Result<Vec<Pair>, StorageError>,
        acknowledged_seq: u64,
    ) -> Result<(Self, Option<CutTail>), StorageError> {
        let mut replay = Self::default();
        let mut cut = None;
        let mut range = keys::range::all();
        let mut page = fetch(&range, PAGE_RECORDS)?;
        while let Some((last_key, _)) = page.last() {
            // One page ahead, to know which record is the last.
            range.0 = [last_key.as_slice(), &[0]].concat();
            let next_page = fetch(&range, PAGE_RECORDS)?;
            let mut page_records = std::mem::replace(&mut page, next_page).into_iter().peekable();
            while let Some(pair) = page_records.next() {
                let is_last = page.is_empty() && page_records.peek().is_none();
                cut = replay.feed(&pair, is_last)?;
            }
        }
        replay.finish(acknowledged_seq)?;
        Ok((replay, cut))
    }

    fn feed(&mut self, (key, value): &Pair, is_last: bool) -> Result<Option<CutTail>, StorageError> {
        let corrupt = |reason: String| codec::corrupt(Tree::Log, key, reason);
        let seq = keys::number(key).ok_or_else(|| corrupt("its key is malformed".to_owned()))?;
        let body = match codec::unseal(Tree::Log, key, value) {
            Ok(body) => body,
            Err(Damage::Torn) if is_last => {
                // Whether it was acknowledged is judged at the end.
                return Ok(Some(CutTail { record: seq, bytes: value.len(), last_index: self.last_index }));
            }
            Err(Damage::Corrupt(reason)) => {
                // The checksums inside say which entry it is.
                let inner = LogRecord::decode(codec::body_unchecked(value)).err();
                return Err(corrupt(inner.unwrap_or(reason)));
            }
            Err(torn) => return Err(torn.into_error(Tree::Log, key)),
        };
        let record = LogRecord::decode(body).map_err(corrupt)?;
        if record.seq != seq {
            return Err(corrupt(format!("it says that it is record {}", record.seq)));
        }
        self.apply(record).map_err(corrupt)?;
        Ok(None)
    }

    fn apply(&mut self, record: LogRecord) -> Result<(), String> {
        let oldest = self.spans.is_empty();
        let newest_seq = self.spans.back().map_or(0, |span| span.seq);
        if !oldest && record.follows != newest_seq {
            return Err(format!("record {} before it is missing (found {newest_seq})", record.follows));
        }
        if record.reset {
            self.truncate(0);
        } else if let Some(from) = record.truncate_from {
            self.truncate(from);
        }
        let end = match (record.entries.first(), record.reset || oldest) {
            // Entries below the oldest stored record were compacted away; it says itself where it begins.
            (Some(first), true) => first.index - 1,
            (None, true) => record.last_index,
            (_, false) => record.truncate_from.map_or(self.last_index, |from| self.last_index.min(from - 1)),
        };
        if record.entries.first().is_some_and(|first| first.index != end + 1) {
            return Err(format!("its entries do not continue at index {}", end + 1));
        }
        let appended = u64::try_from(record.entries.len()).expect("usize fits u64");
        if end + appended != record.last_index {
            return Err(format!("it does not end at its last index {}", record.last_index));
        }
        self.push_span(&record);
        self.entries.extend(record.entries);
        self.last_index = record.last_index;
        self.first_index = record.first_index;
        while self.entries.front().is_some_and(|entry| entry.index < self.first_index) {
            self.entries.pop_front();
        }
        if record.hard_state.is_some() {
            self.hard_state = record.hard_state;
        }
        self.next_seq = record.seq + 1;
        Ok(())
    }

    fn truncate(&mut self, from: u64) {
        while self.entries.back().is_some_and(|entry| entry.index >= from) {
            self.entries.pop_back();
        }
        for span in self.spans.iter_mut().rev() {
            let keeps_all = span.live_last.is_some_and(|last| last < from);
            span.truncate(from);
            if keeps_all {
                break;
            }
        }
    }

    fn push_span(&mut self, record: &LogRecord) {
        let first = record.entries.first().map_or(0, |entry| entry.index);
        self.spans.push_back(Span {
            seq: record.seq,
            follows: record.follows,
            live_last: record.entries.last().map(|entry| entry.index),
            first,
            bare: record.entries.is_empty()
                && !record.reset
                && record.truncate_from.is_none()
                && record.first_index == self.first_index,
        });
    }

    fn finish(&self, acknowledged_seq: u64) -> Result<(), StorageError> {
        let newest = self.next_seq - 1;
        let problem = if newest < acknowledged_seq {
            Some(format!(
                "records up to {acknowledged_seq} were acknowledged, the last whole one is {newest}"
            ))
        } else if self.entries.front().map_or(self.last_index + 1, |entry| entry.index) != self.first_index {
            Some(format!("the entries from index {} on are missing", self.first_index))
        } else {
            None
        };
        match problem {
            Some(reason) => Err(codec::corrupt(Tree::Log, &keys::log(newest), reason)),
            None => Ok(()),
        }
    }

    /// Hands the entries out; the replay keeps only positions from then on.
    pub(crate) fn take_entries(&mut self) -> Vec<LogEntry> {
        std::mem::take(&mut self.entries).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(from: u64, live_last: Option<u64>) {
        let mut span = Span { seq: 1, follows: 0, live_last: Some(9), first: 5, bare: false };
        span.truncate(from);
        assert_eq!(span.live_last, live_last, "{from}");
        span.truncate(from);
        assert_eq!(span.live_last, live_last, "twice {from}");
    }

    #[test]
    fn a_truncation_ends_a_span_right_before_it() {
        check(10, Some(9));
        check(9, Some(8));
        check(6, Some(5));
        check(5, None);
        check(0, None);
    }
}
