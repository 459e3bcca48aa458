//! What cards of nodes do now: soft state, told with heartbeats and kept by the leader only.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{DEVICE_TEXT_BYTES_MAX, DEVICES_MAX, ObjectId};

/// What one card does now. A card in a guest is not with the host's driver, so nothing is measured of it: that is unset, not 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeviceUsage {
    /// The device's id, as in its [`crate::Device`].
    pub device: SmolStr,
    /// Its PCI address.
    pub address: SmolStr,
    /// Its number on the node, for people.
    pub index: u32,
    /// The model's name; empty when unknown.
    pub model: SmolStr,
    /// The pod whose guest has it.
    pub pod: Option<ObjectId>,
    /// A guest has it, or may have it.
    pub in_guest: bool,
    /// How busy it was during the last moment, 0 to 100.
    pub utilization_percent: Option<u32>,
    /// What of its memory is used, in bytes.
    pub memory_used_bytes: Option<u64>,
    /// All of its memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// In degrees Celsius.
    pub temperature_celsius: Option<u32>,
    /// What it draws, in thousandths of a watt.
    pub power_milliwatts: Option<u64>,
    /// The method by which it was reset last after a guest had it, in this boot of the machine; empty when it was not.
    pub last_reset: SmolStr,
    /// When that was, by the agent's clock, milliseconds since the epoch; 0 when it was not.
    pub last_reset_at_ms: u64,
    /// How long before the report it was measured, in milliseconds.
    pub age_ms: u64,
}

impl DeviceUsage {
    /// Whether it is what an agent may say: texts that are not too long and have no control characters, a percentage.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let texts = [&self.device, &self.address, &self.model, &self.last_reset];
        let bad = |text: &&SmolStr| text.len() > DEVICE_TEXT_BYTES_MAX || text.chars().any(char::is_control);
        !self.device.is_empty()
            && !texts.iter().any(bad)
            && self.utilization_percent.is_none_or(|percent| percent <= 100)
    }
}

/// Most cards of which a node tells.
pub const DEVICE_USAGES_MAX: usize = DEVICES_MAX;
