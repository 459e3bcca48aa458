//! NodePools and NodeOperations.

use bulkhead_types::{
    DESIRED_NODES_MAX, NODE_TIMEOUT_MS_DEFAULT, NODE_TIMEOUT_MS_MAX, NODES_PER_OPERATION_MAX, Name,
    NodeAction, NodeOperationSpec, NodePoolSpec,
};

use super::decoder::{Decoder, Fields, Schema};
use super::node::{gpu, taint};
use super::pod::runtime_class;
use crate::tree::Node;

const POOL: Schema = Schema {
    known: &[
        "labels",
        "taints",
        "runtimeClassName",
        "gpuMode",
        "partitionStrategy",
        "desiredNodes",
        "unschedulableOnJoin",
        "syncExisting",
    ],
    ..Schema::EMPTY
};
const OPERATION: Schema = Schema {
    known: &[
        "pool",
        "nodes",
        "action",
        "gpuMode",
        "partitionStrategy",
        "force",
        "maxBatch",
        "timeoutPerNodeSeconds",
    ],
    ..Schema::EMPTY
};
const ACTIONS: [(&str, NodeAction); 4] = [
    ("Cordon", NodeAction::Cordon),
    ("Uncordon", NodeAction::Uncordon),
    ("Drain", NodeAction::Drain),
    ("SetGpuMode", NodeAction::SetGpuMode),
];

/// What is wanted of a pool.
pub(super) fn pool(d: &mut Decoder<'_>, node: &Node) -> Option<NodePoolSpec> {
    let fields = d.fields(node, "spec", &POOL)?;
    let desired = d.number(&fields, "desiredNodes", DESIRED_NODES_MAX.into());
    Some(NodePoolSpec {
        labels: d.string_map(&fields, "labels"),
        taints: d.each(&fields, "taints", taint),
        runtime_class: runtime_class(d, &fields),
        gpu: gpu(d, &fields),
        desired_nodes: desired.and_then(|number| u32::try_from(number).ok()),
        unschedulable_on_join: d.boolean(&fields, "unschedulableOnJoin").unwrap_or_default(),
        sync_existing: d.boolean(&fields, "syncExisting").unwrap_or(true),
    })
}

/// What is wanted of an operation.
pub(super) fn operation(d: &mut Decoder<'_>, node: &Node) -> Option<NodeOperationSpec> {
    let fields = d.fields(node, "spec", &OPERATION)?;
    if fields.get("action").is_none() {
        d.missing(&fields, "action");
    }
    let most = i64::try_from(NODES_PER_OPERATION_MAX).unwrap_or(i64::MAX);
    let max_batch = d.number_between(&fields, "maxBatch", 1, most);
    let most_s = i64::try_from(NODE_TIMEOUT_MS_MAX / 1000).unwrap_or(i64::MAX);
    let timeout = d.number_between(&fields, "timeoutPerNodeSeconds", 1, most_s);
    let timeout_ms = timeout.and_then(|seconds| u64::try_from(seconds).ok()).map(|seconds| seconds * 1000);
    let nodes = names(d, &fields);
    let pool = d.text(&fields, "pool").and_then(|text| name(d, &fields, "pool", text));
    let gpu = gpu(d, &fields);
    Some(NodeOperationSpec {
        pool,
        nodes,
        action: d.choice(&fields, "action", &ACTIONS)?,
        gpu,
        force: d.boolean(&fields, "force").unwrap_or_default(),
        max_batch: max_batch.and_then(|number| u32::try_from(number).ok()),
        timeout_per_node_ms: timeout_ms.unwrap_or(NODE_TIMEOUT_MS_DEFAULT),
    })
}

fn names(d: &mut Decoder<'_>, fields: &Fields<'_>) -> Vec<Name> {
    let texts = d.texts(fields, "nodes");
    texts.into_iter().filter_map(|text| name(d, fields, "nodes", text)).collect()
}

fn name(d: &mut Decoder<'_>, fields: &Fields<'_>, field: &str, text: String) -> Option<Name> {
    match Name::new(text) {
        Ok(name) => Some(name),
        Err(error) => {
            d.fail(fields.place(field), &fields.path(field), error.to_string());
            None
        }
    }
}
