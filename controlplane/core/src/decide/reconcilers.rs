//! What reconcilers ask for. Everything that they looked at is checked again: the State may have moved on.

use std::sync::Arc;

use bulkhead_canary::planted;
use bulkhead_types::{
    Command, DeploymentStatus, EventKind, Kind, LABEL_POD_TEMPLATE_HASH, LabelSelector, Name, Object,
    ObjectId, ObjectMeta, ObjectRef, OwnerRef, Rejection, RejectionCode, ReplicaSet, ReplicaSetSpec,
    ReplicaSetStatus,
};
use smol_str::SmolStr;

use super::{Emit, check_items, not_allowed, not_found};
use crate::State;
use crate::owned_pod::{Birth, set_pod};
use crate::quota::Ledger;

pub(super) fn create_replica_set(
    state: &State,
    command: &Command,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    let Command::CreateReplicaSet { deployment, generation, name, template_hash, rollout_revision } = command
    else {
        unreachable!("dispatched by variant")
    };
    let id = *deployment;
    let deployment = state.deployments.get(id).ok_or_else(|| not_found(format!("Deployment {id}")))?;
    if deployment.meta.generation != *generation {
        return Err(conflict(format!("Deployment {}", deployment.meta.name), "its spec changed meanwhile"));
    }
    let namespace = deployment.meta.namespace.clone();
    let reference = ObjectRef { kind: Kind::ReplicaSet, namespace: namespace.clone(), name: name.clone() };
    if state.find_object(&reference).is_some() {
        return Err(Rejection::new(RejectionCode::AlreadyExists, reference.to_string(), "the name is taken"));
    }
    let mut template = deployment.spec.template.clone();
    let hash_label = SmolStr::new_static(LABEL_POD_TEMPLATE_HASH);
    template.labels.insert(hash_label.clone(), template_hash.clone());
    let mut selector: LabelSelector = deployment.spec.selector.clone();
    selector.match_labels.insert(hash_label, template_hash.clone());
    let mut meta = ObjectMeta::new(namespace, name.clone());
    meta.labels = template.labels.clone();
    meta.annotations = deployment.meta.annotations.clone();
    meta.owner = Some(OwnerRef { kind: Kind::Deployment, id });
    meta.trace_context = deployment.meta.trace_context.clone();
    let spec = ReplicaSetSpec {
        replicas: 0,
        min_ready_ms: deployment.spec.min_ready_ms,
        selector,
        template,
        rollout_revision: *rollout_revision,
    };
    let set = Object::ReplicaSet(Arc::new(ReplicaSet { meta, spec, status: ReplicaSetStatus::default() }));
    super::quota::check_room(state, &set)?;
    emit.create(set);
    Ok(())
}

fn conflict(field: String, reason: &str) -> Rejection {
    Rejection::new(RejectionCode::Conflict, field, reason)
}

fn find_set(state: &State, id: ObjectId) -> Result<&Arc<ReplicaSet>, Rejection> {
    state.replica_sets.get(id).ok_or_else(|| not_found(format!("ReplicaSet {id}")))
}

pub(super) fn set_rollout_revision(
    state: &State,
    id: ObjectId,
    rollout_revision: u64,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    let set = find_set(state, id)?;
    if rollout_revision < set.spec.rollout_revision {
        return Err(conflict(format!("ReplicaSet {}", set.meta.name), "stands for a newer revision already"));
    }
    if set.spec.rollout_revision != rollout_revision {
        emit.push(EventKind::RolloutRevisionChanged { id, rollout_revision });
    }
    Ok(())
}

pub(super) fn scale_replica_set(
    state: &State,
    id: ObjectId,
    from: u32,
    to: u32,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    let set = find_set(state, id)?;
    if set.spec.replicas != from {
        return Err(conflict(format!("ReplicaSet {}", set.meta.name), "its size changed meanwhile"));
    }
    if from != to {
        emit.push(EventKind::ReplicaSetScaled { id, replicas: to });
    }
    Ok(())
}

pub(super) fn create_pods(
    state: &State,
    id: ObjectId,
    names: &[Name],
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    check_items("names", names.len())?;
    let set = find_set(state, id)?;
    let namespace = set.meta.namespace.as_ref();
    let deleting = namespace
        .and_then(|ns| state.find(Kind::Namespace, None, ns))
        .and_then(|id| state.namespaces.get(id))
        .is_none_or(|ns| ns.meta.is_deleting());
    if deleting || set.meta.is_deleting() {
        return Err(not_allowed(
            format!("ReplicaSet {}", set.meta.name),
            "is being deleted, or its namespace is",
        ));
    }
    let mut room = set.spec.replicas.saturating_sub(state.active_pods(id)) as usize;
    if planted!("canary_create_unchecked") {
        room = names.len();
    }
    let mut seen = std::collections::BTreeSet::new();
    let free = names.iter().filter(|name| state.find(Kind::Pod, namespace, name).is_none());
    // As many as fit in the quotas above: they are all alike.
    let (mut ledger, mut created) = (Ledger::of(state, namespace), 0);
    for name in free.filter(|name| seen.insert(*name)).take(room) {
        if !ledger.is_unlimited() {
            let pod = Arc::new(set_pod(state, &Birth::trial(state), id, name));
            match ledger.take_pod(&pod) {
                Err(rejection) if created == 0 => return Err(rejection),
                Err(_) => break,
                Ok(()) => {}
            }
        }
        created += 1;
        emit.push(EventKind::PodCreated { replica_set: id, name: name.clone() });
    }
    Ok(())
}

pub(super) fn set_deployment_status(
    state: &State,
    id: ObjectId,
    status: &DeploymentStatus,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    let deployment = state.deployments.get(id).ok_or_else(|| not_found(format!("Deployment {id}")))?;
    // Where a delivery stands is its own commands' word alone: these figures may be older than a promotion.
    let delivery = deployment.status.delivery.clone();
    let status = DeploymentStatus { delivery, ..status.clone() };
    if deployment.status != status {
        emit.push(EventKind::DeploymentStatusChanged { id, status });
    }
    Ok(())
}

pub(super) fn set_replica_set_status(
    state: &State,
    id: ObjectId,
    status: &ReplicaSetStatus,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    if find_set(state, id)?.status != *status {
        emit.push(EventKind::ReplicaSetStatusChanged { id, status: status.clone() });
    }
    Ok(())
}
