//! What is to be done with volumes beside their being there: growing, being kept as snapshots, being made of something.
//!
//! ```text
//!  claim asks for more than it has ───────────────► Expand    ─► capacity
//!  snapshot that is not ready ────────────────────► Snapshot  ─► ready, on the claim's node
//!  claim with a source, bound where that is ──────► Restore, Clone ─► populated; until then no pod has it
//! ```
//!
//! What a copy is still to be made of cannot go: neither is its node told to delete it, nor is it forgotten ([`is_source`]).

use std::sync::Arc;

use bulkhead_types::{
    ClaimPhase, ClaimSource, ClaimSourceKind, ITEMS_MAX, Kind, Name, ObjectId, ObjectMeta, ObjectRef,
    PersistentVolumeClaim, VOLUMES_LEVEL, VolumeOrder, VolumeSnapshot, VolumeTask,
};
use smol_str::SmolStr;
use uuid::Uuid;

use crate::State;

fn reference(kind: Kind, meta: &ObjectMeta) -> ObjectRef {
    ObjectRef { kind, namespace: meta.namespace.clone(), name: meta.name.clone() }
}

/// Whether a claim's volume holds something: before that there is no file.
pub(crate) fn holds_data(claim: &PersistentVolumeClaim) -> bool {
    let begins_full = claim.source.get().is_some();
    let is_used = claim.status.first_used_at_ms.get().is_some();
    claim.bound_node().is_some() && !claim.awaits_source() && (is_used || begins_full)
}

/// Whether something is still to be copied of a claim's volume.
pub(crate) fn is_source(state: &State, claim: &PersistentVolumeClaim) -> bool {
    let reference = reference(Kind::PersistentVolumeClaim, &claim.meta);
    holds_data(claim) && state.copies_of(&reference).next().is_some()
}

/// Whether claims are still to be made of a snapshot.
pub(crate) fn is_snapshot_source(state: &State, snapshot: &VolumeSnapshot) -> bool {
    state.copies_of(&reference(Kind::VolumeSnapshot, &snapshot.meta)).next().is_some()
}

/// The claim that a snapshot is, or shall be, of.
pub(crate) fn claim_of<'a>(
    state: &'a State,
    snapshot: &VolumeSnapshot,
) -> Option<&'a Arc<PersistentVolumeClaim>> {
    state.claim(snapshot.meta.namespace.as_ref(), &snapshot.spec.claim_name)
}

/// The node that keeps a snapshot, or may have begun to take it: it must say that nothing is left before the snapshot may
/// go.
pub(crate) fn keeper(state: &State, snapshot: &VolumeSnapshot) -> Option<ObjectId> {
    if snapshot.status.taken_at_ms > 0 {
        return snapshot.status.node;
    }
    claim_of(state, snapshot).filter(|claim| holds_data(claim)).and_then(|claim| claim.bound_node())
}

/// What a snapshot's file is named by.
pub(crate) fn file_of(snapshot: &VolumeSnapshot, cluster_id: Uuid) -> Uuid {
    match snapshot.status.taken_at_ms {
        0 => snapshot.meta.id.uid(cluster_id),
        _ => snapshot.status.volume,
    }
}

/// The snapshots that a node keeps or may have begun to take, and that end.
pub(crate) fn ending_on(
    state: &State,
    node: ObjectId,
) -> impl Iterator<Item = &Arc<VolumeSnapshot>> + use<'_> {
    let pending = state.claims_on(node).flat_map(|claim| pending_of(state, claim));
    let all = state.snapshots_on(node).chain(pending);
    all.filter(move |snapshot| {
        snapshot.meta.is_deleting()
            && keeper(state, snapshot) == Some(node)
            && !is_snapshot_source(state, snapshot)
    })
}

/// The snapshots that are still to be taken of a claim.
fn pending_of<'a>(
    state: &'a State,
    claim: &PersistentVolumeClaim,
) -> impl Iterator<Item = &'a Arc<VolumeSnapshot>> + use<'a> {
    let reference = reference(Kind::PersistentVolumeClaim, &claim.meta);
    state.copies_of(&reference).filter_map(|id| state.volume_snapshots.get(id))
}

/// What a node shall do with its volumes, in the order of ids.
pub(crate) fn orders(state: &State, node: ObjectId, cluster_id: Uuid) -> Vec<VolumeOrder> {
    if state.feature_level() < VOLUMES_LEVEL {
        return Vec::new();
    }
    let mut orders = Vec::new();
    for claim in state.claims_on(node) {
        orders.extend(order_of(state, claim, node));
        let taken = pending_of(state, claim).filter(|one| !one.meta.is_deleting() && holds_data(claim));
        orders.extend(taken.map(|snapshot| VolumeOrder {
            id: snapshot.meta.id,
            task: VolumeTask::Snapshot,
            volume: file_of(snapshot, cluster_id),
            source: claim.status.volume,
            size_bytes: claim.status.capacity_bytes,
        }));
    }
    orders.sort_unstable_by_key(|order| order.id);
    orders.truncate(ITEMS_MAX);
    orders
}

/// What is to be done with a claim's own volume.
fn order_of(state: &State, claim: &PersistentVolumeClaim, node: ObjectId) -> Option<VolumeOrder> {
    let (id, volume) = (claim.meta.id, claim.status.volume);
    if claim.awaits_source() {
        let (task, source) = match source_of(state, claim)? {
            Source::Claim(source) if source.bound_node() == Some(node) && holds_data(source) => {
                (VolumeTask::Clone, source.status.volume)
            }
            Source::Snapshot(source) if source.status.node == Some(node) => {
                (VolumeTask::Restore, source.status.volume)
            }
            _ => return None,
        };
        let size_bytes = claim.status.capacity_bytes;
        return Some(VolumeOrder { id, task, volume, source, size_bytes });
    }
    let size_bytes = claim.grows_to().filter(|_| holds_data(claim) && !claim.meta.is_deleting())?;
    Some(VolumeOrder { id, task: VolumeTask::Expand, volume, source: Uuid::nil(), size_bytes })
}

/// What a claim is made of.
enum Source<'a> {
    Claim(&'a Arc<PersistentVolumeClaim>),
    Snapshot(&'a Arc<VolumeSnapshot>),
}

fn source_of<'a>(state: &'a State, claim: &PersistentVolumeClaim) -> Option<Source<'a>> {
    let ClaimSource { kind, name } = claim.source.get()?;
    let namespace = claim.meta.namespace.as_ref();
    match kind {
        ClaimSourceKind::PersistentVolumeClaim => state.claim(namespace, name).map(Source::Claim),
        ClaimSourceKind::VolumeSnapshot => state.volume_snapshot(namespace, name).map(Source::Snapshot),
    }
}

/// The least size of a claim, by what it is made of; `None` when that is not known.
pub(crate) fn source_bytes(state: &State, claim: &PersistentVolumeClaim) -> Option<u64> {
    match source_of(state, claim)? {
        Source::Claim(source) => source.bound_node().map(|_| source.status.capacity_bytes),
        Source::Snapshot(source) => source.status.ready.then_some(source.status.restore_bytes),
    }
}

/// Where a claim has to be that waits for its first pod: where its source is. `None` for one without a source.
///
/// # Errors
/// Why it can be nowhere yet, for people.
pub(crate) fn source_place(
    state: &State,
    claim: &PersistentVolumeClaim,
) -> Result<Option<(ObjectId, SmolStr)>, String> {
    let Some(wanted) = claim.source.get() else { return Ok(None) };
    let refuse = |why: &str| {
        Err(format!("PersistentVolumeClaim {} is to be made of {wanted}, which {why}", claim.meta.name))
    };
    let (place, bytes) = match source_of(state, claim) {
        None => return refuse("does not exist"),
        Some(Source::Snapshot(source)) if source.meta.is_deleting() => return refuse("is being deleted"),
        Some(Source::Claim(source)) if source.meta.is_deleting() => return refuse("is being deleted"),
        Some(Source::Snapshot(source)) => match (source.status.node, source.status.taken_at_ms) {
            (_, 0) => return refuse("is not ready yet"),
            (None, _) => return refuse("is lost with its node"),
            (Some(node), _) => ((node, source.status.node_name.clone()), source.status.restore_bytes),
        },
        Some(Source::Claim(source)) => match source.bound_node() {
            _ if source.status.phase == ClaimPhase::Lost => return refuse("is lost with its node"),
            Some(node) if holds_data(source) => {
                ((node, source.status.node_name.clone()), source.status.capacity_bytes)
            }
            _ => return refuse("no pod has used yet"),
        },
    };
    if claim.spec.storage_bytes < bytes {
        return refuse("is larger: create the claim anew with at least its size");
    }
    Ok(Some(place))
}

/// The name of a claim's source that is not as it has to be while the claim waits for its copy; for
/// [`crate::invariant::check`].
pub(crate) fn lacks_source(state: &State, claim: &PersistentVolumeClaim) -> bool {
    let Some(node) = claim.bound_node().filter(|_| claim.awaits_source()) else { return false };
    match source_of(state, claim) {
        None => true,
        Some(Source::Claim(source)) => source.bound_node() != Some(node),
        Some(Source::Snapshot(source)) => source.status.node != Some(node),
    }
}

/// Whether a snapshot says that it is ready where no node keeps it, or the other way round.
pub(crate) fn is_contradictory(state: &State, snapshot: &VolumeSnapshot) -> bool {
    let node = snapshot.status.node;
    snapshot.status.ready != node.is_some() || node.is_some_and(|node| state.nodes.get(node).is_none())
}

/// Whose intents a snapshot is about.
pub(crate) fn node_of(state: &State, snapshot: &VolumeSnapshot) -> Option<ObjectId> {
    let namespace: Option<&Name> = snapshot.meta.namespace.as_ref();
    let claim = || state.claim(namespace, &snapshot.spec.claim_name).and_then(|claim| claim.bound_node());
    snapshot.status.node.or_else(claim)
}
