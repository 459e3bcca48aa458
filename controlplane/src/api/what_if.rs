//! `Queries.WhatIf`: a question about what would happen, tried on a copy of a State.

use std::collections::BTreeMap;

use bulkhead_controlplane_core::State;
use bulkhead_controlplane_core::what_if::{
    AddedNodes, Answer, Fate, Load, NodeOutlook, NodeShape, PodFate, Question, ask,
};
use bulkhead_manifest::PlanError;
use bulkhead_proto::v1;
use bulkhead_types::{
    Name, ObjectRef, Rejection, Resources, Revision, StringMap, check_label_key, check_label_value,
};
use smol_str::SmolStr;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use super::Api;
use super::manifests::{Wish, conflict_status, wire_error};
use crate::error::{compacted, convert_status, invalid, rejection_status, unavailable};
use crate::past::Past;

/// Pods and nodes of an answer, at most, each.
const ITEMS_SHOWN_MAX: usize = 10_000;
/// Names of a request's nodes, at most.
const NODES_MAX: usize = 10_000;
/// Pods of an added node when the request does not say.
const PODS_MAX_DEFAULT: u32 = 110;

impl Api {
    pub(super) async fn what_would_be(
        &self,
        request: v1::WhatIfRequest,
        deadline: Instant,
    ) -> Result<v1::WhatIfResponse, Status> {
        let state = self.state_at(request.at_revision, deadline).await?;
        let revision = state.revision();
        let question = match question(&state, request)? {
            Ok(question) => question,
            Err(errors) => return Ok(v1::WhatIfResponse { errors, revision, ..Default::default() }),
        };
        let now_ms = state.now_ms();
        let answer =
            self.in_turn(deadline, move |may_go_on| ask(&state, &question, now_ms, may_go_on)).await?;
        Ok(wire(answer, revision))
    }

    /// Tries something on a thread of its own, when others who do so have had their turn.
    pub(super) async fn in_turn<T: Send + 'static>(
        &self,
        deadline: Instant,
        trial: impl FnOnce(&mut dyn FnMut() -> bool) -> Result<T, Rejection> + Send + 'static,
    ) -> Result<T, Status> {
        let turn = timeout_at(deadline, self.turns.trials.clone().acquire_owned()).await;
        let busy = || unavailable("others ask what would be: try again");
        let turn = turn.map_err(|_| busy())?.map_err(|_| busy())?;
        let until = deadline.into_std();
        let trial = move || {
            let _turn = turn;
            trial(&mut || std::time::Instant::now() < until)
        };
        let answer = tokio::task::spawn_blocking(trial).await.map_err(|e| Status::internal(e.to_string()))?;
        answer.map_err(|rejection| rejection_status(&rejection))
    }

    /// The present State, or a past one.
    pub(super) async fn state_at(&self, revision: Revision, deadline: Instant) -> Result<State, Status> {
        let present = self.read(false, 0, deadline).await?;
        if revision == 0 || revision == present.revision() {
            return Ok(present);
        }
        if revision > present.revision() {
            let reason = format!("is yet to come: the newest revision is {}", present.revision());
            return Err(invalid("at_revision", reason));
        }
        let mut kept = self.history_kept.clone();
        let waited = timeout_at(deadline, kept.wait_for(|kept| *kept >= revision)).await;
        waited
            .map_err(|_| unavailable("the history is not on disk yet: try again"))?
            .map_err(|_| unavailable("the server is shutting down"))?;
        let past = timeout_at(deadline, Past::begin(self, revision)).await;
        let past = past.map_err(|_| unavailable("others read the past: try again"))??;
        match past {
            Some(past) => Ok(past.state().clone()),
            None => Err(compacted(Past::oldest(self).await?)),
        }
    }
}

/// What is asked, or the mistakes of the files.
fn question(
    state: &State,
    request: v1::WhatIfRequest,
) -> Result<Result<Question, Vec<v1::ManifestError>>, Status> {
    let (drains, adds) = (request.drain_nodes.len(), request.add_nodes.len());
    if drains > NODES_MAX || adds > NODES_MAX {
        return Err(invalid("drain_nodes", format!("at most {NODES_MAX} nodes can be named")));
    }
    let name = |text: &String| Name::new(text).map_err(|e| invalid("drain_nodes", e.to_string()));
    let drained = request.drain_nodes.iter().map(name).collect::<Result<Vec<_>, _>>()?;
    let added = request.add_nodes.into_iter().map(added).collect::<Result<Vec<_>, _>>()?;
    if request.files.is_empty() {
        return Ok(Ok(Question { added, submission: None, drained }));
    }
    let apply = v1::ApplyRequest {
        files: request.files,
        namespace: request.namespace,
        actor: request.actor,
        field_manager: request.field_manager,
        ..v1::ApplyRequest::default()
    };
    let wish = Wish::read(apply, None)?;
    let planned = match wish.plan(state) {
        Ok(planned) => planned,
        Err(PlanError::Conflicts(conflicts)) => return Err(conflict_status(&conflicts)),
        Err(PlanError::Mistakes(errors)) => return Ok(Err(errors.into_iter().map(wire_error).collect())),
    };
    let submission = Some(wish.stamped(state, &planned, 0)?);
    Ok(Ok(Question { added, submission, drained }))
}

fn added(nodes: v1::AddedNodes) -> Result<AddedNodes, Status> {
    if nodes.count == 0 {
        return Err(invalid("add_nodes.count", "must be at least 1".to_owned()));
    }
    let shape = if nodes.like.is_empty() {
        let allocatable = nodes.allocatable.map(Resources::try_from).transpose();
        let allocatable =
            allocatable.map_err(|e| convert_status(&e.within("add_nodes.allocatable")))?.unwrap_or_default();
        if allocatable.cpu_millis == 0 || allocatable.memory_bytes == 0 {
            let reason = "must say cpu and memory, or the nodes must be like one that is there".to_owned();
            return Err(invalid("add_nodes.allocatable", reason));
        }
        let pods_max = if nodes.pods_max == 0 { PODS_MAX_DEFAULT } else { nodes.pods_max };
        let labels = labels(nodes.labels)?;
        let taints = nodes.taints.into_iter().map(TryInto::try_into).collect::<Result<_, _>>();
        let taints = taints
            .map_err(|e: bulkhead_proto::ConvertError| convert_status(&e.within("add_nodes.taints")))?;
        NodeShape::Of { allocatable, pods_max, labels, taints }
    } else {
        NodeShape::Like(Name::new(&nodes.like).map_err(|e| invalid("add_nodes.like", e.to_string()))?)
    };
    Ok(AddedNodes { count: nodes.count, shape })
}

fn labels(labels: BTreeMap<String, String>) -> Result<StringMap, Status> {
    for (key, value) in &labels {
        let checked = check_label_key(key).and_then(|()| check_label_value(value));
        checked.map_err(|e| invalid("add_nodes.labels", e.to_string()))?;
    }
    Ok(labels.into_iter().map(|(key, value)| (SmolStr::from(key), SmolStr::from(value))).collect())
}

fn wire(answer: Answer, revision: Revision) -> v1::WhatIfResponse {
    let left_out = |all: usize| all.saturating_sub(ITEMS_SHOWN_MAX) as u64;
    v1::WhatIfResponse {
        revision,
        errors: Vec::new(),
        at_rest: answer.at_rest,
        pods_left_out: left_out(answer.pods.len()),
        nodes_left_out: left_out(answer.nodes.len()),
        pods: answer.pods.iter().take(ITEMS_SHOWN_MAX).map(wire_pod).collect(),
        nodes: answer.nodes.iter().take(ITEMS_SHOWN_MAX).map(wire_node).collect(),
    }
}

fn wire_pod(fate: &PodFate) -> v1::PodFate {
    let ObjectRef { namespace, name, .. } = &fate.pod;
    let (outcome, node, reason) = match &fate.fate {
        Fate::Placed { node } => (v1::PodOutcome::Placed, node.to_string(), String::new()),
        Fate::Waits { reason } => (v1::PodOutcome::Waits, String::new(), reason.clone()),
        Fate::Ends { node } => (v1::PodOutcome::Ends, node.to_string(), String::new()),
        Fate::Stays { node, reason } => (v1::PodOutcome::Stays, node.to_string(), reason.clone()),
    };
    v1::PodFate {
        namespace: namespace.as_ref().map(ToString::to_string).unwrap_or_default(),
        name: name.to_string(),
        is_new: fate.is_new,
        outcome: outcome.into(),
        node,
        reason,
    }
}

fn wire_node(node: &NodeOutlook) -> v1::NodeOutlook {
    let load = |load: Load| Some(v1::NodeLoad { requests: Some((&load.requests).into()), pods: load.pods });
    v1::NodeOutlook {
        name: node.name.to_string(),
        is_new: node.is_new,
        allocatable: Some((&node.allocatable).into()),
        before: load(node.before),
        after: load(node.after),
    }
}
