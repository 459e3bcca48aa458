//! What the scheduler and admission read of objects that are anything to everybody else: the scheduler's ConfigMap, and
//! annotations of namespaces. Malformed ones are refused here, because whoever reads them later has nobody to tell.

use bulkhead_types::{
    IMAGES_LEVEL, NamespaceDefaults, Object, Rejection, RejectionCode, SCHEDULER_CONFIG_IMAGES,
    SCORING_LEVEL, SchedulerConfig,
};

use crate::State;

/// Refuses what is malformed, unless it was there before: then other changes are let through.
pub(super) fn check(state: &State, present: Option<&Object>, wanted: &Object) -> Result<(), Rejection> {
    if state.feature_level() < SCORING_LEVEL {
        return Ok(());
    }
    let Some(rejection) = malformed(wanted).or_else(|| too_new(state, wanted)) else { return Ok(()) };
    let is_old = present.and_then(malformed).is_some_and(|old| old == rejection);
    if is_old { Ok(()) } else { Err(rejection) }
}

/// Keys that servers of the cluster's level do not read.
fn too_new(state: &State, object: &Object) -> Option<Rejection> {
    let Object::ConfigMap(map) = object else { return None };
    let says = SchedulerConfig::is_in(&map.meta) && map.data.contains_key(SCHEDULER_CONFIG_IMAGES);
    if !says || state.feature_level() >= IMAGES_LEVEL {
        return None;
    }
    let field = format!("{}: data[{SCHEDULER_CONFIG_IMAGES}]", object.object_ref());
    let reason = format!("needs feature level {IMAGES_LEVEL}, the cluster has {}", state.feature_level());
    Some(Rejection::new(RejectionCode::Invalid, field, reason).with_remedy("upgrade all servers first"))
}

fn malformed(object: &Object) -> Option<Rejection> {
    let reference = object.object_ref();
    match object {
        Object::ConfigMap(map) if SchedulerConfig::is_in(&map.meta) => {
            let bad = SchedulerConfig::parse(map).err()?;
            let field = format!("{reference}: data[{}]", bad.key);
            let remedy = "see \"How nodes are scored\" in docs/semantics.md";
            Some(Rejection::new(RejectionCode::Invalid, field, bad.reason).with_remedy(remedy))
        }
        Object::Namespace(namespace) if NamespaceDefaults::are_in(&namespace.meta) => {
            let bad = NamespaceDefaults::of(&namespace.meta).err()?;
            let field = format!("{reference}: metadata.annotations[{}]", bad.annotation);
            let remedy = "see \"Exclusive nodes\" in docs/semantics.md";
            Some(Rejection::new(RejectionCode::Invalid, field, bad.reason).with_remedy(remedy))
        }
        _ => None,
    }
}
