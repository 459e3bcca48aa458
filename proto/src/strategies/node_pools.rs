//! NodePools and NodeOperations.

use super::*;

fn gpu() -> impl Strategy<Value = Rare<NodeGpu>> + Clone {
    of(node_gpu()).prop_map(Rare::from)
}

record!(/// Any wish for a pool.
node_pool_spec: NodePoolSpec {
    labels: labels(), taints: vec(taint(), 0..3), runtime_class: Just(RuntimeClass::Rune), gpu: gpu(),
    desired_nodes: of(any::<u32>()), unschedulable_on_join: any::<bool>(), sync_existing: any::<bool>(),
});
record!(/// Any status of a pool.
node_pool_status: NodePoolStatus {
    observed_generation: any::<u64>(), nodes: any::<u32>(), ready: any::<u32>(), missing: any::<u32>(),
    surplus: any::<u32>(), out_of_sync: any::<u32>(), message: text(),
});
record!(/// Any NodePool.
node_pool: NodePool { meta: meta(), spec: node_pool_spec(), status: node_pool_status() });
record!(/// Anything that a node has from its pool.
node_pool_record: NodePoolRecord { pool: name(), labels: labels(), taints: vec(taint(), 0..3), gpu: gpu() });

fn action() -> impl Strategy<Value = NodeAction> + Clone {
    select(vec![NodeAction::Cordon, NodeAction::Uncordon, NodeAction::Drain, NodeAction::SetGpuMode])
}

fn phase() -> impl Strategy<Value = NodeOperationPhase> + Clone {
    use NodeOperationPhase::{Cancelled, Paused, Pending, Running, Succeeded};
    select(vec![Pending, Running, Paused, Succeeded, Cancelled])
}

record!(/// Any wish for an operation.
node_operation_spec: NodeOperationSpec {
    pool: of(name()), nodes: vec(name(), 0..3), action: action(), gpu: gpu(), force: any::<bool>(),
    max_batch: of(any::<u32>()), timeout_per_node_ms: any::<u64>(),
});
record!(/// Any node in work.
node_in_work: NodeInWork { node: name(), since_ms: any::<u64>() });
record!(/// Any failure.
node_failure: NodeFailure { node: name(), reason: text() });
record!(/// Any status of an operation.
node_operation_status: NodeOperationStatus {
    phase: phase(), message: text(), started_at_ms: any::<u64>(), finished_at_ms: any::<u64>(),
    total: any::<u32>(), batch: any::<u32>(), waiting: vec(name(), 0..3), in_work: vec(node_in_work(), 0..3),
    failed: vec(node_failure(), 0..3), succeeded: any::<u32>(), gone: any::<u32>(),
});
record!(/// Any NodeOperation.
node_operation: NodeOperation {
    meta: meta(), spec: node_operation_spec(), status: node_operation_status(),
});

/// Any command about pools and operations.
pub(super) fn node_pool_command() -> impl Strategy<Value = Command> + Clone {
    use NodeOperationControl::{Cancel, Pause, Resume};
    prop_oneof![
        object_id().prop_map(|node| Command::SyncNodePool { node }),
        object_id().prop_map(|operation| Command::AdvanceNodeOperation { operation }),
        (name(), select(vec![Pause, Resume, Cancel]))
            .prop_map(|(operation, control)| Command::ControlNodeOperation { operation, control }),
    ]
}

/// Any event about pools.
pub(super) fn node_pool_event() -> impl Strategy<Value = EventKind> + Clone {
    (object_id(), labels(), node_spec(), of(node_pool_record())).prop_map(|(id, labels, spec, record)| {
        EventKind::NodePoolSynced { id, labels, spec, record: record.into() }
    })
}
