//! [`EventStore`] over an engine.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{
    EventRecord, EventStore, Operation, StorageError,
    acknowledged::Position,
    codec::{self, Damage, Reader},
    engine::{Batch, Engine, KeyRange, Pair},
    keys::{self, Tree},
};

/// Records dropped in one batch.
const DROP_BATCH_RECORDS: usize = 256;
/// Records that one read returns at most, whatever its limit says.
pub const MAX_READ_RECORDS: usize = 65_536;
/// Longest single record.
pub const MAX_EVENT_RECORD_BYTES: usize = 64 * 1024 * 1024;

/// The one implementation of [`EventStore`].
pub(crate) struct EngineEvents {
    engine: Arc<dyn Engine>,
    /// The lock also orders writers.
    state: Mutex<State>,
}

/// What is stored.
struct State {
    /// First revision of the oldest record, last revision of the newest.
    bounds: Option<(u64, u64)>,
    /// Counts how often the newest record was dropped, so that a sync that this overtook promises nothing.
    retreats: u64,
    /// Why the bounds are not known any more.
    failure: Option<StorageError>,
}

impl EngineEvents {
    /// Finds the bounds and removes a torn tail that was never acknowledged (it is in the log still).
    pub(crate) fn open(engine: Arc<dyn Engine>) -> Result<Self, StorageError> {
        let acknowledged = engine.acknowledged()?.event_revision;
        let mut newest = engine.last(Operation::Open, Tree::Events)?;
        if let Some((key, value)) = &newest
            && codec::unseal(Tree::Events, key, value) == Err(Damage::Torn)
            && keys::number(key).is_some_and(|revision| revision > acknowledged)
        {
            let mut repair = Batch::default();
            repair.delete(key.clone());
            engine.apply(Operation::Open, Tree::Events, repair)?;
            engine.flush(Operation::Open)?;
            newest = engine.last(Operation::Open, Tree::Events)?;
        }
        let newest = newest.map(decode).transpose()?;
        let oldest = engine.scan(Operation::Open, Tree::Events, &keys::range::all(), 1)?.pop();
        let oldest = oldest.map(decode).transpose()?;
        let last_revision = newest.as_ref().map_or(0, |record| record.last_revision);
        if last_revision < acknowledged {
            let reason = format!("records up to revision {acknowledged} were acknowledged and are gone");
            return Err(codec::corrupt(Tree::Events, &keys::event(last_revision), reason));
        }
        let bounds = oldest.zip(newest).map(|(oldest, newest)| (oldest.first_revision, newest.last_revision));
        Ok(Self { engine, state: Mutex::new(State { bounds, retreats: 0, failure: None }) })
    }

    fn lock(&self) -> Result<MutexGuard<'_, State>, StorageError> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &state.failure {
            Some(cause) => Err(StorageError::Poisoned { cause: cause.to_string() }),
            None => Ok(state),
        }
    }

    /// Checks that a record is stored with exactly this content.
    fn check_stored(&self, record: &EventRecord) -> Result<(), StorageError> {
        let key = keys::event(record.last_revision);
        let stored = self.engine.get(Operation::EventWrite, Tree::Events, &key)?;
        let stored = stored.map(|value| decode((key, value))).transpose()?;
        if stored.as_ref() == Some(record) {
            return Ok(());
        }
        Err(StorageError::Conflict { revision: record.last_revision })
    }

    /// Splits off what is new, after checking the rest against the disk.
    fn plan(
        &self,
        bounds: Option<(u64, u64)>,
        records: &[EventRecord],
    ) -> Result<(Batch, Option<(u64, u64)>), StorageError> {
        let invalid = |reason: String| Err(StorageError::invalid("event append", reason));
        let mut batch = Batch::default();
        let mut reached = bounds;
        for record in records {
            let (first, last) = (record.first_revision, record.last_revision);
            if first == 0 || first > last {
                return invalid(format!("a record from revision {first} to {last}"));
            }
            if record.bytes.len() > MAX_EVENT_RECORD_BYTES {
                return invalid(format!(
                    "{} bytes, the limit is {MAX_EVENT_RECORD_BYTES}",
                    record.bytes.len()
                ));
            }
            match (bounds, reached) {
                (Some((_, newest)), _) if last <= newest => {
                    self.check_stored(record)?;
                    continue;
                }
                (_, Some((_, newest))) if first != newest + 1 => {
                    return invalid(format!(
                        "revision {first} after {newest} (compact or truncate_after first?)"
                    ));
                }
                _ => {}
            }
            let key = keys::event(last);
            let value = codec::seal(Tree::Events, &key, &encode(record));
            batch.put(key, value);
            reached = Some((reached.map_or(first, |(oldest, _)| oldest), last));
        }
        Ok((batch, reached))
    }

    fn drop_range(&self, range: &KeyRange) -> Result<(), StorageError> {
        loop {
            let page = self.engine.keys(Operation::EventWrite, Tree::Events, range, DROP_BATCH_RECORDS)?;
            let is_last = page.len() < DROP_BATCH_RECORDS;
            let mut batch = Batch::default();
            page.into_iter().for_each(|key| batch.delete(key));
            if !batch.is_empty() {
                self.engine.apply(Operation::EventWrite, Tree::Events, batch)?;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// Takes the promise back, before what it covers goes away.
    fn promise_nothing(&self) -> Result<(), StorageError> {
        if self.engine.acknowledged()?.event_revision > 0 {
            self.engine.acknowledge(Operation::EventWrite, Position::EventRevision(0))?;
        }
        Ok(())
    }

    fn read_range(&self, from_revision: u64, limit: usize) -> Result<Vec<EventRecord>, StorageError> {
        let range = keys::range::from(from_revision);
        let limit = limit.min(MAX_READ_RECORDS);
        let pairs = self.engine.scan(Operation::EventRead, Tree::Events, &range, limit)?;
        let mut records: Vec<EventRecord> = Vec::with_capacity(pairs.len());
        for pair in pairs {
            let record = decode(pair)?;
            if let Some(before) = records.last()
                && before.last_revision + 1 != record.first_revision
            {
                let reason =
                    format!("the records between revision {} and it are missing", before.last_revision);
                return Err(codec::corrupt(Tree::Events, &keys::event(record.last_revision), reason));
            }
            records.push(record);
        }
        Ok(records)
    }

    fn drop_and_reload(&self, state: &mut State, range: &KeyRange) -> Result<(), StorageError> {
        let dropped = self.drop_range(range);
        let bounds = self.read_bounds();
        state.failure = bounds.as_ref().err().cloned();
        state.bounds = bounds?;
        dropped
    }

    fn read_bounds(&self) -> Result<Option<(u64, u64)>, StorageError> {
        let oldest = self.engine.scan(Operation::EventWrite, Tree::Events, &keys::range::all(), 1)?.pop();
        let newest = self.engine.last(Operation::EventWrite, Tree::Events)?;
        let (oldest, newest) = (oldest.map(decode).transpose()?, newest.map(decode).transpose()?);
        Ok(oldest.zip(newest).map(|(oldest, newest)| (oldest.first_revision, newest.last_revision)))
    }
}

impl EventStore for EngineEvents {
    fn append(&self, records: &[EventRecord]) -> Result<(), StorageError> {
        let mut state = self.lock()?;
        let (batch, reached) = self.plan(state.bounds, records)?;
        if !batch.is_empty() {
            self.engine.apply(Operation::EventWrite, Tree::Events, batch)?;
            state.bounds = reached;
        }
        Ok(())
    }

    fn read(&self, from_revision: u64, limit: usize) -> Result<Vec<EventRecord>, StorageError> {
        match self.read_range(from_revision, limit) {
            // Records that are being dropped go in no order that a reader could rely on. Nobody drops any while the
            // lock is held: what is wrong then is damage.
            Err(error) if error.is_fatal() => {
                let _state = self.lock()?;
                self.read_range(from_revision, limit)
            }
            result => result,
        }
    }

    fn bounds(&self) -> Result<Option<(u64, u64)>, StorageError> {
        Ok(self.lock()?.bounds)
    }

    fn compact(&self, before_revision: u64) -> Result<(), StorageError> {
        let mut state = self.lock()?;
        if state.bounds.is_some_and(|(_, newest)| newest < before_revision) {
            state.retreats += 1;
            self.promise_nothing()?;
        }
        self.drop_and_reload(&mut state, &keys::range::before(before_revision))
    }

    fn truncate_after(&self, revision: u64) -> Result<(), StorageError> {
        let mut state = self.lock()?;
        if state.bounds.is_none_or(|(_, newest)| newest <= revision) {
            return Ok(());
        }
        state.retreats += 1;
        self.promise_nothing()?;
        self.drop_and_reload(&mut state, &keys::range::from(revision + 1))?;
        self.engine.flush(Operation::EventSync)?;
        let newest = state.bounds.map_or(0, |(_, newest)| newest);
        self.engine.acknowledge(Operation::EventSync, Position::EventRevision(newest))
    }

    fn sync(&self) -> Result<(), StorageError> {
        // Read before the flush: a record that comes meanwhile is not covered by it.
        let (covered, retreats) = {
            let state = self.lock()?;
            (state.bounds.map_or(0, |(_, newest)| newest), state.retreats)
        };
        self.engine.flush(Operation::EventSync)?;
        let state = self.lock()?;
        if state.retreats != retreats || covered <= self.engine.acknowledged()?.event_revision {
            return Ok(());
        }
        self.engine.acknowledge(Operation::EventSync, Position::EventRevision(covered))
    }
}

fn encode(record: &EventRecord) -> Vec<u8> {
    let mut body = Vec::with_capacity(8 + record.bytes.len());
    body.extend_from_slice(&record.first_revision.to_le_bytes());
    body.extend_from_slice(&record.bytes);
    body
}

fn decode((key, value): Pair) -> Result<EventRecord, StorageError> {
    let body =
        codec::unseal(Tree::Events, &key, &value).map_err(|damage| damage.into_error(Tree::Events, &key))?;
    let mut reader = Reader(body);
    let read = || Some((keys::number(&key)?, reader.u64()?, reader.0.to_vec()));
    let malformed = || codec::corrupt(Tree::Events, &key, "it is malformed");
    let (last_revision, first_revision, bytes) = { read }().ok_or_else(malformed)?;
    if first_revision == 0 || first_revision > last_revision {
        return Err(malformed());
    }
    Ok(EventRecord { first_revision, last_revision, bytes })
}
