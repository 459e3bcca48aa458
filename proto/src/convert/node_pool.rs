//! NodePools and NodeOperations.

use bulkhead_types::{
    NODE_POOL_ENTRIES_MAX, NODE_TIMEOUT_MS_DEFAULT, NODES_PER_OPERATION_MAX, NodeAction, NodeFailure,
    NodeInWork, NodeOperation, NodeOperationControl, NodeOperationPhase, NodeOperationSpec,
    NodeOperationStatus, NodePool, NodePoolRecord, NodePoolSpec, NodePoolStatus,
};

use super::{wire_enum, wire_field, wire_field_or_default, wire_struct};
use crate::v1;

wire_enum! {
    NodeAction { Cordon, Uncordon, Drain, SetGpuMode }
    NodeOperationPhase { Pending, Running, Paused, Succeeded, Cancelled }
    NodeOperationControl { Pause, Resume, Cancel }
}

wire_struct!(NodePool => v1::NodePool { meta, spec, status });
wire_struct!(NodePoolSpec => v1::NodePoolSpec {
    labels, taints (NODE_POOL_ENTRIES_MAX), runtime_class, gpu, desired_nodes, unschedulable_on_join,
    sync_existing,
});
wire_struct!(NodePoolStatus => v1::NodePoolStatus {
    observed_generation, nodes, ready, missing, surplus, out_of_sync, message,
});
wire_struct!(NodePoolRecord => v1::NodePoolRecord { pool, labels, taints (NODE_POOL_ENTRIES_MAX), gpu });
wire_struct!(NodeOperation => v1::NodeOperation { meta, spec, status });
wire_struct!(NodeOperationSpec => v1::NodeOperationSpec {
    pool, nodes (NODES_PER_OPERATION_MAX), action, gpu, force, max_batch, timeout_per_node_ms,
});
wire_struct!(NodeOperationStatus => v1::NodeOperationStatus {
    phase, message, started_at_ms, finished_at_ms, total, batch, waiting (NODES_PER_OPERATION_MAX),
    in_work (NODES_PER_OPERATION_MAX), failed (NODES_PER_OPERATION_MAX), succeeded, gone,
});
wire_struct!(NodeInWork => v1::NodeInWork { node, since_ms });
wire_struct!(NodeFailure => v1::NodeFailure { node, reason });

wire_field! {
    NodePool => v1::NodePool,
    NodePoolSpec => v1::NodePoolSpec,
    NodePoolRecord => v1::NodePoolRecord,
    NodeOperation => v1::NodeOperation,
    NodeOperationSpec => v1::NodeOperationSpec,
    NodeInWork => v1::NodeInWork,
    NodeFailure => v1::NodeFailure,
}
wire_field_or_default! {
    NodePoolStatus => v1::NodePoolStatus,
    NodeOperationStatus => v1::NodeOperationStatus,
}

/// Defaults of what clients submit.
pub(super) fn default_pool_spec(spec: &mut v1::NodePoolSpec) {
    super::defaults::default(&mut spec.runtime_class, v1::RuntimeClass::Rune);
    spec.sync_existing.get_or_insert(true);
    spec.gpu.iter_mut().for_each(super::defaults::node_gpu);
}

/// The same.
pub(super) fn default_operation_spec(spec: &mut v1::NodeOperationSpec) {
    spec.timeout_per_node_ms.get_or_insert(NODE_TIMEOUT_MS_DEFAULT);
    spec.gpu.iter_mut().for_each(super::defaults::node_gpu);
}
