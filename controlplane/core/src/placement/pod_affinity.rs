//! Near the pods that a pod names, away from those that it names, and away from those that name it.
//!
//! Source: "Inter-pod affinity and anti-affinity" in the Kubernetes documentation, and its scheduler's plugin
//! InterPodAffinity for who may be the first.

use bulkhead_types::Node;

use super::{Misfit, Outlook, Vicinity};

pub(super) fn check(vicinity: &Vicinity, outlook: &Outlook, node: &Node) -> Result<(), Misfit> {
    let rules = outlook.rules();
    let mut all_near = true;
    for term in &rules.affinity {
        let Some(domain) = node.label(&term.topology_key) else { return Err(Misfit::PodAffinity) };
        all_near &= vicinity.count(term.counter, domain) > 0;
    }
    if !all_near && !vicinity.may_be_first(outlook) {
        return Err(Misfit::PodAffinity);
    }
    let is_near =
        |counter, key: &str| node.label(key).is_some_and(|domain| vicinity.count(counter, domain) > 0);
    if rules.anti_affinity.iter().any(|term| is_near(term.counter, &term.topology_key)) {
        return Err(Misfit::PodAntiAffinity);
    }
    let keeps_off = |met: &&super::Term| met.weight == 0 && is_near(met.counter, &met.topology_key);
    if outlook.met_by().iter().any(|met| keeps_off(&met)) {
        return Err(Misfit::ExistingPodAntiAffinity);
    }
    Ok(())
}
