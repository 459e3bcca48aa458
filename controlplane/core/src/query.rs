//! Reads over a State: which objects a list or a watch is about.

use bulkhead_types::{FieldSelector, Kind, LabelSelector, Name, Object, ObjectId};
use smol_str::SmolStr;

use crate::{Change, ChangeType, State};

/// Which objects somebody asks for.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only of this kind; of all kinds when unset.
    pub kind: Option<Kind>,
    /// Only in this namespace; everywhere when unset.
    pub namespace: Option<Name>,
    /// Only with these labels.
    pub labels: LabelSelector,
    /// Only with these fields.
    pub fields: FieldSelector,
}

impl Selection {
    /// Whether an object is asked for. Node names are looked up in `state`.
    #[must_use]
    pub fn matches(&self, state: &State, object: &Object) -> bool {
        self.matches_named(&|id| state.nodes().get(id).map(|node| node.meta.name.clone()), object)
    }

    fn matches_named(&self, node_name: &dyn Fn(ObjectId) -> Option<Name>, object: &Object) -> bool {
        let meta = object.meta();
        self.kind.is_none_or(|kind| kind == object.kind())
            && self.namespace.as_ref().is_none_or(|ns| meta.namespace.as_ref() == Some(ns))
            && self.labels.matches(&meta.labels)
            && self.fields.matches(|field| field_of(node_name, object, field))
    }

    /// What a watcher of this selection sees of a change: an object that comes to match is added, one that
    /// ceases to match is deleted. `None` when it sees nothing. `node_name` must know nodes that are gone since.
    #[must_use]
    pub fn seen(&self, node_name: &dyn Fn(ObjectId) -> Option<Name>, change: &Change) -> Option<ChangeType> {
        let before = change.former.as_ref().is_some_and(|former| self.matches_named(node_name, former));
        let after =
            change.change_type != ChangeType::Deleted && self.matches_named(node_name, &change.object);
        match (before, after) {
            (false, true) => Some(ChangeType::Added),
            (true, true) => Some(ChangeType::Modified),
            (true, false) => Some(ChangeType::Deleted),
            (false, false) => None,
        }
    }
}

/// A part of a list.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The objects, oldest first within each kind.
    pub items: Vec<Object>,
    /// Where the next part begins; `None` when this is the last.
    pub next: Option<ObjectId>,
}

/// Lists the objects of one kind that are selected, after `after`, at most `limit`.
///
/// # Panics
/// When the selection names no kind: a list is of one kind.
#[must_use]
pub fn list(state: &State, selection: &Selection, after: ObjectId, limit: usize) -> Page {
    let kind = selection.kind.expect("a list is of one kind");
    let mut page = Page::default();
    for object in state.objects_after(kind, after).filter(|object| selection.matches(state, object)) {
        if page.items.len() == limit {
            page.next = page.items.last().map(|last| last.meta().id);
            break;
        }
        page.items.push(object);
    }
    page
}

fn field_of(node_name: &dyn Fn(ObjectId) -> Option<Name>, object: &Object, field: &str) -> SmolStr {
    let meta = object.meta();
    let text = |text: &str| SmolStr::new(text);
    match (field, object) {
        ("metadata.name", _) => text(meta.name.as_str()),
        ("metadata.namespace", _) => {
            meta.namespace.as_ref().map_or_else(SmolStr::default, |ns| text(ns.as_str()))
        }
        ("spec.nodeName", Object::Pod(pod)) => {
            let node = pod.node.and_then(node_name);
            node.map_or_else(SmolStr::default, |name| text(name.as_str()))
        }
        ("status.phase", Object::Pod(pod)) => SmolStr::new(format!("{:?}", pod.status.phase)),
        ("status.phase", Object::Node(node)) => SmolStr::new(format!("{:?}", node.status.phase)),
        _ => SmolStr::default(),
    }
}
