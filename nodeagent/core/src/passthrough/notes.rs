//! What has to be remembered of functions, because nothing of the machine tells it.

use std::collections::BTreeMap;

use bulkhead_types::ObjectId;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::hardware::Bdf;
use crate::vf_settings::VfNote;

/// How far a function went towards a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// It is being bound: no guest had it.
    Taken,
    /// A guest may have it, or had it: it must be reset.
    Given,
    /// It was reset after a guest had it.
    Clean,
}

/// One function that a pod has. Written durably before anything is done to the function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Which function.
    pub address: Bdf,
    /// Which pod has it.
    pub pod: ObjectId,
    /// The function that it goes with, if the pod did not ask for it itself.
    pub companion_of: Option<Bdf>,
    /// The driver that it had.
    pub driver: Option<String>,
    /// The `driver_override` that it had.
    pub driver_override: Option<String>,
    /// How far it went.
    pub stage: Stage,
    /// The boot of the machine in which that was so.
    pub boot_id: SmolStr,
    /// Where its settings go back to, if it is told any for a network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vf: Option<VfNote>,
}

/// A function that goes to nobody until somebody has mended it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// Which function.
    pub address: Bdf,
    /// One CamelCase word: `ResetFailed`, `DriverNotRestored`.
    pub code: SmolStr,
    /// The same for people.
    pub message: String,
    /// Since when, milliseconds since the epoch.
    pub since_ms: u64,
}

/// The code of a function that could not be reset after a guest had it.
pub const RESET_FAILED: &str = "ResetFailed";
/// The code of a function whose driver did not take it back.
pub const DRIVER_NOT_RESTORED: &str = "DriverNotRestored";
/// The code of a function whose settings for a network could not be taken back.
pub const SETTINGS_NOT_RESTORED: &str = "SettingsNotRestored";
/// The code of a function that cannot be reset at all, so that nobody could have it after somebody else.
pub const NO_RESET: &str = "NoReset";

/// Where that is kept. What was put is durable when the call returns.
pub trait Notebook {
    /// All bindings, by address.
    fn bindings(&self) -> &BTreeMap<Bdf, Binding>;

    /// All functions that go to nobody.
    fn quarantined(&self) -> &BTreeMap<Bdf, Quarantine>;

    /// Keeps a binding, in place of an earlier one.
    ///
    /// # Errors
    /// Why it cannot be kept.
    fn put(&mut self, binding: Binding) -> Result<(), String>;

    /// Forgets one.
    ///
    /// # Errors
    /// Why it cannot be forgotten.
    fn remove(&mut self, address: Bdf) -> Result<(), String>;

    /// Keeps that a function goes to nobody; the time is the notebook's to add.
    ///
    /// # Errors
    /// Why it cannot be kept; then it counts as kept until the agent ends.
    fn quarantine(&mut self, address: Bdf, code: &'static str, message: &str) -> Result<(), String>;

    /// Takes that a function was reset and is well, by which method; see [`super::ResetWay::name`].
    fn note_reset(&mut self, address: Bdf, method: &str);
}
