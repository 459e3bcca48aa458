//! Looks at the machine's devices again and again, brings NICs where they shall be, and tells the core what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_nodeagent_core::Input;
use bulkhead_nodeagent_core::hardware::{
    Bdf, Burst, Inventory, InventoryChange, KernelMessages, KernelWatch, devices_changed, next_record,
};
use bulkhead_nodeagent_core::passthrough::{NicReport, NicWork, Progress};
use bulkhead_types::SriovInterface;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::NvmlLibrary;
use crate::clock;
use crate::kernel_watch::or_never;
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
    kernel: Arc<dyn KernelWatch>,
    mut wanted: watch::Receiver<NicsWanted>,
    mut kept: NicsKept,
    inputs: mpsc::Sender<Input>,
) {
    let mut nics = Nics::default();
    let mut known: Option<Inventory> = None;
    let mut news = News::open(&passthrough, kernel.as_ref());
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
    uevents: Option<Box<dyn KernelMessages>>,
    log: Option<Box<dyn KernelMessages>>,
    /// Of the library, where the log cannot be read: what it tells stands there as well.
    faults: mpsc::Receiver<(Bdf, u32)>,
}

impl News {
    /// Opens what can be opened; what cannot is said once, and the machine is looked at more often instead.
    fn open(passthrough: &Passthrough, kernel: &dyn KernelWatch) -> Self {
        let uevents = kernel.uevents().inspect_err(|error| {
            tracing::info!(%error, "the kernel's uevents cannot be listened to; devices are looked at every 10 s");
        });
        let log = kernel.log().inspect_err(|error| {
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
                changed = or_never(self.uevents.as_deref_mut().map(devices_changed)) => {
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
                record = or_never(self.log.as_deref_mut().map(next_record)) => match record {
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
    use std::sync::{Mutex, MutexGuard};

    use bulkhead_nodeagent_core::hardware::TreeError;
    use bulkhead_nodeagent_core::passthrough::{Before, KernelModel, Machine, Wrapped};

    use super::*;
    use crate::kernel_watch::FakeKernel;

    const NIC: &str = "0000:86:00.0";
    const CARD: &str = "0000:3b:00.0";
    /// Sooner than a look that nothing was told of.
    const TOLD_WITHIN: Duration = Duration::from_secs(20);

    /// A kernel in memory, which others change meanwhile, and for which time passes whenever somebody looks how many functions there are.
    #[derive(Clone)]
    struct Slow(Arc<Mutex<KernelModel>>);

    impl Slow {
        fn of(kernel: KernelModel) -> Self {
            Self(Arc::new(Mutex::new(kernel)))
        }

        fn kernel(&self) -> MutexGuard<'_, KernelModel> {
            self.0.lock().expect("no panic")
        }
    }

    impl Before for Slow {
        fn look<T>(&self, look: impl FnOnce(&dyn Machine) -> T) -> T {
            look(&*self.kernel())
        }

        fn act<T>(&mut self, act: impl FnOnce(&mut dyn Machine) -> T) -> T {
            act(&mut *self.kernel())
        }

        fn read(&self, path: &str) -> Result<Vec<u8>, TreeError> {
            if path.ends_with("/sriov_numvfs") {
                self.kernel().pass_time();
            }
            self.look(|kernel| kernel.read(path))
        }
    }

    /// What comes to be told, but what devices do.
    async fn next_told(told: &mut mpsc::Receiver<Input>) -> Input {
        loop {
            match tokio::time::timeout(TOLD_WITHIN, told.recv()).await.expect("soon").expect("it goes on") {
                Input::DeviceUsage(_) => {}
                input => return input,
            }
        }
    }

    fn addresses(input: &Input) -> Vec<String> {
        let Input::Devices(devices) = input else { panic!("{input:?}") };
        devices.iter().map(|device| device.address.to_string()).collect()
    }

    /// Hot-plug: the machine is looked at because the kernel says that something came, and not because it is time.
    #[tokio::test]
    async fn what_the_kernel_says_is_told_at_once() {
        let data = tempfile::tempdir().expect("a folder");
        let card = |kernel: &mut KernelModel, address: &str| {
            kernel.function(address, "10de:2335", "030200", Some(7), None, &[]);
        };
        let mut model = KernelModel::new(&["mlx5_core"]);
        card(&mut model, CARD);
        let machine = Slow::of(model);
        let behind = Wrapped(machine.clone());
        let passthrough = Passthrough::open(data.path(), behind, "boot", &[]).expect("readable notes");
        let (_said, wanted) = watch::channel(None);
        let (inputs, mut told) = mpsc::channel(16);
        let kernel = FakeKernel::default();
        let (uevents, log) = (kernel.uevents.clone(), kernel.log.clone());
        let nics = NicsKept::open(data.path());
        let watching = tokio::spawn(watch(passthrough, Arc::new(kernel), wanted, nics, inputs));
        assert_eq!(addresses(&next_told(&mut told).await), [CARD]);
        let other = "0000:3c:00.0";
        card(&mut machine.kernel(), other);
        // A tap of a pod is no device; what another process says is nobody's word.
        uevents.say(0, b"add@/devices/virtual/net/tap7\0SUBSYSTEM=net\0");
        uevents.say(4711, b"remove@/devices/pci0000:3a/0000:3b:00.0\0SUBSYSTEM=pci\0");
        uevents.say(0, b"add@/devices/pci0000:3a/0000:3c:00.0\0SUBSYSTEM=pci\0");
        assert_eq!(addresses(&next_told(&mut told).await), [CARD, other]);
        log.say(0, b"12,5,0,-;NVRM: Xid (PCI:0000:3b:00): 48, of a program");
        log.say(0, b"4,6,0,-;NVRM: Xid (PCI:0000:3b:00): 79, pid=1");
        let fault = next_told(&mut told).await;
        let Input::DeviceFault(fault) = fault else { panic!("{fault:?}") };
        assert_eq!((fault.device.as_str(), fault.code), (CARD, 79));
        // A fault is a reason to look, and the end of all messages is none to stop.
        assert_eq!(addresses(&next_told(&mut told).await), [CARD, other]);
        machine.kernel().pull_out(CARD.parse().expect("an address"));
        uevents.end();
        log.end();
        assert_eq!(addresses(&next_told(&mut told).await), [other]);
        watching.abort();
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
        let slow = Wrapped(Slow::of(kernel));
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
        let kernel = Arc::new(FakeKernel { is_silent: true, ..FakeKernel::default() });
        let watching = tokio::spawn(watch(passthrough, kernel, wanted, NicsKept::open(data.path()), inputs));
        let first = told.recv().await;
        watching.abort();
        let Some(Input::Devices(devices)) = first else { panic!("{first:?}") };
        let addresses: Vec<_> = devices.iter().map(|device| device.address.as_str()).collect();
        assert_eq!(addresses, [NIC, "0000:86:00.1", "0000:86:00.2"]);
    }
}
