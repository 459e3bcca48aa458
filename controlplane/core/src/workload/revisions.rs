//! ControllerRevisions: which template is wanted where.
//!
//! Source: "StatefulSets", section "Rolling Updates", and "Perform a Rollback on a DaemonSet" in the Kubernetes
//! documentation.

use std::sync::Arc;

use bulkhead_types::{
    ControllerRevision, Kind, LABEL_CONTROLLER_REVISION_HASH, Name, ObjectId, ObjectMeta, Pod, PodTemplate,
    StatefulSet,
};
use smol_str::SmolStr;

use crate::State;
use crate::reconcile::is_active;

/// The name of the ControllerRevision that a pod was made from; empty when nobody knows.
pub(crate) fn revision_of(pod: &Pod) -> SmolStr {
    pod.meta.labels.get(LABEL_CONTROLLER_REVISION_HASH).cloned().unwrap_or_default()
}

/// The ControllerRevision of an owner's present template: of several equal ones the newest.
pub(crate) fn wanted<'a>(
    state: &'a State,
    owner: ObjectId,
    template: &PodTemplate,
) -> Option<&'a Arc<ControllerRevision>> {
    let owned = state.owned(owner, Kind::ControllerRevision);
    let owned = owned.filter_map(|id| state.controller_revisions().get(id));
    owned.filter(|row| row.template == *template).max_by_key(|row| (row.revision, row.meta.id))
}

/// The ControllerRevision that a StatefulSet's pods had before the rollout that is under way, as its status says.
pub(crate) fn current<'a>(state: &'a State, set: &StatefulSet) -> Option<&'a Arc<ControllerRevision>> {
    named(state, &set.meta, &set.status.current_revision)
}

/// An owner's ControllerRevision by name.
fn named<'a>(state: &'a State, owner: &ObjectMeta, name: &str) -> Option<&'a Arc<ControllerRevision>> {
    let name = Name::new(name).ok()?;
    let id = state.find(Kind::ControllerRevision, owner.namespace.as_ref(), &name)?;
    let found = state.controller_revisions().get(id)?;
    found.meta.owner.is_some_and(|of| of.id == owner.id).then_some(found)
}

/// The ControllerRevision that a new pod of an ordinal gets: below the partition the current one, so that a canary
/// stays a canary whatever pods die; elsewhere the wanted one.
pub(crate) fn wanted_at<'a>(
    state: &'a State,
    set: &StatefulSet,
    ordinal: u32,
) -> Option<&'a Arc<ControllerRevision>> {
    let update = wanted(state, set.meta.id, &set.spec.template)?;
    let keeps = ordinal < set.spec.partition_ordinal();
    Some(if keeps { current(state, set).unwrap_or(update) } else { update })
}

/// Whether a ControllerRevision is more than history: it is the wanted one, the current one, or some active pod's.
/// Costs time in proportion to the owner's pods.
pub(crate) fn is_needed(state: &State, owner: ObjectId, row: &ControllerRevision) -> bool {
    let is =
        |other: Option<&Arc<ControllerRevision>>| other.is_some_and(|other| other.meta.id == row.meta.id);
    let set = state.stateful_sets().get(owner);
    let of_set =
        set.is_some_and(|set| is(wanted(state, owner, &set.spec.template)) || is(current(state, set)));
    let of_daemons = state.daemon_sets().get(owner);
    let of_daemons = of_daemons.is_some_and(|set| is(wanted(state, owner, &set.spec.template)));
    let has_it = |pod: &Arc<Pod>| is_active(pod) && revision_of(pod) == row.meta.name.as_str();
    of_set || of_daemons || state.pods_of(owner).any(has_it)
}
