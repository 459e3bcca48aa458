//! The ledgers of all nodes, kept change by change.

use std::sync::Arc;

use bulkhead_types::{
    AllocatedDevice, DeviceClass, Node, Object, ObjectId, Pod, ResourceSlice, SriovNetworkNodePolicy,
    SriovNetworkNodeState,
};
use imbl::OrdMap;

use super::{Classes, NodeDevices};
use crate::state::{Index, Table};

/// What ledgers are made of.
#[derive(Clone, Copy)]
pub(crate) struct World<'a> {
    pub(crate) pods: &'a Table<Pod>,
    pub(crate) nodes: &'a Table<Node>,
    pub(crate) classes: &'a Table<DeviceClass>,
    pub(crate) slices: &'a Table<ResourceSlice>,
    pub(crate) index: &'a Index,
    pub(crate) policies: &'a Table<SriovNetworkNodePolicy>,
    pub(crate) nics: &'a Table<SriovNetworkNodeState>,
}

/// See the module. It follows from the objects alone: pods, ResourceSlices and DeviceClasses.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct DeviceIndex {
    pub(crate) classes: Arc<Classes>,
    nodes: OrdMap<ObjectId, Arc<NodeDevices>>,
    slices: OrdMap<ObjectId, ObjectId>,
    /// The SriovNetworkNodeState of a node.
    nics: OrdMap<ObjectId, ObjectId>,
}

/// Where a pod holds which devices: as long as it holds room.
fn held(pod: &Pod) -> Option<(ObjectId, &[AllocatedDevice])> {
    let devices = pod.devices();
    (!devices.is_empty() && !pod.status.phase.is_terminal()).then_some((pod.node?, devices))
}

impl DeviceIndex {
    pub(crate) fn get(&self, node: ObjectId) -> Option<&Arc<NodeDevices>> {
        self.nodes.get(&node)
    }

    /// The ResourceSlice of a node.
    pub(crate) fn slice_of(&self, node: ObjectId) -> Option<ObjectId> {
        self.slices.get(&node).copied()
    }

    /// The SriovNetworkNodeState of a node.
    pub(crate) fn nics_of(&self, node: ObjectId) -> Option<ObjectId> {
        self.nics.get(&node).copied()
    }

    /// Takes an object's present self for its former one. Costs nothing but the look for what has no devices.
    pub(crate) fn change(&mut self, former: Option<&Object>, present: Option<&Object>, world: World<'_>) {
        match (former, present) {
            (Some(Object::Pod(_)), _) | (_, Some(Object::Pod(_))) => {
                self.change_pod(as_pod(former), as_pod(present));
            }
            (former, Some(Object::ResourceSlice(slice))) => {
                debug_assert!(!matches!(former, Some(Object::ResourceSlice(one)) if one.node != slice.node));
                self.rebuild_node(slice, world);
            }
            (Some(Object::ResourceSlice(slice)), None) => {
                self.nodes.remove(&slice.node);
                self.slices.remove(&slice.node);
            }
            (former, Some(Object::SriovNetworkNodeState(nics))) => {
                self.nics.insert(nics.node, nics.meta.id);
                let is_same = matches!(former, Some(Object::SriovNetworkNodeState(one))
                    if one.spec.interfaces == nics.spec.interfaces && one.status.blocked == nics.status.blocked);
                if !is_same {
                    self.follow_nics(nics.node, world);
                }
            }
            (Some(Object::SriovNetworkNodeState(nics)), None) => {
                self.nics.remove(&nics.node);
                self.follow_nics(nics.node, world);
            }
            (former, Some(Object::Node(node))) => {
                let gpu = |object: &Object| match object {
                    Object::Node(node) => node.spec.gpu.clone(),
                    _ => bulkhead_types::Rare::NONE,
                };
                let slice = self.slices.get(&node.meta.id).and_then(|id| world.slices.get(*id));
                if let Some(slice) = slice.filter(|_| former.map(gpu).unwrap_or_default() != node.spec.gpu) {
                    self.rebuild_node(slice, world);
                }
            }
            (Some(Object::DeviceClass(_) | Object::SriovNetworkNodePolicy(_)), _)
            | (_, Some(Object::DeviceClass(_) | Object::SriovNetworkNodePolicy(_))) => {
                self.rebuild(world);
            }
            _ => {}
        }
    }

    fn change_pod(&mut self, former: Option<&Pod>, present: Option<&Pod>) {
        let (was, is) = (former.and_then(held), present.and_then(held));
        if was == is {
            return;
        }
        if let (Some((node, devices)), Some(pod)) = (was, former) {
            self.on(node, |ledger| ledger.release(pod.meta.id, devices));
        }
        if let (Some((node, devices)), Some(pod)) = (is, present) {
            self.on(node, |ledger| ledger.take(pod.meta.id, devices));
        }
    }

    fn on(&mut self, node: ObjectId, change: impl FnOnce(&mut NodeDevices)) {
        if let Some(ledger) = self.nodes.get_mut(&node) {
            change(Arc::make_mut(ledger));
        }
    }

    fn follow_nics(&mut self, node: ObjectId, world: World<'_>) {
        if let Some(slice) = self.slice_of(node).and_then(|id| world.slices.get(id)) {
            self.rebuild_node(slice, world);
        }
    }

    fn rebuild_node(&mut self, slice: &ResourceSlice, world: World<'_>) {
        let gpu = world.nodes.get(slice.node).and_then(|node| node.spec.gpu.get());
        let nics = self.nics_of(slice.node).and_then(|id| world.nics.get(id));
        let mut ledger = NodeDevices::new(slice, &self.classes, gpu, nics.map(|nics| &**nics));
        for pod in world.index.on_node(slice.node).filter_map(|id| world.pods.get(id)) {
            if let Some((_, devices)) = held(pod) {
                ledger.take(pod.meta.id, devices);
            }
        }
        self.slices.insert(slice.node, slice.meta.id);
        self.nodes.insert(slice.node, Arc::new(ledger));
    }

    /// Counts everything afresh.
    pub(crate) fn rebuild(&mut self, world: World<'_>) {
        let classes = Arc::new(Classes::of(world.classes.iter(), world.policies.iter()));
        let nics = world.nics.iter().map(|nics| (nics.node, nics.meta.id)).collect();
        *self = Self { classes, nics, ..Self::default() };
        for slice in world.slices.iter() {
            self.rebuild_node(slice, world);
        }
    }
}

fn as_pod(object: Option<&Object>) -> Option<&Pod> {
    match object {
        Some(Object::Pod(pod)) => Some(pod),
        _ => None,
    }
}
