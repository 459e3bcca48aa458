//! Watch streams: every wanted change once, in order, with the object as it was; whole transactions; bookmarks
//! that are true; a stream that goes on elsewhere goes on where it was; and what is not kept any more is said so.

use std::collections::BTreeMap;

use bulkhead_controlplane_core::watch::{Compacted, WatchEvent};
use bulkhead_types::{Kind, Object, ObjectId, Revision};

use super::{Verdict, Violation, ensure};
use crate::timeline::{Timeline, Wanted};

/// One watcher's stream, over all the servers that it had it from.
#[derive(Clone, Debug)]
pub struct Stream {
    wanted: Wanted,
    /// Everything up to here was told.
    after: Revision,
    /// The first list, until its bookmark comes.
    listed: Option<BTreeMap<(Kind, ObjectId), Object>>,
}

fn violation(text: String) -> Verdict {
    Err(Violation::new("watch", text))
}

impl Stream {
    /// A stream that begins with a list.
    #[must_use]
    pub fn begin(wanted: Wanted) -> Self {
        Self { wanted, after: 0, listed: Some(BTreeMap::new()) }
    }

    /// What is wanted.
    #[must_use]
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// After which revision the stream can go on at another server; 0 when it must begin anew.
    #[must_use]
    pub fn resume_after(&self) -> Revision {
        if self.listed.is_some() { 0 } else { self.after }
    }

    /// The server that the stream came from is gone. A list that was cut off is worth nothing.
    pub fn interrupt(&mut self) {
        if let Some(listed) = &mut self.listed {
            listed.clear();
        }
    }

    /// Takes what a server sent at once.
    ///
    /// # Errors
    /// When it is not what comes next.
    pub fn take(&mut self, timeline: &Timeline, events: &[WatchEvent]) -> Verdict {
        events.iter().try_for_each(|event| self.take_one(timeline, event))?;
        match timeline.next(&self.wanted, self.after) {
            Some((_, missing, closes)) if self.listed.is_none() => {
                // The transaction of what is missing began before what was told last.
                let began = timeline.is_end(self.after) || closes_of(timeline, self.after) != closes;
                ensure(began, "watch", || {
                    format!("a transaction was told up to {} and not {}", self.after, missing.revision)
                })
            }
            _ => Ok(()),
        }
    }

    fn take_one(&mut self, timeline: &Timeline, event: &WatchEvent) -> Verdict {
        match (event, &mut self.listed) {
            (WatchEvent::Bookmark(revision), Some(_)) => {
                let listed = self.listed.take().unwrap_or_default();
                self.after = *revision;
                self.check_list(timeline, *revision, &listed)
            }
            (WatchEvent::Bookmark(revision), None) => {
                if *revision < self.after {
                    return violation(format!("a bookmark at {revision} after {}", self.after));
                }
                check_bookmark(timeline, *revision)?;
                let gap = timeline.next(&self.wanted, self.after).filter(|(_, c, _)| c.revision <= *revision);
                self.after = *revision;
                gap.map_or(Ok(()), |(_, missing, _)| {
                    violation(format!("a bookmark at {revision}, but {} was not told", missing.revision))
                })
            }
            (WatchEvent::Change { object, .. }, Some(listed)) => {
                let key = (object.kind(), object.meta().id);
                let twice = listed.insert(key, object.clone()).is_some();
                ensure(!twice, "watch", || format!("{} is listed twice", object.object_ref()))
            }
            (WatchEvent::Change { change_type, object, revision }, None) => {
                let Some((seen, change, _)) = timeline.next(&self.wanted, self.after) else {
                    return violation(format!(
                        "revision {revision} was told, nothing is after {}",
                        self.after
                    ));
                };
                if (change.revision, seen, &change.object) != (*revision, *change_type, object) {
                    return violation(format!(
                        "after {} comes {} ({seen:?} {}), told was {revision} ({change_type:?} {})",
                        self.after,
                        change.revision,
                        change.object.object_ref(),
                        object.object_ref()
                    ));
                }
                self.after = *revision;
                Ok(())
            }
        }
    }

    fn check_list(
        &self,
        timeline: &Timeline,
        revision: Revision,
        listed: &BTreeMap<(Kind, ObjectId), Object>,
    ) -> Verdict {
        check_bookmark(timeline, revision)?;
        let expected = timeline.at(&self.wanted, revision);
        let same = expected.len() == listed.len()
            && expected.iter().zip(listed).all(|((a, one), (b, other))| a == b && *one == other);
        ensure(same, "watch", || {
            format!(
                "a list at revision {revision} has {} objects, not these {}",
                listed.len(),
                expected.len()
            )
        })
    }

    /// A server says that it cannot go on after `after`: the stream must begin anew.
    ///
    /// # Errors
    /// When what it says is not so in itself.
    pub fn refuse(&mut self, after: Revision, compacted: Compacted) -> Verdict {
        let text = || format!("refused after {after}, although the oldest is {}", compacted.oldest);
        let verdict = ensure(after < compacted.oldest, "watch", text);
        *self = Self::begin(self.wanted.clone());
        verdict
    }
}

fn check_bookmark(timeline: &Timeline, revision: Revision) -> Verdict {
    ensure(timeline.is_end(revision), "watch", || format!("a bookmark at {revision}, inside a transaction"))
}

/// The last revision of the transaction that a revision belongs to.
fn closes_of(timeline: &Timeline, revision: Revision) -> Revision {
    timeline.next(&Wanted::default(), revision - 1).map_or(revision, |(_, _, closes)| closes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_controlplane_core::{Change, ChangeType};
    use bulkhead_types::{Name, Namespace, ObjectMeta};
    use std::sync::Arc;

    fn object(id: u64, revision: Revision) -> Object {
        let meta = ObjectMeta {
            id: ObjectId(id),
            revision,
            ..ObjectMeta::new(None, Name::new(format!("n{id}")).expect("a name"))
        };
        Object::Namespace(Arc::new(Namespace { meta }))
    }

    /// Objects 1 and 2 come in one transaction with revisions 1 and 2; object 3 comes at 3; object 1 goes at 5.
    fn timeline() -> Timeline {
        let added = |id| Change {
            revision: id,
            change_type: ChangeType::Added,
            object: object(id, id),
            former: None,
        };
        let gone = Change {
            revision: 5,
            change_type: ChangeType::Deleted,
            object: object(1, 5),
            former: Some(object(1, 1)),
        };
        let mut timeline = Timeline::default();
        timeline.add(&[added(1), added(2)], 2);
        timeline.add(&[added(3)], 4);
        timeline.add(&[gone], 5);
        timeline
    }

    fn told(id: u64, revision: Revision, change_type: ChangeType) -> WatchEvent {
        WatchEvent::Change { change_type, object: object(id, revision), revision }
    }

    fn added(id: u64) -> WatchEvent {
        told(id, id, ChangeType::Added)
    }

    fn expect(after: Revision, events: &[WatchEvent], good: bool) {
        let mut stream = Stream { wanted: Wanted::default(), after, listed: None };
        let verdict = stream.take(&timeline(), events);
        assert_eq!(verdict.is_ok(), good, "{events:?}: {verdict:?}");
    }

    #[test]
    fn gaps_repetitions_disorder_and_other_content_are_noticed() {
        let gone = || told(1, 5, ChangeType::Deleted);
        expect(0, &[added(1), added(2), added(3), gone(), WatchEvent::Bookmark(5)], true);
        expect(2, &[added(3), gone()], true);
        expect(1, &[added(2)], true);
        expect(0, &[added(1), added(3)], false);
        expect(0, &[added(1), added(2), added(2)], false);
        expect(0, &[added(2), added(1)], false);
        expect(3, &[told(1, 5, ChangeType::Modified)], false);
        expect(2, &[told(3, 4, ChangeType::Added)], false);
        expect(5, &[added(6)], false);
    }

    #[test]
    fn half_a_transaction_and_untrue_bookmarks_are_noticed() {
        expect(0, &[added(1)], false);
        expect(0, &[added(1), added(2)], true);
        expect(0, &[added(1), WatchEvent::Bookmark(1)], false);
        expect(0, &[WatchEvent::Bookmark(2)], false);
        expect(2, &[added(3), WatchEvent::Bookmark(3)], false);
        expect(2, &[added(3), WatchEvent::Bookmark(4)], true);
        expect(4, &[WatchEvent::Bookmark(2)], false);
    }

    #[test]
    fn lists_are_complete_and_as_they_were() {
        let list = |events: &[WatchEvent], good: bool| {
            let verdict = Stream::begin(Wanted::default()).take(&timeline(), events);
            assert_eq!(verdict.is_ok(), good, "{events:?}: {verdict:?}");
        };
        list(&[added(1), added(2), WatchEvent::Bookmark(2)], true);
        list(&[added(2), added(3), WatchEvent::Bookmark(5)], true);
        list(&[added(2), WatchEvent::Bookmark(2)], false);
        list(&[added(1), added(2), WatchEvent::Bookmark(4)], false);
        list(&[added(1), added(1), added(2), WatchEvent::Bookmark(2)], false);
    }

    #[test]
    fn a_refusal_without_need_is_noticed() {
        let refuse = |after, oldest| Stream::begin(Wanted::default()).refuse(after, Compacted { oldest });
        assert!(refuse(3, 4).is_ok());
        assert!(refuse(4, 4).is_err());
    }
}
