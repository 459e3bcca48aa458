//! Affinity and topology spread constraints as values.

use bulkhead_types::{
    LabelSelector, NodeAffinity, NodeInclusionPolicy, NodeSelectorOperator, NodeSelectorRequirement,
    NodeSelectorTerm, PodAffinity, PodAffinityTerm, PodPlacement, TopologySpreadConstraint,
    WhenUnsatisfiable,
};
use serde_json::{Value, json};
use smol_str::SmolStr;

use super::{Fields, workload};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Adds what a pod says about its place to its spec.
pub(super) fn placement(fields: Fields, placement: Option<&PodPlacement>) -> Fields {
    let Some(placement) = placement else { return fields };
    let affinity = Fields::new()
        .maybe("nodeAffinity", placement.node_affinity.get().map(node_affinity))
        .maybe("podAffinity", placement.pod_affinity.get().map(pod_affinity))
        .maybe("podAntiAffinity", placement.pod_anti_affinity.get().map(pod_affinity))
        .finish();
    fields
        .maybe("affinity", (affinity != json!({})).then_some(affinity))
        .list("topologySpreadConstraints", placement.topology_spread_constraints.iter().map(constraint))
}

fn node_affinity(affinity: &NodeAffinity) -> Value {
    let required = (!affinity.required.is_empty()).then(|| {
        let terms: Vec<_> = affinity.required.iter().map(node_term).collect();
        json!({"nodeSelectorTerms": terms})
    });
    let preferred = affinity
        .preferred
        .iter()
        .map(|one| json!({"weight": one.weight, "preference": node_term(&one.preference)}));
    Fields::new().maybe(REQUIRED, required).list(PREFERRED, preferred).finish()
}

fn node_term(term: &NodeSelectorTerm) -> Value {
    Fields::new()
        .list("matchExpressions", term.match_expressions.iter().map(requirement))
        .list("matchFields", term.match_fields.iter().map(requirement))
        .finish()
}

fn requirement(one: &NodeSelectorRequirement) -> Value {
    let operator = match one.operator {
        NodeSelectorOperator::In => "In",
        NodeSelectorOperator::NotIn => "NotIn",
        NodeSelectorOperator::Exists => "Exists",
        NodeSelectorOperator::DoesNotExist => "DoesNotExist",
        NodeSelectorOperator::Gt => "Gt",
        NodeSelectorOperator::Lt => "Lt",
    };
    let fields = Fields::new().text("key", &one.key).text("operator", operator);
    texts(fields, "values", &one.values).finish()
}

fn texts(fields: Fields, name: &str, list: &[SmolStr]) -> Fields {
    fields.list(name, list.iter().map(|text| Value::from(text.as_str())))
}

fn pod_affinity(affinity: &PodAffinity) -> Value {
    let preferred = affinity
        .preferred
        .iter()
        .map(|one| json!({"weight": one.weight, "podAffinityTerm": pod_term(&one.pod_affinity_term)}));
    Fields::new().list(REQUIRED, affinity.required.iter().map(pod_term)).list(PREFERRED, preferred).finish()
}

fn selector(selector: Option<&LabelSelector>) -> Option<Value> {
    selector.map(workload::selector)
}

fn pod_term(term: &PodAffinityTerm) -> Value {
    let fields = Fields::new()
        .maybe("labelSelector", selector(term.label_selector.as_ref()))
        .maybe("namespaceSelector", selector(term.namespace_selector.as_ref()))
        .text("topologyKey", &term.topology_key);
    let fields = texts(fields, "namespaces", &term.namespaces);
    let fields = texts(fields, "matchLabelKeys", &term.match_label_keys);
    texts(fields, "mismatchLabelKeys", &term.mismatch_label_keys).finish()
}

fn policy(policy: NodeInclusionPolicy) -> &'static str {
    match policy {
        NodeInclusionPolicy::Honor => "Honor",
        NodeInclusionPolicy::Ignore => "Ignore",
    }
}

fn constraint(one: &TopologySpreadConstraint) -> Value {
    let when = match one.when_unsatisfiable {
        WhenUnsatisfiable::DoNotSchedule => "DoNotSchedule",
        WhenUnsatisfiable::ScheduleAnyway => "ScheduleAnyway",
    };
    let fields = Fields::new()
        .set("maxSkew", one.max_skew.into())
        .text("topologyKey", &one.topology_key)
        .text("whenUnsatisfiable", when)
        .maybe("labelSelector", selector(one.label_selector.as_ref()))
        .number("minDomains", one.min_domains.map(u64::from))
        .text("nodeAffinityPolicy", policy(one.node_affinity_policy))
        .text("nodeTaintsPolicy", policy(one.node_taints_policy));
    texts(fields, "matchLabelKeys", &one.match_label_keys).finish()
}
