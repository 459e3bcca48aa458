//! A copy of the State that goes its way until nothing more happens.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bulkhead_types::{
    Command, Device, DeviceHealth, DeviceReport, ITEMS_MAX, Kind, LABEL_HOSTNAME, Name, Node, NodeFacts,
    NodePhase, NodeSpec, Object, ObjectId, Pod, PodPhase, PodReport, PodStatus, Rejection, RejectionCode,
    Stamped, Taint,
};
use uuid::Uuid;

use super::{AddedNodes, HORIZON_MS, NODES_ADDED_MAX, NodeShape, facts_of};
use crate::reconcile::{Context, ReconcileConfig, Reconcilers, SoftState};
use crate::{Machine, State};

/// Runs of the reconcilers, at most.
const RUNS_MAX: u32 = 100_000;
/// Who drains.
const ACTOR: &str = "system:what-if";

/// See the module.
pub(super) struct Trial {
    machine: Machine,
    reconcilers: Reconcilers,
    soft: SoftState,
    now_ms: u64,
    end_ms: u64,
    /// Pods of which agents may have something to say.
    stirred: BTreeSet<ObjectId>,
    /// Pods that are still to be evicted, and why they were not.
    leaving: BTreeMap<ObjectId, String>,
    /// Nodes that are drained.
    drained: BTreeSet<ObjectId>,
}

/// What added nodes are like.
struct NodeModel {
    facts: NodeFacts,
    taints: Vec<Taint>,
    devices: Vec<Device>,
}

fn refused(code: RejectionCode, field: impl Into<String>, reason: impl Into<String>) -> Rejection {
    Rejection::new(code, field, reason)
}

impl Trial {
    pub(super) fn new(state: State, now_ms: u64) -> Self {
        let now_ms = now_ms.max(state.now_ms());
        let mut reconcilers = Reconcilers::on_trial(ReconcileConfig::default());
        reconcilers.reset(&state);
        let is_on_the_way = |pod: &&Arc<Pod>| {
            pod.meta.is_deleting() || (pod.node.is_some() && pod.status.phase == PodPhase::Pending)
        };
        let stirred = state.pods().iter().filter(is_on_the_way).map(|pod| pod.meta.id).collect();
        Self {
            machine: Machine::new(state),
            reconcilers,
            soft: SoftState::new(now_ms, 0),
            now_ms,
            end_ms: now_ms.saturating_add(HORIZON_MS),
            stirred,
            leaving: BTreeMap::new(),
            drained: BTreeSet::new(),
        }
    }

    pub(super) fn state(&self) -> &State {
        self.machine.state()
    }

    pub(super) fn drained(&self) -> &BTreeSet<ObjectId> {
        &self.drained
    }

    /// Why a pod was not evicted.
    pub(super) fn kept(&self, pod: ObjectId) -> Option<&str> {
        self.leaving.get(&pod).map(String::as_str)
    }

    fn own(&self, actor: &str, command: Command) -> Stamped {
        Stamped {
            request_id: Uuid::nil(),
            actor: actor.into(),
            proposed_at_ms: self.now_ms,
            trace_context: None,
            preconditions: Vec::new(),
            commands: vec![command],
        }
    }

    /// Applies a submission.
    pub(super) fn submit(&mut self, stamped: &Stamped) -> Result<(), Rejection> {
        let stamped = Stamped { proposed_at_ms: self.now_ms, ..stamped.clone() };
        let applied = self.machine.apply_stamped(&stamped);
        for change in &applied.changes {
            self.reconcilers.observe(change);
            if let Object::Pod(pod) = &change.object {
                self.stirred.insert(pod.meta.id);
            }
        }
        applied.transaction.outcome.map(|_| ())
    }

    fn command(&mut self, command: Command) -> Result<(), Rejection> {
        self.submit(&self.own(ACTOR, command))
    }

    fn node(&self, name: &Name) -> Result<&Arc<Node>, Rejection> {
        let found = self.state().find(Kind::Node, None, name).and_then(|id| self.state().nodes().get(id));
        found.ok_or_else(|| refused(RejectionCode::NotFound, format!("Node {name}"), "does not exist"))
    }

    pub(super) fn add(&mut self, added: &[AddedNodes]) -> Result<(), Rejection> {
        let total: u64 = added.iter().map(|nodes| u64::from(nodes.count)).sum();
        if total > u64::from(NODES_ADDED_MAX) {
            let reason = format!("adds {total} nodes: at most {NODES_ADDED_MAX} can be");
            return Err(refused(RejectionCode::Invalid, "add_nodes", reason));
        }
        let mut number = 0;
        for nodes in added {
            let model = self.model(&nodes.shape)?;
            for _ in 0..nodes.count {
                self.add_one(&mut number, &model)?;
            }
        }
        Ok(())
    }

    fn model(&self, shape: &NodeShape) -> Result<NodeModel, Rejection> {
        match shape {
            NodeShape::Like(name) => {
                let node = self.node(name)?;
                let mut facts = node.status.facts.clone();
                // Labels of an operator are those of the next one of its kind as well.
                let labels = node.meta.labels.iter().filter(|(key, _)| key.as_str() != LABEL_HOSTNAME);
                facts.labels = labels.map(|(key, value)| (key.clone(), value.clone())).collect();
                let slice = self.state().resource_slice_of(node.meta.id);
                let devices = slice.into_iter().flat_map(|slice| slice.devices.iter());
                let whole = devices.filter(|device| !matches!(device.health, DeviceHealth::Lost { .. }));
                let devices =
                    whole.map(|device| Device { health: DeviceHealth::Healthy, ..device.clone() }).collect();
                Ok(NodeModel { facts, taints: node.spec.taints.clone(), devices })
            }
            NodeShape::Of { allocatable, pods_max, labels, taints } => {
                let facts = facts_of(*allocatable, *pods_max, labels);
                Ok(NodeModel { facts, taints: taints.clone(), devices: Vec::new() })
            }
        }
    }

    fn add_one(&mut self, number: &mut u32, model: &NodeModel) -> Result<(), Rejection> {
        let name = loop {
            *number += 1;
            let name = Name::new(format!("what-if-{number}")).expect("a short word and a number are a name");
            if self.state().find(Kind::Node, None, &name).is_none() {
                break name;
            }
        };
        self.command(Command::RegisterNode { name: name.clone(), facts: model.facts.clone() })?;
        let node = Arc::clone(self.node(&name)?);
        if !model.devices.is_empty() {
            let (id, incarnation, devices) = (node.meta.id, node.status.incarnation, model.devices.clone());
            let report = DeviceReport { sequence: 1, snapshot: true, devices, ..DeviceReport::default() };
            self.command(Command::ReportDevices { node: id, incarnation, report })?;
        }
        if model.taints.is_empty() {
            return Ok(());
        }
        let spec = NodeSpec { taints: model.taints.clone(), ..NodeSpec::default() };
        let node = Node { spec, ..Node::clone(&node) };
        self.command(Command::Apply(Object::Node(Arc::new(node))))
    }

    pub(super) fn drain(&mut self, names: &[Name]) -> Result<(), Rejection> {
        for name in names {
            let id = self.node(name)?.meta.id;
            self.command(Command::SetUnschedulable { node: name.clone(), unschedulable: true })?;
            self.drained.insert(id);
            let state = self.machine.state();
            let leave =
                state.pods_on(id).filter(|pod| is_evicted(pod)).map(|pod| (pod.meta.id, String::new()));
            self.leaving.extend(leave);
        }
        Ok(())
    }

    /// Until nothing more happens; whether it came to that.
    pub(super) fn run(&mut self, may_go_on: &mut dyn FnMut() -> bool) -> bool {
        for _ in 0..RUNS_MAX {
            if !may_go_on() {
                return false;
            }
            let proposed = self.reconcile();
            let next_ms = self.reconcilers.next_wake_ms();
            if proposed > 0 || next_ms.is_some_and(|ms| ms <= self.now_ms) {
                continue;
            }
            // Who is evicted goes before the next one is asked for, as it would on a slow day.
            if self.agents() || self.evict() {
                continue;
            }
            match next_ms.filter(|ms| *ms <= self.end_ms) {
                Some(ms) => self.now_ms = ms,
                None => return true,
            }
        }
        false
    }

    fn reconcile(&mut self) -> usize {
        let state = self.machine.state().clone();
        let cx = Context { state: &state, now_ms: self.now_ms, up_ms: 0, soft: &self.soft };
        let proposals = self.reconcilers.run(&cx);
        drop(state);
        for proposal in &proposals {
            let stamped = self.own(&format!("system:{}", proposal.reconciler), proposal.command.clone());
            // What is refused is looked at again, as on a leader.
            let _ = self.submit(&stamped);
        }
        proposals.iter().for_each(|proposal| self.reconcilers.settled(proposal.reconciler));
        proposals.len()
    }

    /// Agents start what is bound and end what is deleted. Returns whether any had something to say.
    fn agents(&mut self) -> bool {
        let mut reports = BTreeMap::<ObjectId, Vec<PodReport>>::new();
        let state = self.machine.state();
        for id in std::mem::take(&mut self.stirred) {
            let Some((node, report)) = state.pods().get(id).and_then(|pod| report_of(pod)) else { continue };
            reports.entry(node).or_default().push(report);
        }
        let mut any = false;
        for (node, reports) in reports {
            let found = self.machine.state().nodes().get(node);
            // Of others nobody hears.
            let Some(found) = found.filter(|node| node.status.phase == NodePhase::Ready) else { continue };
            let incarnation = found.status.incarnation;
            for part in reports.chunks(ITEMS_MAX) {
                let command = Command::ReportPods { node, incarnation, reports: part.to_vec() };
                any |= self.command(command).is_ok();
            }
        }
        any
    }

    /// Asks for the evictions that are left. Returns whether there was one.
    fn evict(&mut self) -> bool {
        let mut any = false;
        for id in self.leaving.keys().copied().collect::<Vec<_>>() {
            let pod = self.state().pods().get(id).filter(|pod| is_evicted(pod) && !pod.meta.is_deleting());
            let Some(pod) = pod.map(|pod| Object::Pod(pod.clone()).object_ref()) else {
                self.leaving.remove(&id);
                continue;
            };
            match self.command(Command::Evict { pod, grace_ms: None, autoscaler: None }) {
                Ok(()) => {
                    self.leaving.remove(&id);
                    any = true;
                }
                Err(rejection) => {
                    self.leaving.insert(id, rejection.reason);
                }
            }
        }
        any
    }
}

/// Whether draining its node evicts a pod: somebody starts it elsewhere.
fn is_evicted(pod: &Pod) -> bool {
    let owner = pod.meta.owner.map(|owner| owner.kind);
    !pod.status.phase.is_terminal() && owner.is_some_and(|kind| kind != Kind::DaemonSet)
}

/// What the agent of a pod's node says of it next.
fn report_of(pod: &Pod) -> Option<(ObjectId, PodReport)> {
    let node = pod.node?;
    let gone = pod.meta.is_deleting();
    if !gone && pod.status.phase != PodPhase::Pending {
        return None;
    }
    let status = PodStatus { phase: PodPhase::Running, ready: true, ..PodStatus::default() };
    let sequence = pod.status.report_sequence.saturating_add(1);
    Some((node, PodReport { pod: pod.meta.id, sequence, status, gone }))
}
