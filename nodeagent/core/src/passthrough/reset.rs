//! How a function is reset after a guest had it, and whether it is well afterwards.
//!
//! ```text
//!  the kernel names a method for the function alone ─► that one, the kernel's first              flr, device_specific, pm …
//!  it names none, and all below its bridge goes back with it
//!       ├─ the bridge has reset_subordinate ─────────► the bus, by sysfs                          bus
//!       └─ all of it is with vfio-pci ───────────────► the bus, by VFIO                           vfio-hot-reset
//!  neither ──────────────────────────────────────────► nobody gets it
//! ```
//!
//! A reset of one function (`flr`, `pm`) does not reach the others of its card: PCI Express Base Specification 5.0, section 6.6.2. A sound or USB
//! function of a GPU that has no method of its own is reset with the bus, and the GPU with it, whatever method that has.
//!
//! The kernel puts what a function's maker says is needed (`device_specific`) before the standard's ways (`flr`, `af_flr`, `pm`), and `bus` last,
//! only where nothing else is below the bridge; an operator who knows better writes `reset_method`, and that is kept to. A reset of the bus
//! reaches everything below the bridge, so it is done only when all of that is this pod's and no guest has any of it.
//!
//! A kernel that says that it reset something is not believed: the configuration space is read afterwards ([`check_after`]).
//!
//! Source: "sysfs-bus-pci" (`reset`, `reset_method`, `reset_subordinate`), `drivers/pci/pci.c` (`pci_reset_fn_methods`) and
//! `include/uapi/linux/vfio.h` (`VFIO_DEVICE_PCI_HOT_RESET`) of Linux.

use std::collections::BTreeSet;

use super::VFIO_PCI;
use super::machine::{DEVICES, file};
use crate::hardware::{Bdf, Inventory, PciFunction, Sriov, Tree, standard_header};

/// Methods of the kernel that reach everything below the function's bridge.
const BUS_METHODS: [&str; 2] = ["bus", "cxl_bus"];
/// The file of a bridge that resets everything below it (Linux 6.13).
const RESET_SUBORDINATE: &str = "reset_subordinate";

/// How a function is reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResetWay {
    /// By itself, by the kernel's method of this name.
    Function(String),
    /// With everything below its bridge, by a file of that.
    Bus {
        /// The bridge.
        bridge: Bdf,
        /// All functions below it, that one too.
        below: BTreeSet<Bdf>,
    },
    /// The same by VFIO.
    HotReset {
        /// All functions below its bridge, that one too.
        below: BTreeSet<Bdf>,
    },
}

impl ResetWay {
    /// Its name, as it is noted and told.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Function(method) => method.clone(),
            Self::Bus { .. } => "bus".to_owned(),
            Self::HotReset { .. } => "vfio-hot-reset".to_owned(),
        }
    }

    /// The functions besides one that are reset with it.
    pub(super) fn below(&self) -> impl Iterator<Item = Bdf> + '_ {
        let below = match self {
            Self::Bus { below, .. } | Self::HotReset { below } => Some(below),
            Self::Function(_) => None,
        };
        below.into_iter().flatten().copied()
    }
}

/// Why a function cannot be reset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoReset {
    /// It has no method of its own, and no bridge whose bus could be reset.
    #[error("no reset_method, and no bridge above it")]
    NoBridge,
    /// A reset of the bus would reach somebody else's function.
    #[error(
        "no reset_method, and a reset of the bus below {bridge} would reach {other}, which does not go with it"
    )]
    OthersBelow {
        /// The bridge.
        bridge: Bdf,
        /// Somebody else's function.
        other: Bdf,
    },
    /// Neither sysfs nor VFIO can reset the bus now.
    #[error("no reset_method, {bridge} has no reset_subordinate, and {other} is not with vfio-pci")]
    NotBound {
        /// The bridge.
        bridge: Bdf,
        /// What VFIO does not have.
        other: Bdf,
    },
}

/// The kernel's method that would be used for a function alone.
fn own_method<'a>(
    inventory: &Inventory,
    function: &'a PciFunction,
    ours: &BTreeSet<Bdf>,
) -> Option<&'a String> {
    let first = function.reset_methods.first()?;
    // The kernel names it only where nothing else is below the bridge; somebody may have come since.
    let is_safe = !BUS_METHODS.contains(&first.as_str()) || below_bridge(inventory, function, ours).is_ok();
    is_safe.then_some(first)
}

/// Everything below a function's bridge, if all of it is `ours`; with the bridge.
fn below_bridge(
    inventory: &Inventory,
    function: &PciFunction,
    ours: &BTreeSet<Bdf>,
) -> Result<(Bdf, BTreeSet<Bdf>), NoReset> {
    let bridge = function.bridges.last().copied().ok_or(NoReset::NoBridge)?;
    let all = inventory.functions.values().filter(|one| one.bridges.contains(&bridge) && !one.is_bridge());
    let below: BTreeSet<Bdf> = all.map(|one| one.address).collect();
    match below.iter().find(|one| **one != function.address && !ours.contains(one)) {
        Some(other) => Err(NoReset::OthersBelow { bridge, other: *other }),
        None => Ok((bridge, below)),
    }
}

/// Whether a function can be reset once these go back with it.
///
/// # Errors
/// Why not.
pub fn can_be_reset(
    inventory: &Inventory,
    function: &PciFunction,
    ours: &BTreeSet<Bdf>,
) -> Result<(), NoReset> {
    match own_method(inventory, function, ours) {
        Some(_) => Ok(()),
        None => below_bridge(inventory, function, ours).map(drop),
    }
}

/// How a function is reset, when these go back with it and no guest has any of them.
///
/// # Errors
/// Why it cannot be.
pub fn way_to_reset(
    tree: &(impl Tree + ?Sized),
    inventory: &Inventory,
    function: &PciFunction,
    ours: &BTreeSet<Bdf>,
) -> Result<ResetWay, NoReset> {
    if let Some(method) = own_method(inventory, function, ours) {
        return Ok(ResetWay::Function(method.clone()));
    }
    let (bridge, below) = below_bridge(inventory, function, ours)?;
    let names = tree.list(&format!("{DEVICES}/{bridge}")).unwrap_or_default();
    if names.iter().any(|name| name == RESET_SUBORDINATE) {
        return Ok(ResetWay::Bus { bridge, below });
    }
    let is_bound = |one: &&Bdf| inventory.functions[*one].driver.as_deref() == Some(VFIO_PCI);
    match below.iter().find(|one| !is_bound(one)) {
        Some(other) => Err(NoReset::NotBound { bridge, other: *other }),
        None => Ok(ResetWay::HotReset { below }),
    }
}

/// The file whose writing resets, for a way by sysfs.
pub(super) fn reset_file(way: &ResetWay, address: Bdf) -> Option<String> {
    match way {
        ResetWay::Function(_) => Some(file(address, "reset")),
        ResetWay::Bus { bridge, .. } => Some(file(*bridge, RESET_SUBORDINATE)),
        ResetWay::HotReset { .. } => None,
    }
}

/// Whether a function is well after its reset: something answers, it is what it was, and it decodes what the kernel gave it.
///
/// # Errors
/// What is wrong.
pub fn check_after(tree: &(impl Tree + ?Sized), function: &PciFunction) -> Result<(), String> {
    let path = file(function.address, "config");
    let space = tree.read(&path).map_err(|error| format!("{path} {error}"))?;
    let header = standard_header(&space).ok_or_else(|| format!("{path} has {} bytes only", space.len()))?;
    if space.iter().take(64).all(|byte| *byte == u8::MAX) {
        return Err("nothing answers at its address (its configuration space reads as ones)".to_owned());
    }
    // A virtual function has neither ids nor regions there: those are its physical function's.
    if !matches!(function.sriov, Sriov::Virtual { .. }) {
        let (is, was) = ((header.vendor, header.device), (function.vendor, function.device));
        if is != was {
            return Err(format!("it is {:04x}:{:04x} now, and was {:04x}:{:04x}", is.0, is.1, was.0, was.1));
        }
        check_regions(tree, function.address, &header.bars)?;
    }
    if header.header_type & 0x7f != 0 {
        return Err(format!("its header is of type {:#x} now, and it is no bridge", header.header_type));
    }
    // Bits 11 to 15 are reserved: PCI Express Base Specification 5.0, section 7.5.1.1.3.
    if header.command & 0xf800 != 0 {
        return Err(format!("its command register is {:#06x}", header.command));
    }
    Ok(())
}

/// `IORESOURCE_IO`, `IORESOURCE_MEM` and `IORESOURCE_UNSET` of Linux.
const RESOURCE_KINDS: u64 = 0x300;
const RESOURCE_UNSET: u64 = 0x2000_0000;

/// A region that the kernel has placed is somewhere: a reset clears it, and the kernel puts it back.
fn check_regions(tree: &(impl Tree + ?Sized), address: Bdf, bars: &[u32; 6]) -> Result<(), String> {
    let bytes = tree.read(&file(address, "resource")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    for (number, (line, bar)) in text.lines().zip(bars).enumerate() {
        let mut words =
            line.split_whitespace().map(|n| u64::from_str_radix(n.strip_prefix("0x").unwrap_or(n), 16).ok());
        let (Some(Some(begin)), Some(Some(_)), Some(Some(flags))) =
            (words.next(), words.next(), words.next())
        else {
            continue;
        };
        if flags & RESOURCE_KINDS == 0 || flags & RESOURCE_UNSET != 0 || begin == 0 {
            continue;
        }
        // The low bits say what kind of region it is; one of 64 bits goes on in the next register.
        let low = u64::from(bar & if bar & 1 == 1 { !0x3 } else { !0xf });
        let high = if bar & 0b111 == 0b100 { bars.get(number + 1).copied().unwrap_or_default() } else { 0 };
        if low | u64::from(high) << 32 == 0 || *bar == u32::MAX {
            return Err(format!("region {number} is at {bar:#x} now, and the kernel put it at {begin:#x}"));
        }
    }
    Ok(())
}
