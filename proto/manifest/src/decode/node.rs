//! Nodes: what an operator may write of them.

use bulkhead_types::{Node, NodeFacts, NodePhase, NodeSpec, NodeStatus, ObjectMeta, Taint, TaintEffect};

use super::decoder::{Decoder, Schema};
use crate::tree;

const SPEC: Schema = Schema {
    known: &["unschedulable", "taints"],
    not_yet: &["podCIDR", "podCIDRs", "providerID", "externalID", "configSource"],
    ..Schema::EMPTY
};
const TAINT: Schema = Schema { known: &["key", "value", "effect"], ignored: &["timeAdded"], ..Schema::EMPTY };
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
    });
    let status = NodeStatus {
        phase: NodePhase::Unreachable,
        phase_since_ms: 0,
        incarnation: 0,
        facts: NodeFacts::default(),
    };
    |meta| Node { meta, spec, status }
}

fn taint(d: &mut Decoder<'_>, node: &tree::Node, path: &str) -> Option<Taint> {
    let fields = d.fields(node, path, &TAINT)?;
    let key = d.required_text(&fields, "key");
    let value = d.text(&fields, "value").unwrap_or_default();
    if fields.get("effect").is_none() {
        d.missing(&fields, "effect");
    }
    let effect = d.choice(&fields, "effect", &EFFECTS)?;
    Some(Taint { key: key?.into(), value: value.into(), effect })
}
