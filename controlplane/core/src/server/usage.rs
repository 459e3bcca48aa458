//! What pods and nodes use: the leader's soft state beside the State.

use std::sync::Arc;

use bulkhead_types::{DeviceUsage, Name, Node, Object, ObjectId, Pod};

use super::{Reply, Server, Ticket};
use crate::State;
use crate::query::{Selection, list};
use crate::reconcile::{Sample, SoftState};

/// A part of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UsagePage {
    /// Those whose usage is known, oldest first.
    pub items: Vec<Used>,
    /// Where the next part begins; `None` when this is the last.
    pub next: Option<ObjectId>,
}

/// What one pod or node uses.
#[derive(Clone, Debug, PartialEq)]
pub struct Used {
    /// The pod or node.
    pub object: Object,
    /// What it uses; a node what its pods do, measured when the one of them was that was measured first.
    pub sample: Sample,
    /// Of a node its cards, of a pod those that its guest has.
    pub devices: Vec<CardUsage>,
}

/// What one card does, and who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CardUsage {
    /// What it does.
    pub usage: DeviceUsage,
    /// Namespace and name of the pod whose guest has it.
    pub pod: Option<(Option<Name>, Name)>,
}

impl Server {
    pub(super) fn handle_usage(
        &mut self,
        ticket: Ticket,
        selection: &Selection,
        after: ObjectId,
        limit: usize,
    ) {
        let (state, now_ms) = (self.machine.state(), self.leader_clock_ms());
        let Some(leader) = self.leader.as_ref().filter(|l| l.is_active()) else {
            return self.reply(ticket, Reply::NotLeader(self.replica.leader()));
        };
        let found = list(state, selection, after, limit);
        let used = |object: Object| {
            let sample = match &object {
                Object::Pod(pod) => sample_of_pod(&leader.soft, pod, now_ms),
                Object::Node(node) => sample_of_node(state, &leader.soft, node, now_ms),
                _ => None,
            }?;
            let devices = match &object {
                Object::Node(node) => cards_of_node(state, &leader.soft, node.meta.id, now_ms),
                Object::Pod(pod) => cards_of_pod(state, &leader.soft, pod, now_ms),
                _ => Vec::new(),
            };
            Some(Used { object, sample, devices })
        };
        let page = UsagePage { items: found.items.into_iter().filter_map(used).collect(), next: found.next };
        self.reply(ticket, Reply::Usage(page));
    }
}

/// The cards of a node. That a pod has one is believed only if the pod holds it, on that node.
fn cards_of_node(state: &State, soft: &SoftState, node: ObjectId, now_ms: u64) -> Vec<CardUsage> {
    let cards = soft.device_usage(node, now_ms).map(|usage| {
        let pod = usage.pod.and_then(|id| state.pods().get(id));
        let holds = |pod: &&Arc<Pod>| {
            pod.node == Some(node) && pod.devices().iter().any(|one| one.device == usage.device)
        };
        let pod = pod.filter(holds).map(|pod| (pod.meta.namespace.clone(), pod.meta.name.clone()));
        CardUsage { usage, pod }
    });
    cards.collect()
}

/// The cards that a pod's guest has.
fn cards_of_pod(state: &State, soft: &SoftState, pod: &Pod, now_ms: u64) -> Vec<CardUsage> {
    let (Some(node), false) = (pod.node, pod.devices().is_empty()) else { return Vec::new() };
    let mut cards = cards_of_node(state, soft, node, now_ms);
    cards.retain(|card| card.pod.is_some() && card.usage.pod == Some(pod.meta.id));
    cards
}

fn sample_of_pod(soft: &SoftState, pod: &Pod, now_ms: u64) -> Option<Sample> {
    if pod.status.phase.is_terminal() {
        return None;
    }
    soft.usage(pod, now_ms).cloned()
}

fn sample_of_node(state: &State, soft: &SoftState, node: &Node, now_ms: u64) -> Option<Sample> {
    let samples = state.pods_on(node.meta.id).filter_map(|pod| soft.usage(pod, now_ms));
    let sum = |total: Sample, one: &Sample| Sample {
        measured_at_ms: total.measured_at_ms.min(one.measured_at_ms),
        window_ms: total.window_ms.max(one.window_ms),
        cpu_millis: total.cpu_millis.saturating_add(one.cpu_millis),
        memory_bytes: total.memory_bytes.saturating_add(one.memory_bytes),
        containers: Vec::new(),
    };
    let nothing =
        Sample { measured_at_ms: now_ms, window_ms: 0, cpu_millis: 0, memory_bytes: 0, containers: vec![] };
    // A node without pods uses nothing; one that was not heard of is not known.
    soft.last_heartbeat_ms(node.meta.id)?;
    Some(samples.fold(nothing, sum))
}
