//! What opening a disk gives.

use std::{fmt, sync::Arc};

use crate::{
    EventStore, Identity, LogStore, SnapshotStore, StorageError, engine::Engine, event_engine::EngineEvents,
    log_engine::EngineLog, snapshot_engine::EngineSnapshots,
};

/// The stores of one data directory. The directory stays locked until all of them, and all snapshot writers, are
/// dropped.
pub struct Stores {
    /// Who the directory belongs to, as stored (`storage_uid` included).
    pub identity: Identity,
    /// Raft log and hard state; call [`LogStore::load`] first.
    pub log: Box<dyn LogStore>,
    /// History of events.
    pub events: Arc<dyn EventStore>,
    /// Snapshots.
    pub snapshots: Arc<dyn SnapshotStore>,
}

impl Stores {
    pub(crate) fn assemble(identity: Identity, engine: &Arc<dyn Engine>) -> Result<Self, StorageError> {
        let located = |error: StorageError| error.within(engine.file());
        let snapshots = EngineSnapshots::open(Arc::clone(engine)).map_err(located)?;
        let events = EngineEvents::open(Arc::clone(engine)).map_err(located)?;
        Ok(Self {
            identity,
            log: Box::new(EngineLog::new(Arc::clone(engine))),
            events: Arc::new(events),
            snapshots: Arc::new(snapshots),
        })
    }
}

impl fmt::Debug for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stores").field("identity", &self.identity).finish_non_exhaustive()
    }
}
