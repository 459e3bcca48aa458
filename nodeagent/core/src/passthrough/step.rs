//! One function: which step is next. Both ways can be entered anywhere.
//!
//! ```text
//!  to a guest:   Remember ─► [settings] ─► Override vfio-pci ─► Unbind ─► Probe ─► MarkGiven ─► done
//!  and back:     Reset (all of a pod first: reset.rs) ─► [settings] ─► Unbind ─► Override of the driver ─► Probe ─► Override as it was ─► Forget
//! ```

use super::machine::{DEVICES, file, is_there, line};
use super::{Binding, Stage, VFIO_PCI};
use crate::hardware::{Bdf, Tree};

/// What is seen of a function now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its driver.
    pub driver: Option<String>,
    /// The driver that alone may be bound to it.
    pub driver_override: Option<String>,
}

impl Seen {
    /// Looks at a function; `None` when it is not there.
    #[must_use]
    pub fn of(machine: &(impl Tree + ?Sized), address: Bdf) -> Option<Self> {
        if !is_there(machine, address) {
            return None;
        }
        let driver = machine.link(&file(address, "driver")).ok();
        let driver = driver.and_then(|target| target.rsplit('/').next().map(str::to_owned));
        // The kernel writes "(null)" where there is none.
        let driver_override = line(machine, &file(address, "driver_override"));
        let driver_override = driver_override.filter(|text| !text.is_empty() && text != "(null)");
        Some(Self { driver, driver_override })
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// What the function was is written down.
    Remember,
    /// Only this driver may have it; any, when unset.
    Override(Option<String>),
    /// Its driver lets go of it.
    Unbind,
    /// The kernel looks for a driver.
    Probe,
    /// From now on a guest may have it.
    MarkGiven,
    /// What the guest did to it is undone: see [`super::ResetWay`].
    Reset,
    /// It is as it was.
    Forget,
}

impl Step {
    /// Its name, for people.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Remember => "remember",
            Self::Override(_) => "driver_override",
            Self::Unbind => "unbind",
            Self::Probe => "drivers_probe",
            Self::MarkGiven => "mark as given",
            Self::Reset => "reset",
            Self::Forget => "forget",
        }
    }

    /// The file of sysfs that it writes, and what; `None` for what is only written down, and for a reset.
    #[must_use]
    pub fn writes(&self, address: Bdf) -> Option<(String, String)> {
        match self {
            Self::Override(driver) => {
                let text = format!("{}\n", driver.as_deref().unwrap_or_default());
                Some((file(address, "driver_override"), text))
            }
            Self::Unbind => Some((file(address, "driver/unbind"), format!("{address}\n"))),
            Self::Probe => {
                let bus = DEVICES.trim_end_matches("/devices");
                Some((format!("{bus}/drivers_probe"), format!("{address}\n")))
            }
            Self::Remember | Self::MarkGiven | Self::Reset | Self::Forget => None,
        }
    }
}

/// The next step to a guest; `None` when the function is ready for it.
#[must_use]
pub fn next_to_guest(seen: &Seen, binding: Option<&Binding>) -> Option<Step> {
    let Some(binding) = binding else { return Some(Step::Remember) };
    if seen.driver_override.as_deref() != Some(VFIO_PCI) {
        return Some(Step::Override(Some(VFIO_PCI.to_owned())));
    }
    match seen.driver.as_deref() {
        Some(VFIO_PCI) => (binding.stage != Stage::Given).then_some(Step::MarkGiven),
        Some(_) => Some(Step::Unbind),
        None => Some(Step::Probe),
    }
}

/// The next step back to the host. The last one is [`Step::Forget`].
#[must_use]
pub fn next_to_host(seen: Option<&Seen>, binding: &Binding) -> Step {
    // What is gone has nothing to be undone.
    let Some(seen) = seen else { return Step::Forget };
    let as_it_was = || {
        if seen.driver_override == binding.driver_override {
            Step::Forget
        } else {
            Step::Override(binding.driver_override.clone())
        }
    };
    match (seen.driver.as_deref(), binding.driver.as_deref()) {
        _ if binding.stage == Stage::Given => Step::Reset,
        (is, was) if is == was => as_it_was(),
        (Some(VFIO_PCI), _) => Step::Unbind,
        // Virtual functions find their driver by its name only, where the physical one does not probe them.
        (None, Some(was)) if seen.driver_override.as_deref() == Some(was) => Step::Probe,
        (None, Some(was)) => Step::Override(Some(was.to_owned())),
        // Somebody else gave it a driver meanwhile.
        (Some(_), _) | (None, None) => as_it_was(),
    }
}
