//! Nodes in dense slots, with what is reserved on them, and a log of which slots changed.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use bulkhead_types::{Binding, Node, ObjectId, Pod, PublishedPort, Resources};
use smol_str::SmolStr;

use super::ledgers::LedgerView;
use super::score::{ImageSizes, ImageSpread, Load, image_sizes};
use super::shape::group_id;
use super::topology::Topology;
use crate::claims::Attached;
use crate::cpus::{self, NodeCpus};
use crate::devices::{Ask, NodeDevices};
use crate::placement::{Mover, check_room};
use crate::ports::NodePorts;
use crate::priority::Priorities;
use crate::state::nominated_node;
use crate::{NodeUsage, State};

/// The place of a node in the index.
pub(crate) type Slot = u32;

/// Labels by which nodes are looked up before that is forgotten.
const TOPOLOGIES_MAX: usize = 64;
/// Log entries kept for each slot before the log is cut: who is further behind starts over.
const LOG_PER_SLOT: usize = 4;

/// One node as the scheduler sees it.
#[derive(Clone, Debug)]
pub(crate) struct NodeEntry {
    pub(crate) node: Arc<Node>,
    /// What is reserved, own decisions of this run included.
    pub(crate) usage: NodeUsage,
    /// The node's own figures, kept here because every placement reads them.
    pub(crate) allocatable: Resources,
    pods_max: u32,
    /// Pods for which room is kept, by id; of this run's decisions too. Nearly always none.
    nominees: Vec<Nominee>,
    /// Room that this leader keeps for groups that wait. Nearly always none.
    reserves: Vec<Reserve>,
    /// Its devices and who holds them, own decisions of this run included.
    pub(crate) devices: Option<Arc<NodeDevices>>,
    /// The same of its CPUs.
    pub(crate) cpus: Option<Arc<NodeCpus>>,
    /// The same of ports that pods publish; `None` where there are none.
    pub(crate) ports: Option<Arc<NodePorts>>,
    /// The images that it told of.
    pub(crate) images: Option<Arc<ImageSizes>>,
    /// The claims that its pods use, where that is limited; own decisions of this run included.
    pub(crate) attached: Option<Box<Attached>>,
    /// What its pods use, while somebody asks.
    pub(crate) load: Option<Load>,
}

/// Who asks for room on a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker {
    pub(crate) priority: i32,
    /// The pod for which room may be kept already.
    pub(crate) pod: Option<ObjectId>,
    /// Whose reserves are its own: a group, [`NO_GROUP`] or [`EVERY_GROUP`].
    pub(crate) group: u64,
    /// The group with which it is placed, so that room that is kept for others of it is its own; else [`NO_GROUP`].
    pub(crate) companions: u64,
}

/// The group of those that are of none.
pub(crate) const NO_GROUP: u64 = 0;
/// Who names its node itself is held up by no reserve.
pub(crate) const EVERY_GROUP: u64 = u64::MAX;

/// Room on a node that is kept for a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reserve {
    pub(crate) group: u64,
    pub(crate) priority: i32,
    pub(crate) usage: NodeUsage,
    /// How many whole devices of each resource.
    pub(crate) devices: BTreeMap<SmolStr, u32>,
    /// Shares of devices are kept too: then nobody else gets any device there.
    pub(crate) has_shares: bool,
    /// The group looks at other pods: then nobody else gets anything there, because he might be in its way however small he is.
    pub(crate) is_whole: bool,
}

impl Reserve {
    fn counts_against(&self, asker: &Asker) -> bool {
        self.priority >= asker.priority && self.group != asker.group && asker.group != EVERY_GROUP
    }
}

/// A pod for which room is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Nominee {
    pub(crate) pod: ObjectId,
    pub(crate) priority: i32,
    /// Its group, or [`NO_GROUP`].
    pub(crate) group: u64,
    pub(crate) request: Resources,
    /// It asks for devices: those of its node are kept for it.
    pub(crate) asks_for_devices: bool,
    /// It wants CPUs for itself: what is free of them is kept for it.
    pub(crate) pins_cpus: bool,
    /// The ports that it publishes: they are kept for it. Nearly always none.
    pub(crate) ports: Arc<[PublishedPort]>,
}

impl Nominee {
    pub(crate) fn new(state: &State, pod: &Pod, priority: i32) -> Self {
        let (request, asks_for_devices) = (pod.spec.scheduling_request(), pod.spec.asks_for_devices());
        let pins_cpus = matches!(cpus::needs(state, pod), Ok(Some(_)));
        let group = pod.group_key().map_or(NO_GROUP, |key| group_id(&key));
        let ports = pod.spec.host_ports().collect();
        Self { pod: pod.meta.id, priority, group, request, asks_for_devices, pins_cpus, ports }
    }

    fn counts_against(&self, asker: &Asker) -> bool {
        let is_own = asker.companions != NO_GROUP && self.group == asker.companions;
        self.priority >= asker.priority && Some(self.pod) != asker.pod && !is_own
    }
}

/// The pods for which room is kept on a node, by id; one whose class is gone keeps none.
fn nominees(state: &State, priorities: &Priorities, node: ObjectId) -> Vec<Nominee> {
    let nominee = |pod: &Arc<Pod>| {
        let priority = priorities.of(pod.spec.priority_class())?.value;
        Some(Nominee::new(state, pod, priority))
    };
    state.nominated_on(node).filter_map(nominee).collect()
}

impl NodeEntry {
    pub(crate) fn new(node: Arc<Node>, usage: NodeUsage) -> Self {
        let facts = &node.status.facts;
        let (allocatable, pods_max) = (facts.allocatable, facts.pods_max);
        let (nominees, reserves, devices, cpus, ports) = Default::default();
        let (images, attached, load) = Default::default();
        Self {
            node,
            usage,
            allocatable,
            pods_max,
            nominees,
            reserves,
            devices,
            cpus,
            ports,
            images,
            attached,
            load,
        }
    }

    /// What pods have of it beside room.
    pub(crate) fn ledgers(&self) -> LedgerView<'_> {
        LedgerView {
            devices: self.devices.as_deref(),
            cpus: self.cpus.as_deref(),
            ports: self.ports.as_deref(),
        }
    }

    /// What counts against who asks: what is reserved, and what is kept for others of the same or a higher priority.
    pub(crate) fn usage_for(&self, asker: &Asker) -> NodeUsage {
        let usage = self
            .nominees
            .iter()
            .filter(|other| other.counts_against(asker))
            .fold(self.usage, |sum, other| sum.with(other.request));
        let reserves = self.reserves.iter().filter(|reserve| reserve.counts_against(asker));
        reserves.fold(usage, |sum, reserve| {
            let sum = sum.plus(reserve.usage);
            // Whoever ends there, no pod more has a place.
            let pods = if reserve.is_whole { sum.pods.saturating_add(self.pods_max) } else { sum.pods };
            NodeUsage { pods, ..sum }
        })
    }

    /// Whether its devices are kept for somebody else of the same or a higher priority.
    pub(crate) fn keeps_devices(&self, asker: &Asker) -> bool {
        self.nominees.iter().any(|other| other.asks_for_devices && other.counts_against(asker))
    }

    /// Whether CPUs that a pod may have for itself are kept for somebody else in the same way.
    pub(crate) fn keeps_cpus(&self, asker: &Asker) -> bool {
        self.nominees.iter().any(|other| other.pins_cpus && other.counts_against(asker))
    }

    /// Whether room of it is kept for other groups of the same or a higher priority.
    pub(crate) fn is_reserved(&self, asker: &Asker) -> bool {
        self.reserves.iter().any(|reserve| reserve.counts_against(asker))
    }

    /// Whether one of these ports is kept for somebody else in the same way.
    pub(crate) fn keeps_ports(&self, asker: &Asker, wanted: &[PublishedPort]) -> bool {
        let conflicts = |other: &Nominee| {
            other.ports.iter().any(|theirs| wanted.iter().any(|own| own.conflicts_with(theirs)))
        };
        self.nominees.iter().any(|other| conflicts(other) && other.counts_against(asker))
    }

    /// Whether as many devices are left beside what is kept for groups of the same or a higher priority.
    pub(crate) fn leaves_devices(&self, asker: &Asker, ask: &Ask, devices: Option<&NodeDevices>) -> bool {
        let reserves = || self.reserves.iter().filter(|reserve| reserve.counts_against(asker));
        if reserves().next().is_none() {
            return true;
        }
        if reserves().any(|reserve| reserve.has_shares) {
            return false;
        }
        if ask.share.is_some() {
            return reserves().all(|reserve| reserve.devices.is_empty());
        }
        let kept: u32 = reserves().filter_map(|reserve| reserve.devices.get(&ask.resource)).sum();
        kept == 0 || devices.is_some_and(|devices| devices.free_of(&ask.resource) >= kept + ask.count)
    }

    /// Whether so much more is free beside some usage: [`check_room`] without its reasons.
    pub(crate) fn has_room_beside(&self, request: Resources, usage: NodeUsage) -> bool {
        let room = usage.pods < self.pods_max && usage.requests.plus(request).fits_in(self.allocatable);
        debug_assert_eq!(room, check_room(request, &self.node, usage).is_ok());
        room
    }
}

/// One change of a slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotChange {
    pub(crate) slot: Slot,
    /// Only what is reserved changed, not the node itself.
    pub(crate) usage_only: bool,
    /// The node came, went, or has other labels.
    pub(crate) relabelled: bool,
    /// A pod of this mover is about to be bound there, and nothing else happened.
    pub(crate) bound: Option<Mover>,
}

impl SlotChange {
    fn usage(slot: Slot) -> Self {
        Self { slot, usage_only: true, relabelled: false, bound: None }
    }

    fn gone(slot: Slot) -> Self {
        Self { slot, usage_only: false, relabelled: true, bound: None }
    }
}

/// All nodes.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeIndex {
    slots: Vec<Option<NodeEntry>>,
    by_id: BTreeMap<ObjectId, Slot>,
    free: Vec<Slot>,
    /// Nodes that may differ from their slot.
    touched: BTreeSet<ObjectId>,
    /// Nodes whose pods are not what they were, although they may reserve as much.
    stirred: BTreeSet<ObjectId>,
    /// Slots that changed, in order; the first has position `log_start`.
    log: Vec<SlotChange>,
    log_start: u64,
    /// Found when asked for; all shapes that ask share them.
    topologies: RefCell<BTreeMap<SmolStr, Arc<Topology>>>,
    spread: ImageSpread,
}

impl NodeIndex {
    /// Starts over from the State.
    pub(crate) fn reset(&mut self, state: &State) {
        *self = Self { log_start: self.log_end() + 1, ..Self::default() };
        for node in state.nodes().iter() {
            self.refresh_one(state, &Priorities::default(), node.meta.id);
        }
        // Who is nominated is read with the first refresh, when classes are known.
        self.touched = state.pods().iter().filter_map(|pod| nominated_node(pod)).collect();
    }

    /// Notes that a node, or what is reserved on it, may have changed.
    pub(crate) fn touch(&mut self, node: ObjectId) {
        self.touched.insert(node);
    }

    /// Notes that any node's devices may count as others.
    pub(crate) fn touch_devices(&mut self) {
        let with_devices = self.slots.iter().flatten().filter(|entry| entry.devices.is_some());
        self.touched.extend(with_devices.map(|entry| entry.node.meta.id));
    }

    /// Notes that the pods of a node, or what others think of them, changed.
    pub(crate) fn stir(&mut self, node: ObjectId) {
        self.stirred.insert(node);
    }

    /// The same, at once.
    pub(crate) fn stir_now(&mut self, node: ObjectId) {
        self.log.extend(self.by_id.get(&node).map(|slot| SlotChange::usage(*slot)));
    }

    /// Brings every touched slot up to date with the State.
    pub(crate) fn refresh(&mut self, state: &State, priorities: &Priorities) {
        for id in std::mem::take(&mut self.touched) {
            self.refresh_one(state, priorities, id);
        }
        for id in std::mem::take(&mut self.stirred) {
            self.log.extend(self.by_id.get(&id).map(|slot| SlotChange::usage(*slot)));
        }
        if self.log.len() > LOG_PER_SLOT * self.slots.len().max(256) {
            self.log_start += self.log.len() as u64;
            self.log.clear();
        }
    }

    fn refresh_one(&mut self, state: &State, priorities: &Priorities, id: ObjectId) {
        let Some(node) = state.nodes().get(id) else {
            if let Some(slot) = self.by_id.remove(&id) {
                let former = self.slots[slot as usize].take();
                self.spread.change(former.and_then(|entry| entry.images).as_deref(), None);
                self.free.push(slot);
                self.log.push(SlotChange::gone(slot));
                self.topologies.get_mut().clear();
            }
            return;
        };
        let usage = state.node_usage(id);
        let slot = self.slot_for(id);
        let entry = &mut self.slots[slot as usize];
        // A bound pod that was reserved already changes nothing here.
        let same_node = entry.as_ref().is_some_and(|e| Arc::ptr_eq(&e.node, node));
        let (nominees, devices) = (nominees(state, priorities, id), state.devices.get(id));
        let (cpus, ports) = (state.cpus.get(id), state.ports.get(id));
        let is_same = |e: &NodeEntry| {
            e.usage == usage
                && e.nominees == nominees
                && e.devices.as_ref() == devices
                && e.cpus.as_ref() == cpus
                && e.ports.as_ref() == ports
        };
        if !same_node || entry.as_ref().is_some_and(|e| !is_same(e)) {
            let relabelled = entry.as_ref().is_none_or(|e| e.node.meta.labels != node.meta.labels);
            let has_same = |former: &NodeEntry| same_node || former.node.status.images == node.status.images;
            let are_same = entry.as_ref().map_or(node.status.images.get().is_none(), has_same);
            let former = entry.take().map(|former| (former.reserves, former.load, former.images));
            let (reserves, load, mut images) = former.unwrap_or_default();
            if !are_same {
                let present = image_sizes(node.status.images.get()).map(Arc::new);
                self.spread.change(images.as_deref(), present.as_deref());
                images = present;
            }
            let fresh = NodeEntry::new(node.clone(), usage);
            let (devices, cpus, ports) = (devices.cloned(), cpus.cloned(), ports.cloned());
            let attached = Attached::of(state, node).map(Box::new);
            *entry =
                Some(NodeEntry { nominees, reserves, devices, cpus, ports, images, attached, load, ..fresh });
            self.log.push(SlotChange { slot, usage_only: same_node, relabelled, bound: None });
            if relabelled {
                self.topologies.get_mut().clear();
            }
        }
    }

    fn slot_for(&mut self, id: ObjectId) -> Slot {
        if let Some(slot) = self.by_id.get(&id) {
            return *slot;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            Slot::try_from(self.slots.len() - 1).expect("there are fewer than 2^32 nodes")
        });
        self.by_id.insert(id, slot);
        slot
    }

    /// Reserves room for a pod that is about to be bound. Should that not happen, the node must be touched.
    pub(crate) fn reserve(
        &mut self,
        slot: Slot,
        (request, claims, ports): (Resources, &[ObjectId], &[PublishedPort]),
        mover: Mover,
        binding: &Binding,
    ) {
        let entry = self.slots[slot as usize].as_mut().expect("a candidate slot holds a node");
        entry.attached.iter_mut().for_each(|attached| attached.take(claims));
        entry.usage.requests = entry.usage.requests.plus(request);
        entry.usage.pods += 1;
        if let Some(devices) = entry.devices.as_mut().filter(|_| !binding.devices.is_empty()) {
            Arc::make_mut(devices).take(binding.pod, &binding.devices);
        }
        if !ports.is_empty() {
            let held = entry.ports.get_or_insert_default();
            Arc::make_mut(held).take(binding.pod, ports.iter().copied());
        }
        if let Some((cpus, given)) = entry.cpus.as_mut().zip(binding.cpus.get()) {
            Arc::make_mut(cpus).take(binding.pod, given);
        }
        self.log.push(SlotChange { bound: Some(mover), ..SlotChange::usage(slot) });
    }

    /// Keeps room for a pod. Should that not happen, the node must be touched.
    pub(crate) fn nominate(&mut self, slot: Slot, nominee: Nominee) {
        let entry = self.slots[slot as usize].as_mut().expect("a candidate slot holds a node");
        let at = entry.nominees.partition_point(|other| other.pod < nominee.pod);
        entry.nominees.insert(at, nominee);
        self.log.push(SlotChange::usage(slot));
    }

    /// A pod for which room is kept is about to be bound, wherever. Should that not happen, the node must be touched.
    pub(crate) fn give_up(&mut self, node: ObjectId, pod: ObjectId) {
        let Some(slot) = self.slot_of(node) else { return };
        if let Some(entry) = &mut self.slots[slot as usize] {
            entry.nominees.retain(|nominee| nominee.pod != pod);
            self.log.push(SlotChange::usage(slot));
        }
    }

    /// Keeps room for a group.
    pub(crate) fn keep(&mut self, slot: Slot, reserve: Reserve) {
        if let Some(entry) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) {
            entry.reserves.push(reserve);
            self.log.push(SlotChange::usage(slot));
        }
    }

    /// Keeps no more room for a group.
    pub(crate) fn release(&mut self, slot: Slot, group: u64) {
        if let Some(entry) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) {
            entry.reserves.retain(|reserve| reserve.group != group);
            self.log.push(SlotChange::usage(slot));
        }
    }

    /// What the pods of a node use, for whom load counts.
    pub(crate) fn set_load(&mut self, slot: Slot, load: Load) {
        if let Some(entry) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) {
            entry.load = Some(load);
            self.log.push(SlotChange::usage(slot));
        }
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<&NodeEntry> {
        self.slots.get(slot as usize)?.as_ref()
    }

    /// What pods have of a node beside room.
    pub(crate) fn ledgers(&self, slot: Slot) -> LedgerView<'_> {
        self.get(slot).map(NodeEntry::ledgers).unwrap_or_default()
    }

    /// The devices of a node and who holds them.
    pub(crate) fn devices(&self, slot: Slot) -> Option<&NodeDevices> {
        self.get(slot)?.devices.as_deref()
    }

    pub(crate) fn slot_of(&self, node: ObjectId) -> Option<Slot> {
        self.by_id.get(&node).copied()
    }

    /// Nodes in the order of their ids, with their slots.
    pub(crate) fn slots_from(&self, from: Bound<ObjectId>) -> impl Iterator<Item = (ObjectId, Slot)> {
        self.by_id.range((from, Bound::Unbounded)).map(|(id, slot)| (*id, *slot))
    }

    /// Every slot that holds a node.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (Slot, &NodeEntry)> + Clone {
        (0..).zip(&self.slots).filter_map(|(slot, entry)| Some((slot, entry.as_ref()?)))
    }

    /// The nodes by the values of a label.
    pub(crate) fn topology(&self, key: &SmolStr) -> Arc<Topology> {
        let mut known = self.topologies.borrow_mut();
        if known.len() >= TOPOLOGIES_MAX && !known.contains_key(key) {
            known.clear();
        }
        known.entry(key.clone()).or_insert_with(|| Arc::new(Topology::of(key, self.entries()))).clone()
    }

    /// On how many of them each image is.
    pub(crate) fn spread(&self) -> &ImageSpread {
        &self.spread
    }

    /// How many nodes there are.
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// How many slots there are, empty ones included.
    pub(crate) fn slots_len(&self) -> usize {
        self.slots.len()
    }

    /// The position after the last change.
    pub(crate) fn log_end(&self) -> u64 {
        self.log_start + self.log.len() as u64
    }

    /// The slots that changed since a position, repeated ones included; `None` when that is too long ago.
    pub(crate) fn changed_since(&self, position: u64) -> Option<&[SlotChange]> {
        let from = position.checked_sub(self.log_start)?;
        self.log.get(usize::try_from(from).ok()?..)
    }
}
