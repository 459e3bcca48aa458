//! Nobody ends who need not: what was chosen is put back again, one after the other.
//!
//! A choice is made on a State that may be older than the one that it is applied to: a pod that has ended meanwhile, or a choice
//! for another pod that was refused, leaves more room than was counted on.

use bulkhead_types::{ObjectId, Rejection, VICTIMS_NEEDED_LEVEL};

use super::{Site, not_allowed};
use crate::pod_group;

/// Refused when there is room although one of the victims stays, or one of the groups that end whole. All of them have left the
/// site, and are not there afterwards either.
pub(super) fn check(site: &mut Site<'_>, victims: &[ObjectId]) -> Result<(), Rejection> {
    let state = site.state;
    if state.feature_level() < VICTIMS_NEEDED_LEVEL {
        return Ok(());
    }
    for unit in pod_group::units(state, &victims.iter().copied().collect()) {
        let pods = || unit.iter().filter_map(|id| state.pods.get(*id));
        pods().for_each(|pod| site.put(pod, true));
        let is_enough = site.check().is_ok();
        pods().for_each(|pod| site.put(pod, false));
        if is_enough {
            let first = pods().next().map(|pod| pod.meta.name.to_string()).unwrap_or_default();
            let group =
                if unit.len() > 1 { format!(" and {} of its group", unit.len() - 1) } else { String::new() };
            let reason = format!("{first}{group} need not end: there is room without that");
            return Err(not_allowed("victims", reason));
        }
    }
    Ok(())
}
