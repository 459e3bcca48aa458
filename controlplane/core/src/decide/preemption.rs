//! Preemption: a pod that fits nowhere gets a node, and pods of lower priority there end for it. What the scheduler chose is
//! asked again: as a whole, or not at all.
//!
//! Source: "Pod Priority and Preemption" in the Kubernetes documentation. Stricter than there: disruption budgets are kept.

mod need;

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_types::{
    CpuNeeds, ELASTIC_QUOTA_LEVEL, EventKind, GROUP_PREEMPTION_LEVEL, Node, ObjectId, Pod, PodGroupKey,
    PodStatus, QUEUES_LEVEL, Rare, Rejection, RejectionCode,
};
use smol_str::SmolStr;

use super::pods::{REASON_UNSCHEDULABLE, end_for};
use super::{Emit, check_items, not_allowed, not_found};
use crate::cpus::{self, Asks, NodeCpus};
use crate::devices::{self, Needs, NodeDevices, Policies};
use crate::disruption::{Allowance, victims_max};
use crate::elastic_quota::{Ask, ElasticLedger};
use crate::placement::{
    Misfit, Vicinity, check_node, check_numa, check_ports, check_room, keeps_cpus, keeps_devices,
    keeps_ports, kept,
};
use crate::pod_group::{self, Standing, key_of};
use crate::ports::NodePorts;
use crate::state::{NodeUsage, is_active};
use crate::{State, claims, networks, priority};

/// Why a victim ends.
pub(super) const REASON_PREEMPTED: &str = "Preempted";

pub(super) fn preempt(
    state: &State,
    (pod, node): (ObjectId, ObjectId),
    victims: &[ObjectId],
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    check_count(state, victims)?;
    let pod = state.pods.get(pod).filter(|found| state.pending_pods().contains(&found.meta.id));
    let pod = pod.ok_or_else(|| not_allowed("pod", "it does not wait for a node any more"))?;
    let node = state.nodes.get(node).ok_or_else(|| not_found(format!("Node {node}")))?;
    let own = priority::of(state, &pod.spec).filter(|own| own.preempts);
    let own = own.ok_or_else(|| not_allowed("pod", "its PriorityClass does not let it preempt"))?;
    if pod.status.nominated_node.get().is_some() {
        return Err(not_allowed("pod", "room is kept for it already"));
    }
    // Before, nobody looked.
    if state.feature_level() >= GROUP_PREEMPTION_LEVEL && pod_group::held_by(state, pod).is_some() {
        return Err(not_allowed("pod", "it is placed with others of its group"));
    }
    let mut site = Site::of(state, pod, node, own.value)?;
    if !victims.is_empty() && site.check().is_ok() {
        return Err(not_allowed("victims", "none of them need end: there is room without that"));
    }
    let (mut allowance, before) = (Allowance::default(), ElasticLedger::default());
    if let Some(ask) = &site.ask {
        before.check_lent(state, ask).map_err(|reason| not_allowed("pod", reason))?;
    }
    let takes_back = site.ask.as_ref().is_some_and(|ask| before.is_within_min(state, ask));
    let mut seen = BTreeSet::new();
    let gangs = gangs_on(state, victims, |at| at == node.meta.id);
    for id in victims {
        let victim = state.pods.get(*id).filter(|victim| seen.insert(victim.meta.id));
        let is_there = |victim: &&std::sync::Arc<Pod>| {
            let is_in_tree = || site.ask.is_some() && Ask::of(state, victim).is_some();
            victim.node == Some(node.meta.id)
                || (victim.node.is_some()
                    && (is_in_tree() || key_of(state, victim).is_some_and(|key| gangs.contains_key(&key))))
        };
        let victim = victim.filter(|victim| is_active(victim)).filter(is_there);
        let victim = victim.ok_or_else(|| not_allowed("victims", format!("pod {id} does not stay there")))?;
        let name = &victim.meta.name;
        let theirs = priority::of(state, &victim.spec);
        let is_lower = theirs.is_some_and(|theirs| theirs.value < own.value);
        match &site.ask {
            None if is_lower => {}
            Some(ask) if theirs.is_some() && before.may_end(state, (ask, takes_back), is_lower, victim) => {}
            None => return Err(not_allowed("victims", format!("pod {name} is not of lower priority"))),
            Some(_) => {
                let reason = format!(
                    "pod {name} is neither of lower priority in the own leaf, or outside of the tree, nor of a leaf that \
                     has borrowed what is taken back"
                );
                return Err(not_allowed("victims", reason));
            }
        }
        if let Err(budget) = allowance.take(state, victim) {
            let reason =
                format!("PodDisruptionBudget {} does not allow the end of pod {name}", budget.meta.name);
            return Err(not_allowed("victims", reason));
        }
        site.put(victim, false);
    }
    check_minimums(&site, &before, victims)?;
    check_gangs(state, victims)?;
    site.check().map_err(|reason| not_allowed("node", reason))?;
    need::check(&mut site, victims)?;
    nominate(state, pod, node, victims.len(), emit);
    for victim in victims.iter().filter_map(|id| state.pods.get(*id)) {
        end_for(state, victim, pod.meta.id, REASON_PREEMPTED, emit);
    }
    Ok(())
}

/// No leaf that has borrowed falls below its own min.
fn check_minimums(site: &Site<'_>, before: &ElasticLedger, victims: &[ObjectId]) -> Result<(), Rejection> {
    let (state, Some(ask)) = (site.state, &site.ask) else { return Ok(()) };
    for victim in victims.iter().filter_map(|id| state.pods.get(*id)) {
        let Some(leaf) = ask.levels.leaf_of(victim.meta.namespace.as_ref()) else { continue };
        if site.elastic.has_fallen(state, before, ask, leaf) {
            let reason = format!("ElasticQuota {} would fall below its min", ask.levels.get(leaf).name);
            return Err(not_allowed("victims", reason));
        }
    }
    Ok(())
}

/// No more pods end than may for one pod or group.
pub(super) fn check_count(state: &State, victims: &[ObjectId]) -> Result<(), Rejection> {
    let most = victims_max(state);
    if victims.len() > most {
        let reason = format!("at most {most} pods may end for one, these are {}", victims.len());
        return Err(Rejection::new(RejectionCode::Invalid, "victims", reason));
    }
    Ok(())
}

/// The groups of which pods on certain nodes are to end, with such a node: others of them may end elsewhere, too.
pub(super) fn gangs_on(
    state: &State,
    victims: &[ObjectId],
    is_there: impl Fn(ObjectId) -> bool,
) -> BTreeMap<PodGroupKey, ObjectId> {
    if state.feature_level() < QUEUES_LEVEL {
        return BTreeMap::new();
    }
    let pods = victims.iter().filter_map(|id| state.pods.get(*id)).filter(|pod| is_active(pod));
    let there = pods.filter_map(|pod| Some((pod, pod.node.filter(|node| is_there(*node))?)));
    there.filter_map(|(pod, node)| Some((key_of(state, pod)?, node))).collect()
}

/// No group is left with fewer pods than it must have: it ends whole, or enough of it stay.
pub(super) fn check_gangs(state: &State, victims: &[ObjectId]) -> Result<(), Rejection> {
    if state.feature_level() < QUEUES_LEVEL {
        return Ok(());
    }
    let pods = || victims.iter().filter_map(|id| state.pods.get(*id));
    let keys: BTreeSet<_> = pods().filter_map(|pod| key_of(state, pod)).collect();
    let ending: BTreeSet<ObjectId> = victims.iter().copied().collect();
    for key in keys {
        let of_group = || pods().filter(|pod| key_of(state, pod).as_ref() == Some(&key));
        let is_broken = Standing::of(state, &key).breaks_without(of_group().map(|pod| pod.task()));
        let is_whole = pod_group::holders(state, &key).all(|pod| ending.contains(&pod.meta.id));
        if is_broken && !is_whole {
            let reason = format!("pod group {} would be left with fewer pods than it must have", key.name);
            return Err(not_allowed("victims", reason));
        }
    }
    Ok(())
}

fn nominate(state: &State, pod: &Pod, node: &Node, victims: usize, emit: &mut Emit<'_>) {
    let ending = state.pods_on(node.meta.id).filter(|pod| pod.meta.is_deleting()).count() + victims;
    let message = format!(
        "room is kept for it on node {}, where {ending} pods end; {victims} of them are preempted for it",
        node.meta.name
    );
    let status = PodStatus {
        reason: SmolStr::new_static(REASON_UNSCHEDULABLE),
        message,
        nominated_node: Rare::some(node.meta.id),
        ..pod.status.clone()
    };
    emit.push(EventKind::PodStatusChanged { id: pod.meta.id, status });
}

pub(super) fn clear(state: &State, pods: &[ObjectId], emit: &mut Emit<'_>) -> Result<(), Rejection> {
    check_items("pods", pods.len())?;
    let mut seen = BTreeSet::new();
    for pod in pods.iter().filter(|id| seen.insert(**id)).filter_map(|id| state.pods.get(*id)) {
        let waits = state.pending_pods().contains(&pod.meta.id);
        if waits && pod.status.nominated_node.get().is_some() {
            let message = "the room that was kept for it is not enough any more".to_owned();
            let status = PodStatus { nominated_node: Rare::NONE, message, ..pod.status.clone() };
            emit.push(EventKind::PodStatusChanged { id: pod.meta.id, status });
        }
    }
    Ok(())
}

/// A node as it will be for one pod once those that end have gone.
struct Site<'a> {
    state: &'a State,
    pod: &'a Pod,
    node: &'a Node,
    usage: NodeUsage,
    vicinity: Vicinity,
    /// What the pod asks for of devices, and those of the node; only where it does.
    devices: Option<(Needs, NodeDevices)>,
    /// What the pod asks of the elastic quota tree, if it is in it.
    ask: Option<Ask>,
    /// What is used of that without those that end.
    elastic: ElasticLedger,
    /// The same of CPUs for itself.
    cpus: Option<(CpuNeeds, Option<NodeCpus>)>,
    /// The ports that pods have there; only where the pod publishes some.
    ports: Option<NodePorts>,
}

impl<'a> Site<'a> {
    /// Refused where nobody's end would help.
    fn of(state: &'a State, pod: &'a Pod, node: &'a Node, priority: i32) -> Result<Self, Rejection> {
        check_node(&pod.spec, node).map_err(|misfit| not_allowed("node", misfit.to_string()))?;
        let place = claims::place(state, pod.meta.namespace.as_ref(), &pod.spec);
        let place = place.map_err(|reason| not_allowed("pod", reason))?;
        // Before, a network that had gone meanwhile was not noticed here.
        if state.feature_level() >= ELASTIC_QUOTA_LEVEL {
            let networks = networks::outlook(state, pod).map_err(|reason| not_allowed("pod", reason))?;
            if !networks.is_empty() && !node.status.facts.attaches_networks() {
                return Err(not_allowed("node", Misfit::NoNetworks.to_string()));
            }
        }
        place.check(node).map_err(|misfit| not_allowed("node", misfit.to_string()))?;
        let id = node.meta.id;
        let own = pod.meta.id;
        let usage = state.node_usage(id).plus(kept(state, id, || priority, |other| other == own));
        let devices = match pod.spec.asks_for_devices() {
            true => Some(Self::devices(state, pod, node, priority)?),
            false => None,
        };
        let (vicinity, ask) = (state.vicinity.clone(), Ask::of(state, pod));
        let elastic = ElasticLedger::default();
        let cpus = Self::cpus(state, pod, node, priority)?;
        let ports = Self::ports(state, pod, node, priority)?;
        let mut site = Self { state, pod, node, usage, vicinity, devices, cpus, ports, ask, elastic };
        let ending = |pod: &&std::sync::Arc<Pod>| pod.meta.is_deleting() && !pod.status.phase.is_terminal();
        state.pods_on(id).filter(ending).for_each(|pod| site.count(pod, false));
        Ok(site)
    }

    fn cpus(
        state: &State,
        pod: &Pod,
        node: &Node,
        priority: i32,
    ) -> Result<Option<(CpuNeeds, Option<NodeCpus>)>, Rejection> {
        let needs = cpus::needs(state, pod).map_err(|problem| not_allowed("pod", problem.to_string()))?;
        let Some(needs) = needs else { return Ok(None) };
        let (id, own) = (node.meta.id, pod.meta.id);
        if keeps_cpus(state, id, || priority, |other| other == own) {
            return Err(not_allowed("node", "its CPUs are kept for another pod"));
        }
        Ok(Some((needs, state.node_cpus(id).cloned())))
    }

    fn ports(state: &State, pod: &Pod, node: &Node, priority: i32) -> Result<Option<NodePorts>, Rejection> {
        if pod.spec.host_ports().next().is_none() {
            return Ok(None);
        }
        let (id, own) = (node.meta.id, pod.meta.id);
        if keeps_ports(state, (id, &pod.spec), || priority, |other| other == own) {
            return Err(not_allowed("node", "its ports are kept for another pod"));
        }
        Ok(Some(state.node_ports(id).cloned().unwrap_or_default()))
    }

    fn devices(
        state: &State,
        pod: &Pod,
        node: &Node,
        priority: i32,
    ) -> Result<(Needs, NodeDevices), Rejection> {
        let needs = Needs::of_pod(pod, &state.devices.classes);
        let needs = needs.map_err(|bad| not_allowed("pod", bad.to_string()))?;
        let (id, own) = (node.meta.id, pod.meta.id);
        if keeps_devices(state, id, || priority, |other| other == own) {
            return Err(not_allowed("node", "its devices are kept for another pod"));
        }
        Ok((needs, state.devices.get(id).map(|devices| NodeDevices::clone(devices)).unwrap_or_default()))
    }

    /// One that is not ending yet ends, or stays after all, wherever it is.
    fn put(&mut self, pod: &Pod, is_there: bool) {
        self.elastic.end(self.state, pod, !is_there);
        if pod.node == Some(self.node.meta.id) {
            self.count(pod, is_there);
        }
    }

    /// A pod of this node has gone, or is there again.
    fn count(&mut self, pod: &Pod, is_there: bool) {
        let (id, request) = (pod.meta.id, pod.spec.scheduling_request());
        if let Some((_, devices)) = &mut self.devices {
            match is_there {
                true => devices.take(id, pod.devices()),
                false => devices.release(id, pod.devices()),
            }
        }
        if let Some(((_, Some(cpus)), given)) = self.cpus.as_mut().zip(pod.cpus()) {
            match is_there {
                true => cpus.take(id, given),
                false => cpus.release(id),
            }
        }
        if let Some(ports) = &mut self.ports {
            match is_there {
                true => ports.take(id, pod.spec.host_ports()),
                false => ports.release(id, pod.spec.host_ports()),
            }
        }
        match is_there {
            true => {
                self.usage = self.usage.with(request);
                self.vicinity.bind(pod, self.node);
            }
            false => {
                self.usage = self.usage.without(request);
                self.vicinity.release(pod, self.node);
            }
        }
    }

    fn check(&self) -> Result<(), String> {
        let request = self.pod.spec.scheduling_request();
        check_room(request, self.node, self.usage).map_err(|misfit| misfit.to_string())?;
        if let Some((needs, devices)) = &self.devices {
            devices::check_node(needs, self.node, Some(devices)).map_err(|misfit| misfit.to_string())?;
        }
        let wanted: Vec<_> = self.pod.spec.host_ports().collect();
        check_ports(&wanted, self.ports.as_ref()).map_err(|misfit| misfit.to_string())?;
        if let Some(ask) = &self.ask {
            self.elastic.check_after(self.state, ask)?;
        }
        if let Some((needs, cpus)) = &self.cpus {
            let devices = self.devices.as_ref().map(|(_, devices)| devices);
            let asked = self.devices.as_ref().filter(|(needs, _)| !needs.asks.is_empty());
            let asked = asked.map(|(needs, _)| (needs, Policies::of(self.pod)));
            let asks = Asks { cpus: Some(needs), devices: asked };
            check_numa(&asks, self.node, cpus.as_ref(), devices).map_err(|misfit| misfit.to_string())?;
        }
        let Some(outlook) = self.vicinity.outlook(self.pod) else { return Ok(()) };
        self.vicinity.check(&outlook, self.node).map_err(|misfit| misfit.to_string())
    }
}
