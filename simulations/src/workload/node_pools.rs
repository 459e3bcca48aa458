//! Pools of nodes, labels that operators set on single nodes, and operations on many nodes, among what clients ask for.

use std::sync::Arc;

use bulkhead_controlplane_core::State;
use bulkhead_types::{
    Command, DeschedulerPolicy, DeschedulerPolicySpec, DeschedulerPolicyStatus, DeschedulerStrategy,
    FEATURE_LEVEL_MAX, Kind, LABEL_NODE_POOL, Name, NodeAction, NodeOperation, NodeOperationControl,
    NodeOperationSpec, NodeOperationStatus, NodePool, NodePoolSpec, NodePoolStatus, Object, ObjectMeta,
    ObjectRef, POOLS_LEVEL, Rare, Taint, TaintEffect, UtilizationThresholds,
};
use smol_str::SmolStr;

use super::name;
use crate::rng::Rng;

/// The pools that are used; the first is always there.
const POOLS: [&str; 3] = ["default", "pool-1", "pool-2"];
/// Labels that pools and operators set alike.
const KEYS: [&str; 3] = ["tier", "zone", "disk"];
/// So many operations.
const OPERATIONS: u64 = 3;

/// The command that a cluster needs first, if it does.
pub(super) fn level(state: &State) -> Option<Command> {
    let is_low = state.feature_level() < POOLS_LEVEL;
    is_low.then_some(Command::RaiseFeatureLevel { level: FEATURE_LEVEL_MAX })
}

/// Something about pools, the labels of `node`, or operations.
pub(super) fn command(rng: &mut Rng, state: &State, node: &Name) -> Command {
    let pool = name(rng.pick::<&str>(&POOLS));
    let operation = name(&format!("operation-{}", rng.range(1, OPERATIONS)));
    match rng.range(0, 109) {
        100.. => Command::Apply(Object::DeschedulerPolicy(Arc::new(descheduler(rng)))),
        0..30 => Command::Apply(Object::NodePool(Arc::new(node_pool(rng, pool)))),
        30..34 => delete(Kind::NodePool, pool),
        34..64 => edit(rng, state, node)
            .unwrap_or_else(|| Command::Apply(Object::NodePool(Arc::new(node_pool(rng, pool))))),
        64..80 => Command::Create(Object::NodeOperation(Arc::new(new_operation(rng, operation, pool, node)))),
        80..95 => {
            let control = *rng.pick(&[
                NodeOperationControl::Pause,
                NodeOperationControl::Resume,
                NodeOperationControl::Resume,
                NodeOperationControl::Cancel,
            ]);
            Command::ControlNodeOperation { operation, control }
        }
        _ => delete(Kind::NodeOperation, operation),
    }
}

/// One policy, whose cool-down is longer than a run may take to come to rest.
fn descheduler(rng: &mut Rng) -> DeschedulerPolicy {
    let low = UtilizationThresholds { cpu: Some(rng.range(5, 40) as u32), ..Default::default() };
    let high = UtilizationThresholds { cpu: Some(rng.range(40, 80) as u32), ..Default::default() };
    let all = [
        DeschedulerStrategy::RemoveDuplicates,
        DeschedulerStrategy::RemovePodsViolatingNodeAffinity,
        DeschedulerStrategy::RemovePodsViolatingNodeTaints { include_prefer_no_schedule: rng.chance(300) },
        DeschedulerStrategy::RemovePodsViolatingTopologySpreadConstraint,
        DeschedulerStrategy::RemovePodsViolatingInterPodAntiAffinity,
        DeschedulerStrategy::LowNodeUtilization {
            thresholds: low,
            target_thresholds: high,
            measured: false,
            number_of_nodes: 0,
        },
        DeschedulerStrategy::PodLifeTime { max_pod_life_time_ms: rng.range(1, 60) * 1000 },
    ];
    let first = rng.range(0, all.len() as u64 - 1) as usize;
    let strategies = all.iter().cycle().skip(first).take(rng.range(1, 4) as usize).cloned().collect();
    let spec = DeschedulerPolicySpec {
        interval_ms: rng.range(10, 30) * 1000,
        cool_down_ms: rng.range(30, 120) * 60_000,
        dry_run: rng.chance(200),
        max_per_node: rng.chance(300).then(|| rng.range(1, 2) as u32),
        max_per_namespace: None,
        max_total: rng.chance(300).then(|| rng.range(0, 3) as u32),
        include: Vec::new(),
        exclude: Vec::new(),
        label_selector: Rare::NONE,
        priority_threshold: None,
        evict_local_storage_pods: rng.chance(500),
        strategies,
    };
    let meta = ObjectMeta::new(None, name("balance"));
    DeschedulerPolicy { meta, spec, status: DeschedulerPolicyStatus::default() }
}

fn delete(kind: Kind, name: Name) -> Command {
    Command::Delete { object: ObjectRef { kind, namespace: None, name }, grace_ms: None, force: false }
}

fn node_pool(rng: &mut Rng, name: Name) -> NodePool {
    let mut spec = NodePoolSpec {
        desired_nodes: rng.chance(500).then(|| rng.range(0, 5) as u32),
        unschedulable_on_join: rng.chance(100),
        sync_existing: rng.chance(800),
        ..NodePoolSpec::default()
    };
    for key in KEYS {
        if rng.chance(500) {
            spec.labels
                .insert(SmolStr::new_static(key), SmolStr::new(format!("of-pool-{}", rng.range(0, 2))));
        }
    }
    if rng.chance(300) {
        let effect = *rng.pick(&[TaintEffect::PreferNoSchedule, TaintEffect::NoSchedule]);
        spec.taints.push(Taint { key: "pool".into(), value: SmolStr::default(), effect });
    }
    NodePool { meta: ObjectMeta::new(None, name), spec, status: NodePoolStatus::default() }
}

/// An operator labels one node: its own way, or into another pool.
fn edit(rng: &mut Rng, state: &State, node: &Name) -> Option<Command> {
    let Some(Object::Node(mut node)) =
        state.find_object(&ObjectRef { kind: Kind::Node, namespace: None, name: node.clone() })
    else {
        return None;
    };
    let labels = &mut Arc::make_mut(&mut node).meta.labels;
    let key = SmolStr::new_static(rng.pick::<&str>(&KEYS));
    match rng.range(0, 2) {
        0 => _ = labels.insert(key, SmolStr::new(format!("of-operator-{}", rng.range(0, 2)))),
        1 => _ = labels.remove(&key),
        _ => _ = labels.insert(LABEL_NODE_POOL.into(), SmolStr::new_static(rng.pick::<&str>(&POOLS))),
    }
    Some(Command::Apply(Object::Node(node)))
}

fn new_operation(rng: &mut Rng, name: Name, pool: Name, node: &Name) -> NodeOperation {
    let by_pool = rng.chance(700);
    let action =
        *rng.pick(&[NodeAction::Cordon, NodeAction::Uncordon, NodeAction::Uncordon, NodeAction::Drain]);
    let spec = NodeOperationSpec {
        pool: by_pool.then_some(pool),
        nodes: if by_pool { Vec::new() } else { vec![node.clone()] },
        action,
        gpu: Rare::NONE,
        force: action == NodeAction::Drain && rng.chance(300),
        max_batch: rng.chance(300).then(|| rng.range(1, 3) as u32),
        timeout_per_node_ms: rng.range(1, 20) * 1000,
    };
    NodeOperation { meta: ObjectMeta::new(None, name), spec, status: NodeOperationStatus::default() }
}
