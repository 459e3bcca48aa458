//! Makes settings, looks whether they are there, and goes back.

use std::collections::BTreeSet;

use bulkhead_types::NetworkAttachment;
use serde::{Deserialize, Serialize};

use super::{
    NextSetting, Port, VfLinkError, VfLinks, VfSetting, VfSettings, next_setting, port_of, speaks_otherwise,
};
use crate::hardware::{Bdf, Tree};

/// More settings than there are.
const STEPS_MAX: usize = 12;
/// The step in which the NIC's interface and the function's number are found.
pub const FIND: &str = "vf find";
/// The step in which it is looked at what a function is told.
pub const LOOK: &str = "vf look";

/// What has to be remembered of a function that is told something: where it is, and what to go back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VfNote {
    /// The physical function.
    pub physical: Bdf,
    /// The function's number there.
    pub index: u32,
    /// What to go back to; only what was, or is, to be set.
    pub back_to: VfSettings,
}

impl VfNote {
    /// The same for a function that a guest has had.
    #[must_use]
    pub fn neutral(self) -> Self {
        Self { back_to: self.back_to.neutral(), ..self }
    }
}

/// A step that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingFailed {
    /// Its name.
    pub step: &'static str,
    /// Why, with what helps.
    pub reason: String,
}

impl SettingFailed {
    fn found(reason: String) -> Self {
        Self { step: FIND, reason }
    }
}

/// The physical function of a virtual one, and its number there, as sysfs links them.
fn place(tree: &(impl Tree + ?Sized), function: Bdf) -> Result<(Bdf, u32), String> {
    let dir = "/sys/bus/pci/devices";
    let address = |path: String| {
        let target = tree.link(&path).ok()?;
        target.rsplit('/').next()?.parse::<Bdf>().ok()
    };
    let physical = address(format!("{dir}/{function}/physfn"))
        .ok_or_else(|| format!("{function} is no virtual function of a NIC"))?;
    let names = tree.list(&format!("{dir}/{physical}")).unwrap_or_default();
    let mut numbers = names.iter().filter_map(|name| name.strip_prefix("virtfn")?.parse::<u32>().ok());
    let is_it = |n: &u32| address(format!("{dir}/{physical}/virtfn{n}")) == Some(function);
    let number =
        numbers.find(is_it).ok_or_else(|| format!("{physical} does not count {function} as its own"))?;
    Ok((physical, number))
}

/// What is to be remembered before a function is set up for a network. Touches nothing.
///
/// # Errors
/// Where the function is cannot be found, its NIC speaks something else, or it cannot be looked at.
pub fn note_of<M: Tree + VfLinks + ?Sized>(
    machine: &M,
    function: Bdf,
    network: &NetworkAttachment,
) -> Result<VfNote, SettingFailed> {
    let (physical, index) = place(machine, function).map_err(SettingFailed::found)?;
    let port = port_of(machine, physical).map_err(SettingFailed::found)?;
    if let Some(reason) = speaks_otherwise(physical, &port, network.link_type) {
        return Err(SettingFailed::found(reason));
    }
    let seen = look(machine, &port, index)?;
    let wanted = VfSettings::wanted(network, &seen).map_err(SettingFailed::found)?;
    Ok(VfNote { physical, index, back_to: VfSettings::before(&wanted, &seen) })
}

/// Tells a function all that a network wants of it, whatever of that was done before, and looks whether it is so.
///
/// # Errors
/// The step that failed.
pub fn set_up<M: Tree + VfLinks + ?Sized>(
    machine: &mut M,
    note: &VfNote,
    network: &NetworkAttachment,
) -> Result<(), SettingFailed> {
    let port = port_of(machine, note.physical).map_err(SettingFailed::found)?;
    let seen = look(machine, &port, note.index)?;
    let wanted = VfSettings::wanted(network, &seen).map_err(SettingFailed::found)?;
    make(machine, &port, note.index, &wanted)
}

/// Goes back to what a note says.
///
/// # Errors
/// The step that failed.
pub fn go_back<M: Tree + VfLinks + ?Sized>(machine: &mut M, note: &VfNote) -> Result<(), SettingFailed> {
    let port = port_of(machine, note.physical).map_err(SettingFailed::found)?;
    make(machine, &port, note.index, &note.back_to)
}

fn make<M: VfLinks + ?Sized>(
    machine: &mut M,
    port: &Port,
    vf: u32,
    wanted: &VfSettings,
) -> Result<(), SettingFailed> {
    let mut done = BTreeSet::new();
    for _ in 0..STEPS_MAX {
        let seen = look(machine, port, vf)?;
        match next_setting(wanted, &seen, &done) {
            NextSetting::Done => return Ok(()),
            NextSetting::NoEffect(setting) => return Err(no_effect(port, vf, &setting, &seen)),
            NextSetting::Set(setting) => {
                let set = machine.set_vf(port.index, vf, &setting);
                set.map_err(|error| failed(port, vf, setting.name(), &setting.to_string(), &error))?;
                done.insert(setting.name());
            }
        }
    }
    Err(SettingFailed { step: LOOK, reason: format!("{} vf {vf}: its settings take no end", port.name) })
}

fn look<M: VfLinks + ?Sized>(machine: &M, port: &Port, vf: u32) -> Result<VfSettings, SettingFailed> {
    machine.vf(port.index, vf).map_err(|error| failed(port, vf, LOOK, "settings", &error))
}

fn failed(port: &Port, vf: u32, step: &'static str, what: &str, error: &VfLinkError) -> SettingFailed {
    let name = &port.name;
    SettingFailed { step, reason: format!("{name} vf {vf} {what}: {error}; {}", error.remedy(name)) }
}

fn no_effect(port: &Port, vf: u32, setting: &VfSetting, seen: &VfSettings) -> SettingFailed {
    let (name, step) = (&port.name, setting.name());
    let is = seen.each().find(|is| is.name() == step).map_or_else(String::new, |is| is.to_string());
    let reason = format!(
        "{name} vf {vf} {setting}: the kernel took it, and tells {is}; the driver of {name} may not be able to do that: dmesg says why"
    );
    SettingFailed { step, reason }
}
