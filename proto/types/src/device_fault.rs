//! Faults of devices that their driver tells of by a number (NVIDIA's XID), and what follows from each.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::ObjectId;

/// Most faults in one report; an agent leaves the oldest out.
pub const FAULTS_PER_REPORT_MAX: usize = 64;
/// Most rules of a class, and codes of a rule.
pub const FAULT_RULES_MAX: usize = 64;
/// Most faults of a node that are kept, the newest.
pub const FAULTS_KEPT_MAX: usize = 32;
/// The reason of a deletion of a pod whose device had a fault.
pub const REASON_DEVICE_FAULT: &str = "DeviceFault";

/// What follows from a fault. Whatever it is, pods without that device are never touched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FaultAction {
    /// It is told, nothing else.
    #[default]
    Warn = 1,
    /// The pod that had the fault ends.
    KillPod = 2,
    /// Every pod on the card ends.
    KillAll = 3,
    /// The card is kept from new pods until an operator gives it back; whoever has it keeps it.
    Fence = 4,
    /// The card is kept from new pods until it was reset, and who has it ends with its grace period.
    Drain = 5,
}

impl FaultAction {
    /// Whether the card is kept from new pods from then on.
    #[must_use]
    pub fn fences(self) -> bool {
        matches!(self, Self::Fence | Self::Drain)
    }

    /// As people read it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warn => "Warn",
            Self::KillPod => "KillPod",
            Self::KillAll => "KillAll",
            Self::Fence => "Fence",
            Self::Drain => "Drain",
        }
    }
}

/// What follows from some faults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultRule {
    /// What follows.
    pub action: FaultAction,
    /// From which.
    pub codes: Vec<u32>,
}

/// What follows from the faults of a class' devices. Of a fault that no rule names nothing follows but that it is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceFaults {
    /// The first rule that names a code is its.
    pub rules: Vec<FaultRule>,
}

impl DeviceFaults {
    /// What follows from a fault.
    #[must_use]
    pub fn action(&self, code: u32) -> FaultAction {
        self.rules
            .iter()
            .find(|rule| rule.codes.contains(&code))
            .map_or(FaultAction::Warn, |rule| rule.action)
    }
}

/// A fault as an agent reports it, once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeviceFault {
    /// The device's id.
    pub device: SmolStr,
    /// The driver's number, such as XID 79.
    pub code: u32,
    /// When, by the agent's clock, milliseconds since the epoch.
    pub at_ms: u64,
    /// Whose work had it, where the driver says so.
    pub pod: Option<ObjectId>,
}

/// A device that is kept from new pods because of a fault.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeviceFence {
    /// The device's id.
    pub device: SmolStr,
    /// The fault's number.
    pub code: u32,
    /// [`FaultAction::Fence`] or [`FaultAction::Drain`]: only the latter ends with a reset.
    pub action: FaultAction,
    /// Since when, in log time, milliseconds since the epoch.
    pub since_ms: u64,
}

/// A fault and what followed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HandledFault {
    /// What the agent said.
    pub fault: DeviceFault,
    /// What followed.
    pub action: FaultAction,
}
