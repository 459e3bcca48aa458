//! Functions as the control plane knows devices: everything that pods could have, with who has it.

use std::collections::BTreeMap;

use bulkhead_types::{Device, DeviceCapacity, DeviceHealth, NicFacts, Rare};
use smol_str::SmolStr;

use super::pci_facts::{pci_facts, spoken};
use super::{Bdf, Inventory, PciFunction, PciId, Sriov};
use crate::passthrough::{Known, NO_RESET, NicReport, can_be_reset, interface_up, is_companion};

/// Drivers that hold a function for guests: nobody else uses what they have.
const DRIVERS_FOR_GUESTS: [&str; 2] = ["vfio-pci", "pci-stub"];
/// Base classes of what makes up the machine itself (memory controllers, bridges, system peripherals, the processor's own
/// counters): hundreds of functions of a server that nobody gives away. PCI Code and ID Assignment Specification, section 1.
const CLASSES_OF_THE_MACHINE: [u32; 4] = [0x05, 0x06, 0x08, 0x11];
/// The compute of a whole card.
const CORES_PER_CARD: u64 = bulkhead_types::CORES_PER_CARD;

impl Inventory {
    /// The machine's devices, in the order of their addresses.
    ///
    /// They are known by address: a card's own number and memory are known to its driver only. What the host itself uses is
    /// said, so that nobody is offered it: a function that a driver of the host has.
    #[must_use]
    pub fn devices(&self) -> Vec<Device> {
        let functions = self.functions.values().filter(|function| is_device(function));
        functions.zip(0..).map(|(function, index)| device(function, index)).collect()
    }

    /// The same with what the agent knows beside: what pods have is told as it was before, so that nothing of it changes with
    /// their guests; what goes to nobody is not healthy; drivers from which functions may be taken are no use of the host; and
    /// what became of the NICs. Of `sriov_devices` that have virtual functions the same is told as of NICs.
    #[must_use]
    pub fn devices_as(
        &self,
        known: Known<'_>,
        nics: &BTreeMap<Bdf, NicReport>,
        sriov_devices: &[PciId],
    ) -> Vec<Device> {
        let mut devices = self.devices();
        for device in &mut devices {
            let Some(function) = device.address.parse().ok().and_then(|at: Bdf| self.functions.get(&at))
            else {
                continue;
            };
            match known.bindings.get(&function.address) {
                Some(binding) => {
                    device.driver = SmolStr::new(binding.driver.as_deref().unwrap_or_default());
                    device.in_use_by = SmolStr::default();
                }
                None if known.foreign.contains_key(&function.address) => {
                    device.in_use_by = SmolStr::new(&known.foreign[&function.address]);
                }
                None if function.driver.as_ref().is_some_and(|driver| known.take_from.contains(driver))
                    && interface_up(function).is_none() =>
                {
                    device.in_use_by = SmolStr::default();
                }
                None => {}
            }
            let unhealthy = |code: SmolStr, since_ms| DeviceHealth::Unhealthy { code, since_ms };
            let mut card = self.companions(function).chain([function]).map(|one| one.address);
            if let Some(kept) = card.find_map(|one| known.quarantined.get(&one)) {
                device.health = unhealthy(kept.code.clone(), kept.since_ms);
            } else if device.in_use_by.is_empty()
                && function.iommu_group.is_some()
                && !self.can_be_reset(function)
            {
                device.health = unhealthy(SmolStr::new_static(NO_RESET), 0);
            }
            if sriov_devices.contains(&PciId { vendor: function.vendor, device: function.device }) {
                device.nic = with_functions(function);
            }
        }
        report_nics(&mut devices, nics);
        devices
    }
}

impl Inventory {
    /// What goes with a function.
    fn companions<'a>(&'a self, function: &'a PciFunction) -> impl Iterator<Item = &'a PciFunction> {
        self.functions.values().filter(move |other| is_companion(function, other))
    }

    /// Whether a function could be reset that a pod has alone, and everything that goes with it.
    fn can_be_reset(&self, function: &PciFunction) -> bool {
        let mut card = self.companions(function).chain([function]);
        let ours = self.companions(function).chain([function]).map(|one| one.address).collect();
        card.all(|one| can_be_reset(self, one, &ours).is_ok())
    }
}

/// Says what became of NICs.
pub fn report_nics(devices: &mut [Device], nics: &BTreeMap<Bdf, NicReport>) {
    for device in devices {
        let report = device.address.parse().ok().and_then(|at: Bdf| nics.get(&at));
        if let (Some(report), Some(facts)) = (report, device.nic.get()) {
            let (step, sync_error) = (report.step.clone(), report.sync_error.clone());
            device.nic = Rare::some(NicFacts { step, sync_error, ..facts.clone() });
        }
    }
}

/// Bound for guests a function of the machine itself counts as well: somebody wants it so.
fn is_device(function: &PciFunction) -> bool {
    let is_of_machine = CLASSES_OF_THE_MACHINE.contains(&(function.class >> 16));
    !function.is_bridge() && (!is_of_machine || is_for_guests(function))
}

pub(super) fn is_for_guests(function: &PciFunction) -> bool {
    function.driver.as_deref().is_some_and(|driver| DRIVERS_FOR_GUESTS.contains(&driver))
}

fn device(function: &PciFunction, index: u32) -> Device {
    let id = SmolStr::new(function.address.to_string());
    Device {
        address: id.clone(),
        id,
        index,
        vendor: function.vendor,
        device: function.device,
        class_code: function.class,
        model: SmolStr::default(),
        driver: SmolStr::new(function.driver.as_deref().unwrap_or_default()),
        numa_node: function.numa_node,
        pcie_root: SmolStr::new(&function.root),
        iommu_group: function.iommu_group,
        parent: match &function.sriov {
            Sriov::Virtual { physical, .. } => Some(SmolStr::new(physical.to_string())),
            Sriov::None | Sriov::Physical { .. } => None,
        },
        links: Vec::new(),
        capacity: DeviceCapacity { memory_bytes: 0, cores: CORES_PER_CARD },
        health: DeviceHealth::Healthy,
        in_use_by: used_by(function),
        nic: nic(function),
        partition: Rare::NONE,
        pci: Rare::some(pci_facts(function)),
    }
}

/// Base class of network controllers, Ethernet and InfiniBand. PCI Code and ID Assignment Specification, section 1.
const CLASS_NETWORK: u32 = 0x02;

/// What a function is as a NIC that can have virtual functions; what became of policies is added by [`Inventory::devices_as`].
fn nic(function: &PciFunction) -> Rare<NicFacts> {
    if function.class >> 16 == CLASS_NETWORK { with_functions(function) } else { Rare::NONE }
}

fn with_functions(function: &PciFunction) -> Rare<NicFacts> {
    let Sriov::Physical { vfs_max, vfs, .. } = &function.sriov else { return Rare::NONE };
    let interface = function.interfaces.first();
    Rare::some(NicFacts {
        name: interface.map(|one| SmolStr::new(&one.name)).unwrap_or_default(),
        mac: interface.map(|one| SmolStr::new(&one.mac)).unwrap_or_default(),
        mtu: interface.map_or(0, |one| one.mtu),
        link_type: interface.and_then(|one| one.link_type).map(spoken),
        total_vfs: *vfs_max,
        num_vfs: u32::try_from(vfs.len()).unwrap_or(u32::MAX),
        step: SmolStr::default(),
        sync_error: SmolStr::default(),
    })
}

/// Who of the host has a function; nothing when nobody has.
fn used_by(function: &PciFunction) -> SmolStr {
    match function.driver.as_deref() {
        Some(driver) if !is_for_guests(function) => SmolStr::new(format!("host driver {driver}")),
        _ => SmolStr::default(),
    }
}
