//! What one pod says about other pods, with everything filled in that depends on the pod: its namespace, and its own
//! values of the labels that its terms name.

use bulkhead_types::{
    LabelSelector, Name, NodeAffinity, NodeInclusionPolicy, Pod, PodAffinity, PodAffinityTerm, PodSpec, Rare,
    StringMap, Toleration, TopologySpreadConstraint, WhenUnsatisfiable, with_label_keys,
};
use smol_str::SmolStr;

use super::taints::{tolerate_cordon, untolerated_by};
use super::vicinity::{Counted, CounterKey, CounterSpec};

/// The label that every namespace counts as having, with its name (Kubernetes' name).
const LABEL_NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// Which pods: by namespace and labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Matcher {
    /// In order, each once.
    namespaces: Vec<SmolStr>,
    namespace_selector: Option<LabelSelector>,
    /// None: no pod at all.
    selector: Option<LabelSelector>,
}

impl Matcher {
    fn of(term: &PodAffinityTerm, namespace: &SmolStr, labels: &StringMap) -> Self {
        let mut namespaces = term.namespaces.clone();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.push(namespace.clone());
        }
        namespaces.sort_unstable();
        namespaces.dedup();
        let (equal, different) = (&term.match_label_keys, &term.mismatch_label_keys);
        let selector = term.label_selector.as_ref().map(|s| with_label_keys(s, labels, equal, different));
        Self { namespaces, namespace_selector: term.namespace_selector.clone(), selector }
    }

    /// Whether it depends on labels of namespaces.
    pub(crate) fn selects_namespaces(&self) -> bool {
        self.namespace_selector.is_some()
    }

    /// Whether pods with such labels, in such a namespace, are meant.
    pub(crate) fn matches(&self, namespace: &SmolStr, of_namespace: &StringMap, labels: &StringMap) -> bool {
        let is_chosen = |selector: &LabelSelector| {
            let mut all = of_namespace.clone();
            all.insert(SmolStr::new_static(LABEL_NAMESPACE_NAME), namespace.clone());
            selector.matches(&all)
        };
        self.selector.as_ref().is_some_and(|selector| selector.matches(labels))
            && (self.namespaces.binary_search(namespace).is_ok()
                || self.namespace_selector.as_ref().is_some_and(is_chosen))
    }
}

/// Pods, counted by domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Term {
    /// The pods in each domain.
    pub(crate) counter: CounterKey,
    pub(crate) topology_key: SmolStr,
    /// Of a wish: how much each pod counts. Below zero: the fewer the better.
    pub(crate) weight: i64,
}

/// A constraint on how evenly pods are spread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spread {
    /// The counted pods in each domain.
    pub(crate) counter: CounterKey,
    pub(crate) topology_key: SmolStr,
    pub(crate) max_skew: u32,
    pub(crate) min_domains: u32,
    /// Whether the pod itself is counted once it is there.
    pub(crate) counts_itself: bool,
}

/// Which nodes count as domains for spreading.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NodeFilter {
    /// They have all of these labels.
    keys: Vec<SmolStr>,
    node_selector: StringMap,
    node_affinity: Option<NodeAffinity>,
    /// They have no taints but such that these tolerate, when set.
    tolerations: Option<Vec<Toleration>>,
}

impl NodeFilter {
    pub(crate) fn admits(&self, node: &bulkhead_types::Node) -> bool {
        let is_bearable = |tolerations: &Vec<Toleration>| {
            node.status.phase == bulkhead_types::NodePhase::Ready
                && (!node.spec.unschedulable || tolerate_cordon(tolerations))
                && untolerated_by(tolerations, node).next().is_none()
        };
        self.keys.iter().all(|key| node.label(key).is_some())
            && self.node_selector.iter().all(|(key, value)| node.meta.labels.get(key) == Some(value))
            && self.node_affinity.as_ref().is_none_or(|affinity| affinity.allows(node))
            && self.tolerations.as_ref().is_none_or(is_bearable)
    }
}

/// See the module. Terms name counters; what those count is in `counters`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    /// All must have a pod in the node's domain.
    pub(crate) affinity: Vec<Term>,
    /// Whether the pod itself is one that it wants to be near: then it may be the first.
    pub(crate) is_its_own_neighbour: bool,
    /// None may have a pod in the node's domain.
    pub(crate) anti_affinity: Vec<Term>,
    pub(crate) wishes: Vec<Term>,
    /// A node that exceeds one of these cannot be.
    pub(crate) spread: Vec<Spread>,
    /// A node that exceeds these is worse.
    pub(crate) spread_wishes: Vec<Spread>,
    /// Everything that is counted for it, in order, each once.
    pub(crate) reads: Vec<(CounterKey, CounterSpec)>,
    /// Counters of pods that say the same as this one about others, in order, each once: others are met by these.
    pub(crate) holds: Vec<(CounterKey, CounterSpec)>,
}

impl Rules {
    /// The rules of a pod.
    pub(crate) fn of(pod: &Pod, of_namespace: &StringMap) -> Self {
        let mut rules = Self::default();
        let Some(placement) = pod.spec.placement() else { return rules };
        let namespace = namespace_of(pod);
        let labels = &pod.meta.labels;
        let near = required(&placement.pod_affinity, &namespace, labels);
        // A pod counts when it is meant by all terms (Kubernetes' rule).
        let all: Vec<_> = near.iter().map(|(matcher, _)| matcher.clone()).collect();
        rules.is_its_own_neighbour = all.iter().all(|one| one.matches(&namespace, of_namespace, labels));
        for (matcher, term) in near {
            let counter = rules.reads(all.clone(), true, &term.topology_key, None);
            rules.affinity.push(term_of(counter, term, 0));
            // That others want to be near it counts for those a little (Kubernetes' hardPodAffinityWeight of 1).
            rules.holds(matcher, &term.topology_key, Some(1));
        }
        for (matcher, term) in required(&placement.pod_anti_affinity, &namespace, labels) {
            let counter = rules.reads(vec![matcher.clone()], true, &term.topology_key, None);
            rules.anti_affinity.push(term_of(counter, term, 0));
            rules.holds(matcher, &term.topology_key, None);
        }
        for (affinity, sign) in [(&placement.pod_affinity, 1), (&placement.pod_anti_affinity, -1)] {
            for one in affinity.get().map_or(&[][..], |affinity| &affinity.preferred) {
                let (term, weight) = (&one.pod_affinity_term, sign * i64::from(one.weight));
                let matcher = Matcher::of(term, &namespace, labels);
                let counter = rules.reads(vec![matcher.clone()], true, &term.topology_key, None);
                rules.wishes.push(term_of(counter, term, weight));
                rules.holds(matcher, &term.topology_key, Some(weight));
            }
        }
        for when in [WhenUnsatisfiable::DoNotSchedule, WhenUnsatisfiable::ScheduleAnyway] {
            rules.add_spread(pod, &placement.topology_spread_constraints, when);
        }
        rules.reads.sort_unstable_by_key(|(key, _)| *key);
        rules.reads.dedup_by_key(|(key, _)| *key);
        rules.holds.sort_unstable_by_key(|(key, _)| *key);
        rules.holds.dedup_by_key(|(key, _)| *key);
        rules
    }

    fn add_spread(&mut self, pod: &Pod, all: &[TopologySpreadConstraint], when: WhenUnsatisfiable) {
        let constraints: Vec<_> = all.iter().filter(|one| one.when_unsatisfiable == when).collect();
        let mut keys: Vec<_> = constraints.iter().map(|one| one.topology_key.clone()).collect();
        keys.sort_unstable();
        for one in constraints {
            let labels = &pod.meta.labels;
            let selector = one.label_selector.as_ref();
            let selector = selector.map(|s| with_label_keys(s, labels, &one.match_label_keys, &[]));
            let counts_itself = selector.as_ref().is_some_and(|selector| selector.matches(labels));
            let matcher = Matcher { namespaces: vec![namespace_of(pod)], namespace_selector: None, selector };
            let filter = filter_of(&pod.spec, one, keys.clone());
            let counter = self.reads(vec![matcher], false, &one.topology_key, Some(filter));
            let spread = Spread {
                counter,
                topology_key: one.topology_key.clone(),
                max_skew: one.max_skew,
                min_domains: one.min_domains.unwrap_or(1),
                counts_itself,
            };
            match when {
                WhenUnsatisfiable::DoNotSchedule => self.spread.push(spread),
                WhenUnsatisfiable::ScheduleAnyway => self.spread_wishes.push(spread),
            }
        }
    }

    fn reads(
        &mut self,
        all: Vec<Matcher>,
        with_ending: bool,
        topology_key: &SmolStr,
        filter: Option<NodeFilter>,
    ) -> CounterKey {
        let counted = Counted::Matching { all, with_ending };
        let spec = CounterSpec { counted, topology_key: topology_key.clone(), filter };
        let key = spec.key();
        self.reads.push((key, spec));
        key
    }

    fn holds(&mut self, matcher: Matcher, topology_key: &SmolStr, weight: Option<i64>) {
        let counted = Counted::Saying { matcher, weight };
        let spec = CounterSpec { counted, topology_key: topology_key.clone(), filter: None };
        self.holds.push((spec.key(), spec));
    }
}

fn required<'a>(
    affinity: &'a Rare<PodAffinity>,
    namespace: &SmolStr,
    labels: &StringMap,
) -> Vec<(Matcher, &'a PodAffinityTerm)> {
    let terms = affinity.get().map_or(&[][..], |affinity| &affinity.required);
    terms.iter().map(|term| (Matcher::of(term, namespace, labels), term)).collect()
}

fn term_of(counter: CounterKey, term: &PodAffinityTerm, weight: i64) -> Term {
    Term { counter, topology_key: term.topology_key.clone(), weight }
}

fn filter_of(spec: &PodSpec, one: &TopologySpreadConstraint, keys: Vec<SmolStr>) -> NodeFilter {
    let by_affinity = one.node_affinity_policy == NodeInclusionPolicy::Honor;
    let by_taints = one.node_taints_policy == NodeInclusionPolicy::Honor;
    let required =
        |affinity: &NodeAffinity| NodeAffinity { required: affinity.required.clone(), preferred: Vec::new() };
    NodeFilter {
        keys,
        node_selector: if by_affinity { spec.node_selector.clone() } else { StringMap::new() },
        node_affinity: spec.node_affinity().filter(|_| by_affinity).map(required),
        tolerations: by_taints.then(|| spec.tolerations.clone()),
    }
}

/// The namespace of a pod, as text.
pub(crate) fn namespace_of(pod: &Pod) -> SmolStr {
    SmolStr::new(pod.meta.namespace.as_ref().map_or("", Name::as_str))
}
