//! The DeviceClasses of a State, by what devices and pods look for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bulkhead_types::{
    Device, DeviceClass, DeviceRole, DeviceSharing, DeviceTraits, SRIOV_RESOURCE_PREFIX,
    SriovNetworkNodePolicy, class_of,
};
use smol_str::SmolStr;

use crate::networks::full_name;

/// What the name of a resource stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ResourceRole {
    /// Whole devices.
    Whole,
    /// How many shared devices.
    Count,
    /// Memory of each of the devices that another resource counts.
    Memory(SmolStr),
    /// Compute of each of those.
    Cores(SmolStr),
}

/// How devices of a class are offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    /// The resource of a whole device.
    pub(crate) whole: SmolStr,
    /// How it is shared, if it is.
    pub(crate) sharing: Option<DeviceSharing>,
    /// Of a virtual function that a policy made: its MTU, when the policy says.
    pub(crate) mtu: Option<u32>,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Classes {
    /// By name.
    classes: BTreeMap<SmolStr, Arc<DeviceClass>>,
    offers: BTreeMap<SmolStr, Arc<Offer>>,
    roles: BTreeMap<SmolStr, ResourceRole>,
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
            found.roles.entry(whole.clone()).or_insert(ResourceRole::Whole);
            if let Some(sharing) = &sharing {
                let count = sharing.extended_resource_name.clone();
                found.roles.entry(count.clone()).or_insert(ResourceRole::Count);
                let memory = ResourceRole::Memory(count.clone());
                found.roles.entry(sharing.memory_resource_name.clone()).or_insert(memory);
                found.roles.entry(sharing.cores_resource_name.clone()).or_insert(ResourceRole::Cores(count));
            }
            found.offers.insert(name.clone(), Arc::new(Offer { whole, sharing, mtu: None }));
        }
        let of_vfs = found.classes.values().filter(|one| one.spec.selector.role == DeviceRole::Virtual);
        found.prefixes = of_vfs.map(|class| domain(&class.spec.extended_resource_name)).collect();
        if found.prefixes.is_empty() {
            found.prefixes.insert(SmolStr::new_static(SRIOV_RESOURCE_PREFIX));
        }
        for policy in policies {
            for prefix in &found.prefixes {
                let resource = full_name(prefix, &policy.spec.resource_name);
                found.roles.entry(resource).or_insert(ResourceRole::Whole);
            }
        }
        found
    }

    /// The domains of resources of virtual functions.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = &SmolStr> {
        self.prefixes.iter()
    }

    /// The resource that a virtual function is by a policy: in the domain of the class that would have it.
    pub(crate) fn resource_of_policy(&self, device: &Device, resource_name: &str) -> SmolStr {
        let own = self.offer_of(device).map(|offer| domain(&offer.whole));
        let prefix = own.filter(|own| self.prefixes.contains(own)).or_else(|| self.prefixes.first().cloned());
        full_name(prefix.as_deref().unwrap_or(SRIOV_RESOURCE_PREFIX), resource_name)
    }

    /// What a device is offered as; `None` when no class has it.
    pub(crate) fn offer_of(&self, device: &Device) -> Option<&Arc<Offer>> {
        let classes = self.classes.iter().map(|(name, class)| (name, &class.spec));
        self.offers.get(class_of(classes, &DeviceTraits::from(device))?)
    }

    /// What a name stands for; `None` when no class has such a resource.
    pub(crate) fn role(&self, resource: &str) -> Option<&ResourceRole> {
        self.roles.get(resource)
    }

    /// For every resource of which so much is asked for each device: by which one the devices are counted.
    pub(crate) fn counted_by(&self, resource: &str) -> Option<&SmolStr> {
        match self.roles.get(resource)? {
            ResourceRole::Memory(count) | ResourceRole::Cores(count) => Some(count),
            ResourceRole::Whole | ResourceRole::Count => None,
        }
    }
}

/// What stands before the slash.
fn domain(resource: &SmolStr) -> SmolStr {
    resource.split_once('/').map_or_else(SmolStr::default, |(domain, _)| domain.into())
}
