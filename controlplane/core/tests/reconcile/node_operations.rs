//! Operations on many nodes: batches, pauses, failures, another leader.

use std::sync::Arc;

use bulkhead_types::{
    Command, DisruptionBound, IntOrPercent, Kind, Name, NodeAction, NodeOperation, NodeOperationControl,
    NodeOperationSpec, NodeOperationStatus, NodePhase, Object, ObjectMeta, UnhealthyPodEvictionPolicy,
};

use crate::budgets::budget;
use crate::kit::{Cluster, deployment, name, pod, pod_spec, reference};

fn operation(text: &str, action: NodeAction, change: impl FnOnce(&mut NodeOperationSpec)) -> Object {
    let mut spec = NodeOperationSpec {
        pool: Some(name("default")),
        nodes: Vec::new(),
        action,
        gpu: Default::default(),
        force: false,
        max_batch: None,
        timeout_per_node_ms: 60_000,
    };
    change(&mut spec);
    let (meta, status) = (ObjectMeta::new(None, name(text)), NodeOperationStatus::default());
    Object::NodeOperation(Arc::new(NodeOperation { meta, spec, status }))
}

impl Cluster {
    fn operation(&self, text: &str) -> Arc<NodeOperation> {
        match self.state().find_object(&reference(Kind::NodeOperation, text)) {
            Some(Object::NodeOperation(operation)) => operation,
            _ => panic!("no NodeOperation {text}"),
        }
    }

    /// `Phase done/total in work, failed: message`.
    fn stands(&self, text: &str) -> String {
        let NodeOperationStatus { phase, succeeded, total, in_work, failed, message, .. } =
            &self.operation(text).status;
        let (in_work, failed) = (in_work.len(), failed.len());
        format!("{} {succeeded}/{total} {in_work} {failed} {message}", phase.as_str()).trim_end().to_owned()
    }

    fn control(&mut self, text: &str, control: NodeOperationControl) -> Result<(), String> {
        let command = Command::ControlNodeOperation { operation: name(text), control };
        self.submit(vec![command]).map(drop).map_err(|refusal| refusal.to_string())
    }

    /// The sizes of the batches up to now.
    fn batches(&self, text: &str) -> Vec<usize> {
        let id = self.operation(text).meta.id;
        let mut sizes = Vec::new();
        let mut before: Vec<Name> = Vec::new();
        for event in self.transactions.iter().flat_map(|transaction| &transaction.events) {
            let bulkhead_types::EventKind::StatusChanged { id: of, status } = &event.kind else { continue };
            let bulkhead_types::ObjectStatus::NodeOperation(status) = status else { continue };
            if *of != id {
                continue;
            }
            let now: Vec<Name> = status.in_work.iter().map(|work| work.node.clone()).collect();
            let fresh = now.iter().filter(|node| !before.contains(node)).count();
            sizes.extend((fresh > 0).then_some(fresh));
            before = now;
        }
        sizes
    }
}

/// The document's rolling upgrade of 50 nodes.
#[test]
fn batches_are_powers_of_two_up_to_a_tenth() {
    let mut cluster = Cluster::new();
    cluster.nodes(50);
    cluster.ok(Command::Create(operation("op", NodeAction::Cordon, |_| ())));
    cluster.settle();
    assert_eq!(cluster.stands("op"), "Succeeded 50/50 0 0");
    assert_eq!(cluster.batches("op"), [1, 2, 4, 5, 5, 5, 5, 5, 5, 5, 5, 3]);
    assert!(cluster.state().nodes().iter().all(|node| node.spec.unschedulable));
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn batches_have_a_bound_of_their_own() {
    let mut cluster = Cluster::new();
    cluster.nodes(30);
    cluster.ok(Command::Create(operation("op", NodeAction::Cordon, |spec| spec.max_batch = Some(2))));
    cluster.settle();
    assert_eq!(cluster.batches("op")[..4], [1, 2, 2, 2]);
}

#[test]
fn a_node_that_is_not_ready_pauses_the_operation() {
    let mut cluster = Cluster::new();
    cluster.nodes(30);
    let bad = cluster.state().find(Kind::Node, None, &name("node-13")).unwrap();
    let incarnation = cluster.state().nodes().get(bad).unwrap().status.incarnation;
    cluster.silent.push(bad);
    let phase = NodePhase::Unreachable;
    cluster.ok(Command::SetNodePhase { node: bad, incarnation, phase });
    cluster.ok(Command::Create(operation("op", NodeAction::Cordon, |_| ())));
    cluster.settle();
    // By name: node-0, node-1, node-10, ... node-12, node-13.
    assert_eq!(cluster.stands("op"), "Paused 5/30 0 1 Node node-13: is Unreachable");
    let left = cluster.operation("op").status.waiting.len();
    assert_eq!(left, 24, "the rest of its batch was not begun");
    // Another leader goes on where it stands.
    cluster.new_leader();
    cluster.settle();
    assert_eq!(cluster.stands("op"), "Paused 5/30 0 1 Node node-13: is Unreachable");
    cluster.ok(Command::SetNodePhase { node: bad, incarnation, phase: NodePhase::Ready });
    cluster.silent.clear();
    let before = cluster.batches("op").len();
    cluster.control("op", NodeOperationControl::Resume).unwrap();
    cluster.settle();
    assert_eq!(cluster.stands("op"), "Succeeded 30/30 0 0");
    assert_eq!(cluster.batches("op")[before..before + 4], [1, 2, 3, 3], "batches begin at one again");
}

#[test]
fn only_what_is_paused_can_be_cancelled() {
    use NodeOperationControl::{Cancel, Pause, Resume};
    let mut cluster = Cluster::new();
    cluster.nodes(30);
    cluster.ok(Command::Create(operation("op", NodeAction::Cordon, |_| ())));
    // The first batch is begun, and nothing more.
    assert_eq!(cluster.step(), 1);
    assert_eq!(cluster.stands("op"), "Running 0/30 1 0");
    let refusal = cluster.control("op", Cancel).unwrap_err();
    assert_eq!(
        refusal,
        "NodeOperation op: is Running and cannot be cancelled: only what is paused can; pause it first: `bulkhead \
         node-operation pause op`"
    );
    let delete =
        Command::Delete { object: reference(Kind::NodeOperation, "op"), grace_ms: None, force: false };
    assert!(cluster.submit(vec![delete.clone()]).is_err());
    cluster.control("op", Pause).unwrap();
    cluster.advance(10_000);
    // What was begun went on.
    assert_eq!(cluster.stands("op"), "Paused 1/30 0 0 paused by an operator");
    cluster.control("op", Cancel).unwrap();
    cluster.advance(10_000);
    assert!(cluster.stands("op").starts_with("Cancelled 1/30 0 0"));
    for control in [Pause, Resume, Cancel] {
        assert!(cluster.control("op", control).is_err());
    }
    let cordoned = cluster.state().nodes().iter().filter(|node| node.spec.unschedulable).count();
    assert_eq!(cordoned, 1);
    cluster.ok(delete);
}

#[test]
fn a_pause_after_the_last_node_changes_nothing() {
    let mut cluster = Cluster::new();
    cluster.nodes(1);
    cluster.ok(Command::Create(operation("op", NodeAction::Cordon, |_| ())));
    cluster.step();
    cluster.control("op", NodeOperationControl::Pause).unwrap();
    cluster.advance(3000);
    assert_eq!(cluster.stands("op"), "Succeeded 1/1 0 0");
}

#[test]
fn a_drain_leaves_no_pod_but_those_of_daemon_sets() {
    let mut cluster = Cluster::new();
    cluster.nodes(3);
    cluster.ok(Command::Create(deployment("web", 9, |_| ())));
    cluster.converge();
    let nodes = vec![name("node-0"), name("node-1")];
    cluster.ok(Command::Create(operation("op", NodeAction::Drain, |spec| {
        spec.pool = None;
        spec.nodes = nodes;
    })));
    for _ in 0..20 {
        cluster.converge();
        cluster.advance(3000);
    }
    assert_eq!(cluster.stands("op"), "Succeeded 2/2 0 0");
    let node = cluster.state().find(Kind::Node, None, &name("node-2"));
    assert_eq!(cluster.active_pods().len(), 9);
    assert!(cluster.active_pods().iter().all(|pod| pod.node == node));
    assert_eq!(cluster.batches("op"), [1, 1], "a tenth of two nodes is one node");
}

#[test]
fn a_drain_that_a_budget_blocks_pauses_with_its_name() {
    let mut cluster = Cluster::new();
    cluster.nodes(2);
    cluster.ok(Command::Create(deployment("web", 4, |_| ())));
    let bound = DisruptionBound::MinAvailable(IntOrPercent::Int(4));
    cluster.ok(Command::Create(budget("web", bound, UnhealthyPodEvictionPolicy::IfHealthyBudget)));
    cluster.converge();
    cluster.ok(Command::Create(operation("op", NodeAction::Drain, |_| ())));
    cluster.advance(57_000);
    assert_eq!(cluster.stands("op"), "Running 0/2 1 0");
    cluster.advance(6000);
    let stands = cluster.stands("op");
    let expected = "Paused 0/2 0 1 Node node-0: is not done after 60 s: PodDisruptionBudget web does not allow to evict Pod default/web-";
    assert!(stands.starts_with(expected), "{stands}");
    assert_eq!(cluster.active_pods().len(), 4, "nobody was evicted");
    // The operator changes the budget, and goes on.
    let bound = DisruptionBound::MinAvailable(IntOrPercent::Int(3));
    cluster.ok(Command::Apply(budget("web", bound, UnhealthyPodEvictionPolicy::IfHealthyBudget)));
    cluster.control("op", NodeOperationControl::Resume).unwrap();
    for _ in 0..10 {
        cluster.converge();
        cluster.advance(3000);
    }
    // The second node's pods have nowhere to go, which the budget does not allow either.
    assert!(cluster.stands("op").starts_with("Running 1/2 1 0"), "{}", cluster.stands("op"));
}

#[test]
fn a_pod_of_nobody_stops_a_drain_without_force() {
    let mut cluster = Cluster::new();
    cluster.nodes(1);
    cluster.ok(Command::Create(pod("alone", pod_spec("web:1", 100, 64 << 20))));
    cluster.converge();
    cluster.ok(Command::Create(operation("op", NodeAction::Drain, |_| ())));
    cluster.settle();
    assert_eq!(
        cluster.stands("op"),
        "Paused 0/1 0 1 Node node-0: nobody would start Pod default/alone elsewhere: end it, or say force"
    );
    cluster.control("op", NodeOperationControl::Cancel).unwrap();
    cluster.ok(Command::Create(operation("forced", NodeAction::Drain, |spec| spec.force = true)));
    cluster.converge();
    cluster.advance(3000);
    assert_eq!(cluster.stands("forced"), "Succeeded 1/1 0 0");
}

#[test]
fn operations_on_the_same_nodes_wait_for_each_other() {
    let mut cluster = Cluster::new();
    cluster.nodes(20);
    cluster.ok(Command::Create(operation("first", NodeAction::Cordon, |_| ())));
    cluster.step();
    cluster.control("first", NodeOperationControl::Pause).unwrap();
    cluster.ok(Command::Create(operation("second", NodeAction::Uncordon, |_| ())));
    cluster.settle();
    assert_eq!(
        cluster.stands("second"),
        "Pending 0/0 0 0 waits for NodeOperation first, which is for some of its nodes"
    );
    cluster.control("first", NodeOperationControl::Cancel).unwrap();
    cluster.advance(3000);
    assert_eq!(cluster.stands("second"), "Succeeded 20/20 0 0");
}

#[test]
fn what_an_operation_may_be_is_checked() {
    let mut cluster = Cluster::new();
    cluster.nodes(1);
    let mut check = |change: &dyn Fn(&mut NodeOperationSpec), expected: &str| {
        let object = operation("op", NodeAction::Cordon, |spec| change(spec));
        let refusal = cluster.submit(vec![Command::Create(object)]).expect_err("a refusal").to_string();
        assert!(refusal.starts_with(expected), "{refusal}");
    };
    check(&|spec| spec.pool = None, "NodeOperation op: spec.pool: is required, unless nodes are named");
    check(
        &|spec| spec.nodes = vec![name("node-0")],
        "NodeOperation op: spec.nodes: must not be set beside pool",
    );
    check(&|spec| (spec.pool, spec.nodes) = (None, vec![name("x")]), "Node x: does not exist");
    check(&|spec| spec.pool = Some(name("x")), "NodePool x: does not exist");
    check(
        &|spec| spec.action = NodeAction::SetGpuMode,
        "NodeOperation op: spec.gpuMode: is required by the action",
    );
    check(&|spec| spec.force = true, "NodeOperation op: spec.force: is for the action Drain only");
    check(
        &|spec| spec.timeout_per_node_ms = 0,
        "NodeOperation op: spec.timeoutPerNodeSeconds: must be from 1 to",
    );
}
