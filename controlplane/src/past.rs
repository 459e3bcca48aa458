//! Watches that begin before what is kept in memory: the stored history, gone through again until they are here.
//!
//! Each one holds a State of the past, which shares nothing with the present one; so only a few run at a time, and
//! the others wait for their turn.

use std::sync::Arc;

use bulkhead_controlplane_core::State;
use bulkhead_controlplane_core::watch::{Watch, WatchEvent, WatchLog};
use bulkhead_controlplane_disk::{DiskError, Replay};
use bulkhead_proto::ProtoCodec;
use bulkhead_types::Revision;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use crate::api::Api;

/// Most at a time.
const PASTS_MAX: usize = 2;
/// How far before the wanted revision the State may be that it is made from: about ten seconds' work.
const DISTANCE_MAX: u64 = 2_000_000;

/// How many of what is costly may run at a time.
#[derive(Clone)]
pub(crate) struct Turns {
    pasts: Arc<Semaphore>,
    /// Trials of what would be: each keeps a core busy.
    pub(crate) trials: Arc<Semaphore>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { pasts: Arc::new(Semaphore::new(PASTS_MAX)), trials: Arc::new(Semaphore::new(1)) }
    }
}

/// A place in the past that moves towards the present.
pub(crate) struct Past {
    replay: Replay,
    _turn: OwnedSemaphorePermit,
}

fn status(error: &DiskError) -> Status {
    Status::data_loss(error.to_string())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DiskError> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Status::internal(e.to_string()))?.map_err(|e| status(&e))
}

impl Past {
    /// The oldest revision after which a watch may begin, with the stored history and without.
    pub(crate) async fn oldest(api: &Api) -> Result<Revision, Status> {
        let (events, snapshots) = (api.events.clone(), api.snapshots.clone());
        let stored = blocking(move || Replay::oldest(&*events, &*snapshots)).await?;
        let kept = api.watches.oldest();
        Ok(stored.map_or(kept, |stored| stored.min(kept)))
    }

    /// Begins after a revision; `None` when the stored history does not reach back to it.
    pub(crate) async fn begin(api: &Api, after: Revision) -> Result<Option<Self>, Status> {
        let turn = api.turns.pasts.clone().acquire_owned().await;
        let turn = turn.map_err(|_| Status::unavailable("the server is shutting down"))?;
        let (events, snapshots) = (api.events.clone(), api.snapshots.clone());
        let begun = move || Replay::begin(events, &*snapshots, Arc::new(ProtoCodec), after, DISTANCE_MAX);
        Ok(blocking(begun).await?.map(|replay| Self { replay, _turn: turn }))
    }

    /// The State there.
    pub(crate) fn state(&self) -> &State {
        self.replay.state()
    }

    /// What comes next for a watch, and whether anything was stored after it.
    pub(crate) async fn next(self, mut watch: Watch) -> Result<(Self, Watch, Vec<WatchEvent>, bool), Status> {
        blocking(move || {
            let Self { mut replay, _turn } = self;
            let mut log = WatchLog::new(replay.state().revision(), usize::MAX);
            let applied = replay.advance()?;
            applied.iter().for_each(|one| log.publish(one));
            let mut events = Vec::new();
            while watch.after() < log.newest() {
                // The log begins where the last one ended, at or before the watch, and drops nothing.
                let next = watch.next(&log, replay.state());
                events.extend(next.expect("a replay has everything after its beginning"));
            }
            Ok((Self { replay, _turn }, watch, events, !applied.is_empty()))
        })
        .await
    }
}
