//! The next step of an operation on nodes: what the reconciler proposes and `decide` does, from the State alone.
//!
//! ```text
//!  Pending ─► Running ─ batch of 1, 2, 4, … up to a tenth ─► Succeeded
//!               │ ▲  error, or an operator
//!               ▼ │  resume: failed nodes again, from a batch of 1
//!              Paused ─► Cancelled
//! ```
//!
//! Source: "Rolling upgrade of the sandbox runtime" of ACK. A node that is begun goes on while the operation is paused.

use std::collections::BTreeSet;
use std::sync::Arc;

use bulkhead_types::{
    Kind, Name, Node, NodeAction, NodeFailure, NodeInWork, NodeOperation, NodeOperationPhase,
    NodeOperationStatus, NodePhase, NodeSpec, Object, ObjectId, Pod,
};

use crate::State;
use crate::decide::check_gpu_mode;
use crate::disruption::Allowance;
use crate::node_pool::members;

/// Most pods that one step evicts.
const EVICTIONS_PER_STEP_MAX: usize = 1024;

/// Something that a step does beside its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A node has this spec.
    Spec(ObjectId, NodeSpec),
    /// A pod is evicted; its budgets allow it.
    Evict(ObjectId),
}

/// What happens next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) status: NodeOperationStatus,
    pub(crate) changes: Vec<Change>,
}

/// How a node stands.
enum Progress {
    Done,
    /// What it waits for, for people.
    Waits(String),
    Failed(String),
    Gone,
}

/// The next step; `None` when there is nothing to do now.
pub(crate) fn step(state: &State, operation: &NodeOperation, now_ms: u64) -> Option<Step> {
    let mut work = Work {
        state,
        operation,
        now_ms,
        status: operation.status.clone(),
        changes: Vec::new(),
        allowance: Allowance::default(),
        evictions: 0,
    };
    match operation.status.phase {
        NodeOperationPhase::Pending => work.begin(),
        // One that was paused before it began has nothing to go on with.
        NodeOperationPhase::Paused if operation.status.started_at_ms == 0 => return None,
        NodeOperationPhase::Running | NodeOperationPhase::Paused => work.go_on(),
        NodeOperationPhase::Succeeded | NodeOperationPhase::Cancelled => return None,
    }
    let is_news = work.status != operation.status || !work.changes.is_empty();
    is_news.then_some(Step { status: work.status, changes: work.changes })
}

struct Work<'a> {
    state: &'a State,
    operation: &'a NodeOperation,
    now_ms: u64,
    status: NodeOperationStatus,
    changes: Vec<Change>,
    allowance: Allowance,
    evictions: usize,
}

impl Work<'_> {
    fn begin(&mut self) {
        let spec = &self.operation.spec;
        let mut nodes: Vec<Name> = match &spec.pool {
            Some(pool) => members(self.state, pool.as_str()).map(|node| node.meta.name.clone()).collect(),
            None => spec.nodes.clone(),
        };
        nodes.sort_unstable();
        if let Some(other) = self.other_with(&nodes) {
            self.status.message = format!("waits for NodeOperation {other}, which is for some of its nodes");
            return;
        }
        self.status.message = String::new();
        self.status.phase = NodeOperationPhase::Running;
        self.status.started_at_ms = self.now_ms;
        self.status.total = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
        self.status.waiting = nodes;
        self.go_on();
    }

    /// An operation that is under way on one of these nodes: two would together be more than a tenth.
    fn other_with(&self, nodes: &[Name]) -> Option<&Name> {
        let wanted: BTreeSet<&Name> = nodes.iter().collect();
        let is_under_way = |one: &&Arc<NodeOperation>| {
            one.meta.id != self.operation.meta.id
                && one.status.started_at_ms > 0
                && !one.status.phase.is_terminal()
        };
        let mut others = self.state.node_operations.iter().filter(is_under_way);
        let other = others.find(|one| {
            let in_work = one.status.in_work.iter().map(|work| &work.node);
            let failed = one.status.failed.iter().map(|failure| &failure.node);
            one.status.waiting.iter().chain(in_work).chain(failed).any(|name| wanted.contains(name))
        })?;
        Some(&other.meta.name)
    }

    fn go_on(&mut self) {
        for one in std::mem::take(&mut self.status.in_work) {
            self.look_at(one);
        }
        if self.status.phase == NodeOperationPhase::Running && self.status.in_work.is_empty() {
            self.next_batch();
        }
        let is_over =
            self.status.in_work.is_empty() && self.status.waiting.is_empty() && self.status.failed.is_empty();
        if is_over {
            self.status.phase = NodeOperationPhase::Succeeded;
            self.status.message = String::new();
            self.status.finished_at_ms = self.now_ms;
        }
    }

    /// Begins the next batch, as far as nothing goes wrong.
    fn next_batch(&mut self) {
        if self.status.waiting.is_empty() {
            return;
        }
        let most = NodeOperation { status: self.status.clone(), ..self.operation.clone() }.batch_max();
        let size = self.status.batch.saturating_mul(2).clamp(1, most);
        self.status.batch = size;
        let mut begun = 0;
        while begun < size && self.status.phase == NodeOperationPhase::Running {
            if self.status.waiting.is_empty() {
                break;
            }
            let node = self.status.waiting.remove(0);
            begun += 1;
            self.look_at(NodeInWork { node, since_ms: self.now_ms });
        }
    }

    /// Does what there is to do for a node, and notes how it stands.
    fn look_at(&mut self, one: NodeInWork) {
        let is_late = self.now_ms >= one.since_ms.saturating_add(self.operation.spec.timeout_per_node_ms);
        let progress = match self.progress(&one.node) {
            Progress::Waits(what) if is_late => {
                let seconds = self.operation.spec.timeout_per_node_ms / 1000;
                Progress::Failed(format!("is not done after {seconds} s: {what}"))
            }
            progress => progress,
        };
        match progress {
            Progress::Done => self.status.succeeded += 1,
            Progress::Gone => self.status.gone += 1,
            Progress::Waits(_) => self.status.in_work.push(one),
            Progress::Failed(reason) => {
                if self.status.phase == NodeOperationPhase::Running {
                    self.status.message = format!("Node {}: {reason}", one.node);
                }
                self.status.phase = NodeOperationPhase::Paused;
                self.status.failed.push(NodeFailure { node: one.node, reason });
            }
        }
    }

    fn progress(&mut self, name: &Name) -> Progress {
        let state = self.state;
        let found = state.find(Kind::Node, None, name).and_then(|id| state.nodes.get(id));
        let Some(node) = found else { return Progress::Gone };
        if node.status.phase != NodePhase::Ready {
            return Progress::Failed(format!("is {:?}", node.status.phase));
        }
        match self.operation.spec.action {
            NodeAction::Cordon => self.set_unschedulable(node, true),
            NodeAction::Uncordon => self.set_unschedulable(node, false),
            NodeAction::SetGpuMode => self.set_gpu_mode(node),
            NodeAction::Drain => match self.set_unschedulable(node, true) {
                Progress::Done => self.drain(node),
                waits => waits,
            },
        }
    }

    fn set_unschedulable(&mut self, node: &Node, unschedulable: bool) -> Progress {
        if node.spec.unschedulable == unschedulable {
            return Progress::Done;
        }
        let spec = NodeSpec { unschedulable, ..node.spec.clone() };
        self.changes.push(Change::Spec(node.meta.id, spec));
        Progress::Waits("its spec changes".to_owned())
    }

    fn set_gpu_mode(&mut self, node: &Node) -> Progress {
        let Some(slice) = self.state.resource_slice_of(node.meta.id) else {
            return Progress::Failed("reports no devices".to_owned());
        };
        let wanted = &self.operation.spec.gpu;
        if node.spec.gpu != *wanted {
            if let Err(refusal) = check_gpu_mode(self.state, node, wanted.get()) {
                return Progress::Failed(refusal.reason);
            }
            let spec = NodeSpec { gpu: wanted.clone(), ..node.spec.clone() };
            self.changes.push(Change::Spec(node.meta.id, spec));
        } else if slice.gpu_mode() == wanted.get().map(|gpu| &gpu.mode) {
            return Progress::Done;
        }
        Progress::Waits(format!("its cards are in mode {}", slice.gpu_mode().map_or("none", |mode| mode)))
    }

    /// As `bulkhead drain` does: pods of DaemonSets stay, those that nobody would start elsewhere need force.
    fn drain(&mut self, node: &Node) -> Progress {
        let is_left = |pod: &&Arc<Pod>| {
            let of_daemon_set = pod.meta.owner.is_some_and(|owner| owner.kind == Kind::DaemonSet);
            !of_daemon_set && !pod.status.phase.is_terminal()
        };
        let pods: Vec<&Arc<Pod>> = self.state.pods_on(node.meta.id).filter(is_left).collect();
        let orphan = pods.iter().find(|pod| pod.meta.owner.is_none() && !pod.meta.is_deleting());
        if let Some(orphan) = orphan.filter(|_| !self.operation.spec.force) {
            let name = Object::Pod(Arc::clone(orphan)).object_ref();
            return Progress::Failed(format!("nobody would start {name} elsewhere: end it, or say force"));
        }
        let mut waits_for = None;
        for pod in &pods {
            let name = || Object::Pod(Arc::clone(pod)).object_ref();
            if pod.meta.is_deleting() {
                waits_for = waits_for.or_else(|| Some(format!("{} still ends", name())));
            } else if self.evictions >= EVICTIONS_PER_STEP_MAX {
                waits_for = waits_for.or_else(|| Some(format!("{} is still to be evicted", name())));
            } else {
                let allowed = self.allowance.take(self.state, pod);
                waits_for = Some(match allowed {
                    Ok(()) => {
                        self.evictions += 1;
                        self.changes.push(Change::Evict(pod.meta.id));
                        format!("{} still ends", name())
                    }
                    Err(budget) => {
                        format!("PodDisruptionBudget {} does not allow to evict {}", budget.meta.name, name())
                    }
                });
            }
        }
        waits_for.map_or(Progress::Done, Progress::Waits)
    }
}
