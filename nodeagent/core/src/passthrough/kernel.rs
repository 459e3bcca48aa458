//! A kernel in memory: sysfs of PCI functions that acts on what is written, as Linux does.
//!
//! What Linux does that matters here: `driver_override` alone moves nothing; `unbind` wants the function's own address;
//! `drivers_probe` binds the override's driver if it is loaded, else the function's own, but never a virtual function whose
//! physical one does not probe, unless it has an override; a function that a process has open by VFIO is not taken from vfio-pci, nor away,
//! until that lets go of it, and who asks for that waits, for ever if need be: here it is a panic; a NIC's driver holds the MTU of its
//! virtual functions to its own, as many do; a number of virtual functions is taken after 0 only; virtual
//! functions are without a driver while `sriov_drivers_autoprobe` is 0; a group's file is there while vfio-pci has any of it.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_types::VfLinkState;

use super::machine::{DEVICES, VFIO_PCI, file, line, number};
use super::{Machine, Seen};
use crate::hardware::{Bdf, DRIVERS_PROBE, MemoryTree, Tree, TreeError};
use crate::vf_settings::{ENODEV, EOPNOTSUPP, VfLinkError, VfLinks, VfRate, VfSetting, VfSettings, VfVlan};

const DRIVERS: &str = "/sys/bus/pci/drivers";
/// The root port that all functions are below, unless they are put below another bridge.
const ROOT_PORT: &str = "0000:00:01.0";
/// The process that has groups open.
const OTHER_PROCESS: u32 = 4711;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct KernelModel {
    tree: MemoryTree,
    /// The driver that is each function's own.
    own_drivers: BTreeMap<Bdf, String>,
    loaded: BTreeSet<String>,
    /// Functions whose reset fails.
    broken_resets: BTreeSet<Bdf>,
    /// Groups that some other process has open.
    busy_groups: BTreeSet<u32>,
    /// The functions that it has by them: those that were with vfio-pci when it opened the group.
    open_functions: BTreeSet<Bdf>,
    /// More virtual functions than these fail to be made.
    vfs_limit: Option<u32>,
    /// So many looks pass until virtual functions that were asked for are there.
    slow_looks: u32,
    /// Virtual functions that will be there.
    coming: Vec<(u32, Bdf, u32)>,
    /// How often each function was reset.
    resets: BTreeMap<Bdf, u32>,
    /// Bridges, by their secondary bus.
    bridges: BTreeMap<String, String>,
    /// What functions of NICs were told, by NIC and number.
    told: BTreeMap<(Bdf, u32), VfSettings>,
    /// Settings, by name, that the NICs' drivers refuse with a number, or take without effect (0).
    broken_settings: BTreeMap<&'static str, i32>,
    /// Functions whose interfaces are in another network namespace.
    moved: BTreeSet<Bdf>,
    /// Not all processes can be looked at.
    hides_processes: bool,
    /// How often a group's file was opened.
    tried_groups: u32,
    /// Files whose writing fails, by their name in a function's folder or on the bus, with the kernel's word.
    broken_files: BTreeMap<String, String>,
    /// Functions that do not answer any more once they were reset.
    killed_by_reset: BTreeSet<Bdf>,
}

impl KernelModel {
    /// A machine with an IOMMU and these drivers loaded, vfio-pci among them.
    #[must_use]
    pub fn new(drivers: &[&str]) -> Self {
        let mut model = Self::default();
        for driver in drivers.iter().chain(&[VFIO_PCI]) {
            model.loaded.insert((*driver).to_owned());
            model.tree.file(&format!("{DRIVERS}/{driver}/module_loaded"), "");
        }
        model.tree.file("/sys/class/iommu/dmar0/devices", "").file("/dev/vfio/vfio", "");
        model.tree.file(DRIVERS_PROBE, "");
        model
    }

    /// Puts a function there: `ids` as `vendor:device`, its class, its IOMMU group, its own driver, which has it, and further
    /// files.
    ///
    /// # Panics
    /// When the texts are none of those.
    pub fn function(
        &mut self,
        address: &str,
        ids: &str,
        class: &str,
        group: Option<u32>,
        own_driver: Option<&str>,
        files: &[(&str, &str)],
    ) -> &mut Self {
        let bdf: Bdf = address.parse().expect("an address");
        let (vendor, device) = ids.split_once(':').expect("vendor:device");
        let dir = self.dir_of(address);
        self.tree.symlink(
            &format!("{DEVICES}/{address}"),
            &format!("../../../{}", dir.trim_start_matches("/sys/")),
        );
        let id = |text: &str| u16::from_str_radix(text, 16).expect("a hexadecimal number").to_le_bytes();
        let mut config = [0; 64];
        config[..2].copy_from_slice(&id(vendor));
        config[2..4].copy_from_slice(&id(device));
        self.tree.file(&format!("{dir}/config"), config);
        for (name, content) in
            [("vendor", vendor), ("device", device), ("subsystem_vendor", vendor), ("class", class)]
        {
            self.tree.file(&format!("{dir}/{name}"), format!("0x{content}\n"));
        }
        self.tree.file(&format!("{dir}/subsystem_device"), "0x0001\n");
        self.tree.file(&format!("{dir}/driver_override"), "(null)\n");
        self.tree.file(&format!("{dir}/reset_method"), "flr bus\n").file(&format!("{dir}/reset"), "");
        if let Some(group) = group {
            self.tree
                .symlink(&format!("{dir}/iommu_group"), &format!("../../../../kernel/iommu_groups/{group}"));
        }
        for (name, content) in files {
            match *content {
                "absent" => _ = self.tree.remove(&format!("{dir}/{name}")),
                content => _ = self.tree.file(&format!("{dir}/{name}"), content),
            }
        }
        self.place_regions(&dir);
        if let Some(driver) = own_driver {
            self.own_drivers.insert(bdf, driver.to_owned());
            self.bind(bdf, driver);
        }
        self
    }

    /// A function decodes what `resource` says, as its registers do after every reset.
    fn place_regions(&mut self, dir: &str) {
        let (Ok(text), Ok(mut config)) =
            (self.tree.read(&format!("{dir}/resource")), self.tree.read(&format!("{dir}/config")))
        else {
            return;
        };
        for (number, line) in String::from_utf8_lossy(&text).lines().take(6).enumerate() {
            let begin = line.split_whitespace().next().and_then(|word| word.strip_prefix("0x"));
            let begin = begin.and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or_default();
            config[0x10 + 4 * number..][..4].copy_from_slice(&begin.to_le_bytes());
        }
        self.tree.file(&format!("{dir}/config"), config);
    }

    /// Puts a bridge there, below which functions of its secondary bus are that come later.
    pub fn bridge(&mut self, address: &str, secondary_bus: &str, files: &[(&str, &str)]) -> &mut Self {
        self.bridges.insert(secondary_bus.to_owned(), address.to_owned());
        self.function(address, "8086:2030", "060400", None, Some("pcieport"), files)
    }

    /// The folder of a function: below the bridge of its bus.
    fn dir_of(&self, address: &str) -> String {
        let bus = address.rsplit_once(':').map_or(address, |(bus, _)| bus);
        let bridge = self.bridges.get(bus).map_or(ROOT_PORT, String::as_str);
        format!("/sys/devices/pci0000:00/{bridge}/{address}")
    }

    fn bridge_of(&self, address: Bdf) -> Option<Bdf> {
        self.dir(address).rsplit('/').nth(1)?.parse().ok()
    }

    /// All functions below a bridge that are none themselves.
    fn below(&self, bridge: Bdf) -> Vec<Bdf> {
        let names = self.tree.list(DEVICES).unwrap_or_default();
        let all = names.iter().filter_map(|name| name.parse::<Bdf>().ok());
        let is_bridge = |one: Bdf| self.bridges.values().any(|name| *name == one.to_string());
        all.filter(|one| self.bridge_of(*one) == Some(bridge) && !is_bridge(*one)).collect()
    }

    fn reset_bus(&mut self, bridge: Bdf) -> Result<(), TreeError> {
        let all = self.below(bridge);
        if all.iter().any(|one| self.broken_resets.contains(one)) {
            return Err(TreeError::Other("Inappropriate ioctl for device".to_owned()));
        }
        all.into_iter().for_each(|one| self.was_reset(one));
        Ok(())
    }

    fn was_reset(&mut self, address: Bdf) {
        *self.resets.entry(address).or_default() += 1;
        if self.killed_by_reset.contains(&address) {
            let path = format!("{}/config", self.dir(address));
            self.tree.file(&path, [u8::MAX; 64]);
        }
    }

    /// A function does not answer any more once it was reset.
    pub fn kill_by_reset(&mut self, address: Bdf) {
        self.killed_by_reset.insert(address);
    }

    /// Writing files of this name (`driver/unbind`, `drivers_probe`, …) fails with the kernel's word, or works again.
    pub fn break_file(&mut self, name: &str, word: Option<&str>) {
        match word {
            Some(word) => self.broken_files.insert(name.to_owned(), word.to_owned()),
            None => self.broken_files.remove(name),
        };
    }

    /// Not all processes can be looked at, or they can.
    pub fn hide_processes(&mut self, is_hidden: bool) {
        self.hides_processes = is_hidden;
    }

    /// How often a group's file was opened.
    #[must_use]
    pub fn tried_groups(&self) -> u32 {
        self.tried_groups
    }

    /// From now on this function's reset fails, or works again.
    pub fn break_reset(&mut self, address: Bdf, is_broken: bool) {
        if is_broken {
            self.broken_resets.insert(address)
        } else {
            self.broken_resets.remove(&address)
        };
    }

    /// Some other process has this group's file open, and what vfio-pci has of the group now, or not any more.
    pub fn occupy_group(&mut self, group: u32, is_busy: bool) {
        if is_busy {
            self.busy_groups.insert(group)
        } else {
            self.busy_groups.remove(&group)
        };
        let names = self.tree.list(DEVICES).unwrap_or_default();
        let all = names.iter().filter_map(|name| name.parse::<Bdf>().ok());
        for one in all.filter(|one| self.group(*one) == Some(group)).collect::<Vec<_>>() {
            let is_vfio = self.seen(one).is_some_and(|seen| seen.driver.as_deref() == Some(VFIO_PCI));
            if is_busy && is_vfio {
                self.open_functions.insert(one)
            } else {
                self.open_functions.remove(&one)
            };
        }
    }

    /// More virtual functions than these cannot be made.
    pub fn limit_functions(&mut self, count: Option<u32>) {
        self.vfs_limit = count;
    }

    /// Virtual functions are there only after so many [`Self::pass_time`].
    pub fn slow_functions(&mut self, looks: u32) {
        self.slow_looks = looks;
    }

    /// A driver is not loaded any more.
    pub fn unload(&mut self, driver: &str) {
        self.loaded.remove(driver);
        self.tree.remove(&format!("{DRIVERS}/{driver}"));
    }

    /// A function is pulled out.
    pub fn pull_out(&mut self, address: Bdf) {
        self.tree.remove(&format!("{DEVICES}/{address}"));
    }

    /// The NICs' drivers refuse a setting with a number of `errno(3)`, or take it without effect (0); `None`: they do it again.
    pub fn break_setting(&mut self, name: &'static str, errno: Option<i32>) {
        match errno {
            Some(errno) => self.broken_settings.insert(name, errno),
            None => self.broken_settings.remove(name),
        };
    }

    /// The interface of a function is moved into another network namespace, or back.
    pub fn move_interface(&mut self, address: Bdf, is_moved: bool) {
        if is_moved {
            self.moved.insert(address)
        } else {
            self.moved.remove(&address)
        };
    }

    /// Puts a file there below a function's folder.
    pub fn add_file(&mut self, address: Bdf, name: &str, content: &str) {
        let path = format!("{}/{name}", self.dir(address));
        self.tree.file(&path, content);
    }

    /// The same with bytes that are no text.
    pub fn add_bytes(&mut self, address: Bdf, name: &str, content: &[u8]) {
        let path = format!("{}/{name}", self.dir(address));
        self.tree.file(&path, content);
    }

    /// Puts a link there below a function's folder.
    pub fn add_link(&mut self, address: Bdf, name: &str, target: &str) {
        let path = format!("{}/{name}", self.dir(address));
        self.tree.symlink(&path, target);
    }

    /// The NIC of an interface.
    fn nic_of(&self, interface_index: u32) -> Result<Bdf, VfLinkError> {
        let names = self.tree.list(DEVICES).unwrap_or_default();
        let mut nics = names.iter().filter_map(|name| name.parse::<Bdf>().ok());
        let has_it = |nic: &Bdf| {
            let interfaces = self.list(&file(*nic, "net")).unwrap_or_default();
            let index = |name: &String| number(&self.tree, &file(*nic, &format!("net/{name}/ifindex")));
            interfaces.iter().any(|name| index(name) == Some(interface_index))
        };
        let gone = || VfLinkError { errno: ENODEV, message: "No such device".to_owned() };
        nics.find(has_it).ok_or_else(gone)
    }

    /// How often a function was reset.
    #[must_use]
    pub fn resets(&self, address: Bdf) -> u32 {
        self.resets.get(&address).copied().unwrap_or_default()
    }

    /// A function as it is.
    #[must_use]
    pub fn seen(&self, address: Bdf) -> Option<Seen> {
        Seen::of(self, address)
    }

    /// What a slow machine does meanwhile.
    pub fn pass_time(&mut self) {
        for (left, ..) in &mut self.coming {
            *left = left.saturating_sub(1);
        }
        let there: Vec<_> =
            self.coming.iter().filter(|(left, ..)| *left == 0).map(|(_, nic, n)| (*nic, *n)).collect();
        self.coming.retain(|(left, ..)| *left > 0);
        there.into_iter().for_each(|(nic, n)| self.add_function(nic, n));
    }

    fn bind(&mut self, address: Bdf, driver: &str) {
        let dir = self.dir(address);
        self.tree.symlink(&format!("{dir}/driver"), &format!("../../../../bus/pci/drivers/{driver}"));
        if driver == VFIO_PCI
            && let Some(group) = self.group(address)
        {
            self.tree.file(&format!("/dev/vfio/{group}"), "");
        }
    }

    fn dir(&self, address: Bdf) -> String {
        self.dir_of(&address.to_string())
    }

    fn group(&self, address: Bdf) -> Option<u32> {
        self.tree.link(&file(address, "iommu_group")).ok()?.rsplit('/').next()?.parse().ok()
    }

    fn mtus_of(&self, address: Bdf) -> impl Iterator<Item = u32> {
        let interfaces = self.list(&file(address, "net")).unwrap_or_default().into_iter();
        interfaces.filter_map(move |name| number(&self.tree, &file(address, &format!("net/{name}/mtu"))))
    }

    /// The MTU of a virtual function's NIC.
    fn mtu_of_nic(&self, vf: Bdf) -> Option<u32> {
        let nic = self.tree.link(&file(vf, "physfn")).ok()?;
        self.mtus_of(nic.rsplit('/').next()?.parse().ok()?).max()
    }

    /// The MTUs of a NIC's virtual functions.
    fn mtus_of_functions(&self, nic: Bdf) -> impl Iterator<Item = u32> {
        let count = number(&self.tree, &file(nic, "sriov_numvfs")).unwrap_or_default();
        (0..count).flat_map(move |n| self.mtus_of(function_of(nic, n)))
    }

    /// # Panics
    /// Where Linux would wait for as long as another process has the function open.
    fn unbind(&mut self, address: Bdf) -> Result<(), TreeError> {
        let seen = self.seen(address).and_then(|seen| seen.driver).ok_or(TreeError::NotFound)?;
        let is_open = self.open_functions.contains(&address);
        assert!(!is_open, "the kernel waits until process {OTHER_PROCESS} lets go of {address}");
        let dir = self.dir(address);
        self.tree.remove(&format!("{dir}/driver"));
        if let Some(group) = self.group(address).filter(|_| seen == VFIO_PCI) {
            let others = self
                .tree
                .list(DEVICES)
                .unwrap_or_default()
                .into_iter()
                .filter_map(|name| name.parse::<Bdf>().ok());
            let mut others = others.filter(|other| self.group(*other) == Some(group));
            if !others
                .any(|other| self.seen(other).is_some_and(|seen| seen.driver.as_deref() == Some(VFIO_PCI)))
            {
                self.tree.remove(&format!("/dev/vfio/{group}"));
            }
        }
        Ok(())
    }

    fn probe(&mut self, address: Bdf) -> Result<(), TreeError> {
        let seen = self.seen(address).ok_or_else(|| TreeError::Other("no such device".to_owned()))?;
        if seen.driver.is_some() {
            return Ok(());
        }
        let physical = self.tree.link(&file(address, "physfn")).ok();
        let physical = physical.and_then(|target| target.rsplit('/').next()?.parse::<Bdf>().ok());
        let probes = physical.is_none_or(|nic| {
            line(&self.tree, &file(nic, "sriov_drivers_autoprobe")).as_deref() != Some("0")
        });
        let driver = match seen.driver_override {
            Some(driver) => Some(driver),
            None => self.own_drivers.get(&address).filter(|_| probes).cloned(),
        };
        if let Some(driver) = driver.filter(|driver| self.loaded.contains(driver)) {
            self.bind(address, &driver);
        }
        Ok(())
    }

    fn set_functions(&mut self, nic: Bdf, count: u32) -> Result<(), TreeError> {
        let other = |text: &str| Err(TreeError::Other(text.to_owned()));
        let present = number(&self.tree, &file(nic, "sriov_numvfs")).unwrap_or_default();
        if count > number(&self.tree, &file(nic, "sriov_totalvfs")).unwrap_or_default() {
            return other("Numerical result out of range");
        }
        if count == present {
            return Ok(());
        }
        if self.seen(nic).is_none_or(|seen| seen.driver.is_none()) {
            return other("No such file or directory");
        }
        if count > 0 && present > 0 {
            return other("Device or resource busy");
        }
        if self.vfs_limit.is_some_and(|limit| count > limit) {
            return other("Cannot allocate memory");
        }
        let dir = self.dir(nic);
        for n in 0..present {
            let vf = function_of(nic, n);
            let _ = self.unbind(vf);
            self.pull_out(vf);
            let of_vf = self.dir(vf);
            self.tree.remove(&of_vf).remove(&format!("{dir}/virtfn{n}"));
            self.own_drivers.remove(&vf);
        }
        self.coming.clear();
        self.told.retain(|(of, _), _| *of != nic);
        self.tree.file(&format!("{dir}/sriov_numvfs"), format!("{count}\n"));
        for n in 0..count {
            match self.slow_looks {
                0 => self.add_function(nic, n),
                looks => self.coming.push((looks + n, nic, n)),
            }
        }
        Ok(())
    }

    fn add_function(&mut self, nic: Bdf, n: u32) {
        let vf = function_of(nic, n);
        let driver = self.own_drivers.get(&nic).map(|driver| format!("{driver}_vf"));
        let word = |name: &str| {
            line(&self.tree, &file(nic, name)).unwrap_or_default().trim_start_matches("0x").to_owned()
        };
        let (ids, class) = (format!("{}:{}", word("vendor"), word("device")), word("class"));
        let group = 100 + n;
        self.function(&vf.to_string(), &ids, &class, Some(group), None, &[]);
        let (dir, of_vf) = (self.dir(nic), self.dir(vf));
        self.tree.symlink(&format!("{of_vf}/physfn"), &format!("../{nic}"));
        self.tree.symlink(&format!("{dir}/virtfn{n}"), &format!("../{vf}"));
        if let Some(driver) = driver {
            self.loaded.insert(driver.clone());
            self.own_drivers.insert(vf, driver);
        }
        let _ = self.probe(vf);
    }
}

/// The address of a NIC's function, as far as one bus goes.
fn function_of(nic: Bdf, n: u32) -> Bdf {
    let place = u32::from(nic.device()) * 8 + u32::from(nic.function()) + n + 1;
    let text = format!("{:04x}:{:02x}:{:02x}.{}", nic.domain, nic.bus, place / 8, place % 8);
    text.parse().expect("below 256")
}

impl Tree for KernelModel {
    fn read(&self, path: &str) -> Result<Vec<u8>, TreeError> {
        self.tree.read(path)
    }

    fn list(&self, path: &str) -> Result<Vec<String>, TreeError> {
        let moved = path.strip_suffix("/net").and_then(|path| path.rsplit('/').next()?.parse().ok());
        if moved.is_some_and(|address: Bdf| self.moved.contains(&address)) {
            return Ok(Vec::new());
        }
        self.tree.list(path)
    }

    fn link(&self, path: &str) -> Result<String, TreeError> {
        self.tree.link(path)
    }
}

impl VfLinks for KernelModel {
    fn vf(&self, interface_index: u32, vf: u32) -> Result<VfSettings, VfLinkError> {
        let nic = self.nic_of(interface_index)?;
        if vf >= number(&self.tree, &file(nic, "sriov_numvfs")).unwrap_or_default() {
            return Err(VfLinkError {
                errno: ENODEV,
                message: format!("the interface has no function {vf}"),
            });
        }
        Ok(self.told.get(&(nic, vf)).copied().unwrap_or(FRESH))
    }

    fn set_vf(&mut self, interface_index: u32, vf: u32, setting: &VfSetting) -> Result<(), VfLinkError> {
        let refused = |errno, message: &str| Err(VfLinkError { errno, message: message.to_owned() });
        let nic = self.nic_of(interface_index)?;
        let Ok(told) = self.vf(interface_index, vf) else {
            return refused(EOPNOTSUPP, "Operation not supported");
        };
        match self.broken_settings.get(setting.name()) {
            Some(0) => return Ok(()),
            Some(errno) => return refused(*errno, "the driver says no"),
            None => {}
        }
        self.told.insert((nic, vf), told.with(setting));
        Ok(())
    }
}

/// What a function is told that was just made.
const FRESH: VfSettings = VfSettings {
    vlan: Some(VfVlan::NONE),
    mac: Some([0; 6]),
    rate: Some(VfRate { min_mbps: 0, max_mbps: 0 }),
    spoof_check: Some(true),
    trust: Some(false),
    link_state: Some(VfLinkState::Auto),
    node_guid: None,
    port_guid: None,
};

impl Machine for KernelModel {
    fn write(&mut self, path: &str, text: &str) -> Result<(), TreeError> {
        let other = |text: &str| TreeError::Other(text.to_owned());
        let word = text.trim();
        let is_broken = |(name, _): &(&String, &String)| path.ends_with(&format!("/{name}"));
        if let Some((_, said)) = self.broken_files.iter().find(is_broken) {
            return Err(other(said));
        }
        if path == DRIVERS_PROBE {
            return self.probe(word.parse().map_err(|_| other("Invalid argument"))?);
        }
        let rest = path.strip_prefix(&format!("{DEVICES}/")).ok_or(TreeError::NotFound)?;
        let (address, name) = rest.split_once('/').ok_or(TreeError::NotFound)?;
        let address: Bdf = address.parse().map_err(|_| TreeError::NotFound)?;
        if name != "driver/unbind" {
            self.tree.read(path)?;
        }
        let dir = self.dir(address);
        match name {
            "driver_override" => {
                let kept = if word.is_empty() { "(null)" } else { word };
                self.tree.file(&format!("{dir}/driver_override"), format!("{kept}\n"));
                Ok(())
            }
            "driver/unbind" if word == address.to_string() => self.unbind(address),
            "driver/unbind" => Err(other("No such device")),
            "reset" if self.broken_resets.contains(&address) => Err(other("Inappropriate ioctl for device")),
            "reset" => {
                self.was_reset(address);
                Ok(())
            }
            "reset_subordinate" => self.reset_bus(address),
            "sriov_numvfs" => {
                self.set_functions(address, word.parse().map_err(|_| other("Invalid argument"))?)
            }
            "sriov_drivers_autoprobe" => {
                self.tree.file(&format!("{dir}/{name}"), format!("{word}\n"));
                Ok(())
            }
            name if name.starts_with("net/") && name.ends_with("/mtu") => {
                let mtu: u32 = word.parse().map_err(|_| other("Invalid argument"))?;
                if !(68..=9000).contains(&mtu) || self.mtu_of_nic(address).is_some_and(|most| mtu > most) {
                    return Err(other("Invalid argument"));
                }
                if self.mtus_of_functions(address).any(|least| mtu < least) {
                    return Err(other("Device or resource busy"));
                }
                self.tree.file(&format!("{dir}/{name}"), format!("{mtu}\n"));
                Ok(())
            }
            name if name.starts_with("net/") && name.ends_with("/flags") => {
                self.tree.file(&format!("{dir}/{name}"), format!("{word}\n"));
                Ok(())
            }
            _ => Err(TreeError::Denied),
        }
    }

    fn vfio_files(&self) -> Result<BTreeMap<String, u32>, TreeError> {
        match self.hides_processes {
            true => Err(TreeError::Denied),
            false => Ok(self
                .busy_groups
                .iter()
                .map(|group| (format!("/dev/vfio/{group}"), OTHER_PROCESS))
                .collect()),
        }
    }

    fn hot_reset(&mut self, address: Bdf, groups: &BTreeSet<u32>) -> Result<(), TreeError> {
        let bridge = self.bridge_of(address).ok_or(TreeError::NotFound)?;
        for group in groups {
            self.try_group(*group)?;
        }
        // The kernel wants the groups of everything below, each with vfio-pci.
        let all = self.below(bridge);
        let is_whole = all.iter().all(|one| {
            let is_bound = self.seen(*one).is_some_and(|seen| seen.driver.as_deref() == Some(VFIO_PCI));
            is_bound && self.group(*one).is_some_and(|group| groups.contains(&group))
        });
        if !is_whole {
            return Err(TreeError::Other("Invalid argument".to_owned()));
        }
        self.reset_bus(bridge)
    }

    fn try_group(&mut self, group: u32) -> Result<(), TreeError> {
        self.tried_groups += 1;
        self.tree.read(&format!("/dev/vfio/{group}"))?;
        if self.busy_groups.contains(&group) {
            return Err(TreeError::Other("Device or resource busy".to_owned()));
        }
        Ok(())
    }
}
