//! Functions on their way to guests and back, on a kernel in memory, with an agent that dies at every single step.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bulkhead_types::{ObjectId, SriovDeviceType, SriovInterface, SriovLinkType, SriovVfGroup};
use expect_test::{Expect, expect};
use smol_str::SmolStr;

use super::*;
use crate::hardware::{Bdf, Inventory, Tree, TreeError, discover};
use crate::vf_settings::{VfLinkError, VfLinks as _, VfSetting};

mod deaths;
mod networks;
mod resets;

const POD: ObjectId = ObjectId(7);
const OTHER: ObjectId = ObjectId(8);
const GPU: &str = "0000:3b:00.0";
const SOUND: &str = "0000:3b:00.1";
const DISK: &str = "0000:41:00.0";
const IDLE: &str = "0000:42:00.0";
const NIC: &str = "0000:86:00.0";

fn bdf(text: &str) -> Bdf {
    text.parse().unwrap()
}

fn set(addresses: &[&str]) -> BTreeSet<Bdf> {
    addresses.iter().map(|text| bdf(text)).collect()
}

/// How many things an agent may do before it dies.
#[derive(Clone, Default)]
struct Life(Rc<Cell<Option<u32>>>);

impl Life {
    fn of(count: Option<u32>) -> Self {
        Self(Rc::new(Cell::new(count)))
    }

    /// Whether it lives to do one thing more.
    fn goes_on(&self) -> bool {
        match self.0.get() {
            Some(0) => false,
            left => {
                self.0.set(left.map(|left| left - 1));
                true
            }
        }
    }
}

/// A kernel in memory to which an agent does things until it dies.
struct Mortal {
    kernel: KernelModel,
    life: Life,
    writes: u32,
}

type Host = Wrapped<Mortal>;

impl Host {
    fn new(kernel: KernelModel) -> Self {
        Wrapped(Mortal { kernel, life: Life::default(), writes: 0 })
    }
}

const DEAD: &str = "the agent is dead";

impl Mortal {
    /// One thing more, if it lives to do that.
    fn once_more(&mut self) -> Result<(), TreeError> {
        if !self.life.goes_on() {
            return Err(TreeError::Other(DEAD.to_owned()));
        }
        self.writes += 1;
        Ok(())
    }
}

impl Before for Mortal {
    fn look<T>(&self, look: impl FnOnce(&dyn Machine) -> T) -> T {
        look(&self.kernel)
    }

    fn act<T>(&mut self, act: impl FnOnce(&mut dyn Machine) -> T) -> T {
        act(&mut self.kernel)
    }

    fn set_vf(&mut self, interface_index: u32, vf: u32, setting: &VfSetting) -> Result<(), VfLinkError> {
        let dead = |_| VfLinkError { errno: 0, message: DEAD.to_owned() };
        self.once_more().map_err(dead)?;
        self.kernel.set_vf(interface_index, vf, setting)
    }

    fn write(&mut self, path: &str, text: &str) -> Result<(), TreeError> {
        self.once_more()?;
        self.kernel.write(path, text)
    }

    fn hot_reset(&mut self, address: Bdf, groups: &BTreeSet<u32>) -> Result<(), TreeError> {
        self.once_more()?;
        self.kernel.hot_reset(address, groups)
    }
}

#[derive(Default)]
struct Notes {
    bindings: BTreeMap<Bdf, Binding>,
    quarantined: BTreeMap<Bdf, Quarantine>,
    resets: BTreeMap<Bdf, String>,
    life: Life,
}

impl Notebook for Notes {
    fn bindings(&self) -> &BTreeMap<Bdf, Binding> {
        &self.bindings
    }

    fn quarantined(&self) -> &BTreeMap<Bdf, Quarantine> {
        &self.quarantined
    }

    fn put(&mut self, binding: Binding) -> Result<(), String> {
        if !self.life.goes_on() {
            return Err("the agent is dead".to_owned());
        }
        self.bindings.insert(binding.address, binding);
        Ok(())
    }

    fn remove(&mut self, address: Bdf) -> Result<(), String> {
        if !self.life.goes_on() {
            return Err("the agent is dead".to_owned());
        }
        self.bindings.remove(&address);
        Ok(())
    }

    fn quarantine(&mut self, address: Bdf, code: &'static str, message: &str) -> Result<(), String> {
        if !self.life.goes_on() {
            return Err("the agent is dead".to_owned());
        }
        let (code, message) = (SmolStr::new_static(code), message.to_owned());
        self.quarantined.insert(address, Quarantine { address, code, message, since_ms: 1 });
        Ok(())
    }

    fn note_reset(&mut self, address: Bdf, method: &str) {
        self.resets.insert(address, method.to_owned());
    }
}

/// An agent's host with its notes.
struct World {
    host: Host,
    notes: Notes,
}

impl World {
    fn new() -> Self {
        Self { host: Host::new(machine()), notes: Notes::default() }
    }

    /// From now on it may do so many things.
    fn lives_for(&mut self, count: Option<u32>) {
        let life = Life::of(count);
        (self.host.life, self.notes.life) = (life.clone(), life);
    }

    fn attach(&mut self, pod: ObjectId, wanted: &[&str]) -> Result<Vec<Planned>, BindError> {
        let take_from = ["nvidia".to_owned()];
        let networks = BTreeMap::new();
        let request = Request { pod, boot_id: "boot".into(), take_from: &take_from, networks: &networks };
        attach(&mut self.host, &mut self.notes, &request, &set(wanted))
    }

    fn release(&mut self, pod: ObjectId) -> Result<Vec<Bdf>, String> {
        release(&mut self.host, &mut self.notes, pod)
    }

    /// Another agent begins; it knows the pod, or not.
    fn recover(&mut self, boot_id: &str, is_known: bool) -> Result<Vec<Bdf>, String> {
        self.lives_for(None);
        recover(&mut self.host, &mut self.notes, boot_id, &|_| is_known)
    }

    /// Every function with its driver and override, and the groups that are there.
    fn state(&self) -> String {
        let names = self.host.list("/sys/bus/pci/devices").unwrap();
        let function = |name: &String| {
            let seen = self.host.kernel.seen(bdf(name)).unwrap();
            format!("{name} {:?} {:?}\n", seen.driver, seen.driver_override)
        };
        let groups = self.host.list("/dev/vfio").unwrap().join(" ");
        names.iter().map(function).chain([groups]).collect()
    }
}

/// A graphics card with its sound function, a disk of the host beside a card, a card that no driver has, a NIC.
fn machine() -> KernelModel {
    let mut kernel = KernelModel::new(&["nvidia", "snd_hda_intel", "nvme", "mlx5_core", "xhci_hcd"]);
    kernel.bridge("0000:00:03.0", "0000:3b", &[]);
    kernel.function(GPU, "10de:20b5", "030200", Some(42), Some("nvidia"), &[]);
    let sound = [("reset_method", "absent"), ("reset", "absent")];
    kernel.function(SOUND, "10de:1aef", "040300", Some(42), Some("snd_hda_intel"), &sound);
    kernel.function(DISK, "144d:a80a", "010802", Some(43), Some("nvme"), &[]);
    kernel.function(IDLE, "1d22:3684", "120000", Some(44), None, &[]);
    let nic = [
        ("sriov_totalvfs", "8\n"),
        ("sriov_numvfs", "0\n"),
        ("sriov_drivers_autoprobe", "1\n"),
        ("net/eth7/mtu", "1500\n"),
        ("net/eth7/ifindex", "7\n"),
        ("net/eth7/type", "1\n"),
        ("net/eth7/flags", "0x1002\n"),
    ];
    kernel.function(NIC, "15b3:101b", "020000", Some(45), Some("mlx5_core"), &nic);
    kernel
}

#[test]
fn the_kernel_in_memory_does_as_the_real_one() {
    let mut world = World::new();
    let before = world.state();
    check_machine(&mut world.host, bdf(DISK), bdf(NIC));
    assert_eq!(world.state(), before);
    assert!(world.host.writes > 20, "{} writes", world.host.writes);
}

#[test]
fn a_card_goes_to_a_guest_with_what_is_on_it_and_comes_back_as_it_was() {
    let mut world = World::new();
    let before = world.state();
    let planned = world.attach(POD, &[GPU, IDLE]).unwrap();
    let companions: Vec<_> =
        planned.iter().filter_map(|one| Some((one.address, one.companion_of?))).collect();
    assert_eq!((planned.len(), companions), (3, vec![(bdf(SOUND), bdf(GPU))]));
    expect![[r#"
        0000:00:03.0 Some("pcieport") None
        0000:3b:00.0 Some("vfio-pci") Some("vfio-pci")
        0000:3b:00.1 Some("vfio-pci") Some("vfio-pci")
        0000:41:00.0 Some("nvme") None
        0000:42:00.0 Some("vfio-pci") Some("vfio-pci")
        0000:86:00.0 Some("mlx5_core") None
        42 44 vfio"#]]
    .assert_eq(&world.state());
    let writes = world.host.writes;
    world.attach(POD, &[GPU, IDLE]).unwrap();
    assert_eq!(world.host.writes, writes, "what is there is left as it is");
    assert_eq!(world.release(POD), Ok(vec![]));
    assert_eq!(world.state(), before);
    assert_eq!((world.host.kernel.resets(bdf(GPU)), world.host.kernel.resets(bdf(IDLE))), (1, 1));
    assert!(world.notes.bindings.is_empty());
}

#[test]
fn a_function_that_was_bound_for_guests_by_hand_stays_so() {
    let mut world = World::new();
    for (path, text) in [("driver_override", "vfio-pci"), ("", IDLE)] {
        let path = if path.is_empty() {
            "/sys/bus/pci/drivers_probe".to_owned()
        } else {
            machine::file(bdf(IDLE), path)
        };
        world.host.write(&path, text).unwrap();
    }
    let before = world.state();
    world.attach(POD, &[IDLE]).unwrap();
    assert_eq!(world.release(POD), Ok(vec![]));
    assert_eq!(world.state(), before);
    assert_eq!(world.host.kernel.resets(bdf(IDLE)), 1, "its guest is forgotten all the same");
}

/// Whatever an agent has done before it died: the next one brings the pod's functions to the guest, or back.
#[test]
fn an_agent_may_die_at_every_step() {
    let wanted = [GPU, IDLE];
    let (mut deaths, before) = (0, World::new().state());
    // On the way to the guest.
    for count in 0.. {
        for is_known in [true, false] {
            let mut world = World::new();
            world.lives_for(Some(count));
            let attached = world.attach(POD, &wanted);
            assert_eq!(world.recover("boot", is_known), Ok(vec![]), "died after {count}");
            if is_known {
                world.attach(POD, &wanted).unwrap_or_else(|error| panic!("died after {count}: {error}"));
                assert_eq!(world.notes.bindings.len(), 3);
                assert!(world.notes.bindings.values().all(|binding| binding.stage == Stage::Given));
                assert_eq!(world.release(POD), Ok(vec![]), "died after {count}");
            }
            assert_eq!(world.state(), before, "died after {count}");
            assert!(world.notes.bindings.is_empty() && world.notes.quarantined.is_empty());
            if attached.is_ok() && is_known {
                deaths = count;
            }
        }
        if deaths > 0 {
            break;
        }
    }
    // And back.
    for count in 0.. {
        let mut world = World::new();
        world.attach(POD, &wanted).unwrap();
        world.lives_for(Some(count));
        let released = world.release(POD);
        assert_eq!(world.recover("boot", false), Ok(vec![]), "died after {count}");
        assert_eq!(world.state(), before, "died after {count}");
        assert!(world.notes.bindings.is_empty() && world.notes.quarantined.is_empty());
        assert!(world.host.kernel.resets(bdf(GPU)) >= 1, "never without a reset");
        if released.is_ok() {
            deaths += count;
            break;
        }
    }
    assert!(deaths > 25, "only {deaths} steps were tried");
}

/// A guest that runs keeps its functions when its agent starts again, and a machine that boots anew owes nothing to notes.
#[test]
fn pain_12_13_14_restarts_leave_guests_alone_and_reboots_begin_anew() {
    let mut world = World::new();
    world.attach(POD, &[GPU]).unwrap();
    let (bound, writes) = (world.state(), world.host.writes);
    assert_eq!(world.recover("boot", true), Ok(vec![]));
    assert_eq!((world.state(), world.host.writes), (bound, writes), "nothing is touched under a guest");
    // The machine boots: the kernel binds everything anew, the notes are still there.
    world.host.kernel = machine();
    assert_eq!(world.recover("another boot", true), Ok(vec![]));
    assert!(world.notes.bindings.is_empty(), "they mean nothing any more");
    assert_eq!(world.state(), World::new().state(), "and nothing is done by them");
    world.attach(POD, &[GPU]).unwrap();
    assert_eq!(world.notes.bindings[&bdf(GPU)].driver.as_deref(), Some("nvidia"));
}

#[test]
fn pain_30_a_card_that_cannot_be_reset_goes_to_nobody() {
    let mut world = World::new();
    world.attach(POD, &[GPU, IDLE]).unwrap();
    world.host.kernel.break_reset(bdf(GPU), true);
    assert_eq!(world.release(POD), Ok(vec![bdf(GPU), bdf(SOUND)]), "the others come back");
    let kept = &world.notes.quarantined[&bdf(GPU)];
    assert_eq!(kept.code, RESET_FAILED);
    assert_eq!(
        kept.message,
        "reset (flr) failed: /sys/bus/pci/devices/0000:3b:00.0/reset Inappropriate ioctl for device"
    );
    let sound = &world.notes.quarantined[&bdf(SOUND)].message;
    assert_eq!(
        sound,
        "reset (vfio-hot-reset) failed: VFIO_DEVICE_PCI_HOT_RESET: Inappropriate ioctl for device"
    );
    let refused = world.attach(OTHER, &[GPU]).unwrap_err().to_string();
    assert!(refused.starts_with("device 0000:3b:00.0 is in quarantine (ResetFailed)"), "{refused}");
    assert_eq!(world.recover("boot", false), Ok(vec![]));
    assert!(world.attach(OTHER, &[GPU]).is_err(), "a restart mends nothing");
    assert_eq!(
        world.host.kernel.seen(bdf(GPU)).unwrap().driver.as_deref(),
        Some(VFIO_PCI),
        "the host gets it neither"
    );
    world.attach(OTHER, &[IDLE]).unwrap();
    world.host.kernel.break_reset(bdf(GPU), false);
    world.notes.quarantined.clear();
    world.attach(OTHER, &[GPU]).unwrap();
}

#[test]
fn a_driver_that_does_not_come_back_is_told() {
    let mut world = World::new();
    world.attach(POD, &[GPU]).unwrap();
    world.host.kernel.unload("nvidia");
    assert_eq!(world.release(POD), Ok(vec![bdf(GPU)]));
    let kept = &world.notes.quarantined[&bdf(GPU)];
    assert_eq!(
        (kept.code.as_str(), kept.message.as_str()),
        (DRIVER_NOT_RESTORED, "drivers_probe failed: it had no effect")
    );
}

#[test]
fn a_function_that_is_gone_holds_nobody_up() {
    let mut world = World::new();
    world.attach(POD, &[GPU, IDLE]).unwrap();
    world.host.kernel.pull_out(bdf(IDLE));
    assert_eq!(world.release(POD), Ok(vec![]));
    assert!(world.notes.bindings.is_empty() && world.notes.quarantined.is_empty());
}

/// The kernel's words for `ENODEV`, `EBUSY`, `EPERM` and `ETIMEDOUT`.
const WORDS: [&str; 4] =
    ["No such device", "Device or resource busy", "Operation not permitted", "Connection timed out"];

/// Whichever file the kernel refuses, and whatever it says: the step is named, with its word, on the way to a guest and back.
#[test]
fn a_step_that_the_kernel_refuses_is_named_with_its_word() {
    for word in WORDS {
        for (file, step) in [
            ("driver_override", "driver_override"),
            ("driver/unbind", "unbind"),
            ("drivers_probe", "drivers_probe"),
        ] {
            let mut world = World::new();
            let before = world.state();
            world.host.kernel.break_file(file, Some(word));
            let failed = world.attach(POD, &[GPU]).unwrap_err().to_string();
            assert!(failed.contains(&format!("device {GPU}: {step} failed: /sys/")), "{failed}");
            assert!(failed.ends_with(word) && world.notes.bindings.is_empty(), "{failed}");
            // Only what no driver can be found for stays where it is, for nobody.
            let stays = file == "drivers_probe";
            assert_eq!(world.notes.quarantined.contains_key(&bdf(GPU)), stays, "{step} {word}");
            assert_eq!(world.state() == before, !stays, "{step} {word}");

            let mut world = World::new();
            world.attach(POD, &[GPU]).unwrap();
            world.host.kernel.break_file(file, Some(word));
            assert!(world.release(POD).unwrap().contains(&bdf(GPU)), "{step} {word}");
            let kept = &world.notes.quarantined[&bdf(GPU)];
            assert_eq!(kept.code, DRIVER_NOT_RESTORED);
            assert!(kept.message.starts_with(&format!("{step} failed: /sys/")), "{}", kept.message);
            assert!(kept.message.ends_with(word), "{}", kept.message);
        }
        let mut world = World::new();
        world.attach(POD, &[IDLE]).unwrap();
        world.host.kernel.break_file("reset", Some(word));
        world.release(POD).unwrap();
        let kept = &world.notes.quarantined[&bdf(IDLE)];
        assert_eq!(kept.code, RESET_FAILED);
        assert_eq!(kept.message, format!("reset (flr) failed: /sys/bus/pci/devices/{IDLE}/reset {word}"));
    }
}

/// What forbids a device, in one line, and that nothing was touched.
fn check_refused(prepare: impl FnOnce(&mut World), wanted: &[&str], expected: Expect) {
    let mut world = World::new();
    prepare(&mut world);
    let (before, bindings) = (world.state(), world.notes.bindings.clone());
    let refused = world.attach(POD, wanted).unwrap_err();
    expected.assert_eq(&refused.to_string());
    assert_eq!((world.state(), world.notes.bindings), (before, bindings));
}

fn function(world: &mut World, at: &str, class: &str, group: Option<u32>, driver: Option<&str>) {
    world.host.kernel.function(at, "8086:1234", class, group, driver, &[]);
}

#[test]
fn groups_have_rules() {
    check_refused(|_| {}, &["0000:99:00.0"], expect!["device 0000:99:00.0 is not there any more"]);
    check_refused(
        |_| {},
        &[DISK],
        expect![
            "device 0000:41:00.0 has the host's driver nvme: unbind it, or let the agent take it with --take-devices-from nvme"
        ],
    );
    check_refused(
        |world| function(world, "0000:50:00.0", "120000", None, None),
        &["0000:50:00.0"],
        expect![
            "device 0000:50:00.0 is in no IOMMU group: boot with intel_iommu=on iommu=pt (AMD: iommu=pt)"
        ],
    );
    check_refused(
        |world| function(world, "0000:50:00.0", "060400", Some(50), None),
        &["0000:50:00.0"],
        expect!["device 0000:50:00.0 is a bridge: those are part of the machine"],
    );
    check_refused(
        |world| function(world, "0000:42:00.1", "020000", Some(44), Some("mlx5_core")),
        &[IDLE],
        expect![
            "device 0000:42:00.0 is in IOMMU group 44 with 0000:42:00.1, which the host's driver mlx5_core has: unbind that, or put the card into a slot whose ports keep functions apart (ACS)"
        ],
    );
}

#[test]
fn devices_have_one_holder_and_can_be_taken_back() {
    check_refused(
        |world| _ = world.attach(OTHER, &[IDLE]).unwrap(),
        &[IDLE],
        expect!["device 0000:42:00.0 is held by pod #8"],
    );
    check_refused(
        |world| {
            function(world, "0000:42:01.0", "120000", Some(44), None);
            world.attach(OTHER, &["0000:42:01.0"]).unwrap();
        },
        &[IDLE],
        expect!["device 0000:42:01.0 is held by pod #8"],
    );
    check_refused(
        |world| {
            let files = [("reset_method", "absent"), ("reset", "absent")];
            world.host.kernel.function("0000:50:00.0", "8086:1234", "120000", Some(50), None, &files);
        },
        &["0000:50:00.0"],
        expect![
            "device 0000:50:00.0 cannot be reset (no reset_method, and a reset of the bus below 0000:00:01.0 would reach 0000:41:00.0, which does not go with it): nobody could have it after this pod"
        ],
    );
    check_refused(
        |world| world.host.kernel.occupy_group(44, true),
        &[IDLE],
        expect![
            "device 0000:42:00.0: IOMMU group 44 cannot be opened: Device or resource busy; another process may have it (fuser /dev/vfio/44)"
        ],
    );
    check_refused(
        |world| {
            let files = [("net/eth9/operstate", "up\n")];
            world.host.kernel.function(
                "0000:50:00.0",
                "8086:1234",
                "020000",
                Some(50),
                Some("nvidia"),
                &files,
            );
        },
        &["0000:50:00.0"],
        expect!["device 0000:50:00.0 is the host's network interface eth9, which is up"],
    );
    // A bridge, and a function that nobody uses, are no reason against it.
    let mut world = World::new();
    function(&mut world, "0000:42:1f.0", "060400", Some(44), Some("xhci_hcd"));
    function(&mut world, "0000:42:02.0", "120000", Some(44), None);
    assert_eq!(world.attach(POD, &[IDLE]).unwrap().len(), 1);
}

fn group(first: u32, last: u32, device_type: SriovDeviceType) -> SriovVfGroup {
    SriovVfGroup {
        resource_name: "net".into(),
        policy_name: "p".into(),
        first,
        last,
        device_type,
        is_rdma: false,
        mtu: None,
    }
}

fn nic(num_vfs: u32, mtu: Option<u32>, vf_groups: Vec<SriovVfGroup>) -> SriovInterface {
    SriovInterface { pci_address: NIC.into(), name: "eth7".into(), num_vfs, mtu, link_type: None, vf_groups }
}

/// Two functions of the host, they and the NIC with packets of this size.
fn with_mtu(mtu: u32) -> SriovInterface {
    let group = SriovVfGroup { mtu: Some(mtu), ..group(0, 1, SriovDeviceType::Netdevice) };
    nic(2, Some(mtu), vec![group])
}

fn guests(num_vfs: u32) -> SriovInterface {
    nic(num_vfs, None, vec![group(0, num_vfs.max(1) - 1, SriovDeviceType::VfioPci)])
}

impl World {
    /// Works on a NIC until it stands still; the clock goes a second with every look.
    fn apply(&mut self, wanted: &SriovInterface) -> Progress {
        let mut work = NicWork::new(wanted.clone());
        for second in 0..100 {
            match work.advance(&mut self.host, &self.notes.bindings, second * 1000) {
                Progress::Waiting => self.host.kernel.pass_time(),
                other => return other,
            }
        }
        panic!("it waits for ever");
    }

    /// The interfaces of the NIC and its functions, each with its MTU and flags.
    fn links(&self) -> String {
        let interfaces =
            |function: &str| self.host.list(&machine::file(bdf(function), "net")).unwrap_or_default();
        let one = |function: &'static str| {
            interfaces(function).into_iter().map(move |name| {
                let at = |file| {
                    machine::line(&self.host, &machine::file(bdf(function), &format!("net/{name}/{file}")))
                };
                format!("{name} {} {}\n", at("mtu").unwrap_or_default(), at("flags").unwrap_or_default())
            })
        };
        [NIC, "0000:86:00.1", "0000:86:00.2"].into_iter().flat_map(one).collect()
    }

    /// The NIC has two functions of the host, one with an interface, and all take packets of this size.
    fn apply_with_mtu(&mut self, mtu: u32) {
        let of_host = nic(2, None, vec![group(0, 1, SriovDeviceType::Netdevice)]);
        assert_eq!(self.apply(&of_host), Progress::Settled);
        self.host.kernel.add_file(bdf("0000:86:00.2"), "net/eth9/mtu", "1500\n");
        assert_eq!(self.apply(&with_mtu(mtu)), Progress::Settled);
    }

    /// The virtual functions by number, each with its driver.
    fn functions(&self) -> String {
        let one = |n: u32| {
            let target = self.host.link(&machine::file(bdf(NIC), &format!("virtfn{n}"))).ok()?;
            let seen = self.host.kernel.seen(bdf(target.rsplit('/').next()?))?;
            Some(seen.driver.unwrap_or_else(|| "-".to_owned()))
        };
        (0..8).map_while(one).collect::<Vec<_>>().join(" ")
    }
}

#[test]
fn pain_18_19_functions_come_change_and_go_and_the_same_again_is_nothing() {
    let mut world = World::new();
    assert_eq!(world.apply(&guests(2)), Progress::Settled);
    assert_eq!(world.functions(), "vfio-pci vfio-pci");
    let writes = world.host.writes;
    assert_eq!(world.apply(&guests(2)), Progress::Settled);
    assert_eq!(world.host.writes, writes, "nothing is done to what is as it shall be");
    let mixed = nic(
        3,
        Some(9000),
        vec![group(0, 0, SriovDeviceType::VfioPci), group(1, 2, SriovDeviceType::Netdevice)],
    );
    assert_eq!(world.apply(&mixed), Progress::Settled);
    assert_eq!(world.functions(), "vfio-pci mlx5_core_vf mlx5_core_vf");
    assert_eq!(machine::number(&world.host, &machine::file(bdf(NIC), "net/eth7/mtu")), Some(9000));
    let flags = machine::line(&world.host, &machine::file(bdf(NIC), "net/eth7/flags"));
    assert_eq!(flags.as_deref(), Some("0x1003"), "functions have no link while their NIC has none");
    assert_eq!(world.apply(&guests(3)), Progress::Settled, "the same number is not made again");
    assert_eq!(world.functions(), "vfio-pci vfio-pci vfio-pci");
    assert_eq!(world.apply(&nic(0, None, vec![])), Progress::Settled);
    assert_eq!(world.functions(), "");
    // A machine that boots has none, and gets them again.
    world.host.kernel = machine();
    assert_eq!(world.apply(&guests(2)), Progress::Settled);
    assert_eq!(world.functions(), "vfio-pci vfio-pci");
}

#[test]
fn pain_20_functions_are_waited_for() {
    let mut world = World::new();
    world.host.kernel.slow_functions(3);
    assert_eq!(world.apply(&guests(4)), Progress::Settled);
    assert_eq!(world.functions(), "vfio-pci vfio-pci vfio-pci vfio-pci");
    world.host.kernel.slow_functions(60);
    let late = world.apply(&guests(2));
    let reason = "0 of 2 are there after 30 s".to_owned();
    assert_eq!(late, Progress::Failed { step: "WaitForFunctions", reason });
}

#[test]
fn a_nic_whose_functions_pods_have_stays_as_it_is() {
    let mut world = World::new();
    assert_eq!(world.apply(&guests(2)), Progress::Settled);
    world.attach(POD, &["0000:86:00.2"]).unwrap();
    let before = world.state();
    let waits = Progress::Blocked { pods: vec![POD], foreign: BTreeMap::new() };
    assert_eq!(world.apply(&guests(4)), waits);
    assert_eq!(world.apply(&nic(0, None, vec![])), waits);
    assert_eq!(world.apply(&guests(2)), Progress::Settled);
    assert_eq!(world.state(), before);
    assert_eq!(world.release(POD), Ok(vec![]));
    assert_eq!(world.functions(), "vfio-pci vfio-pci", "functions for guests stay with vfio-pci");
    assert_eq!(world.apply(&guests(4)), Progress::Settled);
}

#[test]
fn a_step_that_fails_leaves_the_nic_as_it_was() {
    let check = |prepare: &dyn Fn(&mut World), wanted: &SriovInterface, step: &str, reason: &str| {
        let mut world = World::new();
        assert_eq!(world.apply(&guests(2)), Progress::Settled);
        prepare(&mut world);
        let before = (world.state(), world.links());
        let Progress::Failed { step: failed, reason: why } = world.apply(wanted) else { panic!("{step}") };
        assert!(failed == step && why.contains(reason), "{failed}: {why}");
        assert_eq!((world.state(), world.links()), before, "{step}");
    };
    check(&|_| {}, &guests(9), "Check", "can have 8 virtual functions, not 9");
    check(
        &|world| world.host.kernel.limit_functions(Some(2)),
        &guests(4),
        "CreateFunctions",
        "Cannot allocate memory",
    );
    check(
        &|_| {},
        &nic(4, Some(60_000), vec![group(0, 3, SriovDeviceType::VfioPci)]),
        "Mtu",
        "net/eth7/mtu Invalid argument",
    );
    let ib = SriovInterface { link_type: Some(SriovLinkType::Ib), ..guests(4) };
    check(
        &|_| {},
        &ib,
        "LinkType",
        "run mstconfig -d 0000:86:00.0 set LINK_TYPE_P1=1, and start the machine",
    );
    let rdma = SriovVfGroup { is_rdma: true, ..group(0, 3, SriovDeviceType::Netdevice) };
    check(&|_| {}, &nic(4, None, vec![rdma]), "Rdma", "has no RDMA device: run modprobe mlx5_ib");
    let elsewhere = SriovInterface { pci_address: "0000:99:00.0".into(), ..guests(1) };
    check(&|_| {}, &elsewhere, "Check", "0000:99:00.0 is not there");
    let disk = SriovInterface { pci_address: DISK.into(), ..guests(1) };
    check(&|_| {}, &disk, "Check", "can have no virtual functions");
    // What was told of interfaces before a later one, or the last step, fails.
    let breaks = |from, file| {
        move |world: &mut World| {
            world.apply_with_mtu(from);
            world.host.kernel.break_file(file, Some("Input/output error"));
        }
    };
    check(&breaks(1500, "net/eth9/mtu"), &with_mtu(9000), "Mtu", "net/eth9/mtu Input/output error");
    check(&breaks(9000, "net/eth7/mtu"), &with_mtu(1500), "Mtu", "net/eth7/mtu Input/output error");
    let is_down = |world: &mut World| {
        world.host.kernel.add_file(bdf(NIC), "net/eth7/flags", "0x1002\n");
        world.host.kernel.break_file("net/eth7/flags", Some("Input/output error"));
    };
    let larger = nic(2, Some(9000), vec![group(0, 1, SriovDeviceType::VfioPci)]);
    check(&is_down, &larger, "LinkUp", "net/eth7/flags Input/output error");
    let report = NicReport::from(&Progress::Failed { step: "Mtu", reason: "x".repeat(200) });
    assert_eq!((report.step.as_str(), report.sync_error.len()), ("Mtu", 128));
}

#[test]
fn an_agent_may_die_at_every_step_of_a_nic() {
    for count in 0.. {
        let mut world = World::new();
        world.apply(&guests(2));
        world.lives_for(Some(count));
        let mixed = nic(
            3,
            None,
            vec![group(0, 1, SriovDeviceType::VfioPci), group(2, 2, SriovDeviceType::Netdevice)],
        );
        let applied = world.apply(&mixed);
        world.lives_for(None);
        assert_eq!(world.apply(&mixed), Progress::Settled, "died after {count}");
        assert_eq!(world.functions(), "vfio-pci vfio-pci mlx5_core_vf", "died after {count}");
        if applied == Progress::Settled {
            assert!(count > 6, "{count}");
            return;
        }
    }
}
