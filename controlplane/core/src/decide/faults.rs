//! Faults of devices: what follows from each is said by its class. Whoever does not have the device is never touched.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_types::{
    DeviceFault, EventKind, FaultAction, HandledFault, ObjectId, REASON_DEVICE_FAULT, ResourceSlice,
};
use smol_str::SmolStr;

use super::Emit;
use crate::State;
use crate::devices::card_of;

/// What follows from each of an agent's faults, in their order.
pub(super) fn handle(state: &State, slice: &ResourceSlice, faults: &[DeviceFault], emit: &mut Emit<'_>) {
    // Each pod ends once, with the shortest grace: `None` is its own.
    let mut ends = BTreeMap::<ObjectId, Option<u64>>::new();
    for fault in faults {
        let action = action(state, slice, fault);
        let grace_ms = if action == FaultAction::Drain { None } else { Some(0) };
        for pod in ended(state, slice, fault, action) {
            let present = ends.entry(pod).or_insert(grace_ms);
            *present = present.or(grace_ms);
        }
        let handled = HandledFault { fault: fault.clone(), action };
        emit.push(EventKind::DeviceFaulted { id: slice.meta.id, handled });
    }
    for (pod, grace_ms) in ends {
        if let Some(pod) = state.pods.get(pod) {
            super::pods::delete_one(state, pod, grace_ms, false, REASON_DEVICE_FAULT, emit);
        }
    }
}

/// What the class of a fault's device says of it. One of a device that nobody knows is told, nothing else.
pub(super) fn action(state: &State, slice: &ResourceSlice, fault: &DeviceFault) -> FaultAction {
    let spec = slice.device(&fault.device).and_then(|device| {
        let card = card_of(slice, device);
        state.devices.classes.spec_of(card)
    });
    spec.and_then(|spec| spec.faults.get()).map_or(FaultAction::Warn, |faults| faults.action(fault.code))
}

/// The pods that end by a fault.
fn ended(
    state: &State,
    slice: &ResourceSlice,
    fault: &DeviceFault,
    action: FaultAction,
) -> BTreeSet<ObjectId> {
    let on_card = holders(state, slice, &fault.device);
    match action {
        FaultAction::Warn | FaultAction::Fence => BTreeSet::new(),
        FaultAction::KillAll | FaultAction::Drain => on_card,
        // Whose work it was is said by the driver, or known where the card has one pod only. Nobody ends on a guess.
        FaultAction::KillPod => match fault.pod {
            Some(pod) => on_card.into_iter().filter(|one| *one == pod).collect(),
            None if on_card.len() == 1 => on_card,
            None => BTreeSet::new(),
        },
    }
}

/// Who holds the card of a device, or a partition of it.
fn holders(state: &State, slice: &ResourceSlice, device: &SmolStr) -> BTreeSet<ObjectId> {
    let Some((device, ledger)) = slice.device(device).zip(state.node_devices(slice.node)) else {
        return BTreeSet::new();
    };
    let card = &card_of(slice, device).id;
    let is_of_card = |id: &SmolStr| slice.device(id).is_some_and(|one| card_of(slice, one).id == *card);
    let held = ledger.iter().filter(|(id, used)| !used.holders.is_empty() && is_of_card(id));
    held.flat_map(|(_, used)| &used.holders).map(|(pod, _)| *pod).collect()
}
