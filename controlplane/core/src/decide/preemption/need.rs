//! Nobody ends who need not: what was chosen is put back again, one after the other.
//!
//! A choice is made on a State that may be older than the one that it is applied to: a pod that has ended meanwhile, or a choice
//! for another pod that was refused, leaves more room than was counted on.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_types::{ObjectId, Pod, PodGroupKey, Rejection, VICTIMS_NEEDED_LEVEL};

use super::{Site, not_allowed};
use crate::State;
use crate::pod_group::{self, key_of};

/// Refused when there is room although one of the victims stays, or one of the groups that end whole. All of them have left the
/// site, and are not there afterwards either.
pub(super) fn check(site: &mut Site<'_>, victims: &[ObjectId]) -> Result<(), Rejection> {
    if site.state.feature_level() < VICTIMS_NEEDED_LEVEL {
        return Ok(());
    }
    for unit in units(site.state, victims) {
        unit.iter().for_each(|pod| site.put(pod, true));
        let is_enough = site.check().is_ok();
        unit.iter().for_each(|pod| site.put(pod, false));
        if is_enough {
            let names: Vec<_> = unit.iter().map(|pod| pod.meta.name.as_str()).collect();
            let reason = format!("{} need not end: there is room without that", names.join(", "));
            return Err(not_allowed("victims", reason));
        }
    }
    Ok(())
}

/// The victims as they end: groups of which nobody stays as wholes, the others each for itself.
fn units<'a>(state: &'a State, victims: &[ObjectId]) -> Vec<Vec<&'a Pod>> {
    let ending: BTreeSet<ObjectId> = victims.iter().copied().collect();
    let (mut units, mut wholes) = (Vec::new(), BTreeMap::<PodGroupKey, Vec<&Pod>>::new());
    for pod in victims.iter().filter_map(|id| state.pods.get(*id)) {
        let key = key_of(state, pod);
        let is_whole = |key: &PodGroupKey| {
            wholes.contains_key(key)
                || pod_group::holders(state, key).all(|pod| ending.contains(&pod.meta.id))
        };
        match key.filter(is_whole) {
            Some(key) => wholes.entry(key).or_default().push(pod),
            None => units.push(vec![&**pod]),
        }
    }
    units.extend(wholes.into_values());
    units
}
