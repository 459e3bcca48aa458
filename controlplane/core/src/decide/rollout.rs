//! What users do to a rollout: scale, pause, resume, undo, restart.

use std::sync::Arc;

use bulkhead_types::{
    ANNOTATION_RESTARTED_AT, Deployment, EventKind, Kind, LABEL_POD_TEMPLATE_HASH, Object, ObjectRef,
    PodTemplate, REPLICAS_MAX, Rejection, RejectionCode, ReplicaSet,
};
use smol_str::SmolStr;

use super::{Emit, not_allowed, not_found};
use crate::State;

pub(super) fn scale(
    state: &State,
    reference: &ObjectRef,
    replicas: u32,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    if replicas > REPLICAS_MAX {
        let field = format!("{reference}: spec.replicas");
        return Err(Rejection::new(RejectionCode::Invalid, field, format!("must be at most {REPLICAS_MAX}")));
    }
    let object = state.find_object(reference).ok_or_else(|| not_found(reference))?;
    match object {
        Object::Deployment(deployment) if deployment.spec.replicas != replicas => {
            change_spec(&deployment, |spec| spec.replicas = replicas, emit);
        }
        Object::ReplicaSet(set) => {
            if let Some(owner) = set.meta.owner.and_then(|o| state.object(o.kind, o.id)) {
                return Err(not_allowed(
                    reference,
                    format!("belongs to {}, which sets its size", owner.object_ref()),
                )
                .with_remedy("scale that instead"));
            }
            if set.spec.replicas != replicas {
                emit.push(EventKind::ReplicaSetScaled { id: set.meta.id, replicas });
            }
        }
        Object::Deployment(_) => {}
        other => {
            let field = other.object_ref().to_string();
            return Err(Rejection::new(
                RejectionCode::Invalid,
                field,
                "cannot be scaled: only workloads have replicas",
            ));
        }
    }
    Ok(())
}

pub(super) fn set_paused(
    state: &State,
    reference: &ObjectRef,
    paused: bool,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    let deployment = find(state, reference)?;
    if deployment.spec.paused != paused {
        change_spec(&deployment, |spec| spec.paused = paused, emit);
    }
    Ok(())
}

pub(super) fn undo(
    state: &State,
    reference: &ObjectRef,
    to_revision: Option<u64>,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    let deployment = find_running(state, reference, "undo")?;
    let set = match to_revision {
        Some(revision) => set_at(state, &deployment, revision).ok_or_else(|| {
            Rejection::new(
                RejectionCode::NotFound,
                reference.to_string(),
                format!("has no revision {revision} in its history"),
            )
            .with_remedy("list the revisions with rollout history")
        })?,
        None => previous_set(state, &deployment).ok_or_else(|| {
            Rejection::new(
                RejectionCode::NotFound,
                reference.to_string(),
                "has no earlier revision in its history",
            )
        })?,
    };
    let template = without_hash(&set.spec.template);
    if template != deployment.spec.template {
        change_spec(&deployment, |spec| spec.template = template, emit);
    }
    Ok(())
}

pub(super) fn restart(
    state: &State,
    reference: &ObjectRef,
    restarted_at: &SmolStr,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    let deployment = find_running(state, reference, "restart")?;
    let present = deployment.spec.template.annotations.get(ANNOTATION_RESTARTED_AT);
    if restarted_at.is_empty() || restarted_at.len() > 64 || present == Some(restarted_at) {
        let field = format!("{reference}: {ANNOTATION_RESTARTED_AT}");
        let reason = "must be a time of at most 64 characters that differs from the last restart's";
        return Err(
            Rejection::new(RejectionCode::Invalid, field, reason).with_remedy("try again in a second")
        );
    }
    let (key, value) = (SmolStr::new_static(ANNOTATION_RESTARTED_AT), restarted_at.clone());
    change_spec(&deployment, |spec| _ = spec.template.annotations.insert(key, value), emit);
    Ok(())
}

/// A template as users wrote it: without the label that tells ReplicaSets apart.
#[must_use]
pub(crate) fn without_hash(template: &PodTemplate) -> PodTemplate {
    let mut template = template.clone();
    template.labels.remove(LABEL_POD_TEMPLATE_HASH);
    template
}

fn set_at(state: &State, deployment: &Deployment, revision: u64) -> Option<Arc<ReplicaSet>> {
    sets_of(state, deployment).find(|set| set.spec.rollout_revision == revision).cloned()
}

fn previous_set(state: &State, deployment: &Deployment) -> Option<Arc<ReplicaSet>> {
    let current = deployment.status.rollout_revision;
    let earlier = |set: &&Arc<ReplicaSet>| set.spec.rollout_revision < current;
    sets_of(state, deployment).filter(earlier).max_by_key(|set| set.spec.rollout_revision).cloned()
}

fn sets_of<'a>(state: &'a State, deployment: &Deployment) -> impl Iterator<Item = &'a Arc<ReplicaSet>> {
    state.owned(deployment.meta.id, Kind::ReplicaSet).filter_map(|id| state.replica_sets.get(id))
}

fn find(state: &State, reference: &ObjectRef) -> Result<Arc<Deployment>, Rejection> {
    match state.find_object(reference) {
        Some(Object::Deployment(deployment)) => Ok(deployment),
        Some(other) => Err(Rejection::new(
            RejectionCode::Invalid,
            other.object_ref().to_string(),
            "has no rollout: only Deployments have",
        )),
        None => Err(not_found(reference)),
    }
}

fn find_running(state: &State, reference: &ObjectRef, what: &str) -> Result<Arc<Deployment>, Rejection> {
    let deployment = find(state, reference)?;
    if deployment.spec.paused {
        return Err(not_allowed(reference, format!("is paused: cannot {what} its rollout"))
            .with_remedy("resume it first"));
    }
    Ok(deployment)
}

fn change_spec(
    deployment: &Deployment,
    change: impl FnOnce(&mut bulkhead_types::DeploymentSpec),
    emit: &mut Emit<'_>,
) {
    let mut spec = deployment.spec.clone();
    change(&mut spec);
    emit.push(EventKind::DeploymentSpecChanged { id: deployment.meta.id, spec });
}
