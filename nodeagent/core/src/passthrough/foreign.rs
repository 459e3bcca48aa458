//! What somebody else on the host uses, found before it is offered to anybody or attached: another machine's QEMU, a container.

use std::collections::{BTreeMap, BTreeSet};

use super::machine::{DEVICES, VFIO_PCI};
use super::{Binding, Machine, interface_up};
use crate::hardware::{Bdf, Inventory, PciFunction, TreeError, function_at};

/// Base class of network controllers. PCI Code and ID Assignment Specification, section 1.
const CLASS_NETWORK: u32 = 0x02;

/// The functions that somebody else on this host uses, with who does, for people:
///
/// - bound to vfio-pci, and another process has the file of its group open, or its own one (`/dev/vfio/devices/vfioN`): the kernel lets
///   one process have it at a time. Where not all processes can be looked at, the file of the group is opened to find out, and whoever
///   does so at that very moment is refused;
/// - a NIC or its function whose interface was moved into another network namespace, or belongs to a bridge or bond.
///
/// Functions of this node's pods are passed over, and what is in a group with one: their guests have that open.
pub fn foreign_owners(
    machine: &mut dyn Machine,
    inventory: &Inventory,
    bindings: &BTreeMap<Bdf, Binding>,
) -> BTreeMap<Bdf, String> {
    let functions = inventory.functions.values();
    let ours: BTreeSet<u32> = functions
        .clone()
        .filter(|one| bindings.contains_key(&one.address))
        .filter_map(|one| one.iommu_group)
        .collect();
    let is_free = |one: &&PciFunction| one.iommu_group.is_some_and(|group| !ours.contains(&group));
    let is_for_guests = |one: &&PciFunction| one.driver.as_deref() == Some(VFIO_PCI);
    let open_files = match functions.clone().any(|one| is_for_guests(&one) && is_free(&one)) {
        true => machine.vfio_files().ok(),
        false => Some(BTreeMap::new()),
    };
    let mut tried = BTreeMap::new();
    let mut owners = BTreeMap::new();
    for function in functions.filter(|one| !bindings.contains_key(&one.address)) {
        let owner = match (function.driver.as_deref(), function.iommu_group) {
            (Some(VFIO_PCI), Some(group)) if !ours.contains(&group) => match &open_files {
                Some(open) => user_of_files(machine, open, function.address, group),
                None => {
                    let is_busy = *tried
                        .entry(group)
                        .or_insert_with(|| matches!(machine.try_group(group), Err(TreeError::Other(_))));
                    is_busy.then(|| format!("another process has /dev/vfio/{group} open"))
                }
            },
            (Some(driver), _) if driver != VFIO_PCI && function.class >> 16 == CLASS_NETWORK => {
                user_of_interface(machine, function)
            }
            _ => None,
        };
        owners.extend(owner.map(|owner| (function.address, owner)));
    }
    owners
}

/// Who uses these functions of the host's, pods apart: [`foreign_owners`], and the host itself by an interface that is up. From who is named
/// a function must not be taken: the kernel would wait for the process, and the interface would be gone.
pub(super) fn users_of(
    machine: &mut dyn Machine,
    functions: &[Bdf],
    bindings: &BTreeMap<Bdf, Binding>,
) -> BTreeMap<Bdf, String> {
    // Whose group it is, is said by what pods have.
    let all = functions.iter().chain(bindings.keys());
    let found = all.filter_map(|at| Some((*at, function_at(machine, *at)?))).collect();
    let inventory = Inventory { functions: found, ..Inventory::default() };
    let mut users = foreign_owners(machine, &inventory, bindings);
    let of_host = inventory.functions.values().filter(|one| !bindings.contains_key(&one.address));
    for (function, interface) in of_host.filter_map(|one| Some((one, interface_up(one)?))) {
        users
            .entry(function.address)
            .or_insert_with(|| format!("its interface {interface} is up on this host"));
    }
    users
}

/// Which process has a file open by which a function is used.
fn user_of_files(
    machine: &dyn Machine,
    open: &BTreeMap<String, u32>,
    address: Bdf,
    group: u32,
) -> Option<String> {
    let own = machine.list(&format!("{DEVICES}/{address}/vfio-dev")).unwrap_or_default();
    let own = own.into_iter().map(|name| format!("/dev/vfio/devices/{name}"));
    let mut paths = std::iter::once(format!("/dev/vfio/{group}")).chain(own);
    paths.find_map(|path| Some(format!("process {} has {path} open", open.get(&path)?)))
}

/// Who has the interface of a function, beside the host itself. A driver of interfaces leaves the folder `net` behind, empty, when its
/// interface is seen in another namespace only.
fn user_of_interface(machine: &dyn Machine, function: &PciFunction) -> Option<String> {
    let dir = format!("{DEVICES}/{}/net", function.address);
    let names = machine.list(&dir).ok()?;
    if names.is_empty() {
        return Some("its interface is in another network namespace".to_owned());
    }
    names.iter().find_map(|name| {
        let target = machine.link(&format!("{dir}/{name}/master")).ok()?;
        Some(format!("its interface {name} belongs to {}", target.rsplit('/').next()?))
    })
}
