//! Where pods may be.

use super::*;

fn node_selector_operator() -> impl Strategy<Value = NodeSelectorOperator> + Clone {
    select(vec![
        NodeSelectorOperator::In,
        NodeSelectorOperator::NotIn,
        NodeSelectorOperator::Exists,
        NodeSelectorOperator::DoesNotExist,
        NodeSelectorOperator::Gt,
        NodeSelectorOperator::Lt,
    ])
}

record!(/// Any requirement on nodes.
node_selector_requirement: NodeSelectorRequirement {
    key: small(), operator: node_selector_operator(), values: vec(small(), 0..3),
});
record!(/// Any term on nodes.
node_selector_term: NodeSelectorTerm {
    match_expressions: vec(node_selector_requirement(), 0..3),
    match_fields: vec(node_selector_requirement(), 0..2),
});
record!(/// Any wish for nodes.
    preferred_scheduling_term: PreferredSchedulingTerm { weight: any::<u32>(), preference: node_selector_term() });
record!(/// Any affinity to nodes.
node_affinity: NodeAffinity {
    required: vec(node_selector_term(), 0..2), preferred: vec(preferred_scheduling_term(), 0..2),
});
record!(/// Any term on pods.
pod_affinity_term: PodAffinityTerm {
    label_selector: of(label_selector()), namespaces: vec(small(), 0..2), namespace_selector: of(label_selector()),
    topology_key: small(), match_label_keys: vec(small(), 0..2), mismatch_label_keys: vec(small(), 0..2),
});
record!(/// Any wish for pods.
weighted_pod_affinity_term: WeightedPodAffinityTerm {
    weight: any::<u32>(), pod_affinity_term: pod_affinity_term(),
});
record!(/// Any affinity to pods.
pod_affinity: PodAffinity {
    required: vec(pod_affinity_term(), 0..2), preferred: vec(weighted_pod_affinity_term(), 0..2),
});

fn inclusion() -> impl Strategy<Value = NodeInclusionPolicy> + Clone {
    select(vec![NodeInclusionPolicy::Honor, NodeInclusionPolicy::Ignore])
}

record!(/// Any constraint on spreading.
topology_spread_constraint: TopologySpreadConstraint {
    max_skew: any::<u32>(), topology_key: small(),
    when_unsatisfiable: select(vec![WhenUnsatisfiable::DoNotSchedule, WhenUnsatisfiable::ScheduleAnyway]),
    label_selector: of(label_selector()), min_domains: of(any::<u32>()), node_affinity_policy: inclusion(),
    node_taints_policy: inclusion(), match_label_keys: vec(small(), 0..2),
});
record!(/// Anything that a pod says about its place.
pod_placement: PodPlacement {
    node_affinity: rare(node_affinity()), pod_affinity: rare(pod_affinity()),
    pod_anti_affinity: rare(pod_affinity()),
    topology_spread_constraints: vec(topology_spread_constraint(), 0..2),
});
