//! Intents: what should run on one node, read from State.

mod pull;
mod resolve;

use std::sync::Arc;

use bulkhead_types::{
    ANNOTATED_SYSCTLS_LEVEL, AccessMode, BANDWIDTH_LEVEL, ClaimIntent, ContainerSize, DeletedVolume,
    Deletion, ENV_JOB_COMPLETION_INDEX, EnvVar, ITEMS_MAX, Intent, Kind, NUMA_LEVEL, Object, ObjectId,
    PersistentVolumeClaim, PersistentVolumeClaimStatus, Pod, PodBandwidth, PodIntent, PodSpec, QosClass,
    RESOLVED_NODE_BYTES_MAX, Rare, ResizeStage, ResolvedPod, SHARED_VOLUMES_LEVEL, Shared, Sysctl, Volume,
};
use uuid::Uuid;

use crate::claims::is_in_use;
use crate::{Change, ChangeType, State, cpus, devices, owned_pod, snapshots};

/// What should run on a node now; `None` when there is no such node.
#[must_use]
pub fn intent_of(state: &State, node: ObjectId) -> Option<Intent> {
    let incarnation = state.nodes().get(node)?.status.incarnation;
    let cluster_id = state.cluster_id()?;
    let mut room = RESOLVED_NODE_BYTES_MAX;
    let mut parsed = pull::Parsed::new();
    let pods = state.pods_on(node);
    let pods = pods.map(|pod| pod_intent(state, pod, cluster_id, &mut parsed, &mut room)).collect();
    let ends = |claim: &&Arc<PersistentVolumeClaim>| {
        claim.meta.is_deleting() && claim.reclaimed_by().is_some() && !is_in_use(state, claim)
    };
    let deleted = state.claims_on(node).filter(ends).take(ITEMS_MAX);
    let deleted = deleted.map(|claim| DeletedVolume { id: claim.meta.id, uid: claim.status.volume });
    let ending = snapshots::ending_on(state, node);
    let ending =
        ending.map(|one| DeletedVolume { id: one.meta.id, uid: snapshots::file_of(one, cluster_id) });
    let retained = state.retained_on(node).filter(|volume| volume.meta.is_deleting());
    let retained = retained.map(|one| DeletedVolume { id: one.meta.id, uid: one.spec.volume });
    let mut deleted_volumes: Vec<_> = deleted.chain(ending).chain(retained).collect();
    deleted_volumes.sort_unstable_by_key(|one| one.id);
    deleted_volumes.truncate(ITEMS_MAX);
    let gpu = state.nodes().get(node).and_then(|node| devices::gpu_intent(state, node));
    let cpu_pools = cpus::pools(state, node);
    let nics = state.sriov_state_of(node).map(|nics| nics.spec.interfaces.clone()).unwrap_or_default();
    let volume_orders = snapshots::orders(state, node, cluster_id);
    let generation = state.revision();
    Some(Intent { node, incarnation, generation, pods, deleted_volumes, gpu, cpu_pools, nics, volume_orders })
}

fn pod_intent(
    state: &State,
    pod: &Pod,
    cluster_id: Uuid,
    parsed: &mut pull::Parsed,
    room: &mut usize,
) -> PodIntent {
    let ended = pod.status.phase.is_terminal();
    let runs = !ended && pod.meta.deletion.is_none();
    let spec = with_annotated_sysctls(state, pod, with_index(pod));
    let resolved = (runs && spec.needs_resolution())
        .then(|| within(room, resolve::resolve(state, pod, &spec, cluster_id)));
    let pull_credentials = runs.then(|| pull::credentials(state, pod, &spec, parsed, room)).flatten();
    PodIntent {
        id: pod.meta.id,
        uid: pod.meta.id.uid(cluster_id),
        namespace: pod.meta.namespace.clone().expect("pods live in a namespace"),
        name: pod.meta.name.clone(),
        spec,
        // Why a pod ends is nothing to its agent.
        deletion: pod.meta.deletion.as_deref().map(|deletion| Deletion {
            by_job: false,
            preemptor: None,
            ..*deletion
        }),
        ended,
        unique: pod.is_unique(),
        trace_context: pod.meta.trace_context.clone(),
        resolved: Rare::from(resolved),
        pull_credentials: Rare::from(pull_credentials),
        claims: if ended { Vec::new() } else { claims(state, pod) },
        devices: if ended { Vec::new() } else { devices::intents(state, pod) },
        networks: if ended { Vec::new() } else { pod.networks().to_vec() },
        cpus: pod.cpus().filter(|_| !ended).map(|given| given.cpus.clone()),
        batch: !ended && is_batch(state, pod),
        resizing: !ended && under_way(pod).is_some(),
        bandwidth: if ended { None } else { bandwidth(state, pod) },
    }
}

/// How fast a pod's guest may send and receive. Below that level the annotations mean nothing, and need not be readable.
fn bandwidth(state: &State, pod: &Pod) -> Option<PodBandwidth> {
    if state.feature_level() < BANDWIDTH_LEVEL { None } else { PodBandwidth::of(&pod.meta.annotations) }
}

/// Whether a pod runs in the batch pool.
fn is_batch(state: &State, pod: &Pod) -> bool {
    state.feature_level() >= NUMA_LEVEL && QosClass::of(&pod.meta.labels) == Some(QosClass::Be)
}

/// Whether a pod only reads a claim's volume, beside others: it says so, or nobody may do else.
fn reads_only(state: &State, pod: &Pod, claim: &str, mode: AccessMode) -> bool {
    let says =
        || pod.spec.volumes().iter().filter_map(Volume::claim).any(|(name, only)| name == claim && only);
    state.feature_level() >= SHARED_VOLUMES_LEVEL && mode.may_share() && (!mode.may_write() || says())
}

/// The volumes of a pod's claims. One that is still to be made of its source is left out: no guest may have it before.
fn claims(state: &State, pod: &Pod) -> Vec<ClaimIntent> {
    let claims = pod.spec.claims().filter_map(|name| {
        let claim = state.claim(pod.meta.namespace.as_ref(), name).filter(|claim| !claim.awaits_source())?;
        let PersistentVolumeClaimStatus { volume, capacity_bytes, .. } = claim.status;
        // What was made of a source is data from its beginning.
        let used = claim.status.first_used_at_ms.get().is_some() || claim.source.get().is_some();
        let read_only = reads_only(state, pod, name, claim.spec.access_mode);
        let claim_name = name.clone();
        Some(ClaimIntent { claim_name, uid: volume, size_bytes: capacity_bytes, used, read_only })
    });
    claims.collect()
}

/// The pod's spec with the sizes that its agent should bring it to; one of an indexed Job has its index in the environment of each container. All pods of the Job
/// share one spec but for that, so it is added here.
fn with_index(pod: &Pod) -> Shared<PodSpec> {
    let of_job = pod.meta.owner.is_some_and(|owner| owner.kind == Kind::Job);
    let spec = match under_way(pod) {
        Some(desired) => Shared::new(pod.spec.resized(desired)),
        None => pod.spec.clone(),
    };
    let Some(index) = owned_pod::completion_index(pod).filter(|_| of_job) else { return spec };
    let mut spec = PodSpec::clone(&spec);
    for container in spec.init_containers.iter_mut().chain(&mut spec.containers) {
        if container.env.iter().all(|var| var.name != ENV_JOB_COMPLETION_INDEX) {
            let (name, value) = (ENV_JOB_COMPLETION_INDEX.to_owned(), index.to_string());
            container.env.push(EnvVar { name, value, ..EnvVar::default() });
        }
    }
    Shared::new(spec)
}

/// The settings of the guest's kernel that annotations say stand beside those of the spec, which has the last word on each. Below that
/// level the annotation means nothing, and need not be readable.
fn with_annotated_sysctls(state: &State, pod: &Pod, spec: Shared<PodSpec>) -> Shared<PodSpec> {
    if state.feature_level() < ANNOTATED_SYSCTLS_LEVEL {
        return spec;
    }
    let annotated = Sysctl::annotated(&pod.meta.annotations).unwrap_or_default();
    if annotated.is_empty() {
        return spec;
    }
    let mut spec = PodSpec::clone(&spec);
    let mut options = spec.options.get().cloned().unwrap_or_default();
    let mut security = options.security.get().cloned().unwrap_or_default();
    let own: Vec<String> = security.sysctls.iter().map(Sysctl::path).collect();
    security.sysctls.extend(annotated.into_iter().filter(|one| !own.contains(&one.path())));
    options.security = Rare::some(security);
    spec.options = Rare::some(options);
    Shared::new(spec)
}

/// One message carries the values and files of all pods of a node: the oldest pods have theirs, the others wait.
fn within(room: &mut usize, resolved: ResolvedPod) -> ResolvedPod {
    match room.checked_sub(resolved.bytes()) {
        Some(left) => {
            *room = left;
            resolved
        }
        None => resolve::refused(format!(
            "the variables and files of all pods of the node have more than {RESOLVED_NODE_BYTES_MAX} bytes together"
        )),
    }
}

/// The nodes whose intent a change touches: of a pod its node, of what NICs shall be theirs, of a claim that ends the one that keeps it, of a ConfigMap
/// or Secret those of the pods that refer to it. `state` may be later than the change.
#[must_use]
pub fn nodes_touched(state: &State, change: &Change) -> Vec<ObjectId> {
    match (&change.object, &change.former) {
        (Object::Pod(present), Some(Object::Pod(former))) if !pod_differs(present, former, change) => vec![],
        (Object::Pod(pod), _) => pod.node.into_iter().collect(),
        (Object::Node(present), Some(Object::Node(former)))
            if present.status.incarnation == former.status.incarnation
                && present.spec.gpu == former.spec.gpu =>
        {
            vec![]
        }
        (Object::Node(node), _) => vec![node.meta.id],
        // Pods know of their binding by their own; what ends is to be deleted.
        (Object::PersistentVolumeClaim(claim), _) if claim.meta.is_deleting() => {
            claim.bound_node().into_iter().collect()
        }
        // What is data from now on is not made again for the pod's next guest.
        (Object::PersistentVolumeClaim(present), Some(Object::PersistentVolumeClaim(former)))
            if present.status.first_used_at_ms != former.status.first_used_at_ms =>
        {
            present.bound_node().into_iter().collect()
        }
        // It shall grow, or has something now that its pods wait for.
        (Object::PersistentVolumeClaim(present), Some(Object::PersistentVolumeClaim(former)))
            if present.spec != former.spec
                || present.status.progress != former.status.progress
                || present.status.capacity_bytes != former.status.capacity_bytes =>
        {
            present.bound_node().into_iter().collect()
        }
        // It is to be taken or deleted, or nothing holds its claim any more.
        (Object::VolumeSnapshot(snapshot), _) => snapshots::node_of(state, snapshot).into_iter().collect(),
        (Object::PersistentVolume(volume), _) => vec![volume.spec.node],
        // A device of a pod may be gone, or be there again.
        (Object::ResourceSlice(slice), _) if holds_any(state, slice.node) || has_mode(state, slice.node) => {
            vec![slice.node]
        }
        // What was reported is known to who reported it.
        (Object::SriovNetworkNodeState(present), Some(Object::SriovNetworkNodeState(former)))
            if present.spec.interfaces == former.spec.interfaces =>
        {
            vec![]
        }
        (Object::SriovNetworkNodeState(nics), _) => vec![nics.node],
        // Which partitions a mode means is said by the classes.
        (Object::DeviceClass(_), _) => {
            let nodes = state.nodes().iter().filter(|node| node.spec.gpu.get().is_some());
            nodes.map(|node| node.meta.id).collect()
        }
        (Object::ConfigMap(_) | Object::Secret(_), _) => state.nodes_using(&change.object.object_ref()),
        _ => vec![],
    }
}

/// Whether the cards of a node shall be in a mode.
fn has_mode(state: &State, node: ObjectId) -> bool {
    state.nodes().get(node).is_some_and(|node| node.spec.gpu.get().is_some())
}

/// Whether any pod has devices of a node.
fn holds_any(state: &State, node: ObjectId) -> bool {
    state
        .node_devices(node)
        .is_some_and(|devices| devices.iter().any(|(_, device)| !device.holders.is_empty()))
}

/// What an agent is bringing a pod's containers to, if it is.
fn under_way(pod: &Pod) -> Option<&[ContainerSize]> {
    let resize = pod.resize().filter(|resize| resize.stage == ResizeStage::InProgress);
    resize.map(|resize| resize.desired.as_slice())
}

/// Whether what should run of a pod changed. A status report does not change that, unless the pod ended by it.
fn pod_differs(present: &Pod, former: &Pod, change: &Change) -> bool {
    let metadata = |pod: &Pod| (pod.meta.labels.clone(), pod.meta.annotations.clone());
    let class = |pod: &Pod| QosClass::of(&pod.meta.labels);
    present.node != former.node
        || class(present) != class(former)
        || PodBandwidth::of(&present.meta.annotations) != PodBandwidth::of(&former.meta.annotations)
        || present.meta.deletion != former.meta.deletion
        || present.status.phase.is_terminal() != former.status.phase.is_terminal()
        || matches!(change.change_type, ChangeType::Deleted)
        || present.spec != former.spec
        || under_way(present) != under_way(former)
        || (present.spec.shows_metadata() && metadata(present) != metadata(former))
}

#[cfg(test)]
#[path = "intent/tests.rs"]
mod tests;
