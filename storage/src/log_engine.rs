//! [`LogStore`] over an engine.

use std::sync::Arc;

use bulkhead_canary::planted;

use crate::{
    LoadedLog, LogBatch, LogStore, Operation, StorageError,
    acknowledged::Position,
    codec,
    engine::{Batch, Engine, KeyRange},
    keys::{self, Tree},
    log_record::LogRecordRef,
    log_replay::{Replay, Span},
};

/// Longest encoded batch; a Raft `Ready` is bounded far below by the server's message size.
pub const MAX_BATCH_BYTES: usize = 256 * 1024 * 1024;

/// The one implementation of [`LogStore`]; what differs between disk and simulation is the engine below.
pub(crate) struct EngineLog {
    engine: Arc<dyn Engine>,
    /// `None` until loaded, and after a failure.
    state: Option<Replay>,
    failure: Option<StorageError>,
    dirty: bool,
}

impl EngineLog {
    pub(crate) fn new(engine: Arc<dyn Engine>) -> Self {
        Self { engine, state: None, failure: None, dirty: false }
    }

    fn load_inner(&mut self) -> Result<LoadedLog, StorageError> {
        let acknowledged = self.engine.acknowledged()?;
        let fetch = |range: &KeyRange, limit| self.engine.scan(Operation::LogLoad, Tree::Log, range, limit);
        let (mut replay, cut) = Replay::run(fetch, acknowledged.log_seq)?;
        if let Some(cut) = cut.as_ref().filter(|_| !planted!("canary_torn_tail_left")) {
            let mut repair = Batch::default();
            repair.delete(keys::log(cut.record));
            self.engine.apply(Operation::LogLoad, Tree::Log, repair)?;
        }
        // The records that were read may have been written and never synced; from here on they count.
        self.engine.flush(Operation::LogLoad)?;
        self.engine.acknowledge(Operation::LogLoad, Position::LogSeq(replay.next_seq - 1))?;
        let entries = replay.take_entries();
        let loaded = LoadedLog {
            hard_state: replay.hard_state.clone(),
            first_index: replay.first_index,
            entries,
            cut,
        };
        self.state = Some(replay);
        Ok(loaded)
    }

    /// Remembers a failure that leaves it open what is on disk.
    fn poison<T>(&mut self, result: Result<T, StorageError>) -> Result<T, StorageError> {
        if let Err(error) = &result {
            self.failure = Some(error.clone());
            self.state = None;
        }
        result
    }

    fn check_usable(&self) -> Result<(), StorageError> {
        match &self.failure {
            Some(cause) => Err(StorageError::Poisoned { cause: cause.to_string() }),
            None => Ok(()),
        }
    }
}

impl LogStore for EngineLog {
    fn load(&mut self) -> Result<LoadedLog, StorageError> {
        self.state = None;
        self.dirty = false;
        self.failure = None;
        let result = self.load_inner().map_err(|error| error.within(self.engine.file()));
        self.poison(result)
    }

    fn write(&mut self, batch: &LogBatch) -> Result<(), StorageError> {
        self.check_usable()?;
        let Some(state) = &self.state else {
            return Err(StorageError::invalid("log write", "the log was not loaded"));
        };
        if batch.is_empty() {
            return Ok(());
        }
        let bounds = Bounds::check(state, batch)?;
        let Some((next, changes)) = plan(state, batch, bounds)? else { return Ok(()) };
        match self.engine.apply(Operation::LogWrite, Tree::Log, changes) {
            Ok(()) => {
                self.state = Some(next.install(self.state.take().expect("checked above")));
                self.dirty = true;
                Ok(())
            }
            Err(error) if error.is_refusal() => Err(error),
            Err(error) => self.poison(Err(error)),
        }
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.check_usable()?;
        let Some(state) = &self.state else {
            return Err(StorageError::invalid("log sync", "the log was not loaded"));
        };
        if !self.dirty {
            return Ok(());
        }
        let seq = state.next_seq - 1;
        let engine = Arc::clone(&self.engine);
        if planted!("canary_vote_not_flushed") && state.spans.back().is_some_and(|span| span.bare) {
            return Ok(());
        }
        let synced = engine
            .flush(Operation::LogSync)
            .and_then(|()| engine.acknowledge(Operation::LogSync, Position::LogSeq(seq)));
        self.poison(synced)?;
        self.dirty = false;
        Ok(())
    }

    fn check_space(&self) -> Result<(), StorageError> {
        self.check_usable()?;
        self.engine.check_space()
    }
}

/// Bounds of the log after a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bounds {
    first: u64,
    last: u64,
}

impl Bounds {
    fn check(state: &Replay, batch: &LogBatch) -> Result<Self, StorageError> {
        let invalid = |reason: String| Err(StorageError::invalid("log batch", reason));
        let (mut first, mut last) = (state.first_index, state.last_index);
        if let Some(index) = batch.reset_to {
            let Some(next) = index.checked_add(1) else { return invalid("reset_to is too large".to_owned()) };
            (first, last) = (next, index);
        }
        if let Some(from) = batch.truncate_from {
            if from < first {
                return invalid(format!("truncate_from {from} is below the first index {first}"));
            }
            last = last.min(from - 1);
        }
        for entry in &batch.entries {
            if last.checked_add(1) != Some(entry.index) {
                let next = last.saturating_add(1);
                return invalid(format!(
                    "entry {} where index {next} comes next (truncate_from first?)",
                    entry.index
                ));
            }
            last = entry.index;
        }
        if let Some(to) = batch.compact_to {
            if to > last {
                return invalid(format!("compact_to {to} is above the last index {last} (reset_to?)"));
            }
            first = first.max(to + 1);
        }
        Ok(Self { first, last })
    }
}

/// What changes in the state once the engine has taken the batch.
struct Next {
    span: Span,
    truncate_from: Option<u64>,
    reset: bool,
    hard_state: Option<Vec<u8>>,
    bounds: Bounds,
    dropped_front: usize,
    dropped_bare: bool,
}

/// Decides what to store and what becomes needless; `None` when the batch changes nothing.
fn plan(state: &Replay, batch: &LogBatch, bounds: Bounds) -> Result<Option<(Next, Batch)>, StorageError> {
    let seq = state.next_seq;
    let reset = batch.reset_to.is_some();
    let moves_first = reset || bounds.first != state.first_index;
    let truncate_from = batch.truncate_from.filter(|from| !reset && *from <= state.last_index);
    if batch.hard_state.is_none() && batch.entries.is_empty() && truncate_from.is_none() && !moves_first {
        return Ok(None);
    }
    // A record that makes older ones needless must carry what is still needed of them.
    let carried = if moves_first { state.hard_state.as_deref() } else { None };
    let hard_state = batch.hard_state.as_deref().or(carried);
    let dropped_bare =
        !moves_first && batch.hard_state.is_some() && state.spans.back().is_some_and(|span| span.bare);
    let follows = match (state.spans.back(), dropped_bare) {
        (Some(bare), true) => bare.follows,
        (Some(newest), false) => newest.seq,
        (None, _) => 0,
    };
    let record = LogRecordRef {
        seq,
        follows,
        first_index: bounds.first,
        last_index: bounds.last,
        reset,
        truncate_from,
        hard_state,
        entries: &batch.entries,
    };
    let body = record.encode();
    if body.len() > MAX_BATCH_BYTES {
        let reason = format!("{} bytes, the limit is {MAX_BATCH_BYTES}", body.len());
        return Err(StorageError::invalid("log batch", reason));
    }
    let span = Span {
        seq,
        follows,
        live_last: batch.entries.last().map(|entry| entry.index),
        first: batch.entries.first().map_or(0, |entry| entry.index),
        bare: batch.entries.is_empty() && !moves_first && truncate_from.is_none(),
    };
    let dropped_front =
        if moves_first { needless_front(state, truncate_from, reset, bounds.first) } else { 0 };
    let mut changes = Batch::default();
    let key = keys::log(seq);
    let value = codec::seal(Tree::Log, &key, &body);
    changes.put(key, value);
    for span in state.spans.iter().take(dropped_front) {
        changes.delete(keys::log(span.seq));
    }
    if let Some(bare) = state.spans.back().filter(|_| dropped_bare) {
        changes.delete(keys::log(bare.seq));
    }
    let hard_state = hard_state.map(<[u8]>::to_vec);
    Ok(Some((Next { span, truncate_from, reset, hard_state, bounds, dropped_front, dropped_bare }, changes)))
}

/// How many of the oldest records hold nothing that is still in force. Only a run at the front may go: what is
/// behind a record that stays is needed to replay that record's truncations.
fn needless_front(state: &Replay, truncate_from: Option<u64>, reset: bool, first_index: u64) -> usize {
    let needless = |span: &&Span| {
        let mut span = **span;
        if let Some(from) = truncate_from {
            span.truncate(from);
        }
        reset || span.live_last.is_none_or(|last| last < first_index)
    };
    state.spans.iter().take_while(needless).count()
}

impl Next {
    fn install(self, mut state: Replay) -> Replay {
        state.spans.drain(..self.dropped_front);
        if self.dropped_bare {
            state.spans.pop_back();
        }
        if let Some(from) = self.truncate_from {
            for span in state.spans.iter_mut().rev() {
                let keeps_all = span.live_last.is_some_and(|last| last < from);
                span.truncate(from);
                if keeps_all {
                    break;
                }
            }
        }
        assert!(!self.reset || state.spans.is_empty(), "a reset voids every older record");
        state.spans.push_back(self.span);
        state.next_seq = self.span.seq + 1;
        (state.first_index, state.last_index) = (self.bounds.first, self.bounds.last);
        if self.hard_state.is_some() {
            state.hard_state = self.hard_state;
        }
        state
    }
}
