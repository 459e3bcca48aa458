//! Affinity and topology spread constraints.

use bulkhead_types::{
    LabelSelector, NodeAffinity, NodeInclusionPolicy, NodeSelectorOperator, NodeSelectorRequirement,
    NodeSelectorTerm, PodAffinity, PodAffinityTerm, PodPlacement, PreferredSchedulingTerm, Rare,
    SPREAD_NUMBER_MAX, TopologySpreadConstraint, WeightedPodAffinityTerm, WhenUnsatisfiable,
};
use smol_str::SmolStr;

use super::decoder::{Decoder, Fields, Schema};
use super::workload;
use crate::tree::Node;

const AFFINITY: Schema =
    Schema { known: &["nodeAffinity", "podAffinity", "podAntiAffinity"], ..Schema::EMPTY };
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const BY_TIME: Schema = Schema { known: &[REQUIRED, PREFERRED], ..Schema::EMPTY };
const NODE_SELECTOR: Schema = Schema { known: &["nodeSelectorTerms"], ..Schema::EMPTY };
const NODE_TERM: Schema = Schema { known: &["matchExpressions", "matchFields"], ..Schema::EMPTY };
const REQUIREMENT: Schema = Schema { known: &["key", "operator", "values"], ..Schema::EMPTY };
const PREFERENCE: Schema = Schema { known: &["weight", "preference"], ..Schema::EMPTY };
const WEIGHTED: Schema = Schema { known: &["weight", "podAffinityTerm"], ..Schema::EMPTY };
const POD_TERM: Schema = Schema {
    known: &[
        "labelSelector",
        "namespaces",
        "namespaceSelector",
        "topologyKey",
        "matchLabelKeys",
        "mismatchLabelKeys",
    ],
    ..Schema::EMPTY
};
const SPREAD: Schema = Schema {
    known: &[
        "maxSkew",
        "topologyKey",
        "whenUnsatisfiable",
        "labelSelector",
        "minDomains",
        "nodeAffinityPolicy",
        "nodeTaintsPolicy",
        "matchLabelKeys",
    ],
    ..Schema::EMPTY
};
const OPERATORS: [(&str, NodeSelectorOperator); 6] = [
    ("In", NodeSelectorOperator::In),
    ("NotIn", NodeSelectorOperator::NotIn),
    ("Exists", NodeSelectorOperator::Exists),
    ("DoesNotExist", NodeSelectorOperator::DoesNotExist),
    ("Gt", NodeSelectorOperator::Gt),
    ("Lt", NodeSelectorOperator::Lt),
];
const WHEN: [(&str, WhenUnsatisfiable); 2] = [
    ("DoNotSchedule", WhenUnsatisfiable::DoNotSchedule),
    ("ScheduleAnyway", WhenUnsatisfiable::ScheduleAnyway),
];
const POLICIES: [(&str, NodeInclusionPolicy); 2] =
    [("Honor", NodeInclusionPolicy::Honor), ("Ignore", NodeInclusionPolicy::Ignore)];

/// What a pod's spec says about its place; nothing when it says nothing.
pub(super) fn placement(d: &mut Decoder<'_>, spec: &Fields<'_>) -> Rare<PodPlacement> {
    let mut found = PodPlacement {
        topology_spread_constraints: d.each(spec, "topologySpreadConstraints", constraint),
        ..PodPlacement::default()
    };
    if let Some(fields) =
        spec.get("affinity").and_then(|node| d.fields(node, &spec.path("affinity"), &AFFINITY))
    {
        found.node_affinity = node_affinity(d, &fields);
        found.pod_affinity = pod_affinity(d, &fields, "podAffinity");
        found.pod_anti_affinity = pod_affinity(d, &fields, "podAntiAffinity");
    }
    Rare::unless_default(found)
}

fn node_affinity(d: &mut Decoder<'_>, affinity: &Fields<'_>) -> Rare<NodeAffinity> {
    let Some(fields) = inner(d, affinity, "nodeAffinity", &BY_TIME) else { return Rare::NONE };
    let mut required = Vec::new();
    if let Some(selector) = inner(d, &fields, REQUIRED, &NODE_SELECTOR) {
        required = d.each(&selector, "nodeSelectorTerms", node_term);
        if selector.get("nodeSelectorTerms").is_none() {
            d.missing(&selector, "nodeSelectorTerms");
        } else if d.list(&selector, "nodeSelectorTerms").is_some_and(<[Node]>::is_empty) {
            let path = selector.path("nodeSelectorTerms");
            d.fail(selector.place("nodeSelectorTerms"), &path, "must have at least one term");
        }
    }
    Rare::unless_default(NodeAffinity { required, preferred: d.each(&fields, PREFERRED, preference) })
}

/// The map in a field, when there is one.
fn inner<'n>(d: &mut Decoder<'_>, fields: &Fields<'n>, name: &str, schema: &Schema) -> Option<Fields<'n>> {
    let node = fields.get(name)?;
    d.fields(node, &fields.path(name), schema)
}

fn node_term(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<NodeSelectorTerm> {
    let fields = d.fields(node, path, &NODE_TERM)?;
    Some(NodeSelectorTerm {
        match_expressions: d.each(&fields, "matchExpressions", requirement),
        match_fields: d.each(&fields, "matchFields", requirement),
    })
}

fn requirement(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<NodeSelectorRequirement> {
    let fields = d.fields(node, path, &REQUIREMENT)?;
    let key = d.required_text(&fields, "key");
    let values = texts(d, &fields, "values");
    if fields.get("operator").is_none() {
        d.missing(&fields, "operator");
    }
    let operator = d.choice(&fields, "operator", &OPERATORS)?;
    Some(NodeSelectorRequirement { key: key?.into(), operator, values })
}

fn texts(d: &mut Decoder<'_>, fields: &Fields<'_>, name: &str) -> Vec<SmolStr> {
    d.texts(fields, name).into_iter().map(Into::into).collect()
}

/// What must be there; a complaint when it is not.
fn required_inner<'n>(d: &mut Decoder<'_>, fields: &Fields<'n>, name: &str) -> Option<(&'n Node, String)> {
    if fields.get(name).is_none() {
        d.missing(fields, name);
    }
    Some((fields.get(name)?, fields.path(name)))
}

fn weight(d: &mut Decoder<'_>, fields: &Fields<'_>) -> Option<u32> {
    required_inner(d, fields, "weight")?;
    d.number_between(fields, "weight", 1, 100).and_then(|n| u32::try_from(n).ok())
}

fn preference(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<PreferredSchedulingTerm> {
    let fields = d.fields(node, path, &PREFERENCE)?;
    let weight = weight(d, &fields);
    let (node, path) = required_inner(d, &fields, "preference")?;
    let preference = node_term(d, node, &path);
    Some(PreferredSchedulingTerm { weight: weight?, preference: preference? })
}

fn pod_affinity(d: &mut Decoder<'_>, affinity: &Fields<'_>, name: &str) -> Rare<PodAffinity> {
    let Some(fields) = inner(d, affinity, name, &BY_TIME) else { return Rare::NONE };
    Rare::unless_default(PodAffinity {
        required: d.each(&fields, REQUIRED, pod_term),
        preferred: d.each(&fields, PREFERRED, weighted),
    })
}

fn weighted(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<WeightedPodAffinityTerm> {
    let fields = d.fields(node, path, &WEIGHTED)?;
    let weight = weight(d, &fields);
    let (node, path) = required_inner(d, &fields, "podAffinityTerm")?;
    let term = pod_term(d, node, &path);
    Some(WeightedPodAffinityTerm { weight: weight?, pod_affinity_term: term? })
}

fn selector(d: &mut Decoder<'_>, fields: &Fields<'_>, name: &str) -> Option<LabelSelector> {
    let node = fields.get(name)?;
    workload::selector_at(d, node, &fields.path(name))
}

fn pod_term(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<PodAffinityTerm> {
    let fields = d.fields(node, path, &POD_TERM)?;
    Some(PodAffinityTerm {
        label_selector: selector(d, &fields, "labelSelector"),
        namespaces: texts(d, &fields, "namespaces"),
        namespace_selector: selector(d, &fields, "namespaceSelector"),
        match_label_keys: texts(d, &fields, "matchLabelKeys"),
        mismatch_label_keys: texts(d, &fields, "mismatchLabelKeys"),
        topology_key: d.required_text(&fields, "topologyKey")?.into(),
    })
}

fn constraint(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<TopologySpreadConstraint> {
    let fields = d.fields(node, path, &SPREAD)?;
    for name in ["maxSkew", "whenUnsatisfiable"] {
        if fields.get(name).is_none() {
            d.missing(&fields, name);
        }
    }
    let number = |d: &mut Decoder<'_>, name| {
        let found = d.number_between(&fields, name, 1, i64::from(SPREAD_NUMBER_MAX));
        found.and_then(|n| u32::try_from(n).ok())
    };
    let max_skew = number(d, "maxSkew");
    let min_domains = number(d, "minDomains");
    let when_unsatisfiable = d.choice(&fields, "whenUnsatisfiable", &WHEN);
    let policy = |d: &mut Decoder<'_>, name| d.choice(&fields, name, &POLICIES);
    let of_affinity = policy(d, "nodeAffinityPolicy").unwrap_or(NodeInclusionPolicy::Honor);
    let of_taints = policy(d, "nodeTaintsPolicy").unwrap_or(NodeInclusionPolicy::Ignore);
    let label_selector = selector(d, &fields, "labelSelector");
    let match_label_keys = texts(d, &fields, "matchLabelKeys");
    let topology_key = d.required_text(&fields, "topologyKey");
    Some(TopologySpreadConstraint {
        max_skew: max_skew?,
        topology_key: topology_key?.into(),
        when_unsatisfiable: when_unsatisfiable?,
        label_selector,
        min_domains,
        node_affinity_policy: of_affinity,
        node_taints_policy: of_taints,
        match_label_keys,
    })
}
