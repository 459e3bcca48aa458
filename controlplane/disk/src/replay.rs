//! The history once more, from a snapshot on: for watches that begin before what is kept in memory.
//!
//! Events are differences; a watcher wants objects. So a State of the past is made from the newest stored snapshot
//! at or before the wanted revision (or from nothing, when the history is whole), and the stored transactions are
//! applied to it one after the other, as they were the first time.

use std::sync::Arc;

use bulkhead_controlplane_core::evolve::evolve;
use bulkhead_controlplane_core::{Applied, State};
use bulkhead_storage::{EventStore, SnapshotStore};
use bulkhead_types::{LogCodec, Revision};

use crate::{DiskError, read_snapshot};

/// Most transactions applied in one step.
const STEP_RECORDS: usize = 256;

/// A State of the past that follows the stored history.
pub struct Replay {
    state: State,
    events: Arc<dyn EventStore>,
    codec: Arc<dyn LogCodec>,
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay").field("revision", &self.state.revision()).finish_non_exhaustive()
    }
}

impl Replay {
    /// The oldest revision after which a replay can begin; `None` when there is nothing to replay.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn oldest(
        events: &dyn EventStore,
        snapshots: &dyn SnapshotStore,
    ) -> Result<Option<Revision>, DiskError> {
        let Some((first, _)) = events.bounds()? else { return Ok(None) };
        if first == 1 {
            return Ok(Some(0));
        }
        let bases = snapshots.list()?.into_iter().map(|info| info.meta.revision);
        Ok(bases.filter(|revision| revision + 1 >= first).min())
    }

    /// A State at or before `after`, from which the history leads on without a gap; `None` when there is none that
    /// is at most `distance_max` revisions before it.
    ///
    /// # Errors
    /// When the disk refuses, or holds what cannot be used.
    pub fn begin(
        events: Arc<dyn EventStore>,
        snapshots: &dyn SnapshotStore,
        codec: Arc<dyn LogCodec>,
        after: Revision,
        distance_max: u64,
    ) -> Result<Option<Self>, DiskError> {
        let Some((first, last)) = events.bounds()? else { return Ok(None) };
        if after > last {
            return Ok(None);
        }
        let usable = |revision: Revision| revision <= after && revision + 1 >= first;
        let stored = snapshots.list()?.into_iter().map(|info| info.meta);
        let base = stored.filter(|meta| usable(meta.revision)).max_by_key(|meta| meta.revision);
        let begins_at = base.as_ref().map_or(0, |meta| meta.revision);
        if !usable(begins_at) || after - begins_at > distance_max {
            return Ok(None);
        }
        let state = match base {
            Some(meta) => read_snapshot(snapshots, &*codec, meta.index)?,
            None => State::default(),
        };
        let mut replay = Self { state, events, codec };
        // Up to `after` nobody wants to see it. A transaction that reaches over it is the next one.
        while replay.state.revision() < after {
            if replay.step(Some(after))?.is_empty() {
                break;
            }
        }
        Ok(Some(replay))
    }

    /// The State after the last transaction that was handed out.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The next transactions with what they changed; empty at the end of what is stored.
    ///
    /// # Errors
    /// When the disk refuses, or the history does not lead on from the State.
    pub fn advance(&mut self) -> Result<Vec<Applied>, DiskError> {
        self.step(None)
    }

    fn step(&mut self, up_to: Option<Revision>) -> Result<Vec<Applied>, DiskError> {
        let mut done = Vec::new();
        for record in self.events.read(self.state.revision() + 1, STEP_RECORDS)? {
            if up_to.is_some_and(|up_to| record.last_revision > up_to) {
                break;
            }
            if record.first_revision != self.state.revision() + 1 {
                let reason = format!(
                    "the stored history has a gap: after revision {} comes {}",
                    self.state.revision(),
                    record.first_revision
                );
                return Err(DiskError::History { reason });
            }
            let transaction = self.codec.decode_transaction(&record.bytes)?;
            let changes = evolve(&mut self.state, &transaction);
            done.push(Applied { transaction, changes, repeated: false });
        }
        Ok(done)
    }
}
