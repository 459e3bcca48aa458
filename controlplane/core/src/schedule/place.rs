//! A run of the scheduler: waiting pods in their turn, and nodes for them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use bulkhead_types::{
    Binding, Command, GROUP_PREEMPTION_LEVEL, Name, NetworkAttachment, ObjectId, POD_GROUP_LEVEL, Pod,
    PodGroupKey, QUEUES_LEVEL,
};

use super::fairness::Rank;
use super::pod_groups::{Seat, Trial, Verdict};
use super::reconciler::{Scheduler, is_pending};
use super::reserves::required;
use super::shape::{Choice, Shape};
use super::shapes::ShapeKey;
use crate::cpus::Chosen;
use crate::elastic_quota::Ask;
use crate::pod_group::{self, Standing};
use crate::queue;
use crate::reconcile::View;
use crate::state::Charge;
use crate::{State, placement::Mover};

/// Pods bound by one command, at most.
const BINDINGS_PER_COMMAND: usize = 2000;
/// Pods bound per run, at most.
const BINDINGS_PER_RUN: usize = 2 * BINDINGS_PER_COMMAND;

/// Who is to be placed next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    priority: Reverse<i32>,
    /// Shares of its queue and job; the same for all while there is only the default queue.
    rank: Rank,
    /// The first of its shape; else one for which room is kept, which goes before.
    is_first: bool,
    pod: ObjectId,
    shape: ShapeKey,
}

/// What a run has decided.
#[derive(Default)]
struct Decided {
    bindings: Vec<Binding>,
    /// Pods that were placed with their groups.
    grouped: usize,
    /// Claims of pods that were placed in this run: where those are is known in the next one.
    claims: BTreeSet<ObjectId>,
}

/// What a group is to the order.
#[derive(Clone, Default)]
struct GroupLook {
    is_held: bool,
    queue: Option<Name>,
    /// What it has and is about to get, of one with a PodGroup.
    job: Option<crate::state::QuotaUse>,
    /// How many of its pods hold room.
    holding: u32,
    /// Why none more of its pods may have any.
    full: Option<String>,
}

impl GroupLook {
    fn of(state: &State, key: &PodGroupKey) -> Self {
        if state.feature_level() < POD_GROUP_LEVEL {
            return Self::default();
        }
        let standing = Standing::of(state, key);
        let job = standing.object.as_ref().map(|_| {
            let mut used = state.queue_use.of_group(key);
            for pod in standing.waiting.iter().filter_map(|id| state.pods().get(*id)) {
                used.add(&Charge::of_pod(pod, &state.devices.classes));
            }
            used
        });
        let (holding, full) = (standing.holding, standing.is_full(state, key, 1));
        Self { is_held: standing.is_held(), queue: queue::of(state, Some(key), None), job, holding, full }
    }
}

impl Scheduler {
    /// Binds waiting pods: those of the highest priority first, among equals by the shares of queues and jobs, then the oldest
    /// first. One that no node can take holds up nobody.
    pub(super) fn place(&mut self, view: &View<'_>, commands: &mut Vec<Command>) {
        self.groups.begin();
        self.reserves.begin();
        let mut heads = self.heads(view);
        let mut decided = Decided::default();
        while decided.bindings.len() + decided.grouped < BINDINGS_PER_RUN {
            let Some(head) = heads.pop_first() else { break };
            let shape = self.shapes.get_mut(head.shape).expect("a shape with a head");
            let next = |shape: &Shape| shape.waiting.first().map(|first| Head { pod: *first, ..head });
            if !shape.waiting.contains(&head.pod) {
                // It was placed where room was kept for it.
                heads.extend(next(shape));
                continue;
            }
            // What this run has placed may have put the queue behind others.
            if self.fairness.are_many() {
                let share = self.fairness.queue_share(&shape.queue);
                if share > head.rank.0 {
                    heads.insert(Head { rank: (share, head.rank.1), ..head });
                    continue;
                }
            }
            let Some(pod) = view.state.pods().get(head.pod).filter(|pod| is_pending(pod)) else {
                debug_assert!(false, "pod {} waits here but not in the State", head.pod);
                shape.waiting.remove(&head.pod);
                continue;
            };
            let own = shape.place.as_ref().map_or_else(|_| Vec::new(), |place| place.claims.clone());
            if own.iter().any(|claim| decided.claims.contains(claim)) {
                self.dirty = true;
                continue;
            }
            if let Some(group) = shape.group.clone().filter(|_| shape.is_held) {
                if let Some(together) = self.place_group(view, &group, &mut decided.claims) {
                    // What was placed before may be what some of them want to be near.
                    decided.grouped += decided.bindings.len() + together.len();
                    self.push_bindings(std::mem::take(&mut decided.bindings), commands);
                    commands.push(Command::BindPodGroup { bindings: together });
                }
                continue;
            }
            if self.place_one(view, head, pod, &mut decided) {
                decided.claims.extend(own);
                let shape = self.shapes.get_mut(head.shape).expect("a shape with a head");
                heads.extend(next(shape).filter(|_| head.is_first));
            }
        }
        self.dirty |= !heads.is_empty();
        if heads.is_empty() {
            self.reserves.end(&mut self.index);
        }
        self.push_bindings(decided.bindings, commands);
    }

    /// Places one pod, if there is a node for it and room in its queue.
    fn place_one(&mut self, view: &View<'_>, head: Head, pod: &Pod, decided: &mut Decided) -> bool {
        let (id, state) = (head.pod, view.state);
        let shape = self.shapes.get_mut(head.shape).expect("a shape with a head");
        let is_counted = shape.queue.is_some() || self.fairness.are_many();
        let charge = is_counted.then(|| Charge::of_pod(pod, &state.devices.classes));
        if let Some((queue, charge)) = shape.queue.as_ref().zip(charge.as_ref())
            && let Err(reason) = self.fairness.ledger.check(state, queue, charge)
        {
            shape.hold_by_queue(Some(reason));
            return false;
        }
        let ask = if shape.in_tree { Ask::of(state, pod) } else { None };
        if let Some(Err(reason)) = ask.as_ref().map(|ask| self.fairness.elastic.check(state, ask)) {
            if head.is_first {
                shape.hold_by_tree(Some(reason));
            }
            return false;
        }
        let full = shape.group.as_ref().filter(|group| self.groups.is_full(group)).map(pod_group::full);
        if full.is_some() {
            shape.hold_by_queue(full);
            return false;
        }
        let nominated = self.preemptor.node_of(id);
        let owner = pod.meta.owner.map(|owner| owner.id);
        let choice = if head.is_first {
            shape.catch_up(&self.index, state, &self.vicinity);
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
        let Some(choice) = choice else { return false };
        // What was found to fit by a first look is chosen now; the next run asks again, should that ever fail.
        let Some(chosen) = shape.choose_hardware(self.index.ledgers(choice.slot)) else {
            debug_assert!(false, "pod {id} was to have devices or CPUs that are not there");
            return false;
        };
        // When addresses have run out the shape says so, and the next run asks again.
        let ledger = self.index.devices(choice.slot);
        let Some(networks) = shape.attach((id, &chosen.devices), ledger, &mut self.addresses) else {
            return false;
        };
        let node = self.index.get(choice.slot).expect("a candidate slot holds a node").node.clone();
        let mover = self.vicinity.bind(pod, &node);
        if let Some(charge) = &charge {
            self.fairness.took(&shape.queue, charge);
        }
        ask.iter().for_each(|ask| self.fairness.elastic.take(ask));
        nominated.into_iter().for_each(|node| self.index.give_up(node, id));
        let binding = binding((id, node.meta.id), choice, chosen, networks);
        if let Some(group) = &shape.group {
            self.groups.took(group);
        }
        self.note(pod, head.shape, (choice, mover), &binding);
        decided.bindings.push(binding);
        true
    }

    /// Takes the room of a binding that is about to be proposed.
    fn note(&mut self, pod: &Pod, shape: ShapeKey, (choice, mover): (Choice, Mover), binding: &Binding) {
        let shape = self.shapes.get_mut(shape).expect("a shape in which a pod waits");
        let claims = shape.place.as_ref().map_or(&[][..], |place| &place.claims);
        self.index.reserve(choice.slot, (shape.request, claims, &shape.ports), mover, binding);
        shape.waiting.remove(&binding.pod);
        shape.unreported.remove(&binding.pod);
        if let Some(owner) = pod.meta.owner.map(|owner| owner.id) {
            *self.neighbours.entry((owner, binding.node)).or_insert(0) += 1;
            self.assumed.push((owner, binding.node));
        }
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
        let (state, now_ms) = (view.state, view.now_ms);
        let standing = Standing::of(state, group);
        let nominated = self.preemptor.seats_of(&required(state, &standing), (&self.index, &self.shapes));
        let (index, shapes, vicinity) = (&self.index, &mut self.shapes, &self.vicinity);
        let (fairness, kept) = (&self.fairness, nominated.as_deref().or(self.reserves.seats(group)));
        let mut trial = Trial { state, index, shapes, vicinity, claims, fairness, kept, now_ms };
        let seats = match self.groups.place(group, &standing, &mut trial) {
            Verdict::Seated(seats) => seats,
            Verdict::Later => {
                self.dirty = true;
                return None;
            }
            Verdict::Waits { is_news, needs_room, is_other } => {
                let is_nominated = standing.waiting.iter().any(|id| self.preemptor.node_of(*id).is_some());
                if needs_room {
                    self.preemptor.want(group, &standing);
                }
                if needs_room && !is_nominated {
                    self.reserves.ask(
                        group,
                        &standing,
                        (state, &mut self.index, &self.shapes, &self.vicinity),
                    );
                }
                let pods = standing.waiting.iter().filter(|_| is_news || is_other);
                for key in pods.filter_map(|id| self.shapes.key_of_waiting(*id)).collect::<BTreeSet<_>>() {
                    let shape = self.shapes.get_mut(key).expect("a shape in which a pod waits");
                    // Other words are told in their time.
                    shape.reported_position = None;
                    if is_news {
                        shape.reported_at_ms = 0;
                    }
                }
                return None;
            }
        };
        let attached = self.attach_all(&seats)?;
        self.reserves.give_up(group, &mut self.index);
        let mut bindings = Vec::with_capacity(seats.len());
        for (Seat { pod: id, shape: key, choice, chosen }, networks) in seats.into_iter().zip(attached) {
            let Some(pod) = state.pods().get(id) else { continue };
            let node = self.index.get(choice.slot).expect("a candidate slot holds a node").node.clone();
            let mover = self.vicinity.bind(pod, &node);
            let shape = self.shapes.get_mut(key).expect("a shape in which a pod waits");
            claims.extend(shape.place.iter().flat_map(|place| place.claims.iter().copied()));
            if shape.queue.is_some() || self.fairness.are_many() {
                let charge = Charge::of_pod(pod, &state.devices.classes);
                self.fairness.took(&shape.queue, &charge);
            }
            if let Some(ask) = Ask::of(state, pod) {
                self.fairness.elastic.take(&ask);
            }
            let kept_on = self.preemptor.node_of(id);
            kept_on.into_iter().for_each(|node| self.index.give_up(node, id));
            self.groups.took(group);
            let binding = binding((id, node.meta.id), choice, chosen, networks);
            self.note(pod, key, (choice, mover), &binding);
            self.in_flight.insert(id, Some(binding.node));
            bindings.push(binding);
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
            attached.push(shape.attach((seat.pod, &seat.chosen.devices), ledger, &mut after)?);
        }
        self.addresses = after;
        Some(attached)
    }

    /// Whom to place first: of every shape the oldest pod, and every pod for which room is kept.
    fn heads(&mut self, view: &View<'_>) -> BTreeSet<Head> {
        let state = view.state;
        let keys: Vec<ShapeKey> = self.shapes.waiting().map(|(key, _)| key).collect();
        let mut looks = BTreeMap::<PodGroupKey, GroupLook>::new();
        let mut queues = BTreeSet::new();
        for key in &keys {
            let shape = self.shapes.get_mut(*key).expect("a shape that was just listed");
            shape.look_up(state, self.preemptor.priorities(), &self.config, &self.index);
            let look = shape
                .group
                .as_ref()
                .map(|group| &*looks.entry(group.clone()).or_insert_with(|| GroupLook::of(state, group)));
            shape.hold_for_group(look.is_some_and(|look| look.is_held));
            let of_group = look.filter(|look| look.job.is_some()).map(|look| look.queue.clone());
            let own = || shape.own_queue.clone().filter(|_| state.feature_level() >= QUEUES_LEVEL);
            shape.queue = of_group.unwrap_or_else(own);
            let closed = shape.queue.as_ref().filter(|_| !shape.is_held);
            let closed = closed.and_then(|queue| queue::closed(state, queue));
            let full = || look.filter(|look| !look.is_held).and_then(|look| look.full.clone());
            shape.hold_by_queue(closed.or_else(full));
            queues.insert(shape.queue.clone());
        }
        if state.feature_level() >= GROUP_PREEMPTION_LEVEL {
            self.groups.count(looks.iter().map(|(key, look)| (key.clone(), look.holding)));
        }
        self.fairness.begin(state, &queues, looks.values().any(|look| look.job.is_some()));
        let mut heads = BTreeSet::new();
        for key in keys {
            let rank = self.rank(state, key, &looks);
            let hold = self.tree_hold(state, key);
            let shape = self.shapes.get_mut(key).expect("a shape that was just listed");
            shape.hold_by_tree(hold);
            if shape.may_be_placed() && shape.tree_hold.is_none() {
                let priority = Reverse(shape.priority);
                let first = shape.waiting.first();
                heads.extend(first.map(|pod| Head { priority, rank, is_first: true, pod: *pod, shape: key }));
            }
        }
        for pod in self.preemptor.nominees() {
            let Some(key) = self.shapes.key_of_waiting(pod) else { continue };
            let rank = self.rank(state, key, &looks);
            let shape = self.shapes.get_mut(key).expect("a shape in which a pod waits");
            if shape.may_be_placed() {
                let priority = Reverse(shape.priority);
                heads.insert(Head { priority, rank, is_first: false, pod, shape: key });
            }
        }
        heads
    }

    /// Why the elastic quota tree has no room for one more pod of a shape; of groups it is asked for all of them together.
    fn tree_hold(&self, state: &State, key: ShapeKey) -> Option<String> {
        let shape = self.shapes.get(key).filter(|shape| shape.in_tree && !shape.is_held)?;
        let pod = shape.waiting.first().and_then(|id| state.pods().get(*id))?;
        // One for which room is kept has that, and may also go where other room is.
        self.fairness.elastic.check(state, &Ask::of(state, pod)?).err()
    }

    /// The shares by which a shape's pods have their turn. Pods without a PodGroup are a job each; in the default queue their
    /// share does not count, so that they go by age as ever.
    fn rank(&self, state: &State, key: ShapeKey, looks: &BTreeMap<PodGroupKey, GroupLook>) -> Rank {
        let Some(shape) = self.shapes.get(key) else { return (0, 0) };
        let job = shape.group.as_ref().and_then(|group| looks.get(group)?.job.as_ref());
        let own = match job {
            Some(job) => self.fairness.job_share(job),
            None if shape.queue.is_some() => {
                let pod = shape.waiting.first().and_then(|id| state.pods().get(*id));
                let mut used = crate::state::QuotaUse::NONE;
                pod.iter().for_each(|pod| used.add(&Charge::of_pod(pod, &state.devices.classes)));
                self.fairness.job_share(&used)
            }
            None => 0,
        };
        (self.fairness.queue_share(&shape.queue), own)
    }
}

fn binding(
    (pod, node): (ObjectId, ObjectId),
    choice: Choice,
    chosen: Chosen,
    networks: Vec<NetworkAttachment>,
) -> Binding {
    let (devices, cpus) = (chosen.devices, chosen.cpus.into());
    Binding { pod, node, nodes_considered: choice.nodes, score: choice.score, devices, networks, cpus }
}
