//! Devices: which resource each is, who holds it, and which of them a pod gets. Pure.
//!
//! ```text
//!  ResourceSlice (node) ─┐
//!  DeviceClass ──────────┼─► DeviceIndex: per node a NodeDevices, the ledger ─► Choice (scheduler)
//!  pods that hold some ──┘        ▲                                                │ Binding.devices
//!                                 └───────────── check_binding (decide) ◄──────────┘
//! ```
//!
//! The ledger follows from the objects alone and is no part of a digest. A pod holds its devices from its binding until it is
//! terminal or gone: the same rule as for room on its node. What holds devices is unique (`Pod::is_unique`), so nobody
//! forgets it while its guest may live. That a released device was reset is not waited for yet: there is no agent that
//! attaches devices; the place for it is [`NodeDevices::release`].

mod choice;
mod classes;
mod functions;
mod index;
mod labels;
mod mode;
mod needs;
mod node;
mod pci_traits;
mod taken;
mod visible;

use std::sync::Arc;

use bulkhead_types::{
    ANNOTATION_DEVICE_SCHEDULER_POLICY, ANNOTATION_NODE_SCHEDULER_POLICY, AllocatedDevice, CardLayout,
    DEVICES_MAX, Device, DeviceClass, DeviceClassSpec, DeviceHealth, DeviceIntent, GpuIntent, Node, NodeGpu,
    Pod, REASON_DEVICE_LOST, REASON_DEVICE_UNHEALTHY, ResourceSlice, SchedulerPolicy, SriovNetworkNodeState,
    VisibleBy,
};
use smol_str::SmolStr;

pub(crate) use classes::{Classes, ResourceRole};
pub(crate) use index::{DeviceIndex, World};
pub(crate) use labels::{SyncedLabels, synced as synced_labels};
pub use mode::Offered;
pub(crate) use mode::layout;
pub(crate) use needs::{Ask, Needs, Says, card_count};
pub use node::{DeviceUse, NodeDevices, ResourceCount};
pub(crate) use pci_traits::known_pci_traits;

pub(crate) use taken::Taken;

use crate::State;
use crate::placement::Misfit;

/// What a pod's metadata says of its devices: how full nodes and cards shall be, and over how many cards its memory units are
/// divided (see [`card_count`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Policies {
    pub(crate) node: Option<SchedulerPolicy>,
    pub(crate) device: Option<SchedulerPolicy>,
    pub(crate) cards: Option<u32>,
}

impl Policies {
    pub(crate) fn of(pod: &Pod) -> Self {
        let read = |key| pod.meta.annotations.get(key).and_then(|text| SchedulerPolicy::parse(text));
        Self {
            node: read(ANNOTATION_NODE_SCHEDULER_POLICY),
            device: read(ANNOTATION_DEVICE_SCHEDULER_POLICY),
            cards: card_count(&pod.meta.labels),
        }
    }
}

/// Whether the devices of a node are enough for a pod.
///
/// # Errors
/// The first reason against it.
pub(crate) fn check_node(needs: &Needs, node: &Node, devices: Option<&NodeDevices>) -> Result<(), Misfit> {
    let Some(first) = needs.asks.first() else { return Ok(()) };
    let Some(devices) = devices else { return Err(Misfit::InsufficientDevice(first.resource.clone())) };
    devices.check_counts(needs).map_err(Misfit::InsufficientDevice)?;
    if !node.status.facts.attaches_devices() {
        return Err(Misfit::NoDevices);
    }
    devices.check_choice(needs).map_err(|resource| {
        // What it chooses is what is lacking when any others would do.
        let any = needs.without_choice().filter(|any| devices.check_choice(any).is_ok());
        if any.is_some() { Misfit::DeviceChoice } else { Misfit::InsufficientDevice(resource) }
    })
}

/// The devices of a node in such a mode and who of these pods holds them, as the control plane counts them: for who has the objects and not
/// a State.
pub fn ledger_of<'a>(
    slice: &ResourceSlice,
    gpu: Option<&NodeGpu>,
    nics: Option<&SriovNetworkNodeState>,
    classes: impl IntoIterator<Item = &'a Arc<DeviceClass>>,
    pods: impl IntoIterator<Item = &'a Arc<Pod>>,
) -> NodeDevices {
    let classes = Classes::of(classes.into_iter(), std::iter::empty());
    let mut ledger = NodeDevices::new(slice, &classes, gpu, nics);
    let on_node = |pod: &&Arc<Pod>| pod.node == Some(slice.node) && !pod.status.phase.is_terminal();
    pods.into_iter().filter(on_node).for_each(|pod| ledger.take(pod.meta.id, pod.devices()));
    ledger
}

/// Whether a pod could have the devices and networks that it asks for on a node now; `true` when it asks for none.
#[must_use]
pub fn fits(state: &State, pod: &Pod, node: &Node) -> bool {
    if !pod.spec.asks_for_devices() {
        return true;
    }
    let needs = Needs::of_pod(pod, &state.devices.classes);
    let networks = crate::networks::outlook(state, pod);
    let attaches = |needs: &Vec<_>| needs.is_empty() || node.status.facts.attaches_networks();
    networks.as_ref().is_ok_and(attaches)
        && needs.is_ok_and(|needs| check_node(&needs, node, state.node_devices(node.meta.id)).is_ok())
}

/// What is wrong with the devices that a pod has, the worst first: one CamelCase word, and the same for people.
pub(crate) fn trouble(slice: &ResourceSlice, pod: &Pod) -> Option<(SmolStr, String)> {
    let mut unhealthy = None;
    for given in pod.devices() {
        let health = slice.device(&given.device).map(|device| &device.health);
        match health {
            Some(DeviceHealth::Healthy) => {}
            Some(DeviceHealth::Unhealthy { code, .. }) => {
                let message =
                    format!("device {} of container {} is unhealthy: {code}", given.device, given.container);
                unhealthy.get_or_insert((SmolStr::new_static(REASON_DEVICE_UNHEALTHY), message));
            }
            Some(DeviceHealth::Lost { .. }) | None => {
                let message =
                    format!("device {} of container {} is gone from the node", given.device, given.container);
                return Some((SmolStr::new_static(REASON_DEVICE_LOST), message));
            }
        }
    }
    unhealthy
}

/// The devices that an agent shall give to the containers of a pod.
pub(crate) fn intents(state: &State, pod: &Pod) -> Vec<DeviceIntent> {
    if pod.devices().is_empty() {
        return Vec::new();
    }
    let slice = pod.node.and_then(|node| state.resource_slice_of(node));
    let intent = |given: &AllocatedDevice| {
        let device = slice.and_then(|slice| slice.device(&given.device));
        let (visible_env, visible_as) = visible(state, pod, given);
        DeviceIntent {
            container: given.container.clone(),
            resource: given.resource.clone(),
            device: given.device.clone(),
            address: device.map(|device| device.address.clone()).unwrap_or_default(),
            share: given.share,
            lost: device.is_none_or(bulkhead_types::Device::is_lost),
            visible_env,
            visible_as,
        }
    };
    // Where containers name what they see, who asked does not matter.
    let named = visible::named(state, pod);
    let is_own = |given: &&AllocatedDevice| {
        class_of(state, pod, given).is_none_or(|spec| visible::variable(spec).is_none())
    };
    let own = pod.devices().iter().filter(is_own);
    own.chain(&named).map(intent).collect()
}

/// The card that a device is a part of; the device itself when it is none.
pub(crate) fn card_of<'a>(slice: &'a ResourceSlice, device: &'a Device) -> &'a Device {
    let parent = device.partition.get().and(device.parent.as_ref());
    parent.and_then(|id| slice.device(id)).unwrap_or(device)
}

/// What is said of the class of a pod's device.
fn class_of<'a>(state: &'a State, pod: &Pod, given: &AllocatedDevice) -> Option<&'a DeviceClassSpec> {
    let slice = state.resource_slice_of(pod.node?)?;
    state.devices.classes.spec_of(card_of(slice, slice.device(&given.device)?))
}

/// The variable that tells a container of a device, and what stands there; both empty for none.
fn visible(state: &State, pod: &Pod, given: &AllocatedDevice) -> (SmolStr, SmolStr) {
    let class = |one: &AllocatedDevice| class_of(state, pod, one).map(|spec| &spec.extended_resource_name);
    let Some(own) = class_of(state, pod, given) else { return Default::default() };
    let Some(visibility) = own.visibility.get() else { return Default::default() };
    let visible_as = match visibility.by {
        VisibleBy::Id => given.device.clone(),
        VisibleBy::Index => {
            // A guest counts from 0, each device once.
            let of_class = pod.devices().iter().filter(|one| class(one) == Some(&own.extended_resource_name));
            let mut seen: Vec<&SmolStr> = Vec::new();
            for one in of_class {
                if !seen.contains(&&one.device) {
                    seen.push(&one.device);
                }
            }
            let at = seen.iter().position(|device| **device == given.device);
            SmolStr::new(at.unwrap_or_default().to_string())
        }
    };
    (visibility.env.clone(), visible_as)
}

/// The mode that a node's agent shall bring its cards into; `None` when the node has none in particular.
pub(crate) fn gpu_intent(state: &State, node: &Node) -> Option<GpuIntent> {
    let gpu = node.spec.gpu.get()?;
    let slice = state.resource_slice_of(node.meta.id);
    let cards =
        slice.into_iter().flat_map(|slice| &slice.devices).filter(|one| one.partition.get().is_none());
    let cards = cards.filter_map(|card| {
        let partitions = layout(&state.devices.classes, card, &gpu.mode)?;
        Some(CardLayout { device: card.id.clone(), partitions })
    });
    Some(GpuIntent { mode: gpu.mode.clone(), cards: cards.take(DEVICES_MAX).collect() })
}
