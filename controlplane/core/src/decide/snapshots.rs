//! Volumes that grow, snapshots of volumes, and claims that are made of something: what may be asked for, and what agents say
//! that they did.

use std::collections::BTreeSet;

use bulkhead_types::{
    ClaimSourceKind, Deletion, EventKind, Kind, Object, ObjectId, ObjectStatus, PersistentVolumeClaim,
    PersistentVolumeClaimStatus, Rare, Rejection, RejectionCode, VOLUMES_LEVEL, VolumeProgress, VolumeResult,
    VolumeSnapshot, VolumeSnapshotStatus, VolumeTask, format_bytes,
};
use smol_str::SmolStr;

use super::garbage::Disposal;
use super::nodes::{check_incarnation, check_not_fenced};
use super::{Emit, check_items, not_allowed, not_found};
use crate::State;
use crate::quota::Ledger;
use crate::snapshots::{claim_of, file_of, is_snapshot_source, keeper, source_bytes};

/// Longest message of an agent that is kept, in bytes.
const MESSAGE_BYTES_MAX: usize = 512;
const STORAGE: &str = "spec.resources.requests.storage";

/// Refuses a claim that is smaller than what it is made of, as far as that is known, and a snapshot or copy of what ends.
pub(super) fn check_new(state: &State, object: &Object) -> Result<(), Rejection> {
    let reference = object.object_ref();
    let namespace = reference.namespace.as_ref();
    let ends = |name: &str| state.claim(namespace, name).is_some_and(|claim| claim.meta.is_deleting());
    match object {
        Object::VolumeSnapshot(snapshot) if ends(&snapshot.spec.claim_name) => Err(not_allowed(
            format!("{reference}: spec.source.persistentVolumeClaimName"),
            format!("PersistentVolumeClaim {} is being deleted", snapshot.spec.claim_name),
        )),
        Object::PersistentVolumeClaim(claim) => {
            let Some(source) = claim.source.get() else { return Ok(()) };
            if source.kind == ClaimSourceKind::PersistentVolumeClaim && ends(&source.name) {
                let field = format!("{reference}: spec.dataSource.name");
                return Err(not_allowed(field, format!("{source} is being deleted")));
            }
            match source_bytes(state, claim) {
                Some(bytes) if claim.spec.storage_bytes < bytes => {
                    let size = format_bytes(bytes);
                    Err(not_allowed(format!("{reference}: {STORAGE}"), format!("{source} has {size}"))
                        .with_remedy(format!("ask for at least {size}")))
                }
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// Refuses a claim to grow where it cannot, or beyond what quotas leave it.
pub(super) fn check_growth(state: &State, present: &Object, wanted: &Object) -> Result<(), Rejection> {
    let (Object::PersistentVolumeClaim(present), Object::PersistentVolumeClaim(wanted)) = (present, wanted)
    else {
        return Ok(());
    };
    if wanted.spec.storage_bytes <= present.spec.storage_bytes {
        return Ok(());
    }
    let reference = Object::PersistentVolumeClaim(present.clone()).object_ref();
    let field = format!("{reference}: {STORAGE}");
    if state.feature_level() < VOLUMES_LEVEL {
        let reason = "cannot grow: file systems of volumes are not resized yet";
        return Err(Rejection::new(RejectionCode::Invalid, field, reason)
            .with_remedy("delete the object and create it anew, or give the new one another name"));
    }
    if !present.spec.access_mode.may_write() {
        let reason = "cannot grow: a file system grows in a guest that writes to it, and pods of a ReadOnlyMany claim only read";
        return Err(not_allowed(field, reason)
            .with_remedy("create another claim of its size, with the same dataSource"));
    }
    if let Err((reason, remedy)) = super::storage_classes::check_growth(state, present) {
        return Err(not_allowed(field, reason).with_remedy(remedy));
    }
    if present.status.node.is_some() && present.bound_node().is_none() {
        return Err(not_allowed(field, "the claim is lost with its node"));
    }
    Ledger::of(state, present.meta.namespace.as_ref()).grow_claim(present, wanted)
}

/// Asks for a snapshot to end. It goes at once when no node has to delete it and no claim is still to be made of it.
pub(super) fn delete(state: &State, snapshot: &VolumeSnapshot, reason: &str, emit: &mut Emit<'_>) {
    let (kind, id) = (Kind::VolumeSnapshot, snapshot.meta.id);
    if may_go(state, snapshot) {
        emit.push(EventKind::ObjectDeleted { kind, id });
    } else if !snapshot.meta.is_deleting() {
        let deletion =
            Deletion { requested_at_ms: emit.at_ms(), grace_ms: 0, by_job: false, preemptor: None };
        emit.push(EventKind::DeletionRequested { kind, id, deletion, reason: reason.into() });
    }
}

fn may_go(state: &State, snapshot: &VolumeSnapshot) -> bool {
    keeper(state, snapshot).is_none() && !is_snapshot_source(state, snapshot)
}

/// How a snapshot goes whose namespace ends, or that ends itself.
pub(super) fn disposal(state: &State, snapshot: &VolumeSnapshot, doomed: bool) -> Option<Disposal> {
    match (snapshot.meta.is_deleting(), doomed) {
        (true, _) => may_go(state, snapshot).then_some(Disposal::Remove),
        (false, true) => Some(Disposal::End),
        (false, false) => None,
    }
}

/// A node says that nothing is left of a snapshot.
pub(super) fn deleted(state: &State, node: ObjectId, snapshot: &VolumeSnapshot, emit: &mut Emit<'_>) {
    let waits = snapshot.meta.is_deleting() && keeper(state, snapshot) == Some(node);
    if waits && !is_snapshot_source(state, snapshot) {
        emit.push(EventKind::ObjectDeleted { kind: Kind::VolumeSnapshot, id: snapshot.meta.id });
    }
}

/// A node is forgotten: what it kept is lost.
pub(super) fn lose(state: &State, node: ObjectId, emit: &mut Emit<'_>) {
    for snapshot in state.snapshots_on(node) {
        let message = format!("lost with node {}", snapshot.status.node_name).into();
        let status = VolumeSnapshotStatus { ready: false, node: None, message, ..snapshot.status.clone() };
        let status = ObjectStatus::VolumeSnapshot(status);
        emit.push(EventKind::StatusChanged { id: snapshot.meta.id, status });
    }
}

/// What an agent says that it did with volumes. What is not wanted, or not any more, is passed over.
pub(super) fn report(
    state: &State,
    node: ObjectId,
    incarnation: u64,
    results: &[VolumeResult],
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    check_items("results", results.len())?;
    let node = state.nodes.get(node).ok_or_else(|| not_found(format!("Node {node}")))?;
    check_incarnation(node, incarnation)?;
    check_not_fenced(node)?;
    let mut seen = BTreeSet::new();
    for result in results.iter().filter(|result| seen.insert(result.id)) {
        let status = match result.task {
            VolumeTask::Snapshot => {
                let snapshot = state.volume_snapshots.get(result.id);
                snapshot.and_then(|snapshot| taken(state, node.meta.id, snapshot, result, emit))
            }
            _ => {
                let claim = state.persistent_volume_claims.get(result.id);
                let claim = claim.filter(|claim| claim.bound_node() == Some(node.meta.id));
                claim.and_then(|claim| progressed(claim, result)).map(ObjectStatus::PersistentVolumeClaim)
            }
        };
        if let Some(status) = status {
            emit.push(EventKind::StatusChanged { id: result.id, status });
        }
    }
    Ok(())
}

/// A snapshot's status after a try to take it; `None` when nothing follows.
fn taken(
    state: &State,
    node: ObjectId,
    snapshot: &VolumeSnapshot,
    result: &VolumeResult,
    emit: &Emit<'_>,
) -> Option<ObjectStatus> {
    let is_wanted = snapshot.status.taken_at_ms == 0 && !snapshot.meta.is_deleting();
    if !is_wanted || keeper(state, snapshot) != Some(node) {
        return None;
    }
    let present = &snapshot.status;
    let status = if result.done {
        let claim = claim_of(state, snapshot)?;
        VolumeSnapshotStatus {
            ready: true,
            node: Some(node),
            node_name: claim.status.node_name.clone(),
            volume: file_of(snapshot, state.cluster_id.unwrap_or_default()),
            restore_bytes: claim.status.capacity_bytes,
            taken_at_ms: emit.at_ms().max(1),
            message: SmolStr::default(),
        }
    } else {
        VolumeSnapshotStatus { message: cut(&result.message), ..present.clone() }
    };
    (status != *present).then_some(ObjectStatus::VolumeSnapshot(status))
}

/// A claim's status after a try to make, or to grow, its volume; `None` when nothing follows. Its capacity never shrinks.
fn progressed(claim: &PersistentVolumeClaim, result: &VolumeResult) -> Option<PersistentVolumeClaimStatus> {
    let present = &claim.status;
    let mut progress = present.progress.get().cloned().unwrap_or_default();
    let mut capacity_bytes = present.capacity_bytes;
    progress.message = cut(&result.message);
    match result.task {
        VolumeTask::Expand => {
            let wanted = claim.grows_to()?;
            let size_bytes = result.size_bytes.min(wanted);
            if result.done {
                capacity_bytes = capacity_bytes.max(size_bytes);
            }
            progress.file_bytes = if size_bytes > capacity_bytes { size_bytes } else { 0 };
        }
        VolumeTask::Restore | VolumeTask::Clone if claim.awaits_source() => {
            progress.populated = result.done;
        }
        VolumeTask::Restore | VolumeTask::Clone | VolumeTask::Snapshot => return None,
    }
    let progress = if progress == VolumeProgress::default() { Rare::NONE } else { Rare::some(progress) };
    let status = PersistentVolumeClaimStatus { capacity_bytes, progress, ..present.clone() };
    (status != *present).then_some(status)
}

fn cut(message: &str) -> SmolStr {
    SmolStr::new(&message[..message.floor_char_boundary(MESSAGE_BYTES_MAX.min(message.len()))])
}
