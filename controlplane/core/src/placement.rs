//! Whether a pod may be placed on a node: the one answer that both the scheduler and `decide` give.

use bulkhead_types::{Name, Node, NodePhase, PodSpec, Resources, Taint, TaintEffect};

use smol_str::SmolStr;

use crate::NodeUsage;

/// The taint that a cordoned node counts as having (Kubernetes' name).
const TAINT_UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Why a node cannot take a pod. The order is that in which they are looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Misfit {
    /// Its lease ran out, or it is fenced.
    NotReady,
    /// It is being deleted.
    Deleting,
    /// It is cordoned.
    Unschedulable,
    /// The pod asks for another node by name.
    NodeName,
    /// Its labels do not match the pod's node selector.
    NodeSelector,
    /// It has a taint that the pod does not tolerate.
    Taint(Taint),
    /// A volume of the pod is on another node.
    Volume {
        /// The claim.
        claim: Name,
        /// That node.
        node: SmolStr,
    },
    /// The pod has claims, and the node's agent keeps no volumes.
    NoVolumes,
    /// It has as many pods as it may.
    TooManyPods,
    /// Not enough processor time is free.
    InsufficientCpu,
    /// Not enough memory is free.
    InsufficientMemory,
    /// Not enough disk is free.
    InsufficientEphemeralStorage,
}

impl std::fmt::Display for Misfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotReady => f.write_str("node(s) not ready"),
            Self::Deleting => f.write_str("node(s) being deleted"),
            Self::Unschedulable => f.write_str("node(s) were unschedulable"),
            Self::NodeName => f.write_str("node(s) didn't match the requested node name"),
            Self::NodeSelector => f.write_str("node(s) didn't match Pod's node selector"),
            Self::Taint(taint) => {
                write!(f, "node(s) had untolerated taint {{{}: {}}}", taint.key, taint.value)
            }
            Self::Volume { claim, node } => {
                write!(f, "node(s) didn't have PersistentVolumeClaim {claim}, which is on node {node}")
            }
            Self::NoVolumes => f.write_str("node(s) keep no volumes"),
            Self::TooManyPods => f.write_str("Too many pods"),
            Self::InsufficientCpu => f.write_str("Insufficient cpu"),
            Self::InsufficientMemory => f.write_str("Insufficient memory"),
            Self::InsufficientEphemeralStorage => f.write_str("Insufficient ephemeral-storage"),
        }
    }
}

/// Whether a pod that needs `request` may be placed on `node`, of which `usage` is reserved already.
///
/// # Errors
/// The first reason against it.
pub fn check_fit(spec: &PodSpec, request: Resources, node: &Node, usage: NodeUsage) -> Result<(), Misfit> {
    check_node(spec, node)?;
    check_room(request, node, usage)
}

/// The part of [`check_fit`] that depends on the node's own properties only.
///
/// # Errors
/// The first reason against it.
pub fn check_node(spec: &PodSpec, node: &Node) -> Result<(), Misfit> {
    if node.status.phase != NodePhase::Ready {
        return Err(Misfit::NotReady);
    }
    if node.meta.is_deleting() {
        return Err(Misfit::Deleting);
    }
    if node.spec.unschedulable && !tolerates_cordon(spec) {
        return Err(Misfit::Unschedulable);
    }
    if spec.node_name.as_ref().is_some_and(|name| name != node.meta.name.as_str()) {
        return Err(Misfit::NodeName);
    }
    if !spec.node_selector.iter().all(|(key, value)| node.meta.labels.get(key) == Some(value)) {
        return Err(Misfit::NodeSelector);
    }
    match untolerated(spec, node).next() {
        Some(taint) => Err(Misfit::Taint(taint.clone())),
        None => Ok(()),
    }
}

/// Whether the pod does not mind that a node is cordoned: a cordon counts as a taint (Kubernetes' rule).
#[must_use]
pub fn tolerates_cordon(spec: &PodSpec) -> bool {
    let cordon = Taint {
        key: SmolStr::new_static(TAINT_UNSCHEDULABLE),
        value: SmolStr::default(),
        effect: TaintEffect::NoSchedule,
    };
    spec.tolerations.iter().any(|toleration| toleration.tolerates(&cordon))
}

/// The taints of a node that keep the pod away.
pub fn untolerated<'a>(spec: &'a PodSpec, node: &'a Node) -> impl Iterator<Item = &'a Taint> {
    let repels = |taint: &&Taint| {
        taint.effect != TaintEffect::PreferNoSchedule && !spec.tolerations.iter().any(|t| t.tolerates(taint))
    };
    node.spec.taints.iter().filter(repels)
}

/// The part of [`check_fit`] that depends on what is free.
///
/// # Errors
/// The first reason against it.
pub fn check_room(request: Resources, node: &Node, usage: NodeUsage) -> Result<(), Misfit> {
    let facts = &node.status.facts;
    if usage.pods >= facts.pods_max {
        return Err(Misfit::TooManyPods);
    }
    let wanted = usage.requests.plus(request);
    if wanted.cpu_millis > facts.allocatable.cpu_millis {
        return Err(Misfit::InsufficientCpu);
    }
    if wanted.memory_bytes > facts.allocatable.memory_bytes {
        return Err(Misfit::InsufficientMemory);
    }
    if wanted.ephemeral_storage_bytes > facts.allocatable.ephemeral_storage_bytes {
        return Err(Misfit::InsufficientEphemeralStorage);
    }
    Ok(())
}
