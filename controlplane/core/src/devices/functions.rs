//! Which resource the virtual functions of a node are by its SriovNetworkNodeState.
//!
//! The number of a function is its place among all of its NIC's, by address: a NIC's functions follow each other, and all of
//! them come and go together (PCI Express SR-IOV: First VF Offset and VF Stride).

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_types::{Device, ResourceSlice, SriovDeviceType, SriovInterface, SriovNetworkNodeState};
use smol_str::SmolStr;

use super::Classes;
use super::classes::Offer;

/// See the module.
pub(super) struct Functions<'a> {
    /// The NICs that policies mean, and what may not be given of any NIC, by device id.
    nics: BTreeMap<&'a SmolStr, (Option<&'a SriovInterface>, bool)>,
    /// The functions of those, by NIC and address.
    numbers: BTreeMap<&'a SmolStr, Vec<&'a SmolStr>>,
}

impl<'a> Functions<'a> {
    pub(super) fn of(slice: &'a ResourceSlice, state: &'a SriovNetworkNodeState) -> Self {
        let mut nics = BTreeMap::new();
        for device in slice.devices.iter().filter(|device| device.parent.is_none()) {
            let interface = state.spec.interfaces.iter().find(|one| one.pci_address == device.address);
            let is_blocked = state.is_blocked(&device.address);
            if interface.is_some() || is_blocked {
                nics.insert(&device.id, (interface, is_blocked));
            }
        }
        let mut numbers = BTreeMap::<_, Vec<_>>::new();
        for device in &slice.devices {
            if let Some(parent) = device.parent.as_ref().filter(|parent| nics.contains_key(parent)) {
                numbers.entry(parent).or_default().push(&device.address);
            }
        }
        numbers.values_mut().for_each(|all| all.sort_unstable());
        Self { nics, numbers }
    }

    /// Whether a function is given to nobody new, because its NIC is about to change.
    pub(super) fn is_blocked(&self, device: &Device) -> bool {
        let nic = device.parent.as_ref().and_then(|parent| self.nics.get(parent));
        nic.is_some_and(|(_, is_blocked)| *is_blocked)
    }

    /// As what a function is offered, perhaps not at all; `None` when no policy means its NIC.
    pub(super) fn offer_of(&self, device: &Device, classes: &Classes) -> Option<Option<Arc<Offer>>> {
        let parent = device.parent.as_ref()?;
        let interface = self.nics.get(parent)?.0?;
        let number = self.numbers.get(parent)?.binary_search(&&device.address).ok()?;
        let number = u32::try_from(number).ok()?;
        let group = interface.vf_groups.iter().find(|group| (group.first..=group.last).contains(&number));
        // Functions with the NIC's own driver are for containers of the host's kernel, which there are none of.
        let group = group.filter(|group| group.device_type == SriovDeviceType::VfioPci);
        Some(group.map(|group| {
            let whole = classes.resource_of_policy(device, &group.resource_name);
            Arc::new(Offer { whole, sharing: None, mtu: group.mtu, has_modes: false })
        }))
    }
}
