//! Taints keep pods away that do not tolerate them.

use bulkhead_types::{Node, PodSpec, Taint, TaintEffect, Toleration};
use smol_str::SmolStr;

use super::Misfit;

/// The taint that a cordoned node counts as having (Kubernetes' name).
const TAINT_UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

pub(super) fn check(spec: &PodSpec, node: &Node) -> Result<(), Misfit> {
    match untolerated(spec, node).next() {
        Some(taint) => Err(Misfit::Taint(taint.clone())),
        None => Ok(()),
    }
}

/// Whether the pod does not mind that a node is cordoned: a cordon counts as a taint (Kubernetes' rule).
#[must_use]
pub fn tolerates_cordon(spec: &PodSpec) -> bool {
    tolerate_cordon(&spec.tolerations)
}

pub(super) fn tolerate_cordon(tolerations: &[Toleration]) -> bool {
    let cordon = Taint {
        key: SmolStr::new_static(TAINT_UNSCHEDULABLE),
        value: SmolStr::default(),
        effect: TaintEffect::NoSchedule,
    };
    tolerations.iter().any(|toleration| toleration.tolerates(&cordon))
}

/// The taints of a node that keep the pod away.
pub fn untolerated<'a>(spec: &'a PodSpec, node: &'a Node) -> impl Iterator<Item = &'a Taint> {
    untolerated_by(&spec.tolerations, node)
}

pub(super) fn untolerated_by<'a>(
    tolerations: &'a [Toleration],
    node: &'a Node,
) -> impl Iterator<Item = &'a Taint> {
    let repels = |taint: &&Taint| {
        taint.effect != TaintEffect::PreferNoSchedule && !tolerations.iter().any(|t| t.tolerates(taint))
    };
    node.spec.taints.iter().filter(repels)
}
