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
//!
//! Nobody waits for ever. While the kernel does not come back from a step (`running.rs`), what is asked for is refused with that step; what
//! was begun goes on, and whoever asks again finds what became of it. What is known of cards has a lock of its own.

mod known;
mod notes;
mod running;
mod stepped;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bulkhead_nodeagent_core::hardware::{Bdf, Inventory, KernelRecord, PciId, discover, report_nics};
use bulkhead_nodeagent_core::passthrough::{
    self as core, Known, Machine, NicReport, NicWork, Notebook as _, Progress, Request, addresses,
    foreign_owners,
};
use bulkhead_nodeagent_core::qemu::HostDevice;
use bulkhead_types::{Device, DeviceFault, DeviceIntent, DeviceUsage, NetworkAttachment, ObjectId};
use smol_str::SmolStr;
use tokio::sync::{OwnedMutexGuard, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::task::AbortOnDropHandle;

use crate::accelerators::CardWatch;
use crate::clock;
use known::KnownFile;
use notes::Notes;
pub(crate) use running::RunningStep;
use running::{Running, STEP_WITHIN};
use stepped::Stepped;

/// The step of a NIC that cannot be worked on, as the kernel does not come back from a step of device work.
const STALLED: &str = "Stalled";

/// See the module.
#[derive(Clone)]
pub(crate) struct Passthrough {
    inner: Arc<tokio::sync::Mutex<Inner>>,
    /// Who has what, for who must not wait for the machine only to find that out.
    holders: Arc<Mutex<Holders>>,
    /// Which card is where, and whether it works.
    known: Arc<Mutex<KnownFile>>,
    /// What was seen at the last look, if there was one.
    looked: Arc<Mutex<Option<Looked>>>,
    /// The step that the machine does.
    running: Running,
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
}

/// Who has functions.
#[derive(Debug, Default)]
struct Holders {
    bound: BTreeMap<Bdf, ObjectId>,
    /// The pod for which functions are being bound.
    attaching: Option<ObjectId>,
    /// Pods whose release went on after who asked for it had to be refused.
    unfinished: BTreeSet<ObjectId>,
}

impl Holders {
    fn has(&self, pod: ObjectId) -> bool {
        self.attaching == Some(pod) || self.bound.values().any(|holder| *holder == pod)
    }

    fn follow(&mut self, notes: &Notes) {
        self.bound = notes.bindings().iter().map(|(at, binding)| (*at, binding.pod)).collect();
        self.attaching = None;
    }
}

/// What a look found.
#[derive(Clone, Debug)]
struct Looked {
    found: Inventory,
    devices: Vec<Device>,
    /// What the cards did.
    usage: Vec<DeviceUsage>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
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
        Self::open_within(data, machine, boot_id, take_from, STEP_WITHIN)
    }

    /// The same, with a bound of its own for each step.
    fn open_within(
        data: &Path,
        machine: impl Machine + Send + 'static,
        boot_id: &str,
        take_from: &[String],
        within: Duration,
    ) -> io::Result<Self> {
        let running = Running::new(within);
        let machine = Stepped::new(machine, running.clone());
        let inner = Inner { machine, notes: Notes::open(data)?, nics: BTreeMap::new() };
        let mut holders = Holders::default();
        holders.follow(&inner.notes);
        Ok(Self {
            inner: Arc::new(tokio::sync::Mutex::new(inner)),
            holders: Arc::new(Mutex::new(holders)),
            known: Arc::new(Mutex::new(KnownFile::open(data, boot_id)?)),
            looked: Arc::default(),
            running,
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

    /// Does something with the machine and the notes, alone, where it holds nobody up. Tells the step that is late instead, as soon as there
    /// is one: what was not begun then is not done, and what was goes on.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self, &mut Inner) -> T + Send + 'static,
    ) -> Result<T, RunningStep> {
        let inner = tokio::select! {
            biased;
            inner = Arc::clone(&self.inner).lock_owned() => inner,
            late = self.running.late() => return Err(late),
        };
        let done = self.begin(inner, work);
        tokio::select! {
            biased;
            done = done => Ok(outcome(done)),
            late = self.running.late() => Err(late),
        }
    }

    fn begin<T: Send + 'static>(
        &self,
        mut inner: OwnedMutexGuard<Inner>,
        work: impl FnOnce(&Self, &mut Inner) -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let this = self.clone();
        tokio::task::spawn_blocking(move || {
            let done = work(&this, &mut inner);
            lock(&this.holders).follow(&inner.notes);
            done
        })
    }

    /// Does something with what is known of cards, which is a file, where it holds nobody up.
    async fn with_known<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self, &mut KnownFile) -> T + Send + 'static,
    ) -> T {
        let this = self.clone();
        outcome(tokio::task::spawn_blocking(move || work(&this, &mut lock(&this.known))).await)
    }

    /// Takes over which functions were reset.
    fn know_resets(&self, inner: &mut Inner) {
        for (address, method) in inner.notes.take_resets() {
            lock(&self.known).note_reset(address, &method);
        }
    }

    /// Tells every step from which the kernel does not come back, for as long as that is so, until the handle is dropped.
    pub(crate) fn watch_steps(&self) -> AbortOnDropHandle<()> {
        let running = self.running.clone();
        AbortOnDropHandle::new(tokio::spawn(async move { running.watch().await }))
    }

    /// The step that [`Self::watch_steps`] tells.
    pub(crate) fn late_step(&self) -> watch::Receiver<Option<RunningStep>> {
        self.running.told()
    }

    /// What the agent's last life left: see [`core::recover`].
    pub(crate) async fn recover(&self, known: BTreeSet<ObjectId>) -> Result<Vec<Bdf>, String> {
        self.with(move |this, inner| {
            let machine: &mut dyn Machine = &mut inner.machine;
            let recovered =
                core::recover(machine, &mut inner.notes, &this.boot_id, &|pod| known.contains(&pod));
            this.know_resets(inner);
            recovered
        })
        .await
        .unwrap_or_else(|late| Err(late.to_string()))
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
    /// [`core::attach`]. Tells those that the guest gets, in the order of their addresses. May be asked for again whatever became of it.
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
            // From now on a release finds it, whoever still waits for it.
            lock(&this.holders).attaching = Some(pod);
            lock(&this.known).check(&ids)?;
            let _unused = this.cards.pause();
            let (boot_id, take_from) = (this.boot_id.clone(), &*this.take_from);
            let request = Request { pod, boot_id, take_from, networks: &networks };
            let machine: &mut dyn Machine = &mut inner.machine;
            core::attach(machine, &mut inner.notes, &request, &wanted).map_err(|error| error.to_string())?;
            let found = discover(machine);
            Ok(wanted.iter().filter_map(|at| found.functions.get(at)).map(HostDevice::from).collect())
        })
        .await
        .unwrap_or_else(|late| Err(late.to_string()))
    }

    /// Gives back what a pod has; its guest must be gone. Tells what is in quarantine now.
    pub(crate) async fn release(&self, pod: ObjectId) -> Result<Vec<Bdf>, String> {
        let was_begun = {
            let mut holders = lock(&self.holders);
            let was_begun = holders.unfinished.remove(&pod);
            if !was_begun && !holders.has(pod) {
                return Ok(Vec::new());
            }
            was_begun
        };
        let released = self.with(move |this, inner| {
            let _unused = this.cards.pause();
            let released = core::release(&mut inner.machine, &mut inner.notes, pod);
            this.know_resets(inner);
            // What an earlier call found was told to nobody.
            match was_begun {
                true => released.map(|_| inner.notes.quarantined().keys().copied().collect()),
                false => released,
            }
        });
        released.await.unwrap_or_else(|late| {
            lock(&self.holders).unfinished.insert(pod);
            Err(late.to_string())
        })
    }

    /// The ids of devices that were reset since this was asked last.
    pub(crate) async fn take_resets(&self) -> Vec<SmolStr> {
        self.with_known(|_, known| known.take_resets()).await
    }

    /// Takes a record of the kernel's log; a fault that is to be told.
    pub(crate) async fn note_record(&self, record: KernelRecord) -> Option<DeviceFault> {
        self.with_known(move |this, known| Some(this.fault_of(known.note_record(record)?, known))).await
    }

    /// Takes a fault of which a driver's library told; the same if it is to be told.
    pub(crate) async fn note_fault(&self, (card, code): (Bdf, u32)) -> Option<DeviceFault> {
        self.with_known(move |this, known| Some(this.fault_of(known.note_fault(card, code)?, known))).await
    }

    /// A fault as the control plane is told it. Of a card that a guest has it is the pod's.
    fn fault_of(&self, (card, code): (Bdf, u32), known: &KnownFile) -> DeviceFault {
        let pod = lock(&self.holders).bound.get(&card).copied();
        DeviceFault { device: known.id_at(card), code, at_ms: clock::unix_ms(), pod }
    }

    /// Whether something seems wrong that only the next look can confirm.
    pub(crate) async fn is_in_doubt(&self) -> bool {
        self.with_known(|_, known| known.is_in_doubt()).await
    }

    /// What the machine has now; as it was at the last look while a step is late.
    pub(crate) async fn inventory(&self) -> Inventory {
        loop {
            let late = match self.with(|_, inner| discover(&inner.machine)).await {
                Ok(found) => return found,
                Err(late) => late,
            };
            let last = lock(&self.looked).as_ref().map(|looked| looked.found.clone());
            match last {
                Some(found) => return found,
                None => self.running.returned(&late).await,
            }
        }
    }

    /// What the machine has now, and what the control plane is told of it; `nics` is what became of those, unless that is known. While a
    /// step is late: what it had at the last look, with what became of the NICs; the first look waits, as nothing may be said to be gone that
    /// was not looked for.
    pub(crate) async fn look(&self, nics: Option<BTreeMap<Bdf, NicReport>>) -> (Inventory, Vec<Device>) {
        loop {
            let reports = nics.clone();
            let looked = self.with(move |this, inner| {
                if let Some(nics) = reports {
                    inner.nics = nics;
                }
                let looked = this.look_at(inner);
                *lock(&this.looked) = Some(looked.clone());
                looked
            });
            let late = match looked.await {
                Ok(Looked { found, devices, .. }) => return (found, devices),
                Err(late) => late,
            };
            let last = lock(&self.looked).clone();
            match last {
                Some(Looked { found, mut devices, .. }) => {
                    nics.iter().for_each(|nics| report_nics(&mut devices, nics));
                    return (found, devices);
                }
                None => self.running.returned(&late).await,
            }
        }
    }

    fn look_at(&self, inner: &mut Inner) -> Looked {
        if let Err(error) = inner.notes.read_quarantine() {
            tracing::warn!(%error, "what is in quarantine cannot be read; it stays as it was");
        }
        let found = discover(&inner.machine);
        let foreign = foreign_owners(&mut inner.machine, &found, inner.notes.bindings());
        let readings = self.cards.readings();
        let mut cards = lock(&self.known);
        for one in cards.look(&found, readings.as_deref()) {
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
            take_from: &self.take_from,
            foreign: &foreign,
        };
        let mut devices = found.devices_as(known, &inner.nics, &self.sriov_devices);
        cards.take_over(&mut devices);
        let usage = cards.usage(&devices, self.cards.aged_readings(), inner.notes.bindings());
        Looked { found, devices, usage }
    }

    /// What the cards did at the last look.
    pub(crate) fn card_usage(&self) -> Vec<DeviceUsage> {
        lock(&self.looked).as_ref().map(|looked| looked.usage.clone()).unwrap_or_default()
    }

    /// Does what can be done now for a NIC.
    pub(crate) async fn advance(&self, work: NicWork) -> (NicWork, Progress) {
        let mut doing = work.clone();
        let done = self.with(move |_, inner| {
            let progress = doing.advance(&mut inner.machine, inner.notes.bindings(), clock::boot_ms());
            (doing, progress)
        });
        done.await.unwrap_or_else(|late| (work, Progress::Failed { step: STALLED, reason: late.to_string() }))
    }
}

/// What work that nobody ends came to.
fn outcome<T>(done: Result<T, JoinError>) -> T {
    done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

#[cfg(test)]
pub(crate) mod tests;
