//! The mode of a node's cards: one that they can have, and none that takes from a pod what it holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bulkhead_types::{
    Device, DeviceState, EventKind, GPU_MODE_SHARED, GPU_MODE_WHOLE, Kind, MANAGER_LIFE, Name, Node, NodeGpu,
    NodeSpec, ObjectId, PartitionStrategy, Rare, Rejection, RejectionCode, ResourceSlice,
};
use smol_str::SmolStr;

use super::managers::manage;
use super::{Emit, not_allowed, not_found};
use crate::State;
use crate::devices::ledger_of;

/// Most holders that a refusal names.
const NAMED_MAX: usize = 3;

pub(super) fn set(
    state: &State,
    name: &Name,
    gpu: Option<&NodeGpu>,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    let node = state.find(Kind::Node, None, name).and_then(|id| state.nodes.get(id));
    let node = node.ok_or_else(|| not_found(format!("Node {name}")))?;
    if node.spec.gpu.get() == gpu {
        return Ok(());
    }
    check(state, node, gpu)?;
    let spec = NodeSpec { gpu: Rare::from(gpu.cloned()), ..node.spec.clone() };
    emit.push(EventKind::NodeSpecChanged { id: node.meta.id, spec });
    manage(state, Kind::Node, &node.meta, MANAGER_LIFE, &["spec", "gpuMode"], emit);
    Ok(())
}

/// Refuses a mode that the node's cards cannot have, or that takes from a pod what it holds.
pub(crate) fn check(state: &State, node: &Node, gpu: Option<&NodeGpu>) -> Result<(), Rejection> {
    // What the cards of a node can do is known once its agent has told of them.
    let Some(slice) = state.resource_slice_of(node.meta.id) else { return Ok(()) };
    let Some(gpu) = gpu else { return Ok(()) };
    let field = || format!("Node {}: spec.gpuMode", node.meta.name);
    check_known(state, slice, gpu).map_err(|(reason, remedy)| {
        Rejection::new(RejectionCode::Invalid, field(), reason).with_remedy(remedy)
    })?;
    let holders = holders_against(state, node, slice, gpu);
    if holders.is_empty() {
        return Ok(());
    }
    let mut named: Vec<String> = holders.iter().take(NAMED_MAX).cloned().collect();
    if holders.len() > NAMED_MAX {
        named.push(format!("{} more", holders.len() - NAMED_MAX));
    }
    let reason = format!("cannot become {} while in use: {}", gpu.mode, named.join(", "));
    Err(not_allowed(field(), reason).with_remedy("end these pods first, or wait until they have ended"))
}

/// Whether some card has such a mode.
fn check_known(state: &State, slice: &ResourceSlice, gpu: &NodeGpu) -> Result<(), (String, String)> {
    let classes = &state.devices.classes;
    let cards = || slice.devices.iter().filter(|card| card.partition.get().is_none());
    let has_modes = |card: &&Device| classes.offer_of(card).is_some_and(|offer| offer.has_modes);
    match gpu.mode.as_str() {
        GPU_MODE_WHOLE if cards().any(|card| has_modes(&card)) => return Ok(()),
        GPU_MODE_SHARED => {
            let is_shared = |card: &Device| classes.offer_of(card).is_some_and(|one| one.sharing.is_some());
            if cards().any(is_shared) {
                return Ok(());
            }
        }
        _ => {}
    }
    let (mut known, mut models, mut profiles) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for card in cards() {
        let partitioning = classes.spec_of(card).and_then(|spec| spec.partitioning.get());
        let Some((all, model)) = partitioning.zip(classes.model_of(card)) else { continue };
        match all.layout(model, &gpu.mode) {
            None => known.extend(all.layout_names(model)),
            Some(Err(reason)) => {
                return Err((
                    format!("{} does not fit: {reason}", gpu.mode),
                    "choose another layout".to_owned(),
                ));
            }
            Some(Ok(placed)) => {
                models.insert(model.name.clone());
                profiles.extend(placed.into_iter().map(|one| one.profile));
            }
        }
    }
    if models.is_empty() {
        let modes = [GPU_MODE_WHOLE.to_owned(), GPU_MODE_SHARED.to_owned()].into_iter().chain(known);
        let remedy =
            format!("it may be one of {}, or a sequence of profiles", modes.collect::<Vec<_>>().join(", "));
        return Err((format!("{} is a mode that no card of the node has", gpu.mode), remedy));
    }
    if gpu.strategy == PartitionStrategy::Single && (models.len() > 1 || profiles.len() > 1) {
        let reason = format!("{} gives partitions that are not alike, and the strategy is Single", gpu.mode);
        return Err((
            reason,
            "use the strategy Mixed, or a layout of one profile on cards of one model".to_owned(),
        ));
    }
    Ok(())
}

/// Who holds what the mode takes away, as `GPU-0 (nvidia.com/gpu) of Pod default/a`.
fn holders_against(state: &State, node: &Node, slice: &Arc<ResourceSlice>, gpu: &NodeGpu) -> Vec<String> {
    let present = node.spec.gpu.get();
    // The ledger as it would be: the cards in the mode, with the partitions that there are now.
    let mut after = ResourceSlice::clone(slice);
    let state_after =
        DeviceState { gpu_mode: Some(gpu.mode.clone()), ..slice.state.get().cloned().unwrap_or_default() };
    after.state = Rare::some(state_after);
    let pods: Vec<_> = state.pods_on(node.meta.id).collect();
    let nics = state.sriov_state_of(node.meta.id).map(|nics| &**nics);
    let ledger = ledger_of(&after, Some(gpu), nics, state.device_classes().iter(), std::iter::empty());
    let keeps_layout = present.is_some_and(|present| present.mode == gpu.mode);
    let mut against = BTreeMap::<(SmolStr, ObjectId), String>::new();
    for pod in pods.iter().filter(|pod| !pod.status.phase.is_terminal()) {
        for given in pod.devices() {
            let Some(used) = ledger.get(&given.device) else { continue };
            let stays = match (&given.share, used.is_partition()) {
                (None, true) => keeps_layout && used.resource() == Some(&given.resource),
                (None, false) => used.offered.whole,
                (Some(_), _) => used.offered.shares,
            };
            if !stays {
                let pod_name = bulkhead_types::Object::Pod(Arc::clone(pod)).object_ref();
                let text = format!("{} ({}) of {pod_name}", given.device, given.resource);
                against.insert((given.device.clone(), pod.meta.id), text);
            }
        }
    }
    against.into_values().collect()
}
