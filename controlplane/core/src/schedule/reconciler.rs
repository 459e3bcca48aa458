//! The scheduler as a reconciler: pods that wait become bindings.

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_types::{
    Command, Kind, Name, Object, ObjectId, Pod, SCHEDULER_CONFIG_NAME, SCHEDULER_CONFIG_NAMESPACE,
    SCORING_LEVEL, SchedulerConfig,
};

use super::fairness::Fairness;
use super::index::NodeIndex;
use super::loads::Loads;
use super::pod_groups::PodGroups;
use super::preemptor::Preemptor;
use super::reserves::Reserves;
use super::score::Wishes;
use super::shapes::Shapes;
use crate::decide::REASON_UNSCHEDULABLE;
use crate::networks::Addresses;
use crate::placement::Vicinity;
use crate::reconcile::{Queue, Reconciler, View, is_active};
use crate::{Change, ChangeType, State};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Scheduler {
    pub(super) index: NodeIndex,
    pub(super) shapes: Shapes,
    /// Who is near whom, bindings of this run included.
    pub(super) vicinity: Vicinity,
    /// Pods that began to wait, or to wait as others.
    arrivals: Vec<ObjectId>,
    /// Active pods by owner and node.
    pub(super) neighbours: BTreeMap<(ObjectId, ObjectId), u32>,
    /// Counted among them for bindings in flight.
    pub(super) assumed: Vec<(ObjectId, ObjectId)>,
    /// Pods of which something was proposed: the node, or that they are told why they wait. A binding leaves
    /// when it is seen to have happened; its room is reserved already.
    pub(super) in_flight: BTreeMap<ObjectId, Option<ObjectId>>,
    /// Pods whose proposal had no effect.
    retry: Queue,
    /// Pods that are placed together.
    pub(super) groups: PodGroups,
    /// Room that is kept for those of them that wait.
    pub(super) reserves: Reserves,
    /// Whose turn it is.
    pub(super) fairness: Fairness,
    /// What ends for pods that fit nowhere.
    pub(super) preemptor: Preemptor,
    /// How nodes are scored.
    pub(super) config: Arc<SchedulerConfig>,
    /// Whether that has to be read anew, and at which level it was read.
    has_new_config: bool,
    config_level: u32,
    /// What pods use.
    loads: Loads,
    /// Which addresses pods have, bindings of this run included.
    pub(super) addresses: Addresses,
    pub(super) dirty: bool,
    pub(super) report_again_at_ms: Option<u64>,
}

pub(super) fn is_pending(pod: &Pod) -> bool {
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
        let (preemptor, dirty) = (Preemptor::new(), true);
        *self = Self { index, dirty, preemptor, has_new_config: true, ..Self::default() };
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
            (Object::PersistentVolumeClaim(_) | Object::VolumeSnapshot(_) | Object::Namespace(_), _) => {
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
            (Object::PodGroup(_) | Object::Queue(_), _) => self.dirty = true,
            (Object::ConfigMap(map), _) if SchedulerConfig::is_in(&map.meta) => {
                self.has_new_config = true;
                self.dirty = true;
            }
            (Object::ElasticQuotaTree(present), Some(Object::ElasticQuotaTree(former)))
                if present.spec == former.spec && change.change_type != ChangeType::Deleted => {}
            (Object::ElasticQuotaTree(_), _) => {
                self.groups.forget();
                self.dirty = true;
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
        self.shapes.follow(view.state, &self.index);
        if std::mem::take(&mut self.has_new_config) || self.config_level != view.state.feature_level() {
            self.config_level = view.state.feature_level();
            self.config = Arc::new(scheduler_config(view.state));
        }
        for id in std::mem::take(&mut self.arrivals) {
            if let Some(pod) = view.state.pods().get(id).filter(|pod| is_pending(pod)) {
                self.shapes.enter(pod, &view.state.vicinity, &self.index);
            }
        }
        if self.wants_load() {
            self.dirty |= self.loads.look(view, &mut self.index);
        }
        let mut commands = Vec::new();
        self.place(view, &mut commands);
        let ledgers = (self.fairness.elastic.clone(), &self.fairness.ledger);
        let scene = (&mut self.index, &mut self.shapes, &self.vicinity);
        self.dirty |= self.preemptor.propose(view, scene, ledgers, &mut commands);
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
        let loads = self.wants_load().then(|| self.loads.next_wake_ms());
        let again = self.report_again_at_ms.into_iter().chain(self.groups.again_at_ms()).chain(loads);
        self.retry.next_wake_ms().into_iter().chain(again).chain(preemptor).min()
    }
}

impl Scheduler {
    /// Whether pods wait for which measured load counts.
    fn wants_load(&self) -> bool {
        self.config.load_weight > 0 && self.shapes.waiting().any(|(_, shape)| shape.wants_load())
    }

    fn observe_pod(&mut self, former: Option<&Pod>, present: Option<&Pod>) {
        self.dirty |= self.preemptor.observe_pod(former, present, &mut self.index);
        let (was, is) = (former.and_then(holds_room), present.and_then(holds_room));
        if was != is {
            let own = present.is_some_and(|pod| was.is_none() && self.confirm(pod));
            was.into_iter().chain(is).filter(|_| !own).for_each(|node| self.index.touch(node));
            self.dirty = true;
        }
        // It holds more or less of where it is.
        if let Some((_, pod)) = former.zip(present).filter(|(a, b)| a.spec != b.spec) {
            pod.node.into_iter().for_each(|node| self.index.touch(node));
            self.dirty = true;
        }
        let (was, is) = (former.and_then(neighbour), present.and_then(neighbour));
        if was != is {
            was.into_iter().for_each(|key| self.drop_neighbour(key));
            is.into_iter().for_each(|key| *self.neighbours.entry(key).or_insert(0) += 1);
        }
        let same_labels = |a: &Pod, b: &Pod| a.meta.labels == b.meta.labels;
        // By any of its annotations a pod may choose its devices.
        let chosen = |pod: &Pod| pod.spec.asks_for_devices().then(|| pod.meta.annotations.clone());
        let names = |pod: &Pod| {
            (pod.group_key(), pod.own_queue(), Wishes::of(pod), crate::cpus::needs_of(pod), chosen(pod))
        };
        let same_names = |a: &Pod, b: &Pod| a.meta.annotations == b.meta.annotations || names(a) == names(b);
        match (former.filter(|pod| is_pending(pod)), present.filter(|pod| is_pending(pod))) {
            (None, Some(pod)) => self.arrive(pod.meta.id),
            (Some(pod), None) => self.leave(pod),
            (Some(pod), Some(same)) if !same_labels(pod, same) || !same_names(pod, same) => {
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
}

/// What the scheduler's ConfigMap says. One from before that level, which nobody checked, may be malformed: then it is as if it
/// were not there.
fn scheduler_config(state: &State) -> SchedulerConfig {
    if state.feature_level() < SCORING_LEVEL {
        return SchedulerConfig::default();
    }
    let (namespace, name) =
        (Name::new(SCHEDULER_CONFIG_NAMESPACE).ok(), Name::new(SCHEDULER_CONFIG_NAME).ok());
    let id = name.and_then(|name| state.find(Kind::ConfigMap, namespace.as_ref(), &name));
    let map = id.and_then(|id| state.config_maps.get(id));
    map.and_then(|map| SchedulerConfig::parse(map).ok()).unwrap_or_default()
}
