//! Rules for NodePools and NodeOperations.

use std::collections::BTreeSet;

use super::{Path, Report, device, labels};
use crate::{
    DESIRED_NODES_MAX, LABEL_HOSTNAME, LABEL_NODE_POOL, NODE_POOL_ENTRIES_MAX, NODE_TIMEOUT_MS_MAX,
    NODES_PER_OPERATION_MAX, NodeAction, NodeOperationSpec, NodePoolSpec, check_label_key, check_label_value,
};

/// Checks what is wanted of a pool.
pub(super) fn pool(spec: &NodePoolSpec, path: &Path<'_>, report: &mut Report) {
    let of_labels = path.field("labels");
    report.at_most(&of_labels, "labels", spec.labels.len(), NODE_POOL_ENTRIES_MAX);
    labels(&spec.labels, &of_labels, report);
    for key in [LABEL_HOSTNAME, LABEL_NODE_POOL].into_iter().filter(|key| spec.labels.contains_key(*key)) {
        report.push(&of_labels.key(key), "is each node's own: a pool cannot give it");
    }
    let (of_taints, mut seen) = (path.field("taints"), BTreeSet::new());
    report.at_most(&of_taints, "taints", spec.taints.len(), NODE_POOL_ENTRIES_MAX);
    for (index, taint) in spec.taints.iter().enumerate() {
        let path = of_taints.index(index);
        report.check(&path.field("key"), check_label_key(&taint.key));
        report.check(&path.field("value"), check_label_value(&taint.value));
        if !seen.insert((&taint.key, taint.effect)) {
            report.push(&path, format!("repeats key {:?} with the same effect", taint.key));
        }
    }
    if let Some(gpu) = spec.gpu.get() {
        device::node_gpu(gpu, path, report);
    }
    if spec.desired_nodes.is_some_and(|desired| desired > DESIRED_NODES_MAX) {
        report.push(&path.field("desiredNodes"), format!("must be at most {DESIRED_NODES_MAX}"));
    }
}

/// Checks what is wanted of an operation.
pub(super) fn operation(spec: &NodeOperationSpec, path: &Path<'_>, report: &mut Report) {
    let nodes = path.field("nodes");
    match (&spec.pool, spec.nodes.is_empty()) {
        (None, true) => report.push(&path.field("pool"), "is required, unless nodes are named"),
        (Some(_), false) => report.push(&nodes, "must not be set beside pool"),
        _ => {}
    }
    report.at_most(&nodes, "nodes", spec.nodes.len(), NODES_PER_OPERATION_MAX);
    let mut seen = BTreeSet::new();
    for (index, name) in spec.nodes.iter().enumerate() {
        if !seen.insert(name) {
            report.push(&nodes.index(index), format!("repeats {name}"));
        }
    }
    match (spec.action, spec.gpu.get()) {
        (NodeAction::SetGpuMode, None) => {
            report.push(&path.field("gpuMode"), "is required by the action SetGpuMode");
        }
        (NodeAction::SetGpuMode, Some(gpu)) => device::node_gpu(gpu, path, report),
        (_, Some(_)) => report.push(&path.field("gpuMode"), "is for the action SetGpuMode only"),
        (_, None) => {}
    }
    if spec.force && spec.action != NodeAction::Drain {
        report.push(&path.field("force"), "is for the action Drain only");
    }
    if spec.max_batch == Some(0) {
        report.push(&path.field("maxBatch"), "must be at least 1");
    }
    if !(1000..=NODE_TIMEOUT_MS_MAX).contains(&spec.timeout_per_node_ms) {
        let reason = format!("must be from 1 to {}", NODE_TIMEOUT_MS_MAX / 1000);
        report.push(&path.field("timeoutPerNodeSeconds"), reason);
    }
}
