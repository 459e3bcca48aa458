//! Looks at the machine's devices again and again, brings NICs where they shall be, and tells the core what there is.

use std::collections::BTreeMap;
use std::time::Duration;

use bulkhead_nodeagent_core::Input;
use bulkhead_nodeagent_core::hardware::{Bdf, Inventory, InventoryChange};
use bulkhead_nodeagent_core::passthrough::{NicReport, NicWork, Progress};
use bulkhead_types::SriovInterface;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::passthrough::Passthrough;

/// How often the machine is looked at: a device that is gone is noticed within this time.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The same while functions of a NIC were asked for and are not there yet. Drivers say when they made the last of them by
/// nothing but its being there.
const LOOK_SOON: Duration = Duration::from_millis(100);
/// After a NIC could not be brought where it should be it is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Runs until nobody takes what it tells. Every look is told: the core knows what is new of it, and pods' tasks tell of devices too.
pub(crate) async fn watch(
    passthrough: Passthrough,
    mut wanted: watch::Receiver<Vec<SriovInterface>>,
    inputs: mpsc::Sender<Input>,
) {
    let mut nics = Nics::default();
    let mut known: Option<Inventory> = None;
    loop {
        let now_wanted = wanted.borrow_and_update().clone();
        nics.apply(&passthrough, &now_wanted).await;
        let (found, devices) = passthrough.look(Some(nics.reports())).await;
        let changes = known.as_ref().map(|known| found.changes_since(known)).unwrap_or_default();
        changes.iter().for_each(tell);
        if inputs.send(Input::Devices(devices)).await.is_err() {
            return;
        }
        known = Some(found);
        let pause = if nics.is_waiting() { LOOK_SOON } else { LOOK_EVERY };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // Who says what is wanted has gone: so has who is told.
            changed = wanted.changed() => if changed.is_err() { return },
        }
    }
}

fn tell(change: &InventoryChange) {
    match change {
        InventoryChange::Added(function) => tracing::info!(address = %function.address, "a device came"),
        InventoryChange::Changed(function) => tracing::info!(address = %function.address, "a device changed"),
        InventoryChange::Removed(address) => tracing::warn!(%address, "a device is gone"),
    }
}

/// The work on one NIC.
#[derive(Debug)]
struct Nic {
    wanted: SriovInterface,
    work: NicWork,
    progress: Progress,
    /// Not before this: the last attempt failed.
    not_before: Option<Instant>,
}

/// The NICs that shall be something.
#[derive(Debug, Default)]
struct Nics(BTreeMap<Bdf, Nic>);

impl Nics {
    /// Does what can be done now.
    async fn apply(&mut self, passthrough: &Passthrough, wanted: &[SriovInterface]) {
        let addresses = wanted.iter().filter_map(|one| Some((one.pci_address.parse::<Bdf>().ok()?, one)));
        let wanted: BTreeMap<Bdf, &SriovInterface> = addresses.collect();
        self.0.retain(|address, nic| wanted.get(address).is_some_and(|wanted| **wanted == nic.wanted));
        for (address, wanted) in wanted {
            let present = self.0.remove(&address);
            if let Some(nic) = present.as_ref()
                && nic.not_before.is_some_and(|at| Instant::now() < at)
            {
                self.0.extend(present.map(|nic| (address, nic)));
                continue;
            }
            let (before, work) = present.map_or((None, None), |nic| (Some(nic.progress), Some(nic.work)));
            let (work, progress) =
                passthrough.advance(work.unwrap_or_else(|| NicWork::new(wanted.clone()))).await;
            if before.as_ref() != Some(&progress) {
                say(address, wanted, &progress);
            }
            let failed = matches!(progress, Progress::Failed { .. });
            let not_before = failed.then(|| Instant::now() + AGAIN_AFTER);
            let work = if progress == Progress::Waiting { work } else { NicWork::new(wanted.clone()) };
            self.0.insert(address, Nic { wanted: wanted.clone(), work, progress, not_before });
        }
    }

    fn is_waiting(&self) -> bool {
        self.0.values().any(|nic| nic.progress == Progress::Waiting)
    }

    fn reports(&self) -> BTreeMap<Bdf, NicReport> {
        self.0.iter().map(|(address, nic)| (*address, NicReport::from(&nic.progress))).collect()
    }
}

fn say(address: Bdf, wanted: &SriovInterface, progress: &Progress) {
    let num_vfs = wanted.num_vfs;
    match progress {
        Progress::Settled => tracing::info!(%address, num_vfs, "the NIC is as it shall be"),
        Progress::Waiting => tracing::debug!(%address, num_vfs, "the NIC's functions are awaited"),
        Progress::Blocked(pods) => {
            tracing::info!(%address, num_vfs, ?pods, "the NIC waits for pods that have its functions")
        }
        Progress::Failed { step, reason } => {
            tracing::error!(%address, num_vfs, step, reason, "the NIC cannot be as it shall be")
        }
    }
}
