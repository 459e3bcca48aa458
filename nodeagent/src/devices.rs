//! Looks at the machine's devices again and again, brings NICs where they shall be, and tells the core what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

use bulkhead_nodeagent_core::Input;
use bulkhead_nodeagent_core::hardware::{Bdf, Burst, Inventory, InventoryChange};
use bulkhead_nodeagent_core::passthrough::{NicReport, NicWork, Progress};
use bulkhead_types::SriovInterface;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::NvmlLibrary;
use crate::clock;
use crate::kernel_watch::{KernelLog, Uevents};
use crate::nics_kept::NicsKept;
use crate::passthrough::Passthrough;

/// How often the machine is looked at where the kernel does not tell when something comes or goes: a device that is gone is
/// noticed within this time.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The same where it does: what neither a uevent nor a card's library tells (links, a quarantine that somebody ended) is noticed within
/// this time.
const LOOK_SELDOM: Duration = Duration::from_secs(30);
/// The same while something seems wrong that is to be seen twice.
const LOOK_TWICE: Duration = Duration::from_secs(2);
/// The same while functions of a NIC were asked for and are not there yet. Drivers say when they made the last of them by
/// nothing but its being there.
const LOOK_SOON: Duration = Duration::from_millis(100);
/// How long the first look waits for what a driver's library says of its cards.
const FIRST_READ: Duration = Duration::from_secs(30);
/// How long functions that are made of what was kept may be awaited before the first look: a NIC that takes longer has lost them to the
/// pods that had them.
const FIRST_FUNCTIONS: Duration = Duration::from_secs(60);
/// After a NIC could not be brought where it should be it is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// What a server says of the node's NICs; nothing yet.
pub(crate) type NicsWanted = Option<Vec<SriovInterface>>;

/// Runs until nobody takes what it tells. Every look is told: the core knows what is new of it, and pods' tasks tell of devices too.
pub(crate) async fn watch(
    passthrough: Passthrough,
    mut wanted: watch::Receiver<NicsWanted>,
    mut kept: NicsKept,
    inputs: mpsc::Sender<Input>,
) {
    let mut nics = Nics::default();
    let mut known: Option<Inventory> = None;
    let mut news = News::open(&passthrough);
    let cards = passthrough.cards.clone();
    let _ = tokio::task::spawn_blocking(move || cards.wait_until_read(FIRST_READ)).await;
    nics.apply_kept(&passthrough, kept.wanted()).await;
    loop {
        let said = wanted.borrow_and_update().clone();
        let now_wanted = match said {
            Some(said) => {
                kept.keep(&said);
                kept.with_given_up(&said, &nics.emptied())
            }
            None => kept.wanted().to_vec(),
        };
        nics.apply(&passthrough, &now_wanted).await;
        let (found, devices) = passthrough.look(Some(nics.reports())).await;
        let changes = known.as_ref().map(|known| found.changes_since(known)).unwrap_or_default();
        changes.iter().for_each(tell);
        if changes.iter().any(has_driver_of_cards) {
            passthrough.cards.outdate();
        }
        let usage = Input::DeviceUsage(passthrough.card_usage());
        if inputs.send(Input::Devices(devices)).await.is_err() || inputs.send(usage).await.is_err() {
            return;
        }
        known = Some(found);
        let pause = match (nics.is_waiting(), passthrough.is_in_doubt().await) {
            (true, _) => LOOK_SOON,
            (false, true) => LOOK_TWICE,
            (false, false) if news.uevents.is_some() => LOOK_SELDOM,
            (false, false) => LOOK_EVERY,
        };
        if news.wait(&passthrough, &inputs, &mut wanted, pause).await.is_break() {
            return;
        }
    }
}

/// A card of NVIDIA came to its driver or is new: its library knows what was there when it was opened.
fn has_driver_of_cards(change: &InventoryChange) -> bool {
    let (InventoryChange::Added(function) | InventoryChange::Changed(function)) = change else {
        return false;
    };
    function.driver.as_deref() == Some("nvidia")
}

fn tell(change: &InventoryChange) {
    match change {
        InventoryChange::Added(function) => tracing::info!(address = %function.address, "a device came"),
        InventoryChange::Changed(function) => tracing::info!(address = %function.address, "a device changed"),
        InventoryChange::Removed(address) => tracing::warn!(%address, "a device is gone"),
    }
}

/// What the kernel and a driver's library tell while it happens.
struct News {
    uevents: Option<Uevents>,
    log: Option<KernelLog>,
    /// Of the library, where the log cannot be read: what it tells stands there as well.
    faults: mpsc::Receiver<(Bdf, u32)>,
}

impl News {
    /// Opens what can be opened; what cannot is said once, and the machine is looked at more often instead.
    fn open(passthrough: &Passthrough) -> Self {
        let uevents = Uevents::open().inspect_err(|error| {
            tracing::info!(%error, "the kernel's uevents cannot be listened to; devices are looked at every 10 s");
        });
        let log = KernelLog::open().inspect_err(|error| {
            tracing::info!(%error, "the kernel's log cannot be read; faults are known of NVML's cards only");
        });
        let (tell, faults) = mpsc::channel(FAULTS_MAX);
        let is_logged = log.is_ok();
        let started = passthrough.cards.start(NvmlLibrary, move |fault| {
            if !is_logged {
                // More than fit are a storm, of which the first say what it is.
                let _ = tell.try_send(fault);
            }
        });
        if let Err(error) = started {
            tracing::warn!(%error, "no thread for NVML: cards are known by sysfs alone");
        }
        Self { uevents: uevents.ok(), log: log.ok(), faults }
    }

    /// Tells faults until the machine is to be looked at: when something came or went, NICs shall be others, or after a while. Ends
    /// when who says what is wanted has gone: so has who is told.
    async fn wait(
        &mut self,
        passthrough: &Passthrough,
        inputs: &mpsc::Sender<Input>,
        wanted: &mut watch::Receiver<NicsWanted>,
        pause: Duration,
    ) -> ControlFlow<()> {
        let latest = Instant::now() + pause;
        let mut burst = Burst::default();
        loop {
            let due = burst.due_ms().map(|due| Duration::from_millis(due.saturating_sub(clock::boot_ms())));
            let until = due.map_or(latest, |due| latest.min(Instant::now() + due));
            // What was taken is told before anything else can end this.
            let fault = tokio::select! {
                () = tokio::time::sleep_until(until) => return ControlFlow::Continue(()),
                changed = wanted.changed() => {
                    return if changed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
                }
                changed = or_never(self.uevents.as_ref().map(Uevents::devices_changed)) => {
                    if let Err(error) = changed {
                        tracing::warn!(%error, "no more uevents");
                        self.uevents = None;
                    }
                    burst.note(clock::boot_ms());
                    continue;
                }
                () = passthrough.cards.health_changed() => {
                    burst.note(clock::boot_ms());
                    continue;
                }
                record = or_never(self.log.as_ref().map(KernelLog::next)) => match record {
                    Ok(record) if record.event.is_none() => continue,
                    Ok(record) => {
                        burst.note(clock::boot_ms());
                        passthrough.note_record(record).await
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the kernel's log is read no more");
                        self.log = None;
                        continue;
                    }
                },
                Some(fault) = self.faults.recv() => passthrough.note_fault(fault).await,
            };
            if let Some(fault) = fault {
                tracing::warn!(device = %fault.device, code = fault.code, "a device had a fault");
                if inputs.send(Input::DeviceFault(fault)).await.is_err() {
                    return ControlFlow::Break(());
                }
            }
        }
    }
}

/// Waits for ever where there is nothing to wait for.
async fn or_never<T>(future: Option<impl Future<Output = T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// Most faults of a library that wait to be told.
const FAULTS_MAX: usize = 64;

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

    /// Brings NICs where they were to be, while nobody has been told of any device.
    async fn apply_kept(&mut self, passthrough: &Passthrough, kept: &[SriovInterface]) {
        let latest = Instant::now() + FIRST_FUNCTIONS;
        self.apply(passthrough, kept).await;
        while self.is_waiting() && Instant::now() < latest {
            tokio::time::sleep(LOOK_SOON).await;
            self.apply(passthrough, kept).await;
        }
    }

    /// Those that shall have no functions, and have none.
    fn emptied(&self) -> BTreeSet<Bdf> {
        let is_empty = |nic: &Nic| nic.wanted.num_vfs == 0 && nic.progress == Progress::Settled;
        self.0.iter().filter(|(_, nic)| is_empty(nic)).map(|(address, _)| *address).collect()
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
        Progress::Blocked { pods, foreign } if foreign.is_empty() => {
            tracing::info!(%address, num_vfs, ?pods, "the NIC waits for pods that have its functions")
        }
        Progress::Blocked { pods, foreign } => {
            let users: Vec<String> = foreign.iter().map(|(vf, owner)| format!("{vf}: {owner}")).collect();
            let users = users.join("; ");
            tracing::warn!(%address, num_vfs, ?pods, users, "the NIC waits for who uses its functions on this host")
        }
        Progress::Failed { step, reason } => {
            tracing::error!(%address, num_vfs, step, reason, "the NIC cannot be as it shall be")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bulkhead_nodeagent_core::hardware::{Tree, TreeError};
    use bulkhead_nodeagent_core::passthrough::{KernelModel, Machine};
    use bulkhead_nodeagent_core::vf_settings::{VfLinkError, VfLinks, VfSetting, VfSettings};

    use super::*;

    const NIC: &str = "0000:86:00.0";

    /// A kernel in memory for which time passes whenever somebody looks how many functions there are.
    struct Slow(Mutex<KernelModel>);

    impl Slow {
        fn kernel(&self) -> std::sync::MutexGuard<'_, KernelModel> {
            self.0.lock().expect("no panic")
        }
    }

    impl Tree for Slow {
        fn read(&self, path: &str) -> Result<Vec<u8>, TreeError> {
            if path.ends_with("/sriov_numvfs") {
                self.kernel().pass_time();
            }
            self.kernel().read(path)
        }

        fn list(&self, path: &str) -> Result<Vec<String>, TreeError> {
            self.kernel().list(path)
        }

        fn link(&self, path: &str) -> Result<String, TreeError> {
            self.kernel().link(path)
        }
    }

    impl VfLinks for Slow {
        fn vf(&self, interface_index: u32, vf: u32) -> Result<VfSettings, VfLinkError> {
            self.kernel().vf(interface_index, vf)
        }

        fn set_vf(&mut self, interface_index: u32, vf: u32, setting: &VfSetting) -> Result<(), VfLinkError> {
            self.kernel().set_vf(interface_index, vf, setting)
        }
    }

    impl Machine for Slow {
        fn write(&mut self, path: &str, text: &str) -> Result<(), TreeError> {
            self.kernel().write(path, text)
        }

        fn try_group(&mut self, group: u32) -> Result<(), TreeError> {
            self.kernel().try_group(group)
        }

        fn vfio_files(&self) -> Result<BTreeMap<String, u32>, TreeError> {
            self.kernel().vfio_files()
        }

        fn hot_reset(&mut self, address: Bdf, groups: &BTreeSet<u32>) -> Result<(), TreeError> {
            self.kernel().hot_reset(address, groups)
        }
    }

    /// Drivers take their time with functions. One that is missing in the first word about devices is lost to the pod that had it before the
    /// machine booted.
    #[tokio::test]
    async fn the_first_word_about_devices_waits_for_the_functions_that_were_kept() {
        let data = tempfile::tempdir().expect("a folder");
        let mut kernel = KernelModel::new(&["mlx5_core"]);
        let nic = [("sriov_totalvfs", "8\n"), ("sriov_numvfs", "0\n"), ("sriov_drivers_autoprobe", "1\n")];
        kernel.function(NIC, "15b3:101b", "020000", Some(45), Some("mlx5_core"), &nic);
        // More often than one look looks.
        kernel.slow_functions(5);
        let slow = Slow(Mutex::new(kernel));
        let passthrough = Passthrough::open(data.path(), slow, "boot", &[]).expect("readable notes");
        let wanted = SriovInterface {
            pci_address: NIC.into(),
            name: "eth7".into(),
            num_vfs: 2,
            mtu: None,
            link_type: None,
            vf_groups: Vec::new(),
        };
        NicsKept::open(data.path()).keep(&[wanted]);
        let (_said, wanted) = watch::channel(None);
        let (inputs, mut told) = mpsc::channel(16);
        let watching = tokio::spawn(watch(passthrough, wanted, NicsKept::open(data.path()), inputs));
        let first = told.recv().await;
        watching.abort();
        let Some(Input::Devices(devices)) = first else { panic!("{first:?}") };
        let addresses: Vec<_> = devices.iter().map(|device| device.address.as_str()).collect();
        assert_eq!(addresses, [NIC, "0000:86:00.1", "0000:86:00.2"]);
    }
}
