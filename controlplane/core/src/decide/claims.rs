//! PersistentVolumeClaims: their end, their nodes, and who may share one.

use std::collections::BTreeSet;
use std::sync::Arc;

use bulkhead_types::{
    ClaimPhase, ClaimRetention, ContainerState, ContainerStatus, Deletion, EventKind, Kind, Name, Object,
    ObjectId, ObjectMeta, ObjectRef, ObjectStatus, PLACEMENT_LEVEL, PersistentVolumeClaim,
    PersistentVolumeClaimStatus, Pod, PodPhase, PodSpec, PodStatus, Rare, Rejection, SHARED_VOLUMES_LEVEL,
    StatefulSet, Volume, VolumeClaimTemplate, shared_reason,
};
use smol_str::SmolStr;

use super::garbage::Disposal;
use super::nodes::{check_incarnation, check_not_fenced};
use super::{Emit, check_items, not_allowed, not_found};
use crate::State;
use crate::claims::{claims_of, is_in_use};
use crate::workload;

/// Asks for a claim to end. It goes at once when nobody uses it and no node has to delete its data; else when the last
/// user is gone and the node says so.
pub(super) fn delete(state: &State, claim: &PersistentVolumeClaim, reason: &str, emit: &mut Emit<'_>) {
    let (kind, id) = (Kind::PersistentVolumeClaim, claim.meta.id);
    if may_go(state, claim) {
        super::persistent_volumes::remove_claim(state, claim, emit);
    } else if !claim.meta.is_deleting() {
        let deletion =
            Deletion { requested_at_ms: emit.at_ms(), grace_ms: 0, by_job: false, preemptor: None };
        emit.push(EventKind::DeletionRequested { kind, id, deletion, reason: reason.into() });
    }
}

/// Whether nothing keeps a claim that is not wanted any more.
fn may_go(state: &State, claim: &PersistentVolumeClaim) -> bool {
    claim.reclaimed_by().is_none() && !is_in_use(state, claim)
}

/// How a claim goes whose namespace ends, or that ends itself.
pub(super) fn disposal(state: &State, claim: &PersistentVolumeClaim, doomed: bool) -> Option<Disposal> {
    match (claim.meta.is_deleting(), doomed) {
        (true, _) => may_go(state, claim).then_some(Disposal::Remove),
        (false, true) => Some(Disposal::End),
        (false, false) => None,
    }
}

/// What an agent says it deleted: those claims go that waited for that.
pub(super) fn report(
    state: &State,
    node: ObjectId,
    incarnation: u64,
    deleted: &[ObjectId],
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    check_items("deleted", deleted.len())?;
    let node = state.nodes.get(node).ok_or_else(|| not_found(format!("Node {node}")))?;
    check_incarnation(node, incarnation)?;
    check_not_fenced(node)?;
    let mut seen = BTreeSet::new();
    for id in deleted.iter().filter(|id| seen.insert(**id)) {
        if let Some(snapshot) = state.volume_snapshots.get(*id) {
            super::snapshots::deleted(state, node.meta.id, snapshot, emit);
            continue;
        }
        if let Some(volume) = state.persistent_volumes.get(*id) {
            super::persistent_volumes::deleted(node.meta.id, volume, emit);
            continue;
        }
        let Some(claim) = state.persistent_volume_claims.get(*id) else { continue };
        let waits = claim.meta.is_deleting() && claim.reclaimed_by() == Some(node.meta.id);
        if waits && !is_in_use(state, claim) {
            emit.push(EventKind::ObjectDeleted { kind: Kind::PersistentVolumeClaim, id: *id });
        }
    }
    Ok(())
}

/// A pod's containers have begun: what its claims' node keeps is data from now on.
pub(super) fn mark_used(state: &State, pod: &Pod, seen: &PodStatus, emit: &mut Emit<'_>) {
    let has_begun = |status: &ContainerStatus| {
        status.last_termination.is_some() || !matches!(status.state, ContainerState::Waiting { .. })
    };
    let any_has_begun =
        seen.phase == PodPhase::Running || seen.init_containers.iter().chain(&seen.containers).any(has_begun);
    if state.feature_level() < PLACEMENT_LEVEL || !any_has_begun {
        return;
    }
    let namespace = pod.meta.namespace.as_ref();
    for claim in pod.spec.claims().filter_map(|name| state.claim(namespace, name)) {
        if claim.status.first_used_at_ms.get().is_some() || claim.bound_node() != pod.node {
            continue;
        }
        let first_used_at_ms = Rare::some(emit.at_ms());
        let status = PersistentVolumeClaimStatus { first_used_at_ms, ..claim.status.clone() };
        let status = ObjectStatus::PersistentVolumeClaim(status);
        emit.push(EventKind::StatusChanged { id: claim.meta.id, status });
    }
}

/// A node is forgotten: what it kept is lost.
pub(super) fn lose(state: &State, node: ObjectId, emit: &mut Emit<'_>) {
    for claim in state.claims_on(node) {
        let status = PersistentVolumeClaimStatus { phase: ClaimPhase::Lost, ..claim.status.clone() };
        let status = ObjectStatus::PersistentVolumeClaim(status);
        emit.push(EventKind::StatusChanged { id: claim.meta.id, status });
    }
}

/// Makes the claims of an ordinal that are missing, before its pod; false when one of them still ends, so that the pod
/// has to wait.
pub(super) fn make(state: &State, set: &StatefulSet, ordinal: u32, emit: &mut Emit<'_>) -> bool {
    let namespace = set.meta.namespace.as_ref();
    for template in set.spec.claim_templates() {
        let Some(name) = template.claim_name(&set.meta.name, ordinal) else { return false };
        if state.claim(namespace, name.as_str()).is_some_and(|claim| claim.meta.is_deleting()) {
            return false;
        }
    }
    for claim in missing(state, set, ordinal) {
        emit.create(Object::PersistentVolumeClaim(Arc::new(claim)));
    }
    true
}

/// The claims of an ordinal that are not there.
pub(crate) fn missing(state: &State, set: &StatefulSet, ordinal: u32) -> Vec<PersistentVolumeClaim> {
    let namespace = set.meta.namespace.as_ref();
    let named = set.spec.claim_templates().iter().filter_map(|template| {
        let name = template.claim_name(&set.meta.name, ordinal)?;
        let is_missing = state.claim(namespace, name.as_str()).is_none();
        is_missing.then(|| claim_from(state, set, template, name))
    });
    named.collect()
}

/// A claim as a StatefulSet's template describes it. The set does not own it: it may outlive the set.
pub(crate) fn claim_from(
    state: &State,
    set: &StatefulSet,
    template: &VolumeClaimTemplate,
    name: Name,
) -> PersistentVolumeClaim {
    let mut meta = ObjectMeta::new(set.meta.namespace.clone(), name);
    meta.labels = template.labels.clone();
    meta.labels.extend(set.spec.selector.match_labels.clone());
    meta.annotations = template.annotations.clone();
    meta.trace_context = set.meta.trace_context.clone();
    let (source, status) = (Rare::NONE, PersistentVolumeClaimStatus::default());
    let mut claim = PersistentVolumeClaim { meta, spec: template.spec.clone(), source, status };
    super::storage_classes::of_template(state, &mut claim);
    claim
}

/// Makes a claim of a StatefulSet's pod anew that somebody deleted before the pod had its node.
pub(super) fn make_again(
    state: &State,
    set: &StatefulSet,
    name: &Name,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    let namespace = set.meta.namespace.as_ref();
    let has_pod = |ordinal: u32| {
        let pod = workload::pod_name(&set.meta.name, ordinal);
        let pod = pod.and_then(|name| state.find(Kind::Pod, namespace, &name));
        pod.and_then(|id| state.pods.get(id))
            .is_some_and(|pod| pod.meta.owner.is_some_and(|owner| owner.id == set.meta.id))
    };
    let mut templates = set.spec.claim_templates().iter();
    let template = templates.find(|one| one.ordinal_of(&set.meta.name, name).is_some_and(has_pod));
    match template.filter(|_| state.claim(namespace, name.as_str()).is_none()) {
        Some(template) => {
            let claim =
                Object::PersistentVolumeClaim(Arc::new(claim_from(state, set, template, name.clone())));
            super::quota::check_room(state, &claim)?;
            emit.create(claim);
            Ok(())
        }
        None => Err(not_allowed(
            format!("PersistentVolumeClaim {name}"),
            "is there, or no pod of the StatefulSet waits for it",
        )),
    }
}

/// Whether a claim is of an ordinal above or below the wanted ones, has no pod, and goes by its set's policy. A set that
/// is stopped wants all of its ordinals.
pub(crate) fn is_surplus(
    state: &State,
    set: &StatefulSet,
    ordinal: u32,
    claim: &PersistentVolumeClaim,
) -> bool {
    let policy = set.spec.claims.get().map(|claims| claims.when_scaled);
    let first = set.spec.ordinals_start;
    let is_wanted = (first..first.saturating_add(set.spec.replicas)).contains(&ordinal);
    let pod = workload::pod_name(&set.meta.name, ordinal);
    let has_pod = |name: &Name| state.find(Kind::Pod, set.meta.namespace.as_ref(), name).is_some();
    policy == Some(ClaimRetention::Delete)
        && !is_wanted
        && !claim.meta.is_deleting()
        && !pod.as_ref().is_some_and(has_pod)
}

/// Deletes a claim that its set does not want any more; see [`is_surplus`].
pub(super) fn delete_surplus(
    state: &State,
    set: &StatefulSet,
    claim: &PersistentVolumeClaim,
    emit: &mut Emit<'_>,
) {
    let templates = set.spec.claim_templates().iter();
    let mut ordinals = templates.filter_map(|one| one.ordinal_of(&set.meta.name, &claim.meta.name));
    let is_own = claim.meta.namespace == set.meta.namespace;
    if is_own && ordinals.any(|ordinal| is_surplus(state, set, ordinal, claim)) {
        delete(state, claim, "ScaledDown", emit);
    }
}

/// A StatefulSet is deleted: its claims go with it, if that is its policy.
pub(super) fn delete_with(state: &State, set: &StatefulSet, emit: &mut Emit<'_>) {
    if set.spec.claims.get().is_none_or(|claims| claims.when_deleted == ClaimRetention::Retain) {
        return;
    }
    // A name may be that of two templates' claims.
    let mut seen = BTreeSet::new();
    for (_, claim) in claims_of(state, set).filter(|(_, claim)| seen.insert(claim.meta.id)) {
        delete(state, claim, "OwnerDeleted", emit);
    }
}

/// The claim that all pods of a workload would share, and to which they may write.
fn shared_claim(state: &State, object: &Object) -> Option<String> {
    let of_pods = |spec: &PodSpec| spec.volumes().iter().filter_map(Volume::claim).map(told).collect();
    let claims: Vec<(String, bool)> = match object {
        Object::Deployment(deployment) => of_pods(&deployment.spec.template.spec),
        Object::ReplicaSet(set) => of_pods(&set.spec.template.spec),
        Object::StatefulSet(set) => set.spec.shared_claims().map(told).collect(),
        _ => return None,
    };
    let may_read = state.feature_level() >= SHARED_VOLUMES_LEVEL;
    claims.into_iter().find(|(_, read_only)| !(*read_only && may_read)).map(|(name, _)| name)
}

fn told((name, read_only): (&SmolStr, bool)) -> (String, bool) {
    (name.to_string(), read_only)
}

/// Refuses more than one pod of what shares a claim among them, to which they may write.
pub(super) fn check_size(state: &State, object: &Object, replicas: u32) -> Result<(), Rejection> {
    match shared_claim(state, object).filter(|_| replicas > 1) {
        Some(claim) => {
            Err(not_allowed(format!("{}: spec.replicas", object.object_ref()), shared_reason(&claim)))
        }
        None => Ok(()),
    }
}

/// Refuses an autoscaler that would give more than one pod to what shares a claim among them, and such a workload where
/// there is such an autoscaler: whichever comes second.
pub(super) fn check_scalers(state: &State, object: &Object) -> Result<(), Rejection> {
    let reference = object.object_ref();
    let namespace = reference.namespace.as_ref();
    let refuse = |field: &str, reason: String, remedy: &str| {
        Err(not_allowed(format!("{reference}: {field}"), reason).with_remedy(remedy))
    };
    match object {
        Object::HorizontalPodAutoscaler(one) if one.spec.max_replicas > 1 => {
            let target = one.spec.target.object_ref(namespace);
            match claim_of(state, &target) {
                Some(claim) => {
                    refuse("spec.maxReplicas", shared_reason(&claim), "set it to 1, or scale something else")
                }
                None => Ok(()),
            }
        }
        Object::CronHorizontalPodAutoscaler(one) => {
            let mut target = one.spec.target.object_ref(namespace);
            if let Some(Object::HorizontalPodAutoscaler(inner)) = state.find_object(&target) {
                target = inner.spec.target.object_ref(namespace);
            }
            let index = one.spec.jobs.iter().position(|job| job.target_size > 1);
            match (index, claim_of(state, &target)) {
                (Some(index), Some(claim)) => refuse(
                    &format!("spec.jobs[{index}].targetSize"),
                    shared_reason(&claim),
                    "set it to 1, or scale something else",
                ),
                _ => Ok(()),
            }
        }
        _ => match (shared_claim(state, object), scaler_of(state, &reference)) {
            (Some(claim), Some(scaler)) => {
                let reason = format!(
                    "{scaler} may give it more than one pod, and all would use PersistentVolumeClaim {claim}, which one \
                     guest at a time can have"
                );
                refuse(
                    "spec.template.spec.volumes",
                    reason,
                    "delete that first, or let it scale to 1 at most",
                )
            }
            _ => Ok(()),
        },
    }
}

fn claim_of(state: &State, target: &ObjectRef) -> Option<String> {
    shared_claim(state, &state.find_object(target)?)
}

/// What may give a workload more than one pod.
fn scaler_of(state: &State, target: &ObjectRef) -> Option<ObjectRef> {
    let by_clock = |target: &ObjectRef| {
        let scaler = state.cron_autoscaler_of(target)?;
        let is_wide = scaler.spec.jobs.iter().any(|job| job.target_size > 1);
        is_wide.then(|| Object::CronHorizontalPodAutoscaler(Arc::clone(scaler)).object_ref())
    };
    let Some(autoscaler) = state.autoscaler_of(target) else { return by_clock(target) };
    let reference = Object::HorizontalPodAutoscaler(Arc::clone(autoscaler)).object_ref();
    if autoscaler.spec.max_replicas > 1 { Some(reference) } else { by_clock(&reference) }
}
