//! The DeviceClasses of a State, by what devices and pods look for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bulkhead_types::{
    Device, DeviceChoice, DeviceClass, DeviceClassSpec, DeviceMemoryUnits, DevicePartition, DeviceRole,
    DeviceSharing, DeviceTraits, PartitionModel, PartitionStrategy, SRIOV_RESOURCE_PREFIX,
    SriovNetworkNodePolicy, StringMap, class_of,
};
use smol_str::SmolStr;

use crate::networks::full_name;

/// What the name of a resource stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ResourceRole {
    /// Whole devices, or partitions.
    Whole,
    /// How many shared devices.
    Count,
    /// Memory of each of the devices that another resource counts.
    Memory(SmolStr),
    /// Compute of each of those.
    Cores(SmolStr),
    /// Memory that each of the whole devices that another resource counts has at least.
    LeastMemory(SmolStr),
    /// How many places on shared devices.
    Slots,
    /// Units of the memory of shared devices, of so many bytes.
    Units(u64),
}

/// How devices of a class are offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    /// The resource of a whole device, or of a partition.
    pub(crate) whole: SmolStr,
    /// How it is shared, if it is.
    pub(crate) sharing: Option<DeviceSharing>,
    /// Of a virtual function that a policy made: its MTU, when the policy says.
    pub(crate) mtu: Option<u32>,
    /// Whether the cards of the class have modes.
    pub(crate) has_modes: bool,
}

impl Offer {
    /// The units of its memory, if it is shared by them.
    pub(crate) fn units(&self) -> Option<&DeviceMemoryUnits> {
        self.sharing.as_ref().and_then(|sharing| sharing.memory_units.get())
    }

    /// Whether shares of it are asked for by this name.
    pub(crate) fn shares_as(&self, resource: &str) -> bool {
        let by_count = self.sharing.as_ref().is_some_and(|one| one.extended_resource_name == resource);
        let slots = self.sharing.as_ref().and_then(|one| one.slots_resource_name.get());
        by_count
            || slots.is_some_and(|name| name == resource)
            || self.units().is_some_and(|units| units.extended_resource_name == resource)
    }
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Classes {
    /// By name.
    classes: BTreeMap<SmolStr, Arc<DeviceClass>>,
    offers: BTreeMap<SmolStr, Arc<Offer>>,
    roles: BTreeMap<SmolStr, ResourceRole>,
    /// By which class a resource is what it is.
    owners: BTreeMap<SmolStr, SmolStr>,
    /// The domains of resources of virtual functions: those of the classes that have such.
    prefixes: BTreeSet<SmolStr>,
}

impl Classes {
    pub(crate) fn of<'a>(
        classes: impl Iterator<Item = &'a Arc<DeviceClass>>,
        policies: impl Iterator<Item = &'a Arc<SriovNetworkNodePolicy>>,
    ) -> Self {
        let mut found = Self::default();
        for class in classes {
            found.classes.insert(class.meta.name.as_str().into(), Arc::clone(class));
        }
        for (name, class) in &found.classes {
            let (whole, sharing) = (class.spec.extended_resource_name.clone(), class.spec.sharing.clone());
            // The first class by name says what a resource is.
            let mut is = |resource: &SmolStr, role| {
                found.roles.entry(resource.clone()).or_insert(role);
                found.owners.entry(resource.clone()).or_insert_with(|| name.clone());
            };
            is(&whole, ResourceRole::Whole);
            if let Some(sharing) = &sharing {
                let count = sharing.extended_resource_name.clone();
                is(&count, ResourceRole::Count);
                is(&sharing.memory_resource_name, ResourceRole::Memory(count.clone()));
                is(&sharing.cores_resource_name, ResourceRole::Cores(count));
                if let Some(slots) = sharing.slots_resource_name.get() {
                    is(slots, ResourceRole::Slots);
                }
                if let Some(units) = sharing.memory_units.get() {
                    is(&units.extended_resource_name, ResourceRole::Units(units.unit_bytes()));
                }
            }
            if let Some(memory) = class.spec.memory_resource_name.get() {
                is(memory, ResourceRole::LeastMemory(whole.clone()));
            }
            class.spec.partition_names().for_each(|partition| is(partition, ResourceRole::Whole));
            let has_modes = sharing.is_some() || class.spec.partitioning.get().is_some();
            found.offers.insert(name.clone(), Arc::new(Offer { whole, sharing, mtu: None, has_modes }));
        }
        let of_vfs = found.classes.values().filter(|one| one.spec.selector.role == DeviceRole::Virtual);
        found.prefixes = of_vfs.map(|class| domain(&class.spec.extended_resource_name)).collect();
        for policy in policies {
            let resources: Vec<SmolStr> =
                found.prefixes().map(|prefix| full_name(prefix, &policy.spec.resource_name)).collect();
            for resource in resources {
                found.roles.entry(resource).or_insert(ResourceRole::Whole);
            }
        }
        found
    }

    /// The domains of resources of virtual functions; that of the classes that come along where no class has any.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = &str> {
        let default = self.prefixes.is_empty().then_some(SRIOV_RESOURCE_PREFIX);
        self.prefixes.iter().map(SmolStr::as_str).chain(default)
    }

    /// The resource that a virtual function is by a policy: in the domain of the class that would have it.
    pub(crate) fn resource_of_policy(&self, device: &Device, resource_name: &str) -> SmolStr {
        let own = self.offer_of(device).map(|offer| domain(&offer.whole));
        let own = own.filter(|own| self.prefixes.contains(own));
        let prefix = own.as_deref().or_else(|| self.prefixes().next());
        full_name(prefix.unwrap_or(SRIOV_RESOURCE_PREFIX), resource_name)
    }

    fn class_of(&self, card: &Device) -> Option<&SmolStr> {
        let classes = self.classes.iter().map(|(name, class)| (name, &class.spec));
        class_of(classes, &DeviceTraits::from(card))
    }

    /// What a device is offered as; `None` when no class has it.
    pub(crate) fn offer_of(&self, device: &Device) -> Option<&Arc<Offer>> {
        self.offers.get(self.class_of(device)?)
    }

    /// What is said of the class of a card.
    pub(crate) fn spec_of(&self, card: &Device) -> Option<&DeviceClassSpec> {
        self.classes.get(self.class_of(card)?).map(|class| &class.spec)
    }

    /// How a card can be partitioned, if it can be.
    pub(crate) fn model_of(&self, card: &Device) -> Option<&PartitionModel> {
        self.spec_of(card)?.partitioning.get()?.model_of(&DeviceTraits::from(card))
    }

    /// What a partition of a card is offered as.
    pub(crate) fn partition_offer(
        &self,
        card: &Device,
        partition: &DevicePartition,
        strategy: PartitionStrategy,
    ) -> Option<Arc<Offer>> {
        let profile = self.model_of(card)?.profile(&partition.profile)?;
        let whole = match strategy {
            PartitionStrategy::Single => self.spec_of(card)?.extended_resource_name.clone(),
            PartitionStrategy::Mixed => profile.extended_resource_name.clone(),
        };
        Some(Arc::new(Offer { whole, sharing: None, mtu: None, has_modes: true }))
    }

    /// What a name stands for; `None` when no class has such a resource.
    pub(crate) fn role(&self, resource: &str) -> Option<&ResourceRole> {
        self.roles.get(resource)
    }

    /// The class by which a resource is what it is.
    fn owner_of(&self, resource: &str) -> Option<&DeviceClassSpec> {
        self.classes.get(self.owners.get(resource)?).map(|class| &class.spec)
    }

    /// Which devices a pod with these annotations chooses of those of a resource; `None` when it chooses none in particular.
    pub(crate) fn choice(&self, resource: &str, annotations: &StringMap) -> Option<Arc<DeviceChoice>> {
        if annotations.is_empty() {
            return None;
        }
        self.owner_of(resource)?.selection.get()?.choice(annotations).map(Arc::new)
    }

    /// How many devices are meant where only what each has is asked for.
    pub(crate) fn default_count(&self, count: &str) -> Option<u32> {
        self.owner_of(count)?.sharing.as_ref()?.default_count.get().copied()
    }

    /// Every class, by name.
    pub(crate) fn specs(&self) -> impl Iterator<Item = &DeviceClassSpec> {
        self.classes.values().map(|class| &class.spec)
    }

    /// What of a card is counted for its node, and under which name.
    pub(crate) fn counted_of(&self, card: &Device) -> Option<(SmolStr, u64)> {
        let counted = self.spec_of(card)?.partitioning.get()?.counted.get()?;
        let amount = self.model_of(card)?.capacity.get(&counted.counts)?;
        Some((counted.extended_resource_name.clone(), *amount))
    }

    /// For every resource of which so much is asked for each device: by which one the devices are counted.
    pub(crate) fn counted_by(&self, resource: &str) -> Option<&SmolStr> {
        match self.roles.get(resource)? {
            ResourceRole::Memory(count) | ResourceRole::Cores(count) | ResourceRole::LeastMemory(count) => {
                Some(count)
            }
            ResourceRole::Whole | ResourceRole::Count | ResourceRole::Slots | ResourceRole::Units(_) => None,
        }
    }
}

/// What stands before the slash.
fn domain(resource: &SmolStr) -> SmolStr {
    resource.split_once('/').map_or_else(SmolStr::default, |(domain, _)| domain.into())
}
