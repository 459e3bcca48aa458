//! Changes since lately, for watches: the core's log of them behind a lock, and a way to wait for more.

use std::sync::{PoisonError, RwLock};

use bulkhead_controlplane_core::watch::{Compacted, Watch, WatchEvent, WatchLog};
use bulkhead_controlplane_core::{Applied, State};
use bulkhead_types::Revision;
use tokio::sync::watch;

/// Changes since lately.
#[derive(Debug)]
pub(crate) struct WatchHub {
    log: RwLock<WatchLog>,
    newest: watch::Sender<Revision>,
}

impl WatchHub {
    /// Nothing up to `revision` can be watched from here. Keeps `changes_max` changes.
    pub(crate) fn new(revision: Revision, changes_max: usize) -> Self {
        let log = RwLock::new(WatchLog::new(revision, changes_max));
        Self { log, newest: watch::Sender::new(revision) }
    }

    /// Adds what submissions did, in order.
    pub(crate) fn publish<'a>(&self, applied: impl Iterator<Item = &'a Applied>) {
        let mut log = self.log.write().unwrap_or_else(PoisonError::into_inner);
        applied.for_each(|one| log.publish(one));
        let newest = log.newest();
        drop(log);
        self.newest.send_replace(newest);
    }

    /// The State was replaced: nothing up to `revision` can be watched.
    pub(crate) fn reset(&self, revision: Revision) {
        self.log.write().unwrap_or_else(PoisonError::into_inner).reset(revision);
        self.newest.send_replace(revision);
    }

    /// The oldest revision after which a watch may begin.
    pub(crate) fn oldest(&self) -> Revision {
        self.log.read().unwrap_or_else(PoisonError::into_inner).oldest()
    }

    /// Whether a watch may go on after this revision.
    pub(crate) fn check(&self, after: Revision) -> Result<(), Compacted> {
        self.log.read().unwrap_or_else(PoisonError::into_inner).check(after)
    }

    /// What comes next for a watcher. `state` is asked for while the log stands still: it is no older then.
    pub(crate) fn next(
        &self,
        watch: &mut Watch,
        state: impl FnOnce() -> State,
    ) -> Result<Vec<WatchEvent>, Compacted> {
        let log = self.log.read().unwrap_or_else(PoisonError::into_inner);
        watch.next(&log, &state())
    }

    /// Waits until something newer than `after` was published. `false` when the server ends first.
    pub(crate) async fn newer(&self, after: Revision) -> bool {
        self.newest.subscribe().wait_for(|newest| *newest > after).await.is_ok()
    }
}
