//! The pods of each figure.

use bulkhead_types::{
    Container, ContainerOptions, ExtendedResources, LabelSelector, NodeAffinity, NodeInclusionPolicy,
    NodeSelectorOperator, NodeSelectorRequirement, NodeSelectorTerm, PodAffinity, PodAffinityTerm,
    PodOptions, PodPlacement, PodSpec, Rare, ResourceRequirements, Shared, StringMap,
    TopologySpreadConstraint, WhenUnsatisfiable,
};
use smol_str::SmolStr;

use super::leader::Sort;
use super::quality::Size;

const HOSTNAME: &str = "kubernetes.io/hostname";
/// Plain pods come in so many sizes.
const SIZES: u64 = 4;

/// What pods ask for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Load {
    /// Room.
    Basic,
    /// A node without another of their app.
    AntiAffinity,
    /// To be even over zones and nodes within their app.
    Spread,
    /// The zone of their app.
    PodAffinity,
    /// Half of the zones.
    NodeAffinity,
    /// More than any node has.
    Unschedulable,
    /// Some of each that can be placed.
    Mixed,
}

impl Load {
    /// Pods of so many apps.
    pub(super) fn sorts(self, apps: usize) -> Vec<Sort> {
        let each = |load: &str, placement: fn(SmolStr) -> PodPlacement| {
            let sort = |number: usize| {
                let app = SmolStr::new(format!("{load}-{number}"));
                Sort { spec: spec(100, Some(placement(app.clone()))), app }
            };
            (0..apps.max(1)).map(sort).collect::<Vec<_>>()
        };
        match self {
            Self::Basic => (1..=SIZES).map(|size| plain(100 * size)).collect(),
            Self::Unschedulable => vec![plain(1_000_000)],
            Self::AntiAffinity => each("apart", apart),
            Self::Spread => each("even", even),
            Self::PodAffinity => each("close", close),
            Self::NodeAffinity => each("chosen", chosen),
            Self::Mixed => {
                let all =
                    [Self::Basic, Self::AntiAffinity, Self::Spread, Self::PodAffinity, Self::NodeAffinity];
                all.into_iter().flat_map(|load| load.sorts(apps)).collect()
            }
        }
    }
}

fn plain(cpu_millis: u64) -> Sort {
    Sort { app: SmolStr::new_static("plain"), spec: spec(cpu_millis, None) }
}

/// One card, and a little else.
pub(super) fn with_card() -> Shared<PodSpec> {
    with_cards(PodSpec::clone(&plain(1000).spec), 1)
}

fn with_cards(mut spec: PodSpec, cards: u64) -> Shared<PodSpec> {
    for container in spec.containers.iter_mut().filter(|_| cards > 0) {
        let limits = [(SmolStr::new_static("nvidia.com/gpu"), cards)].into_iter().collect();
        let extended = Rare::some(ExtendedResources { requests: Default::default(), limits });
        container.options = Rare::some(ContainerOptions { extended, ..ContainerOptions::default() });
    }
    Shared::new(spec)
}

/// A pod of a certain size.
pub(super) fn sized(size: Size) -> Sort {
    let mut spec = PodSpec::clone(&plain(1000 * size.cpu).spec);
    for container in &mut spec.containers {
        container.requests.memory_bytes = Some(size.memory << 30);
    }
    Sort { app: SmolStr::new_static("sized"), spec: with_cards(spec, size.cards) }
}

/// The classes of pods that fill nodes, and of those that come then.
pub(super) const LOW: &str = "low";
pub(super) const HIGH: &str = "high";

/// Pods of which so many fill a node.
pub(super) fn filling(per_node: usize) -> Vec<Sort> {
    vec![of_class(LOW, super::leader::CPU_MILLIS / per_node as u64)]
}

/// Pods for which two of those must end.
pub(super) fn urgent(per_node: usize) -> Vec<Sort> {
    vec![of_class(HIGH, 2 * super::leader::CPU_MILLIS / per_node as u64)]
}

fn of_class(class: &'static str, cpu_millis: u64) -> Sort {
    let mut spec = PodSpec::clone(&plain(cpu_millis).spec);
    let options = PodOptions { priority_class: Rare::some(class.into()), ..PodOptions::default() };
    spec.options = Rare::some(options);
    Sort { app: SmolStr::new_static(class), spec: Shared::new(spec) }
}

fn spec(cpu_millis: u64, placement: Option<PodPlacement>) -> Shared<PodSpec> {
    let requests = ResourceRequirements {
        cpu_millis: Some(cpu_millis),
        memory_bytes: Some((128 << 20) * cpu_millis.min(1000) / 100),
        ephemeral_storage_bytes: None,
    };
    let container =
        Container { name: "main".into(), image: "web:1".into(), requests, ..Container::default() };
    let options = PodOptions { placement: placement.into(), ..PodOptions::default() };
    let options = Rare::unless_default(options);
    Shared::new(PodSpec { containers: vec![container], options, ..PodSpec::default() })
}

fn of_app(app: SmolStr) -> Option<LabelSelector> {
    Some(LabelSelector::from_labels(StringMap::from([(SmolStr::new_static("app"), app)])))
}

fn near(app: SmolStr, key: &'static str) -> Rare<PodAffinity> {
    let topology_key = SmolStr::new_static(key);
    let term = PodAffinityTerm { label_selector: of_app(app), topology_key, ..PodAffinityTerm::default() };
    Rare::some(PodAffinity { required: vec![term], preferred: Vec::new() })
}

fn apart(app: SmolStr) -> PodPlacement {
    PodPlacement { pod_anti_affinity: near(app, HOSTNAME), ..PodPlacement::default() }
}

fn close(app: SmolStr) -> PodPlacement {
    PodPlacement { pod_affinity: near(app, "zone"), ..PodPlacement::default() }
}

fn even(app: SmolStr) -> PodPlacement {
    let constraint = |key: &'static str| TopologySpreadConstraint {
        max_skew: 1,
        topology_key: SmolStr::new_static(key),
        when_unsatisfiable: WhenUnsatisfiable::DoNotSchedule,
        label_selector: of_app(app.clone()),
        min_domains: None,
        node_affinity_policy: NodeInclusionPolicy::Honor,
        node_taints_policy: NodeInclusionPolicy::Ignore,
        match_label_keys: Vec::new(),
    };
    let topology_spread_constraints = vec![constraint("zone"), constraint(HOSTNAME)];
    PodPlacement { topology_spread_constraints, ..PodPlacement::default() }
}

fn chosen(_: SmolStr) -> PodPlacement {
    let requirement = NodeSelectorRequirement {
        key: SmolStr::new_static("zone"),
        operator: NodeSelectorOperator::In,
        values: (0..super::leader::ZONES / 2).map(|zone| SmolStr::new(format!("zone-{zone}"))).collect(),
    };
    let term = NodeSelectorTerm { match_expressions: vec![requirement], match_fields: Vec::new() };
    let affinity = NodeAffinity { required: vec![term], preferred: Vec::new() };
    PodPlacement { node_affinity: Rare::some(affinity), ..PodPlacement::default() }
}
