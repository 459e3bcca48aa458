//! [`SnapshotStore`] over an engine.
//!
//! ```text
//!  begin ──► 'p' record ──► 'c' records in order ──► finish: flush, then one batch {put 'm', delete 'p'}, flush
//!               ▲                  │ crash
//!               └──── resume ◄─────┘ (whole chunks counted from 0; the rest is dropped)
//! ```

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    Operation, SnapshotInfo, SnapshotMeta, SnapshotStore, SnapshotWriter, StorageError,
    codec::{self, Damage},
    engine::{Batch, Engine, KeyRange, Pair},
    keys::{self, SnapshotKey, Tree},
    snapshot_record,
    snapshot_writer::{Totals, Writer},
};

/// Chunks read at once while they are counted.
const CHUNK_PAGE: usize = 16;
/// Chunks dropped in one batch.
const DROP_PAGE: usize = 256;
/// Snapshots read at once; a server keeps a handful.
const SNAPSHOT_PAGE: usize = 1024;

/// Unfinished snapshots that somebody writes: index to the writer's ticket.
#[derive(Default)]
pub(crate) struct Writers {
    active: BTreeMap<u64, u64>,
    last_ticket: u64,
}

/// What the store and its writers share.
pub(crate) struct Shared {
    pub(crate) engine: Arc<dyn Engine>,
    writers: Mutex<Writers>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Writers> {
        self.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses a writer that was replaced; while the answer is held nobody can replace it.
    pub(crate) fn check_ticket(
        &self,
        index: u64,
        ticket: u64,
    ) -> Result<MutexGuard<'_, Writers>, StorageError> {
        let writers = self.lock();
        if writers.active.get(&index) == Some(&ticket) {
            return Ok(writers);
        }
        let reason = format!("another writer of snapshot {index} took over");
        Err(StorageError::invalid("snapshot write", reason))
    }

    pub(crate) fn release(&self, index: u64, ticket: u64) {
        let mut writers = self.lock();
        if writers.active.get(&index) == Some(&ticket) {
            writers.active.remove(&index);
        }
    }

    fn scan(&self, operation: Operation, range: &KeyRange, limit: usize) -> Result<Vec<Pair>, StorageError> {
        self.engine.scan(operation, Tree::Snapshots, range, limit)
    }

    fn keys(
        &self,
        operation: Operation,
        range: &KeyRange,
        limit: usize,
    ) -> Result<Vec<Vec<u8>>, StorageError> {
        self.engine.keys(operation, Tree::Snapshots, range, limit)
    }

    fn apply(&self, operation: Operation, batch: Batch) -> Result<(), StorageError> {
        if batch.is_empty() { Ok(()) } else { self.engine.apply(operation, Tree::Snapshots, batch) }
    }

    fn drop_chunks(&self, operation: Operation, index: u64, from: u32) -> Result<(), StorageError> {
        let range = keys::range::snapshot_chunks(index, from);
        loop {
            let page = self.keys(operation, &range, DROP_PAGE)?;
            let is_last = page.len() < DROP_PAGE;
            let mut batch = Batch::default();
            page.into_iter().for_each(|key| batch.delete(key));
            self.apply(operation, batch)?;
            if is_last {
                return Ok(());
            }
        }
    }

    /// Drops a record first and then its chunks: a crash between leaves chunks that the next start sweeps.
    fn drop_snapshot(&self, operation: Operation, index: u64, record: Vec<u8>) -> Result<(), StorageError> {
        let mut batch = Batch::default();
        batch.delete(record);
        self.apply(operation, batch)?;
        self.drop_chunks(operation, index, 0)
    }

    /// Counts the whole chunks of an unfinished snapshot and drops what is behind them.
    fn count_chunks(&self, index: u64) -> Result<Totals, StorageError> {
        let mut totals = Totals::default();
        loop {
            let range = keys::range::snapshot_chunks(index, totals.chunks);
            let page = self.scan(Operation::SnapshotRead, &range, CHUNK_PAGE)?;
            let full_page = page.len() == CHUNK_PAGE;
            for (key, value) in page {
                let expected = key == keys::snapshot_chunk(index, totals.chunks);
                match codec::unseal(Tree::Snapshots, &key, &value) {
                    Ok(bytes) if expected => totals.add(bytes),
                    _ => {
                        self.drop_chunks(Operation::SnapshotWrite, index, totals.chunks)?;
                        return Ok(totals);
                    }
                }
            }
            if !full_page {
                return Ok(totals);
            }
        }
    }
}

/// The one implementation of [`SnapshotStore`].
pub(crate) struct EngineSnapshots {
    shared: Arc<Shared>,
}

impl EngineSnapshots {
    /// Cleans up what a crash left: torn meta records that were never finished, and chunks of no snapshot.
    pub(crate) fn open(engine: Arc<dyn Engine>) -> Result<Self, StorageError> {
        let shared = Arc::new(Shared { engine, writers: Mutex::default() });
        let mut repair = Batch::default();
        let mut owners = Vec::new();
        let mut newest = 0;
        for (key, value) in shared.scan(Operation::Open, &keys::range::snapshot_pendings(), SNAPSHOT_PAGE)? {
            let index = parse_index(&key)?;
            match codec::unseal(Tree::Snapshots, &key, &value) {
                Ok(_) => owners.push(index),
                // A beginning nobody relies on, torn or not.
                Err(_) => repair.delete(key),
            }
        }
        for pair in shared.scan(Operation::Open, &keys::range::snapshot_metas(), SNAPSHOT_PAGE)? {
            let index = parse_index(&pair.0)?;
            match snapshot_record::unseal(&pair) {
                Ok(_) => {
                    owners.push(index);
                    newest = index;
                }
                // The record of its beginning is dropped together with the finish, so this finish never was.
                Err(Damage::Torn) if owners.contains(&index) => repair.delete(pair.0),
                Err(damage) => return Err(damage.into_error(Tree::Snapshots, &pair.0)),
            }
        }
        let acknowledged = shared.engine.acknowledged()?.snapshot_index;
        if newest < acknowledged {
            let reason = format!("it was finished and is gone, the newest is {newest}");
            return Err(codec::corrupt(Tree::Snapshots, &keys::snapshot_meta(acknowledged), reason));
        }
        shared.apply(Operation::Open, repair)?;
        sweep_orphans(&shared, &owners)?;
        Ok(Self { shared })
    }

    fn info(&self, index: u64) -> Result<Option<SnapshotInfo>, StorageError> {
        let key = keys::snapshot_meta(index);
        let value = self.shared.engine.get(Operation::SnapshotRead, Tree::Snapshots, &key)?;
        value.map(|value| snapshot_record::unseal_whole(&(key, value))).transpose()
    }

    fn read_known_chunk(&self, info: &SnapshotInfo, chunk: u32) -> Result<Vec<u8>, StorageError> {
        let index = info.meta.index;
        let key = keys::snapshot_chunk(index, chunk);
        let Some(value) = self.shared.engine.get(Operation::SnapshotRead, Tree::Snapshots, &key)? else {
            // Dropped between the two reads, or really missing?
            return Err(match self.info(index)? {
                Some(_) => StorageError::MissingChunk { index, chunk, chunks: info.chunks },
                None => StorageError::NoSnapshot { index },
            });
        };
        match codec::unseal(Tree::Snapshots, &key, &value) {
            Ok(bytes) => Ok(bytes.to_vec()),
            Err(damage) => Err(damage.into_error(Tree::Snapshots, &key)),
        }
    }

    fn writer(&self, writers: &mut Writers, meta: SnapshotMeta, totals: Totals) -> Box<dyn SnapshotWriter> {
        writers.last_ticket += 1;
        let ticket = writers.last_ticket;
        writers.active.insert(meta.index, ticket);
        Box::new(Writer::new(Arc::clone(&self.shared), meta, ticket, totals))
    }
}

fn parse_index(key: &[u8]) -> Result<u64, StorageError> {
    match SnapshotKey::parse(key) {
        Some(SnapshotKey::Meta(index) | SnapshotKey::Pending(index) | SnapshotKey::Chunk(index, _)) => {
            Ok(index)
        }
        None => Err(codec::corrupt(Tree::Snapshots, key, "its key is malformed")),
    }
}

/// Walks the chunks from snapshot to snapshot and drops those that no record owns.
fn sweep_orphans(shared: &Shared, owners: &[u64]) -> Result<(), StorageError> {
    let mut from = 0;
    loop {
        let page = shared.keys(Operation::Open, &keys::range::chunks_from(from), 1)?;
        let Some(key) = page.first() else { return Ok(()) };
        let index = parse_index(key)?;
        if !owners.contains(&index) {
            shared.drop_chunks(Operation::Open, index, 0)?;
        }
        match index.checked_add(1) {
            Some(next) => from = next,
            None => return Ok(()),
        }
    }
}

impl SnapshotStore for EngineSnapshots {
    fn begin(&self, meta: SnapshotMeta) -> Result<Box<dyn SnapshotWriter>, StorageError> {
        let mut writers = self.shared.lock();
        let index = meta.index;
        if self.info(index)?.is_some() {
            let reason = format!("snapshot {index} is already there and finished");
            return Err(StorageError::invalid("snapshot begin", reason));
        }
        writers.active.remove(&index);
        let key = keys::snapshot_pending(index);
        self.shared.drop_snapshot(Operation::SnapshotWrite, index, key.clone())?;
        let value = snapshot_record::seal(&key, &Totals::default().info(meta.clone()));
        let mut batch = Batch::default();
        batch.put(key, value);
        self.shared.apply(Operation::SnapshotWrite, batch)?;
        Ok(self.writer(&mut writers, meta, Totals::default()))
    }

    fn resume(&self, meta: &SnapshotMeta) -> Result<Option<Box<dyn SnapshotWriter>>, StorageError> {
        let mut writers = self.shared.lock();
        let key = keys::snapshot_pending(meta.index);
        let Some(value) = self.shared.engine.get(Operation::SnapshotRead, Tree::Snapshots, &key)? else {
            return Ok(None);
        };
        match snapshot_record::unseal(&(key, value)) {
            Ok(pending) if pending.meta == *meta => {}
            _ => return Ok(None),
        }
        let totals = self.shared.count_chunks(meta.index)?;
        Ok(Some(self.writer(&mut writers, meta.clone(), totals)))
    }

    fn latest(&self) -> Result<Option<SnapshotInfo>, StorageError> {
        Ok(self.list()?.pop())
    }

    fn list(&self) -> Result<Vec<SnapshotInfo>, StorageError> {
        let pairs =
            self.shared.scan(Operation::SnapshotRead, &keys::range::snapshot_metas(), SNAPSHOT_PAGE)?;
        pairs.iter().map(snapshot_record::unseal_whole).collect()
    }

    fn read_chunk(&self, index: u64, chunk: u32) -> Result<Vec<u8>, StorageError> {
        let info = self.info(index)?.ok_or(StorageError::NoSnapshot { index })?;
        if chunk >= info.chunks {
            let reason = format!("snapshot {index} has {} chunks, there is no chunk {chunk}", info.chunks);
            return Err(StorageError::invalid("snapshot read", reason));
        }
        self.read_known_chunk(&info, chunk)
    }

    fn verify(&self, index: u64) -> Result<SnapshotInfo, StorageError> {
        let info = self.info(index)?.ok_or(StorageError::NoSnapshot { index })?;
        let mut totals = Totals::default();
        for chunk in 0..info.chunks {
            totals.add(&self.read_known_chunk(&info, chunk)?);
        }
        if totals.info(info.meta.clone()) != info {
            let key = keys::snapshot_meta(index);
            return Err(codec::corrupt(Tree::Snapshots, &key, "its chunks do not add up to its digest"));
        }
        Ok(info)
    }

    fn retain(&self, count: usize) -> Result<(), StorageError> {
        let writers = self.shared.lock();
        let finished = self.list()?;
        let needless = finished.len().saturating_sub(count.max(1));
        for info in &finished[..needless] {
            let index = info.meta.index;
            self.shared.drop_snapshot(Operation::SnapshotWrite, index, keys::snapshot_meta(index))?;
        }
        let Some(newest) = finished.last().map(|info| info.meta.index) else { return Ok(()) };
        for key in
            self.shared.keys(Operation::SnapshotWrite, &keys::range::snapshot_pendings(), SNAPSHOT_PAGE)?
        {
            let index = parse_index(&key)?;
            if index < newest && !writers.active.contains_key(&index) {
                self.shared.drop_snapshot(Operation::SnapshotWrite, index, key)?;
            }
        }
        Ok(())
    }
}
