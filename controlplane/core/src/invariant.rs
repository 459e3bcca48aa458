//! What must hold in every State, checked from scratch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bulkhead_types::{
    CompletionMode, Container, DeviceShare, HugePages, Job, Kind, Object, ObjectId, ObjectRef, Pod, PodPhase,
    PublishedPort,
};

use smol_str::SmolStr;

use crate::State;
use crate::claims::is_misplaced;
use crate::placement::check_room;
use crate::quota::exceeded_sums;
use crate::snapshots::{is_contradictory, lacks_source};
use crate::state::{NodeUsage, QuotaIndex};

/// Something that must never be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A PersistentVolume is of a volume that a claim has, or another one.
    VolumeTwice(ObjectId),
    /// Two objects of one kind and namespace have the same name, or the name index is wrong.
    Name(ObjectRef),
    /// An object carries a revision above the State's.
    Revision(ObjectRef),
    /// The running digest differs from the one computed afresh.
    Digest,
    /// A node's kept usage differs from the sum over its pods.
    Usage(ObjectId),
    /// The pods of a node reserve more than it has.
    Oversubscribed(ObjectId),
    /// A pod is bound to a node that does not exist.
    DanglingNode(ObjectId),
    /// The set of pending pods is not the pods that wait.
    Pending(ObjectId),
    /// A ReplicaSet's count of active pods is wrong.
    ActivePods(ObjectId),
    /// A Job's counts contradict each other, or its pods.
    JobCounts(ObjectId),
    /// A pod has a claim that is not on its node, or that is another pod's alone.
    Claim(ObjectId),
    /// A bound claim waits for its copy of something that is not there, or not on its node.
    VolumeSource(ObjectId),
    /// A snapshot is ready where no node keeps it, or is kept and not ready.
    Snapshot(ObjectId),
    /// Which snapshots and claims are still to be copied of what is kept wrongly.
    Copies,
    /// Who is near whom is counted wrongly.
    Vicinity,
    /// Who holds which device is kept wrongly.
    DeviceLedger,
    /// What queues are said to use is not what their pods use.
    QueueUse,
    /// What the levels of elastic quotas are said to use is not what their pods use.
    ElasticUse,
    /// A device is held by more pods than it can be, or by one that may not have it.
    DeviceHeldTwice {
        /// On which node.
        node: ObjectId,
        /// Which device.
        device: SmolStr,
    },
    /// A pod has another number of devices than it asks for.
    DeviceCount(ObjectId),
    /// An operation has more nodes in work than it may have.
    OverBatch(ObjectId),
    /// Who has which CPUs for itself is kept wrongly.
    CpuLedger,
    /// Two pods have one CPU for themselves, or one has another number than it asks for.
    CpuHeldTwice {
        /// On which node.
        node: ObjectId,
        /// Which pod.
        pod: ObjectId,
    },
    /// Which pod has which port of its node is kept wrongly.
    PortLedger,
    /// Two pods of a node publish the same port.
    PortHeldTwice {
        /// On which node.
        node: ObjectId,
        /// One of the pods.
        pod: ObjectId,
    },
    /// Pods that are on one NUMA node alone reserve more memory than it has.
    NumaMemory {
        /// On which node.
        node: ObjectId,
        /// Which NUMA node.
        numa_node: u32,
    },
    /// Pods that are on one NUMA node alone reserve more huge pages than it has.
    NumaHugePages {
        /// On which node.
        node: ObjectId,
        /// Which NUMA node.
        numa_node: u32,
    },
    /// Guests have more memory pinned than their node has for pods, or one has more than its pod reserves.
    PinnedMemory(ObjectId),
    /// What networks there are, or which addresses pods have, is kept wrongly.
    NetworkIndex,
    /// Two pods have one address, or one has an address of a network without it being known.
    AddressHeldTwice(std::net::IpAddr),
    /// A pod is attached by a device that it does not have.
    AttachedWithoutDevice(ObjectId),
    /// An object lives in a namespace that does not exist.
    DanglingNamespace(ObjectRef),
    /// What namespaces, projects and departments are known to have is not what there is.
    QuotaUse,
    /// More is promised below a project or department than it has.
    QuotaSum(ObjectRef),
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Everything that is wrong with a State; empty when nothing is. Costs time in proportion to the State.
#[must_use]
pub fn check(state: &State) -> Vec<Violation> {
    let mut violations = Vec::new();
    if state.digest() != state.digest_from_scratch() {
        violations.push(Violation::Digest);
    }
    if state.vicinity != state.vicinity_from_scratch() {
        violations.push(Violation::Vicinity);
    }
    check_objects(state, &mut violations);
    check_pods(state, &mut violations);
    check_volumes(state, &mut violations);
    let wrong = state.jobs().iter().filter(|job| !counts_agree(state, job));
    violations.extend(wrong.map(|job| Violation::JobCounts(job.meta.id)));
    if state.devices != state.devices_from_scratch() {
        violations.push(Violation::DeviceLedger);
    }
    check_devices(state, &mut violations);
    let over =
        state.node_operations().iter().filter(|one| one.status.in_work.len() > one.batch_max() as usize);
    violations.extend(over.map(|one| Violation::OverBatch(one.meta.id)));
    if state.networks != state.networks_from_scratch() {
        violations.push(Violation::NetworkIndex);
    }
    check_networks(state, &mut violations);
    if state.cpus != state.cpus_from_scratch() {
        violations.push(Violation::CpuLedger);
    }
    check_cpus(state, &mut violations);
    violations.extend(pinned_too_much(state).into_iter().map(Violation::PinnedMemory));
    if state.ports != state.ports_from_scratch() {
        violations.push(Violation::PortLedger);
    }
    check_ports(state, &mut violations);
    if state.queue_use != state.queue_use_from_scratch() {
        violations.push(Violation::QueueUse);
    }
    if state.elastic_use != state.elastic_use_from_scratch() {
        violations.push(Violation::ElasticUse);
    }
    let mut recount = QuotaIndex::default();
    state.objects().for_each(|object| recount.change(None, Some(&object)));
    recount.follow_classes(&state.devices.classes, state.pods());
    if recount != state.quota {
        violations.push(Violation::QuotaUse);
    }
    violations.extend(exceeded_sums(state).into_iter().map(Violation::QuotaSum));
    violations
}

/// Asked of the pods alone, without the ledger's code: a device has one whole holder, or shares that fit on it, and no card is
/// held beside a part of it.
fn check_devices(state: &State, violations: &mut Vec<Violation>) {
    let mut holders = BTreeMap::<(ObjectId, &SmolStr), Vec<Option<DeviceShare>>>::new();
    for pod in state.pods().iter().filter(|pod| !pod.status.phase.is_terminal()) {
        let Some(node) = pod.node else { continue };
        let asked: u64 = pod.spec.containers.iter().map(|c| c.extended_resources().count() as u64).sum();
        if (asked == 0) != pod.devices().is_empty() {
            violations.push(Violation::DeviceCount(pod.meta.id));
        }
        for given in pod.devices() {
            holders.entry((node, &given.device)).or_default().push(given.share);
        }
    }
    for ((node, device), shares) in &holders {
        let (node, device) = (*node, *device);
        let known = state.resource_slice_of(node).and_then(|slice| slice.device(device));
        let card = known.filter(|one| one.partition.get().is_some()).and_then(|one| one.parent.as_ref());
        let has_card = card.is_some_and(|card| holders.contains_key(&(node, card)));
        let is_alone = |share: &Option<DeviceShare>| share.is_none_or(|share| share.is_exclusive());
        if known.is_none() || has_card || (shares.len() > 1 && shares.iter().any(is_alone)) {
            violations.push(Violation::DeviceHeldTwice { node, device: device.clone() });
        }
    }
}

/// Asked of the pods alone, without the ledger's code: a CPU has one holder, of the pools each has what it must and may, and
/// memory fits each NUMA node.
fn check_cpus(state: &State, violations: &mut Vec<Violation>) {
    let mut seen = BTreeSet::new();
    let mut memory = BTreeMap::<(ObjectId, u32), (u64, HugePages)>::new();
    for pod in state.pods().iter().filter(|pod| !pod.status.phase.is_terminal()) {
        let (Some(node), Some(given)) = (pod.node, pod.cpus()) else { continue };
        let limit = pod.spec.guest_size().cpu_millis;
        let is_new = given.cpus.iter().filter(|cpu| seen.insert((node, *cpu))).count();
        if is_new as u32 != given.cpus.len() || u64::from(given.cpus.len()) * 1000 != limit {
            violations.push(Violation::CpuHeldTwice { node, pod: pod.meta.id });
        }
        if let [numa_node] = given.numa_nodes[..] {
            let (bytes, pages) = memory.entry((node, numa_node)).or_default();
            *bytes += given.memory_bytes;
            *pages = pages.zip(given.huge_pages, u64::saturating_add);
        }
    }
    for ((id, numa_node), (held, pages)) in memory {
        let topology = state.nodes().get(id).and_then(|node| node.status.facts.cpus.get());
        let has = topology.into_iter().flat_map(|one| &one.numa_nodes).find(|one| one.id == numa_node);
        if has.is_some_and(|one| held > one.memory_bytes) {
            violations.push(Violation::NumaMemory { node: id, numa_node });
        }
        if has.is_some_and(|one| !pages.fits_in(one.huge_pages)) {
            violations.push(Violation::NumaHugePages { node: id, numa_node });
        }
    }
}

/// Nodes on which guests have more memory pinned than there is for pods: asked of what each container may use, without what
/// the ledger counts.
fn pinned_too_much(state: &State) -> BTreeSet<ObjectId> {
    let mut pinned = BTreeMap::<ObjectId, u64>::new();
    for pod in state.pods().iter().filter(|pod| !pod.status.phase.is_terminal()) {
        let (Some(node), true) = (pod.node, pod.spec.guest_memory().pinned) else { continue };
        if pod.spec.guest_memory().huge_pages {
            continue;
        }
        // Of containers that run beside each other each may use its limit; the overhead of a guest is 64 MiB at least.
        let most = |one: &Container| one.limits.memory_bytes.or(one.requests.memory_bytes).unwrap_or(0);
        let bytes = pod.spec.containers.iter().map(most).sum::<u64>() + (64 << 20);
        *pinned.entry(node).or_default() += bytes + bytes / 256;
    }
    let has = |id: ObjectId| state.nodes().get(id).map(|node| node.status.facts.allocatable.pinnable_bytes());
    pinned
        .into_iter()
        .filter(|(id, bytes)| has(*id).is_some_and(|has| *bytes > has))
        .map(|(id, _)| id)
        .collect()
}

/// Asked of the pods alone, without the ledger's code: no two pods of a node publish the same port.
fn check_ports(state: &State, violations: &mut Vec<Violation>) {
    let mut seen = BTreeMap::<ObjectId, Vec<PublishedPort>>::new();
    for pod in state.pods().iter().filter(|pod| !pod.status.phase.is_terminal()) {
        let Some(node) = pod.node else { continue };
        let own: Vec<PublishedPort> = pod.spec.host_ports().collect();
        if own.is_empty() {
            continue;
        }
        let others = seen.entry(node).or_default();
        if own.iter().any(|port| others.iter().any(|other| other.conflicts_with(port))) {
            violations.push(Violation::PortHeldTwice { node, pod: pod.meta.id });
        }
        others.extend(own);
    }
}

/// Asked of the pods alone, without the index' code: an address has one holder, of whatever network, and every attachment goes
/// by a device of its own.
fn check_networks(state: &State, violations: &mut Vec<Violation>) {
    let mut seen = BTreeSet::new();
    for pod in state.pods().iter().filter(|pod| !pod.status.phase.is_terminal()) {
        let mut devices: Vec<&SmolStr> = pod.devices().iter().map(|given| &given.device).collect();
        for one in pod.networks() {
            if let Some(address) = one.address.filter(|address| !seen.insert(*address)) {
                violations.push(Violation::AddressHeldTwice(address));
            }
            match devices.iter().position(|device| **device == one.device) {
                Some(at) => _ = devices.remove(at),
                None => violations.push(Violation::AttachedWithoutDevice(pod.meta.id)),
            }
        }
    }
    if seen.len() != state.addresses_len() {
        violations.push(Violation::NetworkIndex);
    }
}

fn check_objects(state: &State, violations: &mut Vec<Violation>) {
    let mut names = BTreeSet::new();
    for object in state.objects() {
        let reference = object.object_ref();
        let indexed = state.find(reference.kind, reference.namespace.as_ref(), &reference.name);
        if !names.insert(reference.clone()) || indexed != Some(object.meta().id) {
            violations.push(Violation::Name(reference.clone()));
        }
        if object.meta().revision > state.revision() || object.meta().id.0 > state.revision() {
            violations.push(Violation::Revision(reference.clone()));
        }
        let namespace = reference.namespace.as_ref();
        if namespace.is_some_and(|ns| state.find(Kind::Namespace, None, ns).is_none()) {
            violations.push(Violation::DanglingNamespace(reference));
        }
    }
}

/// What a copy is still to be made of is there, and what is known of copies is what there is.
fn check_volumes(state: &State, violations: &mut Vec<Violation>) {
    let claims = state.persistent_volume_claims().iter().filter(|claim| lacks_source(state, claim));
    violations.extend(claims.map(|claim| Violation::VolumeSource(claim.meta.id)));
    let wrong = state.volume_snapshots().iter().filter(|snapshot| is_contradictory(state, snapshot));
    violations.extend(wrong.map(|snapshot| Violation::Snapshot(snapshot.meta.id)));
    let mut seen: BTreeSet<_> = state
        .persistent_volume_claims()
        .iter()
        .filter(|claim| claim.bound_node().is_some())
        .map(|claim| claim.status.volume)
        .collect();
    let twice = state.persistent_volumes().iter().filter(|volume| !seen.insert(volume.spec.volume));
    violations.extend(twice.map(|volume| Violation::VolumeTwice(volume.meta.id)));
    if !state.copies_are_right() {
        violations.push(Violation::Copies);
    }
}

/// Indexes are counted once, nothing runs for a Job that has ended, and every success that can be seen was counted.
fn counts_agree(state: &State, job: &Job) -> bool {
    let (spec, status) = (&job.spec, &job.status);
    let mut pods = state.pods_of(job.meta.id);
    let has_ended = job.end().is_some();
    if has_ended && pods.any(|pod| !pod.status.phase.is_terminal()) {
        return false;
    }
    if spec.completion_mode == CompletionMode::NonIndexed {
        let stopped = |pod: &Pod| pod.meta.deletion.as_ref().is_some_and(|deletion| deletion.by_job);
        let succeeded = |pod: &&Arc<Pod>| pod.status.phase == PodPhase::Succeeded && !stopped(pod);
        return state.pods_of(job.meta.id).filter(succeeded).count() <= status.succeeded as usize;
    }
    let open =
        |index: u32| !status.completed_indexes.contains(index) && !status.failed_indexes.contains(index);
    let below = |last: Option<u32>| last.is_none_or(|last| spec.completions.is_some_and(|n| last < n));
    status.completed_indexes.count() == u64::from(status.succeeded)
        && status.completed_indexes.iter().all(|index| !status.failed_indexes.contains(index))
        && below(status.completed_indexes.last())
        && below(status.failed_indexes.last())
        && status.index_failures.is_sorted_by(|a, b| a.index < b.index)
        && status.index_failures.iter().all(|failures| open(failures.index))
}

fn check_pods(state: &State, violations: &mut Vec<Violation>) {
    let mut usage = BTreeMap::<ObjectId, NodeUsage>::new();
    let mut active = BTreeMap::<ObjectId, u32>::new();
    for pod in state.pods().iter() {
        let ended = pod.status.phase.is_terminal();
        let is_active = !ended && !pod.meta.is_deleting();
        if is_active && let Some(owner) = pod.meta.owner {
            *active.entry(owner.id).or_default() += 1;
        }
        if (is_active && pod.node.is_none()) != state.pending_pods().contains(&pod.meta.id) {
            violations.push(Violation::Pending(pod.meta.id));
        }
        if is_misplaced(state, pod) {
            violations.push(Violation::Claim(pod.meta.id));
        }
        let Some(node) = pod.node else { continue };
        if state.nodes().get(node).is_none() {
            violations.push(Violation::DanglingNode(pod.meta.id));
        }
        if !ended {
            let entry = usage.entry(node).or_default();
            entry.requests = entry.requests.plus(pod.spec.scheduling_request());
            entry.pods += 1;
        }
    }
    for id in state.pending_pods().iter().filter(|id| state.pods().get(**id).is_none()) {
        violations.push(Violation::Pending(*id));
    }
    for set in state.replica_sets().iter() {
        if state.active_pods(set.meta.id) != active.get(&set.meta.id).copied().unwrap_or(0) {
            violations.push(Violation::ActivePods(set.meta.id));
        }
    }
    for node in state.nodes().iter() {
        let id = node.meta.id;
        let summed = usage.get(&id).copied().unwrap_or_default();
        if state.node_usage(id) != summed {
            violations.push(Violation::Usage(id));
        }
        // Room for "nothing more" is room for what is there: a pod count of one less stands for the last pod.
        let last = NodeUsage { pods: summed.pods.saturating_sub(1), ..summed };
        if summed.pods > 0 && check_room(bulkhead_types::Resources::ZERO, node, last).is_err() {
            violations.push(Violation::Oversubscribed(id));
        }
    }
}

/// An object as text, for messages about violations.
#[must_use]
pub fn describe(state: &State, kind: Kind, id: ObjectId) -> String {
    state.object(kind, id).map_or_else(|| format!("{kind} {id}"), |o: Object| o.object_ref().to_string())
}
