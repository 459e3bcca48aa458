//! No card has two holders: not in the log at any binding, and not among the guests that really live on a node.
//!
//! Judged from pods and guests alone, without the ledger of the control plane.

use bulkhead_controlplane_core::State;
use bulkhead_types::{Binding, Device, DeviceClass, DeviceHealth, DeviceShare, LABEL_DEVICES, ObjectId, Pod};
use smol_str::SmolStr;

use super::{Verdict, Violation, ensure};
use crate::workload::AVOIDED;

/// Checks what living guests of one node have, each card with so much memory.
///
/// # Errors
/// With a card that has two whole holders, or shares that do not fit on it.
pub fn held(held: &[(ObjectId, SmolStr, Option<DeviceShare>)], card_bytes: u64) -> Verdict {
    for (pod, device, share) in held {
        let others = || held.iter().filter(|(other, on, _)| on == device && other != pod);
        let card = |id: &SmolStr| id.split('/').next().map(ToOwned::to_owned);
        let is_part = device.contains('/');
        let with_card = held
            .iter()
            .any(|(_, on, _)| on != device && is_part != on.contains('/') && card(on) == card(device));
        ensure(!with_card, "devices", || format!("{device} and a part of it are given away: {held:?}"))?;
        let is_whole = share.is_none_or(|share| share.is_exclusive());
        ensure(!is_whole || others().count() == 0, "devices", || {
            format!("pod {pod} has {device} as a whole, and others have it too: {held:?}")
        })?;
        let memory: u64 =
            held.iter().filter(|one| one.1 == *device).filter_map(|one| one.2).map(|s| s.memory_bytes).sum();
        ensure(memory <= card_bytes, "devices", || {
            format!("{device} has {memory} bytes given away: {held:?}")
        })?;
    }
    Ok(())
}

/// What virtual functions are offered as: modes are those of cards, and do not matter to them.
const FUNCTIONS: &str = "ecnf.io/fast";

/// A device of a binding that the pod says it does not take, where the class reads that.
fn avoided(before: &State, pod: &Pod, binding: &Binding) -> Option<SmolStr> {
    let reads = |class: &std::sync::Arc<DeviceClass>| {
        let rule = class.spec.selection.get().and_then(|rule| rule.avoid_ids.as_ref());
        rule.is_some_and(|key| key == AVOIDED)
    };
    let says = pod.meta.annotations.get(AVOIDED).filter(|_| before.device_classes().iter().any(reads))?;
    let is_avoided = |id: &str| says.split(',').any(|one| one == id);
    let card = |id: &SmolStr| id.split('/').next().map(ToOwned::to_owned).unwrap_or_default();
    let mut given = binding.devices.iter().map(|one| one.device.clone());
    given.find(|id| is_avoided(id) || is_avoided(&card(id)))
}

/// Checks the labels of nodes by their cards, at the end; nothing of a node that is lost.
///
/// # Errors
/// With a node whose number of cards is not what its label says.
pub fn labels(state: &State, lost: Option<ObjectId>) -> Verdict {
    let mut keys =
        state.device_classes().iter().filter_map(|class| class.spec.node_labels.get()?.count.clone());
    let Some(key) = keys.next() else { return Ok(()) };
    state.resource_slices().iter().filter(|slice| Some(slice.node) != lost).try_for_each(|slice| {
        let Some(node) = state.nodes().get(slice.node) else { return Ok(()) };
        let is_card = |one: &&Device| one.vendor == 0x10de && one.parent.is_none() && !one.is_lost();
        let cards = slice.devices.iter().filter(is_card).count();
        let said = node.meta.labels.get(&key).map_or("0", SmolStr::as_str);
        ensure(said == cards.to_string(), "devices", || {
            format!("node {} has {cards} cards, and its label says {said}", node.meta.name)
        })
    })
}

/// Checks the devices of a binding against the State before it and after it.
///
/// # Errors
/// When the pod must not have them.
pub fn binding(before: &State, after: &State, binding: &Binding) -> Verdict {
    let violation = |text: String| {
        let text = format!("pod {} is bound to node {}: {text}", binding.pod, binding.node);
        Err(Violation::new("devices", text))
    };
    let (Some(pod), Some(node)) = (before.pods().get(binding.pod), before.nodes().get(binding.node)) else {
        return violation("pod or node is not there".to_owned());
    };
    let asked = |resource: &str| -> u64 {
        let containers = pod.spec.containers.iter().flat_map(|one| one.extended_resources());
        containers.filter(|(name, _)| name.as_str() == resource).map(|(_, amount)| amount).sum()
    };
    let parts = asked("nvidia.com/mig-3g.20gb") + asked("nvidia.com/mig-1g.5gb");
    let units = u64::from(asked("aliyun.com/gpu-mem") > 0);
    let cards = asked("nvidia.com/gpu") + asked("nvidia.com/vgpu") + parts + units;
    let wanted = cards + asked(FUNCTIONS);
    if wanted != binding.devices.len() as u64 || asked("example.com/none") > 0 {
        return violation(format!("it asks for {wanted} cards and gets {:?}", binding.devices));
    }
    if wanted == 0 {
        return Ok(());
    }
    if let Some(given) = avoided(before, pod, binding) {
        return violation(format!("{given} is one that it does not take"));
    }
    if node.status.facts.labels.get(LABEL_DEVICES).is_none() {
        return violation("its agent attaches no devices".to_owned());
    }
    let slice = before.resource_slices().iter().find(|slice| slice.node == binding.node);
    for given in &binding.devices {
        let device = slice.and_then(|slice| slice.device(&given.device));
        let is_well = device.is_some_and(|device| device.health == DeviceHealth::Healthy);
        let is_cordoned = slice.is_some_and(|slice| slice.is_cordoned(&given.device));
        let is_fenced = slice.is_some_and(|slice| slice.fence(&given.device).is_some());
        // Nothing is given away while the cards are not in the mode that they shall be in, nor what it does not offer.
        let observed = slice.and_then(|slice| slice.gpu_mode());
        let of_card = given.resource != FUNCTIONS;
        let in_mode = node.spec.gpu.get().filter(|_| of_card).is_none_or(|gpu| {
            let is_meant = match gpu.mode.as_str() {
                // Cards that have no such layout stay whole.
                "whole" | "unknown" => given.share.is_none(),
                "shared" => given.share.is_some(),
                _ => given.device.contains('/'),
            };
            observed == Some(&gpu.mode) && is_meant
        });
        if !is_well || is_cordoned || is_fenced || !in_mode {
            return violation(format!("{} is not to be given away", given.device));
        }
    }
    let on_node = after.pods_on(binding.node).filter(|pod| !pod.status.phase.is_terminal());
    let all: Vec<_> = on_node
        .flat_map(|pod| pod.devices().iter().map(|one| (pod.meta.id, one.device.clone(), one.share)))
        .collect();
    let card_bytes = slice.and_then(|slice| slice.devices.first()).map_or(0, |one| one.capacity.memory_bytes);
    held(&all, card_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_with_two_holders_are_noticed() {
        let one = |pod, device: &str, share: Option<(u64, u64)>| {
            let share = share.map(|(memory_bytes, cores)| DeviceShare { memory_bytes, cores });
            (ObjectId(pod), SmolStr::new(device), share)
        };
        let check = |all: &[_], is_good: bool| assert_eq!(held(all, 10).is_ok(), is_good, "{all:?}");
        check(&[one(1, "a", None), one(1, "b", None), one(2, "c", None)], true);
        check(&[one(1, "a", None), one(2, "a", None)], false);
        check(&[one(1, "a", Some((5, 0))), one(2, "a", Some((5, 50)))], true);
        check(&[one(1, "a", Some((5, 0))), one(2, "a", Some((6, 50)))], false);
        check(&[one(1, "a", Some((5, 100))), one(2, "a", Some((1, 0)))], false);
        check(&[one(1, "a", None), one(2, "a", Some((1, 0)))], false);
        check(&[one(1, "a/x@0", None), one(2, "a/x@4", None)], true);
        check(&[one(1, "a/x@0", None), one(2, "a", None)], false);
        check(&[one(1, "a/x@0", None), one(1, "a", None)], false);
    }
}
