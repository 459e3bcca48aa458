//! PodDisruptionBudgets.

use bulkhead_types::{DisruptionBound, DisruptionBudgetSpec, LabelSelector, UnhealthyPodEvictionPolicy};

use super::decoder::{Decoder, Schema};
use super::workload::{int_or_percent, selector};
use crate::tree::Node;

const BUDGET: Schema = Schema {
    known: &["minAvailable", "maxUnavailable", "selector", "unhealthyPodEvictionPolicy"],
    ..Schema::EMPTY
};
const POLICIES: [(&str, UnhealthyPodEvictionPolicy); 2] = [
    ("IfHealthyBudget", UnhealthyPodEvictionPolicy::IfHealthyBudget),
    ("AlwaysAllow", UnhealthyPodEvictionPolicy::AlwaysAllow),
];

/// What is wanted of a budget.
pub(super) fn budget(d: &mut Decoder<'_>, node: &Node) -> Option<DisruptionBudgetSpec> {
    let fields = d.fields(node, "spec", &BUDGET)?;
    let (min, max) = (fields.get("minAvailable").is_some(), fields.get("maxUnavailable").is_some());
    if min == max {
        let reason = match min {
            true => "must not be set beside minAvailable: one of the two is the budget",
            false => "is required, or minAvailable",
        };
        d.fail(fields.place("maxUnavailable"), &fields.path("maxUnavailable"), reason);
    }
    let bound = match min {
        true => int_or_percent(d, &fields, "minAvailable").map(DisruptionBound::MinAvailable),
        false => int_or_percent(d, &fields, "maxUnavailable").map(DisruptionBound::MaxUnavailable),
    };
    let selector =
        if fields.get("selector").is_some() { selector(d, &fields)? } else { LabelSelector::default() };
    let policy = d.choice(&fields, "unhealthyPodEvictionPolicy", &POLICIES).unwrap_or_default();
    Some(DisruptionBudgetSpec { bound: bound?, selector, unhealthy_pod_eviction_policy: policy })
}
