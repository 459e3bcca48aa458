//! Looks at the machine's devices again and again, and tells the core what there is.

use std::time::Duration;

use bulkhead_nodeagent_core::Input;
use bulkhead_nodeagent_core::hardware::{Inventory, InventoryChange, discover};
use tokio::sync::mpsc;

use crate::MachineTree;

/// How often the machine is looked at: a device that is gone is noticed within this time.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Runs until nobody takes what it tells. The first look is told whatever it finds; later ones when something differs.
pub(crate) async fn watch(inputs: mpsc::Sender<Input>) {
    let mut known: Option<Inventory> = None;
    let mut timer = tokio::time::interval(LOOK_EVERY);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        let Ok(found) = tokio::task::spawn_blocking(|| discover(&MachineTree::new("/"))).await else {
            return;
        };
        if let Some(known) = &known {
            let changes = found.changes_since(known);
            if changes.is_empty() {
                continue;
            }
            changes.iter().for_each(tell);
        }
        if inputs.send(Input::Devices(found.devices())).await.is_err() {
            return;
        }
        known = Some(found);
    }
}

fn tell(change: &InventoryChange) {
    match change {
        InventoryChange::Added(function) => tracing::info!(address = %function.address, "a device came"),
        InventoryChange::Changed(function) => tracing::info!(address = %function.address, "a device changed"),
        InventoryChange::Removed(address) => tracing::warn!(%address, "a device is gone"),
    }
}
