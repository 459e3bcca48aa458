//! What other pods say about a pod on a node, asked of every pod and every node, in the words of Kubernetes' documentation:
//! slow, obvious, and without any of the code that places. Tests and the simulator judge that code by it.

pub mod cpus;
pub mod elastic;
pub mod group_preemption;
pub mod ports;
pub mod preemption;
pub mod queues;

use bulkhead_types::{
    LabelSelector, Name, Node, NodeInclusionPolicy, NodePhase, ObjectId, Pod, PodAffinity, PodAffinityTerm,
    Rare, StringMap, TaintEffect, TopologySpreadConstraint, WhenUnsatisfiable,
};

use super::Misfit;
use crate::State;

/// All nodes, and the pods that hold a place on one.
pub struct Scene<'a> {
    state: &'a State,
    placed: Vec<(&'a Pod, &'a Node)>,
}

impl<'a> Scene<'a> {
    /// A State in which these pods are bound to these nodes as well.
    #[must_use]
    pub fn of(state: &'a State, bound: &[(ObjectId, ObjectId)]) -> Self {
        let mut placed = Vec::new();
        for pod in state.pods().iter().filter(|pod| !pod.status.phase.is_terminal()) {
            let bound = bound.iter().find(|(id, _)| *id == pod.meta.id).map(|(_, node)| *node);
            if let Some(node) = pod.node.or(bound).and_then(|node| state.nodes().get(node)) {
                placed.push((&**pod, &**node));
            }
        }
        Self { state, placed }
    }

    /// A State from which these pods have gone.
    #[must_use]
    pub fn without(state: &'a State, gone: &[ObjectId]) -> Self {
        let mut scene = Self::of(state, &[]);
        scene.placed.retain(|(pod, _)| !gone.contains(&pod.meta.id));
        scene
    }

    /// Whether the pods that are placed let another one be on a node.
    ///
    /// # Errors
    /// A reason against it.
    pub fn check(&self, pod: &Pod, node: &Node) -> Result<(), Misfit> {
        for constraint in constraints(pod) {
            self.check_spread(pod, node, constraint)?;
        }
        self.check_affinity(pod, node)?;
        let near = |term: &PodAffinityTerm, other: &Node| same_domain(term, node, other);
        for term in required(pod, |placement| &placement.pod_anti_affinity) {
            if self.placed.iter().any(|(other, at)| near(term, at) && self.means(pod, term, other)) {
                return Err(Misfit::PodAntiAffinity);
            }
        }
        for (other, at) in &self.placed {
            let terms = required(other, |placement| &placement.pod_anti_affinity);
            if terms.iter().any(|term| near(term, at) && self.means(other, term, pod)) {
                return Err(Misfit::ExistingPodAntiAffinity);
            }
        }
        Ok(())
    }

    fn check_affinity(&self, pod: &Pod, node: &Node) -> Result<(), Misfit> {
        let terms = required(pod, |placement| &placement.pod_affinity);
        if terms.iter().any(|term| node.meta.labels.get(&term.topology_key).is_none()) {
            return Err(Misfit::PodAffinity);
        }
        let means_all = |other: &Pod| terms.iter().all(|term| self.means(pod, term, other));
        let wanted: Vec<_> = self.placed.iter().filter(|(other, _)| means_all(other)).collect();
        let holds = |term: &PodAffinityTerm| wanted.iter().any(|(_, at)| same_domain(term, node, at));
        let counts = |(_, at): &&&(&Pod, &Node)| {
            terms.iter().any(|term| at.meta.labels.contains_key(&term.topology_key))
        };
        let is_first = !wanted.iter().any(|one| counts(&one)) && means_all(pod);
        if terms.iter().all(holds) || is_first { Ok(()) } else { Err(Misfit::PodAffinity) }
    }

    fn check_spread(&self, pod: &Pod, node: &Node, one: &TopologySpreadConstraint) -> Result<(), Misfit> {
        let Some(own) = node.meta.labels.get(&one.topology_key) else {
            return Err(Misfit::TopologySpreadLabel);
        };
        let eligible = |node: &Node| is_eligible(pod, node, one);
        let domains: std::collections::BTreeSet<_> = self
            .state
            .nodes()
            .iter()
            .filter(|node| eligible(node))
            .filter_map(|node| node.meta.labels.get(&one.topology_key))
            .collect();
        let is_meant = |other: &Pod| {
            other.meta.namespace == pod.meta.namespace
                && one.label_selector.as_ref().is_some_and(|s| s.matches(&other.meta.labels))
                && has_same(&one.match_label_keys, pod, other)
        };
        let count = |domain| {
            let counted = self.placed.iter().filter(|(other, at)| {
                eligible(at)
                    && at.meta.labels.get(&one.topology_key) == Some(domain)
                    && !other.meta.is_deleting()
                    && is_meant(other)
            });
            counted.count()
        };
        let mut fewest = domains.iter().map(|domain| count(domain)).min().unwrap_or(0);
        if domains.len() < one.min_domains.unwrap_or(1) as usize {
            fewest = 0;
        }
        let skew = count(own) + usize::from(is_meant(pod));
        if skew > fewest + one.max_skew as usize { Err(Misfit::TopologySpread) } else { Ok(()) }
    }

    /// Whether a term of a pod means another pod.
    fn means(&self, pod: &Pod, term: &PodAffinityTerm, other: &Pod) -> bool {
        let namespace = other.meta.namespace.as_ref();
        let listed = term.namespaces.iter().any(|name| Some(name.as_str()) == namespace.map(Name::as_str));
        let selected = |selector: &LabelSelector| {
            let found = self.state.namespaces().iter().find(|one| Some(&one.meta.name) == namespace);
            let mut labels = found.map_or_else(StringMap::new, |one| one.meta.labels.clone());
            if let Some(name) = namespace {
                labels.insert("kubernetes.io/metadata.name".into(), name.as_str().into());
            }
            selector.matches(&labels)
        };
        let in_namespace = match (&term.namespace_selector, term.namespaces.is_empty()) {
            (None, true) => other.meta.namespace == pod.meta.namespace,
            (selector, _) => listed || selector.as_ref().is_some_and(selected),
        };
        let differs = |key| {
            let value = pod.meta.labels.get(key);
            value.is_none() || value != other.meta.labels.get(key)
        };
        in_namespace
            && term.label_selector.as_ref().is_some_and(|selector| selector.matches(&other.meta.labels))
            && has_same(&term.match_label_keys, pod, other)
            && term.mismatch_label_keys.iter().all(differs)
    }
}

/// Labels that the pod lacks are not compared.
fn has_same(keys: &[smol_str::SmolStr], pod: &Pod, other: &Pod) -> bool {
    let same = |key| pod.meta.labels.get(key).is_none_or(|value| other.meta.labels.get(key) == Some(value));
    keys.iter().all(same)
}

fn same_domain(term: &PodAffinityTerm, a: &Node, b: &Node) -> bool {
    let value = a.meta.labels.get(&term.topology_key);
    value.is_some() && value == b.meta.labels.get(&term.topology_key)
}

fn required(
    pod: &Pod,
    which: impl Fn(&bulkhead_types::PodPlacement) -> &Rare<PodAffinity>,
) -> &[PodAffinityTerm] {
    let affinity = pod.spec.placement().and_then(|placement| which(placement).get());
    affinity.map_or(&[], |affinity| &affinity.required)
}

fn constraints(pod: &Pod) -> impl Iterator<Item = &TopologySpreadConstraint> {
    let all = pod.spec.placement().map_or(&[][..], |placement| &placement.topology_spread_constraints);
    all.iter().filter(|one| one.when_unsatisfiable == WhenUnsatisfiable::DoNotSchedule)
}

fn is_eligible(pod: &Pod, node: &Node, one: &TopologySpreadConstraint) -> bool {
    let has_keys = constraints(pod).all(|one| node.meta.labels.contains_key(&one.topology_key));
    let selected = pod.spec.node_selector.iter().all(|(k, v)| node.meta.labels.get(k) == Some(v))
        && pod.spec.node_affinity().is_none_or(|affinity| affinity.allows(node));
    let bears = |key: &str, value: &str, effect| {
        let taint = bulkhead_types::Taint { key: key.into(), value: value.into(), effect };
        pod.spec.tolerations.iter().any(|toleration| toleration.tolerates(&taint))
    };
    let repels = |taint: &bulkhead_types::Taint| {
        taint.effect != TaintEffect::PreferNoSchedule && !bears(&taint.key, &taint.value, taint.effect)
    };
    let cordoned =
        node.spec.unschedulable && !bears("node.kubernetes.io/unschedulable", "", TaintEffect::NoSchedule);
    let bearable = node.status.phase == NodePhase::Ready && !cordoned && !node.spec.taints.iter().any(repels);
    has_keys
        && (selected || one.node_affinity_policy == NodeInclusionPolicy::Ignore)
        && (bearable || one.node_taints_policy == NodeInclusionPolicy::Ignore)
}
