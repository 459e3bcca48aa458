//! Nodes: unreachable when their lease runs out, ready again when they are heard, fenced when nothing unique can live
//! there any more; pods that may not stay go.
//!
//! Source: "Nodes" and "Taints and Tolerations" (taint based evictions) in the Kubernetes documentation.

use std::collections::BTreeMap;

use bulkhead_types::{Command, Node, NodePhase, Object, ObjectId, Pod, Taint, TaintEffect};
use smol_str::SmolStr;

use super::eviction_rate::EvictionPace;
use super::fencing::fence_after_ms;
use super::{Queue, Reconciler, View, is_active, work_off};
use crate::decide::may_be_fenced;
use crate::{Change, ChangeType, State};

/// The taint that an unreachable node counts as having (Kubernetes' name).
const TAINT_UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Pods asked to end by one command, at most.
const PODS_PER_COMMAND: usize = 500;
/// How often the leader looks whether an unreachable node is heard again, in milliseconds.
const RECHECK_MS: u64 = 500;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct NodeLifecycle {
    queue: Queue,
    /// Nodes that are unreachable or have `NoExecute` taints.
    tainted: BTreeMap<ObjectId, Tainted>,
    pace: EvictionPace,
}

/// A node that pods may have to leave.
#[derive(Debug, Default)]
struct Tainted {
    /// Since when this leader knows of each `NoExecute` taint. A new leader counts anew: pods that may stay
    /// for a while stay longer, never shorter.
    taints: BTreeMap<Taint, Option<u64>>,
    /// When the next pod has to go; `None` when nothing is due before the node or its pods change.
    next_ms: Option<u64>,
}

impl Reconciler for NodeLifecycle {
    fn name(&self) -> &'static str {
        "node-lifecycle"
    }

    fn reset(&mut self, state: &State) {
        *self = Self::default();
        state.nodes().iter().for_each(|node| self.note_node(node));
    }

    fn observe(&mut self, change: &Change) {
        match &change.object {
            Object::Node(node) if change.change_type == ChangeType::Deleted => {
                self.queue.forget(node.meta.id);
                self.tainted.remove(&node.meta.id);
                self.pace.forget(node.meta.id);
            }
            Object::Node(node) => self.note_node(node),
            // A pod that was bound before its node was tainted, or became unreachable, but applied after.
            Object::Pod(pod) => {
                let former = change.former.as_ref().and_then(|former| match former {
                    Object::Pod(pod) => pod.node,
                    _ => None,
                });
                let node = pod.node.filter(|node| pod.node != former && self.tainted.contains_key(node));
                if let Some(tainted) = node.and_then(|node| self.tainted.get_mut(&node)) {
                    tainted.next_ms = Some(0);
                    node.into_iter().for_each(|node| self.queue.keep(node));
                }
            }
            _ => {}
        }
    }

    fn reconcile(&mut self, view: &View<'_>) -> Vec<Command> {
        self.queue.begin(view.now_ms);
        work_off(
            self,
            |this| &mut this.queue,
            |this, id, commands| {
                let Some(node) = view.state.nodes().get(id) else { return };
                this.check_lease(view, node, commands);
                this.evict(view, node, commands);
            },
        )
    }

    fn next_wake_ms(&self) -> Option<u64> {
        self.queue.next_wake_ms()
    }
}

impl NodeLifecycle {
    fn note_node(&mut self, node: &Node) {
        let id = node.meta.id;
        self.queue.mark(id);
        let known = self.tainted.remove(&id).unwrap_or_default().taints;
        let taints = node.spec.taints.iter().filter(|taint| taint.effect == TaintEffect::NoExecute);
        let taints: BTreeMap<_, _> =
            taints.map(|taint| (taint.clone(), known.get(taint).copied().flatten())).collect();
        if node.status.phase == NodePhase::Ready {
            self.pace.forget(id);
        }
        if !taints.is_empty() || node.status.phase != NodePhase::Ready {
            self.tainted.insert(id, Tainted { taints, next_ms: Some(0) });
        }
    }

    fn check_lease(&mut self, view: &View<'_>, node: &Node, commands: &mut Vec<Command>) {
        let id = node.meta.id;
        let heartbeat_ms = view.soft.last_heartbeat_ms(id);
        let mut set_phase = |phase| {
            let incarnation = node.status.incarnation;
            commands.push(Command::SetNodePhase { node: id, incarnation, phase });
        };
        match node.status.phase {
            NodePhase::Ready => {
                // A registration is a sign of life, and a new leader gives everybody one whole lease.
                let alive_ms = heartbeat_ms
                    .unwrap_or(0)
                    .max(view.soft.leader_since_ms())
                    .max(node.status.phase_since_ms);
                let lost_after_ms = alive_ms.saturating_add(view.config.lease_ms);
                if view.now_ms > lost_after_ms {
                    set_phase(NodePhase::Unreachable);
                } else {
                    self.queue.wake_at(id, lost_after_ms + 1);
                }
            }
            NodePhase::Unreachable => {
                let heard =
                    heartbeat_ms.is_some_and(|ms| view.now_ms <= ms.saturating_add(view.config.lease_ms));
                let fence_ms = fence_after_ms(view.config.lease_ms, view.config.fence_kill_ms);
                if heard {
                    set_phase(NodePhase::Ready);
                } else if may_be_fenced(view.state, node) && view.soft.silent_ms(id, view.up_ms) > fence_ms {
                    set_phase(NodePhase::Fenced);
                } else {
                    self.queue.wake_at(id, view.now_ms + RECHECK_MS);
                }
            }
            // Its old session is over: it comes back by registering.
            NodePhase::Fenced => {}
        }
    }

    /// Asks pods to end that may not stay on their node. They stay in the ledger until the agent says that
    /// they are gone, or somebody deletes the node.
    fn evict(&mut self, view: &View<'_>, node: &Node, commands: &mut Vec<Command>) {
        let id = node.meta.id;
        let Some(tainted_node) = self.tainted.get_mut(&id) else { return };
        let Some(due_ms) = tainted_node.next_ms else { return };
        if due_ms > view.now_ms {
            self.queue.wake_at(id, due_ms);
            return;
        }
        let taints = &mut tainted_node.taints;
        let unreachable = (node.status.phase != NodePhase::Ready).then(|| Taint {
            key: SmolStr::new_static(TAINT_UNREACHABLE),
            value: SmolStr::default(),
            effect: TaintEffect::NoExecute,
        });
        for since_ms in taints.values_mut() {
            since_ms.get_or_insert(view.now_ms);
        }
        // Whoever takes the place of a pod that must be unique has to wait until it is surely dead.
        let fences = may_be_fenced(view.state, node);
        let waits_for_fence = |pod: &Pod| fences && pod.is_unique();
        // That those are dead is sure, however many nodes fell silent.
        let is_dead = |pod: &Pod| node.status.phase == NodePhase::Fenced && pod.is_unique();
        let (mut dead, mut lost, mut tainted, mut next_ms) =
            (Vec::new(), Vec::new(), Vec::new(), None::<u64>);
        for pod in view.state.pods_on(id).filter(|pod| is_active(pod)) {
            let by_taint = taints
                .iter()
                .filter_map(|(taint, since_ms)| stays_until(pod, taint, since_ms.unwrap_or(view.now_ms), 0))
                .min();
            let since_ms = node.status.phase_since_ms;
            let by_loss = unreachable
                .as_ref()
                .filter(|_| pod.meta.owner.is_some() && !waits_for_fence(pod))
                .and_then(|taint| stays_until(pod, taint, since_ms, view.config.eviction_ms));
            if by_loss.is_some_and(|until_ms| until_ms <= view.now_ms) {
                if is_dead(pod) { dead.push(pod.meta.id) } else { lost.push(pod.meta.id) }
            } else if by_taint.is_some_and(|until_ms| until_ms <= view.now_ms) {
                tainted.push(pod.meta.id);
            } else {
                next_ms = next_ms.into_iter().chain(by_taint).chain(by_loss).min();
            }
        }
        if !lost.is_empty()
            && let Err(again_ms) =
                self.pace.give_up(view.state, node, view.now_ms, &view.config.eviction_rates)
        {
            lost.clear();
            next_ms = next_ms.into_iter().chain([again_ms]).min();
        }
        lost.extend(dead);
        // Whether those that were asked to go do so is looked at again.
        let asked = !lost.is_empty() || !tainted.is_empty();
        tainted_node.next_ms = if asked { Some(0) } else { next_ms };
        if let Some(next_ms) = next_ms {
            self.queue.wake_at(id, next_ms);
        }
        for (pods, reason) in [(lost, "NodeLost"), (tainted, "TaintEviction")] {
            for pods in pods.chunks(PODS_PER_COMMAND) {
                let reason = SmolStr::new_static(reason);
                commands.push(Command::DeletePods { pods: pods.to_vec(), surplus_of: None, reason });
            }
        }
    }
}

/// Until when a pod may stay on a node that has the taint since `since_ms`; `None` for ever. A pod that says
/// nothing about the taint stays for `default_ms`.
fn stays_until(pod: &Pod, taint: &Taint, since_ms: u64, default_ms: u64) -> Option<u64> {
    let mut tolerations = pod.spec.tolerations.iter().filter(|t| t.tolerates(taint)).peekable();
    if tolerations.peek().is_none() {
        return Some(since_ms.saturating_add(default_ms));
    }
    let shortest_ms = tolerations.filter_map(|t| t.toleration_ms).min()?;
    Some(since_ms.max(pod.status.bound_at_ms).saturating_add(shortest_ms))
}
