//! What users do to a rollout: scale, stop, start, pause, resume, undo, restart.

use std::sync::Arc;

use bulkhead_types::{
    ANNOTATION_RESTARTED_AT, ControllerRevision, DaemonSet, Deployment, EventKind, Kind,
    LABEL_POD_TEMPLATE_HASH, MANAGER_LIFE, MANAGER_SCALE, Object, ObjectId, ObjectMeta, ObjectRef,
    PodTemplate, REPLICAS_MAX, Rejection, RejectionCode, ReplicaSet, StatefulSet,
};
use smol_str::SmolStr;

use super::managers::manage;
use super::objects::check_unowned;
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
    super::autoscaling::check_manual(state, reference)?;
    super::claims::check_size(state, &object, replicas)?;
    let meta = object.meta().clone();
    match object {
        Object::Deployment(deployment) => {
            if deployment.spec.stopped {
                return Err(is_stopped(reference));
            }
            if deployment.spec.replicas != replicas {
                change_spec(&deployment, |spec| spec.replicas = replicas, emit);
            }
        }
        Object::ReplicaSet(set) => scale_replica_set(state, &set, replicas, reference, emit)?,
        Object::StatefulSet(mut set) => {
            if set.spec.stopped {
                return Err(is_stopped(reference));
            }
            if set.spec.replicas != replicas {
                Arc::make_mut(&mut set).spec.replicas = replicas;
                let object = Object::StatefulSet(set);
                super::objects::check_valid(state, &object)?;
                emit.push(EventKind::SpecChanged(object));
            }
        }
        Object::ElasticWorkload(mut workload) => {
            if workload.spec.replicas != replicas {
                Arc::make_mut(&mut workload).spec.replicas = replicas;
                let object = Object::ElasticWorkload(workload);
                super::objects::check_valid(state, &object)?;
                emit.push(EventKind::SpecChanged(object));
            }
        }
        Object::DaemonSet(_) => {
            return Err(Rejection::new(
                RejectionCode::Invalid,
                reference.to_string(),
                "cannot be scaled: a DaemonSet has one pod on every node that suits",
            )
            .with_remedy(
                "change its template's nodeSelector or tolerations, or labels and taints of nodes",
            ));
        }
        other => {
            let field = other.object_ref().to_string();
            let reason = "cannot be scaled: only Deployments, ReplicaSets, StatefulSets and ElasticWorkloads have replicas";
            return Err(Rejection::new(RejectionCode::Invalid, field, reason));
        }
    }
    manage(state, reference.kind, &meta, MANAGER_SCALE, &["spec", "replicas"], emit);
    Ok(())
}

fn scale_replica_set(
    state: &State,
    set: &ReplicaSet,
    replicas: u32,
    reference: &ObjectRef,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    if let Some(owner) = set.meta.owner.and_then(|o| state.object(o.kind, o.id)) {
        let reason = format!("belongs to {}, which sets its size", owner.object_ref());
        return Err(not_allowed(reference, reason).with_remedy("scale that instead"));
    }
    if set.spec.replicas != replicas {
        emit.push(EventKind::ReplicaSetScaled { id: set.meta.id, replicas });
    }
    Ok(())
}

pub(super) fn set_paused(
    state: &State,
    reference: &ObjectRef,
    paused: bool,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    let deployment = match find(state, reference)? {
        Rolled::Deployment(deployment) => deployment,
        other => {
            let reason = format!("cannot be paused: a {} has no such field", other.kind());
            return Err(not_allowed(reference, reason));
        }
    };
    if deployment.spec.paused != paused {
        change_spec(&deployment, |spec| spec.paused = paused, emit);
        manage(state, Kind::Deployment, &deployment.meta, MANAGER_LIFE, &["spec", "paused"], emit);
    }
    Ok(())
}

fn is_stopped(reference: &ObjectRef) -> Rejection {
    not_allowed(reference, "is stopped: its number stays until it runs again").with_remedy("start it first")
}

pub(super) fn set_stopped(
    state: &State,
    reference: &ObjectRef,
    stopped: bool,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    match state.find_object(reference).ok_or_else(|| not_found(reference))? {
        Object::Deployment(deployment) => {
            check_unowned(state, &Object::Deployment(Arc::clone(&deployment)))?;
            if deployment.spec.stopped != stopped {
                change_spec(&deployment, |spec| spec.stopped = stopped, emit);
                manage(state, Kind::Deployment, &deployment.meta, MANAGER_LIFE, &["spec", "stopped"], emit);
            }
            Ok(())
        }
        Object::StatefulSet(mut set) => {
            if set.spec.stopped != stopped {
                let meta = set.meta.clone();
                Arc::make_mut(&mut set).spec.stopped = stopped;
                emit.push(EventKind::SpecChanged(Object::StatefulSet(set)));
                manage(state, Kind::StatefulSet, &meta, MANAGER_LIFE, &["spec", "stopped"], emit);
            }
            Ok(())
        }
        other => {
            let field = other.object_ref().to_string();
            let reason = "cannot be stopped or started: only Deployments and StatefulSets can";
            Err(Rejection::new(RejectionCode::Invalid, field, reason).with_remedy("scale it to 0 and back"))
        }
    }
}

pub(super) fn undo(
    state: &State,
    reference: &ObjectRef,
    to_revision: Option<u64>,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    let rolled = find_running(state, reference, "undo")?;
    let template = match to_revision {
        Some(revision) => rolled.template_at(state, revision).ok_or_else(|| {
            Rejection::new(
                RejectionCode::NotFound,
                reference.to_string(),
                format!("has no revision {revision} in its history"),
            )
            .with_remedy("list the revisions with rollout history")
        })?,
        None => rolled.previous_template(state).ok_or_else(|| {
            Rejection::new(
                RejectionCode::NotFound,
                reference.to_string(),
                "has no earlier revision in its history",
            )
        })?,
    };
    if template != *rolled.template() {
        rolled.check_template(state, &template)?;
        rolled.change_template(|present| *present = template, emit);
    }
    Ok(())
}

pub(super) fn restart(
    state: &State,
    reference: &ObjectRef,
    restarted_at: &SmolStr,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    let rolled = find_running(state, reference, "restart")?;
    let present = rolled.template().annotations.get(ANNOTATION_RESTARTED_AT);
    if restarted_at.is_empty() || restarted_at.len() > 64 || present == Some(restarted_at) {
        let field = format!("{reference}: {ANNOTATION_RESTARTED_AT}");
        let reason = "must be a time of at most 64 characters that differs from the last restart's";
        return Err(
            Rejection::new(RejectionCode::Invalid, field, reason).with_remedy("try again in a second")
        );
    }
    let (key, value) = (SmolStr::new_static(ANNOTATION_RESTARTED_AT), restarted_at.clone());
    let meta = rolled.meta().clone();
    rolled.change_template(|template| _ = template.annotations.insert(key, value), emit);
    let path = ["spec", "template", "metadata", "annotations", ANNOTATION_RESTARTED_AT];
    manage(state, reference.kind, &meta, MANAGER_LIFE, &path, emit);
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

/// What has rollouts.
enum Rolled {
    Deployment(Arc<Deployment>),
    StatefulSet(Arc<StatefulSet>),
    DaemonSet(Arc<DaemonSet>),
}

impl Rolled {
    fn kind(&self) -> Kind {
        match self {
            Self::Deployment(_) => Kind::Deployment,
            Self::StatefulSet(_) => Kind::StatefulSet,
            Self::DaemonSet(_) => Kind::DaemonSet,
        }
    }

    fn template(&self) -> &PodTemplate {
        match self {
            Self::Deployment(deployment) => &deployment.spec.template,
            Self::StatefulSet(set) => &set.spec.template,
            Self::DaemonSet(set) => &set.spec.template,
        }
    }

    fn change_template(self, change: impl FnOnce(&mut PodTemplate), emit: &mut Emit<'_>) {
        match self {
            Self::Deployment(deployment) => change_spec(&deployment, |spec| change(&mut spec.template), emit),
            Self::StatefulSet(mut set) => {
                change(&mut Arc::make_mut(&mut set).spec.template);
                emit.push(EventKind::SpecChanged(Object::StatefulSet(set)));
            }
            Self::DaemonSet(mut set) => {
                change(&mut Arc::make_mut(&mut set).spec.template);
                emit.push(EventKind::SpecChanged(Object::DaemonSet(set)));
            }
        }
    }

    /// Whether its size, its strategy and its autoscaler go with an earlier template: they may be later than that.
    fn check_template(&self, state: &State, template: &PodTemplate) -> Result<(), Rejection> {
        let object = match self {
            Self::Deployment(deployment) => {
                let mut changed = Arc::clone(deployment);
                Arc::make_mut(&mut changed).spec.template = template.clone();
                Object::Deployment(changed)
            }
            Self::StatefulSet(set) => {
                let mut changed = Arc::clone(set);
                Arc::make_mut(&mut changed).spec.template = template.clone();
                Object::StatefulSet(changed)
            }
            Self::DaemonSet(_) => return Ok(()),
        };
        super::objects::check_valid(state, &object)?;
        super::claims::check_scalers(state, &object)
    }

    fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Deployment(deployment) => &deployment.meta,
            Self::StatefulSet(set) => &set.meta,
            Self::DaemonSet(set) => &set.meta,
        }
    }

    fn template_at(&self, state: &State, revision: u64) -> Option<PodTemplate> {
        match self {
            Self::Deployment(deployment) => {
                set_at(state, deployment, revision).map(|set| without_hash(&set.spec.template))
            }
            _ => rows_of(state, self.meta().id)
                .find(|row| row.revision == revision)
                .map(|row| row.template.clone()),
        }
    }

    fn previous_template(&self, state: &State) -> Option<PodTemplate> {
        match self {
            Self::Deployment(deployment) => {
                previous_set(state, deployment).map(|set| without_hash(&set.spec.template))
            }
            _ => {
                let earlier = rows_of(state, self.meta().id).filter(|row| row.template != *self.template());
                earlier.max_by_key(|row| row.revision).map(|row| row.template.clone())
            }
        }
    }
}

fn rows_of(state: &State, owner: ObjectId) -> impl Iterator<Item = &Arc<ControllerRevision>> {
    let owned = state.owned(owner, Kind::ControllerRevision);
    owned.filter_map(|id| state.controller_revisions.get(id))
}

fn find(state: &State, reference: &ObjectRef) -> Result<Rolled, Rejection> {
    match state.find_object(reference) {
        Some(Object::Deployment(deployment)) => {
            check_unowned(state, &Object::Deployment(Arc::clone(&deployment)))?;
            Ok(Rolled::Deployment(deployment))
        }
        Some(Object::StatefulSet(set)) => Ok(Rolled::StatefulSet(set)),
        Some(Object::DaemonSet(set)) => Ok(Rolled::DaemonSet(set)),
        Some(other) => Err(Rejection::new(
            RejectionCode::Invalid,
            other.object_ref().to_string(),
            "has no rollout: only Deployments, StatefulSets and DaemonSets have",
        )),
        None => Err(not_found(reference)),
    }
}

fn find_running(state: &State, reference: &ObjectRef, what: &str) -> Result<Rolled, Rejection> {
    let rolled = find(state, reference)?;
    if matches!(&rolled, Rolled::Deployment(deployment) if deployment.spec.paused) {
        return Err(not_allowed(reference, format!("is paused: cannot {what} its rollout"))
            .with_remedy("resume it first"));
    }
    Ok(rolled)
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
