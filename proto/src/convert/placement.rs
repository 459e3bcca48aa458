//! Where pods may be, and near what they would rather be.

use bulkhead_types::{
    NodeAffinity, NodeInclusionPolicy, NodeSelectorOperator, NodeSelectorRequirement, NodeSelectorTerm,
    PodAffinity, PodAffinityTerm, PodPlacement, PreferredSchedulingTerm, TopologySpreadConstraint,
    WeightedPodAffinityTerm, WhenUnsatisfiable,
};

use super::defaults::default;
use super::{wire_enum, wire_field, wire_struct};
use crate::v1;

wire_enum! {
    NodeSelectorOperator { In, NotIn, Exists, DoesNotExist, Gt, Lt }
    WhenUnsatisfiable { DoNotSchedule, ScheduleAnyway }
    NodeInclusionPolicy { Honor, Ignore }
}

wire_struct!(PodPlacement => v1::PodPlacement {
    node_affinity, pod_affinity, pod_anti_affinity, topology_spread_constraints,
});
wire_struct!(NodeAffinity => v1::NodeAffinity { required, preferred });
wire_struct!(PreferredSchedulingTerm => v1::PreferredSchedulingTerm { weight, preference });
wire_struct!(NodeSelectorTerm => v1::NodeSelectorTerm { match_expressions, match_fields });
wire_struct!(NodeSelectorRequirement => v1::NodeSelectorRequirement { key, operator, values });
wire_struct!(PodAffinity => v1::PodAffinity { required, preferred });
wire_struct!(WeightedPodAffinityTerm => v1::WeightedPodAffinityTerm { weight, pod_affinity_term });
wire_struct!(PodAffinityTerm => v1::PodAffinityTerm {
    label_selector, namespaces, namespace_selector, topology_key, match_label_keys, mismatch_label_keys,
});
wire_struct!(TopologySpreadConstraint => v1::TopologySpreadConstraint {
    max_skew, topology_key, when_unsatisfiable, label_selector, min_domains, node_affinity_policy,
    node_taints_policy, match_label_keys,
});

wire_field! {
    PodPlacement => v1::PodPlacement,
    NodeAffinity => v1::NodeAffinity,
    PreferredSchedulingTerm => v1::PreferredSchedulingTerm,
    NodeSelectorTerm => v1::NodeSelectorTerm,
    NodeSelectorRequirement => v1::NodeSelectorRequirement,
    PodAffinity => v1::PodAffinity,
    WeightedPodAffinityTerm => v1::WeightedPodAffinityTerm,
    PodAffinityTerm => v1::PodAffinityTerm,
    TopologySpreadConstraint => v1::TopologySpreadConstraint,
}

/// What a submission may leave out (Kubernetes' defaults).
pub(super) fn default_placement(placement: &mut v1::PodPlacement) {
    for one in &mut placement.topology_spread_constraints {
        default(&mut one.node_affinity_policy, v1::NodeInclusionPolicy::Honor);
        default(&mut one.node_taints_policy, v1::NodeInclusionPolicy::Ignore);
    }
}
