//! Quotas, projects and departments: what may be said of them, and what may not go.

use std::sync::Arc;

use bulkhead_types::{
    Kind, LABEL_PROJECT, Name, Object, ObjectId, ObjectRef, QUOTA_LEVEL, Rejection, StringMap,
};

use super::{not_allowed, not_found};
use crate::State;
use crate::quota::{Ledger, check_moved, check_sums, department, project};
use crate::state::QuotaLevel;

/// Refuses an object that does not fit in the quotas above it.
pub(super) fn check_room(state: &State, object: &Object) -> Result<(), Rejection> {
    Ledger::of(state, object.meta().namespace.as_ref()).take(object)
}

/// Refuses a quota, project, department or namespace, new or changed, by which more would be promised below a level than
/// it has, or something would move to where it does not fit.
pub(super) fn check(state: &State, present: Option<&Object>, wanted: &Object) -> Result<(), Rejection> {
    let reference = wanted.object_ref();
    match wanted {
        Object::Namespace(namespace) => {
            let labels = present.map(|present| &present.meta().labels);
            check_namespace(state, present, &namespace.meta.labels, labels, wanted)
        }
        Object::Project(wanted_project) => check_project(state, present, wanted_project, wanted),
        Object::ResourceQuota(_) => {
            let Some(namespace) = &reference.namespace else { return Ok(()) };
            let levels: Vec<_> = state.quota_levels(namespace).collect();
            check_sums(&with(state, present, wanted), &levels, &format!("{reference}: spec.hard"))
        }
        Object::Department(_) => {
            let level = QuotaLevel::Department(reference.name.clone());
            check_sums(&with(state, present, wanted), [&level], &format!("{reference}: spec.hard"))
        }
        _ => Ok(()),
    }
}

/// The State as it would be.
fn with(state: &State, present: Option<&Object>, wanted: &Object) -> State {
    let mut scratch = state.clone();
    let mut object = wanted.clone();
    let meta = object.meta_mut();
    // A new object gets a key that none has.
    meta.id = present.map_or(ObjectId(u64::MAX), |present| present.meta().id);
    meta.deletion = present.and_then(|present| present.meta().deletion.clone());
    scratch.put(object);
    scratch
}

fn check_namespace(
    state: &State,
    present: Option<&Object>,
    labels: &StringMap,
    former: Option<&StringMap>,
    wanted: &Object,
) -> Result<(), Rejection> {
    let label = |labels: &StringMap| labels.get(LABEL_PROJECT).cloned();
    let (was, is) = (former.and_then(label), label(labels));
    // Before, the label meant nothing.
    if state.feature_level() < QUOTA_LEVEL || was == is {
        return Ok(());
    }
    let Some(text) = is else { return Ok(()) };
    let reference = wanted.object_ref();
    let field = format!("{reference}: metadata.labels[{LABEL_PROJECT}]");
    let found = Name::new(&text).ok().and_then(|name| project(state, &name));
    let Some(found) = found else {
        return Err(not_found(format!("Project {text}, which {field} names")).with_remedy("create it first"));
    };
    let scratch = with(state, present, wanted);
    let levels = [QuotaLevel::Project(found.meta.name.clone())].into_iter();
    let levels: Vec<_> = levels.chain(found.spec.department.clone().map(QuotaLevel::Department)).collect();
    check_sums(&scratch, &levels[..1], &field)?;
    let moved = state.quota_use(&QuotaLevel::Namespace(reference.name.clone()));
    check_moved(&scratch, entered(state, &reference.name, &levels), moved, &field)
}

/// The levels that a namespace is not below yet.
fn entered<'l>(state: &State, namespace: &Name, levels: &'l [QuotaLevel]) -> Vec<&'l QuotaLevel> {
    let present: Vec<_> = state.quota_levels(namespace).collect();
    levels.iter().filter(|level| !present.contains(level)).collect()
}

fn check_project(
    state: &State,
    present: Option<&Object>,
    wanted: &bulkhead_types::Project,
    object: &Object,
) -> Result<(), Rejection> {
    let reference = object.object_ref();
    let was = match present {
        Some(Object::Project(present)) => present.spec.department.as_ref(),
        _ => None,
    };
    let above = &wanted.spec.department;
    let moves = above.is_some() && was != above.as_ref();
    if let Some(name) = above.as_ref().filter(|_| moves)
        && department(state, name).is_none()
    {
        let what = format!("Department {name}, which {reference}: spec.department names");
        return Err(not_found(what).with_remedy("create it first"));
    }
    let scratch = with(state, present, object);
    let own = QuotaLevel::Project(reference.name.clone());
    let above = above.clone().map(QuotaLevel::Department);
    let levels: Vec<_> = std::iter::once(own.clone()).chain(above.clone()).collect();
    check_sums(&scratch, &levels, &format!("{reference}: spec.hard"))?;
    if let (true, Some(above)) = (moves, &above) {
        let moved = state.quota_use(&own);
        check_moved(&scratch, [above], moved, &format!("{reference}: spec.department"))?;
    }
    Ok(())
}

/// Refuses to delete a level that others belong to, and a quota that held another one's promise.
pub(super) fn check_delete(state: &State, object: &Object) -> Result<(), Rejection> {
    let reference = object.object_ref();
    let refuse = |what: &str, child: &Name| {
        Err(not_allowed(&reference, format!("{what} {child} belongs to it"))
            .with_remedy(format!("move or delete that {} first", what.to_lowercase())))
    };
    match object {
        Object::Project(project) => match state.namespaces_of(&project.meta.name).next() {
            Some(namespace) => refuse("Namespace", namespace),
            None => Ok(()),
        },
        Object::Department(department) => match state.projects_of(&department.meta.name).next() {
            Some(project) => refuse("Project", project),
            None => Ok(()),
        },
        Object::ResourceQuota(quota) => check_delete_quota(state, quota, &reference),
        _ => Ok(()),
    }
}

fn check_delete_quota(
    state: &State,
    quota: &Arc<bulkhead_types::ResourceQuota>,
    reference: &ObjectRef,
) -> Result<(), Rejection> {
    let Some(namespace) = &reference.namespace else { return Ok(()) };
    let mut scratch = state.clone();
    scratch.remove(Kind::ResourceQuota, quota.meta.id);
    let levels: Vec<_> = state.quota_levels(namespace).collect();
    // The namespace's others may allow more.
    check_sums(&scratch, &levels, &reference.to_string())
}
