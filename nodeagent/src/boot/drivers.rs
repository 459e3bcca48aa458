//! Kernel modules of a guest's own NICs: found by what the modules say that they drive, with what they need.
//!
//! Only guests with such NICs get them: drivers of large NICs have megabytes, which every other guest's start would pay for.
//! What a module drives and needs is read from the module itself (`.modinfo`: `alias=`, `depends=`), so no `depmod` has to have run
//! over the kernel's folder.
//!
//! Source: `modinfo(8)`; `MODULE_DEVICE_TABLE` and `file2alias.c` of Linux for the form of an alias.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use bulkhead_nodeagent_core::hardware::PciFunction;

use super::{BootError, modules};

/// Where drivers of NICs are, below a kernel's modules.
const FOLDERS: [&str; 2] = ["kernel/drivers/net", "kernel/drivers/infiniband"];
/// More modules than any driver needs.
const MODULES_MAX: usize = 32;
/// The driver of interfaces of InfiniBand, which no device names.
const INFINIBAND_INTERFACES: &str = "ib_ipoib";

/// A NIC that a guest gets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GuestNic {
    /// `8086:1889`.
    pub(crate) ids: String,
    /// What the kernel calls it when it looks for a driver: `pci:v00008086d00001889sv…`.
    pub(crate) modalias: String,
    /// Its interface is one of InfiniBand.
    pub(crate) is_infiniband: bool,
    /// The pod is attached to a network by it: without a driver the guest is of no use.
    pub(crate) is_needed: bool,
}

impl GuestNic {
    /// A function as the guest's kernel sees it.
    pub(crate) fn new(function: &PciFunction, is_infiniband: bool, is_needed: bool) -> Self {
        let PciFunction { vendor, device, subsystem_vendor, subsystem_device, class, .. } = function;
        let (base, sub, interface) = (class >> 16 & 0xff, class >> 8 & 0xff, class & 0xff);
        Self {
            ids: format!("{vendor:04x}:{device:04x}"),
            modalias: format!(
                "pci:v{vendor:08X}d{device:08X}sv{subsystem_vendor:08X}sd{subsystem_device:08X}bc{base:02X}sc{sub:02X}i{interface:02X}"
            ),
            is_infiniband,
            is_needed,
        }
    }
}

/// What a module says of itself.
#[derive(Debug, Default)]
struct ModuleInfo {
    aliases: Vec<String>,
    depends: Vec<String>,
}

/// The drivers of some NICs, decompressed, each after those it needs. What is loaded in every guest, or built in, is left out.
///
/// # Errors
/// A NIC that is needed has no driver, or a module that it needs is missing.
pub(super) fn read_for(dir: &Path, nics: &[GuestNic]) -> Result<Vec<(String, Vec<u8>)>, BootError> {
    if nics.is_empty() {
        return Ok(Vec::new());
    }
    let mut all = BTreeMap::new();
    modules::find(&dir.join("kernel"), &mut all)?;
    let drivers: Vec<(&String, &PathBuf)> = all
        .iter()
        .filter(|(_, path)| FOLDERS.iter().any(|folder| path.starts_with(dir.join(folder))))
        .collect();
    let mut read = BTreeMap::new();
    for (name, path) in drivers {
        let bytes = modules::read(path)?;
        read.insert(name.clone(), (info(&bytes), bytes));
    }
    let builtin = Builtin::read(dir);
    let mut set = Set { dir, all: &all, read, builtin: &builtin, order: Vec::new(), seen: BTreeSet::new() };
    for nic in nics {
        let drives = |aliases: &[String]| aliases.iter().any(|alias| matches(alias, &nic.modalias));
        let names: Vec<String> = set
            .read
            .iter()
            .filter(|(_, (info, _))| drives(&info.aliases))
            .map(|(name, _)| name.clone())
            .collect();
        if names.is_empty() && !drives(&builtin.aliases) && nic.is_needed {
            return Err(BootError::NoDriver { ids: nic.ids.clone(), kernel: kernel_of(dir) });
        }
        names.iter().try_for_each(|name| set.add(name))?;
        if nic.is_infiniband && nic.is_needed {
            set.add(INFINIBAND_INTERFACES)?;
        }
    }
    Ok(set.order)
}

fn kernel_of(dir: &Path) -> String {
    dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What is built into the kernel.
struct Builtin {
    names: BTreeSet<String>,
    aliases: Vec<String>,
}

impl Builtin {
    fn read(dir: &Path) -> Self {
        let names = fs::read_to_string(dir.join("modules.builtin")).unwrap_or_default();
        let aliases = fs::read(dir.join("modules.builtin.modinfo")).unwrap_or_default();
        // NAME.alias=ALIAS, each ended by a NUL.
        let alias = |line: &[u8]| {
            let text = std::str::from_utf8(line).ok()?;
            Some(text.split_once(".alias=")?.1.to_owned())
        };
        Self {
            names: names.lines().filter_map(|line| modules::module_name(Path::new(line))).collect(),
            aliases: aliases.split(|byte| *byte == 0).filter_map(alias).collect(),
        }
    }
}

/// Modules that are collected.
struct Set<'a> {
    dir: &'a Path,
    all: &'a BTreeMap<String, PathBuf>,
    /// Those that were read, and not taken yet.
    read: BTreeMap<String, (ModuleInfo, Vec<u8>)>,
    builtin: &'a Builtin,
    order: Vec<(String, Vec<u8>)>,
    seen: BTreeSet<String>,
}

impl Set<'_> {
    /// Adds a module after those that it needs.
    fn add(&mut self, name: &str) -> Result<(), BootError> {
        let is_there = modules::LOAD_ORDER.contains(&name) || self.builtin.names.contains(name);
        if is_there || !self.seen.insert(name.to_owned()) {
            return Ok(());
        }
        let missing =
            || BootError::DriverModuleMissing { name: name.to_owned(), kernel: kernel_of(self.dir) };
        if self.seen.len() > MODULES_MAX {
            return Err(missing());
        }
        let (info, bytes) = match self.read.remove(name) {
            Some(read) => read,
            None => {
                let bytes = modules::read(self.all.get(name).ok_or_else(missing)?)?;
                (info(&bytes), bytes)
            }
        };
        info.depends.iter().try_for_each(|needed| self.add(needed))?;
        self.order.push((name.to_owned(), bytes));
        Ok(())
    }
}

/// Reads what a module says of itself: texts `KEY=VALUE`, each ended by a NUL, in its section `.modinfo`. Only that section has texts
/// that begin so.
fn info(bytes: &[u8]) -> ModuleInfo {
    let mut found = ModuleInfo::default();
    for text in bytes.split(|byte| *byte == 0) {
        let value = |key: &[u8]| text.strip_prefix(key).and_then(|value| std::str::from_utf8(value).ok());
        if let Some(alias) = value(b"alias=pci:") {
            found.aliases.push(format!("pci:{alias}"));
        } else if let Some(names) = value(b"depends=") {
            let names = names.split(',').filter(|name| !name.is_empty());
            found.depends.extend(names.map(|name| name.replace('-', "_")));
        }
    }
    found
}

/// Whether a text is of a pattern in which `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut last = None;
    for part in parts {
        last = Some(part);
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    // Without a star the whole text is the pattern; behind the last one anything that ends so.
    last.map_or(rest.is_empty(), |last| text.ends_with(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_match_as_the_kernel_means_them() {
        for (pattern, text, expected) in [
            (
                "pci:v00008086d00001889sv*sd*bc*sc*i*",
                "pci:v00008086d00001889sv00008086sd00000000bc02sc00i00",
                true,
            ),
            (
                "pci:v00008086d0000154Csv*sd*bc*sc*i*",
                "pci:v00008086d00001889sv00008086sd00000000bc02sc00i00",
                false,
            ),
            ("pci:v*d*sv*sd*bc01sc08i02*", "pci:v0000144Dd0000A80Asv00000000sd00000000bc01sc08i02", true),
            ("pci:v*d*sv*sd*bc01sc08i02*", "pci:v0000144Dd0000A80Asv00000000sd00000000bc02sc00i00", false),
            ("pci:x", "pci:x", true),
            ("pci:x", "pci:xy", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn modules_say_what_they_drive_and_need() {
        let bytes = b"\x7fELF\0junk\0license=GPL\0alias=pci:v1*\0alias=auxiliary:x\0depends=mlxfw,pci-hyperv-intf\0\0";
        let found = info(bytes);
        assert_eq!(found.aliases, ["pci:v1*"]);
        assert_eq!(found.depends, ["mlxfw", "pci_hyperv_intf"]);
        assert!(info(b"depends=\0").depends.is_empty());
    }
}
