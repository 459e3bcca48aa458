//! `evolve`: events become State. It cannot fail and takes no decision.

mod job_counts;

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_types::{
    ContainerStatus, DeploymentSpec, DeviceFence, DeviceState, Event, EventKind, FAULTS_KEPT_MAX,
    FaultAction, HandledFault, Kind, LABEL_HOSTNAME, MemberId, MemberRecord, MemberRole, Name, Node,
    NodeFacts, NodePhase, Object, ObjectId, ObjectMeta, ObjectStatus, PARTITIONS_LEVEL, Pod, PodStatus, Rare,
    ResourceSlice, Revision, StringMap, Transaction, share_pci_traits,
};
use smol_str::SmolStr;
use uuid::Uuid;

use crate::State;
use crate::admission::admit;
use crate::devices::{card_of, known_pci_traits};
use crate::owned_pod::{Birth, owned_pod, set_pod};
use crate::resize::with_sizes;

/// How an object changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeType {
    /// It came to be.
    Added,
    /// It is another now.
    Modified,
    /// It is gone.
    Deleted,
}

/// One object's change, as watchers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The event's revision.
    pub revision: Revision,
    /// How it changed.
    pub change_type: ChangeType,
    /// The object after the change; its last self when deleted.
    pub object: Object,
    /// The object before the change; `None` when added.
    pub former: Option<Object>,
}

/// What an event takes from its transaction.
struct Context<'a> {
    at_ms: u64,
    trace_context: Option<&'a SmolStr>,
}

/// Applies a transaction: its events, its log time and its answer. Returns what watchers see, in order.
///
/// # Panics
/// When an event does not follow the State it was decided on: the log and this State belong to different
/// histories, and going on would spread the damage.
pub fn evolve(state: &mut State, transaction: &Transaction) -> Vec<Change> {
    state.now_ms = state.now_ms.max(transaction.at_ms);
    state.requests.expire(state.now_ms);
    let context = Context { at_ms: state.now_ms, trace_context: transaction.trace_context.as_ref() };
    let changes = transaction.events.iter().filter_map(|event| apply_event(state, &context, event)).collect();
    state.requests.record(transaction.request_id, state.now_ms, &transaction.outcome);
    changes
}

/// Applies the events of one command of a bundle, without the answer.
pub(crate) fn evolve_events(state: &mut State, transaction: &Transaction) -> Vec<Change> {
    let context = Context { at_ms: state.now_ms, trace_context: transaction.trace_context.as_ref() };
    transaction.events.iter().filter_map(|event| apply_event(state, &context, event)).collect()
}

fn apply_event(state: &mut State, context: &Context<'_>, event: &Event) -> Option<Change> {
    let revision = event.revision;
    assert_eq!(
        revision,
        state.revision + 1,
        "an event must follow the last one; was the log cut or mixed up?"
    );
    state.revision = revision;
    let (change_type, object) = match &event.kind {
        EventKind::ObjectCreated(Object::Pod(pod)) => (ChangeType::Added, Object::Pod(admit(state, pod))),
        EventKind::ObjectCreated(object) => (ChangeType::Added, object.clone()),
        EventKind::PodCreated { replica_set, name } => (
            ChangeType::Added,
            Object::Pod(admit(
                state,
                &Arc::new(set_pod(state, &Birth { revision, at_ms: context.at_ms }, *replica_set, name)),
            )),
        ),
        EventKind::OwnedPodCreated { owner, stamp } => (
            ChangeType::Added,
            Object::Pod(admit(
                state,
                &Arc::new(owned_pod(state, &Birth { revision, at_ms: context.at_ms }, *owner, stamp)),
            )),
        ),
        EventKind::ObjectDeleted { kind, id } => return Some(delete(state, revision, *kind, *id)),
        kind => match modified(state, context, kind) {
            Some(object) => (ChangeType::Modified, object),
            None => {
                apply_cluster_event(state, kind);
                return None;
            }
        },
    };
    Some(store(state, revision, change_type, object))
}

fn store(state: &mut State, revision: Revision, change_type: ChangeType, mut object: Object) -> Change {
    // What was just created has it, and shares its content with the event: to write to it would copy it.
    if object.meta().revision != revision {
        object.meta_mut().revision = revision;
    }
    let former = state.put(object.clone());
    Change { revision, change_type, object, former }
}

fn delete(state: &mut State, revision: Revision, kind: Kind, id: ObjectId) -> Change {
    let former = state
        .remove(kind, id)
        .unwrap_or_else(|| panic!("event {revision} deletes {kind} {id}, which is not there"));
    let mut object = former.clone();
    object.meta_mut().revision = revision;
    Change { revision, change_type: ChangeType::Deleted, object, former: Some(former) }
}

fn expect<'a, T>(row: Option<&'a Arc<T>>, kind: &str, id: ObjectId) -> &'a Arc<T> {
    row.unwrap_or_else(|| panic!("an event names {kind} {id}, which is not there"))
}

/// The object that the event changes, changed; `None` when the event is about the cluster itself.
fn modified(state: &State, context: &Context<'_>, kind: &EventKind) -> Option<Object> {
    Some(match kind {
        EventKind::MetaChanged { kind, id, labels, annotations } => changed_meta(state, *kind, *id, |meta| {
            meta.labels = labels.clone();
            meta.annotations = annotations.clone();
        }),
        EventKind::ManagersChanged { kind, id, managers } => {
            changed_meta(state, *kind, *id, |meta| meta.set_managers(managers.clone()))
        }
        EventKind::DeletionRequested { kind, id, deletion, .. } => {
            changed_meta(state, *kind, *id, |meta| meta.deletion = Some(Box::new(*deletion)))
        }
        EventKind::SpecChanged(object) => changed_spec(state, context, object),
        EventKind::StatusChanged { id, status } => changed_status(state, *id, status),
        EventKind::ControllerRevisionChanged { id, revision } => {
            let mut row = expect(state.controller_revisions.get(*id), "ControllerRevision", *id).clone();
            Arc::make_mut(&mut row).revision = *revision;
            Object::ControllerRevision(row)
        }
        EventKind::JobPodEnded { job, end, index, message } => {
            let mut row = expect(state.jobs.get(*job), "Job", *job).clone();
            job_counts::count_end(Arc::make_mut(&mut row), *end, *index, message, context.at_ms);
            Object::Job(row)
        }
        EventKind::DeploymentSpecChanged { id, spec } => changed_deployment(state, context, *id, spec),
        EventKind::DeploymentStatusChanged { id, status } => {
            let mut deployment = expect(state.deployments.get(*id), "Deployment", *id).clone();
            Arc::make_mut(&mut deployment).status = status.clone();
            Object::Deployment(deployment)
        }
        EventKind::DeliveryChanged { id, delivery } => {
            let mut deployment = expect(state.deployments.get(*id), "Deployment", *id).clone();
            Arc::make_mut(&mut deployment).status.delivery = delivery.clone();
            Object::Deployment(deployment)
        }
        EventKind::ReplicaSetSpecChanged { id, spec } => changed_replica_set(state, *id, |set| {
            set.spec = spec.clone();
            set.meta.generation += 1;
            set.meta.trace_context = context.trace_context.cloned();
        }),
        EventKind::ReplicaSetScaled { id, replicas } => changed_replica_set(state, *id, |set| {
            set.spec.replicas = *replicas;
            set.meta.generation += 1;
            // A set of its own follows the command that scaled it; one of a Deployment its Deployment.
            let of_owner =
                set.meta.owner.and_then(|o| state.deployments.get(o.id)).map(|d| &d.meta.trace_context);
            set.meta.trace_context = of_owner.cloned().unwrap_or_else(|| context.trace_context.cloned());
        }),
        EventKind::RolloutRevisionChanged { id, rollout_revision } => {
            changed_replica_set(state, *id, |set| set.spec.rollout_revision = *rollout_revision)
        }
        EventKind::ReplicaSetStatusChanged { id, status } => {
            changed_replica_set(state, *id, |set| set.status = status.clone())
        }
        EventKind::PodBound(binding) => changed_pod(state, binding.pod, |pod| {
            pod.node = Some(binding.node);
            pod.status.bound_at_ms = context.at_ms;
            pod.status.reason = SmolStr::default();
            pod.status.message = String::new();
            pod.status.nominated_node = Rare::NONE;
            pod.status.devices = Rare::unless_default(binding.devices.clone());
            pod.status.networks = Rare::unless_default(binding.networks.clone());
            pod.status.cpus = binding.cpus.clone();
        }),
        EventKind::PodResized { id, sizes, resize } => {
            changed_pod(state, *id, |pod| *pod = with_sizes(pod, sizes, resize))
        }
        EventKind::PodStatusChanged { id, status } => changed_pod_status(state, *id, status),
        _ => return changed_by_node_event(state, context, kind),
    })
}

fn changed_pod_status(state: &State, id: ObjectId, status: &PodStatus) -> Object {
    let Pod { meta, spec, node, status: former } = &**expect(state.pods.get(id), "Pod", id);
    let mut status = status.clone();
    // What it was given stays what it is, whatever anybody says of it.
    status.devices = former.devices.clone();
    status.networks = former.networks.clone();
    status.cpus = former.cpus.clone();
    status.resize = former.resize.clone();
    share_images(former, &mut status);
    if let Some(oldest) = oldest_sibling(state, meta) {
        share_images(&oldest.status, &mut status);
    }
    Object::Pod(Arc::new(Pod { meta: meta.clone(), spec: spec.clone(), node: *node, status }))
}

/// A node as it is after an event about it.
fn changed_by_node_event(state: &State, context: &Context<'_>, kind: &EventKind) -> Option<Object> {
    Some(match kind {
        EventKind::DevicesReported { id, incarnation, report } => changed_slice(state, *id, |slice| {
            (slice.incarnation, slice.sequence) = (*incarnation, report.sequence);
            let mut devices: BTreeMap<_, _> =
                slice.devices.drain(..).map(|device| (device.id.clone(), device)).collect();
            devices.retain(|id, _| !report.removed.contains(id));
            devices.extend(report.devices.iter().map(|device| (device.id.clone(), device.clone())));
            slice.devices = devices.into_values().collect();
            share_pci_traits(&mut slice.devices, &mut known_pci_traits(state));
            slice.cordoned.retain(|id| slice.devices.iter().any(|device| device.id == *id));
            if state.feature_level >= PARTITIONS_LEVEL {
                let mut known = slice.state.get().cloned().unwrap_or_default();
                known.gpu_mode = report.gpu_mode.clone();
                known.fences.retain(|fence| {
                    fence.action != FaultAction::Drain || !report.resets.contains(&fence.device)
                });
                slice.state = Rare::some(known);
            }
        }),
        EventKind::DeviceCordoned { id, device, cordoned } => changed_slice(state, *id, |slice| {
            slice.cordoned.retain(|one| one != device);
            // An operator who gives a device back knows better than its last fault.
            if let Some(known) = slice.state.get().filter(|_| !*cordoned) {
                let mut known = known.clone();
                known.fences.retain(|fence| fence.device != *device);
                slice.state = Rare::some(known);
            }
            if *cordoned {
                slice.cordoned.push(device.clone());
                slice.cordoned.sort_unstable();
            }
        }),
        EventKind::DeviceFaulted { id, handled } => changed_slice(state, *id, |slice| {
            let mut known = slice.state.get().cloned().unwrap_or_default();
            note_fault(&mut known, slice, handled, context.at_ms);
            slice.state = Rare::some(known);
        }),
        EventKind::NodeSpecChanged { id, spec } => changed_node(state, *id, |node| {
            node.spec = spec.clone();
            node.meta.generation += 1;
        }),
        EventKind::NodeRegistered { id, incarnation, facts } => changed_node(state, *id, |node| {
            node.meta.labels =
                node_labels(&node.meta.name, &node.meta.labels, &node.status.facts.labels, facts);
            node.status.incarnation = *incarnation;
            node.status.facts = facts.clone();
        }),
        EventKind::DeviceLabelsSynced { id, labels, record } => changed_node(state, *id, |node| {
            node.meta.labels = labels.clone();
            node.status.device_labels = record.clone();
        }),
        EventKind::ImagesReported { id, images } => changed_node(state, *id, |node| {
            node.status.images = Rare::unless_default(images.clone());
        }),
        EventKind::NodePoolSynced { id, labels, spec, record } => changed_node(state, *id, |node| {
            node.meta.labels = labels.clone();
            node.meta.generation += u64::from(node.spec != *spec);
            node.spec = spec.clone();
            node.status.pool = record.clone();
        }),
        EventKind::NodePhaseChanged { id, phase } => changed_node(state, *id, |node| {
            node.status.phase = *phase;
            if *phase != NodePhase::Fenced {
                node.status.phase_since_ms = context.at_ms;
            }
        }),
        _ => return None,
    })
}

/// A node's labels after a registration: what the agent says now, under what an operator set.
pub(crate) fn node_labels(
    name: &Name,
    present: &StringMap,
    former_facts: &StringMap,
    facts: &NodeFacts,
) -> StringMap {
    let mut labels = facts.labels.clone();
    let of_operator = present.iter().filter(|(key, value)| former_facts.get(*key) != Some(*value));
    labels.extend(of_operator.map(|(key, value)| (key.clone(), value.clone())));
    labels.insert(SmolStr::new_static(LABEL_HOSTNAME), SmolStr::new(name.as_str()));
    labels
}

fn changed_meta(state: &State, kind: Kind, id: ObjectId, change: impl FnOnce(&mut ObjectMeta)) -> Object {
    let mut object =
        state.object(kind, id).unwrap_or_else(|| panic!("an event names {kind} {id}, which is not there"));
    change(object.meta_mut());
    object
}

/// Takes the spec of an object of the same kind, where that is all that a user says; tells whether it is.
fn takes_whole_spec(present: &mut Object, wanted: &Object) -> bool {
    macro_rules! of_kinds {
        ($($kind:ident)+) => {
            match (present, wanted) {
                $((Object::$kind(present), Object::$kind(wanted)) => {
                    Arc::make_mut(present).spec.clone_from(&wanted.spec);
                    true
                })+
                _ => false,
            }
        };
    }
    of_kinds! {
        StatefulSet DaemonSet CronJob HorizontalPodAutoscaler CronHorizontalPodAutoscaler PodDisruptionBudget
        VerticalPodAutoscaler ElasticWorkload Profile PersistentVolumeClaim ResourceQuota LimitRange Project Department
        PodGroup Queue DeviceClass SriovNetworkNodePolicy SriovNetwork SriovIBNetwork SriovNetworkNodeState
        NodePool NodeOperation DeschedulerPolicy
        ElasticQuotaTree VolumeSnapshot StorageClass PersistentVolume
    }
}

/// The same of a kind that has more to take, or to follow.
fn take_content(present: &mut Object, wanted: &Object) {
    match (present, wanted) {
        (Object::Job(present), Object::Job(wanted)) => {
            let present = Arc::make_mut(present);
            present.spec = wanted.spec.clone();
            job_counts::follow_completions(present);
        }
        (Object::ConfigMap(present), Object::ConfigMap(wanted)) => {
            let present = Arc::make_mut(present);
            (present.immutable, present.data) = (wanted.immutable, wanted.data.clone());
            present.binary_data = wanted.binary_data.clone();
        }
        (Object::Secret(present), Object::Secret(wanted)) => {
            let present = Arc::make_mut(present);
            (present.immutable, present.data) = (wanted.immutable, wanted.data.clone());
        }
        (Object::PriorityClass(present), Object::PriorityClass(wanted)) => {
            let present = Arc::make_mut(present);
            present.global_default = wanted.global_default;
            present.description.clone_from(&wanted.description);
        }
        (other, _) => unreachable!("the spec of a {} changes by an event of its own", other.kind()),
    }
}

/// The present object with the spec of the one given: generation and trace move on, status and metadata stay.
fn changed_spec(state: &State, context: &Context<'_>, wanted: &Object) -> Object {
    let (kind, id) = (wanted.kind(), wanted.meta().id);
    let mut object =
        state.object(kind, id).unwrap_or_else(|| panic!("an event names {kind} {id}, which is not there"));
    if !takes_whole_spec(&mut object, wanted) {
        take_content(&mut object, wanted);
    }
    let meta = object.meta_mut();
    meta.generation += 1;
    meta.trace_context = context.trace_context.cloned();
    object
}

fn changed_status(state: &State, id: ObjectId, status: &ObjectStatus) -> Object {
    let kind = status.kind();
    let mut object =
        state.object(kind, id).unwrap_or_else(|| panic!("an event names {kind} {id}, which is not there"));
    match (&mut object, status) {
        (Object::StatefulSet(o), ObjectStatus::StatefulSet(s)) => Arc::make_mut(o).status = s.clone(),
        (Object::DaemonSet(o), ObjectStatus::DaemonSet(s)) => Arc::make_mut(o).status = s.clone(),
        (Object::Job(o), ObjectStatus::Job(s)) => Arc::make_mut(o).status = s.clone(),
        (Object::CronJob(o), ObjectStatus::CronJob(s)) => Arc::make_mut(o).status = s.clone(),
        (Object::HorizontalPodAutoscaler(o), ObjectStatus::HorizontalPodAutoscaler(s)) => {
            Arc::make_mut(o).status = s.clone();
        }
        (Object::CronHorizontalPodAutoscaler(o), ObjectStatus::CronHorizontalPodAutoscaler(s)) => {
            Arc::make_mut(o).status = s.clone();
        }
        (Object::PodDisruptionBudget(o), ObjectStatus::PodDisruptionBudget(s)) => {
            Arc::make_mut(o).status = s.clone();
        }
        (Object::ElasticWorkload(o), ObjectStatus::ElasticWorkload(s)) => Arc::make_mut(o).status = s.clone(),
        (Object::VerticalPodAutoscaler(o), ObjectStatus::VerticalPodAutoscaler(s)) => {
            let present = &mut Arc::make_mut(o).status;
            let mut next = s.clone();
            // The log holds a checkpoint once, not with every status that leaves it as it is.
            if next.checkpoint.is_empty() && next.checkpointed_at_ms == present.checkpointed_at_ms {
                next.checkpoint = std::mem::take(&mut present.checkpoint);
            }
            *present = next;
        }
        (Object::PersistentVolumeClaim(o), ObjectStatus::PersistentVolumeClaim(s)) => {
            Arc::make_mut(o).status = s.clone();
        }
        (Object::ResourceQuota(o), ObjectStatus::ResourceQuota(s)) => Arc::make_mut(o).status = s.clone(),
        (Object::Project(o), ObjectStatus::Project(s)) => Arc::make_mut(o).status = s.clone(),
        (Object::PodGroup(o), ObjectStatus::PodGroup(s)) => Arc::make_mut(o).status = s.clone(),
        (Object::Queue(o), ObjectStatus::Queue(s)) => Arc::make_mut(o).status = s.clone(),
        (Object::Department(o), ObjectStatus::Department(s)) => Arc::make_mut(o).status = s.clone(),
        (Object::VolumeSnapshot(o), ObjectStatus::VolumeSnapshot(s)) => Arc::make_mut(o).status = s.clone(),
        (Object::ElasticQuotaTree(o), ObjectStatus::ElasticQuotaTree(s)) => {
            Arc::make_mut(o).status = s.clone();
        }
        (Object::SriovNetworkNodeState(o), ObjectStatus::SriovNetworkNodeState(s)) => {
            Arc::make_mut(o).status = s.clone();
        }
        (Object::NodePool(o), ObjectStatus::NodePool(s)) => Arc::make_mut(o).status = s.clone(),
        (Object::NodeOperation(o), ObjectStatus::NodeOperation(s)) => Arc::make_mut(o).status = s.clone(),
        (Object::DeschedulerPolicy(o), ObjectStatus::DeschedulerPolicy(s)) => {
            Arc::make_mut(o).status = s.clone();
        }
        (other, status) => unreachable!("a {} has no status of a {}", other.kind(), status.kind()),
    }
    object
}

fn changed_deployment(state: &State, context: &Context<'_>, id: ObjectId, spec: &DeploymentSpec) -> Object {
    let mut deployment = expect(state.deployments.get(id), "Deployment", id).clone();
    let present = Arc::make_mut(&mut deployment);
    present.spec = spec.clone();
    present.meta.generation += 1;
    present.meta.trace_context = context.trace_context.cloned();
    Object::Deployment(deployment)
}

fn changed_replica_set(
    state: &State,
    id: ObjectId,
    change: impl FnOnce(&mut bulkhead_types::ReplicaSet),
) -> Object {
    let mut set = expect(state.replica_sets.get(id), "ReplicaSet", id).clone();
    change(Arc::make_mut(&mut set));
    Object::ReplicaSet(set)
}

fn changed_pod(state: &State, id: ObjectId, change: impl FnOnce(&mut Pod)) -> Object {
    let mut pod = expect(state.pods.get(id), "Pod", id).clone();
    change(Arc::make_mut(&mut pod));
    Object::Pod(pod)
}

/// The oldest pod of the same owner, the pod itself perhaps.
fn oldest_sibling<'a>(state: &'a State, meta: &ObjectMeta) -> Option<&'a Arc<Pod>> {
    state.pods_of(meta.owner?.id).next()
}

/// Pods of one owner run the same images as a rule: the long digests of those are in memory once.
fn share_images(known: &PodStatus, status: &mut PodStatus) {
    let share = |known: &[ContainerStatus], present: &mut [ContainerStatus]| {
        for (known, present) in known.iter().zip(present) {
            if known.image_digest == present.image_digest {
                present.image_digest.clone_from(&known.image_digest);
            }
        }
    };
    share(&known.init_containers, &mut status.init_containers);
    share(&known.containers, &mut status.containers);
}

/// A fault is known from now on, and its card may be kept from pods.
pub(crate) fn note_fault(
    known: &mut DeviceState,
    slice: &ResourceSlice,
    handled: &HandledFault,
    now_ms: u64,
) {
    let HandledFault { fault, action } = handled;
    if let Some(device) = slice.device(&fault.device).filter(|_| action.fences()) {
        let card = &card_of(slice, device).id;
        // A fence that only an operator lifts is not weakened by one that a reset lifts.
        let present = known.fences.iter().position(|fence| fence.device == *card);
        let keeps = present.is_some_and(|at| known.fences[at].action == FaultAction::Fence);
        if !keeps {
            known.fences.retain(|fence| fence.device != *card);
            let fence =
                DeviceFence { device: card.clone(), code: fault.code, action: *action, since_ms: now_ms };
            known.fences.push(fence);
            known.fences.sort_by(|a, b| a.device.cmp(&b.device));
        }
    }
    known.faults.push(handled.clone());
    let surplus = known.faults.len().saturating_sub(FAULTS_KEPT_MAX);
    known.faults.drain(..surplus);
}

fn changed_slice(state: &State, id: ObjectId, change: impl FnOnce(&mut ResourceSlice)) -> Object {
    let mut slice = expect(state.resource_slices.get(id), "ResourceSlice", id).clone();
    change(Arc::make_mut(&mut slice));
    Object::ResourceSlice(slice)
}

fn changed_node(state: &State, id: ObjectId, change: impl FnOnce(&mut Node)) -> Object {
    let mut node = expect(state.nodes.get(id), "Node", id).clone();
    change(Arc::make_mut(&mut node));
    Object::Node(node)
}

fn apply_cluster_event(state: &mut State, kind: &EventKind) {
    match kind {
        EventKind::ClusterInitialized { cluster_id, members } => {
            state.cluster_id = Some(*cluster_id);
            for (member, address) in members {
                state.put_member(new_member(*member, address.clone(), MemberRole::Voter));
            }
        }
        EventKind::FeatureLevelRaised { level } => state.set_feature_level(*level),
        EventKind::MemberRegistered { member, storage_uid, address, version, feature_level_max } => {
            change_member(state, *member, |record| {
                record.storage_uid = *storage_uid;
                record.address = address.clone();
                record.version = version.clone();
                record.feature_level_max = *feature_level_max;
            });
        }
        EventKind::LearnerAdded { member, address } => {
            state.put_member(new_member(*member, address.clone(), MemberRole::Learner));
        }
        EventKind::MemberPromoted { member } => change_member(state, *member, |r| r.role = MemberRole::Voter),
        EventKind::MemberRemoved { member } => {
            change_member(state, *member, |r| r.role = MemberRole::Removed)
        }
        other => unreachable!("{other:?} is about an object"),
    }
}

fn new_member(member: MemberId, address: SmolStr, role: MemberRole) -> MemberRecord {
    let (storage_uid, version) = (Uuid::nil(), SmolStr::default());
    MemberRecord { member, address, role, storage_uid, version, feature_level_max: 0 }
}

fn change_member(state: &mut State, member: MemberId, change: impl FnOnce(&mut MemberRecord)) {
    let record = state
        .members
        .get(&member)
        .unwrap_or_else(|| panic!("an event names member {member}, which is unknown"));
    let mut record = (**record).clone();
    change(&mut record);
    state.put_member(record);
}
