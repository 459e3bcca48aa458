//! A machine that outlives its agents: PCI functions, a NIC, links and the packet filter, in memory, and found again by what was done
//! to them.
//!
//! ```text
//!  agent ─► Host ─┬─► KernelModel, FakeNetwork          test ─► Host::open: the same, done again from the log
//!                 └─► log: one line for each change          next agent ─┘
//! ```
//! A line is written before the change is made, so an agent that is killed has done what its log says, or dies before anything
//! could have seen it. A boot is a line as well: after it everything is as it was at first.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bulkhead_nodeagent::{HostNetwork, InUse, Link};
use bulkhead_nodeagent_core::hardware::{Bdf, Tree, TreeError};
use bulkhead_nodeagent_core::passthrough::{KernelModel, Machine};
use bulkhead_nodeagent_core::vf_settings::{VfLinkError, VfLinks, VfSetting, VfSettings};
use serde::{Deserialize, Serialize};

#[path = "../../src/network/fake.rs"]
#[allow(dead_code, reason = "shared with the unit tests of networks")]
mod fake;

use fake::FakeNetwork;

/// A card with a driver of the host, and what sits on it beside.
pub const GPU: &str = "0000:3b:00.0";
const SOUND: &str = "0000:3b:00.1";
/// A card that no driver has. It cannot be reset.
pub const BROKEN: &str = "0000:42:00.0";
pub const NIC: &str = "0000:86:00.0";
/// Its second virtual function, once there are two.
pub const FUNCTION: &str = "0000:86:00.2";
/// The NIC's interface.
const INTERFACE: u32 = 7;

/// One change.
#[derive(Debug, Serialize, Deserialize)]
pub enum Change {
    Write(String, String),
    HotReset(Bdf, BTreeSet<u32>),
    SetVf(u32, u32, VfSetting),
    AddBridge(String, String),
    AddAddress(String, Ipv4Addr, u8),
    RemoveAddress(String, Ipv4Addr, u8),
    BringUp(String, u32),
    AddTap(String),
    Attach(String, String, u32),
    Remove(String),
    Forward,
    SetRules(String),
    Boot,
    /// A function was taken away under a guest: nothing an agent may ever do.
    Wrong(String),
}

struct State {
    kernel: KernelModel,
    network: FakeNetwork,
    wrong: Vec<String>,
}

impl State {
    fn new() -> Self {
        Self { kernel: kernel(), network: FakeNetwork::default(), wrong: Vec::new() }
    }

    /// Makes a change. What comes of it came of it before.
    fn redo(&mut self, change: Change) {
        let State { kernel, network, wrong } = self;
        match change {
            Change::Write(path, text) => _ = kernel.write(&path, &text),
            Change::HotReset(address, groups) => _ = kernel.hot_reset(address, &groups),
            Change::SetVf(interface, vf, setting) => _ = kernel.set_vf(interface, vf, &setting),
            Change::AddBridge(name, mac) => _ = network.add_bridge(&name, &mac),
            Change::AddAddress(link, address, len) => _ = network.add_address(&link, address, len),
            Change::RemoveAddress(link, address, len) => _ = network.remove_address(&link, address, len),
            Change::BringUp(link, mtu) => _ = network.bring_up(&link, mtu),
            Change::AddTap(name) => _ = network.add_tap(&name),
            Change::Attach(tap, bridge, mtu) => _ = network.attach(&tap, &bridge, mtu),
            Change::Remove(link) => _ = network.remove(&link),
            Change::Forward => _ = network.forward(),
            Change::SetRules(rules) => _ = network.set_rules(&rules),
            Change::Boot => *self = Self { wrong: std::mem::take(wrong), ..Self::new() },
            Change::Wrong(what) => wrong.push(what),
        }
    }
}

fn kernel() -> KernelModel {
    let mut kernel = KernelModel::new(&["nvidia", "snd_hda_intel", "mlx5_core"]);
    // The card has a slot of its own, and its sound no reset of its own.
    kernel.bridge("0000:00:03.0", "0000:3b", &[("reset_subordinate", "")]);
    kernel.function(GPU, "10de:20b5", "030200", Some(42), Some("nvidia"), &[]);
    let sound = [("reset_method", "absent"), ("reset", "absent")];
    kernel.function(SOUND, "10de:1aef", "040300", Some(42), Some("snd_hda_intel"), &sound);
    kernel.function(BROKEN, "1d22:3684", "120000", Some(44), None, &[]);
    kernel.break_reset(at(BROKEN), true);
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

fn at(address: &str) -> Bdf {
    address.parse().expect("an address")
}

/// See the module.
#[derive(Clone)]
pub struct Host {
    log: PathBuf,
    /// Guests below this folder are this machine's.
    data: PathBuf,
    state: Arc<Mutex<State>>,
    /// How many bytes of the log were done again.
    known: Arc<AtomicUsize>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("log", &self.log).finish_non_exhaustive()
    }
}

impl Host {
    /// The machine of a log; a fresh one where there is none.
    pub fn open(log: &Path, data: &Path) -> Self {
        let state = Arc::new(Mutex::new(State::new()));
        let host = Self { log: log.to_owned(), data: data.to_owned(), state, known: Arc::default() };
        host.catch_up();
        host
    }

    /// Does again what others did meanwhile.
    pub fn catch_up(&self) {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let (mut state, known) = (self.state(), self.known.load(Ordering::SeqCst));
        // Another log has begun.
        let known = if text.len() < known { 0 } else { known };
        if known == 0 {
            *state = State::new();
        }
        // Somebody may be writing another line.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        for line in text[known..whole].lines() {
            state.redo(serde_json::from_str(line).expect("a change"));
        }
        self.known.store(whole, Ordering::SeqCst);
    }

    /// Writes changes that nobody's agent made.
    pub fn change(log: &Path, changes: &[Change]) {
        changes.iter().for_each(|change| note(log, change));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("whole")
    }

    fn note(&self, change: &Change) -> MutexGuard<'_, State> {
        let state = self.state();
        note(&self.log, change);
        state
    }

    /// A guest that runs keeps what it has.
    fn check_guests(&self, path: &str) {
        let Some((address, "reset" | "driver/unbind")) =
            path.strip_prefix("/sys/bus/pci/devices/").and_then(|rest| rest.split_once('/'))
        else {
            return;
        };
        let data = self.data.display().to_string();
        let has_it = super::machine::processes(|words| {
            words.iter().any(|word| word == "-pidfile")
                && words.iter().any(|word| word.contains(&data))
                && words.iter().any(|word| word.contains("vfio-pci") && word.contains(address))
        });
        if !has_it.is_empty() {
            note(&self.log, &Change::Wrong(format!("{path} under the guests {has_it:?}")));
        }
    }

    /// Functions with drivers and overrides, and what virtual ones are told.
    pub fn functions(&self) -> String {
        let kernel = &self.state().kernel;
        let names = kernel.list("/sys/bus/pci/devices").expect("listed");
        let function = |name: &String| {
            let seen = kernel.seen(at(name)).expect("there");
            format!("{name} {:?} {:?}\n", seen.driver, seen.driver_override)
        };
        let told = (0..8).filter_map(|vf| Some(format!("vf {vf} {:?}\n", kernel.vf(INTERFACE, vf).ok()?)));
        names.iter().map(function).chain(told).collect()
    }

    /// How many virtual functions the NIC has that are bound for guests, the MTU and the flags of its interface.
    pub fn nic(&self) -> (usize, String, String) {
        let functions = self.functions();
        let is_bound = |line: &&str| line.starts_with("0000:86:00.") && line.contains("vfio-pci");
        let bound = functions.lines().filter(is_bound).count();
        let state = self.state();
        let file = |name: &str| {
            let bytes = state.kernel.read(&format!("/sys/bus/pci/devices/{NIC}/net/eth7/{name}"));
            String::from_utf8_lossy(&bytes.expect("there")).trim().to_owned()
        };
        (bound, file("mtu"), file("flags"))
    }

    pub fn resets(&self, address: &str) -> u32 {
        self.state().kernel.resets(at(address))
    }

    /// All links, and the packet filter's rules.
    pub fn network(&self) -> (Vec<Link>, String) {
        let network = self.state().network.clone();
        (network.links().expect("in memory"), network.rules())
    }

    /// The taps: those on a bridge, up, and named by a rule.
    pub fn taps(&self) -> Vec<(String, bool)> {
        let (links, rules) = self.network();
        let taps = links.iter().filter(|link| link.addresses.is_empty());
        let is_whole = |tap: &Link| tap.bridge.is_some() && tap.is_up && rules.contains(&tap.name);
        taps.map(|tap| (tap.name.clone(), is_whole(tap))).collect()
    }

    /// What no agent may ever have done.
    pub fn wrong(&self) -> Vec<String> {
        self.state().wrong.clone()
    }
}

fn note(log: &Path, change: &Change) {
    let mut line = serde_json::to_string(change).expect("JSON");
    line.push('\n');
    let file: io::Result<File> = OpenOptions::new().create(true).append(true).open(log);
    file.and_then(|mut file| file.write_all(line.as_bytes())).expect("there is room");
}

impl Tree for Host {
    fn read(&self, path: &str) -> Result<Vec<u8>, TreeError> {
        self.state().kernel.read(path)
    }

    fn list(&self, path: &str) -> Result<Vec<String>, TreeError> {
        self.state().kernel.list(path)
    }

    fn link(&self, path: &str) -> Result<String, TreeError> {
        self.state().kernel.link(path)
    }
}

impl VfLinks for Host {
    fn vf(&self, interface_index: u32, vf: u32) -> Result<VfSettings, VfLinkError> {
        self.state().kernel.vf(interface_index, vf)
    }

    fn set_vf(&mut self, interface_index: u32, vf: u32, setting: &VfSetting) -> Result<(), VfLinkError> {
        self.note(&Change::SetVf(interface_index, vf, *setting)).kernel.set_vf(interface_index, vf, setting)
    }
}

impl Machine for Host {
    fn write(&mut self, path: &str, text: &str) -> Result<(), TreeError> {
        self.check_guests(path);
        self.note(&Change::Write(path.to_owned(), text.to_owned())).kernel.write(path, text)
    }

    fn try_group(&mut self, group: u32) -> Result<(), TreeError> {
        self.state().kernel.try_group(group)
    }

    fn vfio_files(&self) -> Result<BTreeMap<String, u32>, TreeError> {
        self.state().kernel.vfio_files()
    }

    fn hot_reset(&mut self, address: Bdf, groups: &BTreeSet<u32>) -> Result<(), TreeError> {
        self.check_guests(&format!("/sys/bus/pci/devices/{address}/reset"));
        self.note(&Change::HotReset(address, groups.clone())).kernel.hot_reset(address, groups)
    }
}

impl HostNetwork for Host {
    fn links(&self) -> io::Result<Vec<Link>> {
        self.state().network.links()
    }

    fn networks(&self) -> io::Result<Vec<InUse>> {
        self.state().network.networks()
    }

    fn add_bridge(&self, name: &str, mac: &str) -> io::Result<()> {
        self.note(&Change::AddBridge(name.to_owned(), mac.to_owned())).network.add_bridge(name, mac)
    }

    fn add_address(&self, link: &str, address: Ipv4Addr, len: u8) -> io::Result<()> {
        self.note(&Change::AddAddress(link.to_owned(), address, len)).network.add_address(link, address, len)
    }

    fn remove_address(&self, link: &str, address: Ipv4Addr, len: u8) -> io::Result<()> {
        let change = Change::RemoveAddress(link.to_owned(), address, len);
        self.note(&change).network.remove_address(link, address, len)
    }

    fn bring_up(&self, link: &str, mtu: u32) -> io::Result<()> {
        self.note(&Change::BringUp(link.to_owned(), mtu)).network.bring_up(link, mtu)
    }

    fn add_tap(&self, name: &str) -> io::Result<()> {
        self.note(&Change::AddTap(name.to_owned())).network.add_tap(name)
    }

    fn attach(&self, tap: &str, bridge: &str, mtu: u32) -> io::Result<()> {
        self.note(&Change::Attach(tap.to_owned(), bridge.to_owned(), mtu)).network.attach(tap, bridge, mtu)
    }

    fn remove(&self, link: &str) -> io::Result<()> {
        self.note(&Change::Remove(link.to_owned())).network.remove(link)
    }

    fn forward(&self) -> io::Result<()> {
        self.note(&Change::Forward).network.forward()
    }

    fn set_rules(&self, rules: &str) -> io::Result<()> {
        self.note(&Change::SetRules(rules.to_owned())).network.set_rules(rules)
    }

    fn check_rules(&self, rules: &str) -> io::Result<()> {
        self.state().network.check_rules(rules)
    }

    /// There is none that could be opened.
    fn to_open(&self, _tap: String) -> Option<String> {
        None
    }
}
