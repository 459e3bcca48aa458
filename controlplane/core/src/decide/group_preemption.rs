//! Preemption for a group that waits: all of its pods that must be placed together get nodes, and pods of lower priority there end
//! for them. What the scheduler chose is asked again: as a whole, or not at all.
//!
//! Source: the `preempt` action of Volcano, of which nothing but its purpose is taken: victims end in one decision, and only when
//! all that the group must have fit then. Stricter than there: disruption budgets are kept, and groups end whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bulkhead_types::{
    EventKind, Node, Nomination, ObjectId, Pod, PodGroupKey, PodStatus, Rare, Rejection, RejectionCode,
};
use smol_str::SmolStr;

use super::pods::{REASON_UNSCHEDULABLE, end_for};
use super::preemption::{REASON_PREEMPTED, check_count, check_gangs, gangs_on};
use super::{Emit, check_items, not_allowed, not_found};
use crate::cpus::{self, Asks, NodeCpus};
use crate::devices::{self, Needs, NodeDevices, Policies};
use crate::disruption::Allowance;
use crate::elastic_quota::Ask;
use crate::placement::{
    Misfit, Vicinity, check_node, check_numa, check_ports, check_room, keeps_cpus, keeps_devices,
    keeps_ports, kept,
};
use crate::pod_group::{self, Standing, key_of};
use crate::ports::NodePorts;
use crate::queue::{self, QueueLedger};
use crate::state::{Charge, NodeUsage, is_active};
use crate::{State, claims, networks, priority};

/// Seats that are asked to find out whether each victim is needed, at most, where other pods matter to the group.
const NEED_CHECKS_MAX: usize = 1 << 16;

pub(super) fn preempt(
    state: &State,
    nominations: &[Nomination],
    victims: &[ObjectId],
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    check_items("nominations", nominations.len())?;
    check_count(state, victims)?;
    let group = Group::of(state, nominations, emit.at_ms())?;
    if !victims.is_empty() && group.check_seats(&[]).is_ok() {
        return Err(not_allowed("victims", "none of them need end: there is room without that"));
    }
    let nodes: BTreeSet<ObjectId> = nominations.iter().map(|one| one.node).collect();
    group.check_victims(&nodes, victims)?;
    group.check_seats(victims)?;
    group.check_need(victims)?;
    group.nominate(victims.len(), victims, emit);
    let mut first = BTreeMap::<ObjectId, ObjectId>::new();
    for one in nominations {
        first.entry(one.node).or_insert(one.pod);
    }
    let gangs = gangs_on(state, victims, |node| nodes.contains(&node));
    for victim in victims.iter().filter_map(|id| state.pods.get(*id)) {
        // For whom one elsewhere ends is who gets the place of another of its group.
        let own = victim.node.filter(|node| nodes.contains(node));
        let node = own.or_else(|| gangs.get(&key_of(state, victim)?).copied());
        let preemptor = node.and_then(|node| first.get(&node)).copied();
        end_for(state, victim, preemptor.unwrap_or(nominations[0].pod), REASON_PREEMPTED, emit);
    }
    Ok(())
}

/// A group that waits, and where its pods shall be.
struct Group<'a> {
    state: &'a State,
    key: PodGroupKey,
    standing: Standing,
    priority: i32,
    seats: Vec<(&'a Arc<Pod>, &'a Arc<Node>)>,
}

impl<'a> Group<'a> {
    /// Refused where it does not wait for room, or may make nobody end.
    fn of(state: &'a State, nominations: &[Nomination], now_ms: u64) -> Result<Self, Rejection> {
        let group = |one: &Nomination| state.pods.get(one.pod).and_then(|pod| key_of(state, pod));
        let Some(key) = nominations.first().and_then(group) else {
            let reason = "the first is of no pod of a group";
            return Err(Rejection::new(RejectionCode::Invalid, "nominations", reason));
        };
        let refuse = |reason: String| not_allowed(format!("pod group {}", key.name), reason);
        let standing = Standing::of(state, &key);
        if !standing.is_held() {
            return Err(refuse("it has all that it must have".to_owned()));
        }
        if let Some(reason) = standing.hold(state, &key) {
            return Err(refuse(reason));
        }
        if standing.put_off_until_ms() > now_ms {
            return Err(refuse("it is put off".to_owned()));
        }
        let mut seats = Vec::with_capacity(nominations.len());
        let mut seen = BTreeSet::new();
        for one in nominations {
            let waits = |pod: &&Arc<Pod>| {
                standing.waiting.contains(&pod.meta.id)
                    && state.pending_pods().contains(&pod.meta.id)
                    && seen.insert(pod.meta.id)
            };
            let pod = state.pods.get(one.pod).filter(waits);
            let pod = pod.ok_or_else(|| {
                refuse(format!("pod {} is not of it, or named twice, or does not wait", one.pod))
            })?;
            if pod.status.nominated_node.get().is_some() {
                return Err(refuse(format!("room is kept for pod {} already", pod.meta.name)));
            }
            let own = priority::of(state, &pod.spec).filter(|own| own.preempts);
            own.ok_or_else(|| refuse("its PriorityClass does not let it preempt".to_owned()))?;
            if Ask::of(state, pod).is_some() {
                return Err(refuse(
                    "it is in the elastic quota tree, where nobody ends for groups".to_owned(),
                ));
            }
            let node = state.nodes.get(one.node);
            seats.push((pod, node.ok_or_else(|| not_found(format!("Node {}", one.node)))?));
        }
        standing.check_together(seats.iter().map(|(pod, _)| pod.task())).map_err(&refuse)?;
        let priority = standing.priority().ok_or_else(|| refuse("its pods have no priority".to_owned()))?;
        Ok(Self { state, key, standing, priority, seats })
    }

    /// Who ends is lower and of use, budgets allow it, and groups end whole.
    fn check_victims(&self, nodes: &BTreeSet<ObjectId>, victims: &[ObjectId]) -> Result<(), Rejection> {
        let state = self.state;
        let (mut allowance, mut seen) = (Allowance::default(), BTreeSet::new());
        let gangs = gangs_on(state, victims, |node| nodes.contains(&node));
        for id in victims {
            let is_there = |victim: &&Arc<Pod>| {
                let is_of_gang = || key_of(state, victim).is_some_and(|key| gangs.contains_key(&key));
                victim.node.is_some_and(|node| nodes.contains(&node) || is_of_gang())
            };
            let victim = state.pods.get(*id).filter(|victim| seen.insert(victim.meta.id));
            let victim = victim.filter(|victim| is_active(victim)).filter(is_there);
            let victim =
                victim.ok_or_else(|| not_allowed("victims", format!("pod {id} does not stay there")))?;
            let name = &victim.meta.name;
            if priority::of(state, &victim.spec).is_none_or(|theirs| theirs.value >= self.priority) {
                return Err(not_allowed("victims", format!("pod {name} is not of lower priority")));
            }
            if let Err(budget) = allowance.take(state, victim) {
                let reason =
                    format!("PodDisruptionBudget {} does not allow the end of pod {name}", budget.meta.name);
                return Err(not_allowed("victims", reason));
            }
        }
        check_gangs(state, victims)
    }

    /// Whether all pods fit, one beside the other, once those that end there and the victims have gone; and within their queue.
    fn check_seats(&self, victims: &[ObjectId]) -> Result<(), Rejection> {
        let state = self.state;
        let nodes = self.seats.iter().map(|(_, node)| node.meta.id).collect();
        let mut hall = Hall::new(self, &nodes, victims.iter());
        let mut queues = QueueLedger::default();
        let refuse = |reason: String| not_allowed(format!("pod group {}", self.key.name), reason);
        self.standing.check_least(state, &self.key, &queues).map_err(&refuse)?;
        for (pod, node) in &self.seats {
            if let Some(queue) = queue::of_pod(state, pod) {
                let charge = Charge::of_pod(pod, &state.devices.classes);
                queues.check(state, &queue, &charge).map_err(&refuse)?;
                queues.take(&queue, &charge);
            }
            hall.seat(pod, node).map_err(|reason| {
                not_allowed(format!("pod {} on node {}", pod.meta.name, node.meta.name), reason)
            })?;
        }
        self.standing.check_free(state, &self.key, &hall.gone).map_err(refuse)
    }

    /// Each of the victims is needed, or each group of them that ends whole.
    fn check_need(&self, victims: &[ObjectId]) -> Result<(), Rejection> {
        let state = self.state;
        let all: BTreeSet<ObjectId> = victims.iter().copied().collect();
        let looks = self.seats.iter().any(|(pod, _)| state.vicinity.outlook(pod).is_some());
        let node_of = |id: &ObjectId| state.pods.get(*id).and_then(|pod| pod.node);
        let (mut there, mut seats) = (BTreeMap::<_, Vec<ObjectId>>::new(), BTreeMap::<_, Vec<usize>>::new());
        for id in victims {
            node_of(id).into_iter().for_each(|node| there.entry(node).or_default().push(*id));
        }
        for (at, (_, node)) in self.seats.iter().enumerate() {
            seats.entry(node.meta.id).or_default().push(at);
        }
        for (number, unit) in pod_group::units(state, &all).into_iter().enumerate() {
            // Where other pods matter all seats are asked each time: that is bounded.
            if looks && (number + 1) * self.seats.len() > NEED_CHECKS_MAX {
                break;
            }
            let nodes: BTreeSet<ObjectId> = match looks {
                true => there.keys().chain(seats.keys()).copied().collect(),
                false => unit.iter().filter_map(node_of).collect(),
            };
            let fewer = nodes.iter().filter_map(|node| there.get(node)).flatten();
            let mut hall = Hall::new(self, &nodes, fewer.filter(|id| !unit.contains(id)));
            let asked: BTreeSet<usize> =
                nodes.iter().filter_map(|node| seats.get(node)).flatten().copied().collect();
            let is_seat = |at: &usize| hall.seat(self.seats[*at].0, self.seats[*at].1).is_ok();
            if asked.iter().all(is_seat) {
                let pod = unit.first().and_then(|id| state.pods.get(*id));
                let name = pod.map(|pod| pod.meta.name.to_string()).unwrap_or_default();
                return Err(not_allowed("victims", format!("pod {name} need not end")));
            }
        }
        Ok(())
    }

    fn nominate(&self, count: usize, victims: &[ObjectId], emit: &mut Emit<'_>) {
        let victims: BTreeSet<ObjectId> = victims.iter().copied().collect();
        let mut ending = BTreeMap::<ObjectId, usize>::new();
        for (pod, node) in &self.seats {
            let on_node = || self.state.pods_on(node.meta.id);
            let ends = |pod: &&Arc<Pod>| pod.meta.is_deleting() || victims.contains(&pod.meta.id);
            let ending = *ending.entry(node.meta.id).or_insert_with(|| on_node().filter(ends).count());
            let message = format!(
                "pod group {}: room is kept for {} of its pods, for this one on node {}, where {ending} pods end; {count} are \
                 preempted for the group",
                self.key.name,
                self.seats.len(),
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
    }
}

/// A node as it will be.
struct Place {
    usage: NodeUsage,
    devices: NodeDevices,
    cpus: Option<NodeCpus>,
    ports: NodePorts,
}

/// The nodes as they will be for the group's pods, once those that end have gone.
struct Hall<'a> {
    group: &'a Group<'a>,
    places: BTreeMap<ObjectId, Place>,
    vicinity: Vicinity,
    /// Who will have gone.
    gone: Vec<ObjectId>,
}

impl<'a> Hall<'a> {
    /// Of certain nodes only, without some victims.
    fn new<'v>(
        group: &'a Group<'a>,
        nodes: &BTreeSet<ObjectId>,
        victims: impl Iterator<Item = &'v ObjectId>,
    ) -> Self {
        let state = group.state;
        let (places, vicinity) = (BTreeMap::new(), state.vicinity.clone());
        let mut hall = Self { group, places, vicinity, gone: Vec::new() };
        let of_seats: BTreeSet<ObjectId> = group.seats.iter().map(|(_, node)| node.meta.id).collect();
        for id in nodes.intersection(&of_seats).copied() {
            let usage = state.node_usage(id).plus(kept(state, id, || group.priority, |pod| hall.is_own(pod)));
            let devices = state.devices.get(id).map(|devices| NodeDevices::clone(devices));
            let devices = devices.unwrap_or_default();
            let ports = state.node_ports(id).cloned().unwrap_or_default();
            hall.places.insert(id, Place { usage, devices, cpus: state.node_cpus(id).cloned(), ports });
            let ending = |pod: &&Arc<Pod>| pod.meta.is_deleting() && !pod.status.phase.is_terminal();
            state.pods_on(id).filter(ending).for_each(|pod| hall.leave(pod));
        }
        victims.filter_map(|id| state.pods.get(*id)).for_each(|pod| hall.leave(pod));
        hall
    }

    /// Whether room that is kept for a pod is the group's.
    fn is_own(&self, pod: ObjectId) -> bool {
        self.group.standing.waiting.contains(&pod)
    }

    fn leave(&mut self, pod: &Pod) {
        let Some(node) = pod.node.and_then(|node| self.group.state.nodes.get(node)) else { return };
        self.vicinity.release(pod, node);
        self.gone.push(pod.meta.id);
        if let Some(place) = self.places.get_mut(&node.meta.id) {
            place.usage = place.usage.without(pod.spec.scheduling_request());
            place.devices.release(pod.meta.id, pod.devices());
            place.cpus.iter_mut().for_each(|cpus| cpus.release(pod.meta.id));
            place.ports.release(pod.meta.id, pod.spec.host_ports());
        }
    }

    /// A pod takes what it asks for.
    fn seat(&mut self, pod: &Pod, node: &Node) -> Result<(), String> {
        let (state, id) = (self.group.state, node.meta.id);
        check_node(&pod.spec, node).map_err(|misfit| misfit.to_string())?;
        claims::place(state, pod.meta.namespace.as_ref(), &pod.spec)?
            .check(node)
            .map_err(|misfit| misfit.to_string())?;
        if !networks::outlook(state, pod)?.is_empty() && !node.status.facts.attaches_networks() {
            return Err(Misfit::NoNetworks.to_string());
        }
        let request = pod.spec.scheduling_request();
        let place = self.places.get(&id).ok_or("the node is not there")?;
        check_room(request, node, place.usage).map_err(|misfit| misfit.to_string())?;
        if let Some(outlook) = self.vicinity.outlook(pod) {
            self.vicinity.check(&outlook, node).map_err(|misfit| misfit.to_string())?;
        }
        let published: Vec<_> = pod.spec.host_ports().collect();
        check_ports(&published, Some(&place.ports)).map_err(|misfit| misfit.to_string())?;
        let (least, is_own) = (self.group.priority, |other| self.is_own(other));
        if keeps_ports(state, (id, &pod.spec), || least, is_own) {
            return Err("its ports are kept for another pod".to_owned());
        }
        let needs = Needs::of_pod(pod, &state.devices.classes).map_err(|bad| bad.to_string())?;
        let wanted = cpus::needs(state, pod).map_err(|problem| problem.to_string())?;
        let asked = (!needs.asks.is_empty()).then_some((&needs, Policies::of(pod)));
        if asked.is_some() && keeps_devices(state, id, || least, is_own) {
            return Err("its devices are kept for another pod".to_owned());
        }
        if wanted.is_some() && keeps_cpus(state, id, || least, is_own) {
            return Err("its CPUs are kept for another pod".to_owned());
        }
        devices::check_node(&needs, node, Some(&place.devices)).map_err(|misfit| misfit.to_string())?;
        let asks = Asks { cpus: wanted.as_ref(), devices: asked };
        let (cpus, devices) = (place.cpus.as_ref(), Some(&place.devices));
        check_numa(&asks, node, cpus, devices).map_err(|misfit| misfit.to_string())?;
        let chosen = cpus::choose(&asks, cpus, devices).ok_or("its devices are not to be had there")?;
        let place = self.places.get_mut(&id).ok_or("the node is not there")?;
        place.usage = place.usage.with(request);
        place.devices.take(pod.meta.id, &chosen.devices);
        if let Some((cpus, given)) = place.cpus.as_mut().zip(chosen.cpus.as_ref()) {
            cpus.take(pod.meta.id, given);
        }
        place.ports.take(pod.meta.id, published);
        self.vicinity.bind(pod, node);
        Ok(())
    }
}
