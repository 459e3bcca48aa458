//! Groups of pods that are placed together or not at all: nothing is held while a group waits. A group is tried out beside
//! what is there, and only when all that it needs have a node is anything reserved.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use bulkhead_types::{AllocatedDevice, ObjectId, PodGroupKey, Resources};

use super::index::{NodeIndex, Slot};
use super::shape::{Choice, Shape, Taking};
use super::shapes::{ShapeKey, Shapes};
use crate::State;
use crate::placement::Vicinity;
use crate::pod_group::Standing;

/// Groups that a run tries out, at most.
const TRIALS_PER_RUN: usize = 64;

/// What a trial was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Basis {
    /// The end of the index' log.
    position: u64,
    /// Pods that wait, those of them that may be tried, and the youngest.
    waiting: (usize, usize, Option<ObjectId>),
    /// How many must be placed together, and whether their priorities allow it.
    standing: (u32, bool),
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct PodGroups {
    /// Groups that wait for more than their first look: why, and what that was found by.
    waiting: BTreeMap<PodGroupKey, (Basis, String)>,
    /// Trials of this run.
    trials: usize,
    /// Groups that have been looked at in this run.
    seen: BTreeSet<PodGroupKey>,
}

/// A pod of a group with its node.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    pub(crate) pod: ObjectId,
    pub(crate) shape: ShapeKey,
    pub(crate) choice: Choice,
    pub(crate) devices: Vec<AllocatedDevice>,
}

/// What became of a group in this run.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// All that it needs have a node.
    Seated(Vec<Seat>),
    /// It waits.
    Waits {
        /// Whether its pods are others than those that were told why.
        is_news: bool,
    },
    /// It is looked at in another run.
    Later,
}

impl PodGroups {
    /// A run begins.
    pub(crate) fn begin(&mut self) {
        self.trials = 0;
        self.waiting.retain(|key, _| self.seen.contains(key));
        self.seen.clear();
    }

    /// What groups name changed: all are to be looked at anew.
    pub(crate) fn forget(&mut self) {
        self.waiting.clear();
    }

    /// Whether a group is looked at for the first time in this run.
    pub(crate) fn is_first_look(&mut self, key: &PodGroupKey) -> bool {
        self.seen.insert(key.clone())
    }

    /// Why a group waits.
    pub(crate) fn message(&self, key: &PodGroupKey) -> Option<&str> {
        self.waiting.get(key).map(|(_, message)| message.as_str())
    }

    /// Looks for nodes for a group.
    pub(crate) fn place(&mut self, key: &PodGroupKey, standing: &Standing, scene: &mut Trial<'_>) -> Verdict {
        let may_be_tried = |id: &&ObjectId| scene.shapes.key_of_waiting(**id).is_some();
        let tried = standing.waiting.iter().filter(may_be_tried).count();
        let basis = Basis {
            position: scene.index.log_end(),
            waiting: (standing.waiting.len(), tried, standing.waiting.last().copied()),
            standing: (standing.least, standing.is_even),
        };
        let former = self.waiting.get(key).map(|(former, _)| *former);
        if former == Some(basis) {
            return Verdict::Waits { is_news: false };
        }
        let is_news =
            former.is_none_or(|former| (former.waiting, former.standing) != (basis.waiting, basis.standing));
        let name = &key.name;
        let missing = standing.missing() as usize;
        let known = standing.placed as usize + standing.waiting.len();
        let message = if !standing.is_even {
            format!("pod group {name}: its pods are not of the same priority")
        } else if standing.waiting.len() < missing {
            format!("pod group {name}: {known} of {} pods that are placed together are there", standing.least)
        } else if self.trials >= TRIALS_PER_RUN {
            return Verdict::Later;
        } else {
            self.trials += 1;
            let seats = scene.seat(&standing.waiting);
            if seats.len() >= missing {
                self.waiting.remove(key);
                return Verdict::Seated(seats);
            }
            format!(
                "pod group {name}: 0/{} nodes are available: there is room for {} of {missing} pods that are placed together",
                scene.index.len(),
                seats.len()
            )
        };
        self.waiting.insert(key.clone(), (basis, message));
        Verdict::Waits { is_news }
    }
}

/// What a group is tried out on.
pub(crate) struct Trial<'a> {
    pub(crate) state: &'a State,
    pub(crate) index: &'a NodeIndex,
    pub(crate) shapes: &'a mut Shapes,
    /// Who is near whom, with what this run has decided.
    pub(crate) vicinity: &'a Vicinity,
    /// Claims of pods that were placed in this run.
    pub(crate) claims: &'a BTreeSet<ObjectId>,
}

impl Trial<'_> {
    /// Nodes for as many of the pods as there is room for, the largest first. Those for which others must be there first are
    /// tried again when those are.
    fn seat(&mut self, pods: &[ObjectId]) -> Vec<Seat> {
        let size = |id: &ObjectId| {
            let request = self.state.pods().get(*id).map(|pod| pod.spec.scheduling_request());
            request.map(|request| (Reverse(request.cpu_millis), Reverse(request.memory_bytes)))
        };
        let mut left: Vec<_> = pods.to_vec();
        left.sort_by_key(|id| (size(id), *id));
        let (mut taken, mut vicinity) = (BTreeMap::<Slot, Taking>::new(), self.vicinity.clone());
        let mut claims = self.claims.clone();
        let mut seats: Vec<Seat> = Vec::new();
        loop {
            let before = seats.len();
            left.retain(|id| match self.seat_one(*id, &taken, &vicinity, &mut claims) {
                Some((seat, request)) => {
                    let entry = self.index.get(seat.choice.slot).expect("a candidate slot holds a node");
                    let taking = taken.entry(seat.choice.slot).or_default();
                    taking.usage = taking.usage.with(request);
                    if !seat.devices.is_empty() {
                        let present = || entry.devices.as_deref().cloned().unwrap_or_default();
                        taking.devices.get_or_insert_with(present).take(*id, &seat.devices);
                    }
                    if let Some(pod) = self.state.pods().get(*id) {
                        vicinity.bind(pod, &entry.node);
                    }
                    seats.push(seat);
                    false
                }
                None => true,
            });
            // Only what other pods say can be another answer next time.
            if seats.len() == before || left.is_empty() || !self.vicinity.is_kept() {
                return seats;
            }
        }
    }

    fn seat_one(
        &mut self,
        pod: ObjectId,
        taken: &BTreeMap<Slot, Taking>,
        vicinity: &Vicinity,
        claims: &mut BTreeSet<ObjectId>,
    ) -> Option<(Seat, Resources)> {
        let key = self.shapes.key_of_waiting(pod)?;
        let shape: &mut Shape = self.shapes.get_mut(key)?;
        let own = shape.place.as_ref().ok()?.claims.clone();
        if !shape.may_be_placed() || own.iter().any(|claim| claims.contains(claim)) {
            return None;
        }
        shape.catch_up(self.index, self.state, self.vicinity);
        let choice = shape.choose_beside(pod, self.index, taken, vicinity)?;
        let ledger = taken.get(&choice.slot).and_then(|taking| taking.devices.as_ref());
        let devices = shape.choose_devices(ledger.or_else(|| self.index.devices(choice.slot)))?;
        claims.extend(own);
        Some((Seat { pod, shape: key, choice, devices }, shape.request))
    }
}
