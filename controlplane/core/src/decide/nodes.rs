//! Nodes: registration, cordon, phase, fence.

use std::sync::Arc;

use bulkhead_canary::planted;
use bulkhead_types::{
    AMOUNT_MAX, EventKind, FENCING_LEVEL, HugePageSize, Kind, MANAGER_LIFE, Name, Node, NodeFacts,
    NodeImages, NodePhase, NodePreconditions, NodeSpec, NodeStatus, Object, ObjectId, ObjectMeta, PodPhase,
    Rare, Rejection, RejectionCode, StringMap, check_label_key, check_label_value,
};
use smol_str::SmolStr;

use super::managers::manage;
use super::{Emit, not_allowed, not_found};
use crate::State;
use crate::evolve::node_labels;
use crate::node_pool;

/// Most characters of one text that an agent reports about its machine.
const FACT_LENGTH_MAX: usize = 1024;
/// Most warnings and labels that an agent reports.
const FACTS_MAX: usize = 64;
/// The reason of a pod that is over, or waits, because its node was fenced.
pub(crate) const REASON_NODE_FENCED: &str = "NodeFenced";

pub(super) fn register(
    state: &State,
    name: &Name,
    facts: &NodeFacts,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    check_facts(name, facts)?;
    match state.find(Kind::Node, None, name).and_then(|id| state.nodes.get(id)) {
        Some(node) => {
            let (id, incarnation) = (node.meta.id, node.status.incarnation + 1);
            emit.push(EventKind::NodeRegistered { id, incarnation, facts: facts.clone() });
            if node.status.phase != NodePhase::Ready {
                emit.push(EventKind::NodePhaseChanged { id, phase: NodePhase::Ready });
            }
        }
        None => {
            let mut meta = ObjectMeta::new(None, name.clone());
            meta.labels = node_labels(name, &StringMap::new(), &StringMap::new(), facts);
            let status = NodeStatus {
                phase: NodePhase::Ready,
                phase_since_ms: emit.at_ms(),
                incarnation: 1,
                facts: facts.clone(),
                pool: Rare::NONE,
                images: Rare::NONE,
                device_labels: Rare::NONE,
            };
            let mut node = Node { meta, spec: NodeSpec::default(), status };
            node_pool::join(state, &mut node);
            emit.create(Object::Node(Arc::new(node)));
        }
    }
    Ok(())
}

/// What is told of a node's images that is known already makes no event.
pub(super) fn report_images(
    state: &State,
    id: ObjectId,
    incarnation: u64,
    images: &NodeImages,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    let node = state.nodes.get(id).ok_or_else(|| not_found(format!("Node {id}")))?;
    check_incarnation(node, incarnation)?;
    check_not_fenced(node)?;
    check_images(&node.meta.name, images)?;
    if are_news(node, images) {
        emit.push(EventKind::ImagesReported { id, images: images.clone() });
    }
    Ok(())
}

/// Refuses more than is told of a node's images.
pub(crate) fn check_images(name: &Name, images: &NodeImages) -> Result<(), Rejection> {
    let invalid = |reason| Rejection::new(RejectionCode::Invalid, format!("Node {name}: images"), reason);
    images.check().map_err(invalid)
}

/// Whether these are other images than are known of a node.
pub(crate) fn are_news(node: &Node, images: &NodeImages) -> bool {
    node.status.images.get().is_none_or(|known| known != images)
        && !(images.images.is_empty() && node.status.images.get().is_none())
}

fn check_facts(name: &Name, facts: &NodeFacts) -> Result<(), Rejection> {
    let invalid = |field: &str, reason: String| {
        Err(Rejection::new(RejectionCode::Invalid, format!("Node {name}: {field}"), reason))
    };
    if !facts.allocatable.fits_in(facts.capacity) {
        return invalid("facts.allocatable", "exceeds the capacity".to_owned());
    }
    if HugePageSize::ALL.into_iter().any(|size| facts.capacity.huge_pages.of(size) > AMOUNT_MAX) {
        return invalid("facts.capacity", "has more than 2^53 bytes of huge pages".to_owned());
    }
    if facts.warnings.len() > FACTS_MAX || facts.labels.len() > FACTS_MAX {
        return invalid("facts", format!("at most {FACTS_MAX} warnings and labels are allowed"));
    }
    let texts =
        [&facts.address, &facts.boot_id, &facts.agent_version, &facts.kernel_version, &facts.accelerator];
    if texts.into_iter().chain(&facts.warnings).any(|text| text.len() > FACT_LENGTH_MAX) {
        return invalid("facts", format!("a text is longer than {FACT_LENGTH_MAX} bytes"));
    }
    if let Some(Err(reason)) = facts.preconditions.get().map(NodePreconditions::check) {
        return invalid("facts.preconditions", reason);
    }
    if let Some(topology) = facts.cpus.get() {
        if let Err(reason) = topology.check() {
            return invalid("facts.cpus", reason);
        }
        // So that what pods request that have no CPUs of their own always fits the shared pool.
        let most = u64::from(topology.cpus().len()) * 1000;
        if facts.allocatable.cpu_millis > most {
            return invalid("facts.allocatable.cpu", format!("is more than its CPUs have, {most}m"));
        }
    }
    for (key, value) in &facts.labels {
        if let Err(error) = check_label_key(key).and_then(|()| check_label_value(value)) {
            return invalid("facts.labels", error.to_string());
        }
    }
    Ok(())
}

pub(super) fn set_unschedulable(
    state: &State,
    name: &Name,
    unschedulable: bool,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    let node = state.find(Kind::Node, None, name).and_then(|id| state.nodes.get(id));
    let node = node.ok_or_else(|| not_found(format!("Node {name}")))?;
    if node.spec.unschedulable != unschedulable {
        let spec = NodeSpec { unschedulable, ..node.spec.clone() };
        emit.push(EventKind::NodeSpecChanged { id: node.meta.id, spec });
        manage(state, Kind::Node, &node.meta, MANAGER_LIFE, &["spec", "unschedulable"], emit);
    }
    Ok(())
}

pub(super) fn set_phase(
    state: &State,
    id: ObjectId,
    incarnation: u64,
    phase: NodePhase,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    let node = state.nodes.get(id).ok_or_else(|| not_found(format!("Node {id}")))?;
    check_incarnation(node, incarnation)?;
    let present = node.status.phase;
    match (present, phase) {
        _ if present == phase => {}
        // A fence is for nodes that were lost long ago, and ends by a registration only.
        (NodePhase::Fenced, _) | (NodePhase::Ready, NodePhase::Fenced) => {
            let reason = format!("is {present:?} and cannot become {phase:?}");
            return Err(not_allowed(format!("Node {}", node.meta.name), reason));
        }
        (_, NodePhase::Fenced) if !may_be_fenced(state, node) => {
            let reason = "its agent does not guard pods that must be unique";
            return Err(not_allowed(format!("Node {}", node.meta.name), reason)
                .with_remedy("upgrade the agent, or delete the node once its machine is off"));
        }
        (_, NodePhase::Fenced) => {
            emit.push(EventKind::NodePhaseChanged { id, phase });
            fence(state, node, emit);
        }
        _ => emit.push(EventKind::NodePhaseChanged { id, phase }),
    }
    Ok(())
}

/// Whether the death of a node's unique guests can be counted on once it was silent for long enough: its agent guards
/// them, and every server knows what a fence is.
#[must_use]
pub(crate) fn may_be_fenced(state: &State, node: &Node) -> bool {
    state.feature_level() >= FENCING_LEVEL && node.status.facts.guards_unique()
}

/// What must be unique is over on a node. What an owner replaces has failed, which frees its room at once; what somebody
/// wants to be gone is gone; a pod of its own waits for its node, or until somebody deletes it.
fn fence(state: &State, node: &Node, emit: &mut Emit<'_>) {
    let name = &node.meta.name;
    let unique = state.pods_on(node.meta.id).filter(|pod| pod.is_unique() && !pod.status.phase.is_terminal());
    for pod in unique {
        let id = pod.meta.id;
        if pod.meta.is_deleting() {
            emit.push(EventKind::ObjectDeleted { kind: Kind::Pod, id });
            continue;
        }
        let mut status = pod.status.clone();
        status.reason = SmolStr::new_static(REASON_NODE_FENCED);
        if pod.meta.owner.is_some() {
            status.phase = PodPhase::Failed;
            status.message =
                format!("node {name} was lost and its guest is dead; another pod takes its place");
        } else {
            status.message =
                format!("node {name} was lost and its guest is dead; it runs again when the node is back");
        }
        if status.ready {
            (status.ready, status.ready_since_ms) = (false, emit.at_ms());
        }
        status.containers.iter_mut().for_each(|container| container.ready = false);
        emit.push(EventKind::PodStatusChanged { id, status });
    }
}

/// Refuses what the session of a node that was fenced says: what it stands for is over.
pub(crate) fn check_not_fenced(node: &Node) -> Result<(), Rejection> {
    if node.status.phase != NodePhase::Fenced || planted!("canary_fenced_session_goes_on") {
        return Ok(());
    }
    let reason = format!("was fenced: its session {} is over", node.status.incarnation);
    Err(Rejection::new(RejectionCode::StaleIncarnation, format!("Node {}", node.meta.name), reason)
        .with_remedy("register again"))
}

/// Refuses a session, or a decision about a session, that a newer registration replaced.
pub(super) fn check_incarnation(node: &Node, incarnation: u64) -> Result<(), Rejection> {
    if node.status.incarnation == incarnation {
        return Ok(());
    }
    let reason = format!(
        "is at incarnation {}, not {incarnation}: another session took over",
        node.status.incarnation
    );
    Err(Rejection::new(RejectionCode::StaleIncarnation, format!("Node {}", node.meta.name), reason)
        .with_remedy("register again, unless another agent runs under this name"))
}
