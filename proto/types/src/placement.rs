//! Where a pod may be, and near what it would rather be.
//!
//! Source: "Assigning Pods to Nodes" and "Pod Topology Spread Constraints" in the Kubernetes documentation; names and
//! meanings are those of "Pod v1 core" in its API reference.

use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{LabelOperator, LabelRequirement, LabelSelector, Node, PodSpec, Rare, StringMap};

/// The one field that a node selector may look at.
pub const FIELD_NODE_NAME: &str = "metadata.name";

/// Everything that a pod says about its place beside node selector and tolerations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodPlacement {
    /// On which nodes.
    pub node_affinity: Rare<NodeAffinity>,
    /// Near which pods.
    pub pod_affinity: Rare<PodAffinity>,
    /// Away from which pods.
    pub pod_anti_affinity: Rare<PodAffinity>,
    /// How evenly.
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
}

/// A missing part counts here: what is near in one pod and away in another must not have the same digest.
impl Hash for PodPlacement {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let affinities = (self.node_affinity.get(), self.pod_affinity.get(), self.pod_anti_affinity.get());
        (affinities, &self.topology_spread_constraints).hash(state);
    }
}

/// On which nodes a pod may be, and would rather be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeAffinity {
    /// One of these must match; nothing is asked when there is none.
    pub required: Vec<NodeSelectorTerm>,
    /// The more of these match, the better.
    pub preferred: Vec<PreferredSchedulingTerm>,
}

/// A wish for nodes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PreferredSchedulingTerm {
    /// How much it counts, 1 to 100.
    pub weight: u32,
    /// Which nodes; a term without requirements matches none.
    pub preference: NodeSelectorTerm,
}

/// Which nodes: all requirements must hold. Without any it matches none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeSelectorTerm {
    /// On labels.
    pub match_expressions: Vec<NodeSelectorRequirement>,
    /// On fields: only `metadata.name`.
    pub match_fields: Vec<NodeSelectorRequirement>,
}

/// One requirement on one label or field of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeSelectorRequirement {
    /// The label's key, or the field.
    pub key: SmolStr,
    /// How its value is compared.
    pub operator: NodeSelectorOperator,
    /// With what.
    pub values: Vec<SmolStr>,
}

/// How a node's label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NodeSelectorOperator {
    /// The value is one of those given.
    In = 1,
    /// The label is missing, or its value is none of those given.
    NotIn = 2,
    /// The label is there.
    Exists = 3,
    /// The label is missing.
    DoesNotExist = 4,
    /// The value is a whole number above the one given.
    Gt = 5,
    /// The value is a whole number below the one given.
    Lt = 6,
}

/// Near which pods a pod must be, and would rather be; or away from which.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodAffinity {
    /// All of these must hold.
    pub required: Vec<PodAffinityTerm>,
    /// The more of these hold, the better.
    pub preferred: Vec<WeightedPodAffinityTerm>,
}

/// A wish for pods.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WeightedPodAffinityTerm {
    /// How much it counts, 1 to 100.
    pub weight: u32,
    /// Which pods.
    pub pod_affinity_term: PodAffinityTerm,
}

/// Which pods, and what counts as near them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodAffinityTerm {
    /// By their labels; without a selector none.
    pub label_selector: Option<LabelSelector>,
    /// In these namespaces, beside those that `namespace_selector` chooses. In the pod's own when neither says anything.
    pub namespaces: Vec<SmolStr>,
    /// In namespaces with such labels; an empty selector chooses all.
    pub namespace_selector: Option<LabelSelector>,
    /// Nodes with the same value of this label are one domain.
    pub topology_key: SmolStr,
    /// Labels in which they must equal the pod that says this.
    pub match_label_keys: Vec<SmolStr>,
    /// Labels in which they must differ from it.
    pub mismatch_label_keys: Vec<SmolStr>,
}

/// What happens when a constraint cannot be met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum WhenUnsatisfiable {
    /// The pod waits.
    DoNotSchedule = 1,
    /// It goes where the skew is least.
    ScheduleAnyway = 2,
}

/// Whether nodes count on which the pod could not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NodeInclusionPolicy {
    /// Only nodes that suit it count.
    Honor = 1,
    /// All count.
    Ignore = 2,
}

/// How evenly pods are spread over domains.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TopologySpreadConstraint {
    /// By how many pods a domain may exceed the one with the fewest; at least 1.
    pub max_skew: u32,
    /// Nodes with the same value of this label are one domain.
    pub topology_key: SmolStr,
    /// What happens when that is not possible.
    pub when_unsatisfiable: WhenUnsatisfiable,
    /// Which pods of the namespace are counted; without a selector none.
    pub label_selector: Option<LabelSelector>,
    /// With fewer domains than this, the fewest counts as none.
    pub min_domains: Option<u32>,
    /// Whether nodes count that node selector and node affinity rule out.
    pub node_affinity_policy: NodeInclusionPolicy,
    /// Whether nodes count whose taints the pod does not tolerate.
    pub node_taints_policy: NodeInclusionPolicy,
    /// Labels in which the counted pods must equal the pod that says this.
    pub match_label_keys: Vec<SmolStr>,
}

impl NodeSelectorTerm {
    /// Whether it asks for nothing, and so matches nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.match_expressions.is_empty() && self.match_fields.is_empty()
    }

    /// Whether a node meets every requirement.
    #[must_use]
    pub fn matches(&self, node: &Node) -> bool {
        let name = node.meta.name.as_str();
        !self.is_empty()
            && self.match_expressions.iter().all(|one| one.matches(node.label(&one.key)))
            && self.match_fields.iter().all(|one| one.matches((one.key == FIELD_NODE_NAME).then_some(name)))
    }
}

impl NodeSelectorRequirement {
    /// Whether a value meets the requirement; `None` when there is none.
    #[must_use]
    pub fn matches(&self, value: Option<&str>) -> bool {
        let is_listed = |value: &str| self.values.iter().any(|one| one == value);
        match self.operator {
            NodeSelectorOperator::In => value.is_some_and(is_listed),
            NodeSelectorOperator::NotIn => !value.is_some_and(is_listed),
            NodeSelectorOperator::Exists => value.is_some(),
            NodeSelectorOperator::DoesNotExist => value.is_none(),
            NodeSelectorOperator::Gt => self.compares(value, |found, bound| found > bound),
            NodeSelectorOperator::Lt => self.compares(value, |found, bound| found < bound),
        }
    }

    fn compares(&self, value: Option<&str>, holds: impl Fn(i64, i64) -> bool) -> bool {
        let number = |text: &str| text.parse::<i64>().ok();
        let bound = self.values.first().and_then(|text| number(text));
        value.and_then(number).zip(bound).is_some_and(|(found, bound)| holds(found, bound))
    }
}

impl Node {
    /// The value of a label by which nodes are chosen and grouped.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.meta.labels.get(key).map(SmolStr::as_str)
    }
}

impl NodeAffinity {
    /// Whether a node is one of those that are required.
    #[must_use]
    pub fn allows(&self, node: &Node) -> bool {
        self.required.is_empty() || self.required.iter().any(|term| term.matches(node))
    }
}

/// A selector that also asks for the pod's own values of some labels, or for others.
#[must_use]
pub fn with_label_keys(
    selector: &LabelSelector,
    labels: &StringMap,
    equal: &[SmolStr],
    different: &[SmolStr],
) -> LabelSelector {
    let mut selector = selector.clone();
    for (keys, operator) in [(equal, LabelOperator::In), (different, LabelOperator::NotIn)] {
        for key in keys {
            if let Some(value) = labels.get(key) {
                let (key, values) = (key.clone(), vec![value.clone()]);
                selector.match_expressions.push(LabelRequirement { key, operator, values });
            }
        }
    }
    selector
}

impl PodPlacement {
    /// Whether it says anything about other pods.
    #[must_use]
    pub fn looks_at_pods(&self) -> bool {
        let affinities = [&self.pod_affinity, &self.pod_anti_affinity];
        !self.topology_spread_constraints.is_empty() || affinities.iter().any(|one| one.get().is_some())
    }
}

impl PodSpec {
    /// What it says about its place beside node selector and tolerations.
    #[must_use]
    pub fn placement(&self) -> Option<&PodPlacement> {
        self.options.get()?.placement.get()
    }

    /// On which nodes it may be, and would rather be.
    #[must_use]
    pub fn node_affinity(&self) -> Option<&NodeAffinity> {
        self.placement()?.node_affinity.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Name, NodeFacts, NodePhase, NodeSpec, NodeStatus, ObjectMeta};

    fn node(labels: &[(&str, &str)]) -> Node {
        let mut meta = ObjectMeta::new(None, Name::new("n1").expect("a name"));
        meta.labels = labels.iter().map(|(k, v)| (SmolStr::new(k), SmolStr::new(v))).collect();
        let facts = NodeFacts::default();
        let status = NodeStatus {
            phase: NodePhase::Ready,
            phase_since_ms: 0,
            incarnation: 1,
            facts,
            pool: Default::default(),
            images: Default::default(),
            device_labels: Default::default(),
        };
        Node { meta, spec: NodeSpec::default(), status }
    }

    fn requirement(key: &str, operator: NodeSelectorOperator, values: &[&str]) -> NodeSelectorRequirement {
        let values = values.iter().map(SmolStr::new).collect();
        NodeSelectorRequirement { key: key.into(), operator, values }
    }

    #[test]
    fn requirements_on_nodes_match_as_kubernetes_documents() {
        use NodeSelectorOperator::*;
        let check = |key: &str, operator, values: &[&str], expected: bool| {
            let node = node(&[("zone", "a"), ("cores", "16"), ("bad", "x1")]);
            let term = NodeSelectorTerm {
                match_expressions: vec![requirement(key, operator, values)],
                ..NodeSelectorTerm::default()
            };
            assert_eq!(term.matches(&node), expected, "{key} {operator:?} {values:?}");
        };
        check("zone", In, &["b", "a"], true);
        check("zone", In, &["b"], false);
        check("rack", In, &["b"], false);
        check("zone", NotIn, &["b"], true);
        check("zone", NotIn, &["a"], false);
        check("rack", NotIn, &["a"], true);
        check("zone", Exists, &[], true);
        check("rack", DoesNotExist, &[], true);
        check("cores", Gt, &["15"], true);
        check("cores", Gt, &["16"], false);
        check("cores", Lt, &["17"], true);
        check("bad", Lt, &["17"], false);
        check("rack", Gt, &["-5"], false);
    }

    #[test]
    fn near_and_away_have_different_digests() {
        let affinity = Rare::some(PodAffinity::default());
        let near = PodPlacement { pod_affinity: affinity.clone(), ..PodPlacement::default() };
        let away = PodPlacement { pod_anti_affinity: affinity, ..PodPlacement::default() };
        assert_ne!(crate::digest128(&near), crate::digest128(&away));
    }

    #[test]
    fn an_empty_term_matches_nothing_and_fields_are_the_name() {
        assert!(!NodeSelectorTerm::default().matches(&node(&[])));
        let by_name = |name: &str, operator| NodeSelectorTerm {
            match_fields: vec![requirement(FIELD_NODE_NAME, operator, &[name])],
            ..NodeSelectorTerm::default()
        };
        assert!(by_name("n1", NodeSelectorOperator::In).matches(&node(&[])));
        assert!(!by_name("n1", NodeSelectorOperator::NotIn).matches(&node(&[])));
        let affinity = |required| NodeAffinity { required, preferred: vec![] };
        assert!(affinity(vec![]).allows(&node(&[])));
        let either = vec![by_name("n2", NodeSelectorOperator::In), by_name("n1", NodeSelectorOperator::In)];
        assert!(affinity(either).allows(&node(&[])));
        assert!(!affinity(vec![NodeSelectorTerm::default()]).allows(&node(&[])));
    }
}
