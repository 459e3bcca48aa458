//! Changes since lately, for watches. A bounded ring; who falls behind it is told so.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock};

use bulkhead_controlplane_core::Change;
use bulkhead_types::Revision;
use tokio::sync::watch;

/// Most changes kept. At about 200 bytes each beside the shared objects, some 13 MiB.
const CHANGES_MAX: usize = 1 << 16;
/// Most changes handed to one watcher at a time.
const BATCH_MAX: usize = 1024;

/// Why a watch cannot go on: what it wants next is not kept any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Compacted {
    /// The oldest revision after which a watch may begin.
    pub(crate) oldest: Revision,
}

#[derive(Debug, Default)]
struct Ring {
    changes: VecDeque<Arc<Change>>,
    /// Changes up to this revision are not kept.
    horizon: Revision,
    newest: Revision,
}

/// Changes since lately.
#[derive(Debug)]
pub(crate) struct WatchHub {
    ring: RwLock<Ring>,
    newest: watch::Sender<Revision>,
}

impl WatchHub {
    /// Nothing before `revision` can be watched.
    pub(crate) fn new(revision: Revision) -> Self {
        let ring = Ring { changes: VecDeque::new(), horizon: revision, newest: revision };
        Self { ring: RwLock::new(ring), newest: watch::Sender::new(revision) }
    }

    /// Adds changes; `revision` is the State's after them.
    pub(crate) fn publish(&self, changes: impl Iterator<Item = Change>, revision: Revision) {
        let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        ring.changes.extend(changes.map(Arc::new));
        while ring.changes.len() > CHANGES_MAX {
            if let Some(oldest) = ring.changes.pop_front() {
                ring.horizon = oldest.revision;
            }
        }
        ring.newest = revision;
        drop(ring);
        self.newest.send_replace(revision);
    }

    /// The State was replaced: nothing before `revision` can be watched.
    pub(crate) fn reset(&self, revision: Revision) {
        let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        *ring = Ring { changes: VecDeque::new(), horizon: revision, newest: revision };
        drop(ring);
        self.newest.send_replace(revision);
    }

    /// The oldest revision after which a watch may begin.
    pub(crate) fn oldest(&self) -> Revision {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).horizon
    }

    /// The next changes after `after`, and the revision up to which that is everything.
    pub(crate) fn read(&self, after: Revision) -> Result<(Vec<Arc<Change>>, Revision), Compacted> {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        if after < ring.horizon {
            return Err(Compacted { oldest: ring.horizon });
        }
        let start = ring.changes.partition_point(|change| change.revision <= after);
        let batch: Vec<_> = ring.changes.range(start..).take(BATCH_MAX).cloned().collect();
        let complete = match batch.last() {
            Some(last) if batch.len() == BATCH_MAX => last.revision,
            _ => ring.newest.max(after),
        };
        Ok((batch, complete))
    }

    /// Waits until something newer than `after` was published. `false` when the server ends first.
    pub(crate) async fn newer(&self, after: Revision) -> bool {
        self.newest.subscribe().wait_for(|newest| *newest > after).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_controlplane_core::ChangeType;
    use bulkhead_types::{Name, Namespace, Object, ObjectMeta};

    use super::*;

    fn change(revision: Revision) -> Change {
        let meta = ObjectMeta::new(None, Name::new("a").expect("a name"));
        let object = Object::Namespace(Arc::new(Namespace { meta }));
        Change { revision, change_type: ChangeType::Added, object, former: None }
    }

    #[test]
    fn a_watcher_sees_every_change_once_and_learns_when_it_fell_behind() {
        let hub = WatchHub::new(10);
        assert_eq!(hub.read(9).expect_err("too old"), Compacted { oldest: 10 });
        hub.publish((11..=3000).map(change), 3005);
        let (mut at, mut seen) = (10, Vec::new());
        while at < 3005 {
            let (batch, complete) = hub.read(at).expect("kept");
            seen.extend(batch.iter().map(|c| c.revision));
            at = complete;
        }
        assert_eq!(seen, (11..=3000).collect::<Vec<_>>());
        hub.publish((3006..=3006 + CHANGES_MAX as u64).map(change), 3006 + CHANGES_MAX as u64);
        assert!(hub.read(3000).is_err());
        hub.reset(1 << 40);
        assert_eq!(hub.oldest(), 1 << 40);
    }
}
