//! Affinity, anti-affinity and spreading among what clients ask for.

use bulkhead_controlplane_core::State;
use bulkhead_types::{Command, PLACEMENT_LEVEL};
use bulkhead_types::{
    FEATURE_LEVEL_MAX, LabelSelector, NodeAffinity, NodeInclusionPolicy, NodeSelectorOperator,
    NodeSelectorRequirement, NodeSelectorTerm, PodAffinity, PodAffinityTerm, PodPlacement, PodSpec, Rare,
    TopologySpreadConstraint, WeightedPodAffinityTerm, WhenUnsatisfiable,
};
use smol_str::SmolStr;

use super::labels;
use crate::rng::Rng;

/// By what nodes are grouped: agents give their nodes a zone.
const KEYS: [&str; 2] = ["zone", "kubernetes.io/hostname"];

/// The command that a cluster needs first, if it does.
pub(super) fn level(state: &State) -> Option<Command> {
    let is_low = state.feature_level() < PLACEMENT_LEVEL;
    is_low.then_some(Command::RaiseFeatureLevel { level: FEATURE_LEVEL_MAX })
}

/// Gives pods something to say about their place, and about pods of some apps.
pub(super) fn place(rng: &mut Rng, spec: &mut PodSpec, apps: &[SmolStr]) {
    let mut placement = PodPlacement::default();
    match rng.range(0, 6) {
        0 => placement.pod_affinity = affinity(rng, apps),
        1 | 2 => placement.pod_anti_affinity = affinity(rng, apps),
        3 | 4 => placement.topology_spread_constraints = vec![constraint(rng, apps)],
        5 => {
            let requirement = NodeSelectorRequirement {
                key: KEYS[0].into(),
                operator: *rng.pick(&[NodeSelectorOperator::In, NodeSelectorOperator::NotIn]),
                values: vec![rng.range(0, 1).to_string().into()],
            };
            let term = NodeSelectorTerm { match_expressions: vec![requirement], match_fields: Vec::new() };
            placement.node_affinity =
                Rare::some(NodeAffinity { required: vec![term], preferred: Vec::new() });
        }
        _ => {
            placement.pod_anti_affinity = affinity(rng, apps);
            placement.topology_spread_constraints = vec![constraint(rng, apps)];
        }
    }
    let mut options = spec.options.get().cloned().unwrap_or_default();
    options.placement = Rare::some(placement);
    spec.options = Rare::some(options);
}

fn of_app(rng: &mut Rng, apps: &[SmolStr]) -> Option<LabelSelector> {
    Some(LabelSelector {
        match_labels: labels("app", rng.pick::<SmolStr>(apps)),
        match_expressions: Vec::new(),
    })
}

fn affinity(rng: &mut Rng, apps: &[SmolStr]) -> Rare<PodAffinity> {
    let term = PodAffinityTerm {
        label_selector: of_app(rng, apps),
        namespace_selector: rng.chance(200).then(LabelSelector::default),
        topology_key: (*rng.pick(&KEYS)).into(),
        ..PodAffinityTerm::default()
    };
    Rare::some(if rng.chance(700) {
        PodAffinity { required: vec![term], preferred: Vec::new() }
    } else {
        let wish = WeightedPodAffinityTerm { weight: rng.range(1, 100) as u32, pod_affinity_term: term };
        PodAffinity { required: Vec::new(), preferred: vec![wish] }
    })
}

fn constraint(rng: &mut Rng, apps: &[SmolStr]) -> TopologySpreadConstraint {
    let is_hard = rng.chance(700);
    TopologySpreadConstraint {
        max_skew: rng.range(1, 2) as u32,
        topology_key: (*rng.pick(&KEYS)).into(),
        when_unsatisfiable: match is_hard {
            true => WhenUnsatisfiable::DoNotSchedule,
            false => WhenUnsatisfiable::ScheduleAnyway,
        },
        label_selector: of_app(rng, apps),
        min_domains: (is_hard && rng.chance(200)).then_some(2),
        node_affinity_policy: NodeInclusionPolicy::Honor,
        node_taints_policy: *rng.pick(&[NodeInclusionPolicy::Honor, NodeInclusionPolicy::Ignore]),
        match_label_keys: Vec::new(),
    }
}
