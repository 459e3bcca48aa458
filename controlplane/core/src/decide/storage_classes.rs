//! StorageClasses: what a claim takes over from its class when it is created, and what is asked of the class later.
//!
//! Source: "Storage Classes" in the Kubernetes documentation, sections "Reclaim policy" and "Volume expansion".

use std::borrow::Cow;
use std::sync::Arc;

use bulkhead_types::{
    BuiltinClass, Object, PersistentVolumeClaim, PersistentVolumeClaimSpec, Rejection, StorageClass,
};

use super::not_allowed;
use crate::State;

const CLASS: &str = "spec.storageClassName";

/// A claim with what its class says; one that is there already keeps what that said once, and what takes over a retained volume
/// is retained again, whatever became of the class. Other objects as they are.
pub(super) fn resolve<'o>(
    state: &State,
    present: Option<&Object>,
    object: &'o Object,
) -> Result<Cow<'o, Object>, Rejection> {
    let Object::PersistentVolumeClaim(claim) = object else { return Ok(Cow::Borrowed(object)) };
    if claim.spec.class.get().is_none() {
        return Ok(Cow::Borrowed(object));
    }
    let reclaim = match present {
        None if claim.spec.volume_name.get().is_some() => BuiltinClass::LocalRetain,
        Some(Object::PersistentVolumeClaim(present)) if present.spec.class == claim.spec.class => {
            present.spec.storage_class
        }
        // Another class than it has: that is refused where specs are compared.
        Some(_) => return Ok(Cow::Borrowed(object)),
        None => {
            let class = find(state, &claim.spec).map_err(|reason| {
                not_allowed(format!("{}: {CLASS}", object.object_ref()), reason).with_remedy(
                    "create the StorageClass first, or name another one; local and local-retain are always there",
                )
            })?;
            class.spec.reclaim
        }
    };
    let mut resolved = PersistentVolumeClaim::clone(claim);
    resolved.spec.storage_class = reclaim;
    Ok(Cow::Owned(Object::PersistentVolumeClaim(Arc::new(resolved))))
}

/// The class that a claim names.
fn find<'s>(state: &'s State, spec: &PersistentVolumeClaimSpec) -> Result<&'s Arc<StorageClass>, String> {
    state
        .storage_class(spec.class_name())
        .ok_or_else(|| format!("there is no StorageClass {}", spec.class_name()))
}

/// A claim that a StatefulSet's template describes, with what its class says. The class is there: it cannot go before.
pub(super) fn of_template(state: &State, claim: &mut PersistentVolumeClaim) {
    if claim.spec.class.get().is_some()
        && let Some(class) = state.storage_class(claim.spec.class_name())
    {
        claim.spec.storage_class = class.spec.reclaim;
    }
}

/// Refuses templates of claims whose class is not there.
pub(super) fn check_templates(state: &State, object: &Object) -> Result<(), Rejection> {
    let Object::StatefulSet(set) = object else { return Ok(()) };
    for (index, template) in set.spec.claim_templates().iter().enumerate() {
        if template.spec.class.get().is_some()
            && let Err(reason) = find(state, &template.spec)
        {
            let field = format!("{}: spec.volumeClaimTemplates[{index}].{CLASS}", object.object_ref());
            return Err(not_allowed(field, reason).with_remedy("create the StorageClass first"));
        }
    }
    Ok(())
}

/// Refuses the end of a class by which StatefulSets are still to make claims.
pub(super) fn check_delete(state: &State, class: &StorageClass) -> Result<(), Rejection> {
    let name = class.meta.name.as_str();
    let names = |set: &&Arc<bulkhead_types::StatefulSet>| {
        set.spec.claim_templates().iter().any(|one| one.spec.class.get().is_some_and(|class| class == name))
    };
    match state.stateful_sets.iter().find(names) {
        Some(set) => {
            let set = Object::StatefulSet(Arc::clone(set)).object_ref();
            Err(not_allowed(format!("StorageClass {name}"), format!("{set} makes claims of it"))
                .with_remedy("delete that first"))
        }
        None => Ok(()),
    }
}

/// Refuses a claim to grow whose class does not let it.
pub(super) fn check_growth(
    state: &State,
    claim: &PersistentVolumeClaim,
) -> Result<(), (String, &'static str)> {
    if claim.spec.class.get().is_none() {
        return Ok(());
    }
    let remedy = "set allowVolumeExpansion of the class";
    match find(state, &claim.spec) {
        Ok(class) if class.spec.allow_volume_expansion => Ok(()),
        Ok(class) => {
            Err((format!("cannot grow: StorageClass {} does not let claims grow", class.meta.name), remedy))
        }
        Err(reason) => Err((
            format!("cannot grow: {reason} any more, which would have to let it"),
            "create the class anew",
        )),
    }
}
