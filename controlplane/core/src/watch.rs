//! Watches without their IO: the last changes of this replica, and where each watcher stands in them.
//!
//! ```text
//!   Applied ──publish──► WatchLog  [transaction][transaction][transaction]…      bounded; the oldest go
//!                            │ next                         horizon ▲
//!                            ▼
//!   Watch (selection, after) ──► changes of whole transactions, then how far that is everything
//! ```
//!
//! A watcher is handed whole transactions, each change once and in order; a bookmark says that everything up to
//! its revision was handed out, and never falls inside a transaction. Who wants what is not kept any more is
//! told so with the oldest revision that can be had: a gap is never passed over in silence. A watch may go on
//! at any replica from the last bookmark, or from the last change that it saw.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bulkhead_canary::planted;
use bulkhead_types::{Name, Object, ObjectId, Revision};

use crate::query::Selection;
use crate::{Applied, Change, ChangeType, State};

/// Most changes handed to one watcher at a time, beyond which the last transaction is only completed.
pub const WATCH_BATCH_MAX: usize = 1024;

/// Why a watch cannot go on: what it wants next is not kept any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// The oldest revision after which a watch may begin.
    pub oldest: Revision,
}

/// What a watcher is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// An object came into the selection, changed in it, or left it.
    Change {
        /// How the watcher sees it.
        change_type: ChangeType,
        /// The object after the change; its last self when deleted.
        object: Object,
        /// The change's revision; in the list that a watch begins with, the object's own.
        revision: Revision,
    },
    /// Everything up to this revision was told.
    Bookmark(Revision),
}

/// A change that is kept, with the last revision of its transaction.
#[derive(Clone, Debug)]
struct Kept {
    change: Arc<Change>,
    closes: Revision,
}

/// The last changes of a replica.
#[derive(Clone, Debug)]
pub struct WatchLog {
    kept: VecDeque<Kept>,
    changes_max: usize,
    /// Changes up to this revision are not kept.
    horizon: Revision,
    newest: Revision,
    /// Names of nodes that are gone, as long as their end is kept: pods name nodes by key.
    gone_nodes: BTreeMap<ObjectId, Name>,
}

impl WatchLog {
    /// Nothing up to `revision` can be watched. Keeps `changes_max` changes.
    #[must_use]
    pub fn new(revision: Revision, changes_max: usize) -> Self {
        Self {
            kept: VecDeque::new(),
            changes_max,
            horizon: revision,
            newest: revision,
            gone_nodes: BTreeMap::new(),
        }
    }

    /// Adds what one submission did. Submissions come in the order of the log.
    pub fn publish(&mut self, applied: &Applied) {
        let Some(last) = applied.transaction.events.last() else { return };
        for change in &applied.changes {
            self.push(change.clone(), last.revision);
        }
        self.newest = last.revision;
        while self.kept.len() > self.changes_max {
            self.drop_oldest();
        }
    }

    fn push(&mut self, change: Change, closes: Revision) {
        if let (Object::Node(node), ChangeType::Deleted) = (&change.object, change.change_type) {
            self.gone_nodes.insert(node.meta.id, node.meta.name.clone());
        }
        self.kept.push_back(Kept { change: Arc::new(change), closes });
    }

    /// Drops the oldest transaction as a whole.
    fn drop_oldest(&mut self) {
        let Some(closes) = self.kept.front().map(|kept| kept.closes) else { return };
        while let Some(kept) = self.kept.pop_front_if(|kept| kept.closes == closes) {
            if kept.change.change_type == ChangeType::Deleted {
                self.gone_nodes.remove(&kept.change.object.meta().id);
            }
        }
        self.horizon = closes;
    }

    /// The State was replaced: nothing up to `revision` can be watched.
    pub fn reset(&mut self, revision: Revision) {
        let horizon = self.horizon;
        *self = Self::new(revision, self.changes_max);
        if planted!("canary_watch_gap_across_snapshot") {
            self.horizon = horizon;
        }
    }

    /// The oldest revision after which a watch may begin.
    #[must_use]
    pub fn oldest(&self) -> Revision {
        self.horizon
    }

    /// The revision up to which everything was added.
    #[must_use]
    pub fn newest(&self) -> Revision {
        self.newest
    }

    /// Whether a watch may go on after this revision.
    ///
    /// # Errors
    /// When what comes next is not kept.
    pub fn check(&self, after: Revision) -> Result<(), Compacted> {
        if after < self.horizon { Err(Compacted { oldest: self.horizon }) } else { Ok(()) }
    }

    /// The next changes after `after`, whole transactions, and the revision up to which that is everything.
    fn read(&self, after: Revision) -> Result<(Vec<Arc<Change>>, Revision), Compacted> {
        self.check(after)?;
        let start = self.kept.partition_point(|kept| kept.change.revision <= after);
        let mut batch = Vec::new();
        let mut complete = self.newest.max(after);
        for kept in self.kept.range(start..) {
            if batch.len() >= WATCH_BATCH_MAX && kept.closes != complete {
                return Ok((batch, complete));
            }
            batch.push(kept.change.clone());
            complete = kept.closes;
        }
        Ok((batch, self.newest.max(after)))
    }
}

/// One watcher's place.
#[derive(Clone, Debug)]
pub struct Watch {
    selection: Selection,
    after: Revision,
}

impl Watch {
    /// A watch that goes on after a revision.
    #[must_use]
    pub fn resume(selection: Selection, after: Revision) -> Self {
        Self { selection, after }
    }

    /// A watch that begins with everything that is selected now, and a bookmark.
    pub fn begin(selection: Selection, state: &State) -> (Self, impl Iterator<Item = WatchEvent>) {
        let watch = Self { selection: selection.clone(), after: state.revision() };
        let bookmark = watch.bookmark();
        let view = state.clone();
        let objects: Vec<Object> =
            state.objects().filter(|object| selection.matches(&view, object)).collect();
        let listed = objects.into_iter().map(|object| {
            let revision = object.meta().revision;
            WatchEvent::Change { change_type: ChangeType::Added, object, revision }
        });
        (watch, listed.chain(std::iter::once(bookmark)))
    }

    /// Everything up to this revision was handed out.
    #[must_use]
    pub fn after(&self) -> Revision {
        self.after
    }

    /// What may be said at any time: how far the watcher is.
    #[must_use]
    pub fn bookmark(&self) -> WatchEvent {
        WatchEvent::Bookmark(self.after)
    }

    /// What comes next: whole transactions, at most about [`WATCH_BATCH_MAX`] changes before the selection.
    /// `state` is the replica's State, no older than the log.
    ///
    /// # Errors
    /// When the watcher fell behind what is kept.
    pub fn next(&mut self, log: &WatchLog, state: &State) -> Result<Vec<WatchEvent>, Compacted> {
        let (batch, complete) = log.read(self.after)?;
        self.after = complete;
        let node_name = |id: ObjectId| {
            let present = state.nodes().get(id).map(|node| &node.meta.name);
            present.or_else(|| log.gone_nodes.get(&id)).cloned()
        };
        let seen = batch.iter().filter_map(|change| {
            let change_type = self.selection.seen(&node_name, change)?;
            let (object, revision) = (change.object.clone(), change.revision);
            Some(WatchEvent::Change { change_type, object, revision })
        });
        Ok(seen.collect())
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_types::{
        Event, EventKind, FieldSelector, Kind, Namespace, Node, NodeFacts, NodePhase, NodeSpec, NodeStatus,
        ObjectMeta, Pod, PodSpec, PodStatus, Shared, Transaction,
    };
    use uuid::Uuid;

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).expect("a name")
    }

    fn namespace() -> Object {
        Object::Namespace(Arc::new(Namespace { meta: ObjectMeta::new(None, name("a")) }))
    }

    fn change(revision: Revision, change_type: ChangeType, object: Object) -> Change {
        let former = (change_type != ChangeType::Added).then(|| object.clone());
        Change { revision, change_type, object, former }
    }

    /// A transaction whose events have these revisions, with these changes.
    fn transaction(first: Revision, last: Revision, changes: Vec<Change>) -> Applied {
        let event = |revision| Event { revision, kind: EventKind::FeatureLevelRaised { level: 1 } };
        let transaction = Transaction {
            request_id: Uuid::nil(),
            actor: "user:a".into(),
            at_ms: 0,
            trace_context: None,
            outcome: Ok(last),
            events: (first..=last).map(event).collect(),
        };
        Applied { transaction, changes, repeated: false }
    }

    fn plain(first: Revision, last: Revision) -> Applied {
        let changes = (first..=last).map(|r| change(r, ChangeType::Added, namespace())).collect();
        transaction(first, last, changes)
    }

    fn revisions(events: &[WatchEvent]) -> Vec<Revision> {
        let revision = |event: &WatchEvent| match event {
            WatchEvent::Change { revision, .. } | WatchEvent::Bookmark(revision) => *revision,
        };
        events.iter().map(revision).collect()
    }

    #[test]
    fn a_watcher_sees_every_change_once_and_learns_when_it_fell_behind() {
        let mut log = WatchLog::new(10, 4000);
        let state = State::default();
        assert_eq!(log.check(9), Err(Compacted { oldest: 10 }));
        (11..=3000).for_each(|r| log.publish(&plain(r, r)));
        log.publish(&transaction(3001, 3005, Vec::new()));
        let (mut watch, mut seen) = (Watch::resume(Selection::default(), 10), Vec::new());
        while watch.after() < 3005 {
            let events = watch.next(&log, &state).expect("kept");
            assert!(events.len() <= WATCH_BATCH_MAX);
            seen.extend(revisions(&events));
        }
        assert_eq!(seen, (11..=3000).collect::<Vec<_>>());
        (3006..=8000).for_each(|r| log.publish(&plain(r, r)));
        assert_eq!(watch.next(&log, &state), Err(Compacted { oldest: 4000 }));
        log.reset(1 << 40);
        assert_eq!(log.oldest(), 1 << 40);
    }

    #[test]
    fn neither_a_batch_nor_the_horizon_falls_inside_a_transaction() {
        let mut log = WatchLog::new(0, 3000);
        let state = State::default();
        log.publish(&plain(1, 1000));
        log.publish(&plain(1001, 1100));
        log.publish(&plain(1101, 1101));
        let mut watch = Watch::resume(Selection::default(), 0);
        assert_eq!(watch.next(&log, &state).expect("kept").len(), 1100);
        assert_eq!(watch.bookmark(), WatchEvent::Bookmark(1100));
        log.publish(&plain(1102, 3500));
        assert_eq!(log.oldest(), 1000);
        assert!(watch.next(&log, &state).is_ok());
    }

    #[test]
    fn the_end_of_a_pod_is_seen_by_who_watches_its_node_although_the_node_is_gone_too() {
        let node = Node {
            meta: ObjectMeta { id: ObjectId(1), ..ObjectMeta::new(None, name("n")) },
            spec: NodeSpec::default(),
            status: NodeStatus {
                phase: NodePhase::Ready,
                phase_since_ms: 0,
                incarnation: 1,
                facts: NodeFacts::default(),
                pool: Default::default(),
                images: Default::default(),
                device_labels: Default::default(),
            },
        };
        let pod = Pod {
            meta: ObjectMeta { id: ObjectId(2), ..ObjectMeta::new(Some(name("default")), name("p")) },
            spec: Shared::new(PodSpec::default()),
            node: Some(ObjectId(1)),
            status: PodStatus::default(),
        };
        let mut log = WatchLog::new(2, 10);
        let changes = vec![
            change(3, ChangeType::Deleted, Object::Pod(Arc::new(pod))),
            change(4, ChangeType::Deleted, Object::Node(Arc::new(node))),
        ];
        log.publish(&transaction(3, 4, changes));
        let fields = FieldSelector::parse("spec.nodeName=n").expect("a selector");
        let selection = Selection { kind: Some(Kind::Pod), fields, ..Selection::default() };
        let mut watch = Watch::resume(selection, 2);
        let events = watch.next(&log, &State::default()).expect("kept");
        assert_eq!(revisions(&events), [3]);
        assert_eq!(watch.after(), 4);
    }
}
