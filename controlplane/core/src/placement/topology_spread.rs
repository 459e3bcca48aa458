//! No domain may have so many more of the counted pods than the one with the fewest.
//!
//! Source: "Pod Topology Spread Constraints" in the Kubernetes documentation.

use bulkhead_types::Node;

use super::{Misfit, Outlook, Spread, Vicinity};

pub(super) fn check(vicinity: &Vicinity, outlook: &Outlook, node: &Node) -> Result<(), Misfit> {
    for spread in &outlook.rules().spread {
        let Some(domain) = node.label(&spread.topology_key) else { return Err(Misfit::TopologySpreadLabel) };
        let count = vicinity.count(spread.counter, domain);
        if is_over(spread, count, vicinity.fewest(spread)) {
            return Err(Misfit::TopologySpread);
        }
    }
    Ok(())
}

/// Whether the pod would be too many in a domain that has so many, where the fewest are `fewest`.
pub(crate) fn is_over(spread: &Spread, count: u32, fewest: u32) -> bool {
    let with_it = u64::from(count) + u64::from(spread.counts_itself);
    with_it > u64::from(fewest) + u64::from(spread.max_skew)
}
