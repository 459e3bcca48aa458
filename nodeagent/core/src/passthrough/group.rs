//! Which functions go together: the rules of IOMMU groups, checked before anything is touched.
//!
//! One group is one protection domain: a device in a guest can reach whatever else is in its group. So the kernel gives a
//! group to a guest only when no driver of the host has any of it (bridges excepted), and to one process at a time.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_types::{DeviceIntent, NetworkAttachment, ObjectId};

use super::{Binding, NoReset, Quarantine, VFIO_PCI, can_be_reset};
use crate::hardware::{Bdf, Inventory, PciFunction, Sriov};

/// What sits on a card beside its main function and has no use without it: display, sound, USB and serial bus controllers of
/// a graphics card. PCI Code and ID Assignment Specification, section 1.
const COMPANIONS: [u16; 6] = [0x0300, 0x0302, 0x0380, 0x0403, 0x0c03, 0x0c80];
/// Drivers whose functions nobody of the host uses.
const IDLE_DRIVERS: [&str; 2] = [VFIO_PCI, "pci-stub"];

/// One function to bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Which.
    pub address: Bdf,
    /// The function that it goes with, if it was not asked for itself.
    pub companion_of: Option<Bdf>,
}

/// Why functions cannot be given to a pod. Nothing was touched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is not there.
    #[error("device {0} is not there any more")]
    NotThere(Bdf),
    /// It is a bridge.
    #[error("device {0} is a bridge: those are part of the machine")]
    Bridge(Bdf),
    /// There is no IOMMU, or it is off.
    #[error("device {0} is in no IOMMU group: boot with intel_iommu=on iommu=pt (AMD: iommu=pt)")]
    NoGroup(Bdf),
    /// It can never be reset.
    #[error("device {address} cannot be reset ({reason}): nobody could have it after this pod")]
    NoReset {
        /// Which.
        address: Bdf,
        /// Why.
        reason: NoReset,
    },
    /// It is a physical function with virtual ones.
    #[error(
        "device {address} has {count} virtual functions, which would go with it: set its sriov_numvfs to 0 first"
    )]
    HasFunctions {
        /// Which.
        address: Bdf,
        /// How many.
        count: usize,
    },
    /// Another pod has it, or something of its group.
    #[error("device {address} is held by pod {pod}")]
    HeldBy {
        /// Which.
        address: Bdf,
        /// Whose it is.
        pod: ObjectId,
    },
    /// Somebody else on the host uses it.
    #[error("device {address} is used by somebody else on this host: {owner}")]
    Foreign {
        /// Which.
        address: Bdf,
        /// Who, for people.
        owner: String,
    },
    /// It is in quarantine.
    #[error("device {address} is in quarantine ({code}): {message}")]
    Quarantined {
        /// Which.
        address: Bdf,
        /// Why.
        code: String,
        /// The same for people.
        message: String,
    },
    /// The host uses it.
    #[error(
        "device {address} has the host's driver {driver}: unbind it, or let the agent take it with --take-devices-from {driver}"
    )]
    HostUses {
        /// Which.
        address: Bdf,
        /// Its driver.
        driver: String,
    },
    /// The host talks to others by it.
    #[error("device {address} is the host's network interface {interface}, which is up")]
    InterfaceUp {
        /// Which.
        address: Bdf,
        /// Its interface.
        interface: String,
    },
    /// The host uses something else of its group.
    #[error(
        "device {address} is in IOMMU group {group} with {other}, which the host's driver {driver} has: unbind that, or put the \
         card into a slot whose ports keep functions apart (ACS)"
    )]
    GroupInUse {
        /// What was asked for.
        address: Bdf,
        /// The group.
        group: u32,
        /// What else is in it.
        other: Bdf,
        /// Its driver.
        driver: String,
    },
}

/// What is known beside the machine itself.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Who has what.
    pub bindings: &'a BTreeMap<Bdf, Binding>,
    /// What goes to nobody.
    pub quarantined: &'a BTreeMap<Bdf, Quarantine>,
    /// Drivers of the host whose functions may be taken.
    pub take_from: &'a [String],
    /// What somebody else on the host uses: see [`super::foreign_owners`].
    pub foreign: &'a BTreeMap<Bdf, String>,
}

/// The network interface by which the host talks to others through a function.
#[must_use]
pub fn interface_up(function: &PciFunction) -> Option<&str> {
    function.interfaces.iter().find(|interface| interface.is_up).map(|interface| interface.name.as_str())
}

/// The functions to bind for a pod, each once: those that are asked for, and what goes with them.
///
/// # Errors
/// The first rule that is broken.
pub fn plan(
    inventory: &Inventory,
    known: Known<'_>,
    pod: ObjectId,
    wanted: &BTreeSet<Bdf>,
) -> Result<Vec<Planned>, Refusal> {
    let mut planned = BTreeMap::new();
    for address in wanted {
        let function = inventory.functions.get(address).ok_or(Refusal::NotThere(*address))?;
        let group = check(function, known, pod)?;
        planned.insert(*address, None);
        for other in inventory.functions.values() {
            let is_other = other.iommu_group == Some(group) && !wanted.contains(&other.address);
            if is_other && !other.is_bridge() && goes_along(function, other, group, known, pod)? {
                planned.entry(other.address).or_insert(Some(*address));
            }
        }
    }
    let ours: BTreeSet<Bdf> = planned.keys().copied().collect();
    // What goes with them as well: the next guest would have what this one did to it.
    for address in &ours {
        can_be_reset(inventory, &inventory.functions[address], &ours)
            .map_err(|reason| Refusal::NoReset { address: *address, reason })?;
    }
    let planned = planned.into_iter();
    Ok(planned.map(|(address, companion_of)| Planned { address, companion_of }).collect())
}

/// Checks a function that is asked for; tells its group.
fn check(function: &PciFunction, known: Known<'_>, pod: ObjectId) -> Result<u32, Refusal> {
    let address = function.address;
    if function.is_bridge() {
        return Err(Refusal::Bridge(address));
    }
    not_quarantined(address, known)?;
    let is_ours = match known.bindings.get(&address) {
        Some(binding) if binding.pod != pod => return Err(Refusal::HeldBy { address, pod: binding.pod }),
        binding => binding.is_some(),
    };
    let group = function.iommu_group.ok_or(Refusal::NoGroup(address))?;
    if let Some(owner) = known.foreign.get(&address).filter(|_| !is_ours) {
        return Err(Refusal::Foreign { address, owner: owner.clone() });
    }
    if let Sriov::Physical { vfs, .. } = &function.sriov
        && !vfs.is_empty()
    {
        return Err(Refusal::HasFunctions { address, count: vfs.len() });
    }
    if let Some(interface) = interface_up(function) {
        return Err(Refusal::InterfaceUp { address, interface: interface.to_owned() });
    }
    match &function.driver {
        // Half way: the driver is what it had.
        Some(driver) if !is_ours && !is_idle(driver) && !known.take_from.contains(driver) => {
            Err(Refusal::HostUses { address, driver: driver.clone() })
        }
        _ => Ok(group),
    }
}

fn not_quarantined(address: Bdf, known: Known<'_>) -> Result<(), Refusal> {
    let Some(quarantine) = known.quarantined.get(&address) else { return Ok(()) };
    let (code, message) = (quarantine.code.to_string(), quarantine.message.clone());
    Err(Refusal::Quarantined { address, code, message })
}

fn is_idle(driver: &str) -> bool {
    IDLE_DRIVERS.contains(&driver)
}

/// Whether a function is a part of the same card as another, and has no use without that.
pub(crate) fn is_companion(function: &PciFunction, other: &PciFunction) -> bool {
    let (a, b) = (function.address, other.address);
    let is_same_card = (a.domain, a.bus, a.device()) == (b.domain, b.bus, b.device()) && a != b;
    is_same_card && function.iommu_group == other.iommu_group && COMPANIONS.contains(&other.class_of())
}

/// Whether another function of the group is bound as well. One without a driver may stay as it is, unless it is a part of
/// the same card.
fn goes_along(
    function: &PciFunction,
    other: &PciFunction,
    group: u32,
    known: Known<'_>,
    pod: ObjectId,
) -> Result<bool, Refusal> {
    if let Some(binding) = known.bindings.get(&other.address) {
        let (address, holder) = (other.address, binding.pod);
        return if holder == pod { Ok(true) } else { Err(Refusal::HeldBy { address, pod: holder }) };
    }
    if is_companion(function, other) {
        return not_quarantined(other.address, known).map(|()| true);
    }
    match &other.driver {
        Some(driver) if !is_idle(driver) => {
            let (address, other, driver) = (function.address, other.address, driver.clone());
            Err(Refusal::GroupInUse { address, group, other, driver })
        }
        _ => Ok(false),
    }
}

/// The functions that a pod's guest gets by its intent, each once.
///
/// # Errors
/// What cannot be given to a guest at all, for people.
pub fn addresses(devices: &[DeviceIntent]) -> Result<BTreeSet<Bdf>, String> {
    let address = |one: &DeviceIntent| {
        if one.share.is_some() {
            let of = format!("device {} of container {}", one.device, one.container);
            return Err(format!(
                "{of} is shared, and a guest gets whole devices only: ask for {} whole",
                one.resource
            ));
        }
        one.address
            .parse()
            .map_err(|error| format!("device {} of container {}: {error}", one.device, one.container))
    };
    devices.iter().map(address).collect()
}

/// The networks to which a pod's functions attach it, by the function's address.
///
/// # Errors
/// One by a device that the pod has not, for people.
pub fn networks(
    networks: &[NetworkAttachment],
    devices: &[DeviceIntent],
) -> Result<BTreeMap<Bdf, NetworkAttachment>, String> {
    let mut found = BTreeMap::new();
    for network in networks {
        let device = devices.iter().find(|device| device.device == network.device);
        let address = device.and_then(|device| device.address.parse::<Bdf>().ok());
        let address = address.ok_or_else(|| {
            format!("network {}: the pod has no device {}", network.network, network.device)
        })?;
        if found.insert(address, network.clone()).is_some() {
            return Err(format!("network {}: {address} attaches the pod already", network.network));
        }
    }
    Ok(found)
}
