//! Every version of every object, by revision, as the one history has them: what watchers and readers are held
//! against.

use std::collections::BTreeMap;

use bulkhead_controlplane_core::{Change, ChangeType, State};
use bulkhead_types::{Kind, Name, Object, ObjectId, ObjectRef, Revision};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// Which objects a watcher wants: the simulation's own words for it, decided without the code under test.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Wanted {
    /// Only of this kind.
    pub kind: Option<Kind>,
    /// Only in this namespace.
    pub namespace: Option<Name>,
    /// Only with this label.
    pub label: Option<(SmolStr, SmolStr)>,
    /// Only pods bound to the node of this name.
    pub node: Option<Name>,
}

/// Every version of every object.
#[derive(Debug, Default)]
pub struct Timeline {
    /// All changes, by revision.
    changes: Vec<Change>,
    /// For each change, the last revision of its transaction.
    closes: Vec<Revision>,
    /// The last revisions of transactions.
    ends: Vec<Revision>,
    /// For each object the places of its changes.
    objects: BTreeMap<(Kind, ObjectId), Vec<usize>>,
    /// For each name of a namespace (registers are such) the places of the changes of whatever had it.
    names: BTreeMap<ObjectRef, Vec<usize>>,
    /// Each name that a node ever had.
    nodes: BTreeMap<ObjectId, Name>,
}

impl Timeline {
    /// Adds what a transaction did, whose last revision this is.
    pub fn add(&mut self, changes: &[Change], last: Revision) {
        for change in changes {
            let meta = change.object.meta();
            if change.object.kind() == Kind::Node {
                self.nodes.insert(meta.id, meta.name.clone());
            }
            let place = self.changes.len();
            self.objects.entry((change.object.kind(), meta.id)).or_default().push(place);
            if change.object.kind() == Kind::Namespace {
                self.names.entry(change.object.object_ref()).or_default().push(place);
            }
            self.changes.push(change.clone());
            self.closes.push(last);
        }
        self.ends.push(last);
    }

    /// Whether a transaction ends at this revision.
    #[must_use]
    pub fn is_end(&self, revision: Revision) -> bool {
        revision == 0 || self.ends.binary_search(&revision).is_ok()
    }

    /// The first wanted change after a revision: how a watcher sees it, the change, and the last revision of its
    /// transaction.
    #[must_use]
    pub fn next(&self, wanted: &Wanted, after: Revision) -> Option<(ChangeType, &Change, Revision)> {
        let start = self.changes.partition_point(|change| change.revision <= after);
        self.changes[start..].iter().zip(&self.closes[start..]).find_map(|(change, closes)| {
            let before = change.former.as_ref().is_some_and(|former| self.is_wanted(wanted, former));
            let stays = change.change_type != ChangeType::Deleted && self.is_wanted(wanted, &change.object);
            let seen = match (before, stays) {
                (false, false) => return None,
                (false, true) => ChangeType::Added,
                (true, true) => ChangeType::Modified,
                (true, false) => ChangeType::Deleted,
            };
            Some((seen, change, *closes))
        })
    }

    /// The wanted objects as they were at a revision.
    #[must_use]
    pub fn at(&self, wanted: &Wanted, revision: Revision) -> BTreeMap<(Kind, ObjectId), &Object> {
        let present =
            self.objects.iter().filter_map(|(key, places)| Some((*key, self.version(places, revision)?)));
        present.filter(|(_, object)| self.is_wanted(wanted, object)).collect()
    }

    /// The object after the last of these changes up to a revision; `None` when it was gone.
    fn version(&self, places: &[usize], revision: Revision) -> Option<&Object> {
        let count = places.partition_point(|place| self.changes[*place].revision <= revision);
        let change = &self.changes[places[count.checked_sub(1)?]];
        (change.change_type != ChangeType::Deleted).then_some(&change.object)
    }

    /// The namespace of this name at a revision.
    #[must_use]
    pub fn named(&self, reference: &ObjectRef, revision: Revision) -> Option<&Object> {
        self.version(self.names.get(reference)?, revision)
    }

    /// Whether the changes, one after another, give the objects of this State.
    #[must_use]
    pub fn leads_to(&self, state: &State) -> bool {
        let objects = self.at(&Wanted::default(), state.revision());
        let present: BTreeMap<(Kind, ObjectId), Object> =
            state.objects().map(|object| ((object.kind(), object.meta().id), object)).collect();
        objects.len() == present.len()
            && objects.iter().all(|(key, object)| present.get(key) == Some(*object))
    }

    fn is_wanted(&self, wanted: &Wanted, object: &Object) -> bool {
        let meta = object.meta();
        let of_node = |name: &Name| match object {
            Object::Pod(pod) => pod.node.and_then(|id| self.nodes.get(&id)) == Some(name),
            _ => false,
        };
        wanted.kind.is_none_or(|kind| kind == object.kind())
            && wanted.namespace.as_ref().is_none_or(|namespace| meta.namespace.as_ref() == Some(namespace))
            && wanted.label.as_ref().is_none_or(|(key, value)| meta.labels.get(key) == Some(value))
            && wanted.node.as_ref().is_none_or(of_node)
    }
}
