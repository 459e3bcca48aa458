//! Pods that fit nowhere, and others that end for them.
//!
//! ```text
//!  a shape without a node, of higher priority than something that is bound
//!     └─► Search: nodes by who would end there (victims.rs), from what is held on them (held.rs)
//!            └─► Preempt: room is kept on the node, the victims end ─► the pod is bound as soon as they have gone
//! ```
//!
//! A group that fits nowhere gets seats for all that it must have, and all who end for them, in one decision: see
//! [`super::group_preemptor`].
//!
//! A pod for which room is kept makes nobody else end; when the room is not enough any more it is given up, and the pod
//! begins anew. Priorities of victims are strictly lower, so no two pods ever do that to each other.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bulkhead_types::{Command, GROUP_PREEMPTION_LEVEL, ITEMS_MAX, ObjectId, PREEMPTION_LEVEL, Pod};
use smol_str::SmolStr;

use super::group_preemptor::GroupLooks;
use super::held::HeldIndex;
use super::index::{NodeIndex, Nominee};
use super::reclaim::Reclaim;
use super::search::{Scene, Search};
use super::shape::Shape;
use super::shapes::{ShapeKey, Shapes};
use super::victims::{Obstacle, can_use};
use crate::State;
use crate::disruption::Allowance;
use crate::elastic_quota::{Ask, ElasticLedger};
use crate::placement::Vicinity;
use crate::priority::Priorities;
use crate::queue::QueueLedger;
use crate::reconcile::View;
use crate::state::{is_active, nominated_node};

/// Pods for which others end per run, at most.
const PREEMPTIONS_PER_RUN: usize = 512;
/// Shapes for which a run looks for victims, at most: each may look at every node.
const SEARCHES_PER_RUN: usize = 32;
/// First wait after a preemption that was refused, in milliseconds; it doubles with each further one.
const RETRY_MS_MIN: u64 = 100;
/// Longest wait, in milliseconds.
const RETRY_MS_MAX: u64 = 30_000;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Preemptor {
    pub(super) priorities: Priorities,
    /// Whether those must be read again.
    is_stale: bool,
    /// Pods that hold room, by the class that they name.
    classes: BTreeMap<Option<SmolStr>, u32>,
    pub(super) held: HeldIndex,
    searches: BTreeMap<ShapeKey, Search>,
    /// Pods that wait while room is kept for them, and where.
    pub(super) nominees: BTreeMap<ObjectId, ObjectId>,
    /// Pods for which a preemption was proposed, where, and on which other nodes pods end for it.
    pub(super) in_flight: BTreeMap<ObjectId, (ObjectId, BTreeSet<ObjectId>)>,
    /// Pods whose preemption was refused: how often, and until when they wait, milliseconds since the epoch.
    pub(super) refused: BTreeMap<ObjectId, (u32, u64)>,
    /// Groups that wait for nothing but room, and what is known of them.
    pub(super) groups: GroupLooks,
    /// The runs of the scheduler, and changes of budgets.
    pub(super) now: (u64, u64),
    /// When this was looked at last, milliseconds since the epoch.
    looked_at_ms: u64,
}

/// Who looks for victims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    Shape(ShapeKey),
    /// The place among the groups that want others to end.
    Group(usize),
}

fn holds_room(pod: &Pod) -> Option<ObjectId> {
    pod.node.filter(|_| !pod.status.phase.is_terminal())
}

/// What of a pod decides who ends for whom.
fn standing(pod: &Pod) -> Option<(ObjectId, bool)> {
    Some((holds_room(pod)?, pod.meta.is_deleting()))
}

/// What a pod of a shape in the elastic quota tree asks for.
fn ask_of(state: &State, shape: &Shape) -> Option<Ask> {
    let pod = shape.waiting.first().filter(|_| shape.in_tree)?;
    Ask::of(state, state.pods().get(*pod)?).map(Ask::anew)
}

/// Whether a pod of a shape would take back what is its leaf's own.
fn takes_back(state: &State, shape: &Shape) -> bool {
    ask_of(state, shape).is_some_and(|ask| ElasticLedger::default().is_within_min(state, &ask))
}

impl Preemptor {
    /// One that knows of no pod.
    pub(crate) fn new() -> Self {
        Self { is_stale: true, ..Self::default() }
    }

    /// A PriorityClass came or went.
    pub(crate) fn observe_class(&mut self) {
        self.is_stale = true;
    }

    /// A budget, or what is known of it, changed. Returns whether somebody waits who may have waited for that.
    pub(crate) fn observe_budget(&mut self) -> bool {
        self.now.1 += 1;
        !self.searches.is_empty() || !self.groups.is_empty()
    }

    /// Follows a pod; returns whether the scheduler should look.
    pub(crate) fn observe_pod(
        &mut self,
        former: Option<&Pod>,
        present: Option<&Pod>,
        index: &mut NodeIndex,
    ) -> bool {
        let (was, is) = (former.and_then(holds_room), present.and_then(holds_room));
        if was.is_some() != is.is_some()
            && let Some(pod) = former.or(present)
        {
            let class = pod.spec.priority_class().cloned();
            let count = self.classes.entry(class.clone()).or_insert(0);
            *count = if is.is_some() { *count + 1 } else { *count - 1 };
            if *count == 0 {
                self.classes.remove(&class);
            }
        }
        let (was, is) = (former.and_then(standing), present.and_then(standing));
        let resized = former.zip(present).is_some_and(|(a, b)| a.spec != b.spec);
        if (was != is || resized) && !self.held.is_empty() {
            for (node, _) in was.into_iter().chain(is) {
                self.held.forget(node);
                index.stir(node);
            }
        }
        let Some(id) = former.or(present).map(|pod| pod.meta.id) else { return false };
        let (was, is) = (former.and_then(nominated_node), present.and_then(nominated_node));
        if was != is {
            was.into_iter().chain(is).for_each(|node| index.touch(node));
            self.nominees.remove(&id);
            self.nominees.extend(is.map(|node| (id, node)));
        }
        if present.is_none_or(|pod| pod.node.is_some() || !is_active(pod)) {
            self.refused.remove(&id);
        }
        was != is
    }

    /// Everything that was proposed has settled: what was refused is proposed again later. Reads classes again if they
    /// changed.
    pub(crate) fn settle(&mut self, view: &View<'_>, index: &mut NodeIndex) {
        self.now.0 += 1;
        self.looked_at_ms = view.now_ms;
        self.groups.begin();
        for (id, (node, others)) in std::mem::take(&mut self.in_flight) {
            index.touch(node);
            for node in others.into_iter().chain([node]) {
                index.stir(node);
                self.held.forget(node);
            }
            let waits = view.state.pods().get(id).filter(|pod| pod.node.is_none() && is_active(pod));
            if waits.is_none_or(|pod| nominated_node(pod).is_some()) {
                self.refused.remove(&id);
                continue;
            }
            let (times, until_ms) = self.refused.entry(id).or_insert((0, 0));
            *until_ms = view.now_ms + (RETRY_MS_MIN << (*times).min(16)).min(RETRY_MS_MAX);
            *times = times.saturating_add(1);
        }
        if std::mem::take(&mut self.is_stale) {
            self.priorities = Priorities::read(view.state);
            self.held = HeldIndex::default();
            self.groups = GroupLooks::default();
            self.searches.clear();
            self.nominees.values().for_each(|node| index.touch(*node));
        }
        debug_assert!(self.held.is_true(view.state, &self.priorities), "what is held is not what is kept");
    }

    pub(crate) fn priorities(&self) -> &Priorities {
        &self.priorities
    }

    /// Pods that wait while room is kept for them.
    pub(crate) fn nominees(&self) -> impl Iterator<Item = ObjectId> + '_ {
        self.nominees.keys().copied()
    }

    /// Where room is kept for a pod, if it is, or is about to be.
    pub(crate) fn node_of(&self, pod: ObjectId) -> Option<ObjectId> {
        self.nominees.get(&pod).or_else(|| self.in_flight.get(&pod).map(|(node, _)| node)).copied()
    }

    pub(crate) fn next_wake_ms(&self) -> Option<u64> {
        let due = self.refused.values().map(|(_, until_ms)| *until_ms);
        due.filter(|until_ms| *until_ms > self.looked_at_ms).min()
    }

    /// Whether pods of a shape may make others end, and there are any of lower priority.
    fn may_preempt(&self, state: &State, shape: &Shape) -> bool {
        state.feature_level() >= PREEMPTION_LEVEL
            && shape.may_be_placed()
            && !shape.is_held
            && (self.has_lower(shape.priority) || takes_back(state, shape))
    }

    /// Whether anybody of lower priority holds room.
    pub(super) fn has_lower(&self, priority: i32) -> bool {
        let lower = |class: &Option<SmolStr>| {
            self.priorities.of(class.as_ref()).is_some_and(|other| other.value < priority)
        };
        self.classes.keys().any(lower)
    }

    pub(super) fn preempts(&self, shape: &Shape) -> bool {
        self.priorities.of(shape.spec.priority_class()).is_some_and(|own| own.preempts)
    }

    /// Chooses nodes and victims for pods that fit nowhere, those of the highest priority first; and gives up room that is
    /// of no use. Returns whether there is more to look for than one run may.
    pub(crate) fn propose(
        &mut self,
        view: &View<'_>,
        (index, shapes, vicinity): (&mut NodeIndex, &mut Shapes, &Vicinity),
        (mut elastic, queues): (ElasticLedger, &QueueLedger),
        commands: &mut Vec<Command>,
    ) -> bool {
        let mut useless = self.useless(view.state, index, shapes, vicinity);
        self.useless_groups((view, index, shapes, vicinity), queues, &mut useless);
        let order = self.order(view.state, shapes);
        let mut allowance = Allowance::default();
        let (mut proposed, mut searched, mut is_more) = (0, 0, false);
        for (.., turn) in order {
            let key = match turn {
                Turn::Shape(key) => key,
                Turn::Group(at) => {
                    let scene = (&mut *index, &*shapes, vicinity);
                    is_more |=
                        self.propose_group(view, scene, (&mut allowance, &mut elastic, queues), at, commands);
                    continue;
                }
            };
            let shape = shapes.get_mut(key).expect("a shape that was just listed");
            shape.catch_up(index, view.state, vicinity);
            if !shape.is_stuck(index.log_end()) {
                continue;
            }
            if searched >= SEARCHES_PER_RUN {
                is_more = true;
                continue;
            }
            let mut search = self.searches.remove(&key).unwrap_or_default();
            let is_new = self.search(
                view,
                index,
                shape,
                vicinity,
                &mut search,
                (&mut allowance, &mut proposed, &mut elastic, queues),
                commands,
            );
            searched += usize::from(is_new);
            self.searches.insert(key, search);
        }
        if self.searches.is_empty() && self.nominees.is_empty() && self.groups.is_empty() {
            self.held = HeldIndex::default();
        }
        if !useless.is_empty() {
            commands.push(Command::ClearNominations { pods: useless });
        }
        is_more
    }

    /// Whose turn it is: those of the highest priority, then the oldest. What was known of others is forgotten.
    fn order(&mut self, state: &State, shapes: &Shapes) -> BTreeSet<(Reverse<i32>, ObjectId, Turn)> {
        let mut order = BTreeSet::new();
        for (key, shape) in shapes.waiting() {
            if self.may_preempt(state, shape) && self.preempts(shape) {
                let head = shape.waiting.first();
                order.extend(head.map(|head| (Reverse(shape.priority), *head, Turn::Shape(key))));
            }
        }
        let of_shape = |turn: Turn| match turn {
            Turn::Shape(key) => Some(key),
            Turn::Group(_) => None,
        };
        let keys: BTreeSet<ShapeKey> = order.iter().filter_map(|(.., turn)| of_shape(*turn)).collect();
        self.searches.retain(|key, _| keys.contains(key));
        let groups = self.groups.turns();
        order.extend(groups.map(|(priority, head, at)| (Reverse(priority), head, Turn::Group(at))));
        order
    }

    /// One shape's pods; returns whether there was anything to look for.
    #[allow(clippy::too_many_arguments)]
    fn search(
        &mut self,
        view: &View<'_>,
        index: &mut NodeIndex,
        shape: &mut Shape,
        vicinity: &Vicinity,
        search: &mut Search,
        (allowance, proposed, elastic, queues): (
            &mut Allowance,
            &mut usize,
            &mut ElasticLedger,
            &QueueLedger,
        ),
        commands: &mut Vec<Command>,
    ) -> bool {
        let (mut has_looked, mut reclaim) = (false, None::<Reclaim>);
        let waiting: Vec<ObjectId> =
            shape.waiting.iter().copied().take(PREEMPTIONS_PER_RUN + self.nominees.len()).collect();
        for id in waiting {
            let is_put_off = self.refused.get(&id).is_some_and(|(_, until_ms)| *until_ms > view.now_ms);
            if *proposed >= PREEMPTIONS_PER_RUN || self.node_of(id).is_some() || is_put_off {
                continue;
            }
            // Nobody's end makes room in a queue that is full; the tree may have hidden that it is.
            if !queues.has_room(view.state, id) {
                continue;
            }
            let Self { priorities, held, now, .. } = self;
            if shape.in_tree {
                let ask = view.state.pods().get(id).and_then(|pod| Ask::of(view.state, pod));
                reclaim = match (reclaim, ask) {
                    (Some(reclaim), Some(_)) => Some(reclaim.again(view.state, elastic)),
                    (_, ask) => {
                        ask.map(|ask| Reclaim::new(view.state, priorities, (ask, shape.priority), elastic))
                    }
                };
            }
            let (state, reclaim) = (view.state, reclaim.as_ref());
            let mut scene = Scene { state, index, vicinity, priorities, held, allowance, reclaim, now: *now };
            if search.is_exhausted(&scene, shape) {
                break;
            }
            has_looked = true;
            let Some((slot, victims)) = search.choose(&mut scene, shape, id) else { break };
            let node = index.get(slot).expect("a candidate slot holds a node").node.meta.id;
            for victim in victims.pods.iter().filter_map(|id| view.state.pods().get(*id)) {
                let allowed = allowance.take(view.state, victim);
                debug_assert!(allowed.is_ok(), "budgets were asked a moment ago");
                elastic.end(view.state, victim, true);
            }
            reclaim.iter().for_each(|reclaim| elastic.keep(&reclaim.ask));
            let pods = victims.pods.iter().filter_map(|id| view.state.pods().get(*id));
            let mut nodes: BTreeSet<ObjectId> = pods.filter_map(|pod| pod.node).collect();
            nodes.insert(node);
            nodes.iter().for_each(|node| self.held.end(*node, &victims.pods));
            nodes.remove(&node);
            // What others would do there is to be found anew.
            nodes.iter().for_each(|node| index.stir_now(*node));
            let asks_for_devices = shape.asks_for_devices();
            let (priority, request, pins_cpus) = (shape.priority, shape.request, shape.pins_cpus());
            let (group, ports) = (shape.group_id, Arc::clone(&shape.ports));
            let nominee = Nominee { pod: id, priority, group, request, asks_for_devices, pins_cpus, ports };
            index.nominate(slot, nominee);
            self.in_flight.insert(id, (node, nodes));
            *proposed += 1;
            commands.push(Command::Preempt { pod: id, node, victims: victims.pods });
        }
        has_looked
    }

    /// Pods that cannot use the room that is kept for them, even when all that end there have gone.
    fn useless(
        &mut self,
        state: &State,
        index: &NodeIndex,
        shapes: &Shapes,
        vicinity: &Vicinity,
    ) -> Vec<ObjectId> {
        let mut useless = Vec::new();
        for (id, node) in &self.nominees {
            // One that is about to be bound waits no more.
            let Some(shape) = shapes.of_waiting(*id) else { continue };
            // Of a group that waits all are looked at together.
            if shape.is_held && state.feature_level() >= GROUP_PREEMPTION_LEVEL {
                continue;
            }
            let entry = index.slot_of(*node).and_then(|slot| index.get(slot));
            let can_use = entry.is_some_and(|entry| {
                let held = self.held.get(state, &self.priorities, *node);
                can_use((state, vicinity), shape, entry, held, *id)
            });
            let ask = state.pods().get(*id).and_then(|pod| Ask::of(state, pod));
            let can_use =
                can_use && ask.is_none_or(|ask| ElasticLedger::default().check_after(state, &ask).is_ok());
            // One whose group lacks others now is placed with them, wherever that is.
            let may_use = can_use && shape.may_be_placed() && !shape.is_held;
            if !may_use && useless.len() < ITEMS_MAX {
                useless.push(*id);
            }
        }
        useless
    }

    /// Why no pod ends for those of a shape: `preemption: 0/3 nodes are available: 3 No preemption victims found for incoming
    /// pod.` `None` where nobody of lower priority is bound. Costs time in proportion to the number of nodes.
    pub(crate) fn explain(
        &mut self,
        state: &State,
        index: &NodeIndex,
        shape: &Shape,
        vicinity: &Vicinity,
    ) -> Option<String> {
        if !self.may_preempt(state, shape) {
            return None;
        }
        if !self.preempts(shape) {
            return Some("preemption: not eligible due to preemptionPolicy=Never.".to_owned());
        }
        let allowance = Allowance::default();
        let Self { priorities, held, now, .. } = self;
        let ask = ask_of(state, shape);
        let reclaim =
            ask.map(|ask| Reclaim::new(state, priorities, (ask, shape.priority), &ElasticLedger::default()));
        let (reclaim, now, allowance) = (reclaim.as_ref(), *now, &allowance);
        let mut scene = Scene { state, index, vicinity, priorities, held, allowance, reclaim, now };
        let mut counts = BTreeMap::<Obstacle, u32>::new();
        for (slot, _) in index.entries() {
            if let Err(obstacle) = scene.victims(shape, slot) {
                *counts.entry(obstacle).or_insert(0) += 1;
            }
        }
        let listed: Vec<_> = counts.iter().map(|(why, count)| format!("{count} {}", why.text())).collect();
        if listed.is_empty() {
            return None;
        }
        Some(format!("preemption: 0/{} nodes are available: {}.", index.len(), listed.join(", ")))
    }
}
