//! Finds the PCI functions of a machine.
//!
//! Source: "Documentation/ABI/testing/sysfs-bus-pci", "sysfs-class-net" and "stable/sysfs-class-infiniband" of Linux.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::config_space;
use super::{
    Bdf, InfinibandDevice, LinkType, NetworkInterface, PciFunction, PcieLink, Sriov, Tree, TreeError,
};

const DEVICES: &str = "/sys/bus/pci/devices";
/// Longest word that is taken over, in bytes.
const WORD_BYTES_MAX: usize = 64;
/// Most functions of a machine; those that follow are told of as a problem.
const FUNCTIONS_MAX: usize = 4096;
/// Most interfaces, and InfiniBand devices, of one function.
const INTERFACES_MAX: usize = 64;
/// Most virtual functions: the specification allows a function this many at most.
const VFS_MAX: u32 = 65_535;
/// `ARPHRD_ETHER` and `ARPHRD_INFINIBAND` of Linux.
const ARPHRD_ETHER: u32 = 1;
const ARPHRD_INFINIBAND: u32 = 32;
/// `IORESOURCE_MEM` of Linux.
const RESOURCE_MEMORY: u64 = 0x200;
/// The regions of a function itself in `resource`; its ROM, the regions of its virtual functions and of a bridge follow.
const BARS: usize = 6;

/// All functions of a machine at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// By address.
    pub functions: BTreeMap<Bdf, PciFunction>,
    /// What could not be read, by name of the folder.
    pub problems: Vec<Problem>,
}

/// A function that is there and cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The folder's name in `/sys/bus/pci/devices`.
    pub name: String,
    /// The file, and why.
    pub reason: String,
}

/// Reads what there is. A machine without a PCI bus has nothing, which is no error.
///
/// A function that goes away while it is read is as if it had gone before.
#[must_use]
pub fn discover(tree: &dyn Tree) -> Inventory {
    let mut inventory = Inventory::default();
    let names = match tree.list(DEVICES) {
        Ok(names) => names,
        Err(TreeError::NotFound) => return inventory,
        Err(error) => {
            let name = String::new();
            inventory.problems.push(Problem { name, reason: format!("{DEVICES} {error}") });
            return inventory;
        }
    };
    if names.len() > FUNCTIONS_MAX {
        let reason = format!(
            "there are {} functions: those after the first {FUNCTIONS_MAX} are not looked at",
            names.len()
        );
        inventory.problems.push(Problem { name: String::new(), reason });
    }
    for name in names.into_iter().take(FUNCTIONS_MAX) {
        match Reader::new(tree, &name).function() {
            Ok(function) => _ = inventory.functions.insert(function.address, function),
            Err(_) if tree.link(&format!("{DEVICES}/{name}")) == Err(TreeError::NotFound) => {}
            Err(reason) => inventory.problems.push(Problem { name: word(name.as_bytes()), reason }),
        }
    }
    inventory
}

/// One function; `None` when it is not there, or cannot be read.
pub(crate) fn function_at(tree: &dyn Tree, address: Bdf) -> Option<PciFunction> {
    Reader::new(tree, &address.to_string()).function().ok()
}

/// Reads one function.
struct Reader<'a> {
    tree: &'a dyn Tree,
    name: &'a str,
    dir: String,
}

/// The first line, without what nobody should print, and bounded.
fn word(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().next().unwrap_or_default().trim();
    line.chars().filter(|c| !c.is_control()).take(WORD_BYTES_MAX).collect()
}

fn last_part(target: &str) -> String {
    word(target.rsplit('/').next().unwrap_or_default().as_bytes())
}

impl<'a> Reader<'a> {
    fn new(tree: &'a dyn Tree, name: &'a str) -> Self {
        Self { tree, name, dir: format!("{DEVICES}/{name}") }
    }

    fn path(&self, file: &str) -> String {
        format!("{}/{file}", self.dir)
    }

    fn function(&self) -> Result<PciFunction, String> {
        let address: Bdf = self.name.parse().map_err(|error| format!("{error}"))?;
        let target = self.tree.link(&self.dir).map_err(|error| format!("the link {error}"))?;
        let (root, bridges) = place(&target);
        let space = self.tree.read(&self.path("config")).unwrap_or_default();
        Ok(PciFunction {
            address,
            vendor: self.id("vendor")?,
            device: self.id("device")?,
            subsystem_vendor: self.id("subsystem_vendor")?,
            subsystem_device: self.id("subsystem_device")?,
            class: self.number("class")?,
            driver: self.target("driver"),
            // The kernel writes "(null)" where there is none.
            driver_override: self.text("driver_override").filter(|text| !text.is_empty() && text != "(null)"),
            numa_node: self.text("numa_node").and_then(|text| text.parse().ok()),
            root,
            bridges,
            iommu_group: self.target("iommu_group").and_then(|group| group.parse().ok()),
            acs: config_space::acs(&space),
            serial_number: config_space::serial_number(&space),
            is_answering: config_space::is_answering(&space),
            reset_methods: self.reset_methods(),
            link: self.link(),
            memory_bars_bytes: self.bars(),
            sriov: self.sriov()?,
            interfaces: self.entries("net").iter().map(|name| self.interface(name)).collect(),
            infiniband: self.entries("infiniband").iter().map(|name| self.infiniband(name)).collect(),
        })
    }

    /// A file's first line; `None` when there is no such file, or it cannot be read now: a driver may refuse.
    fn text(&self, file: &str) -> Option<String> {
        self.tree.read(&self.path(file)).ok().map(|bytes| word(&bytes))
    }

    /// The last part of what a link points at.
    fn target(&self, file: &str) -> Option<String> {
        self.tree.link(&self.path(file)).ok().map(|target| last_part(&target))
    }

    fn number(&self, file: &str) -> Result<u32, String> {
        let bytes = self.tree.read(&self.path(file)).map_err(|error| format!("{file} {error}"))?;
        let text = word(&bytes);
        let digits = text.strip_prefix("0x").unwrap_or(&text);
        u32::from_str_radix(digits, 16).map_err(|_| format!("{file} is {text:?}, no hexadecimal number"))
    }

    fn id(&self, file: &str) -> Result<u16, String> {
        let number = self.number(file)?;
        u16::try_from(number).map_err(|_| format!("{file} is {number:#x}, more than 16 bits"))
    }

    /// Kernels before 5.15 do not name them, and have a file to reset the function by where there are any.
    fn reset_methods(&self) -> Vec<String> {
        let has_file =
            || self.tree.list(&self.dir).is_ok_and(|names| names.iter().any(|name| name == "reset"));
        match self.text("reset_method") {
            Some(text) => words(&text),
            None if has_file() => vec!["default".to_owned()],
            None => Vec::new(),
        }
    }

    fn link(&self) -> Option<PcieLink> {
        let width = |file| self.text(file)?.parse().ok();
        Some(PcieLink {
            speed: self.text("current_link_speed")?,
            width: width("current_link_width")?,
            speed_max: self.text("max_link_speed")?,
            width_max: width("max_link_width")?,
        })
    }

    /// Each line of `resource` is begin, end and flags of a region; an empty one is all zeros.
    fn bars(&self) -> Vec<u64> {
        let bytes = self.tree.read(&self.path("resource")).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let size = |line: &str| {
            let mut numbers =
                line.split_whitespace().map(|n| u64::from_str_radix(n.strip_prefix("0x").unwrap_or(n), 16));
            let (begin, end, flags) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
            let size = end.checked_sub(begin)?.checked_add(1)?;
            (flags & RESOURCE_MEMORY != 0 && end > 0).then_some(size)
        };
        text.lines().take(BARS).filter_map(size).collect()
    }

    fn sriov(&self) -> Result<Sriov, String> {
        if let Some(physical) = self.target("physfn") {
            let physical: Bdf = physical.parse().map_err(|error| format!("physfn: {error}"))?;
            return Ok(Sriov::Virtual { physical, index: self.index_below(physical) });
        }
        let Some(max) = self.text("sriov_totalvfs") else { return Ok(Sriov::None) };
        let vfs_max = max.parse::<u32>().ok().filter(|max| *max <= VFS_MAX);
        let vfs_max = vfs_max.ok_or_else(|| format!("sriov_totalvfs is {max:?}"))?;
        let numbered = (0..vfs_max).map_while(|n| self.target(&format!("virtfn{n}")));
        let vfs = numbered.map(|name| name.parse().map_err(|error| format!("virtfn: {error}")));
        let drivers_autoprobe = self.text("sriov_drivers_autoprobe").is_none_or(|text| text != "0");
        Ok(Sriov::Physical { vfs_max, vfs: vfs.collect::<Result<_, _>>()?, drivers_autoprobe })
    }

    /// Its number among the virtual functions of another one.
    fn index_below(&self, physical: Bdf) -> Option<u32> {
        let names = self.tree.list(&format!("{DEVICES}/{physical}")).ok()?;
        names.iter().find_map(|name| {
            let index = name.strip_prefix("virtfn")?.parse().ok()?;
            let target = self.tree.link(&format!("{DEVICES}/{physical}/{name}")).ok()?;
            (last_part(&target) == self.name).then_some(index)
        })
    }

    fn entries(&self, folder: &str) -> Vec<String> {
        let mut names = self.tree.list(&self.path(folder)).unwrap_or_default();
        names.truncate(INTERFACES_MAX);
        names
    }

    fn interface(&self, name: &str) -> NetworkInterface {
        let text = |file: &str| self.text(&format!("net/{name}/{file}"));
        let link_type = text("type").and_then(|text| match text.parse() {
            Ok(ARPHRD_ETHER) => Some(LinkType::Ethernet),
            Ok(ARPHRD_INFINIBAND) => Some(LinkType::Infiniband),
            _ => None,
        });
        NetworkInterface {
            name: word(name.as_bytes()),
            mac: text("address").unwrap_or_default(),
            mtu: text("mtu").and_then(|text| text.parse().ok()).unwrap_or_default(),
            link_type,
            // -1, or no answer at all, while the link is down.
            speed_mbps: text("speed").and_then(|text| text.parse().ok()),
            is_up: text("operstate").is_some_and(|text| text == "up"),
        }
    }

    fn infiniband(&self, name: &str) -> InfinibandDevice {
        let text = |file: &str| self.text(&format!("infiniband/{name}/{file}")).unwrap_or_default();
        InfinibandDevice {
            name: word(name.as_bytes()),
            node_guid: text("node_guid"),
            system_guid: text("sys_image_guid"),
        }
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// The root complex and the bridges of a function, from where its link points:
/// `../../../devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0`.
fn place(target: &str) -> (String, Vec<Bdf>) {
    let mut parts = target.split('/').skip_while(|part| !part.starts_with("pci"));
    let root = parts.next().map(|part| word(part.as_bytes())).unwrap_or_default();
    let mut bridges: Vec<Bdf> = parts.map_while(|part| part.parse().ok()).collect();
    // The last one is the function itself.
    bridges.pop();
    (root, bridges)
}
