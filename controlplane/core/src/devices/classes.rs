//! The DeviceClasses of a State, by what devices and pods look for.

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_types::{Device, DeviceClass, DeviceSharing, DeviceTraits, class_of};
use smol_str::SmolStr;

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
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Classes {
    /// By name.
    classes: BTreeMap<SmolStr, Arc<DeviceClass>>,
    offers: BTreeMap<SmolStr, Arc<Offer>>,
    roles: BTreeMap<SmolStr, ResourceRole>,
}

impl Classes {
    pub(crate) fn of<'a>(classes: impl Iterator<Item = &'a Arc<DeviceClass>>) -> Self {
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
            found.offers.insert(name.clone(), Arc::new(Offer { whole, sharing }));
        }
        found
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
