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
    /// Bounds of what is stored; the lock also orders writers.
    bounds: Mutex<Option<(u64, u64)>>,
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
        Ok(Self { engine, bounds: Mutex::new(bounds) })
    }

    fn lock(&self) -> MutexGuard<'_, Option<(u64, u64)>> {
        self.bounds.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn lower_acknowledged(&self, event_revision: u64) -> Result<(), StorageError> {
        if self.engine.acknowledged()?.event_revision > event_revision {
            self.engine.acknowledge(Operation::EventWrite, Position::EventRevision(event_revision))?;
        }
        Ok(())
    }

    fn reload_bounds(&self) -> Result<Option<(u64, u64)>, StorageError> {
        let oldest = self.engine.scan(Operation::EventWrite, Tree::Events, &keys::range::all(), 1)?.pop();
        let newest = self.engine.last(Operation::EventWrite, Tree::Events)?;
        let (oldest, newest) = (oldest.map(decode).transpose()?, newest.map(decode).transpose()?);
        Ok(oldest.zip(newest).map(|(oldest, newest)| (oldest.first_revision, newest.last_revision)))
    }
}

impl EventStore for EngineEvents {
    fn append(&self, records: &[EventRecord]) -> Result<(), StorageError> {
        let mut bounds = self.lock();
        let (batch, reached) = self.plan(*bounds, records)?;
        if !batch.is_empty() {
            self.engine.apply(Operation::EventWrite, Tree::Events, batch)?;
            *bounds = reached;
        }
        Ok(())
    }

    fn read(&self, from_revision: u64, limit: usize) -> Result<Vec<EventRecord>, StorageError> {
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

    fn bounds(&self) -> Result<Option<(u64, u64)>, StorageError> {
        Ok(*self.lock())
    }

    fn compact(&self, before_revision: u64) -> Result<(), StorageError> {
        let mut bounds = self.lock();
        if let Some((_, newest)) = *bounds
            && newest < before_revision
        {
            self.lower_acknowledged(0)?;
        }
        let dropped = self.drop_range(&keys::range::before(before_revision));
        *bounds = self.reload_bounds()?;
        dropped
    }

    fn truncate_after(&self, revision: u64) -> Result<(), StorageError> {
        let mut bounds = self.lock();
        let Some(from) = revision.checked_add(1) else { return Ok(()) };
        // The promise is taken back before what it covers goes away.
        self.lower_acknowledged(revision)?;
        let dropped = self.drop_range(&keys::range::from(from));
        *bounds = self.reload_bounds()?;
        let newest = bounds.map_or(0, |(_, newest)| newest);
        self.lower_acknowledged(newest)?;
        dropped?;
        self.engine.flush(Operation::EventSync)
    }

    fn sync(&self) -> Result<(), StorageError> {
        // Read before the flush: a record that comes meanwhile is not covered by it.
        let newest = self.bounds()?.map(|(_, newest)| newest);
        self.engine.flush(Operation::EventSync)?;
        let bounds = self.lock();
        // A truncation meanwhile took the promise back.
        let still = bounds.map_or(0, |(_, newest)| newest);
        let revision = newest.unwrap_or(0).min(still);
        if revision <= self.engine.acknowledged()?.event_revision {
            return Ok(());
        }
        self.engine.acknowledge(Operation::EventSync, Position::EventRevision(revision))
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
