//! Waiting pods, grouped by everything that matters to placement.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bulkhead_types::{ANNOTATION_ENABLE_SRIOV, ANNOTATION_NETWORKS, ObjectId, Pod, PodSpec, digest128};
use smol_str::SmolStr;

use super::index::NodeIndex;
use super::score::Wishes;
use super::shape::Shape;
use crate::State;
use crate::decide::REASON_UNSCHEDULABLE;
use crate::devices::Policies;
use crate::placement::{Term, Vicinity, class_key, says};
use crate::state::{LevelKey, Levels};

/// Shapes kept although no pod of them waits, for the next that come.
const IDLE_SHAPES_MAX: usize = 64;
/// Spec digests remembered before they are looked up afresh.
const SPECS_MAX: usize = 1 << 16;

/// Identifies a shape.
pub(crate) type ShapeKey = u128;

/// Waiting pods of one namespace with the same labels.
#[derive(Clone, Debug, Default)]
struct WaitingClass {
    /// By whom they were met when they were sorted into shapes.
    met_by: Arc<Vec<Term>>,
    pods: BTreeSet<ObjectId>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shapes {
    shapes: BTreeMap<ShapeKey, Shape>,
    by_spec: BTreeMap<u128, ShapeKey>,
    /// In which shape a pod waits.
    keys: BTreeMap<ObjectId, ShapeKey>,
    /// The elastic quota tree, by which pods were sorted.
    tree: Option<Arc<Levels>>,
    /// While who is near whom is counted.
    classes: BTreeMap<u128, WaitingClass>,
    /// What of that was looked at.
    meetings: (u64, u64),
}

/// Everything of a spec that order, filters and scores look at.
fn spec_key(spec: &PodSpec) -> ShapeKey {
    let (class, placement) = (spec.priority_class(), spec.placement());
    let selects = (&spec.node_selector, &spec.node_name, &spec.tolerations);
    let key = digest128(&(spec.scheduling_request(), selects, class, placement));
    let ports: Vec<_> = spec.host_ports().collect();
    if ports.is_empty() { key } else { digest128(&(key, "ports", ports)) }
}

/// What a pod wants of CPUs for itself, if it wants any; or why it can have none.
fn cpu_key(pod: &Pod) -> Option<u128> {
    match crate::cpus::needs_of(pod) {
        Ok(None) => None,
        needs => Some(digest128(&("cpus", needs))),
    }
}

/// Everything that matters of what a pod asks for of devices.
fn device_key(pod: &Pod) -> u128 {
    let asks = pod.spec.containers.iter();
    // In their environment containers may name what they see.
    let asks = asks.map(|one| (&one.name, &one.env, one.extended_resources().collect::<Vec<_>>()));
    let key = digest128(&(asks.collect::<Vec<_>>(), Policies::of(pod)));
    // By which of them pods choose cards is said by the classes, which come and go; templates give all their pods the same.
    let key = if pod.meta.annotations.is_empty() { key } else { digest128(&(key, &pod.meta.annotations)) };
    let annotation = |name| pod.meta.annotations.get(name);
    match annotation(ANNOTATION_NETWORKS) {
        None => key,
        // Networks are those of the pod's namespace.
        Some(networks) => {
            digest128(&(key, &pod.meta.namespace, networks, annotation(ANNOTATION_ENABLE_SRIOV)))
        }
    }
}

impl Shapes {
    /// The shape of a pod.
    fn key_of(&mut self, pod: &Pod, vicinity: &Vicinity, images: &[SmolStr]) -> ShapeKey {
        let key = self.spec_key_of(pod);
        let containers = pod.spec.init_containers.len() + pod.spec.containers.len();
        let key = if images.is_empty() { key } else { digest128(&(key, "images", images, containers)) };
        // Claims are the namespace's own, and few pods share them.
        let claims: Vec<_> = pod.spec.claims().collect();
        let key = if claims.is_empty() { key } else { digest128(&(key, &pod.meta.namespace, claims)) };
        // So is a group.
        let key = pod.group_key().map_or(key, |group| digest128(&(key, group)));
        // And pods that name a queue; of a group it is the PodGroup's.
        let key = pod.own_queue().map_or(key, |queue| digest128(&(key, "queue", queue)));
        let key = if pod.spec.asks_for_devices() { digest128(&(key, device_key(pod))) } else { key };
        let wishes = Wishes::of(pod);
        let key = if wishes == Wishes::default() { key } else { digest128(&(key, wishes)) };
        let key = self.leaf_of(pod).map_or(key, |leaf| digest128(&(key, "leaf", leaf)));
        let key = cpu_key(pod).map_or(key, |cpus| digest128(&(key, cpus)));
        if !vicinity.is_kept() {
            return key;
        }
        let class = class_key(pod);
        if says(pod) {
            return digest128(&(key, class));
        }
        match vicinity.met_by(class) {
            Some(met_by) if !met_by.is_empty() => {
                let counters: Vec<_> = met_by.iter().map(|term| term.counter).collect();
                digest128(&(key, counters))
            }
            _ => key,
        }
    }

    fn leaf_of(&self, pod: &Pod) -> Option<LevelKey> {
        self.tree.as_ref()?.leaf_of(pod.meta.namespace.as_ref())
    }

    fn spec_key_of(&mut self, pod: &Pod) -> ShapeKey {
        let digest = pod.spec.digest();
        if let Some(key) = self.by_spec.get(&digest) {
            return *key;
        }
        if self.by_spec.len() >= SPECS_MAX {
            self.by_spec.clear();
        }
        let key = spec_key(&pod.spec);
        self.by_spec.insert(digest, key);
        key
    }

    /// A pod waits, in a shape that is created when it is the first of its kind.
    pub(crate) fn enter(&mut self, pod: &Pod, vicinity: &Vicinity, index: &NodeIndex) {
        let images = index.spread().telling(&pod.spec, index.len());
        let (id, key) = (pod.meta.id, self.key_of(pod, vicinity, &images));
        if self.keys.insert(id, key).is_some_and(|former| former != key) {
            debug_assert!(!self.shapes.values().any(|shape| shape.waiting.contains(&id)), "{id} waits twice");
        }
        let in_tree = self.leaf_of(pod).is_some();
        let shape = self.shapes.entry(key).or_insert_with(|| {
            let namespace = pod.spec.claims().next().and(pod.meta.namespace.clone());
            let names = (pod.group_key(), pod.own_queue());
            let own = (Policies::of(pod), Wishes::of(pod), images);
            Shape::new(pod.spec.clone(), namespace, names, own, &pod.meta.annotations)
        });
        shape.in_tree = in_tree;
        shape.waiting.insert(id);
        if pod.status.reason != REASON_UNSCHEDULABLE {
            shape.unreported.insert(id);
        }
        if vicinity.is_kept() {
            let class = class_key(pod);
            let waiting = self.classes.entry(class).or_insert_with(|| WaitingClass {
                met_by: vicinity.met_by(class).cloned().unwrap_or_default(),
                pods: BTreeSet::new(),
            });
            waiting.pods.insert(id);
        }
    }

    /// A pod waits no more, or not as such.
    pub(crate) fn leave(&mut self, pod: &Pod) {
        let id = pod.meta.id;
        if let Some(shape) = self.keys.remove(&id).and_then(|key| self.shapes.get_mut(&key)) {
            shape.waiting.remove(&id);
            shape.unreported.remove(&id);
        }
        if self.classes.is_empty() {
            return;
        }
        let class = class_key(pod);
        if let Some(waiting) = self.classes.get_mut(&class) {
            waiting.pods.remove(&id);
            if waiting.pods.is_empty() {
                self.classes.remove(&class);
            }
        }
    }

    /// Whether a pod waits.
    pub(crate) fn is_waiting(&self, pod: ObjectId) -> bool {
        self.key_of_waiting(pod).is_some()
    }

    /// The shape in which a pod waits.
    pub(crate) fn key_of_waiting(&self, pod: ObjectId) -> Option<ShapeKey> {
        let key = self.keys.get(&pod)?;
        self.shapes.get(key).filter(|shape| shape.waiting.contains(&pod)).map(|_| *key)
    }

    /// The same.
    pub(crate) fn of_waiting(&self, pod: ObjectId) -> Option<&Shape> {
        self.shapes.get(&self.key_of_waiting(pod)?)
    }

    /// Sorts pods anew that others say something else about than before.
    pub(crate) fn follow(&mut self, state: &State, index: &NodeIndex) {
        let vicinity = &state.vicinity;
        let is_other_tree = self.tree.as_ref() != state.elastic_use.levels();
        if self.meetings == vicinity.meetings() && !is_other_tree {
            return;
        }
        self.tree = state.elastic_use.levels().cloned();
        let is_all = is_other_tree || self.meetings.0 != vicinity.meetings().0;
        self.meetings = vicinity.meetings();
        let moved: Vec<ObjectId> = if is_all {
            self.classes.clear();
            self.keys.keys().copied().collect()
        } else {
            let nobody = Arc::default();
            let differs = |(class, waiting): &(&u128, &WaitingClass)| {
                waiting.met_by != *vicinity.met_by(**class).unwrap_or(&nobody)
            };
            let changed: Vec<u128> = self.classes.iter().filter(differs).map(|(class, _)| *class).collect();
            let classes = changed.iter().filter_map(|class| self.classes.remove(class));
            classes.flat_map(|waiting| waiting.pods).collect()
        };
        for id in moved {
            let Some(pod) = state.pods().get(id).filter(|_| self.is_waiting(id)) else { continue };
            self.leave(pod);
            self.enter(pod, vicinity, index);
        }
    }

    pub(crate) fn get(&self, key: ShapeKey) -> Option<&Shape> {
        self.shapes.get(&key)
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
