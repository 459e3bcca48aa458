//! Which functions can be attached to pods: kinds of devices, which are data.

use serde::{Deserialize, Serialize};

use super::{PciFunction, Sriov};

/// Most kinds, and most entries of each list of one.
pub const KINDS_MAX: usize = 256;

/// The kinds that are known when nobody says anything else.
///
/// Sources of the ids: the PCI ID repository; for network cards "SriovNetworkNodePolicy" of the SR-IOV network operator.
pub const DEFAULT_KINDS: &str = include_str!("kinds.json");

/// Four hexadecimal digits: an id of a vendor or a device, or a class with its sub-class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceRole {
    /// The card itself.
    #[default]
    Whole,
    /// Its virtual functions (SR-IOV).
    Virtual,
}

/// A kind of devices: what is attached to pods that ask for its resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceKind {
    /// Its name.
    pub name: String,
    /// What pods ask for, as `nvidia.com/gpu`.
    pub resource: String,
    /// Vendors; at least one.
    pub vendors: Vec<Hex16>,
    /// Device ids; any when empty.
    #[serde(default)]
    pub devices: Vec<Hex16>,
    /// Classes with sub-class; any when empty.
    #[serde(default)]
    pub classes: Vec<Hex16>,
    /// Cards, or their virtual functions.
    #[serde(default)]
    pub role: DeviceRole,
}

impl DeviceKind {
    /// Whether a function is of this kind.
    #[must_use]
    pub fn matches(&self, function: &PciFunction) -> bool {
        let has = |list: &[Hex16], value: u16| list.contains(&Hex16(value));
        let is_virtual = matches!(function.sriov, Sriov::Virtual { .. });
        !function.is_bridge()
            && has(&self.vendors, function.vendor)
            && (self.devices.is_empty() || has(&self.devices, function.device))
            && (self.classes.is_empty() || has(&self.classes, function.class_of()))
            && is_virtual == (self.role == DeviceRole::Virtual)
    }
}

/// The first kind that a function is of.
#[must_use]
pub fn kind_of<'a>(kinds: &'a [DeviceKind], function: &PciFunction) -> Option<&'a DeviceKind> {
    kinds.iter().find(|kind| kind.matches(function))
}
