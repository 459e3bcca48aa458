//! Waiting pods, grouped by everything that matters to placement.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_types::{Name, ObjectId, Pod, PodSpec, Resources, Shared, digest128};
use smol_str::SmolStr;

use super::candidates::Candidates;
use super::index::{NodeEntry, NodeIndex, Slot};
use super::{priority, score};
use crate::State;
use crate::claims::{self, Place};
use crate::placement::{Misfit, check_fit};

/// Shapes kept although no pod of them waits, for the next that come.
const IDLE_SHAPES_MAX: usize = 64;
/// Spec digests remembered before they are looked up afresh.
const SPECS_MAX: usize = 1 << 16;

/// Identifies a shape.
pub(crate) type ShapeKey = u128;

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
    /// Where their claims let them be; or why no node suits.
    pub(crate) place: Result<Place, String>,
    candidates: Candidates,
    /// Up to where the index' log is worked in; `None` before the first time.
    position: Option<u64>,
}

impl Shape {
    fn new(spec: Shared<PodSpec>, namespace: Option<Name>) -> Self {
        let request = spec.scheduling_request();
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
            place: Ok(Place::default()),
            candidates: Candidates::default(),
            position: None,
        }
    }

    /// Looks up what the pods' class and claims say now. Those that waited for them are told anew why they wait.
    pub(crate) fn look_up(&mut self, state: &State) {
        let place = claims::place(state, self.namespace.as_ref(), &self.spec);
        if self.place != place {
            self.place = place;
            self.position = None;
            self.reported_position = None;
            self.reported_at_ms = 0;
        }
        let found = priority::of(state, &self.spec);
        let missing = found.is_none().then(|| self.spec.priority_class().cloned()).flatten();
        if self.missing_class != missing {
            self.reported_position = None;
            self.reported_at_ms = 0;
        }
        (self.priority, self.missing_class) = (found.unwrap_or_default(), missing);
    }

    /// Brings the candidates up to date with the index. Costs time in proportion to what changed.
    pub(crate) fn catch_up(&mut self, index: &NodeIndex, state: &State) {
        let end = index.log_end();
        if self.position == Some(end) {
            return;
        }
        match self.position.and_then(|position| index.changed_since(position)) {
            Some(changed) if changed.len() <= index.slots_len() => {
                for change in changed {
                    match self.candidates.rank_of(change.slot).filter(|_| change.usage_only) {
                        Some(rank) => self.update_usage(index, change.slot, rank),
                        None => self.update(index, change.slot),
                    }
                }
            }
            _ => self.rebuild(index, state),
        }
        self.position = Some(end);
    }

    fn rebuild(&mut self, index: &NodeIndex, state: &State) {
        self.candidates.clear();
        if let Some(name) = &self.spec.node_name {
            let node = bulkhead_types::Name::new(name).ok();
            let id = node.and_then(|name| state.find(bulkhead_types::Kind::Node, None, &name));
            if let Some(slot) = id.and_then(|id| index.slot_of(id)) {
                self.update(index, slot);
            }
            return;
        }
        for slot in 0..index.slots_len() as Slot {
            self.update(index, slot);
        }
    }

    fn update(&mut self, index: &NodeIndex, slot: Slot) {
        let entry = index.get(slot);
        let fits = entry.filter(|e| self.check(e).is_ok());
        let rank = fits.map(|entry| score::rank(&self.spec, self.request, entry));
        self.candidates.set(slot, rank);
    }

    /// Whether a node suits.
    pub(crate) fn check(&self, entry: &NodeEntry) -> Result<(), Misfit> {
        check_fit(&self.spec, self.request, &entry.node, entry.usage)?;
        self.place.as_ref().map_or(Ok(()), |place| place.check(&entry.node))
    }

    /// Whether nothing that the pods name keeps all of them waiting.
    pub(crate) fn may_be_placed(&self) -> bool {
        self.missing_class.is_none() && self.place.is_ok()
    }

    /// Of a feasible node only what is reserved changed.
    fn update_usage(&mut self, index: &NodeIndex, slot: Slot, rank: u32) {
        let fits = index.get(slot).filter(|entry| entry.has_room(self.request));
        let rank = fits.map(|entry| score::rank_again(rank, self.request, entry));
        self.candidates.set(slot, rank);
    }

    /// Whether, at this position of the index' log, no node suits.
    pub(crate) fn is_stuck(&self, log_end: u64) -> bool {
        !self.may_be_placed() || (self.position == Some(log_end) && self.candidates.len() == 0)
    }

    /// The feasible slots, for one [`Self::catch_up`].
    pub(crate) fn candidates(&self) -> &Candidates {
        &self.candidates
    }
}

/// All shapes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shapes {
    shapes: BTreeMap<ShapeKey, Shape>,
    by_spec: BTreeMap<u128, ShapeKey>,
}

/// Everything of a spec that order, filters and scores look at.
fn shape_key(spec: &PodSpec) -> ShapeKey {
    let class = spec.priority_class();
    digest128(&(spec.scheduling_request(), &spec.node_selector, &spec.node_name, &spec.tolerations, class))
}

impl Shapes {
    /// The shape of a pod.
    pub(crate) fn key_of(&mut self, pod: &Pod) -> ShapeKey {
        if pod.spec.claims().next().is_some() {
            // Claims are the namespace's own, and few pods share them.
            let claims: Vec<_> = pod.spec.claims().collect();
            return digest128(&(shape_key(&pod.spec), &pod.meta.namespace, claims));
        }
        if let Some(key) = self.by_spec.get(&pod.spec.digest()) {
            return *key;
        }
        if self.by_spec.len() >= SPECS_MAX {
            self.by_spec.clear();
        }
        let key = shape_key(&pod.spec);
        self.by_spec.insert(pod.spec.digest(), key);
        key
    }

    /// The shape of a pod, to change; created when it is the first of its kind.
    pub(crate) fn enter(&mut self, pod: &Pod) -> (ShapeKey, &mut Shape) {
        let key = self.key_of(pod);
        (
            key,
            self.shapes.entry(key).or_insert_with(|| {
                let namespace = pod.spec.claims().next().and(pod.meta.namespace.clone());
                Shape::new(pod.spec.clone(), namespace)
            }),
        )
    }

    pub(crate) fn get_mut(&mut self, key: ShapeKey) -> Option<&mut Shape> {
        self.shapes.get_mut(&key)
    }

    /// The shapes with waiting pods.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = (ShapeKey, &Shape)> {
        self.shapes.iter().filter(|(_, shape)| !shape.waiting.is_empty()).map(|(key, shape)| (*key, shape))
    }

    /// Forgets shapes that nobody waits in, when there are too many.
    pub(crate) fn trim(&mut self) {
        if self.shapes.len() <= IDLE_SHAPES_MAX {
            return;
        }
        let idle: Vec<_> =
            self.shapes.iter().filter(|(_, s)| s.waiting.is_empty()).map(|(k, _)| *k).collect();
        for key in idle.into_iter().skip(IDLE_SHAPES_MAX) {
            self.shapes.remove(&key);
        }
    }
}
