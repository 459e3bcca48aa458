//! Functions of this machine on their way to guests and back, one at a time.
//!
//! ```text
//!  pod ─ attach, release ─┐                        ┌─► Machine: sysfs, /dev/vfio
//!  NICs ─ apply ──────────┼─► one lock ─► core ────┤
//!  devices ─ look ────────┘                        └─► Notes: <data>/devices/<address>.json             who has what
//!                                                             <data>/devices/quarantine/<address>.json  what goes to nobody
//! ```
//!  driver's library, kernel's log ─► known.rs: <data>/cards.json   which card is where, and whether it works
//!
//! What is to be done is decided in `bulkhead_nodeagent_core::passthrough`. A file of the quarantine that somebody removes is
//! a function that is well again.

mod known;
mod notes;
mod stepped;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bulkhead_nodeagent_core::hardware::{Bdf, Inventory, KernelRecord, PciId, discover};
use bulkhead_nodeagent_core::passthrough::{
    self as core, Known, Machine, NicReport, NicWork, Notebook as _, Progress, Request, addresses,
    foreign_owners,
};
use bulkhead_nodeagent_core::qemu::HostDevice;
use bulkhead_types::{Device, DeviceFault, DeviceIntent, DeviceUsage, NetworkAttachment, ObjectId};
use smol_str::SmolStr;

use crate::accelerators::CardWatch;
use crate::clock;
use known::KnownFile;
use notes::Notes;
use stepped::Stepped;

/// See the module.
#[derive(Clone)]
pub(crate) struct Passthrough {
    inner: Arc<Mutex<Inner>>,
    /// The pods that have functions, for who must not wait for a reset only to find that out.
    holders: Arc<Mutex<BTreeSet<ObjectId>>>,
    boot_id: SmolStr,
    take_from: Arc<[String]>,
    sriov_devices: Arc<[PciId]>,
    /// What a driver's library says of its cards.
    pub(crate) cards: CardWatch,
}

struct Inner {
    machine: Stepped,
    notes: Notes,
    /// What became of the NICs, as it was told last.
    nics: BTreeMap<Bdf, NicReport>,
    /// Which card is where, and whether it works.
    known: KnownFile,
    /// What the cards did at the last look.
    usage: Vec<DeviceUsage>,
}

impl Inner {
    /// Takes over which functions were reset.
    fn know_resets(&mut self) {
        for (address, method) in self.notes.take_resets() {
            self.known.note_reset(address, &method);
        }
    }
}

impl std::fmt::Debug for Passthrough {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Passthrough").field("boot_id", &self.boot_id).finish_non_exhaustive()
    }
}

impl Passthrough {
    /// Reads what is remembered in a data directory. Functions of the drivers `take_from` may be taken for guests.
    ///
    /// # Errors
    /// When a note cannot be read: the function that it is about may be with a guest.
    pub(crate) fn open(
        data: &Path,
        machine: impl Machine + Send + 'static,
        boot_id: &str,
        take_from: &[String],
    ) -> io::Result<Self> {
        let known = KnownFile::open(data, boot_id)?;
        let inner = Inner {
            machine: Stepped::new(machine),
            notes: Notes::open(data)?,
            nics: BTreeMap::new(),
            known,
            usage: Vec::new(),
        };
        let holders = holders(&inner.notes);
        Ok(Self {
            inner: Arc::new(Mutex::new(inner)),
            holders: Arc::new(Mutex::new(holders)),
            boot_id: SmolStr::new(boot_id),
            take_from: take_from.into(),
            sriov_devices: Arc::new([]),
            cards: CardWatch::default(),
        })
    }

    /// Functions besides network cards whose virtual functions are policies' business.
    pub(crate) fn with_sriov_devices(self, ids: &[PciId]) -> Self {
        Self { sriov_devices: ids.into(), ..self }
    }

    /// Does something with the machine and the notes, alone, where it holds nobody up.
    async fn with<T: Send + 'static>(&self, work: impl FnOnce(&Self, &mut Inner) -> T + Send + 'static) -> T {
        let this = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            let mut inner = this.inner.lock().unwrap_or_else(PoisonError::into_inner);
            let done = work(&this, &mut inner);
            *this.holders.lock().unwrap_or_else(PoisonError::into_inner) = holders(&inner.notes);
            done
        });
        match done.await {
            Ok(done) => done,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// What the agent's last life left: see [`core::recover`].
    pub(crate) async fn recover(&self, known: BTreeSet<ObjectId>) -> Result<Vec<Bdf>, String> {
        self.with(move |this, inner| {
            let machine: &mut dyn Machine = &mut inner.machine;
            let recovered =
                core::recover(machine, &mut inner.notes, &this.boot_id, &|pod| known.contains(&pod));
            inner.know_resets();
            recovered
        })
        .await
    }

    /// [`Self::attach_to`] no network.
    #[cfg(any(test, debug_assertions))]
    pub(crate) async fn attach(
        &self,
        pod: ObjectId,
        devices: &[DeviceIntent],
    ) -> Result<Vec<HostDevice>, String> {
        self.attach_to(&[], pod, devices).await
    }

    /// Binds the devices of a pod for its guest, and tells functions of NICs what the pod's networks want of them; see
    /// [`core::attach`]. Tells those that the guest gets, in the order of their addresses.
    pub(crate) async fn attach_to(
        &self,
        networks: &[NetworkAttachment],
        pod: ObjectId,
        devices: &[DeviceIntent],
    ) -> Result<Vec<HostDevice>, String> {
        let networks = core::networks(networks, devices)?;
        if devices.is_empty() {
            return Ok(Vec::new());
        }
        let wanted = addresses(devices)?;
        let ids: Vec<_> = devices.iter().map(|one| (one.device.clone(), one.address.clone())).collect();
        self.with(move |this, inner| {
            inner.known.check(&ids)?;
            let _unused = this.cards.pause();
            let (boot_id, take_from) = (this.boot_id.clone(), &*this.take_from);
            let request = Request { pod, boot_id, take_from, networks: &networks };
            let machine: &mut dyn Machine = &mut inner.machine;
            core::attach(machine, &mut inner.notes, &request, &wanted).map_err(|error| error.to_string())?;
            let found = discover(machine);
            Ok(wanted.iter().filter_map(|at| found.functions.get(at)).map(HostDevice::from).collect())
        })
        .await
    }

    /// Gives back what a pod has; its guest must be gone. Tells what is in quarantine now.
    pub(crate) async fn release(&self, pod: ObjectId) -> Result<Vec<Bdf>, String> {
        if !self.holders.lock().unwrap_or_else(PoisonError::into_inner).contains(&pod) {
            return Ok(Vec::new());
        }
        self.with(move |this, inner| {
            let _unused = this.cards.pause();
            let released = core::release(&mut inner.machine, &mut inner.notes, pod);
            inner.know_resets();
            released
        })
        .await
    }

    /// The ids of devices that were reset since this was asked last.
    pub(crate) async fn take_resets(&self) -> Vec<SmolStr> {
        self.with(|_, inner| inner.known.take_resets()).await
    }

    /// Takes a record of the kernel's log; a fault that is to be told.
    pub(crate) async fn note_record(&self, record: KernelRecord) -> Option<DeviceFault> {
        self.with(move |_, inner| {
            let fault = inner.known.note_record(record)?;
            Some(fault_of(inner, fault))
        })
        .await
    }

    /// Takes a fault of which a driver's library told; the same if it is to be told.
    pub(crate) async fn note_fault(&self, (card, code): (Bdf, u32)) -> Option<DeviceFault> {
        self.with(move |_, inner| {
            let fault = inner.known.note_fault(card, code)?;
            Some(fault_of(inner, fault))
        })
        .await
    }

    /// Whether something seems wrong that only the next look can confirm.
    pub(crate) async fn is_in_doubt(&self) -> bool {
        self.with(|_, inner| inner.known.is_in_doubt()).await
    }

    /// What the machine has now.
    pub(crate) async fn inventory(&self) -> Inventory {
        self.with(|_, inner| discover(&inner.machine)).await
    }

    /// What the machine has now, and what the control plane is told of it; `nics` is what became of those, unless that is known.
    pub(crate) async fn look(&self, nics: Option<BTreeMap<Bdf, NicReport>>) -> (Inventory, Vec<Device>) {
        self.with(move |this, inner| {
            if let Some(nics) = nics {
                inner.nics = nics;
            }
            if let Err(error) = inner.notes.read_quarantine() {
                tracing::warn!(%error, "what is in quarantine cannot be read; it stays as it was");
            }
            let found = discover(&inner.machine);
            let foreign = foreign_owners(&mut inner.machine, &found, inner.notes.bindings());
            let readings = this.cards.readings();
            for one in inner.known.look(&found, readings.as_deref()) {
                tracing::warn!(address = %one.address, before = %one.before, now = %one.now, "a card was replaced");
                // What goes with it was replaced as well, and has seldom a number of its own to be known by.
                let slot = |at: Bdf| (at.domain, at.bus, at.device());
                let kept: Vec<Bdf> = inner.notes.quarantined().keys().copied().collect();
                let of_it = kept.into_iter().filter(|at| slot(*at) == slot(one.address));
                of_it.for_each(|at| inner.notes.forget_quarantine(at));
            }
            let known = Known {
                bindings: inner.notes.bindings(),
                quarantined: inner.notes.quarantined(),
                take_from: &this.take_from,
                foreign: &foreign,
            };
            let mut devices = found.devices_as(known, &inner.nics, &this.sriov_devices);
            inner.known.take_over(&mut devices);
            inner.usage = inner.known.usage(&devices, this.cards.aged_readings(), inner.notes.bindings());
            (found, devices)
        })
        .await
    }

    /// What the cards did at the last look.
    pub(crate) async fn card_usage(&self) -> Vec<DeviceUsage> {
        self.with(|_, inner| inner.usage.clone()).await
    }

    /// Does what can be done now for a NIC.
    pub(crate) async fn advance(&self, mut work: NicWork) -> (NicWork, Progress) {
        self.with(move |_, inner| {
            let progress = work.advance(&mut inner.machine, inner.notes.bindings(), clock::boot_ms());
            (work, progress)
        })
        .await
    }
}

/// A fault as the control plane is told it. Of a card that a guest has it is the pod's.
fn fault_of(inner: &Inner, (card, code): (Bdf, u32)) -> DeviceFault {
    let pod = inner.notes.bindings().get(&card).map(|binding| binding.pod);
    DeviceFault { device: inner.known.id_at(card), code, at_ms: clock::unix_ms(), pod }
}

fn holders(notes: &Notes) -> BTreeSet<ObjectId> {
    notes.bindings().values().map(|binding| binding.pod).collect()
}

#[cfg(test)]
mod tests;
