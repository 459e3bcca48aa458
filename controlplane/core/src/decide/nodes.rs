//! Nodes: registration, cordon, phase.

use std::sync::Arc;

use bulkhead_types::{
    EventKind, Kind, Name, Node, NodeFacts, NodePhase, NodeSpec, NodeStatus, Object, ObjectId, ObjectMeta,
    Rejection, RejectionCode, StringMap, check_label_key, check_label_value,
};

use super::{Emit, not_found};
use crate::State;
use crate::evolve::node_labels;

/// Most characters of one text that an agent reports about its machine.
const FACT_LENGTH_MAX: usize = 1024;
/// Most warnings and labels that an agent reports.
const FACTS_MAX: usize = 64;

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
            };
            emit.create(Object::Node(Arc::new(Node { meta, spec: NodeSpec::default(), status })));
        }
    }
    Ok(())
}

fn check_facts(name: &Name, facts: &NodeFacts) -> Result<(), Rejection> {
    let invalid = |field: &str, reason: String| {
        Err(Rejection::new(RejectionCode::Invalid, format!("Node {name}: {field}"), reason))
    };
    if !facts.allocatable.fits_in(facts.capacity) {
        return invalid("facts.allocatable", "exceeds the capacity".to_owned());
    }
    if facts.warnings.len() > FACTS_MAX || facts.labels.len() > FACTS_MAX {
        return invalid("facts", format!("at most {FACTS_MAX} warnings and labels are allowed"));
    }
    let texts =
        [&facts.address, &facts.boot_id, &facts.agent_version, &facts.kernel_version, &facts.accelerator];
    if texts.into_iter().chain(&facts.warnings).any(|text| text.len() > FACT_LENGTH_MAX) {
        return invalid("facts", format!("a text is longer than {FACT_LENGTH_MAX} bytes"));
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
    if node.status.phase != phase {
        emit.push(EventKind::NodePhaseChanged { id, phase });
    }
    Ok(())
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
