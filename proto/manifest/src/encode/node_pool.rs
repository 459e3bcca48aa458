//! NodePools and NodeOperations as values.

use bulkhead_types::{
    NodeGpu, NodeOperationSpec, NodeOperationStatus, NodePoolSpec, NodePoolStatus, RuntimeClass,
};
use serde_json::Value;

use super::{Fields, taint};

/// What is wanted of a pool.
pub(super) fn pool_spec(spec: &NodePoolSpec) -> Value {
    let RuntimeClass::Rune = spec.runtime_class;
    let mut fields = Fields::new().map("labels", &spec.labels).text("runtimeClassName", "rune");
    fields = gpu(fields, spec.gpu.get()).number("desiredNodes", spec.desired_nodes.map(u64::from));
    if spec.unschedulable_on_join {
        fields = fields.set("unschedulableOnJoin", true.into());
    }
    fields
        .set("syncExisting", spec.sync_existing.into())
        .list("taints", spec.taints.iter().map(taint))
        .finish()
}

/// What is known of a pool.
pub(super) fn pool_status(status: &NodePoolStatus) -> Value {
    Fields::new()
        .set("observedGeneration", status.observed_generation.into())
        .set("nodes", status.nodes.into())
        .set("ready", status.ready.into())
        .set("missing", status.missing.into())
        .set("surplus", status.surplus.into())
        .set("outOfSync", status.out_of_sync.into())
        .nonempty("message", &status.message)
        .finish()
}

/// What is wanted of an operation.
pub(super) fn operation_spec(spec: &NodeOperationSpec) -> Value {
    let fields = Fields::new()
        .optional("pool", spec.pool.as_ref().map(|name| name.as_str()))
        .list("nodes", spec.nodes.iter().map(|name| Value::from(name.as_str())))
        .text("action", spec.action.as_str());
    let mut fields = gpu(fields, spec.gpu.get());
    if spec.force {
        fields = fields.set("force", true.into());
    }
    fields
        .number("maxBatch", spec.max_batch.map(u64::from))
        .set("timeoutPerNodeSeconds", (spec.timeout_per_node_ms / 1000).into())
        .finish()
}

/// How far an operation is.
pub(super) fn operation_status(status: &NodeOperationStatus) -> Value {
    let in_work = status
        .in_work
        .iter()
        .map(|one| Fields::new().text("node", one.node.as_str()).time("since", one.since_ms).finish());
    let failed = status
        .failed
        .iter()
        .map(|one| Fields::new().text("node", one.node.as_str()).text("reason", &one.reason).finish());
    Fields::new()
        .text("phase", status.phase.as_str())
        .nonempty("message", &status.message)
        .time("startedAt", status.started_at_ms)
        .time("finishedAt", status.finished_at_ms)
        .set("total", status.total.into())
        .set("succeeded", status.succeeded.into())
        .set("gone", status.gone.into())
        .set("batch", status.batch.into())
        .list("inWork", in_work)
        .list("failed", failed)
        .list("waiting", status.waiting.iter().map(|name| Value::from(name.as_str())))
        .finish()
}

fn gpu(fields: Fields, gpu: Option<&NodeGpu>) -> Fields {
    match gpu {
        Some(gpu) => fields.text("gpuMode", &gpu.mode).text("partitionStrategy", gpu.strategy.as_str()),
        None => fields,
    }
}
