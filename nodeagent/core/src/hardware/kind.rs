//! Which functions can be attached to pods: by the DeviceClasses, which are data and the same as the control plane's.

use bulkhead_types::{DeviceRole, DeviceTraits, NamedDeviceClass, class_of};

use super::{PciFunction, Sriov};

/// Most classes of a file.
pub const CLASSES_MAX: usize = bulkhead_types::DEVICE_CLASSES_MAX;

/// What classes look at of a function.
#[must_use]
pub fn traits(function: &PciFunction) -> DeviceTraits<'_> {
    DeviceTraits {
        vendor: function.vendor,
        device: function.device,
        class: function.class_of(),
        model: "",
        driver: function.driver.as_deref().unwrap_or_default(),
        is_virtual: matches!(function.sriov, Sriov::Virtual { .. }),
    }
}

/// The class that has a function.
#[must_use]
pub fn device_class_of<'a>(
    classes: &'a [NamedDeviceClass],
    function: &PciFunction,
) -> Option<&'a NamedDeviceClass> {
    class_of(classes.iter().map(|class| (class, &class.spec)), &traits(function))
}

/// Whether any class offers virtual functions of cards such as this one.
#[must_use]
pub fn offers_virtual_functions(classes: &[NamedDeviceClass], function: &PciFunction) -> bool {
    let selectors = classes.iter().map(|class| &class.spec.selector);
    let mut of_vfs = selectors.filter(|selector| selector.role == DeviceRole::Virtual);
    of_vfs.any(|selector| selector.vendors.iter().any(|vendor| vendor.0 == function.vendor))
}
