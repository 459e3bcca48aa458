//! The hardware lab: this crate's own code for devices, on a machine with an IOMMU and real SR-IOV functions.
//!
//! `make lab` runs it in an emulated machine (`scripts/lab.sh`) whose NVMe controllers stand for network cards and graphics
//! cards: the kernel's interfaces are the same for all. A process of its own does the work and aborts at every single step, as
//! a crash would; then the next one has to finish or to undo it. Not for machines that anybody uses.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use bulkhead_nodeagent_core::GuestSize;
use bulkhead_nodeagent_core::hardware::{Bdf, Sriov, Tree, TreeError, discover, missing_for_devices};
use bulkhead_nodeagent_core::passthrough::{
    Before, Machine, NicWork, Progress, Seen, VFIO_PCI, Wrapped, check_machine,
};
use bulkhead_nodeagent_core::qemu::{Accel, Ram};
use bulkhead_nodeagent_core::vf_settings::{VfLinkError, VfLinks, VfSetting, check_settings};
use bulkhead_types::{
    DeviceHealth, DeviceIntent, NetworkAttachment, ObjectId, SriovDeviceType, SriovInterface, SriovLinkType,
    SriovVfGroup, VfLinkState,
};
use smol_str::SmolStr;

use crate::MachineTree;
use crate::boot::BootAssets;
use crate::passthrough::Passthrough;
use crate::vm::command::{Disk, Machinery, build};

mod nic;
mod volumes;

const POD: ObjectId = ObjectId(7);
const OTHER: ObjectId = ObjectId(8);
/// The present boot, as notes name it.
const BOOT: &str = "lab";
/// The driver of the machine's controllers.
const NVME: &str = "nvme";
/// More steps than either way has.
const STEPS_MAX: u32 = 60;
/// A region of a device that cannot be below 4 GiB, as those of graphics cards' memory cannot.
const LARGE_BAR_BYTES: u64 = 4 << 30;
/// Where `scripts/lab.sh` puts the kernel and the initramfs of a guest.
const PARTS: &str = "/lab";

/// What went wrong.
type Outcome<T = ()> = Result<T, String>;

/// This machine's files, in a process that aborts after so many writes.
struct Dying {
    machine: MachineTree,
    left: u32,
}

impl Dying {
    fn once_more(&mut self) {
        if self.left == 0 {
            std::process::abort();
        }
        self.left -= 1;
    }
}

impl Before for Dying {
    fn look<T>(&self, look: impl FnOnce(&dyn Machine) -> T) -> T {
        look(&self.machine)
    }

    fn act<T>(&mut self, act: impl FnOnce(&mut dyn Machine) -> T) -> T {
        act(&mut self.machine)
    }

    fn set_vf(&mut self, interface_index: u32, vf: u32, setting: &VfSetting) -> Result<(), VfLinkError> {
        self.once_more();
        self.machine.set_vf(interface_index, vf, setting)
    }

    fn write(&mut self, path: &str, text: &str) -> Result<(), TreeError> {
        self.once_more();
        self.machine.write(path, text)
    }

    fn hot_reset(&mut self, address: Bdf, groups: &BTreeSet<u32>) -> Result<(), TreeError> {
        self.once_more();
        self.machine.hot_reset(address, groups)
    }
}

/// Runs the lab, its part with `volumes`, or one life in it: `attach|release|nic WRITES DATA DEVICE`.
#[must_use]
pub fn run_lab() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("an event loop");
    let outcome =
        match args.as_slice() {
            [] => runtime.block_on(lab()),
            [only] if only == "volumes" => volumes::volumes_in_a_thin_pool().map(drop),
            [work, left, data, device] => runtime.block_on(live(work, left, Path::new(data), device)),
            _ => Err("usage: bulkhead-lab [volumes]; or one life: attach|release|nic WRITES DATA DEVICE"
                .to_owned()),
        };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            println!("lab: FAILED: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn open(data: &Path, machine: impl Machine + Send + 'static) -> Outcome<Passthrough> {
    Passthrough::open(data, machine, BOOT, &[NVME.to_owned()]).map_err(|error| error.to_string())
}

/// One life: does something, and aborts after so many writes.
async fn live(work: &str, left: &str, data: &Path, device: &str) -> Outcome {
    let left = left.parse().map_err(|_| "a number of writes".to_owned())?;
    let agent = open(data, Wrapped(Dying { machine: MachineTree::new("/"), left }))?;
    match work {
        "attach" => agent.attach(POD, &[intent(device)]).await.map(drop),
        "release" => agent.release(POD).await.map(drop),
        "nic" => settle(&agent, &functions(device, 3)).await,
        other => Err(format!("{other} is nothing to do")),
    }
}

fn intent(address: &str) -> DeviceIntent {
    DeviceIntent {
        container: "main".into(),
        resource: "example.com/nvme".into(),
        device: address.into(),
        address: address.into(),
        share: None,
        lost: false,
        visible_env: SmolStr::default(),
        visible_as: SmolStr::default(),
    }
}

fn network(vf: Bdf) -> NetworkAttachment {
    NetworkAttachment {
        network: "default/lab".into(),
        interface: "net1".into(),
        device: vf.to_string().into(),
        address: None,
        prefix: 0,
        gateway: None,
        mac: "02:00:00:00:00:01".into(),
        vlan: 0,
        vlan_qos: 0,
        spoof_chk: None,
        trust: None,
        min_tx_rate: None,
        max_tx_rate: None,
        link_state: VfLinkState::Auto,
        link_type: SriovLinkType::Eth,
        mtu: None,
        routes: Default::default(),
    }
}

fn functions(nic: &str, num_vfs: u32) -> SriovInterface {
    let group = SriovVfGroup {
        resource_name: "nvme".into(),
        policy_name: "lab".into(),
        first: 0,
        last: num_vfs.max(1) - 1,
        device_type: SriovDeviceType::VfioPci,
        is_rdma: false,
        mtu: None,
    };
    let vf_groups = vec![group];
    SriovInterface {
        pci_address: nic.into(),
        name: SmolStr::default(),
        num_vfs,
        mtu: None,
        link_type: None,
        vf_groups,
    }
}

async fn progress(agent: &Passthrough, wanted: &SriovInterface) -> Progress {
    let mut work = NicWork::new(wanted.clone());
    loop {
        let (next, progress) = agent.advance(work).await;
        if progress != Progress::Waiting {
            return progress;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        work = next;
    }
}

async fn settle(agent: &Passthrough, wanted: &SriovInterface) -> Outcome {
    expect("the NIC", &progress(agent, wanted).await, &Progress::Settled)
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, is: &T, should: &T) -> Outcome {
    if is == should { Ok(()) } else { Err(format!("{what} is {is:?}, and should be {should:?}")) }
}

fn said(what: &str) {
    println!("lab: {what}");
}

/// What a guest with a region of so many bytes says of it: it has to be above 4 GiB, and all of it.
fn has_large_region(console: &str, bytes: u64) -> Outcome<String> {
    let line = console.lines().find(|line| line.trim_end().ends_with(&format!(": {bytes} bytes")));
    let line = line.ok_or_else(|| format!("the guest has no region of {bytes} bytes:\n{console}"))?;
    let at = line.split_once(" at 0x").and_then(|(_, rest)| rest.split(':').next());
    let at = at.and_then(|at| u64::from_str_radix(at, 16).ok()).ok_or("a region without an address")?;
    if at < 4 << 30 {
        return Err(format!("a region above 4 GiB: {line}"));
    }
    Ok(line.trim().to_owned())
}

/// A machine with what the lab needs.
struct Lab {
    /// A controller that can have virtual functions.
    nic: Bdf,
    /// One that has none.
    card: Bdf,
    /// A device with a region that has no room below 4 GiB, and that region's size in bytes.
    large: (Bdf, u64),
    data: PathBuf,
}

/// Where one function is: its driver and override.
fn seen(device: Bdf) -> Outcome<Seen> {
    Seen::of(&MachineTree::new("/"), device).ok_or_else(|| format!("{device} is not there"))
}

fn state(driver: Option<&str>, driver_override: Option<&str>) -> Seen {
    Seen { driver: driver.map(str::to_owned), driver_override: driver_override.map(str::to_owned) }
}

fn write(path: &str, text: &str) -> Outcome {
    MachineTree::new("/").write(path, text).map_err(|error| format!("{path} {error}"))
}

async fn lab() -> Outcome {
    let machine = MachineTree::new("/");
    let missing: Vec<_> = missing_for_devices(&machine).into_iter().map(|one| one.found).collect();
    expect("what is missing", &missing, &vec![])?;
    let found = discover(&machine);
    expect("what cannot be read", &found.problems, &vec![])?;
    let nvme = found.functions.values().filter(|function| function.driver.as_deref() == Some(NVME));
    let (with, without): (Vec<_>, Vec<_>) =
        nvme.partition(|function| matches!(function.sriov, Sriov::Physical { vfs_max, .. } if vfs_max >= 4));
    let nic = with.first().ok_or("no NVMe controller can have four virtual functions")?;
    let card = without.first().ok_or("there is no second NVMe controller")?;
    said(&format!(
        "found {} with SR-IOV, {} reset by {}",
        nic.address,
        card.address,
        card.reset_methods.join(" ")
    ));
    let large = found.functions.values().find_map(|function| {
        let bytes = function.memory_bars_bytes.iter().copied().max()?;
        (bytes >= LARGE_BAR_BYTES).then_some((function.address, bytes))
    });
    let large = large.ok_or("no device has a region of 4 GiB")?;
    let lab = Lab { nic: nic.address, card: card.address, large, data: PathBuf::from("/tmp/data") };
    // Ends the lab when the kernel does otherwise than the one in memory.
    check_machine(&mut MachineTree::new("/"), lab.card, lab.nic);
    said(
        "the kernel does as the one in memory: driver_override, unbind, drivers_probe, reset, sriov_numvfs and groups' files",
    );
    functions_are_told_things()?;
    let thin = volumes::volumes_in_a_thin_pool()?;
    lab.functions_come_and_go().await?;
    lab.a_function_goes_to_a_guest_and_back().await?;
    lab.what_somebody_else_has_is_not_offered().await?;
    lab.the_hosts_driver_comes_back().await?;
    lab.agents_die("attach", lab.card).await?;
    lab.agents_die("release", lab.card).await?;
    lab.agents_die_over_a_nic().await?;
    lab.what_cannot_be_reset_goes_to_nobody().await?;
    lab.what_is_pulled_out_holds_nobody_up().await?;
    let card = match nic::find() {
        Some(nic) => Some(lab.a_nics_functions_are_told_things(nic).await?),
        None => None,
    };
    lab.a_guest_sees_it(card, thin).await?;
    said(
        "not done here: no network card in hardware (MTU, and what its own driver makes of MAC and VLAN), no IOMMU group of several functions, no card that fails by itself",
    );
    said("ok");
    Ok(())
}

/// What functions of a NIC are told, by the real kernel, where it has a NIC in software that has some: `netdevsim`.
fn functions_are_told_things() -> Outcome {
    const BUS: &str = "/sys/bus/netdevsim";
    let mut machine = MachineTree::new("/");
    if machine.list(&format!("{BUS}/devices")).is_err() {
        said("skipped: settings of functions (MAC, VLAN, rates, trust), as this kernel has no netdevsim");
        return Ok(());
    }
    let device = format!("{BUS}/devices/netdevsim7");
    write(&format!("{BUS}/new_device"), "7 1\n")?;
    write(&format!("{device}/sriov_numvfs"), "2\n")?;
    let failed = |error: TreeError| format!("{device}: {error}");
    let name =
        machine.list(&format!("{device}/net")).map_err(failed)?.into_iter().next().ok_or("no interface")?;
    let index = machine.read(&format!("{device}/net/{name}/ifindex")).map_err(failed)?;
    let index =
        String::from_utf8_lossy(&index).trim().parse().map_err(|_| "an interface without a number")?;
    // Ends the lab when the kernel does otherwise.
    check_settings(&mut machine, index, 1, 0);
    write(&format!("{BUS}/del_device"), "7 1\n")?;
    said(
        "a function is told VLAN, MAC, rates, spoof check, trust and link state, and tells each, and its neighbour none",
    );
    Ok(())
}

impl Lab {
    fn agent(&self) -> Outcome<Passthrough> {
        open(&self.data, MachineTree::new("/"))
    }

    fn function(&self, index: u32) -> Outcome<Bdf> {
        let found = discover(&MachineTree::new("/"));
        match found.functions.get(&self.nic).map(|nic| &nic.sriov) {
            Some(Sriov::Physical { vfs, .. }) => {
                vfs.get(index as usize).copied().ok_or_else(|| format!("there are {} functions", vfs.len()))
            }
            _ => Err("the controller is gone".to_owned()),
        }
    }

    async fn functions_come_and_go(&self) -> Outcome {
        let (agent, nic) = (self.agent()?, self.nic.to_string());
        settle(&agent, &functions(&nic, 2)).await?;
        let first = self.function(1)?;
        expect("a function", &seen(first)?, &state(Some(VFIO_PCI), Some(VFIO_PCI)))?;
        settle(&agent, &functions(&nic, 2)).await?;
        settle(&agent, &functions(&nic, 4)).await?;
        expect("the last function", &seen(self.function(3)?)?, &state(Some(VFIO_PCI), Some(VFIO_PCI)))?;
        let Progress::Failed { step, reason } = progress(&agent, &functions(&nic, 5)).await else {
            return Err("five functions of four".to_owned());
        };
        expect("the failing step", &step, &"Check")?;
        settle(&agent, &functions(&nic, 0)).await?;
        expect("functions that are gone", &self.function(0).is_err(), &true)?;
        settle(&agent, &functions(&nic, 2)).await?;
        said(&format!("virtual functions are made, changed, removed and made again; refused: {reason}"));
        Ok(())
    }

    async fn a_function_goes_to_a_guest_and_back(&self) -> Outcome {
        let (agent, vf) = (self.agent()?, self.function(0)?);
        let given = agent.attach(POD, &[intent(&vf.to_string())]).await?;
        expect("what the guest gets", &given.iter().map(|one| one.address).collect(), &vec![vf])?;
        let refused = agent.attach(OTHER, &[intent(&vf.to_string())]).await;
        expect("a second pod", &refused.is_err(), &true)?;
        let blocked = progress(&agent, &functions(&self.nic.to_string(), 4)).await;
        let waits = Progress::Blocked { pods: vec![POD], foreign: BTreeMap::new() };
        expect("the NIC", &blocked, &waits)?;
        // Another agent, the same boot: the guest may run.
        drop(agent);
        let agent = self.agent()?;
        expect("what is sick", &agent.recover([POD].into()).await?, &vec![])?;
        expect("the function", &seen(vf)?, &state(Some(VFIO_PCI), Some(VFIO_PCI)))?;
        expect("what is sick", &agent.release(POD).await?, &vec![])?;
        expect("the function", &seen(vf)?, &state(Some(VFIO_PCI), Some(VFIO_PCI)))?;
        said("a virtual function goes to one pod only, survives the agent, is reset and stays for guests");
        Ok(())
    }

    /// Another process has a function's group open; and a function is to attach a pod to a network, and its controller has no interface.
    async fn what_somebody_else_has_is_not_offered(&self) -> Outcome {
        let (agent, vf) = (self.agent()?, self.function(1)?);
        let found = discover(&MachineTree::new("/"));
        let group = found.functions.get(&vf).and_then(|function| function.iommu_group).ok_or("no group")?;
        let file = format!("/dev/vfio/{group}");
        let owner = std::fs::OpenOptions::new().read(true).write(true).open(&file);
        let owner = owner.map_err(|error| format!("{file}: {error}"))?;
        let (_, devices) = agent.look(None).await;
        let told = devices.iter().find(|device| device.address == vf.to_string()).ok_or("it is not told")?;
        let owner_is = format!("process {} has {file} open", std::process::id());
        expect("who has it", &told.in_use_by.as_str(), &owner_is.as_str())?;
        let Err(refused) = agent.attach(POD, &[intent(&vf.to_string())]).await else {
            return Err("it is attached all the same".to_owned());
        };
        // The kernel would wait for this very process: the agent must not ask it to take the function away.
        let waits = Progress::Blocked { pods: Vec::new(), foreign: [(vf, owner_is)].into() };
        let nic = self.nic.to_string();
        expect("the NIC", &progress(&agent, &functions(&nic, 4)).await, &waits)?;
        drop(owner);
        let network = network(vf);
        let Err(failed) = agent.attach_to(&[network], POD, &[intent(&vf.to_string())]).await else {
            return Err("a function without an interface attaches to a network".to_owned());
        };
        expect("the step", &failed.contains("vf find failed: the NIC"), &true)?;
        expect("the function", &seen(vf)?, &state(Some(VFIO_PCI), Some(VFIO_PCI)))?;
        agent.attach(POD, &[intent(&vf.to_string())]).await?;
        expect("what is sick", &agent.release(POD).await?, &vec![])?;
        said(&format!("what somebody else has is neither offered nor attached: {refused}; {failed}"));
        Ok(())
    }

    async fn the_hosts_driver_comes_back(&self) -> Outcome {
        let (agent, before) = (self.agent()?, seen(self.card)?);
        expect("the card", &before, &state(Some(NVME), None))?;
        agent.attach(POD, &[intent(&self.card.to_string())]).await?;
        expect("the card", &seen(self.card)?, &state(Some(VFIO_PCI), Some(VFIO_PCI)))?;
        expect("what is sick", &agent.release(POD).await?, &vec![])?;
        expect("the card", &seen(self.card)?, &before)?;
        said("a card is taken from the host's driver, reset and given back to it");
        Ok(())
    }

    /// A process that aborts at one step after the other; tells whether it came to its end.
    fn die(&self, work: &str, left: u32, device: Bdf) -> Outcome<bool> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let data = self.data.display().to_string();
        let life = Command::new(program)
            .args([work, &left.to_string(), &data, &device.to_string()])
            .stderr(Stdio::null())
            .status();
        Ok(life.map_err(|error| error.to_string())?.success())
    }

    /// Whatever a life has done: the next one finishes it for a pod that is known, and undoes it for one that is not.
    async fn agents_die(&self, work: &str, device: Bdf) -> Outcome {
        let before = seen(device)?;
        let mut deaths = 0;
        for left in 0..STEPS_MAX {
            for is_known in [true, false] {
                if work == "release" {
                    self.agent()?.attach(POD, &[intent(&device.to_string())]).await?;
                }
                let finished = self.die(work, left, device)?;
                let agent = self.agent()?;
                let known = if is_known { [POD].into() } else { std::collections::BTreeSet::new() };
                expect("what is sick", &agent.recover(known).await?, &vec![])?;
                if is_known && work == "attach" {
                    agent.attach(POD, &[intent(&device.to_string())]).await?;
                    expect("the device", &seen(device)?, &state(Some(VFIO_PCI), Some(VFIO_PCI)))?;
                }
                expect("what is sick", &agent.release(POD).await?, &vec![])?;
                expect("the device", &seen(device)?, &before)
                    .map_err(|e| format!("{work}, dead after {left}: {e}"))?;
                deaths += u32::from(!finished);
                if finished && !is_known {
                    said(&format!(
                        "{work}: {deaths} agents died, each after another step, and the next one made it right"
                    ));
                    return Ok(());
                }
            }
        }
        Err(format!("{work} takes no end"))
    }

    async fn agents_die_over_a_nic(&self) -> Outcome {
        let nic = self.nic.to_string();
        for left in 0..STEPS_MAX {
            settle(&self.agent()?, &functions(&nic, 2)).await?;
            let finished = self.die("nic", left, self.nic)?;
            settle(&self.agent()?, &functions(&nic, 3)).await?;
            expect("the last function", &seen(self.function(2)?)?, &state(Some(VFIO_PCI), Some(VFIO_PCI)))?;
            if finished {
                said(&format!(
                    "a NIC: {left} agents died, each after another step, and the next one made it right"
                ));
                return Ok(());
            }
        }
        Err("the NIC takes no end".to_owned())
    }

    /// The kernel lets go of all ways to reset a function when it is told so.
    async fn what_cannot_be_reset_goes_to_nobody(&self) -> Outcome {
        let (agent, vf) = (self.agent()?, self.function(0)?);
        let methods = format!("/sys/bus/pci/devices/{vf}/reset_method");
        agent.attach(POD, &[intent(&vf.to_string())]).await?;
        write(&methods, "\n")?;
        expect("what is sick", &agent.release(POD).await?, &vec![vf])?;
        let (_, devices) = agent.look(None).await;
        let health = devices.into_iter().find(|one| one.address == vf.to_string()).map(|one| one.health);
        let Some(DeviceHealth::Unhealthy { code, .. }) = health else { return Err(format!("{health:?}")) };
        expect("the code", &code.as_str(), &"ResetFailed")?;
        let refused = agent.attach(OTHER, &[intent(&vf.to_string())]).await;
        write(&methods, "default\n")?;
        std::fs::remove_file(self.data.join(format!("devices/quarantine/{vf}.json")))
            .map_err(|e| e.to_string())?;
        agent.look(None).await;
        agent.attach(OTHER, &[intent(&vf.to_string())]).await?;
        expect("what is sick", &agent.release(OTHER).await?, &vec![])?;
        let reason = refused.err().ok_or("a sick function was given away")?;
        said(&format!(
            "a function that cannot be reset goes to nobody until it is cleared; refused: {reason}"
        ));
        Ok(())
    }

    async fn what_is_pulled_out_holds_nobody_up(&self) -> Outcome {
        let agent = self.agent()?;
        agent.attach(POD, &[intent(&self.card.to_string())]).await?;
        write(&format!("/sys/bus/pci/devices/{}/remove", self.card), "1\n")?;
        expect("what is sick", &agent.release(POD).await?, &vec![])?;
        let gone = agent.attach(OTHER, &[intent(&self.card.to_string())]).await;
        expect("a card that is gone", &gone.is_err(), &true)?;
        write("/sys/bus/pci/rescan", "1\n")?;
        expect("a card that came back", &seen(self.card)?.driver.as_deref(), &Some(NVME))?;
        said("a card that is pulled out while a pod has it holds nobody up, and comes back");
        Ok(())
    }

    /// A guest in this machine, by the agent's own command line, says which functions it sees; its driver has that of a network card.
    async fn a_guest_sees_it(&self, card: Option<Bdf>, disk: Option<Disk>) -> Outcome {
        let (agent, vf) = (self.agent()?, self.function(0)?);
        let intents: Vec<_> =
            [vf, self.large.0].into_iter().chain(card).map(|one| intent(&one.to_string())).collect();
        let devices = agent.attach(POD, &intents).await?;
        let boot = BootAssets {
            digest: String::new(),
            kernel: Path::new(PARTS).join("vmlinuz"),
            initramfs: Path::new(PARTS).join("initrd"),
        };
        let command = build(&Machinery {
            name: "lab".to_owned(),
            uuid: uuid::Uuid::from_u128(1),
            accel: Accel::Kvm,
            size: GuestSize { cpus: 1, memory_bytes: 128 << 20 },
            boot: &boot,
            disks: disk.into_iter().collect(),
            devices,
            dir: Path::new("/tmp"),
            ram: Ram::Board,
            mem_merge: false,
            sandbox: false,
            grows: false,
        });
        let mut command = command;
        // Nobody listens to the sockets: the console goes into a file.
        let console = "/tmp/console.log";
        command.chardevs.retain(|one| one.id == "console");
        for chardev in &mut command.chardevs {
            let path = console.to_owned();
            chardev.backend = bulkhead_nodeagent_core::qemu::ChardevBackend::File { path, append: false };
        }
        command.qmp = None;
        command.devices.retain(|one| !format!("{one:?}").starts_with("Virt"));
        said("a guest starts in this machine");
        let ended = tokio::process::Command::new("/usr/bin/qemu-system-x86_64")
            .args(command.to_args())
            .current_dir("/tmp")
            .status();
        let ended = ended.await.map_err(|error| error.to_string())?;
        let text = std::fs::read_to_string(console).unwrap_or_default();
        let sees = text.lines().find(|line| line.contains("guest sees") && line.contains("class 0x0108"));
        let sees =
            sees.ok_or_else(|| format!("the guest ended with {ended} and saw no NVMe function:\n{text}"))?;
        said(&has_large_region(&text, self.large.1)?);
        if card.is_some() {
            let driver = text.lines().find(|line| line.contains("guest's driver igbvf"));
            let driver = driver.ok_or_else(|| format!("the guest's driver has no network card:\n{text}"))?;
            said(&format!("a network card in the guest: {}", driver.trim()));
        }
        expect("what is sick", &agent.release(POD).await?, &vec![])?;
        said(&format!("{}, which is {vf} here; it was reset after the guest", sees.trim()));
        let left: BTreeMap<_, _> = std::fs::read_dir(self.data.join("devices"))
            .map_err(|error| error.to_string())?
            .flatten()
            .map(|entry| (entry.file_name(), ()))
            .collect();
        expect("the notes that are left", &left.len(), &1)
    }
}
