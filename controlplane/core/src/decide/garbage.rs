//! What may be collected: objects whose owner is gone, everything in a namespace that ends, and jobs that ended
//! long enough ago.

use bulkhead_canary::planted;
use bulkhead_types::{EventKind, Kind, Object, ObjectId, Rejection};

use super::{Emit, check_items};
use crate::State;

/// How an object that nobody wants any more goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposal {
    /// At once.
    Remove,
    /// Its agent ends it first.
    End,
}

/// Whether an object is garbage now, and how it goes. `None` when it is wanted, or is going already.
#[must_use]
pub fn disposal(state: &State, object: &Object) -> Option<Disposal> {
    let meta = object.meta();
    if let Object::Namespace(namespace) = object {
        let empty = namespace.meta.is_deleting() && state.is_namespace_empty(&namespace.meta.name);
        return empty.then_some(Disposal::Remove);
    }
    let kind_of = |kind| if planted!("canary_garbage_of_live_owner") { Kind::Deployment } else { kind };
    let orphan = meta.owner.is_some_and(|owner| state.object(kind_of(owner.kind), owner.id).is_none());
    let namespace = meta.namespace.as_ref().and_then(|name| state.find(Kind::Namespace, None, name));
    let doomed = namespace.and_then(|id| state.namespaces.get(id)).is_some_and(|ns| ns.meta.is_deleting());
    if let Object::Job(job) = object
        && super::jobs::has_expired(job, state.now_ms)
    {
        return Some(Disposal::Remove);
    }
    if let Object::PersistentVolumeClaim(claim) = object {
        return super::claims::disposal(state, claim, doomed);
    }
    if let Object::VolumeSnapshot(snapshot) = object {
        return super::snapshots::disposal(state, snapshot, doomed);
    }
    if !orphan && !doomed {
        return None;
    }
    match object {
        Object::Pod(pod) if pod.node.is_some() => (!pod.meta.is_deleting()).then_some(Disposal::End),
        _ => Some(Disposal::Remove),
    }
}

pub(super) fn collect(
    state: &State,
    objects: &[(Kind, ObjectId)],
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    check_items("objects", objects.len())?;
    let mut seen = std::collections::BTreeSet::new();
    for (kind, id) in objects.iter().copied().filter(|key| seen.insert(*key)) {
        let Some(object) = state.object(kind, id) else { continue };
        match (disposal(state, &object), &object) {
            (Some(Disposal::Remove), Object::PersistentVolumeClaim(claim)) => {
                super::persistent_volumes::remove_claim(state, claim, emit);
            }
            (Some(Disposal::Remove), _) => emit.push(EventKind::ObjectDeleted { kind, id }),
            (Some(Disposal::End), Object::Pod(pod)) => {
                super::pods::delete_one(state, pod, None, false, "OwnerGone", emit)
            }
            (Some(Disposal::End), Object::PersistentVolumeClaim(claim)) => {
                super::claims::delete(state, claim, "NamespaceDeleted", emit);
            }
            (Some(Disposal::End), Object::VolumeSnapshot(snapshot)) => {
                super::snapshots::delete(state, snapshot, "NamespaceDeleted", emit);
            }
            _ => {}
        }
    }
    Ok(())
}
