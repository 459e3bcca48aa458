//! Create, apply and delete, for every kind.

use std::sync::Arc;

use bulkhead_types::{
    ANNOTATION_UNIQUE, Deletion, EventKind, FENCING_LEVEL, Kind, LABEL_HOSTNAME, MANAGERS_MAX, Managers,
    Node, NodePhase, Object, ObjectRef, Pod, PodSpec, PodStatus, Rejection, RejectionCode, ReplicaSetStatus,
    validate_at,
};

use super::{
    Emit, autoscaling, claims, cpus, descheduler, devices, elastic, elastic_quotas, networks, node_pools,
    not_allowed, not_found, persistent_volumes, priorities, quota, scoring, snapshots, storage_classes,
    vertical,
};
use crate::State;
use crate::admission::admit;

/// The namespace that is always there.
pub(super) const NAMESPACE_DEFAULT: &str = "default";
/// What helps where a field cannot change.
const MAKE_ANEW: &str = "delete the object and create it anew, or give the new one another name";

pub(super) fn create(state: &State, object: &Object, emit: &mut Emit<'_>) -> Result<(), Rejection> {
    check_valid(state, object)?;
    let resolved = storage_classes::resolve(state, None, object)?;
    let object = &*resolved;
    let reference = object.object_ref();
    check_managers(&reference, &object.meta().managers.get().cloned().unwrap_or_default())?;
    check_namespace(state, &reference)?;
    if state.find_object(&reference).is_some() {
        return Err(Rejection::new(RejectionCode::AlreadyExists, reference.to_string(), "already exists")
            .with_remedy("choose another name, or apply instead of create"));
    }
    if matches!(object, Object::Node(_)) {
        return Err(not_allowed(reference, "nodes are created by their own agents")
            .with_remedy("start an agent with this name"));
    }
    autoscaling::check_alone(state, object)?;
    vertical::check_alone(state, object)?;
    priorities::check(state, object)?;
    elastic::check(state, object)?;
    devices::check(state, object)?;
    cpus::check(state, object)?;
    networks::check(state, None, object)?;
    scoring::check(state, None, object)?;
    elastic_quotas::check_alone(state, object)?;
    claims::check_scalers(state, object)?;
    storage_classes::check_templates(state, object)?;
    snapshots::check_new(state, object)?;
    quota::check(state, None, object)?;
    node_pools::check(state, object)?;
    descheduler::check(state, object)?;
    if matches!(object, Object::PersistentVolume(_)) {
        return Err(not_allowed(reference, "is made when a claim goes that is to be retained"));
    }
    let mut object = fresh(object, emit);
    quota::check_room(state, &object)?;
    persistent_volumes::adopt(state, &mut object, emit)?;
    node_pools::create_default(state, &object, emit);
    emit.create(object);
    Ok(())
}

/// What somebody decided on an object that is still the same: without that, others' changes would be undone.
pub(super) fn update(
    state: &State,
    object: &Object,
    seen: Option<u128>,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    let reference = object.object_ref();
    let present = state.find_object(&reference);
    if present.as_ref().map(|present| present.meta().edit_digest()) != seen {
        return Err(Rejection::new(RejectionCode::Conflict, reference.to_string(), "changed meanwhile")
            .with_remedy("try again"));
    }
    let Some(present) = present else { return create(state, object, emit) };
    apply(state, object, emit)?;
    let managers = object.meta().managers.get().cloned().unwrap_or_default();
    check_managers(&reference, &managers)?;
    if present.meta().managers != object.meta().managers {
        emit.push(EventKind::ManagersChanged { kind: reference.kind, id: present.meta().id, managers });
    }
    Ok(())
}

fn check_managers(reference: &ObjectRef, managers: &Managers) -> Result<(), Rejection> {
    let is_ordered =
        managers.managers.is_sorted_by(|a, b| (&a.manager, a.operation) < (&b.manager, b.operation));
    if managers.managers.len() <= MANAGERS_MAX && is_ordered {
        return Ok(());
    }
    let field = format!("{reference}: metadata.managedFields");
    let reason = format!("must be at most {MANAGERS_MAX} managers, each once, in order");
    Err(Rejection::new(RejectionCode::Invalid, field, reason)
        .with_remedy("apply under a name that manages fields of it already"))
}

/// The object as submitted, without anything that only the control plane may set.
fn fresh(object: &Object, emit: &Emit<'_>) -> Object {
    let mut object = object.clone();
    let meta = object.meta_mut();
    meta.owner = None;
    meta.trace_context = emit.trace_context().cloned();
    match &mut object {
        Object::Pod(pod) => {
            let pod = Arc::make_mut(pod);
            pod.node = None;
            pod.status = PodStatus::default();
        }
        Object::ReplicaSet(set) => {
            let set = Arc::make_mut(set);
            set.spec.rollout_revision = 0;
            set.status = ReplicaSetStatus::default();
        }
        Object::Deployment(deployment) => Arc::make_mut(deployment).status = Default::default(),
        Object::StatefulSet(set) => Arc::make_mut(set).status = Default::default(),
        Object::DaemonSet(set) => Arc::make_mut(set).status = Default::default(),
        Object::Job(job) => Arc::make_mut(job).status = Default::default(),
        Object::CronJob(job) => Arc::make_mut(job).status = Default::default(),
        Object::HorizontalPodAutoscaler(one) => Arc::make_mut(one).status = Default::default(),
        Object::CronHorizontalPodAutoscaler(one) => Arc::make_mut(one).status = Default::default(),
        Object::PodDisruptionBudget(one) => Arc::make_mut(one).status = Default::default(),
        Object::ElasticWorkload(one) => Arc::make_mut(one).status = Default::default(),
        Object::VerticalPodAutoscaler(one) => Arc::make_mut(one).status = Default::default(),
        Object::PersistentVolumeClaim(one) => Arc::make_mut(one).status = Default::default(),
        Object::ResourceQuota(one) => Arc::make_mut(one).status = Default::default(),
        Object::Project(one) => Arc::make_mut(one).status = Default::default(),
        Object::Department(one) => Arc::make_mut(one).status = Default::default(),
        Object::PodGroup(one) => Arc::make_mut(one).status = Default::default(),
        Object::Queue(one) => Arc::make_mut(one).status = Default::default(),
        Object::NodePool(one) => Arc::make_mut(one).status = Default::default(),
        Object::NodeOperation(one) => Arc::make_mut(one).status = Default::default(),
        Object::DeschedulerPolicy(one) => Arc::make_mut(one).status = Default::default(),
        Object::ElasticQuotaTree(one) => Arc::make_mut(one).status = Default::default(),
        Object::VolumeSnapshot(one) => Arc::make_mut(one).status = Default::default(),
        Object::Namespace(_)
        | Object::Node(_)
        | Object::ConfigMap(_)
        | Object::Secret(_)
        | Object::PriorityClass(_)
        | Object::Profile(_)
        | Object::LimitRange(_)
        | Object::StorageClass(_)
        | Object::PersistentVolume(_)
        | Object::DeviceClass(_)
        | Object::ResourceSlice(_)
        | Object::SriovNetworkNodePolicy(_)
        | Object::SriovNetwork(_)
        | Object::SriovIBNetwork(_)
        | Object::SriovNetworkNodeState(_)
        | Object::ControllerRevision(_) => {}
    }
    object
}

pub(super) fn check_valid(state: &State, object: &Object) -> Result<(), Rejection> {
    let mut errors = validate_at(object, state.feature_level());
    if let Object::CronJob(cron_job) = object {
        errors.extend(super::jobs::schedule_error(&cron_job.spec));
    }
    if let Object::CronHorizontalPodAutoscaler(scaler) = object {
        errors.extend(super::cron_scaling::schedule_errors(&scaler.spec));
    }
    let Some(first) = errors.first() else { return Ok(()) };
    let field = format!("{}: {}", object.object_ref(), first.path);
    let reason = match errors.len() {
        1 => first.reason.clone(),
        n => format!("{} (and {} more)", first.reason, n - 1),
    };
    Err(Rejection::new(RejectionCode::Invalid, field, reason))
}

fn check_namespace(state: &State, reference: &ObjectRef) -> Result<(), Rejection> {
    match (&reference.namespace, reference.kind.is_namespaced()) {
        (None, false) => Ok(()),
        (Some(_), false) => Err(Rejection::new(
            RejectionCode::Invalid,
            format!("{reference}: metadata.namespace"),
            format!("a {} has no namespace", reference.kind),
        )),
        (None, true) => Err(Rejection::new(
            RejectionCode::Invalid,
            format!("{reference}: metadata.namespace"),
            "is missing",
        )),
        (Some(namespace), true) => {
            let found = state.find(Kind::Namespace, None, namespace).and_then(|id| state.namespaces.get(id));
            match found {
                None => {
                    Err(not_found(format!("Namespace {namespace}")).with_remedy("create the namespace first"))
                }
                Some(found) if found.meta.is_deleting() => Err(not_allowed(
                    format!("Namespace {namespace}"),
                    "is being deleted: nothing new may enter",
                )),
                Some(_) => Ok(()),
            }
        }
    }
}

pub(super) fn apply(state: &State, object: &Object, emit: &mut Emit<'_>) -> Result<(), Rejection> {
    let reference = object.object_ref();
    let Some(present) = state.find_object(&reference) else { return create(state, object, emit) };
    check_valid(state, object)?;
    let resolved = storage_classes::resolve(state, Some(&present), object)?;
    let completed = persistent_volumes::completed(&present, &resolved);
    let object = &*completed;
    if present.meta().is_deleting() {
        return Err(not_allowed(&reference, "is being deleted")
            .with_remedy("wait until it is gone, then apply again"));
    }
    check_unowned(state, &present)?;
    autoscaling::check_alone(state, object)?;
    vertical::check_alone(state, object)?;
    priorities::check(state, object)?;
    elastic::check(state, object)?;
    devices::check(state, object)?;
    cpus::check(state, object)?;
    networks::check(state, Some(&present), object)?;
    scoring::check(state, Some(&present), object)?;
    claims::check_scalers(state, object)?;
    snapshots::check_growth(state, &present, object)?;
    quota::check(state, Some(&present), object)?;
    if replicas(&present) != replicas(object) {
        autoscaling::check_manual(state, &reference)?;
    }
    let id = present.meta().id;
    let labels = applied_labels(&present, object)?;
    if labels != present.meta().labels || object.meta().annotations != present.meta().annotations {
        let annotations = object.meta().annotations.clone();
        emit.push(EventKind::MetaChanged { kind: reference.kind, id, labels, annotations });
    }
    match (&present, object) {
        (Object::Pod(present), Object::Pod(wanted))
            if present.is_declared_unique() != wanted.is_declared_unique()
                && state.feature_level() >= FENCING_LEVEL =>
        {
            let path = format!("metadata.annotations[{ANNOTATION_UNIQUE}]");
            return Err(immutable(&reference, &path, "its guest was started by it and cannot change")
                .with_remedy("delete the pod and create it anew"));
        }
        (Object::Pod(present), Object::Pod(wanted)) if !is_same_pod(state, present, wanted) => {
            return Err(immutable(&reference, "spec", "a pod's spec cannot change")
                .with_remedy(other_spec_remedy(present, wanted)));
        }
        (Object::Deployment(present), Object::Deployment(wanted)) if present.spec != wanted.spec => {
            if present.spec.selector != wanted.spec.selector {
                return Err(immutable(&reference, "spec.selector", "cannot change after creation")
                    .with_remedy(MAKE_ANEW));
            }
            emit.push(EventKind::DeploymentSpecChanged { id, spec: wanted.spec.clone() });
        }
        (Object::ReplicaSet(present), Object::ReplicaSet(wanted)) if present.spec != wanted.spec => {
            if present.spec.selector != wanted.spec.selector {
                return Err(immutable(&reference, "spec.selector", "cannot change after creation")
                    .with_remedy(MAKE_ANEW));
            }
            let spec = bulkhead_types::ReplicaSetSpec { rollout_revision: 0, ..wanted.spec.clone() };
            emit.push(EventKind::ReplicaSetSpecChanged { id, spec });
        }
        (Object::Node(present), Object::Node(wanted)) if present.spec != wanted.spec => {
            emit.push(EventKind::NodeSpecChanged { id, spec: wanted.spec.clone() });
        }
        _ => change_spec(&present, object, &reference, emit)?,
    }
    Ok(())
}

/// Refuses to change by hand what follows its owner.
pub(super) fn check_unowned(state: &State, object: &Object) -> Result<(), Rejection> {
    let follows = matches!(object, Object::ReplicaSet(_) | Object::Job(_) | Object::Deployment(_));
    let owner = object.meta().owner.filter(|_| follows);
    let Some(owner) = owner.and_then(|owner| state.object(owner.kind, owner.id)) else { return Ok(()) };
    Err(not_allowed(object.object_ref(), format!("belongs to {}", owner.object_ref()))
        .with_remedy("change that instead"))
}

/// Whether a pod's manifest asks for what the pod is: as it stands, or with what profiles make of it.
fn is_same_pod(state: &State, present: &Pod, wanted: &Arc<Pod>) -> bool {
    let (has, desired) = (&*present.spec, &*present.desired_spec());
    let is = |spec: &PodSpec| spec == has || spec == desired;
    is(&wanted.spec) || is(&admit(state, wanted).spec)
}

/// What helps who applies another spec of a pod.
fn other_spec_remedy(present: &Pod, wanted: &Pod) -> &'static str {
    let resized = wanted.spec.resized(&present.desired_spec().sizes());
    match resized == *present.desired_spec() {
        true => "cpu and memory of a pod that runs change with `bulkhead resize pod`",
        false => "delete the pod and create it anew",
    }
}

/// The size of what an autoscaler may scale.
fn replicas(object: &Object) -> Option<u32> {
    match object {
        Object::Deployment(deployment) => Some(deployment.spec.replicas),
        Object::StatefulSet(set) => Some(set.spec.replicas),
        Object::ElasticWorkload(workload) => Some(workload.spec.replicas),
        _ => None,
    }
}

/// Changes the spec of an object of a kind that has no event of its own for that.
fn change_spec(
    present: &Object,
    wanted: &Object,
    reference: &ObjectRef,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    if !super::specs::differ(present, wanted) {
        return Ok(());
    }
    if let Some((path, reason)) = super::specs::immutable_change(present, wanted) {
        // Its deletion would be that of its data.
        let is_data = matches!(present, Object::PersistentVolume(_));
        let remedy = if is_data { "leave the rest as `get -o yaml` prints it" } else { MAKE_ANEW };
        return Err(immutable(reference, path, reason).with_remedy(remedy));
    }
    let mut object = wanted.clone();
    *object.meta_mut() = present.meta().clone();
    emit.push(EventKind::SpecChanged(object));
    Ok(())
}

fn immutable(reference: &ObjectRef, path: &str, reason: &str) -> Rejection {
    Rejection::new(RejectionCode::Invalid, format!("{reference}: {path}"), reason)
}

/// The labels after an apply. A node keeps what its agent says under what the operator gives, and its host
/// name label is the system's.
fn applied_labels(present: &Object, wanted: &Object) -> Result<bulkhead_types::StringMap, Rejection> {
    let (Object::Node(node), Object::Node(wanted)) = (present, wanted) else {
        return Ok(wanted.meta().labels.clone());
    };
    let hostname = node.meta.labels.get(LABEL_HOSTNAME);
    if wanted.meta.labels.get(LABEL_HOSTNAME).is_some_and(|given| Some(given) != hostname) {
        let field = format!("Node {}: metadata.labels[{LABEL_HOSTNAME}]", node.meta.name);
        return Err(not_allowed(field, "is a system label and cannot be changed"));
    }
    let mut labels = node.status.facts.labels.clone();
    labels.extend(wanted.meta.labels.clone());
    labels.extend(hostname.map(|name| (LABEL_HOSTNAME.into(), name.clone())));
    Ok(labels)
}

pub(super) fn delete(
    state: &State,
    reference: &ObjectRef,
    grace_ms: Option<u64>,
    force: bool,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    let object = state.find_object(reference).ok_or_else(|| not_found(reference))?;
    let (kind, id) = (reference.kind, object.meta().id);
    quota::check_delete(state, &object)?;
    node_pools::check_delete(state, &object)?;
    match &object {
        Object::Pod(pod) => super::pods::delete_one(state, pod, grace_ms, force, "Deleted", emit),
        Object::Namespace(namespace) => {
            if namespace.meta.name.as_str() == NAMESPACE_DEFAULT {
                return Err(not_allowed(reference, "is always there and cannot be deleted"));
            }
            if state.is_namespace_empty(&namespace.meta.name) {
                emit.push(EventKind::ObjectDeleted { kind, id });
            } else if !namespace.meta.is_deleting() {
                let deletion =
                    Deletion { requested_at_ms: emit.at_ms(), grace_ms: 0, by_job: false, preemptor: None };
                emit.push(EventKind::DeletionRequested { kind, id, deletion, reason: "Deleted".into() });
            }
        }
        Object::Node(node) => delete_node(state, node, force, emit)?,
        Object::PersistentVolumeClaim(claim) => claims::delete(state, claim, "Deleted", emit),
        Object::PersistentVolume(volume) => persistent_volumes::delete(volume, emit),
        Object::StorageClass(class) => {
            storage_classes::check_delete(state, class)?;
            emit.push(EventKind::ObjectDeleted { kind, id });
        }
        Object::VolumeSnapshot(snapshot) => snapshots::delete(state, snapshot, "Deleted", emit),
        Object::StatefulSet(set) => {
            claims::delete_with(state, set, emit);
            emit.push(EventKind::ObjectDeleted { kind, id });
        }
        // What a workload owns follows it: the garbage collector sees that its owner is gone.
        Object::ControllerRevision(_) => {
            return Err(not_allowed(reference, "is its owner's own and goes with it"));
        }
        Object::ResourceSlice(_) | Object::SriovNetworkNodeState(_) => {
            return Err(not_allowed(reference, "is its node's own and goes with it"));
        }
        Object::SriovNetwork(_) | Object::SriovIBNetwork(_) => {
            networks::check_unused(state, &object, "cannot go now")?;
            emit.push(EventKind::ObjectDeleted { kind, id });
        }
        _ => emit.push(EventKind::ObjectDeleted { kind, id }),
    }
    Ok(())
}

/// A node may go when nothing runs there: it holds no pod, or its machine is declared dead by the operator
/// after its lease ran out. Its pods go with it. One with pods that must be unique is fenced first, unless the operator
/// knows better.
fn delete_node(state: &State, node: &Node, force: bool, emit: &mut Emit<'_>) -> Result<(), Rejection> {
    let id = node.meta.id;
    let pods: Vec<_> = state.pods_on(id).cloned().collect();
    if !pods.is_empty() && node.status.phase == NodePhase::Ready {
        return Err(not_allowed(
            format!("Node {}", node.meta.name),
            format!("is Ready and holds {} pods", pods.len()),
        )
        .with_remedy("drain the node first"));
    }
    let may_live = |pod: &&Arc<Pod>| super::pods::may_live_uniquely(state, pod) == Some(true);
    let unique = state.pods_on(id).filter(may_live).count();
    if unique > 0 && !force {
        return Err(not_allowed(
            format!("Node {}", node.meta.name),
            format!("is not fenced yet: {unique} pods that must be unique may still run there"),
        )
        .with_remedy(
            "wait until it is NotReady,Fenced, or use --force if you know that the machine is off",
        ));
    }
    for pod in pods {
        emit.push(EventKind::ObjectDeleted { kind: Kind::Pod, id: pod.meta.id });
        super::job_ends::count(state, &pod, None, false, emit);
    }
    claims::lose(state, id, emit);
    snapshots::lose(state, id, emit);
    persistent_volumes::lose(state, id, emit);
    if let Some(slice) = state.resource_slice_of(id) {
        emit.push(EventKind::ObjectDeleted { kind: Kind::ResourceSlice, id: slice.meta.id });
    }
    if let Some(nics) = state.sriov_state_of(id) {
        emit.push(EventKind::ObjectDeleted { kind: Kind::SriovNetworkNodeState, id: nics.meta.id });
    }
    emit.push(EventKind::ObjectDeleted { kind: Kind::Node, id });
    Ok(())
}
