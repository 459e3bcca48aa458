//! Rules for affinity and topology spread constraints.
//!
//! Source: `validateAffinity` and `validateTopologySpreadConstraints` of Kubernetes' API validation for what is refused.

use std::collections::BTreeSet;

use smol_str::SmolStr;

use super::workload::requirements;
use super::{Path, Report};
use crate::{
    FIELD_NODE_NAME, LabelOperator, LabelSelector, Name, NodeAffinity, NodeSelectorOperator,
    NodeSelectorRequirement, NodeSelectorTerm, PodAffinity, PodAffinityTerm, PodPlacement,
    TopologySpreadConstraint, WhenUnsatisfiable, check_label_key, check_label_value,
};

/// Most terms of one list of an affinity.
pub const AFFINITY_TERMS_MAX: usize = 32;
/// Most requirements of one node selector term.
pub const NODE_REQUIREMENTS_MAX: usize = 32;
/// Most values of one requirement.
pub const REQUIREMENT_VALUES_MAX: usize = 256;
/// Most namespaces of one term.
pub const TERM_NAMESPACES_MAX: usize = 64;
/// Most labels in `matchLabelKeys` and in `mismatchLabelKeys`.
pub const LABEL_KEYS_MAX: usize = 16;
/// Most topology spread constraints of a pod.
pub const SPREAD_CONSTRAINTS_MAX: usize = 16;
/// Largest skew, and largest number of wanted domains.
pub const SPREAD_NUMBER_MAX: u32 = i32::MAX as u32;
/// Roughly what one entry of a list takes beside its texts, in bytes.
const ENTRY_BYTES: usize = 16;

/// Checks what a pod says about its place; `path` is that of its spec.
pub(super) fn placement(placement: &PodPlacement, path: &Path<'_>, report: &mut Report) {
    let affinity = path.field("affinity");
    if let Some(found) = placement.node_affinity.get() {
        node_affinity(found, &affinity.field("nodeAffinity"), report);
    }
    for (field, found) in
        [("podAffinity", &placement.pod_affinity), ("podAntiAffinity", &placement.pod_anti_affinity)]
    {
        if let Some(found) = found.get() {
            pod_affinity(found, &affinity.field(field), report);
        }
    }
    spread_constraints(
        &placement.topology_spread_constraints,
        &path.field("topologySpreadConstraints"),
        report,
    );
}

fn node_affinity(affinity: &NodeAffinity, path: &Path<'_>, report: &mut Report) {
    let required = path.field("requiredDuringSchedulingIgnoredDuringExecution");
    let terms = required.field("nodeSelectorTerms");
    report.at_most(&terms, "terms", affinity.required.len(), AFFINITY_TERMS_MAX);
    for (index, term) in affinity.required.iter().enumerate() {
        node_term(term, &terms.index(index), report);
    }
    let preferred = path.field("preferredDuringSchedulingIgnoredDuringExecution");
    report.at_most(&preferred, "terms", affinity.preferred.len(), AFFINITY_TERMS_MAX);
    for (index, term) in affinity.preferred.iter().enumerate() {
        let path = preferred.index(index);
        weight(term.weight, &path, report);
        node_term(&term.preference, &path.field("preference"), report);
    }
}

fn weight(weight: u32, path: &Path<'_>, report: &mut Report) {
    if !(1..=100).contains(&weight) {
        report.push(&path.field("weight"), format!("{weight} is out of range: must be between 1 and 100"));
    }
}

fn node_term(term: &NodeSelectorTerm, path: &Path<'_>, report: &mut Report) {
    let lists = [("matchExpressions", &term.match_expressions), ("matchFields", &term.match_fields)];
    for (field, list) in lists {
        let path = path.field(field);
        report.at_most(&path, "requirements", list.len(), NODE_REQUIREMENTS_MAX);
        for (index, one) in list.iter().enumerate() {
            let path = path.index(index);
            if field == "matchFields" {
                node_field(one, &path, report);
            } else {
                node_requirement(one, &path, report);
            }
        }
    }
}

fn node_requirement(one: &NodeSelectorRequirement, path: &Path<'_>, report: &mut Report) {
    report.check(&path.field("key"), check_label_key(&one.key));
    let values = path.field("values");
    report.at_most(&values, "values", one.values.len(), REQUIREMENT_VALUES_MAX);
    match one.operator {
        NodeSelectorOperator::In | NodeSelectorOperator::NotIn => {
            if one.values.is_empty() {
                report.push(&values, "must have at least one value for In and NotIn");
            }
            for (index, value) in one.values.iter().enumerate() {
                report.check(&values.index(index), check_label_value(value));
            }
        }
        NodeSelectorOperator::Exists | NodeSelectorOperator::DoesNotExist => {
            if !one.values.is_empty() {
                report.push(&values, "must be empty for Exists and DoesNotExist");
            }
        }
        NodeSelectorOperator::Gt | NodeSelectorOperator::Lt => match one.values.as_slice() {
            [value] if value.parse::<i64>().is_ok() => {}
            [_] => report.push(&values.index(0), "must be a whole number for Gt and Lt"),
            _ => report.push(&values, "must have exactly one value for Gt and Lt"),
        },
    }
}

fn node_field(one: &NodeSelectorRequirement, path: &Path<'_>, report: &mut Report) {
    if one.key != FIELD_NODE_NAME {
        report.push(&path.field("key"), format!("must be {FIELD_NODE_NAME}: there is no other field"));
    }
    if !matches!(one.operator, NodeSelectorOperator::In | NodeSelectorOperator::NotIn) {
        report.push(&path.field("operator"), "must be In or NotIn");
    }
    match one.values.as_slice() {
        [name] => report.check(&path.field("values").index(0), Name::new(name).map(drop)),
        _ => report.push(&path.field("values"), "must have exactly one value"),
    }
}

fn pod_affinity(affinity: &PodAffinity, path: &Path<'_>, report: &mut Report) {
    let required = path.field("requiredDuringSchedulingIgnoredDuringExecution");
    report.at_most(&required, "terms", affinity.required.len(), AFFINITY_TERMS_MAX);
    for (index, term) in affinity.required.iter().enumerate() {
        pod_term(term, &required.index(index), report);
    }
    let preferred = path.field("preferredDuringSchedulingIgnoredDuringExecution");
    report.at_most(&preferred, "terms", affinity.preferred.len(), AFFINITY_TERMS_MAX);
    for (index, one) in affinity.preferred.iter().enumerate() {
        let path = preferred.index(index);
        weight(one.weight, &path, report);
        pod_term(&one.pod_affinity_term, &path.field("podAffinityTerm"), report);
    }
}

fn pod_term(term: &PodAffinityTerm, path: &Path<'_>, report: &mut Report) {
    topology_key(&term.topology_key, path, report);
    if let Some(selector) = &term.label_selector {
        selector_of(selector, &path.field("labelSelector"), report);
    }
    let namespaces = path.field("namespaces");
    report.at_most(&namespaces, "namespaces", term.namespaces.len(), TERM_NAMESPACES_MAX);
    for (index, name) in term.namespaces.iter().enumerate() {
        report.check(&namespaces.index(index), Name::new(name).map(drop));
    }
    if let Some(selector) = &term.namespace_selector {
        selector_of(selector, &path.field("namespaceSelector"), report);
    }
    let selector = term.label_selector.as_ref();
    label_keys(&term.match_label_keys, "matchLabelKeys", selector, path, report);
    label_keys(&term.mismatch_label_keys, "mismatchLabelKeys", selector, path, report);
    for (index, key) in term.match_label_keys.iter().enumerate() {
        if term.mismatch_label_keys.contains(key) {
            report.push(
                &path.field("matchLabelKeys").index(index),
                format!("{key:?} is in mismatchLabelKeys too: no pod can match both"),
            );
        }
    }
}

fn topology_key(key: &SmolStr, path: &Path<'_>, report: &mut Report) {
    if key.is_empty() {
        report.push(&path.field("topologyKey"), "must not be empty");
    } else {
        report.check(&path.field("topologyKey"), check_label_key(key));
    }
}

fn selector_of(selector: &LabelSelector, path: &Path<'_>, report: &mut Report) {
    requirements(selector, path, report);
    for (index, one) in selector.match_expressions.iter().enumerate() {
        let list = path.field("matchExpressions");
        let path = list.index(index);
        report.at_most(&path.field("values"), "values", one.values.len(), REQUIREMENT_VALUES_MAX);
    }
}

/// Labels of the pod's own that become a part of the selector.
fn label_keys(
    keys: &[SmolStr],
    field: &'static str,
    selector: Option<&LabelSelector>,
    path: &Path<'_>,
    report: &mut Report,
) {
    let path = path.field(field);
    report.at_most(&path, "labels", keys.len(), LABEL_KEYS_MAX);
    if !keys.is_empty() && selector.is_none() {
        report.push(&path, "must not be set without labelSelector");
    }
    let mut seen = BTreeSet::new();
    for (index, key) in keys.iter().enumerate() {
        let path = path.index(index);
        report.check(&path, check_label_key(key));
        if !seen.insert(key) {
            report.push(&path, format!("{key:?} is there twice"));
        }
        let fixed = |one: &crate::LabelRequirement| one.key == *key && one.operator != LabelOperator::NotIn;
        let chosen = selector.is_some_and(|selector| {
            selector.match_labels.contains_key(key) || selector.match_expressions.iter().any(fixed)
        });
        if chosen {
            report.push(&path, format!("{key:?} is in labelSelector too: one of them is enough"));
        }
    }
}

fn spread_constraints(list: &[TopologySpreadConstraint], path: &Path<'_>, report: &mut Report) {
    report.at_most(path, "constraints", list.len(), SPREAD_CONSTRAINTS_MAX);
    let mut seen = BTreeSet::new();
    for (index, one) in list.iter().enumerate() {
        let path = path.index(index);
        topology_key(&one.topology_key, &path, report);
        if !(1..=SPREAD_NUMBER_MAX).contains(&one.max_skew) {
            report.push(&path.field("maxSkew"), format!("must be between 1 and {SPREAD_NUMBER_MAX}"));
        }
        if let Some(domains) = one.min_domains {
            if !(1..=SPREAD_NUMBER_MAX).contains(&domains) {
                report.push(&path.field("minDomains"), format!("must be between 1 and {SPREAD_NUMBER_MAX}"));
            }
            if one.when_unsatisfiable != WhenUnsatisfiable::DoNotSchedule {
                report.push(
                    &path.field("minDomains"),
                    "is possible only with whenUnsatisfiable: DoNotSchedule",
                );
            }
        }
        if let Some(selector) = &one.label_selector {
            selector_of(selector, &path.field("labelSelector"), report);
        }
        label_keys(&one.match_label_keys, "matchLabelKeys", one.label_selector.as_ref(), &path, report);
        if !seen.insert((&one.topology_key, one.when_unsatisfiable)) {
            report.push(
                &path,
                format!("repeats topologyKey {:?} with the same whenUnsatisfiable", one.topology_key),
            );
        }
    }
}

/// Bytes of what a pod says about its place, roughly.
pub(super) fn bytes(placement: &PodPlacement) -> usize {
    let texts = |list: &[SmolStr]| list.iter().map(|text| text.len() + ENTRY_BYTES).sum::<usize>();
    let selector = |selector: &Option<LabelSelector>| {
        selector.as_ref().map_or(0, |selector| {
            let listed = selector.match_expressions.iter();
            super::map_bytes(&selector.match_labels)
                + listed.map(|one| one.key.len() + texts(&one.values) + ENTRY_BYTES).sum::<usize>()
        })
    };
    let node_term = |term: &NodeSelectorTerm| {
        let all = term.match_expressions.iter().chain(&term.match_fields);
        all.map(|one| one.key.len() + texts(&one.values) + ENTRY_BYTES).sum::<usize>()
    };
    let pod_term = |term: &PodAffinityTerm| {
        selector(&term.label_selector)
            + selector(&term.namespace_selector)
            + texts(&term.namespaces)
            + texts(&term.match_label_keys)
            + texts(&term.mismatch_label_keys)
            + term.topology_key.len()
            + ENTRY_BYTES
    };
    let of_nodes = placement.node_affinity.get().map_or(0, |affinity| {
        let preferred = affinity.preferred.iter().map(|one| &one.preference);
        affinity.required.iter().chain(preferred).map(node_term).sum()
    });
    let affinities = [placement.pod_affinity.get(), placement.pod_anti_affinity.get()];
    let of_pods = affinities.into_iter().flatten().map(|affinity| {
        let preferred = affinity.preferred.iter().map(|one| &one.pod_affinity_term);
        affinity.required.iter().chain(preferred).map(pod_term).sum::<usize>()
    });
    let of_spread = placement.topology_spread_constraints.iter().map(|one| {
        selector(&one.label_selector)
            + texts(&one.match_label_keys)
            + one.topology_key.len()
            + 4 * ENTRY_BYTES
    });
    of_nodes + of_pods.sum::<usize>() + of_spread.sum::<usize>()
}
