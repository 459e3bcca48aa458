//! The scheduler as a reconciler: pods that wait become bindings.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use bulkhead_types::{
    Binding, Command, NetworkAttachment, Object, ObjectId, POD_GROUP_LEVEL, Pod, PodGroupKey,
};

use super::index::NodeIndex;
use super::pod_groups::{PodGroups, Seat, Trial, Verdict};
use super::preemptor::Preemptor;
use super::report;
use super::shape::Shape;
use super::shapes::{ShapeKey, Shapes};
use crate::decide::REASON_UNSCHEDULABLE;
use crate::networks::Addresses;
use crate::placement::Vicinity;
use crate::pod_group::Standing;
use crate::reconcile::{Queue, Reconciler, View, is_active};
use crate::{Change, ChangeType, State};

/// Pods bound by one command, at most.
const BINDINGS_PER_COMMAND: usize = 2000;
/// Pods bound per run, at most.
const BINDINGS_PER_RUN: usize = 2 * BINDINGS_PER_COMMAND;
/// Pods told per run why they wait, at most.
const REPORTS_PER_RUN: usize = 2000;
/// Shapes whose reasons are counted per run, at most: each looks at every node.
const REPORTED_SHAPES_PER_RUN: usize = 32;
/// How long a pod's reason stays although the numbers in it changed, in milliseconds.
const REPORT_AGAIN_MS: u64 = 30_000;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Scheduler {
    index: NodeIndex,
    shapes: Shapes,
    /// Who is near whom, bindings of this run included.
    vicinity: Vicinity,
    /// Pods that began to wait, or to wait as others.
    arrivals: Vec<ObjectId>,
    /// Active pods by owner and node.
    neighbours: BTreeMap<(ObjectId, ObjectId), u32>,
    /// Counted among them for bindings in flight.
    assumed: Vec<(ObjectId, ObjectId)>,
    /// Pods of which something was proposed: the node, or that they are told why they wait. A binding leaves
    /// when it is seen to have happened; its room is reserved already.
    in_flight: BTreeMap<ObjectId, Option<ObjectId>>,
    /// Pods whose proposal had no effect.
    retry: Queue,
    /// Pods that are placed together.
    groups: PodGroups,
    /// What ends for pods that fit nowhere.
    preemptor: Preemptor,
    /// Which addresses pods have, bindings of this run included.
    addresses: Addresses,
    dirty: bool,
    report_again_at_ms: Option<u64>,
}

/// Who is to be placed next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    priority: Reverse<i32>,
    /// The first of its shape; else one for which room is kept, which goes before.
    is_first: bool,
    pod: ObjectId,
    shape: ShapeKey,
}

fn is_pending(pod: &Pod) -> bool {
    pod.node.is_none() && is_active(pod)
}

/// Where a pod counts as its owner's.
fn neighbour(pod: &Pod) -> Option<(ObjectId, ObjectId)> {
    Some((pod.meta.owner.filter(|_| is_active(pod))?.id, pod.node?))
}

/// Where a pod holds room.
fn holds_room(pod: &Pod) -> Option<ObjectId> {
    pod.node.filter(|_| !pod.status.phase.is_terminal())
}

impl Reconciler for Scheduler {
    fn name(&self) -> &'static str {
        "scheduler"
    }

    fn reset(&mut self, state: &State) {
        let mut index = std::mem::take(&mut self.index);
        index.reset(state);
        *self = Self { index, dirty: true, preemptor: Preemptor::new(), ..Self::default() };
        for pod in state.pods().iter() {
            self.observe_pod(None, Some(pod));
        }
    }

    fn observe(&mut self, change: &Change) {
        match (&change.object, &change.former) {
            (Object::Node(node), _) => {
                self.index.touch(node.meta.id);
                self.dirty = true;
            }
            (Object::PriorityClass(_), _) => {
                self.preemptor.observe_class();
                self.groups.forget();
                self.dirty = true;
            }
            (Object::PodDisruptionBudget(_), _) => self.dirty |= self.preemptor.observe_budget(),
            (Object::ResourceSlice(slice), _) => {
                self.index.touch(slice.node);
                self.dirty = true;
            }
            (Object::SriovNetworkNodeState(nics), _) => {
                self.index.touch(nics.node);
                self.dirty = true;
            }
            (Object::SriovNetwork(_) | Object::SriovIBNetwork(_), _) => {
                self.groups.forget();
                self.dirty = true;
            }
            // Which resource a device is may change on every node.
            (Object::DeviceClass(_) | Object::SriovNetworkNodePolicy(_), _) => {
                self.index.touch_devices();
                self.dirty = true;
            }
            // Labels of namespaces say near whom pods are.
            (Object::PersistentVolumeClaim(_) | Object::Namespace(_), _) => {
                self.groups.forget();
                self.dirty = true;
            }
            (Object::Pod(pod), former) => {
                let former = former.as_ref().and_then(|former| match former {
                    Object::Pod(pod) => Some(&**pod),
                    _ => None,
                });
                let present = (change.change_type != ChangeType::Deleted).then_some(&**pod);
                self.observe_pod(former, present);
            }
            _ => {}
        }
    }

    fn reconcile(&mut self, view: &View<'_>) -> Vec<Command> {
        self.dirty = false;
        self.settle(view);
        self.preemptor.settle(view, &mut self.index);
        self.index.refresh(view.state, self.preemptor.priorities());
        self.vicinity = view.state.vicinity.clone();
        self.addresses = view.state.networks.addresses.clone();
        self.shapes.follow(view.state);
        for id in std::mem::take(&mut self.arrivals) {
            if let Some(pod) = view.state.pods().get(id).filter(|pod| is_pending(pod)) {
                self.shapes.enter(pod, &view.state.vicinity);
            }
        }
        let mut commands = Vec::new();
        self.place(view, &mut commands);
        self.dirty |=
            self.preemptor.propose(view, &mut self.index, &mut self.shapes, &self.vicinity, &mut commands);
        self.report(view, &mut commands);
        self.shapes.trim();
        // Whether the proposals had an effect is looked at next time.
        self.dirty |= !commands.is_empty();
        commands
    }

    fn next_wake_ms(&self) -> Option<u64> {
        if self.dirty {
            return Some(0);
        }
        let preemptor = self.preemptor.next_wake_ms();
        self.retry.next_wake_ms().into_iter().chain(self.report_again_at_ms).chain(preemptor).min()
    }
}

impl Scheduler {
    fn observe_pod(&mut self, former: Option<&Pod>, present: Option<&Pod>) {
        self.dirty |= self.preemptor.observe_pod(former, present, &mut self.index);
        let (was, is) = (former.and_then(holds_room), present.and_then(holds_room));
        if was != is {
            let own = present.is_some_and(|pod| was.is_none() && self.confirm(pod));
            was.into_iter().chain(is).filter(|_| !own).for_each(|node| self.index.touch(node));
            self.dirty = true;
        }
        let (was, is) = (former.and_then(neighbour), present.and_then(neighbour));
        if was != is {
            was.into_iter().for_each(|key| self.drop_neighbour(key));
            is.into_iter().for_each(|key| *self.neighbours.entry(key).or_insert(0) += 1);
        }
        let same_labels = |a: &Pod, b: &Pod| a.meta.labels == b.meta.labels;
        match (former.filter(|pod| is_pending(pod)), present.filter(|pod| is_pending(pod))) {
            (None, Some(pod)) => self.arrive(pod.meta.id),
            (Some(pod), None) => self.leave(pod),
            (Some(pod), Some(same)) if !same_labels(pod, same) => {
                self.leave(pod);
                self.arrive(pod.meta.id);
            }
            _ => {}
        }
        // What others think of a pod where it is, or is about to be.
        let is_other = |a: &Pod, b: &Pod| !same_labels(a, b) || a.meta.is_deleting() != b.meta.is_deleting();
        if let Some((_, pod)) = former.zip(present).filter(|(a, b)| is_other(a, b)) {
            let expected = self.in_flight.get(&pod.meta.id).copied().flatten();
            pod.node.or(expected).into_iter().for_each(|node| self.index.stir(node));
            self.dirty = true;
        }
    }

    fn arrive(&mut self, pod: ObjectId) {
        self.arrivals.push(pod);
        self.dirty = true;
    }

    /// Whether a pod was just bound as this scheduler proposed it.
    fn confirm(&mut self, pod: &Pod) -> bool {
        let expected = pod.node.is_some() && self.in_flight.get(&pod.meta.id) == Some(&pod.node);
        if expected {
            self.in_flight.remove(&pod.meta.id);
        }
        expected
    }

    fn leave(&mut self, pod: &Pod) {
        self.shapes.leave(pod);
        self.retry.forget(pod.meta.id);
    }

    fn drop_neighbour(&mut self, key: (ObjectId, ObjectId)) {
        let count = self.neighbours.get_mut(&key).expect("a neighbour that was counted");
        *count -= 1;
        if *count == 0 {
            self.neighbours.remove(&key);
        }
    }

    /// Everything that was proposed has settled: what had no effect comes back, after a wait.
    fn settle(&mut self, view: &View<'_>) {
        for key in std::mem::take(&mut self.assumed) {
            self.drop_neighbour(key);
        }
        for (id, node) in std::mem::take(&mut self.in_flight) {
            // The binding did not happen: the reservation is taken back.
            if let Some(node) = node {
                self.index.touch(node);
                self.index.stir(node);
            }
            let Some(pod) = view.state.pods().get(id).filter(|pod| is_pending(pod)) else { continue };
            if self.shapes.is_waiting(id) && pod.status.reason == REASON_UNSCHEDULABLE {
                continue;
            }
            self.retry.proposed(id);
        }
        self.retry.begin(view.now_ms);
        while let Some(id) = self.retry.pop() {
            if let Some(pod) = view.state.pods().get(id).filter(|pod| is_pending(pod)) {
                self.arrivals.push(pod.meta.id);
            }
        }
    }

    /// Binds waiting pods: those of the highest priority first, the oldest first among equals. One that no node can take
    /// holds up nobody.
    fn place(&mut self, view: &View<'_>, commands: &mut Vec<Command>) {
        self.groups.begin();
        let mut heads = self.heads(view);
        let mut bindings = Vec::new();
        // Claims of pods that were placed in this run: where those are is known in the next one.
        let mut claims = BTreeSet::<ObjectId>::new();
        let mut grouped = 0;
        while bindings.len() + grouped < BINDINGS_PER_RUN {
            let Some(head) = heads.pop_first() else { break };
            let (id, key) = (head.pod, head.shape);
            let shape = self.shapes.get_mut(key).expect("a shape with a head");
            let next = |shape: &Shape| shape.waiting.first().map(|first| Head { pod: *first, ..head });
            if !shape.waiting.contains(&id) {
                // It was placed where room was kept for it.
                heads.extend(next(shape));
                continue;
            }
            let Some(pod) = view.state.pods().get(id).filter(|pod| is_pending(pod)) else {
                debug_assert!(false, "pod {id} waits here but not in the State");
                shape.waiting.remove(&id);
                continue;
            };
            let own = shape.place.as_ref().map_or_else(|_| Vec::new(), |place| place.claims.clone());
            if own.iter().any(|claim| claims.contains(claim)) {
                self.dirty = true;
                continue;
            }
            if let Some(group) = shape.group.clone().filter(|_| shape.is_held) {
                if let Some(together) = self.place_group(view, &group, &mut claims) {
                    // What was placed before may be what some of them want to be near.
                    grouped += bindings.len() + together.len();
                    self.push_bindings(std::mem::take(&mut bindings), commands);
                    commands.push(Command::BindPodGroup { bindings: together });
                }
                continue;
            }
            let nominated = self.preemptor.node_of(id);
            let owner = pod.meta.owner.map(|owner| owner.id);
            let choice = if head.is_first {
                shape.catch_up(&self.index, view.state, &self.vicinity);
                let neighbours = |slot| {
                    let node = self.index.get(slot).expect("a candidate slot holds a node").node.meta.id;
                    owner.map_or(0, |owner| self.neighbours.get(&(owner, node)).copied().unwrap_or(0))
                };
                shape.choose(id, &self.vicinity, neighbours)
            } else {
                let slot = nominated.and_then(|node| self.index.slot_of(node));
                let site = slot.and_then(|slot| Some((slot, self.index.get(slot)?)));
                site.and_then(|site| shape.choose_nominated(id, site, &self.vicinity))
            };
            // Without a candidate the shape sleeps: the next run asks again when the index changed.
            let Some(choice) = choice else { continue };
            let node = self.index.get(choice.slot).expect("a candidate slot holds a node").node.clone();
            // What was found to fit by a first look is chosen now; the next run asks again, should that ever fail.
            let Some(devices) = shape.choose_devices(self.index.devices(choice.slot)) else {
                debug_assert!(false, "pod {id} was to have devices that are not there");
                continue;
            };
            // When addresses have run out the shape says so, and the next run asks again.
            let ledger = self.index.devices(choice.slot);
            let Some(networks) = shape.attach((id, &devices), ledger, &mut self.addresses) else { continue };
            let mover = self.vicinity.bind(pod, &node);
            claims.extend(own);
            let (node, nodes_considered) = (node.meta.id, choice.nodes);
            let binding = Binding { pod: id, node, nodes_considered, score: choice.score, devices, networks };
            nominated.into_iter().for_each(|node| self.index.give_up(node, id));
            self.index.reserve(choice.slot, shape.request, mover, &binding);
            bindings.push(binding);
            shape.waiting.remove(&id);
            shape.unreported.remove(&id);
            heads.extend(next(shape).filter(|_| head.is_first));
            if let Some(owner) = owner {
                *self.neighbours.entry((owner, node)).or_insert(0) += 1;
                self.assumed.push((owner, node));
            }
        }
        self.dirty |= !heads.is_empty();
        self.push_bindings(bindings, commands);
    }

    fn push_bindings(&mut self, mut bindings: Vec<Binding>, commands: &mut Vec<Command>) {
        self.in_flight.extend(bindings.iter().map(|binding| (binding.pod, Some(binding.node))));
        while !bindings.is_empty() {
            let rest = bindings.split_off(bindings.len().min(BINDINGS_PER_COMMAND));
            commands.push(Command::BindPods { bindings: std::mem::replace(&mut bindings, rest) });
        }
    }

    /// Places a group of pods together, if there is room for all that must be.
    fn place_group(
        &mut self,
        view: &View<'_>,
        group: &PodGroupKey,
        claims: &mut BTreeSet<ObjectId>,
    ) -> Option<Vec<Binding>> {
        if !self.groups.is_first_look(group) {
            return None;
        }
        let standing = Standing::of(view.state, group);
        let (index, shapes, vicinity) = (&self.index, &mut self.shapes, &self.vicinity);
        let mut trial = Trial { state: view.state, index, shapes, vicinity, claims };
        let seats = match self.groups.place(group, &standing, &mut trial) {
            Verdict::Seated(seats) => seats,
            Verdict::Later => {
                self.dirty = true;
                return None;
            }
            Verdict::Waits { is_news } => {
                let pods = standing.waiting.iter().filter(|_| is_news);
                for key in pods.filter_map(|id| self.shapes.key_of_waiting(*id)).collect::<BTreeSet<_>>() {
                    let shape = self.shapes.get_mut(key).expect("a shape in which a pod waits");
                    (shape.reported_at_ms, shape.reported_position) = (0, None);
                }
                return None;
            }
        };
        let attached = self.attach_all(&seats)?;
        let mut bindings = Vec::with_capacity(seats.len());
        for (Seat { pod: id, shape, choice, devices }, networks) in seats.into_iter().zip(attached) {
            let Some(pod) = view.state.pods().get(id) else { continue };
            let node = self.index.get(choice.slot).expect("a candidate slot holds a node").node.clone();
            let mover = self.vicinity.bind(pod, &node);
            let shape = self.shapes.get_mut(shape).expect("a shape in which a pod waits");
            claims.extend(shape.place.iter().flat_map(|place| place.claims.iter().copied()));
            let (node, nodes_considered) = (node.meta.id, choice.nodes);
            let binding = Binding { pod: id, node, nodes_considered, score: choice.score, devices, networks };
            self.index.reserve(choice.slot, shape.request, mover, &binding);
            bindings.push(binding);
            shape.waiting.remove(&id);
            shape.unreported.remove(&id);
            if let Some(owner) = pod.meta.owner.map(|owner| owner.id) {
                *self.neighbours.entry((owner, node)).or_insert(0) += 1;
                self.assumed.push((owner, node));
            }
            self.in_flight.insert(id, Some(node));
        }
        Some(bindings)
    }

    /// The networks of all pods of a group; `None` when one of them has no address, and then none has.
    fn attach_all(&mut self, seats: &[Seat]) -> Option<Vec<Vec<NetworkAttachment>>> {
        let mut after = self.addresses.clone();
        let mut attached = Vec::with_capacity(seats.len());
        for seat in seats {
            let shape = self.shapes.get_mut(seat.shape).expect("a shape in which a pod waits");
            let ledger = self.index.devices(seat.choice.slot);
            attached.push(shape.attach((seat.pod, &seat.devices), ledger, &mut after)?);
        }
        self.addresses = after;
        Some(attached)
    }

    /// Whom to place first: of every shape the oldest pod, and every pod for which room is kept.
    fn heads(&mut self, view: &View<'_>) -> BTreeSet<Head> {
        let keys: Vec<ShapeKey> = self.shapes.waiting().map(|(key, _)| key).collect();
        let mut heads = BTreeSet::new();
        let mut held = BTreeMap::new();
        for key in keys {
            let shape = self.shapes.get_mut(key).expect("a shape that was just listed");
            shape.look_up(view.state, self.preemptor.priorities());
            shape.is_held = shape.group.as_ref().is_some_and(|group| {
                let is_held = || {
                    view.state.feature_level() >= POD_GROUP_LEVEL
                        && Standing::of(view.state, group).missing() > 0
                };
                *held.entry(group.clone()).or_insert_with(is_held)
            });
            if shape.may_be_placed() {
                let priority = Reverse(shape.priority);
                let first = shape.waiting.first();
                heads.extend(first.map(|pod| Head { priority, is_first: true, pod: *pod, shape: key }));
            }
        }
        for pod in self.preemptor.nominees() {
            let Some(key) = self.shapes.key_of_waiting(pod) else { continue };
            let shape = self.shapes.get_mut(key).expect("a shape in which a pod waits");
            if shape.may_be_placed() {
                let priority = Reverse(shape.priority);
                heads.insert(Head { priority, is_first: false, pod, shape: key });
            }
        }
        heads
    }

    /// Tells pods that no node can take why that is: each once, and again when the reason has changed.
    fn report(&mut self, view: &View<'_>, commands: &mut Vec<Command>) {
        self.report_again_at_ms = None;
        let end = self.index.log_end();
        let mut pods = Vec::new();
        let mut looked_at = 0;
        let keys: Vec<ShapeKey> = self.shapes.waiting().map(|(key, _)| key).collect();
        for key in keys {
            let shape = self.shapes.get_mut(key).expect("a shape that was just listed");
            // A shape that this run did not get to may have candidates still unknown.
            let group = shape.group.as_ref().filter(|_| shape.is_held && shape.may_be_placed());
            let held = group.map(|group| self.groups.message(group));
            if held.map_or_else(|| !shape.is_stuck(end), |message| message.is_none()) {
                continue;
            }
            let stale = shape.reported_position != Some(end);
            let again_at_ms = shape.reported_at_ms.saturating_add(REPORT_AGAIN_MS);
            let again = stale && view.now_ms >= again_at_ms;
            if shape.unreported.is_empty() && !again {
                self.report_again_at_ms =
                    self.report_again_at_ms.into_iter().chain(stale.then_some(again_at_ms)).min();
                continue;
            }
            if looked_at >= REPORTED_SHAPES_PER_RUN || pods.len() >= REPORTS_PER_RUN {
                self.dirty = true;
                break;
            }
            looked_at += 1;
            let message = match held.flatten() {
                Some(message) => message.to_owned(),
                None => {
                    let preemption = self.preemptor.explain(view.state, &self.index, shape, &self.vicinity);
                    report::message(shape, &self.index, &self.vicinity, preemption)
                }
            };
            if again {
                shape.reported_at_ms = view.now_ms;
                shape.reported_position = Some(end);
                shape.unreported = shape.waiting.clone();
            }
            while pods.len() < REPORTS_PER_RUN {
                let Some(id) = shape.unreported.pop_first() else { break };
                // One for which room is kept knows that.
                let is_nominated = self.preemptor.node_of(id).is_some();
                let told =
                    is_nominated || view.state.pods().get(id).is_none_or(|pod| pod.status.message == message);
                if !told {
                    pods.push((id, message.clone()));
                }
            }
            self.dirty |= !shape.unreported.is_empty();
        }
        if !pods.is_empty() {
            self.in_flight.extend(pods.iter().map(|(id, _)| (*id, None)));
            commands.push(Command::SetPodsUnschedulable { pods });
        }
    }
}
