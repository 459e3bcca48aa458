//! The ledger of one node: its devices, what each is offered as, and who holds it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bulkhead_types::{
    AllocatedDevice, CORES_PER_CARD, DEVICE_MEMORY_UNIT_BYTES, Device, DeviceFence, DeviceShare, NodeGpu,
    ObjectId, Rare, ResourceSlice, SriovNetworkNodeState,
};
use smol_str::SmolStr;

use super::classes::Offer;
use super::functions::Functions;
use super::mode::{Mode, Offered};
use super::needs::Share;
use super::{Ask, Classes, Needs};

/// How much there is of a resource on a node. Memory is in MiB, compute in per cent of a card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceCount {
    /// What the node has.
    pub capacity: u64,
    /// What pods may have of it: without what is not healthy, kept back by an operator, or used by others.
    pub allocatable: u64,
    /// What pods have.
    pub allocated: u64,
}

/// One device and who holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceUse {
    /// What the agent says of it, without what only operators want to know (`pci`): ledgers are many.
    pub device: Arc<Device>,
    /// An operator keeps it from pods.
    pub is_cordoned: bool,
    /// Its virtual functions or partitions are offered instead of it.
    pub is_split: bool,
    /// The fault because of which it is kept from pods.
    pub fence: Option<DeviceFence>,
    /// What the mode of the node's cards lets it be given as.
    pub offered: Offered,
    pub(super) offer: Option<Arc<Offer>>,
    /// What of a card is counted for its node, and under which name.
    pub(super) counted: Option<(SmolStr, u64)>,
    /// Who holds how much of it; all of it when there is no share. In order.
    pub holders: Vec<(ObjectId, Option<DeviceShare>)>,
}

impl DeviceUse {
    /// Whether somebody new may get it, as far as it is free.
    #[must_use]
    pub fn is_offered(&self) -> bool {
        self.offer.is_some()
            && self.device.is_usable()
            && !self.is_cordoned
            && !self.is_split
            && self.fence.is_none()
            && (self.offered.whole || self.offered.shares)
    }

    /// Whether it is part of a card.
    #[must_use]
    pub fn is_partition(&self) -> bool {
        self.device.partition.get().is_some()
    }

    /// The resource of the whole device.
    #[must_use]
    pub fn resource(&self) -> Option<&SmolStr> {
        self.offer.as_ref().map(|offer| &offer.whole)
    }

    /// Of a virtual function that a policy made: its MTU, when the policy says.
    #[must_use]
    pub fn mtu(&self) -> Option<u32> {
        self.offer.as_ref().and_then(|offer| offer.mtu)
    }

    /// Memory and compute that it offers to all who share it: bytes, and per cent of a card.
    pub(super) fn shareable(&self) -> (u64, u64) {
        let sharing = self.offer.as_ref().and_then(|offer| offer.sharing.as_ref());
        let Some(sharing) = sharing else { return (0, 0) };
        let scaled = |amount: u64, percent: u32| (u128::from(amount) * u128::from(percent) / 100) as u64;
        let memory = scaled(self.device.capacity.memory_bytes, sharing.memory_scaling_percent);
        (memory, scaled(CORES_PER_CARD, sharing.core_scaling_percent))
    }

    /// Sums of what is held of it: memory in bytes, compute in per cent of a card.
    pub(super) fn shared(&self) -> (u64, u64) {
        let shares = self.holders.iter().filter_map(|(_, share)| *share);
        shares.fold((0, 0), |(memory, cores), share| (memory + share.memory_bytes, cores + share.cores))
    }

    pub(super) fn is_free(&self) -> bool {
        self.holders.is_empty()
    }

    /// Whether such a share is free on it, beside those who have one.
    fn has_room(&self, share: DeviceShare, is_counted: bool) -> bool {
        let Some(sharing) = self.offer.as_ref().and_then(|offer| offer.sharing.as_ref()) else {
            return false;
        };
        let has_it_alone = |share: &Option<DeviceShare>| share.is_none_or(|share| share.is_exclusive());
        if self.holders.iter().any(|(_, share)| has_it_alone(share)) {
            return false;
        }
        let ((memory, cores), (used_memory, used_cores)) = (self.shareable(), self.shared());
        let has_cores = if share.is_exclusive() {
            self.is_free()
        } else {
            share.cores <= cores.saturating_sub(used_cores)
        };
        has_cores
            && (!is_counted || self.holders.len() < sharing.split_count as usize)
            && share.memory_bytes <= memory.saturating_sub(used_memory)
    }

    /// The share of it that an ask means; `None` inside for all of it.
    pub(super) fn share_of(&self, ask: &Ask) -> Option<DeviceShare> {
        ask.share.map(|share: Share| share.on(self.device.capacity.memory_bytes))
    }

    /// Whether it is what an ask means, and free enough.
    pub(super) fn suits(&self, ask: &Ask) -> bool {
        let Some(offer) = self.offer.as_ref().filter(|_| self.is_offered()) else { return false };
        if ask.choice.as_ref().is_some_and(|choice| !choice.allows(&self.device)) {
            return false;
        }
        match self.share_of(ask).zip(ask.share) {
            None => {
                self.offered.whole
                    && offer.whole == ask.resource
                    && self.device.capacity.memory_bytes >= ask.least_memory_bytes
                    && self.is_free()
            }
            Some((share, asked)) => {
                self.offered.shares
                    && offer.shares_as(&ask.resource)
                    && self.has_room(share, asked.is_counted())
            }
        }
    }
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeDevices {
    devices: BTreeMap<SmolStr, DeviceUse>,
    /// Devices that are free as a whole, by resource: a first look for whole ones costs no more than this.
    free: BTreeMap<SmolStr, u32>,
    /// Some are partitions: then cards and their partitions are looked at together.
    has_partitions: bool,
    /// What of the node's mode is not there yet.
    is_reconfiguring: bool,
}

impl NodeDevices {
    /// The devices of a node that nobody holds yet.
    pub(super) fn new(
        slice: &ResourceSlice,
        classes: &Classes,
        gpu: Option<&NodeGpu>,
        nics: Option<&SriovNetworkNodeState>,
    ) -> Self {
        let mode = Mode::of(gpu, slice.gpu_mode());
        let functions = nics.map(|nics| Functions::of(slice, nics));
        let is_there = |device: &&Device| !device.is_lost();
        let parents: BTreeSet<&SmolStr> =
            slice.devices.iter().filter(is_there).filter_map(|device| device.parent.as_ref()).collect();
        let one = |device: &Device| {
            let is_split = parents.contains(&device.id);
            let of_policy = functions.as_ref().and_then(|functions| functions.offer_of(device, classes));
            let (offer, offered) = match of_policy {
                Some(offer) => (offer, Offered::ALL),
                None => mode.offer(slice, device, is_split, classes),
            };
            let known = DeviceUse {
                device: Arc::new(Device { pci: Rare::NONE, ..device.clone() }),
                is_cordoned: slice.is_cordoned(&device.id)
                    || functions.as_ref().is_some_and(|functions| functions.is_blocked(device)),
                is_split,
                fence: slice.fence(&device.id).cloned(),
                offered,
                offer,
                counted: classes.counted_of(device).filter(|_| device.partition.get().is_none()),
                holders: Vec::new(),
            };
            (device.id.clone(), known)
        };
        let devices = slice.devices.iter().map(one).collect();
        let has_partitions = slice.devices.iter().any(|device| device.partition.get().is_some());
        let is_reconfiguring = mode == Mode::Reconfiguring;
        let mut found = Self { devices, free: BTreeMap::new(), has_partitions, is_reconfiguring };
        let offered: Vec<SmolStr> = found.devices.values().filter_map(counted_free).cloned().collect();
        offered.into_iter().for_each(|resource| *found.free.entry(resource).or_insert(0) += 1);
        found
    }

    /// Every device, by id.
    pub fn iter(&self) -> impl Iterator<Item = (&SmolStr, &DeviceUse)> {
        self.devices.iter()
    }

    /// Whether the cards are not yet in the mode that they shall be in: then nobody new gets one.
    #[must_use]
    pub fn is_reconfiguring(&self) -> bool {
        self.is_reconfiguring
    }

    /// One device.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&DeviceUse> {
        self.devices.get(id)
    }

    /// A pod holds what it was given.
    pub(crate) fn take(&mut self, pod: ObjectId, given: &[AllocatedDevice]) {
        for one in given {
            self.change(&one.device, |device| {
                device.holders.push((pod, one.share));
                device.holders.sort_unstable();
            });
        }
    }

    /// A pod holds nothing any more. Once agents attach devices, one that was attached is offered again only after its agent
    /// said that it was reset: that wait belongs here.
    pub(crate) fn release(&mut self, pod: ObjectId, given: &[AllocatedDevice]) {
        for one in given {
            self.change(&one.device, |device| {
                if let Some(at) = device.holders.iter().position(|held| *held == (pod, one.share)) {
                    device.holders.remove(at);
                }
            });
        }
    }

    fn change(&mut self, id: &str, change: impl FnOnce(&mut DeviceUse)) {
        let Some(device) = self.devices.get_mut(id) else { return };
        let was = counted_free(device).cloned();
        change(device);
        let is = counted_free(device).cloned();
        if was == is {
            return;
        }
        if let Some(count) = was.as_ref().and_then(|resource| self.free.get_mut(resource)) {
            *count -= 1;
            if *count == 0 {
                self.free.retain(|_, count| *count > 0);
            }
        }
        if let Some(resource) = is {
            *self.free.entry(resource).or_insert(0) += 1;
        }
    }

    /// The same devices when nobody holds any.
    pub(crate) fn emptied(&self) -> Self {
        let mut emptied = self.clone();
        let held: Vec<SmolStr> =
            self.iter().filter(|(_, one)| !one.is_free()).map(|(id, _)| id.clone()).collect();
        held.iter().for_each(|id| emptied.change(id, |device| device.holders.clear()));
        emptied
    }

    /// How many whole devices of a resource are free.
    pub(crate) fn free_of(&self, resource: &SmolStr) -> u32 {
        self.free.get(resource).copied().unwrap_or(0)
    }

    /// How many whole devices of a resource somebody has, and how many there are, offered ones only.
    pub(crate) fn used_of(&self, resource: &SmolStr) -> (u64, u64) {
        let is_one = |device: &&DeviceUse| {
            device.is_offered() && device.offer.as_ref().is_some_and(|offer| offer.whole == *resource)
        };
        let count = |(used, all), device: &DeviceUse| (used + u64::from(!device.is_free()), all + 1);
        self.devices.values().filter(is_one).fold((0, 0), count)
    }

    /// A first look: whether as many whole devices are free as a pod asks for.
    ///
    /// # Errors
    /// Of which resource there are too few.
    pub(super) fn check_counts(&self, needs: &Needs) -> Result<(), SmolStr> {
        for ask in needs.asks.iter().filter(|ask| ask.share.is_none()) {
            if self.free.get(&ask.resource).copied().unwrap_or(0) < ask.count {
                return Err(ask.resource.clone());
            }
        }
        Ok(())
    }

    /// Whether nobody has what a device is a part of, or a part of it.
    pub(super) fn is_apart(&self, device: &Device) -> bool {
        if !self.has_partitions {
            return true;
        }
        let is_related = |other: &&DeviceUse| match device.partition.get() {
            Some(_) => Some(&other.device.id) == device.parent.as_ref(),
            None => other.is_partition() && other.device.parent.as_ref() == Some(&device.id),
        };
        self.devices.values().filter(is_related).all(DeviceUse::is_free)
    }

    /// Functions of one IOMMU group are all one guest's, so a device is nobody's while another pod has one of its group.
    pub(super) fn is_group_free(&self, device: &Device) -> bool {
        // Partitions of one card are in one group, and yet each has a guest of its own.
        let group = device.iommu_group.filter(|_| device.partition.get().is_none());
        let Some(group) = group else { return self.is_apart(device) };
        let others = self.devices.values().filter(|other| other.device.iommu_group == Some(group));
        others.filter(|other| other.device.id != device.id).all(DeviceUse::is_free) && self.is_apart(device)
    }

    /// Whether a pod may have exactly these: of the right kind, free, and as many as it asks for.
    pub(crate) fn may_take(&self, needs: &Needs, given: &[AllocatedDevice]) -> bool {
        let wanted: usize = needs.asks.iter().map(|ask| ask.count as usize).sum();
        if given.len() != wanted {
            return false;
        }
        // Each is taken on a copy, so that what one container gets is seen for the next.
        let mut after = self.clone();
        for ask in &needs.asks {
            let own =
                given.iter().filter(|one| one.container == ask.container && one.resource == ask.resource);
            let mut distinct = BTreeSet::new();
            for one in own {
                let Some(device) = after.get(&one.device) else { return false };
                let is_right = device.suits(ask) && device.share_of(ask) == one.share;
                if !is_right || !distinct.insert(&one.device) || !self.is_group_free(&device.device) {
                    return false;
                }
                after.take(ObjectId(0), std::slice::from_ref(one));
            }
            if distinct.len() != ask.count as usize {
                return false;
            }
        }
        true
    }

    /// What there is of each resource, by name.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<SmolStr, ResourceCount> {
        let mut counts = BTreeMap::<SmolStr, ResourceCount>::new();
        let mut add = |name: &SmolStr, total: u64, offered: bool, allocated: u64| {
            let count = counts.entry(name.clone()).or_default();
            count.capacity += total;
            count.allocatable += if offered { total } else { 0 };
            count.allocated += allocated;
        };
        for device in self.devices.values() {
            let Some(offer) = &device.offer else { continue };
            let offered = device.is_offered();
            let is_shared = device.holders.iter().any(|(_, share)| share.is_some());
            let is_whole = device.holders.iter().any(|(_, share)| share.is_none());
            if !device.offered.uncounted {
                add(&offer.whole, 1, offered && device.offered.whole && !is_shared, u64::from(is_whole));
            }
            if let Some((name, amount)) = &device.counted {
                let held = if is_whole { *amount } else { 0 };
                add(name, *amount, offered && device.offered.whole, held);
            }
            let Some(sharing) = &offer.sharing else { continue };
            let ((memory, cores), (used_memory, used_cores)) = (device.shareable(), device.shared());
            let offered = offered && device.offered.shares && !is_whole;
            let users = if is_shared { device.holders.len() as u64 } else { 0 };
            add(&sharing.extended_resource_name, u64::from(sharing.split_count), offered, users);
            if let Some(slots) = sharing.slots_resource_name.get() {
                add(slots, u64::from(sharing.split_count), offered, users);
            }
            let mib = |bytes: u64| bytes / DEVICE_MEMORY_UNIT_BYTES;
            add(&sharing.memory_resource_name, mib(memory), offered, mib(used_memory));
            add(&sharing.cores_resource_name, cores, offered, used_cores);
            let Some(units) = offer.units() else { continue };
            let (bytes, all) =
                (device.device.capacity.memory_bytes, units.units(device.device.capacity.memory_bytes));
            let scaled = all * u64::from(sharing.memory_scaling_percent) / 100;
            // What a share has of a card's memory was rounded down.
            let of = |share: DeviceShare| {
                let units = u128::from(share.memory_bytes) * u128::from(all);
                units.div_ceil(u128::from(bytes.max(1))) as u64
            };
            let used = device.holders.iter().filter_map(|(_, share)| *share).map(of).sum();
            add(&units.extended_resource_name, scaled, offered, used);
        }
        counts
    }
}

/// The resource for which a device counts as free.
fn counted_free(device: &DeviceUse) -> Option<&SmolStr> {
    device.resource().filter(|_| device.is_offered() && device.offered.whole && device.is_free())
}
