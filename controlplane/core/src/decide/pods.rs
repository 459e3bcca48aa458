//! Pods: binding, reports, deletion.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_canary::planted;
use bulkhead_types::{
    Binding, ContainerState, ContainerStatus, Deletion, EventKind, FENCING_LEVEL, GROUP_PREEMPTION_LEVEL,
    Job, Kind, NodePhase, ObjectId, ObjectStatus, POD_GROUP_PODS_MAX, POD_IPS_MAX, Pod, PodAddresses,
    PodGroupKey, PodReport, PodStatus, Rare, Rejection, WORKLOADS_LEVEL,
};
use smol_str::SmolStr;

use super::nodes::{check_incarnation, check_not_fenced};
use super::{Emit, check_items, claims, job_ends, not_found, resize};
use crate::State;
use crate::claims::{Given, bound};
use crate::cpus::TakenCpus;
use crate::devices::Taken;
use crate::elastic_quota::{Ask, ElasticLedger};
use crate::job_pods::JobPods;
use crate::networks::TakenAddresses;
use crate::placement::{Misfit, Vicinity, check_fit, keeps_cpus, keeps_devices, keeps_ports, kept};
use crate::pod_group::{full, held_by, holders, key_of};
use crate::ports::TakenPorts;
use crate::priority;
use crate::queue::{self, QueueLedger};
use crate::state::{Charge, NodeUsage};

/// Longest text of a pod's status, in bytes; longer ones are cut, because guests are not trusted.
const MESSAGE_LENGTH_MAX: usize = 4096;
/// The reason of a pod that no node can take now.
pub(crate) const REASON_UNSCHEDULABLE: &str = "Unschedulable";

pub(super) fn bind(state: &State, bindings: &[Binding], emit: &mut Emit<'_>) -> Result<(), Rejection> {
    check_items("bindings", bindings.len())?;
    let mut binder = Binder::new(state);
    for binding in bindings {
        let pod = state.pods.get(binding.pod);
        // One of a group that waits is placed with its group only.
        if pod.is_some_and(|pod| held_by(state, pod).is_none()) {
            let _ = binder.bind(binding, emit);
        }
    }
    Ok(())
}

/// Pods get nodes, one after another: each is checked on top of those before.
pub(super) struct Binder<'a> {
    state: &'a State,
    /// What this command itself has placed so far, by node.
    placed: BTreeMap<ObjectId, NodeUsage>,
    placed_pods: BTreeSet<ObjectId>,
    /// Pods whose kept room is no other's than that of those which are placed: of one group.
    pub(super) companions: BTreeSet<ObjectId>,
    /// How many pods of groups hold room, with those that are placed.
    groups: BTreeMap<PodGroupKey, u32>,
    given: Given,
    devices: Taken,
    cpus: TakenCpus,
    ports: TakenPorts,
    networks: TakenAddresses,
    /// The same for who is near whom.
    vicinity: Vicinity,
    /// The same for queues.
    pub(super) queues: QueueLedger,
    /// The same for the elastic quota tree.
    elastic: ElasticLedger,
}

impl<'a> Binder<'a> {
    pub(super) fn new(state: &'a State) -> Self {
        let (placed, placed_pods, given, devices, cpus, ports) = Default::default();
        let (networks, queues, elastic, companions, groups) = Default::default();
        let vicinity = state.vicinity.clone();
        Self {
            state,
            placed,
            placed_pods,
            companions,
            groups,
            given,
            devices,
            cpus,
            ports,
            networks,
            vicinity,
            queues,
            elastic,
        }
    }

    /// Binds one.
    ///
    /// # Errors
    /// Why it cannot be; then nothing has happened.
    pub(super) fn bind(&mut self, binding: &Binding, emit: &mut Emit<'_>) -> Result<(), String> {
        let state = self.state;
        let pod = state.pods.get(binding.pod).filter(|_| state.pending_pods().contains(&binding.pod));
        let pod = pod.ok_or("it does not wait for a node any more")?;
        let node = state.nodes.get(binding.node).ok_or("the node is not there")?;
        let usage = self.placed.entry(binding.node).or_insert_with(|| state.node_usage(binding.node));
        let request = pod.spec.scheduling_request();
        // Beside what waits for room that is kept.
        let priority = || priority::of(state, &pod.spec).map_or(i32::MIN, |priority| priority.value);
        let is_out =
            |id| id == binding.pod || self.placed_pods.contains(&id) || self.companions.contains(&id);
        let taken = usage.plus(kept(state, binding.node, priority, is_out));
        check_fit(&pod.spec, request, node, taken).map_err(|misfit| misfit.to_string())?;
        if let Some(outlook) = self.vicinity.outlook(pod) {
            self.vicinity.check(&outlook, node).map_err(|misfit| misfit.to_string())?;
        }
        let are_kept = pod.spec.asks_for_devices() && keeps_devices(state, binding.node, priority, is_out);
        if are_kept || !self.devices.may_take(state, pod, node, &binding.devices) {
            return Err("its devices are not to be had there".to_owned());
        }
        let is_pinned = binding.cpus.get().is_some();
        if is_pinned && keeps_cpus(state, binding.node, priority, is_out) {
            return Err("its CPUs are kept for another pod".to_owned());
        }
        self.cpus.check(state, pod, node, binding)?;
        let is_kept = keeps_ports(state, (binding.node, &pod.spec), priority, is_out);
        if is_kept || !self.ports.are_free(state, pod, binding.node) {
            return Err(Misfit::HostPorts.to_string());
        }
        let group = key_of(state, pod).filter(|_| state.feature_level() >= GROUP_PREEMPTION_LEVEL);
        if let Some(key) = &group {
            let holding =
                self.groups.entry(key.clone()).or_insert_with(|| holders(state, key).count() as u32);
            if *holding >= POD_GROUP_PODS_MAX {
                return Err(full(key));
            }
        }
        let in_queue =
            queue::of_pod(state, pod).map(|queue| (queue, Charge::of_pod(pod, &state.devices.classes)));
        if let Some((queue, charge)) = &in_queue {
            self.queues.check(state, queue, charge)?;
        }
        let in_tree = Ask::of(state, pod);
        if let Some(ask) = &in_tree {
            self.elastic.check(state, ask)?;
        }
        let claims = self.given.give(state, pod, node).ok_or("its claims do not let it")?;
        // The last that may refuse: from here on the addresses are the pod's.
        self.networks.take(state, pod, node, binding)?;
        if let Some(holding) = group.as_ref().and_then(|key| self.groups.get_mut(key)) {
            *holding += 1;
        }
        in_queue.iter().for_each(|(queue, charge)| self.queues.take(queue, charge));
        in_tree.iter().for_each(|ask| self.elastic.take(ask));
        self.devices.take(state, binding);
        self.cpus.take(state, binding);
        self.ports.take(state, pod, binding.node);
        *usage = usage.with(request);
        self.placed_pods.insert(binding.pod);
        self.vicinity.bind(pod, node);
        // With the pod, in one transaction: a claim's first pod decides where it is.
        let cluster_id = state.cluster_id.unwrap_or_default();
        for claim in claims.iter().filter_map(|id| state.persistent_volume_claims.get(*id)) {
            let status = ObjectStatus::PersistentVolumeClaim(bound(state, claim, node, cluster_id));
            emit.push(EventKind::StatusChanged { id: claim.meta.id, status });
        }
        emit.push(EventKind::PodBound(binding.clone()));
        Ok(())
    }
}

pub(super) fn set_unschedulable(
    state: &State,
    pods: &[(ObjectId, String)],
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    check_items("pods", pods.len())?;
    for (id, message) in pods {
        let Some(pod) = state.pods.get(*id).filter(|_| state.pending_pods().contains(id)) else { continue };
        let message = cut(message);
        if pod.status.reason != REASON_UNSCHEDULABLE || pod.status.message != message {
            let reason = SmolStr::new_static(REASON_UNSCHEDULABLE);
            let status = PodStatus { reason, message, ..pod.status.clone() };
            emit.push(EventKind::PodStatusChanged { id: *id, status });
        }
    }
    Ok(())
}

pub(super) fn report(
    state: &State,
    node: ObjectId,
    incarnation: u64,
    reports: &[PodReport],
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    check_items("reports", reports.len())?;
    let node = state.nodes.get(node).ok_or_else(|| not_found(format!("Node {node}")))?;
    check_incarnation(node, incarnation)?;
    check_not_fenced(node)?;
    // A report names each pod at most once: a second one about it would be decided on a stale State.
    let mut seen = BTreeSet::new();
    for report in reports {
        let bound_here = state.pods.get(report.pod).filter(|pod| pod.node == Some(node.meta.id));
        let Some(pod) = bound_here.filter(|_| seen.insert(report.pod)) else { continue };
        if report.sequence > pod.status.report_sequence {
            report_one(state, pod, report, emit);
        }
    }
    Ok(())
}

fn report_one(state: &State, pod: &Pod, report: &PodReport, emit: &mut Emit<'_>) {
    let id = pod.meta.id;
    claims::mark_used(state, pod, &report.status, emit);
    if (report.gone || planted!("canary_deleted_while_running")) && pod.meta.is_deleting() {
        emit.push(EventKind::ObjectDeleted { kind: Kind::Pod, id });
        job_ends::count(state, pod, Some(&report.status), false, emit);
        return;
    }
    // What ended stays ended: its room was given away.
    if pod.status.phase.is_terminal() {
        return;
    }
    let mut status = merged(&pod.status, report, emit.at_ms());
    status.actual = resize::told(pod, &report.status);
    mark_devices(state, pod, &mut status);
    let unchanged = PodStatus { report_sequence: pod.status.report_sequence, ..status.clone() } == pod.status;
    // A status that is what it was before may have been another one in between, in a report that is still on its way: that
    // it is outdated must be seen when it arrives.
    if !unchanged || state.feature_level() >= WORKLOADS_LEVEL {
        emit.push(EventKind::PodStatusChanged { id, status: status.clone() });
    }
    resize::follow(pod, &status, emit);
    if status.phase.is_terminal() {
        job_ends::count(state, pod, Some(&status), false, emit);
    }
}

/// The agent's view, with what is the control plane's own kept.
fn merged(present: &PodStatus, report: &PodReport, now_ms: u64) -> PodStatus {
    let seen = &report.status;
    let ready = seen.ready && !seen.phase.is_terminal();
    PodStatus {
        phase: seen.phase,
        reason: cut_word(&seen.reason),
        message: cut(&seen.message),
        ready,
        ready_since_ms: if ready == present.ready { present.ready_since_ms } else { now_ms },
        bound_at_ms: present.bound_at_ms,
        started_at_ms: seen.started_at_ms,
        report_sequence: report.sequence,
        sandbox_restarts: seen.sandbox_restarts,
        init_containers: seen.init_containers.iter().map(bounded).collect(),
        containers: seen.containers.iter().map(bounded).collect(),
        nominated_node: Rare::NONE,
        devices: present.devices.clone(),
        networks: present.networks.clone(),
        cpus: present.cpus.clone(),
        addresses: told_addresses(seen),
        resize: present.resize.clone(),
        actual: Rare::NONE,
    }
}

/// An agent that says more than there can be has a mistake; what is too much is left out.
fn told_addresses(seen: &PodStatus) -> Rare<PodAddresses> {
    let told = seen.addresses.get().cloned();
    Rare::from(told.map(|mut told| {
        told.pod_ips.truncate(POD_IPS_MAX);
        told
    }))
}

/// What is wrong with a pod's devices is said as long as its agent has nothing else to say.
fn mark_devices(state: &State, pod: &Pod, status: &mut PodStatus) {
    if pod.devices().is_empty() || status.phase.is_terminal() || !status.reason.is_empty() {
        return;
    }
    let slice = pod.node.and_then(|node| state.resource_slice_of(node));
    if let Some((reason, message)) = slice.and_then(|slice| crate::devices::trouble(slice, pod)) {
        (status.reason, status.message) = (reason, message);
    }
}

fn bounded(status: &ContainerStatus) -> ContainerStatus {
    let mut status = status.clone();
    match &mut status.state {
        ContainerState::Waiting { message, .. } => *message = cut(message),
        ContainerState::Terminated(termination) => termination.message = cut(&termination.message),
        ContainerState::Running { .. } => {}
    }
    if let Some(termination) = &mut status.last_termination {
        termination.message = cut(&termination.message);
    }
    status
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(MESSAGE_LENGTH_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

pub(super) fn cut_word(word: &SmolStr) -> SmolStr {
    if word.len() <= bulkhead_types::NAME_LENGTH_MAX { word.clone() } else { SmolStr::new_static("Unknown") }
}

/// Whether the guest of a pod that must be unique may live on its node, so that nobody may forget it; `None` when the
/// pod need not be unique, or nobody waits for fences yet.
pub(super) fn may_live_uniquely(state: &State, pod: &Pod) -> Option<bool> {
    let node = pod.node.and_then(|node| state.nodes.get(node))?;
    if state.feature_level() < FENCING_LEVEL || !pod.is_unique() {
        return None;
    }
    if node.status.phase == NodePhase::Fenced {
        return Some(false);
    }
    // What has ended was reported to have: no guest is left, but files may be.
    (!pod.status.phase.is_terminal()).then_some(true)
}

/// Asks for many pods to end, each with its own grace.
pub(super) fn delete_many(
    state: &State,
    pods: &[ObjectId],
    surplus_of: Option<ObjectId>,
    reason: &SmolStr,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    check_items("pods", pods.len())?;
    if let Some(job) = surplus_of.and_then(|owner| state.jobs.get(owner)) {
        delete_surplus(state, job, pods, reason, emit);
        return Ok(());
    }
    let mut budget = match surplus_of {
        None => pods.len(),
        Some(set) => {
            let wanted = state.replica_sets.get(set).map_or(0, |set| set.spec.replicas);
            state.active_pods(set).saturating_sub(wanted) as usize
        }
    };
    if planted!("canary_hash_order") {
        return delete_in_hash_order(state, pods, reason, emit);
    }
    let mut seen = BTreeSet::new();
    for pod in pods.iter().filter(|id| seen.insert(**id)).filter_map(|id| state.pods.get(*id)) {
        let foreign = surplus_of.is_some_and(|set| pod.meta.owner.map(|o| o.id) != Some(set));
        if pod.meta.is_deleting() || foreign {
            continue;
        }
        if budget == 0 {
            break;
        }
        budget -= 1;
        delete_one(state, pod, None, false, reason, emit);
    }
    Ok(())
}

/// Pods that a Job has too many of by now; those that it needs are passed over.
fn delete_surplus(state: &State, job: &Job, pods: &[ObjectId], reason: &SmolStr, emit: &mut Emit<'_>) {
    let mut surplus: BTreeSet<_> = JobPods::of(state, job).surplus.into_iter().collect();
    for pod in pods.iter().filter(|id| surplus.remove(id)).filter_map(|id| state.pods.get(*id)) {
        end_pod(state, pod, &Ending { reason, by_job: true, ..Ending::default() }, emit);
    }
}

/// What the ban on hash maps is for: each replica takes the pods in an order of its own.
fn delete_in_hash_order(
    state: &State,
    pods: &[ObjectId],
    reason: &SmolStr,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    #[allow(clippy::disallowed_types)]
    let pods: std::collections::HashSet<ObjectId> = pods.iter().copied().collect();
    let pods = pods.into_iter().filter_map(|id| state.pods.get(id));
    pods.filter(|pod| !pod.meta.is_deleting())
        .for_each(|pod| delete_one(state, pod, None, false, reason, emit));
    Ok(())
}

/// How a pod shall end.
#[derive(Default)]
struct Ending<'a> {
    /// Its own when unset, in milliseconds.
    grace_ms: Option<u64>,
    /// Without waiting for its agent.
    force: bool,
    /// One CamelCase word on why.
    reason: &'a str,
    /// Its Job asks.
    by_job: bool,
    /// For whose room.
    preemptor: Option<ObjectId>,
}

/// Asks for one pod to end. One that nothing runs for goes at once; one on a node goes when its agent says
/// that nothing of it is left. Force does not wait for that word, unless the pod must be unique: then it ends without
/// grace, and goes with its agent's word or when its node is fenced, whichever is first.
pub(super) fn delete_one(
    state: &State,
    pod: &Pod,
    grace_ms: Option<u64>,
    force: bool,
    reason: &str,
    emit: &mut Emit<'_>,
) {
    end_pod(state, pod, &Ending { grace_ms, force, reason, ..Ending::default() }, emit);
}

/// Asks for one pod to end, with its own grace, for the room of another.
pub(super) fn end_for(state: &State, pod: &Pod, preemptor: ObjectId, reason: &str, emit: &mut Emit<'_>) {
    end_pod(state, pod, &Ending { reason, preemptor: Some(preemptor), ..Ending::default() }, emit);
}

fn end_pod(state: &State, pod: &Pod, ending: &Ending<'_>, emit: &mut Emit<'_>) {
    let id = pod.meta.id;
    let may_live = may_live_uniquely(state, pod);
    if pod.node.is_none() || may_live == Some(false) || (ending.force && may_live.is_none()) {
        emit.push(EventKind::ObjectDeleted { kind: Kind::Pod, id });
        job_ends::count(state, pod, None, ending.by_job, emit);
        return;
    }
    let grace_ms = if ending.force { 0 } else { ending.grace_ms.unwrap_or(pod.spec.termination_grace_ms) };
    // A second request may shorten the grace, never lengthen it; why the pod ends was said by the first.
    let present = pod.meta.deletion.as_deref();
    if present.is_none_or(|present| grace_ms < present.grace_ms) {
        let requested_at_ms = present.map_or(emit.at_ms(), |d| d.requested_at_ms);
        let by_job = present.map_or(ending.by_job, |d| d.by_job);
        let preemptor = present.map_or(ending.preemptor, |d| d.preemptor);
        let deletion = Deletion { requested_at_ms, grace_ms, by_job, preemptor };
        let reason = SmolStr::new(ending.reason);
        emit.push(EventKind::DeletionRequested { kind: Kind::Pod, id, deletion, reason });
    }
}
