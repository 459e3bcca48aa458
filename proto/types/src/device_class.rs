//! DeviceClasses: which devices pods get that ask for a resource by name.
//!
//! Kinds of devices are data: an administrator adds one with `apply`, and no agent has to change. Those that come with the
//! program stand in `device_classes.json`, which `bulkhead preflight` reads as well.
//!
//! Source: "Device Plugins" and "Dynamic Resource Allocation" in the Kubernetes documentation for the terms; HAMi for sharing.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{
    Device, DeviceFaults, DeviceNodeLabels, DevicePartitioning, DeviceSelection, ObjectMeta, Rare,
    VisibilityRule,
};

/// Most DeviceClasses of a cluster.
pub const DEVICE_CLASSES_MAX: usize = 256;
/// Most entries of each list of a selector.
pub const SELECTOR_ENTRIES_MAX: usize = 256;
/// Most pods on one shared card when a class does not say (HAMi's `deviceSplitCount`).
pub const SPLIT_COUNT_DEFAULT: u32 = 10;
/// Most pods on one shared card that a class may allow.
pub const SPLIT_COUNT_MAX: u32 = 1000;
/// Highest scaling, in per cent.
pub const SCALING_PERCENT_MAX: u32 = 1000;
/// The compute of a whole card.
pub const CORES_PER_CARD: u64 = 100;
/// Bytes of one unit of a memory resource (the `MB` of `nvidia.com/gpumem`, which are mebibytes).
pub const DEVICE_MEMORY_UNIT_BYTES: u64 = 1 << 20;
/// The label of a pod that says over how many cards its memory units are divided (ACK's name); 1 without it.
pub const LABEL_CARD_COUNT: &str = "aliyun.com/gpu-count";
/// Memory of a card in one unit when a class does not say, in MiB.
pub const MEMORY_UNIT_MEBIBYTES_DEFAULT: u32 = 1024;
/// Most memory of a card in one unit, in MiB.
pub const MEMORY_UNIT_MEBIBYTES_MAX: u32 = 1 << 20;
/// The classes that come with the program.
pub const DEVICE_CLASSES_JSON: &str = include_str!("device_classes.json");

/// Four hexadecimal digits: an id of a vendor or a device, or a class with its sub-class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hex16(pub u16);

impl TryFrom<String> for Hex16 {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let is_hex = text.len() == 4 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let number = u16::from_str_radix(&text, 16).ok().filter(|_| is_hex);
        number
            .map(Self)
            .ok_or_else(|| format!("{text:?}: expected four hexadecimal digits, such as \"10de\""))
    }
}

impl From<Hex16> for String {
    fn from(value: Hex16) -> Self {
        format!("{:04x}", value.0)
    }
}

/// Which part of a card is given to pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DeviceRole {
    /// The card itself.
    #[default]
    Whole = 1,
    /// Its virtual functions (SR-IOV).
    Virtual = 2,
}

/// Which devices are meant: those that every list means; an empty list means all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceSelector {
    /// PCI vendor ids.
    #[serde(default)]
    pub vendors: Vec<Hex16>,
    /// PCI device ids.
    #[serde(default)]
    pub devices: Vec<Hex16>,
    /// PCI classes with sub-class.
    #[serde(default)]
    pub classes: Vec<Hex16>,
    /// Models' names.
    #[serde(default)]
    pub models: Vec<SmolStr>,
    /// Drivers that the device is bound to.
    #[serde(default)]
    pub drivers: Vec<SmolStr>,
    /// Cards, or their virtual functions.
    #[serde(default)]
    pub role: DeviceRole,
}

/// What is looked at of a device.
#[derive(Clone, Copy, Debug)]
pub struct DeviceTraits<'a> {
    /// PCI vendor id.
    pub vendor: u16,
    /// PCI device id.
    pub device: u16,
    /// Base class and sub-class.
    pub class: u16,
    /// The model's name.
    pub model: &'a str,
    /// The driver that it is bound to.
    pub driver: &'a str,
    /// It is a virtual function.
    pub is_virtual: bool,
}

impl<'a> From<&'a Device> for DeviceTraits<'a> {
    fn from(device: &'a Device) -> Self {
        Self {
            vendor: device.vendor,
            device: device.device,
            class: device.class(),
            model: &device.model,
            driver: &device.driver,
            // A partition is part of its card, and of the card's class.
            is_virtual: device.parent.is_some() && device.partition.get().is_none(),
        }
    }
}

/// Base class of bridges: those are never given away.
const CLASS_BRIDGE: u16 = 0x06;

impl DeviceSelector {
    /// Whether a device is meant.
    #[must_use]
    pub fn matches(&self, device: &DeviceTraits<'_>) -> bool {
        let number = |list: &[Hex16], value: u16| list.is_empty() || list.contains(&Hex16(value));
        let text = |list: &[SmolStr], value: &str| list.is_empty() || list.iter().any(|one| one == value);
        device.class >> 8 != CLASS_BRIDGE
            && number(&self.vendors, device.vendor)
            && number(&self.devices, device.device)
            && number(&self.classes, device.class)
            && text(&self.models, device.model)
            && text(&self.drivers, device.driver)
            && device.is_virtual == (self.role == DeviceRole::Virtual)
    }

    /// How closely it says what it means: of several classes that mean a device, that of the greatest has it.
    #[must_use]
    pub fn precision(&self) -> [bool; 5] {
        [
            !self.devices.is_empty(),
            !self.models.is_empty(),
            !self.vendors.is_empty(),
            !self.classes.is_empty(),
            !self.drivers.is_empty(),
        ]
    }
}

/// Whether what is used already, or what is free, is preferred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SchedulerPolicy {
    /// The fullest that has room.
    #[default]
    Binpack = 1,
    /// The emptiest.
    Spread = 2,
}

impl SchedulerPolicy {
    /// Reads it as annotations write it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "binpack" => Some(Self::Binpack),
            "spread" => Some(Self::Spread),
            _ => None,
        }
    }

    /// As annotations write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Binpack => "binpack",
            Self::Spread => "spread",
        }
    }
}

fn split_count_default() -> u32 {
    SPLIT_COUNT_DEFAULT
}

fn percent_default() -> u32 {
    100
}

fn unit_default() -> u32 {
    MEMORY_UNIT_MEBIBYTES_DEFAULT
}

/// Shares of cards by units of memory: a card has as many whole units as its memory holds, and one unit is that part of all of
/// its memory. A pod asks for a number of them, over as many cards of one node as [`LABEL_CARD_COUNT`] says.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceMemoryUnits {
    /// How many units, as `aliyun.com/gpu-mem`.
    pub extended_resource_name: SmolStr,
    /// Memory of one unit in MiB.
    #[serde(default = "unit_default")]
    pub unit_mebibytes: u32,
}

impl DeviceMemoryUnits {
    /// Whole units of a card with so much memory.
    #[must_use]
    pub fn units(&self, card_bytes: u64) -> u64 {
        card_bytes / self.unit_bytes()
    }

    /// Memory of one unit in bytes.
    #[must_use]
    pub fn unit_bytes(&self) -> u64 {
        u64::from(self.unit_mebibytes.max(1)) * DEVICE_MEMORY_UNIT_BYTES
    }
}

/// How several pods share a card: each asks for a number of cards, and of each card for the same memory and compute.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceSharing {
    /// How many cards, as `nvidia.com/vgpu`.
    pub extended_resource_name: SmolStr,
    /// Memory of each card in MiB, as `nvidia.com/gpumem`; all of it when a container does not say.
    pub memory_resource_name: SmolStr,
    /// Compute of each card in per cent, as `nvidia.com/gpucores`: 0, the default, is not isolated, 100 is the whole card.
    pub cores_resource_name: SmolStr,
    /// Most pods on a card.
    #[serde(default = "split_count_default")]
    pub split_count: u32,
    /// How much of a card's memory is offered, in per cent of what it has.
    #[serde(default = "percent_default")]
    pub memory_scaling_percent: u32,
    /// How much of a card's compute is offered, in per cent of what it has.
    #[serde(default = "percent_default")]
    pub core_scaling_percent: u32,
    /// Which nodes are preferred, unless a pod says otherwise.
    #[serde(default)]
    pub node_scheduler_policy: SchedulerPolicy,
    /// Which cards of a node are preferred, unless a pod says otherwise.
    #[serde(default)]
    pub device_scheduler_policy: SchedulerPolicy,
    /// Shares by units of memory, beside those by MiB. Needs [`crate::PARTITIONS_LEVEL`].
    #[serde(default)]
    pub memory_units: Rare<DeviceMemoryUnits>,
    /// So many cards of which nothing in particular is asked for but a place among those that share it, as
    /// `cambricon.com/mlu.share`. This and what follows need [`crate::DEVICE_RULES_LEVEL`].
    #[serde(default)]
    pub slots_resource_name: Rare<SmolStr>,
    /// How many cards are meant where memory or compute is asked for and no number of cards; unset: that is refused.
    #[serde(default)]
    pub default_count: Rare<u32>,
}

impl DeviceSharing {
    /// The names of its resources, but for that of memory units.
    #[must_use]
    pub fn resource_names(&self) -> [&SmolStr; 3] {
        [&self.extended_resource_name, &self.memory_resource_name, &self.cores_resource_name]
    }
}

/// What a container calls its devices by, in a variable of its environment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum VisibleBy {
    /// The device's id.
    #[default]
    Id = 1,
    /// Its number among the devices of its class that the pod has, from 0.
    Index = 2,
}

/// The variable that tells a container which devices are its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceVisibility {
    /// The variable's name, as `CXPU_VISIBLE_DEVICES`.
    pub env: SmolStr,
    /// What stands in it.
    #[serde(default)]
    pub by: VisibleBy,
    /// Which cards a container sees; its own when unset. Needs [`crate::DEVICE_RULES_LEVEL`].
    #[serde(default)]
    pub rule: Rare<VisibilityRule>,
}

/// What is wanted of a class.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceClassSpec {
    /// What pods ask for to have a whole device, as `nvidia.com/gpu`.
    pub extended_resource_name: SmolStr,
    /// Which devices.
    pub selector: DeviceSelector,
    /// How they are shared; unset: they are not.
    #[serde(default)]
    pub sharing: Option<DeviceSharing>,
    /// How cards are partitioned, if they can be. This and what follows need [`crate::PARTITIONS_LEVEL`].
    #[serde(default)]
    pub partitioning: Rare<DevicePartitioning>,
    /// What follows from faults; unset: they are told, nothing else.
    #[serde(default)]
    pub faults: Rare<DeviceFaults>,
    /// The variable that tells a container which devices it has; unset: none.
    #[serde(default)]
    pub visibility: Rare<DeviceVisibility>,
    /// What pods ask for to have devices with at least so much memory in MiB each, where devices differ.
    #[serde(default)]
    pub memory_resource_name: Rare<SmolStr>,
    /// Labels of nodes that have such cards. This and what follows need [`crate::DEVICE_RULES_LEVEL`].
    #[serde(default)]
    pub node_labels: Rare<DeviceNodeLabels>,
    /// Annotations by which pods choose among cards.
    #[serde(default)]
    pub selection: Rare<DeviceSelection>,
}

impl DeviceClassSpec {
    /// The names of all its resources.
    pub fn resource_names(&self) -> impl Iterator<Item = &SmolStr> {
        let shared = self.sharing.iter().flat_map(DeviceSharing::resource_names);
        let units = self.sharing.iter().filter_map(|sharing| sharing.memory_units.get());
        let units = units.map(|units| &units.extended_resource_name);
        std::iter::once(&self.extended_resource_name)
            .chain(shared)
            .chain(units)
            .chain(self.sharing.iter().filter_map(|sharing| sharing.slots_resource_name.get()))
            .chain(self.memory_resource_name.get())
    }

    /// The names of the resources of its partitions; models may have some of the same name.
    pub fn partition_names(&self) -> impl Iterator<Item = &SmolStr> {
        let models = self.partitioning.get().into_iter().flat_map(|all| &all.models);
        models.flat_map(|model| &model.profiles).map(|profile| &profile.extended_resource_name)
    }

    /// The same without what needs [`crate::PARTITIONS_LEVEL`].
    #[must_use]
    pub fn below_partitions(&self) -> Self {
        let sharing = self.sharing.clone();
        Self {
            extended_resource_name: self.extended_resource_name.clone(),
            selector: self.selector.clone(),
            sharing: sharing.map(|sharing| DeviceSharing {
                memory_units: Rare::NONE,
                slots_resource_name: Rare::NONE,
                default_count: Rare::NONE,
                ..sharing
            }),
            partitioning: Rare::NONE,
            faults: Rare::NONE,
            visibility: Rare::NONE,
            memory_resource_name: Rare::NONE,
            node_labels: Rare::NONE,
            selection: Rare::NONE,
        }
    }

    /// The same without what needs [`crate::DEVICE_RULES_LEVEL`].
    #[must_use]
    pub fn below_rules(&self) -> Self {
        let mut below = self.clone();
        below.sharing.iter_mut().for_each(|sharing| {
            (sharing.slots_resource_name, sharing.default_count) = (Rare::NONE, Rare::NONE);
        });
        let partitioning = below.partitioning.get().cloned();
        below.partitioning = partitioning.map(|one| DevicePartitioning { counted: Rare::NONE, ..one }).into();
        let visibility = below.visibility.get().cloned();
        below.visibility = visibility.map(|one| DeviceVisibility { rule: Rare::NONE, ..one }).into();
        (below.node_labels, below.selection) = (Rare::NONE, Rare::NONE);
        below
    }
}

/// Devices that pods ask for by the name of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeviceClass {
    /// Standard metadata.
    pub meta: ObjectMeta,
    /// What is wanted.
    pub spec: DeviceClassSpec,
}

/// A class as `device_classes.json` has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedDeviceClass {
    /// The object's name.
    pub name: String,
    /// What it says.
    pub spec: DeviceClassSpec,
}

/// The class that has a device, of those that there are, by name.
#[must_use]
pub fn class_of<'a, T>(
    classes: impl IntoIterator<Item = (&'a T, &'a DeviceClassSpec)>,
    device: &DeviceTraits<'_>,
) -> Option<&'a T> {
    let mut best: Option<(&T, [bool; 5])> = None;
    for (class, spec) in classes {
        let precision = spec.selector.precision();
        // The first of equals stays.
        if spec.selector.matches(device) && best.as_ref().is_none_or(|(_, present)| precision > *present) {
            best = Some((class, precision));
        }
    }
    best.map(|(class, _)| class)
}

/// The classes that come with the program.
///
/// # Panics
/// Never: a test reads the file.
#[must_use]
pub fn builtin_device_classes() -> Vec<NamedDeviceClass> {
    serde_json::from_str(DEVICE_CLASSES_JSON).expect("the classes that come with the program are well formed")
}

/// Whether a name can be that of an extended resource: a domain that is not Kubernetes' own, and a name.
#[must_use]
pub fn is_extended_resource_name(name: &str) -> bool {
    let Some((domain, _)) = name.split_once('/') else { return false };
    let is_kubernetes = domain == "kubernetes.io" || domain.ends_with(".kubernetes.io");
    // A quota's name of it has a prefix, which must fit as well (Kubernetes' rule).
    !is_kubernetes
        && !name.starts_with("requests.")
        && crate::check_label_key(&name.to_ascii_lowercase()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_classes_that_come_along_are_well_formed_and_name_each_resource_once() {
        let classes = builtin_device_classes();
        let mut names = std::collections::BTreeSet::new();
        for class in &classes {
            crate::Name::new(&class.name).expect("a name");
            for resource in class.spec.resource_names() {
                assert!(is_extended_resource_name(resource), "{resource}");
                assert!(names.insert(resource.clone()), "{resource} twice");
            }
        }
        assert!(classes.is_sorted_by(|a, b| a.name < b.name), "by name: that decides among equals");
    }

    #[test]
    fn the_closest_class_has_a_device() {
        let classes = builtin_device_classes();
        let check = |vendor, device, class, driver, is_virtual, expected: Option<&str>| {
            let traits = DeviceTraits { vendor, device, class, model: "", driver, is_virtual };
            let all = classes.iter().map(|class| (&class.spec.extended_resource_name, &class.spec));
            assert_eq!(class_of(all, &traits).map(SmolStr::as_str), expected, "{traits:?}");
        };
        check(0x10de, 0x20b5, 0x0302, "vfio-pci", false, Some("nvidia.com/gpu"));
        check(0x10de, 0x1aef, 0x0403, "", false, None);
        check(0x1d22, 0x3684, 0x1200, "", false, Some("baidu.com/XPU"));
        check(0x19e5, 0xd801, 0x1200, "", false, Some("huawei.com/Ascend910"));
        check(0x19e5, 0xd500, 0x1200, "", false, Some("huawei.com/Ascend310P"));
        check(0x15b3, 0x101c, 0x0207, "", true, Some("ecnf.io/sriov"));
        check(0x15b3, 0x101b, 0x0207, "mlx5_core", false, None);
        check(0x1234, 0x0001, 0x0108, "vfio-pci", false, Some("bulkhead.io/pci"));
        check(0x8086, 0x2030, 0x0604, "vfio-pci", false, None);
    }

    #[test]
    fn names_of_extended_resources_have_a_domain() {
        for (name, expected) in [
            ("nvidia.com/gpu", true),
            ("huawei.com/Ascend910", true),
            ("cambricon.com/mlu.smlu.vcore", true),
            ("gpu", false),
            ("kubernetes.io/gpu", false),
            ("node.kubernetes.io/gpu", false),
            ("requests.nvidia.com/gpu", false),
            ("nvidia.com/", false),
            ("nvidia com/gpu", false),
        ] {
            assert_eq!(is_extended_resource_name(name), expected, "{name}");
        }
    }
}
