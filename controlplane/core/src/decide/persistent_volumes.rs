//! PersistentVolumes: what retained claims leave, how it goes, and how a new claim takes it over.
//!
//! Source: "Persistent Volumes" in the Kubernetes documentation, sections "Retain" and "Reserving a PersistentVolume". There a
//! released volume is nobody's until an administrator removes its `claimRef`; here the former claim's namespace may have it
//! back before that, because the data is its own, and nobody else.

use std::borrow::Cow;
use std::sync::Arc;

use bulkhead_types::{
    BuiltinClass, ClaimPhase, Deletion, EventKind, Kind, Name, Object, ObjectId, ObjectMeta,
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus, PersistentVolumeSpec, Rare,
    Rejection, STORAGE_CLASS_LEVEL, VolumeProgress, format_bytes,
};
use smol_str::SmolStr;

use super::{Emit, not_allowed, not_found};
use crate::State;
use crate::snapshots::holds_data;

/// A claim goes; what was to be retained of it stays as a PersistentVolume.
pub(super) fn remove_claim(state: &State, claim: &PersistentVolumeClaim, emit: &mut Emit<'_>) {
    if let Some(volume) = left_of(state, claim) {
        emit.create(Object::PersistentVolume(Arc::new(volume)));
    }
    emit.push(EventKind::ObjectDeleted { kind: Kind::PersistentVolumeClaim, id: claim.meta.id });
}

/// What a claim leaves behind; `None` when nothing was made, or its node deletes it.
fn left_of(state: &State, claim: &PersistentVolumeClaim) -> Option<PersistentVolume> {
    let is_retained = claim.spec.storage_class == BuiltinClass::LocalRetain;
    if state.feature_level() < STORAGE_CLASS_LEVEL || !is_retained || !holds_data(claim) {
        return None;
    }
    let (status, namespace) = (&claim.status, claim.meta.namespace.as_ref()?);
    let spec = PersistentVolumeSpec {
        node: claim.bound_node()?,
        node_name: status.node_name.clone(),
        volume: status.volume,
        capacity_bytes: status.capacity_bytes,
        claim_namespace: namespace.as_str().into(),
        claim_namespace_id: state.find(Kind::Namespace, None, namespace).unwrap_or_default(),
        claim_name: claim.meta.name.as_str().into(),
        class: claim.spec.class.clone(),
        first_used_at_ms: status.first_used_at_ms.clone(),
    };
    Some(PersistentVolume { meta: ObjectMeta::new(None, PersistentVolume::name_of(spec.volume)), spec })
}

/// What a document wants of a volume, with what only the control plane knows of that.
pub(super) fn completed<'o>(present: &Object, object: &'o Object) -> Cow<'o, Object> {
    let (Object::PersistentVolume(present), Object::PersistentVolume(wanted)) = (present, object) else {
        return Cow::Borrowed(object);
    };
    let mut wanted = PersistentVolume::clone(wanted);
    wanted.spec.node = present.spec.node;
    wanted.spec.claim_namespace_id = present.spec.claim_namespace_id;
    wanted.spec.first_used_at_ms = present.spec.first_used_at_ms.clone();
    Cow::Owned(Object::PersistentVolume(Arc::new(wanted)))
}

/// Somebody asks for the data to go: its node is told, and the object goes when that says that nothing is left.
pub(super) fn delete(volume: &PersistentVolume, emit: &mut Emit<'_>) {
    if !volume.meta.is_deleting() {
        let (kind, id) = (Kind::PersistentVolume, volume.meta.id);
        let deletion =
            Deletion { requested_at_ms: emit.at_ms(), grace_ms: 0, by_job: false, preemptor: None };
        emit.push(EventKind::DeletionRequested { kind, id, deletion, reason: "Deleted".into() });
    }
}

/// A node says that nothing is left of a volume.
pub(super) fn deleted(node: ObjectId, volume: &PersistentVolume, emit: &mut Emit<'_>) {
    if volume.meta.is_deleting() && volume.spec.node == node {
        emit.push(EventKind::ObjectDeleted { kind: Kind::PersistentVolume, id: volume.meta.id });
    }
}

/// A node is forgotten, and what it kept with it.
pub(super) fn lose(state: &State, node: ObjectId, emit: &mut Emit<'_>) {
    for volume in state.retained_on(node) {
        emit.push(EventKind::ObjectDeleted { kind: Kind::PersistentVolume, id: volume.meta.id });
    }
}

/// The retained volume that a new claim takes over, when it names one: the claim has it from its beginning, and it is no object
/// of its own any more.
pub(super) fn adopt(state: &State, object: &mut Object, emit: &mut Emit<'_>) -> Result<(), Rejection> {
    let field = format!("{}: spec.volumeName", object.object_ref());
    let Object::PersistentVolumeClaim(claim) = object else { return Ok(()) };
    let Some(name) = claim.spec.volume_name.get() else { return Ok(()) };
    let volume = find(state, name).ok_or_else(|| {
        not_found(format!("{field}: PersistentVolume {name}"))
            .with_remedy("name one that `bulkhead get pv` lists: what claims of reclaimPolicy Retain left")
    })?;
    if volume.meta.is_deleting() {
        return Err(not_allowed(field, format!("PersistentVolume {name} is being deleted")));
    }
    // Another tenant's data is nobody's for the asking.
    let own = claim.meta.namespace.as_ref().and_then(|own| state.find(Kind::Namespace, None, own));
    if volume.spec.is_claimed() && own != Some(volume.spec.claim_namespace_id) {
        let namespace = &volume.spec.claim_namespace;
        return Err(not_allowed(
            field,
            format!("PersistentVolume {name} was of a claim of namespace {namespace}, as that was then"),
        )
        .with_remedy(format!(
            "create the claim in namespace {namespace}, if that is still the same, or remove spec.claimRef of the \
             PersistentVolume to give its data away"
        )));
    }
    if claim.spec.class_name() != volume.spec.class_name() {
        let class = volume.spec.class_name();
        return Err(not_allowed(field, format!("PersistentVolume {name} is of class {class}"))
            .with_remedy(format!("set storageClassName: {class}")));
    }
    if claim.spec.storage_bytes > volume.spec.capacity_bytes {
        let size = format_bytes(volume.spec.capacity_bytes);
        return Err(not_allowed(field, format!("PersistentVolume {name} has {size}"))
            .with_remedy(format!("ask for at most {size}; the claim may grow later")));
    }
    let claim = Arc::make_mut(claim);
    claim.spec.class = volume.spec.class.clone();
    claim.status = PersistentVolumeClaimStatus {
        phase: ClaimPhase::Bound,
        node: Some(volume.spec.node),
        node_name: volume.spec.node_name.clone(),
        capacity_bytes: volume.spec.capacity_bytes,
        volume: volume.spec.volume,
        // It is data: nothing may make it anew.
        first_used_at_ms: Rare::some(volume.spec.first_used_at_ms.get().copied().unwrap_or(emit.at_ms())),
        progress: Rare::<VolumeProgress>::NONE,
    };
    emit.push(EventKind::ObjectDeleted { kind: Kind::PersistentVolume, id: volume.meta.id });
    Ok(())
}

fn find<'s>(state: &'s State, name: &SmolStr) -> Option<&'s Arc<PersistentVolume>> {
    state.persistent_volumes.get(state.find(Kind::PersistentVolume, None, &Name::new(name).ok()?)?)
}
