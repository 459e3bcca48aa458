//! NodePools, NodeOperations and DeschedulerPolicies in a row.

use bulkhead_types::{DeschedulerPolicy, Kind, NodeOperation, NodePool};

use crate::time::{age, short};

/// Columns of one of the three.
pub(super) fn header(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::NodePool => &["NAME", "NODES", "READY", "DESIRED", "MISSING", "SURPLUS", "AGE"],
        Kind::NodeOperation => &["NAME", "ACTION", "NODES", "PHASE", "DONE", "IN WORK", "FAILED", "AGE"],
        _ => &["NAME", "STRATEGIES", "INTERVAL", "DRY RUN", "LAST", "EVICTED", "AGE"],
    }
}

/// Cells of a pool: how many nodes it has, how many are Ready, how many it should have, and the difference.
pub(super) fn pool(pool: &NodePool) -> Vec<String> {
    let status = &pool.status;
    let desired = pool.spec.desired_nodes.map_or_else(|| "-".to_owned(), |desired| desired.to_string());
    vec![
        status.nodes.to_string(),
        status.ready.to_string(),
        desired,
        status.missing.to_string(),
        status.surplus.to_string(),
        age(pool.meta.created_at_ms),
    ]
}

/// Cells of an operation: what, on which nodes, where it is, how far.
pub(super) fn operation(operation: &NodeOperation) -> Vec<String> {
    let (spec, status) = (&operation.spec, &operation.status);
    vec![
        spec.action.as_str().to_owned(),
        spec.pool
            .as_ref()
            .map_or_else(|| format!("{} nodes", spec.nodes.len()), |pool| format!("pool {pool}")),
        status.phase.as_str().to_owned(),
        format!("{}/{}", status.succeeded, status.total),
        status.in_work.len().to_string(),
        status.failed.len().to_string(),
        age(operation.meta.created_at_ms),
    ]
}

/// Cells of a policy: how many strategies, how often, what the last run evicted or would have, and all runs.
pub(super) fn descheduler(policy: &DeschedulerPolicy) -> Vec<String> {
    let (spec, status) = (&policy.spec, &policy.status);
    vec![
        spec.strategies.len().to_string(),
        short(spec.interval_ms / 1000),
        spec.dry_run.to_string(),
        status.last.len().to_string(),
        status.evicted.to_string(),
        age(policy.meta.created_at_ms),
    ]
}
