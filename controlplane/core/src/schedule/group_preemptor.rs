//! Groups that wait and fit nowhere, and others that end for them.
//!
//! ```text
//!  a group that waits for nothing but room, of higher priority than something that is bound
//!     └─► GroupSearch: a seat for each pod that must be placed, and who ends for all of them (group_search.rs)
//!            └─► PreemptForGroup: room is kept for all, the victims end ─► the group is bound as soon as they have gone
//! ```
//!
//! It is one decision: nobody ends for a group that would not fit then. Room that is kept for pods of a group is the group's: it is
//! used by whichever of them has a seat there, and given up as a whole when it is of no use to the whole any more.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_types::{Command, GROUP_PREEMPTION_LEVEL, ITEMS_MAX, Nomination, ObjectId, PodGroupKey};

use super::group_search::GroupSearch;
use super::hall::{Hall, Stage};
use super::index::{Asker, NodeIndex, Nominee};
use super::preemptor::Preemptor;
use super::reserves::{KeptSeat, required};
use super::shape::{Shape, group_id};
use super::shapes::{ShapeKey, Shapes};
use super::victims::Obstacle;
use crate::State;
use crate::disruption::Allowance;
use crate::elastic_quota::ElasticLedger;
use crate::placement::Vicinity;
use crate::pod_group::Standing;
use crate::queue::{self, QueueLedger};
use crate::reconcile::View;
use crate::state::Charge;

/// Groups for which a run looks for victims, at most: each may look at every node.
const SEARCHES_PER_RUN: usize = 4;

/// What an answer relies on.
#[derive(Debug, PartialEq)]
struct Basis {
    /// The end of the index' log.
    position: u64,
    /// How often budgets changed.
    budgets: u64,
    priority: i32,
    /// Of its PodGroup.
    generation: u64,
    pods: Vec<ObjectId>,
}

/// Groups that wait for room, and what is known of them.
#[derive(Debug, Default)]
pub(super) struct GroupLooks {
    /// Those that want others to end in this run, in their turn.
    wanting: Vec<(PodGroupKey, Standing)>,
    /// Why nobody ends for a group, and what that was found by.
    futile: BTreeMap<PodGroupKey, (Basis, String)>,
    searches: usize,
}

impl GroupLooks {
    /// A run begins.
    pub(super) fn begin(&mut self) {
        let wanting: BTreeSet<_> =
            std::mem::take(&mut self.wanting).into_iter().map(|(key, _)| key).collect();
        self.futile.retain(|key, _| wanting.contains(key));
        self.searches = 0;
    }

    /// Whether nobody asks.
    pub(super) fn is_empty(&self) -> bool {
        self.wanting.is_empty()
    }

    /// The priorities and oldest pods of those that want others to end, with their places.
    pub(super) fn turns(&self) -> impl Iterator<Item = (i32, ObjectId, usize)> + '_ {
        let turn = |(at, (_, standing)): (usize, &(PodGroupKey, Standing))| {
            Some((standing.priority()?, *standing.waiting.first()?, at))
        };
        self.wanting.iter().enumerate().filter_map(turn)
    }
}

/// What a search looks at beside the State.
type Scene<'a> = (&'a NodeIndex, &'a Shapes, &'a Vicinity);

impl Preemptor {
    /// A group waits for nothing but room.
    pub(super) fn want(&mut self, key: &PodGroupKey, standing: &Standing) {
        self.groups.wanting.push((key.clone(), standing.clone()));
    }

    /// Why nobody ends for a group; `None` where nobody of lower priority is bound.
    pub(super) fn why(&self, key: &PodGroupKey) -> Option<&str> {
        self.groups.futile.get(key).map(|(_, why)| why.as_str()).filter(|why| !why.is_empty())
    }

    /// The seats that are kept for all of these pods.
    pub(super) fn seats_of(
        &self,
        pods: &[ObjectId],
        (index, shapes): (&NodeIndex, &Shapes),
    ) -> Option<Vec<KeptSeat>> {
        let seat = |pod: &ObjectId| {
            let slot = index.slot_of(*self.nominees.get(pod)?)?;
            Some(KeptSeat { pod: *pod, shape: shapes.key_of_waiting(*pod)?, slot })
        };
        if self.nominees.is_empty() {
            return None;
        }
        pods.iter().map(seat).collect()
    }

    /// Chooses nodes and victims for a group that wants others to end. Returns whether it has to be looked at in another run.
    pub(super) fn propose_group(
        &mut self,
        view: &View<'_>,
        (index, shapes, vicinity): (&mut NodeIndex, &Shapes, &Vicinity),
        (allowance, elastic, queues): (&mut Allowance, &mut ElasticLedger, &QueueLedger),
        at: usize,
        commands: &mut Vec<Command>,
    ) -> bool {
        let state = view.state;
        let Some((key, standing)) = self.groups.wanting.get(at).cloned() else { return false };
        let Some(priority) = standing.priority() else { return false };
        let pods = required(state, &standing);
        let is_put_off =
            |id: &ObjectId| self.refused.get(id).is_some_and(|(_, until_ms)| *until_ms > view.now_ms);
        if state.feature_level() < GROUP_PREEMPTION_LEVEL
            || standing.put_off_until_ms() > view.now_ms
            || standing.waiting.iter().any(|id| self.node_of(*id).is_some() || is_put_off(id))
        {
            return false;
        }
        let (position, budgets) = (index.log_end(), self.now.1);
        let generation = standing.object.as_ref().map_or(0, |group| group.meta.generation);
        let basis = Basis { position, budgets, priority, generation, pods };
        if !is_within_queue(state, queues, (&key, &standing), &basis.pods) {
            return false;
        }
        if self.groups.futile.get(&key).is_some_and(|(former, _)| *former == basis) {
            return false;
        }
        if self.groups.searches >= SEARCHES_PER_RUN {
            return true;
        }
        let scene = (&*index, shapes, vicinity);
        let found = self.find(state, scene, (&key, &standing, priority), &basis.pods, allowance);
        match found {
            Ok((seats, victims)) => {
                self.groups.futile.remove(&key);
                self.keep(state, index, (priority, &seats), (&victims, allowance, elastic));
                let nominations = seats.iter().filter_map(|seat| {
                    let node = index.get(seat.slot)?.node.meta.id;
                    Some(Nomination { pod: seat.pod, node })
                });
                commands.push(Command::PreemptForGroup { nominations: nominations.collect(), victims });
            }
            Err(why) => _ = self.groups.futile.insert(key, (basis, why)),
        }
        false
    }

    /// Seats and victims; or why nobody ends, empty where nobody could.
    fn find(
        &mut self,
        state: &State,
        (index, shapes, vicinity): Scene<'_>,
        (key, standing, priority): (&PodGroupKey, &Standing, i32),
        pods: &[ObjectId],
        allowance: &Allowance,
    ) -> Result<(Vec<KeptSeat>, Vec<ObjectId>), String> {
        let of_pods = pods.iter().map(|pod| Some((*pod, shapes.key_of_waiting(*pod)?)));
        let of_pods: Option<Vec<(ObjectId, ShapeKey)>> = of_pods.collect();
        let of_pods = of_pods.ok_or_else(String::new)?;
        let own: Vec<&Shape> = of_pods.iter().filter_map(|(_, key)| shapes.get(*key)).collect();
        if !self.has_lower(priority) || own.iter().any(|shape| !shape.may_be_placed()) {
            return Err(String::new());
        }
        if !own.iter().all(|shape| self.preempts(shape)) {
            return Err("preemption: not eligible due to preemptionPolicy=Never.".to_owned());
        }
        if own.iter().any(|shape| shape.in_tree) {
            return Err("preemption: nobody ends for groups in the elastic quota tree.".to_owned());
        }
        self.groups.searches += 1;
        let asker = asker(key, priority);
        let needs = Stage::needs(own.into_iter());
        let Self { priorities, held, .. } = self;
        let mut stage = Stage { state, index, shapes, vicinity, priorities, held, asker, needs };
        let found = GroupSearch::new(&mut stage, of_pods, allowance.clone()).run();
        let (seats, victims) = found.map_err(|obstacle| {
            let text = match obstacle {
                Obstacle::NoVictims | Obstacle::NotHelpful => {
                    "No preemption victims found for all of the group"
                }
                other => other.text(),
            };
            format!("preemption: {text}.")
        })?;
        let nodes: BTreeSet<_> =
            seats.iter().filter_map(|seat| Some(index.get(seat.slot)?.node.meta.id)).collect();
        let on_nodes = nodes.iter().flat_map(|node| state.pods_on(*node));
        let ending = on_nodes.filter(|pod| pod.meta.is_deleting()).map(|pod| pod.meta.id);
        let gone: Vec<ObjectId> = ending.chain(victims.iter().copied()).collect();
        match standing.check_free(state, key, &gone) {
            Ok(()) => Ok((seats, victims)),
            Err(_) => Err(String::new()),
        }
    }

    /// Keeps room for all of a group until what was proposed has settled.
    fn keep(
        &mut self,
        state: &State,
        index: &mut NodeIndex,
        (priority, seats): (i32, &[KeptSeat]),
        (victims, allowance, elastic): (&[ObjectId], &mut Allowance, &mut ElasticLedger),
    ) {
        let mut nodes = BTreeSet::new();
        for victim in victims.iter().filter_map(|id| state.pods().get(*id)) {
            let allowed = allowance.take(state, victim);
            debug_assert!(allowed.is_ok(), "budgets were asked a moment ago");
            elastic.end(state, victim, true);
            nodes.extend(victim.node);
        }
        nodes.iter().for_each(|node| self.held.end(*node, victims));
        // What others would do there is to be found anew.
        nodes.iter().for_each(|node| index.stir_now(*node));
        for seat in seats {
            let (Some(pod), Some(entry)) = (state.pods().get(seat.pod), index.get(seat.slot)) else {
                continue;
            };
            let node = entry.node.meta.id;
            index.nominate(seat.slot, Nominee::new(state, pod, priority));
            // The first says where all of the victims are.
            self.in_flight.insert(seat.pod, (node, std::mem::take(&mut nodes)));
        }
    }

    /// Adds the pods of groups that wait and cannot use the room that is kept for them, even when all that end there have gone:
    /// all of a group, or none.
    pub(super) fn useless_groups(
        &mut self,
        (view, index, shapes, vicinity): (&View<'_>, &NodeIndex, &Shapes, &Vicinity),
        queues: &QueueLedger,
        useless: &mut Vec<ObjectId>,
    ) {
        let mut groups = BTreeMap::<PodGroupKey, (Vec<ObjectId>, Vec<KeptSeat>)>::new();
        for (pod, node) in &self.nominees {
            // One that is about to be bound waits no more.
            let Some(shape_key) = shapes.key_of_waiting(*pod) else { continue };
            let Some(shape) = shapes.get(shape_key).filter(|shape| shape.is_held) else { continue };
            let Some(key) = shape.group.clone() else { continue };
            let (pods, seats) = groups.entry(key).or_default();
            pods.push(*pod);
            let slot = index.slot_of(*node);
            seats.extend(slot.map(|slot| KeptSeat { pod: *pod, shape: shape_key, slot }));
        }
        if view.state.feature_level() < GROUP_PREEMPTION_LEVEL {
            return;
        }
        for (key, (pods, seats)) in groups {
            let can_use = pods.len() == seats.len()
                && self.can_use_all(view, (index, shapes, vicinity), (&key, &seats), queues);
            if !can_use && useless.len() + pods.len() <= ITEMS_MAX {
                useless.extend(pods);
            }
        }
    }

    fn can_use_all(
        &mut self,
        view: &View<'_>,
        (index, shapes, vicinity): Scene<'_>,
        (key, seats): (&PodGroupKey, &[KeptSeat]),
        queues: &QueueLedger,
    ) -> bool {
        let state = view.state;
        let standing = Standing::of(state, key);
        let task = |seat: &KeptSeat| state.pods().get(seat.pod).map_or("", |pod| pod.task());
        let own: Vec<&Shape> = seats.iter().filter_map(|seat| shapes.get(seat.shape)).collect();
        let pods: Vec<ObjectId> = seats.iter().map(|seat| seat.pod).collect();
        let Some(priority) = standing.priority() else { return false };
        if standing.hold(state, key).is_some()
            || standing.put_off_until_ms() > view.now_ms
            || standing.check_together(seats.iter().map(task)).is_err()
            || own.iter().any(|shape| !shape.may_be_placed())
            || !is_within_queue(state, queues, (key, &standing), &pods)
        {
            return false;
        }
        let (asker, needs) = (asker(key, priority), Stage::needs(own.into_iter()));
        let Self { priorities, held, .. } = self;
        let mut stage = Stage { state, index, shapes, vicinity, priorities, held, asker, needs };
        Hall::new(&stage).seats_all(&mut stage, seats)
    }
}

fn asker(key: &PodGroupKey, priority: i32) -> Asker {
    let group = group_id(key);
    Asker { priority, pod: None, group, companions: group }
}

/// Whether queues have room for all of a group.
fn is_within_queue(
    state: &State,
    queues: &QueueLedger,
    (key, standing): (&PodGroupKey, &Standing),
    pods: &[ObjectId],
) -> bool {
    let mut queues = queues.clone();
    standing.check_least(state, key, &queues).is_ok()
        && pods.iter().filter_map(|pod| state.pods().get(*pod)).all(|pod| {
            let Some(queue) = queue::of_pod(state, pod) else { return true };
            let charge = Charge::of_pod(pod, &state.devices.classes);
            let has_room = queues.check(state, &queue, &charge).is_ok();
            queues.take(&queue, &charge);
            has_room
        })
}
