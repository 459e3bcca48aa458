//! Nodes: what an operator may write of them.

use bulkhead_types::{
    Node, NodeFacts, NodeGpu, NodePhase, NodeSpec, NodeStatus, ObjectMeta, PartitionStrategy, Rare, Taint,
    TaintEffect,
};

use super::decoder::{Decoder, Fields, Schema};
use crate::tree;

const SPEC: Schema = Schema {
    known: &["unschedulable", "taints", "gpuMode", "partitionStrategy"],
    not_yet: &["podCIDR", "podCIDRs", "providerID", "externalID", "configSource"],
    ..Schema::EMPTY
};
const TAINT: Schema = Schema { known: &["key", "value", "effect"], ignored: &["timeAdded"], ..Schema::EMPTY };
const STRATEGIES: [(&str, PartitionStrategy); 2] =
    [("Single", PartitionStrategy::Single), ("Mixed", PartitionStrategy::Mixed)];
/// The words for effects.
pub(super) const EFFECTS: [(&str, TaintEffect); 3] = [
    ("NoSchedule", TaintEffect::NoSchedule),
    ("PreferNoSchedule", TaintEffect::PreferNoSchedule),
    ("NoExecute", TaintEffect::NoExecute),
];

/// A node of which nothing is known but what the operator wants; complete once it has its metadata.
pub(super) fn node(
    d: &mut Decoder<'_>,
    spec: Option<&tree::Node>,
) -> impl FnOnce(ObjectMeta) -> Node + use<> {
    let fields = spec.and_then(|node| d.fields(node, "spec", &SPEC));
    let spec = fields.map_or_else(NodeSpec::default, |fields| NodeSpec {
        unschedulable: d.boolean(&fields, "unschedulable").unwrap_or_default(),
        taints: d.each(&fields, "taints", taint),
        gpu: gpu(d, &fields),
    });
    let status = NodeStatus {
        phase: NodePhase::Unreachable,
        phase_since_ms: 0,
        incarnation: 0,
        facts: NodeFacts::default(),
        pool: Rare::NONE,
        images: Rare::NONE,
        device_labels: Rare::NONE,
    };
    |meta| Node { meta, spec, status }
}

/// The mode of the node's cards.
pub(super) fn gpu(d: &mut Decoder<'_>, fields: &Fields<'_>) -> Rare<NodeGpu> {
    let strategy = d.choice(fields, "partitionStrategy", &STRATEGIES);
    let mode = d.text(fields, "gpuMode");
    if mode.is_none() && strategy.is_some() && fields.get("gpuMode").is_none() {
        d.missing(fields, "gpuMode");
    }
    mode.map(|mode| NodeGpu { mode: mode.into(), strategy: strategy.unwrap_or_default() }).into()
}

pub(super) fn taint(d: &mut Decoder<'_>, node: &tree::Node, path: &str) -> Option<Taint> {
    let fields = d.fields(node, path, &TAINT)?;
    let key = d.required_text(&fields, "key");
    let value = d.text(&fields, "value").unwrap_or_default();
    if fields.get("effect").is_none() {
        d.missing(&fields, "effect");
    }
    let effect = d.choice(&fields, "effect", &EFFECTS)?;
    Some(Taint { key: key?.into(), value: value.into(), effect })
}
