//! What is a node's own is left to it by its pools, and operations keep to their batches.

use bulkhead_controlplane_core::State;
use bulkhead_types::{EventKind, Node, NodeOperation, Object, Transaction};

use super::{Verdict, Violation, ensure};

/// Checks what a transaction made of nodes and operations.
///
/// # Errors
/// With the label or taint that was no pool's and changed, or the operation that has too many nodes in work.
pub fn check(before: &State, after: &State, transaction: &Transaction) -> Verdict {
    for event in &transaction.events {
        match &event.kind {
            EventKind::NodePoolSynced { id, .. } => {
                let (Some(was), Some(is)) = (before.nodes().get(*id), after.nodes().get(*id)) else {
                    continue;
                };
                synced(was, is)?;
            }
            EventKind::StatusChanged { id, .. } => {
                after.node_operations().get(*id).map_or(Ok(()), |one| in_work(one))?;
            }
            EventKind::ObjectCreated(Object::NodeOperation(one)) => in_work(one)?,
            _ => {}
        }
    }
    Ok(())
}

/// What a node has from a pool may change; everything else stays.
fn synced(was: &Node, is: &Node) -> Verdict {
    let record = was.status.pool.get();
    for (key, value) in &was.meta.labels {
        let is_pools = record.is_some_and(|record| record.labels.get(key) == Some(value));
        ensure(is_pools || is.meta.labels.get(key) == Some(value), "node_pools", || {
            format!("label {key}={value} of {} was its own and changed", was.meta.name)
        })?;
    }
    for taint in &was.spec.taints {
        let is_pools = record.is_some_and(|record| record.taints.contains(taint));
        ensure(is_pools || is.spec.taints.contains(taint), "node_pools", || {
            format!("taint {taint:?} of {} was its own and changed", was.meta.name)
        })?;
    }
    ensure(was.spec.unschedulable == is.spec.unschedulable, "node_pools", || {
        format!("{} was cordoned or uncordoned by its pool", was.meta.name)
    })
}

fn in_work(operation: &NodeOperation) -> Verdict {
    let (found, most) = (operation.status.in_work.len(), operation.batch_max() as usize);
    if found <= most {
        return Ok(());
    }
    let text = format!("{} has {found} nodes in work, at most {most} may be", operation.meta.name);
    Err(Violation::new("node_pools", text))
}

#[cfg(test)]
mod tests {
    use bulkhead_types::{
        Name, NodeAction, NodeFacts, NodeInWork, NodeOperationSpec, NodeOperationStatus, NodePhase,
        NodePoolRecord, NodeSpec, NodeStatus, ObjectMeta, Rare, StringMap, Taint, TaintEffect,
    };

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).expect("a name")
    }

    fn node(label: &str, taint: &str) -> Node {
        let labels: StringMap =
            [("a".into(), label.into()), ("pool".into(), "1".into())].into_iter().collect();
        let mut meta = ObjectMeta::new(None, name("n"));
        meta.labels = labels;
        let taint = Taint { key: taint.into(), value: "".into(), effect: TaintEffect::NoSchedule };
        let record = NodePoolRecord {
            pool: name("p"),
            labels: [("pool".into(), "1".into())].into_iter().collect(),
            taints: vec![],
            gpu: Rare::NONE,
        };
        let status = NodeStatus {
            phase: NodePhase::Ready,
            phase_since_ms: 0,
            incarnation: 1,
            facts: NodeFacts::default(),
            pool: Rare::some(record),
            images: Rare::NONE,
            device_labels: Rare::NONE,
        };
        Node { meta, spec: NodeSpec { taints: vec![taint], ..NodeSpec::default() }, status }
    }

    #[test]
    fn what_was_an_operators_must_stay() {
        assert_eq!(synced(&node("1", "t"), &node("1", "t")), Ok(()));
        assert!(synced(&node("1", "t"), &node("2", "t")).is_err());
        assert!(synced(&node("1", "t"), &node("1", "u")).is_err());
        let mut without_the_pools = node("1", "t");
        without_the_pools.meta.labels.remove("pool");
        assert_eq!(synced(&node("1", "t"), &without_the_pools), Ok(()));
        let mut cordoned = node("1", "t");
        cordoned.spec.unschedulable = true;
        assert!(synced(&node("1", "t"), &cordoned).is_err());
    }

    #[test]
    fn too_many_nodes_in_work_are_seen() {
        let operation = |total, count: usize| {
            let in_work = (0..count).map(|n| NodeInWork { node: name(&format!("n-{n}")), since_ms: 1 });
            NodeOperation {
                meta: ObjectMeta::new(None, name("o")),
                spec: NodeOperationSpec {
                    pool: Some(name("p")),
                    nodes: vec![],
                    action: NodeAction::Drain,
                    gpu: Rare::NONE,
                    force: false,
                    max_batch: Some(3),
                    timeout_per_node_ms: 1000,
                },
                status: NodeOperationStatus { total, in_work: in_work.collect(), ..Default::default() },
            }
        };
        for (total, count, is_right) in
            [(9, 1, true), (9, 2, false), (20, 2, true), (90, 3, true), (90, 4, false)]
        {
            assert_eq!(in_work(&operation(total, count)).is_ok(), is_right, "{count} of {total}");
        }
    }
}
