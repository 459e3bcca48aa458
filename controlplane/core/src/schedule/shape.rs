//! Waiting pods that every node suits, or does not suit, alike.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bulkhead_types::{
    AllocatedDevice, CpuNeeds, Name, NetworkAttachment, ObjectId, PodGroupKey, PodSpec, PublishedPort,
    Resources, SchedulerConfig, Shared, StringMap, digest128,
};
use smol_str::SmolStr;

use super::candidates::Candidates;
use super::index::{Asker, EVERY_GROUP, NO_GROUP, NodeEntry, NodeIndex, Slot, SlotChange};
use super::ledgers::{LedgerView, Ledgers, Matters};
use super::plan::Plan;
use super::score::{self, SCORE_MAX, Scorer, WantedImages, Wishes, owner_spread, sum_of};
use crate::claims::{self, Place};
use crate::cpus::{self, Asks, Chosen};
use crate::devices::{self, Classes, Needs, NodeDevices, Policies, Says};
use crate::networks::{self, Addresses, NetworkNeed};
use crate::placement::{Misfit, Vicinity, check_fit, check_node, check_numa, check_ports};
use crate::priority::Priorities;
use crate::{NodeUsage, State};

/// Candidates among which the pods of one owner are spread: those of the best rank come first.
const SPREAD_SAMPLE: usize = 16;

/// Pods that every node suits, or does not suit, alike.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// Any of the pods' specs.
    pub(crate) spec: Shared<PodSpec>,
    pub(crate) request: Resources,
    /// Pods that wait, oldest first.
    pub(crate) waiting: BTreeSet<ObjectId>,
    /// Those of them that do not know yet why they wait.
    pub(crate) unreported: BTreeSet<ObjectId>,
    /// When all of them were told, and at which position of the index' log.
    pub(crate) reported_at_ms: u64,
    pub(crate) reported_position: Option<u64>,
    /// Those with a higher one are placed first.
    pub(crate) priority: i32,
    /// The PriorityClass that they name and that is not there: until it is, they wait.
    pub(crate) missing_class: Option<SmolStr>,
    /// Of pods with claims: their namespace. Other pods are alike whatever their namespace.
    namespace: Option<Name>,
    /// Of pods that are placed with others: their group.
    pub(crate) group: Option<PodGroupKey>,
    /// A number for that, by which room is kept for it.
    pub(crate) group_id: u64,
    /// The queue that they name themselves.
    pub(crate) own_queue: Option<Name>,
    /// Their queue, if it is not the default one.
    pub(crate) queue: Option<Name>,
    /// Whether their namespaces are in the elastic quota tree: then they are all of one leaf.
    pub(crate) in_tree: bool,
    /// Why there is no room for one more in that.
    pub(crate) tree_hold: Option<String>,
    /// Why their queue lets nobody in.
    pub(crate) queue_hold: Option<String>,
    /// Whether they wait for the rest of it.
    pub(crate) is_held: bool,
    /// Where their claims let them be; or why no node suits.
    pub(crate) place: Result<Place, String>,
    /// Which networks they are attached to; or why they cannot be now.
    pub(crate) networks: Result<Vec<NetworkNeed>, String>,
    /// The CPUs that each wants for itself, if they do; or why none can be had.
    pub(crate) cpus: Result<Option<CpuNeeds>, String>,
    /// The ports of its node that each publishes.
    pub(crate) ports: Arc<[PublishedPort]>,
    /// What they ask for of devices, if they do.
    devices: Option<Box<DeviceShape>>,
    /// What the pods say of how nodes are scored.
    wishes: Wishes,
    /// Their images that tell nodes apart.
    images: Vec<SmolStr>,
    /// What counts for them, and by which configuration that was found.
    scorer: Scorer,
    config: Option<Arc<SchedulerConfig>>,
    /// How other pods divide the nodes, if they do.
    plan: Option<Plan>,
    /// What the plan was made of: counted anew since then, it is made anew.
    rebuilds: u64,
    candidates: Candidates,
    /// Where a node stands, for a moment.
    coordinates: Vec<u32>,
    /// Up to where the index' log is worked in; `None` before the first time.
    position: Option<u64>,
    /// At this position no node suited, by what other pods allow.
    stuck_at: Option<u64>,
}

/// What pods ask for of devices.
#[derive(Clone, Debug)]
struct DeviceShape {
    policies: Policies,
    /// Of the pods, by some of which they choose.
    annotations: StringMap,
    needs: Result<Needs, String>,
    /// By which classes that was found.
    classes: Arc<Classes>,
}

/// What a trial has taken of a node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Taking {
    pub(crate) usage: NodeUsage,
    /// The node's ledgers as they would be, once anything is taken.
    pub(crate) ledgers: Ledgers,
    /// How many claims the pods use.
    pub(crate) claims: usize,
}

/// Where a pod of a shape may go best.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    pub(crate) slot: Slot,
    pub(crate) score: i64,
    /// How many nodes may take it.
    pub(crate) nodes: u32,
}

impl Shape {
    pub(super) fn new(
        spec: Shared<PodSpec>,
        namespace: Option<Name>,
        (group, own_queue): (Option<PodGroupKey>, Option<Name>),
        (policies, wishes, images): (Policies, Wishes, Vec<SmolStr>),
        annotations: &StringMap,
    ) -> Self {
        let (request, ports) = (spec.scheduling_request(), spec.host_ports().collect());
        let classes = Arc::<Classes>::default();
        // Of no class yet: the first look finds what is asked for.
        let devices = spec.asks_for_devices().then(|| {
            let annotations = annotations.clone();
            let says = Says { cards: policies.cards, annotations: &annotations };
            let needs = Needs::of(&spec, says, &classes).map_err(|bad| bad.to_string());
            Box::new(DeviceShape { policies, annotations, needs, classes })
        });
        Self {
            spec,
            request,
            waiting: BTreeSet::new(),
            unreported: BTreeSet::new(),
            reported_at_ms: 0,
            reported_position: None,
            priority: 0,
            missing_class: None,
            namespace,
            group_id: group.as_ref().map_or(NO_GROUP, group_id),
            group,
            own_queue,
            queue: None,
            in_tree: false,
            tree_hold: None,
            queue_hold: None,
            is_held: false,
            place: Ok(Place::default()),
            networks: Ok(Vec::new()),
            cpus: Ok(None),
            ports,
            devices,
            wishes,
            images,
            scorer: Scorer::default(),
            config: None,
            plan: None,
            rebuilds: 0,
            candidates: Candidates::default(),
            coordinates: Vec::new(),
            position: None,
            stuck_at: None,
        }
    }

    /// Looks up what the pods' class, claims and surroundings say now. Those that waited for them are told anew why they
    /// wait.
    pub(crate) fn look_up(
        &mut self,
        state: &State,
        priorities: &Priorities,
        config: &Arc<SchedulerConfig>,
        index: &NodeIndex,
    ) {
        let pod = self.waiting.first().and_then(|id| state.pods().get(*id));
        let outlook = pod.and_then(|pod| state.vicinity.outlook(pod));
        let present = self.plan.as_ref().map(Plan::outlook);
        let is_new = present != outlook.as_ref() && (present.is_some() || outlook.is_some());
        if self.position.is_none() || is_new || self.rebuilds != state.vicinity.rebuilds() {
            self.plan = Plan::new(&self.spec, outlook);
            self.rebuilds = state.vicinity.rebuilds();
            self.position = None;
        }
        let networks = pod.map_or_else(|| Ok(Vec::new()), |pod| networks::outlook(state, pod));
        if self.networks != networks {
            self.networks = networks;
            self.position = None;
            self.reported_position = None;
            self.reported_at_ms = 0;
        }
        let cpus = pod.map_or(Ok(None), |pod| cpus::needs(state, pod).map_err(|problem| problem.to_string()));
        if self.cpus != cpus {
            self.cpus = cpus;
            self.position = None;
            self.reported_position = None;
            self.reported_at_ms = 0;
        }
        let place = claims::place(state, self.namespace.as_ref(), &self.spec);
        if self.place != place {
            self.place = place;
            self.position = None;
            self.reported_position = None;
            self.reported_at_ms = 0;
        }
        if let Some(devices) =
            self.devices.as_mut().filter(|one| !Arc::ptr_eq(&one.classes, &state.devices.classes))
        {
            let says = Says { cards: devices.policies.cards, annotations: &devices.annotations };
            let needs = Needs::of(&self.spec, says, &state.devices.classes).map_err(|bad| bad.to_string());
            devices.classes = Arc::clone(&state.devices.classes);
            if devices.needs != needs {
                devices.needs = needs;
                self.position = None;
                self.reported_position = None;
                self.reported_at_ms = 0;
            }
        }
        self.look_up_scores(config, index);
        let found = priorities.of(self.spec.priority_class()).map(|own| own.value);
        let missing = found.is_none().then(|| self.spec.priority_class().cloned()).flatten();
        if self.missing_class != missing {
            self.reported_position = None;
            self.reported_at_ms = 0;
        }
        // Room that is kept counts by priority.
        if found != Some(self.priority) {
            self.position = None;
        }
        (self.priority, self.missing_class) = (found.unwrap_or_default(), missing);
    }

    /// How nodes are scored, by the configuration as it is now.
    fn look_up_scores(&mut self, config: &Arc<SchedulerConfig>, index: &NodeIndex) {
        let is_same = self.config.as_ref().is_some_and(|present| Arc::ptr_eq(present, config));
        // What is asked for of devices may have changed with their classes; then the candidates are found anew as well.
        let images = WantedImages::new(&self.images, &self.spec, index.spread(), index.len());
        let are_alike = match (&images, self.scorer.images()) {
            (Some(now), Some(then)) => now.is_like(then),
            (now, _) => now.is_none() || config.image_weight == 0,
        };
        if is_same && are_alike && (self.position.is_some() || self.devices.is_none()) {
            return;
        }
        let scorer = Scorer::new(config, self.wishes, self.needs().map(|(needs, _)| needs), images);
        self.config = Some(Arc::clone(config));
        if self.scorer != scorer {
            self.scorer = scorer;
            self.position = None;
        }
    }

    /// Whether the pods want nodes that do less.
    pub(crate) fn wants_load(&self) -> bool {
        self.wishes.load_aware
    }

    /// Brings the candidates up to date with the index. Costs time in proportion to what changed.
    pub(crate) fn catch_up(&mut self, index: &NodeIndex, state: &State, vicinity: &Vicinity) {
        let end = index.log_end();
        if self.position == Some(end) {
            return;
        }
        // A plan is of the labels as they were when it was made.
        let is_lasting = |changed: &[SlotChange]| {
            changed.len() <= index.slots_len()
                && (self.plan.is_none() || !changed.iter().any(|change| change.relabelled))
        };
        match self.position.and_then(|position| index.changed_since(position)) {
            Some(changed) if is_lasting(changed) => {
                for change in changed {
                    let plan = self.plan.as_mut();
                    let is_moved = plan.is_some_and(|plan| plan.is_moved_by(change.bound, vicinity));
                    match self.candidates.rank_of(change.slot) {
                        Some(rank) if change.usage_only && !is_moved => {
                            self.update_usage(index, change.slot, rank);
                        }
                        // A pod more makes no room.
                        None if change.bound.is_some() && !is_moved => {}
                        _ => self.update_with_peers(index, change.slot, vicinity),
                    }
                }
            }
            _ => self.rebuild(index, state, vicinity),
        }
        self.position = Some(end);
    }

    fn rebuild(&mut self, index: &NodeIndex, state: &State, vicinity: &Vicinity) {
        self.candidates.clear();
        if let Some(name) = &self.spec.node_name {
            let node = bulkhead_types::Name::new(name).ok();
            let id = node.and_then(|name| state.find(bulkhead_types::Kind::Node, None, &name));
            if let Some(slot) = id.and_then(|id| index.slot_of(id)) {
                if let Some(plan) = &mut self.plan {
                    plan.survey(index);
                }
                self.update(index, slot, vicinity);
            }
            return;
        }
        if let Some(plan) = &mut self.plan {
            plan.survey(index);
        }
        for slot in 0..index.slots_len() as Slot {
            self.update(index, slot, vicinity);
        }
    }

    fn update(&mut self, index: &NodeIndex, slot: Slot, vicinity: &Vicinity) {
        let fits = index.get(slot).filter(|entry| self.check(entry).is_ok());
        let stands = fits.filter(|entry| match &self.plan {
            Some(plan) => plan.stand(slot, &entry.node, vicinity, &mut self.coordinates).is_some(),
            None => {
                self.coordinates.clear();
                true
            }
        });
        let rank = stands.map(|entry| {
            self.with_devices(score::rank(&self.scorer, &self.spec, self.request, entry), entry)
        });
        self.candidates.set(slot, rank.map(|rank| (rank, &self.coordinates[..])));
    }

    /// The same, where what is on a node decides where others stand.
    fn update_with_peers(&mut self, index: &NodeIndex, slot: Slot, vicinity: &Vicinity) {
        self.update(index, slot, vicinity);
        if self.spec.node_name.is_some() {
            return;
        }
        let peers = self.plan.as_ref().map(|plan| plan.peers(slot));
        for peer in peers.into_iter().flatten() {
            self.update(index, peer, vicinity);
        }
    }

    /// The best node for a pod. Pods of one owner are spread among the first few.
    pub(crate) fn choose(
        &mut self,
        pod: ObjectId,
        vicinity: &Vicinity,
        neighbours: impl Fn(Slot) -> u32,
    ) -> Option<Choice> {
        let hash = mix64(pod.0);
        let (cell, more, nodes) = match &self.plan {
            None => (0, 0, self.candidates.len()),
            Some(plan) => match plan.choose(&self.candidates, vicinity, hash) {
                Some(choice) => (choice.cell, choice.score, choice.nodes),
                None => {
                    self.stuck_at = self.position;
                    return None;
                }
            },
        };
        let mut best: Option<((bool, u32), Slot, u32)> = None;
        for (rank, slot) in self.candidates.best(cell, hash).take(SPREAD_SAMPLE) {
            let spread = owner_spread(neighbours(slot));
            // A node with a taint to avoid never wins by spreading.
            let key = (rank > 2 * SCORE_MAX, rank + spread);
            if best.as_ref().is_none_or(|(present, _, _)| key > *present) {
                best = Some((key, slot, sum_of(rank) + spread));
            }
            // Those that follow have no better rank, and cannot have fewer neighbours.
            if spread == SCORE_MAX {
                break;
            }
        }
        best.map(|(_, slot, score)| Choice { slot, score: i64::from(score + more), nodes })
    }

    /// A good node for a pod beside what others of its group have taken in a trial.
    pub(crate) fn choose_beside(
        &self,
        pod: ObjectId,
        index: &NodeIndex,
        taken: &BTreeMap<Slot, Taking>,
        vicinity: &Vicinity,
    ) -> Option<Choice> {
        let fits = |slot: Slot, entry: &NodeEntry| {
            let (usage, taken) = (entry.usage_for(&self.asker(None)), taken.get(&slot));
            let usage = taken.map_or(usage, |taken| usage.plus(taken.usage));
            let own = entry.ledgers();
            let ledgers = taken.map_or(own, |taken| taken.ledgers.over(own));
            entry.has_room_beside(self.request, usage)
                && self.check_claims(entry, taken.map_or(0, |taken| taken.claims)).is_ok()
                && self.check_others(entry, vicinity).is_ok()
                && self.check_ledgers(entry, None, ledgers).is_ok()
        };
        let nodes = self.candidates.len();
        if self.plan.is_none() {
            let mut best = self.candidates.best(0, mix64(pod.0));
            let found = best.find(|(_, slot)| index.get(*slot).is_some_and(|entry| fits(*slot, entry)));
            return found.map(|(rank, slot)| Choice { slot, score: sum_of(rank).into(), nodes });
        }
        // Where others of the group must be there first, candidates say nothing: every node is asked.
        let suits =
            |(slot, entry): &(Slot, &NodeEntry)| self.check_alone(entry).is_ok() && fits(*slot, entry);
        let ranked = index.entries().filter(suits).map(|(slot, entry)| {
            let turn = mix64(pod.0 ^ u64::from(slot));
            (score::rank(&self.scorer, &self.spec, self.request, entry), turn, slot)
        });
        ranked.max().map(|(rank, _, slot)| Choice { slot, score: sum_of(rank).into(), nodes: nodes.max(1) })
    }

    /// Whether other pods let a pod of this shape be on a node.
    pub(crate) fn check_others(&self, entry: &NodeEntry, vicinity: &Vicinity) -> Result<(), Misfit> {
        self.plan.as_ref().map_or(Ok(()), |plan| vicinity.check(plan.outlook(), &entry.node))
    }

    /// Whether a node suits by itself.
    pub(crate) fn check(&self, entry: &NodeEntry) -> Result<(), Misfit> {
        check_fit(&self.spec, self.request, &entry.node, entry.usage_for(&self.asker(None)))?;
        self.check_devices(entry, None)?;
        self.check_claims(entry, 0)
    }

    /// How many claims each pod uses.
    pub(crate) fn claims_len(&self) -> usize {
        self.place.as_ref().map_or(0, |place| place.claims.len())
    }

    /// Whether the pods' claims let them be on a node, beside so many others that are about to be there.
    pub(crate) fn check_claims(&self, entry: &NodeEntry, others: usize) -> Result<(), Misfit> {
        let Ok(place) = &self.place else { return Ok(()) };
        place.check(&entry.node)?;
        match &entry.attached {
            Some(attached) if !attached.has_room(&place.claims, others) => Err(Misfit::TooManyVolumes),
            _ => Ok(()),
        }
    }

    /// Whether a node suits by itself, however full it is.
    pub(crate) fn check_alone(&self, entry: &NodeEntry) -> Result<(), Misfit> {
        check_node(&self.spec, &entry.node)?;
        self.check_claims(entry, 0)
    }

    /// Whether other pods matter to where pods of this shape may be.
    pub(crate) fn looks_at_pods(&self) -> bool {
        self.plan.is_some()
    }

    /// Whether other pods may keep pods of this shape off a node, not only make another one better.
    pub(crate) fn may_be_kept_off(&self) -> bool {
        self.plan.as_ref().is_some_and(|plan| {
            let (rules, met_by) = (plan.outlook().rules(), plan.outlook().met_by());
            let has_own =
                !(rules.spread.is_empty() && rules.affinity.is_empty() && rules.anti_affinity.is_empty());
            has_own || met_by.iter().any(|term| term.weight == 0)
        })
    }

    /// The node on which room is kept for a pod, if it can have it now.
    pub(crate) fn choose_nominated(
        &self,
        pod: ObjectId,
        (slot, entry): (Slot, &NodeEntry),
        vicinity: &Vicinity,
    ) -> Option<Choice> {
        let usage = entry.usage_for(&self.asker(Some(pod)));
        self.check_alone(entry).ok()?;
        if !entry.has_room_beside(self.request, usage) || self.check_others(entry, vicinity).is_err() {
            return None;
        }
        self.check_devices(entry, Some(pod)).ok()?;
        let score = sum_of(score::rank(&self.scorer, &self.spec, self.request, entry));
        Some(Choice { slot, score: score.into(), nodes: 1 })
    }

    /// Whether nothing that the pods name keeps all of them waiting.
    pub(crate) fn may_be_placed(&self) -> bool {
        self.missing_class.is_none()
            && self.queue_hold.is_none()
            && self.place.is_ok()
            && self.networks.is_ok()
            && self.cpus.is_ok()
            && self.device_refusal().is_none()
    }

    /// They wait for the rest of their group, or do not any more.
    pub(crate) fn hold_for_group(&mut self, is_held: bool) {
        // What is kept for the others of it counts, or does not.
        if self.is_held != is_held {
            self.position = None;
        }
        self.is_held = is_held;
    }

    /// Their queue lets nobody in, or lets somebody in again.
    pub(crate) fn hold_by_queue(&mut self, reason: Option<String>) {
        if self.queue_hold != reason {
            // Other words are told in their time, another answer at once.
            self.reported_position = None;
            if self.queue_hold.is_some() != reason.is_some() {
                self.reported_at_ms = 0;
            }
        }
        self.queue_hold = reason;
    }

    /// There is no room for one more in the elastic quota tree, or there is again.
    pub(crate) fn hold_by_tree(&mut self, reason: Option<String>) {
        if self.tree_hold != reason {
            self.reported_position = None;
            if self.tree_hold.is_some() != reason.is_some() {
                self.reported_at_ms = 0;
            }
        }
        self.tree_hold = reason;
    }

    /// One of the pods, or a certain one, as who asks for room.
    pub(crate) fn asker(&self, pod: Option<ObjectId>) -> Asker {
        // Pods of DaemonSets, and others that name their node, are for that node only: nothing is kept from them.
        let group = if self.spec.node_name.is_some() { EVERY_GROUP } else { self.group_id };
        let companions = if self.is_held { self.group_id } else { NO_GROUP };
        Asker { priority: self.priority, pod, group, companions }
    }

    /// Why no node can give the pods what they ask for; `None` when some might.
    pub(crate) fn device_refusal(&self) -> Option<String> {
        self.devices.as_ref().and_then(|devices| devices.needs.as_ref().err().cloned())
    }

    pub(crate) fn needs(&self) -> Option<(&Needs, Policies)> {
        let devices = self.devices.as_ref()?;
        devices.needs.as_ref().ok().map(|needs| (needs, devices.policies))
    }

    /// Whether pods of this shape ask for devices.
    pub(crate) fn asks_for_devices(&self) -> bool {
        self.needs().is_some_and(|(needs, _)| !needs.asks.is_empty())
    }

    /// Whether a node's devices and CPUs are enough, for any pod of the shape or for one for which they may be kept.
    pub(crate) fn check_devices(&self, entry: &NodeEntry, pod: Option<ObjectId>) -> Result<(), Misfit> {
        self.check_ledgers(entry, pod, entry.ledgers())
    }

    /// Whether pods of this shape want CPUs for themselves.
    pub(crate) fn pins_cpus(&self) -> bool {
        matches!(self.cpus, Ok(Some(_)))
    }

    /// Which ledgers of nodes matter to pods of this shape. CPUs are chosen with an eye on devices only where both are asked
    /// for.
    pub(crate) fn matters(&self) -> Matters {
        let (devices, cpus) = (self.asks_for_devices(), self.pins_cpus());
        Matters { devices, cpus, ports: !self.ports.is_empty() }
    }

    /// Whether a node's devices, CPUs and ports as they will be are enough, whatever is kept of them.
    pub(crate) fn check_hardware(&self, entry: &NodeEntry, ledgers: LedgerView<'_>) -> Result<(), Misfit> {
        if let Some((needs, _)) = self.asks().devices {
            devices::check_node(needs, &entry.node, ledgers.devices)?;
        }
        check_ports(&self.ports, ledgers.ports)?;
        check_numa(&self.asks(), &entry.node, ledgers.cpus, ledgers.devices)
    }

    fn asks(&self) -> Asks<'_> {
        let devices = self.needs().filter(|(needs, _)| !needs.asks.is_empty());
        Asks { cpus: self.cpus.as_ref().ok().and_then(Option::as_ref), devices }
    }

    /// The same, with a node's ledgers as they will be.
    pub(crate) fn check_ledgers(
        &self,
        entry: &NodeEntry,
        pod: Option<ObjectId>,
        ledgers: LedgerView<'_>,
    ) -> Result<(), Misfit> {
        self.check_ledger(entry, pod, ledgers.devices)?;
        if !self.ports.is_empty() {
            if entry.keeps_ports(&self.asker(pod), &self.ports) {
                return Err(Misfit::HostPorts);
            }
            check_ports(&self.ports, ledgers.ports)?;
        }
        if !self.pins_cpus() {
            return Ok(());
        }
        if entry.keeps_cpus(&self.asker(pod)) {
            return Err(Misfit::NumaTopology);
        }
        check_numa(&self.asks(), &entry.node, ledgers.cpus, ledgers.devices)
    }

    fn check_ledger(
        &self,
        entry: &NodeEntry,
        pod: Option<ObjectId>,
        devices: Option<&NodeDevices>,
    ) -> Result<(), Misfit> {
        let Some((needs, _)) = self.needs() else { return Ok(()) };
        let Some(first) = needs.asks.first() else { return Ok(()) };
        if entry.keeps_devices(&self.asker(pod)) {
            return Err(Misfit::InsufficientDevice(first.resource.clone()));
        }
        let asker = self.asker(pod);
        if let Some(ask) = needs.asks.iter().find(|ask| !entry.leaves_devices(&asker, ask, devices)) {
            return Err(Misfit::InsufficientDevice(ask.resource.clone()));
        }
        devices::check_node(needs, &entry.node, devices)?;
        let attaches =
            self.networks.as_ref().is_ok_and(Vec::is_empty) || entry.node.status.facts.attaches_networks();
        if attaches { Ok(()) } else { Err(Misfit::NoNetworks) }
    }

    /// What a pod with these devices is attached to, with its addresses, which are taken; `None` when there are too few, and
    /// then the shape waits for them.
    pub(crate) fn attach(
        &mut self,
        (pod, given): (ObjectId, &[AllocatedDevice]),
        devices: Option<&NodeDevices>,
        addresses: &mut Addresses,
    ) -> Option<Vec<NetworkAttachment>> {
        let needs = self.networks.as_ref().ok()?;
        if needs.is_empty() {
            return Some(Vec::new());
        }
        let found = networks::attachments(pod, needs, given, devices).and_then(|mut found| {
            networks::give(pod, needs, &mut found, addresses)?;
            Ok(found)
        });
        match found {
            Ok(found) => Some(found),
            Err(reason) => {
                self.networks = Err(reason);
                (self.reported_position, self.reported_at_ms) = (None, 0);
                None
            }
        }
    }

    /// A rank that counts what a node has of devices as well, and where its CPUs are.
    fn with_devices(&self, rank: u32, entry: &NodeEntry) -> u32 {
        let devices = self.needs().zip(entry.devices.as_ref());
        let devices = devices.map(|((needs, policies), devices)| devices.score(needs, policies));
        match (devices, self.numa_score(entry)) {
            (Some(devices), Some(numa)) => score::with_devices(rank, (devices + numa) / 2),
            (Some(one), None) | (None, Some(one)) => score::with_devices(rank, one),
            (None, None) => rank,
        }
    }

    fn numa_score(&self, entry: &NodeEntry) -> Option<u32> {
        let needs = self.cpus.as_ref().ok()?.as_ref()?;
        let chosen = self.choose_hardware(entry.ledgers())?;
        score::numa::score(needs, &chosen.cpus?)
    }

    /// The devices and CPUs of a node that a pod gets; `None` when they are not there.
    pub(crate) fn choose_hardware(&self, ledgers: LedgerView<'_>) -> Option<Chosen> {
        cpus::choose(&self.asks(), ledgers.cpus, ledgers.devices)
    }

    /// Of a feasible node only what is reserved changed.
    fn update_usage(&mut self, index: &NodeIndex, slot: Slot, rank: u32) {
        let has_room =
            |entry: &&NodeEntry| entry.has_room_beside(self.request, entry.usage_for(&self.asker(None)));
        let suits = |entry: &&NodeEntry| {
            self.check_devices(entry, None).is_ok() && self.check_claims(entry, 0).is_ok()
        };
        let fits = index.get(slot).filter(has_room).filter(suits);
        let rank = fits.map(|entry| {
            self.with_devices(score::rank_again(&self.scorer, rank, self.request, entry), entry)
        });
        self.candidates.set_rank_only(slot, rank);
    }

    /// Whether, at this position of the index' log, no node suits.
    pub(crate) fn is_stuck(&self, log_end: u64) -> bool {
        let has_none = self.candidates.len() == 0 || self.stuck_at == Some(log_end);
        !self.may_be_placed() || self.tree_hold.is_some() || (self.position == Some(log_end) && has_none)
    }
}

/// A number for a group, neither that of none nor that of all.
pub(crate) fn group_id(key: &PodGroupKey) -> u64 {
    (digest128(key) as u64).clamp(NO_GROUP + 1, EVERY_GROUP - 1)
}

/// Spreads neighbouring ids over all numbers (the finalizer of SplitMix64).
pub(crate) fn mix64(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
