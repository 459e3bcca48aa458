//! NodePools and operations on nodes: what may be made and deleted, and what the reconcilers' proposals come to.

use std::sync::Arc;

use bulkhead_types::{
    Command, EventKind, Kind, MANAGER_LIFE, NODE_OPERATIONS_MAX, NODE_POOL_DEFAULT, NODE_POOLS_MAX, Name,
    NodeOperation, NodeOperationControl, NodeOperationPhase, NodeOperationStatus, NodePool, NodePoolSpec,
    NodePoolStatus, Object, ObjectId, ObjectMeta, ObjectStatus, Rejection, RejectionCode,
};

use super::managers::manage;
use super::{Emit, not_allowed, not_found};
use crate::State;
use crate::node_operation::{Change, Step, step};
use crate::node_pool;

/// Most nodes that a refusal names.
const NAMED_MAX: usize = 3;

/// The commands about pools and operations.
pub(super) fn decide(state: &State, command: &Command, emit: &mut Emit<'_>) -> Result<(), Rejection> {
    match command {
        Command::SyncNodePool { node } => sync(state, *node, emit),
        Command::AdvanceNodeOperation { operation } => advance(state, *operation, emit),
        Command::ControlNodeOperation { operation, control } => control_one(state, operation, *control, emit),
        other => unreachable!("{other:?} is decided elsewhere"),
    }
}

/// Refuses pools and operations beyond what a cluster keeps, and operations on nodes that are not there.
pub(super) fn check(state: &State, object: &Object) -> Result<(), Rejection> {
    let is_new = state.find_object(&object.object_ref()).is_none();
    let full = |there_are: usize, most: usize, remedy: &str| {
        if !is_new || there_are < most {
            return Ok(());
        }
        Err(not_allowed(
            object.object_ref(),
            format!("there are {there_are} already: at most {most} are kept"),
        )
        .with_remedy(remedy))
    };
    match object {
        Object::NodePool(_) => full(state.node_pools.len(), NODE_POOLS_MAX, "delete a pool that is empty"),
        Object::NodeOperation(operation) => {
            full(state.node_operations.len(), NODE_OPERATIONS_MAX, "delete operations that ended")?;
            if is_new { check_targets(state, operation) } else { Ok(()) }
        }
        _ => Ok(()),
    }
}

fn check_targets(state: &State, operation: &NodeOperation) -> Result<(), Rejection> {
    let missing = operation.spec.nodes.iter().find(|name| state.find(Kind::Node, None, name).is_none());
    if let Some(name) = missing {
        return Err(not_found(format!("Node {name}")).with_remedy("name nodes that there are"));
    }
    match &operation.spec.pool {
        Some(pool)
            if pool.as_str() != NODE_POOL_DEFAULT && node_pool::find(state, pool.as_str()).is_none() =>
        {
            Err(not_found(format!("NodePool {pool}")).with_remedy("name a pool that there is, or nodes"))
        }
        _ => Ok(()),
    }
}

/// With the first pool comes the default one: every node that names none is of it.
pub(super) fn create_default(state: &State, object: &Object, emit: &mut Emit<'_>) {
    let Object::NodePool(pool) = object else { return };
    let is_there = node_pool::find(state, NODE_POOL_DEFAULT).is_some();
    if is_there || pool.meta.name.as_str() == NODE_POOL_DEFAULT {
        return;
    }
    let meta = ObjectMeta::new(None, Name::new(NODE_POOL_DEFAULT).expect("a name"));
    let (spec, status) = (NodePoolSpec::default(), NodePoolStatus::default());
    emit.create(Object::NodePool(Arc::new(NodePool { meta, spec, status })));
}

/// Refuses to delete the default pool, one with nodes, and an operation that goes on.
pub(super) fn check_delete(state: &State, object: &Object) -> Result<(), Rejection> {
    match object {
        Object::NodePool(pool) if pool.meta.name.as_str() == NODE_POOL_DEFAULT => {
            Err(not_allowed(object.object_ref(), "is always there and cannot be deleted"))
        }
        Object::NodePool(pool) => {
            let nodes: Vec<_> = node_pool::members(state, pool.meta.name.as_str()).collect();
            if nodes.is_empty() {
                return Ok(());
            }
            let named = nodes.iter().take(NAMED_MAX).map(|node| node.meta.name.as_str());
            let mut named: Vec<String> = named.map(str::to_owned).collect();
            if nodes.len() > NAMED_MAX {
                named.push(format!("{} more", nodes.len() - NAMED_MAX));
            }
            let reason = format!("has {} nodes: {}", nodes.len(), named.join(", "));
            Err(not_allowed(object.object_ref(), reason)
                .with_remedy("move them to another pool with `bulkhead node set-pool`, or delete the nodes"))
        }
        Object::NodeOperation(operation)
            if matches!(operation.status.phase, NodeOperationPhase::Running | NodeOperationPhase::Paused) =>
        {
            let reason = format!("is {}", operation.status.phase.as_str());
            Err(not_allowed(object.object_ref(), reason)
                .with_remedy("pause it, then cancel it, then delete it"))
        }
        _ => Ok(()),
    }
}

fn sync(state: &State, id: ObjectId, emit: &mut Emit<'_>) -> Result<(), Rejection> {
    let node = state.nodes.get(id).ok_or_else(|| not_found(format!("Node {id}")))?;
    let Some(synced) = node_pool::synced(state, node) else {
        let reason = "has from its pool what that gives";
        return Err(Rejection::new(RejectionCode::Conflict, format!("Node {}", node.meta.name), reason));
    };
    let node_pool::Synced { labels, spec, record } = synced;
    emit.push(EventKind::NodePoolSynced { id, labels, spec, record });
    Ok(())
}

fn advance(state: &State, id: ObjectId, emit: &mut Emit<'_>) -> Result<(), Rejection> {
    let operation = state.node_operations.get(id);
    let operation = operation.ok_or_else(|| not_found(format!("NodeOperation {id}")))?;
    let Some(Step { status, changes }) = step(state, operation, emit.at_ms()) else {
        let field = format!("NodeOperation {}", operation.meta.name);
        return Err(Rejection::new(RejectionCode::Conflict, field, "nothing is to be done now"));
    };
    for change in changes {
        match change {
            Change::Spec(id, spec) => {
                let Some(node) = state.nodes.get(id) else { continue };
                let path = if spec.gpu == node.spec.gpu { "unschedulable" } else { "gpuMode" };
                emit.push(EventKind::NodeSpecChanged { id, spec });
                manage(state, Kind::Node, &node.meta, MANAGER_LIFE, &["spec", path], emit);
            }
            Change::Evict(id) => {
                let Some(pod) = state.pods.get(id) else { continue };
                super::pods::delete_one(state, pod, None, false, "Evicted", emit);
            }
        }
    }
    if status != operation.status {
        emit.push(EventKind::StatusChanged { id, status: ObjectStatus::NodeOperation(status) });
    }
    Ok(())
}

fn control_one(
    state: &State,
    name: &Name,
    control: NodeOperationControl,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    let found = state.find(Kind::NodeOperation, None, name).and_then(|id| state.node_operations.get(id));
    let found = found.ok_or_else(|| not_found(format!("NodeOperation {name}")))?;
    let status = controlled(found, control, emit.at_ms())?;
    if status != found.status {
        let (id, status) = (found.meta.id, ObjectStatus::NodeOperation(status));
        emit.push(EventKind::StatusChanged { id, status });
    }
    Ok(())
}

/// The status after an operator's word.
fn controlled(
    operation: &NodeOperation,
    control: NodeOperationControl,
    now_ms: u64,
) -> Result<NodeOperationStatus, Rejection> {
    use NodeOperationPhase::{Cancelled, Paused, Pending, Running};
    let mut status = operation.status.clone();
    let name = &operation.meta.name;
    let refused = |verb: &str| {
        let reason = format!("is {} and cannot be {verb}", operation.status.phase.as_str());
        Err(not_allowed(format!("NodeOperation {name}"), reason))
    };
    match (control, status.phase) {
        (NodeOperationControl::Pause, Pending | Running) => {
            (status.phase, status.message) = (Paused, "paused by an operator".to_owned());
        }
        (NodeOperationControl::Pause, Paused) => {}
        (NodeOperationControl::Pause, _) => return refused("paused"),
        (NodeOperationControl::Resume, Paused) => {
            status.phase = if status.started_at_ms == 0 { Pending } else { Running };
            status.message = String::new();
            status.batch = 0;
            // What could not be finished is tried again, before the others.
            let again = std::mem::take(&mut status.failed).into_iter().map(|failure| failure.node);
            status.waiting = again.chain(std::mem::take(&mut status.waiting)).collect();
        }
        (NodeOperationControl::Resume, _) => return refused("resumed: only what is paused can"),
        (NodeOperationControl::Cancel, Paused) => {
            (status.phase, status.finished_at_ms) = (Cancelled, now_ms);
        }
        (NodeOperationControl::Cancel, phase) => {
            let refusal = refused("cancelled: only what is paused can");
            return if phase.is_terminal() {
                refusal
            } else {
                refusal.map_err(|refusal| {
                    refusal.with_remedy(format!("pause it first: `bulkhead node-operation pause {name}`"))
                })
            };
        }
    }
    Ok(status)
}
