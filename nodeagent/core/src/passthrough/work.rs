//! Does the steps, and looks whether they had their effect.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_types::{NetworkAttachment, ObjectId};
use smol_str::SmolStr;

use super::machine::is_there;
use super::resets::{in_order, reset_all};
use super::{
    Binding, DRIVER_NOT_RESTORED, Known, Machine, Notebook, Planned, Refusal, SETTINGS_NOT_RESTORED, Seen,
    Stage, Step, foreign_owners, next_to_guest, next_to_host, plan,
};
use crate::hardware::{Bdf, TreeError, discover};
use crate::vf_settings::{self, SettingFailed, VfNote};

/// More steps than either way of one function has.
const STEPS_MAX: usize = 24;

/// Why a function did not come where it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// A rule forbids it; nothing was touched.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A step failed.
    #[error("device {address}: {step} failed: {reason}")]
    Step {
        /// Which function.
        address: Bdf,
        /// Which step.
        step: &'static str,
        /// Why.
        reason: String,
    },
    /// Its group is open elsewhere.
    #[error(
        "device {address}: IOMMU group {group} cannot be opened: {reason}; another process may have it (fuser /dev/vfio/{group})"
    )]
    GroupBusy {
        /// Which function.
        address: Bdf,
        /// Which group.
        group: u32,
        /// Why.
        reason: TreeError,
    },
}

/// Who asks, and when.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Which pod.
    pub pod: ObjectId,
    /// The present boot of the machine.
    pub boot_id: SmolStr,
    /// Drivers of the host whose functions may be taken.
    pub take_from: &'a [String],
    /// The networks to which functions attach the pod.
    pub networks: &'a BTreeMap<Bdf, NetworkAttachment>,
}

/// Binds functions for a pod's guest, those that go with them too: all, or none. May be asked for again, whatever was done
/// before. Functions that the pod has and that are not asked for any more stay with it until [`release`].
///
/// # Errors
/// [`BindError`]; what was bound by this call is given back then.
pub fn attach(
    machine: &mut dyn Machine,
    notebook: &mut dyn Notebook,
    request: &Request<'_>,
    wanted: &BTreeSet<Bdf>,
) -> Result<Vec<Planned>, BindError> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let inventory = discover(machine);
    let foreign = foreign_owners(machine, &inventory, notebook.bindings());
    let known = Known {
        bindings: notebook.bindings(),
        quarantined: notebook.quarantined(),
        take_from: request.take_from,
        foreign: &foreign,
    };
    let planned = plan(&inventory, known, request.pod, wanted)?;
    let before: BTreeSet<Bdf> = notebook.bindings().keys().copied().collect();
    let bound = planned.iter().try_for_each(|one| to_guest(machine, notebook, request, *one));
    let is_open = |address: &Bdf| {
        let group = inventory.functions.get(address).and_then(|function| function.iommu_group);
        group.map(|group| (*address, group))
    };
    let bound = bound.and_then(|()| {
        wanted.iter().filter_map(is_open).try_for_each(|(address, group)| {
            machine.try_group(group).map_err(|reason| BindError::GroupBusy { address, group, reason })
        })
    });
    if let Err(error) = bound {
        for one in planned.iter().filter(|one| !before.contains(&one.address)) {
            // No guest had it. What fails now is found by the next start of the agent.
            let _ = undo(machine, notebook, one.address);
        }
        return Err(error);
    }
    Ok(planned)
}

/// Gives back everything that a pod has; its guest must be gone. Tells what did not come back: that is in quarantine.
///
/// # Errors
/// When what must be remembered cannot be written, or a step failed that may work the next time: to be asked for again.
pub fn release(
    machine: &mut dyn Machine,
    notebook: &mut dyn Notebook,
    pod: ObjectId,
) -> Result<Vec<Bdf>, String> {
    // All of them before any goes back: a reset of a bus reaches what a driver of the host would have by then.
    let mut lost = reset_all(machine, notebook, pod)?;
    let mut failed = Vec::new();
    for address in in_order(notebook, pod) {
        match to_host(machine, notebook, address) {
            Ok(true) => {}
            Ok(false) => lost.push(address),
            Err(reason) => failed.push(reason),
        }
    }
    lost.sort_unstable();
    if failed.is_empty() { Ok(lost) } else { Err(failed.join("; ")) }
}

/// What an agent's last life left, when a new one begins. Bindings of another boot are forgotten; those of pods that are not
/// known any more are given back. Those of pods that are known stay as they are: their guests may run.
///
/// # Errors
/// As [`release`].
pub fn recover(
    machine: &mut dyn Machine,
    notebook: &mut dyn Notebook,
    boot_id: &str,
    is_known: &dyn Fn(ObjectId) -> bool,
) -> Result<Vec<Bdf>, String> {
    let bindings: Vec<Binding> = notebook.bindings().values().cloned().collect();
    for binding in bindings.iter().filter(|binding| binding.boot_id != boot_id) {
        notebook.remove(binding.address)?;
    }
    let pods: BTreeSet<ObjectId> = notebook.bindings().values().map(|binding| binding.pod).collect();
    let (mut lost, mut failed) = (Vec::new(), Vec::new());
    for pod in pods.into_iter().filter(|pod| !is_known(*pod)) {
        match release(machine, notebook, pod) {
            Ok(more) => lost.extend(more),
            Err(reason) => failed.push(reason),
        }
    }
    if failed.is_empty() { Ok(lost) } else { Err(failed.join("; ")) }
}

fn to_guest(
    machine: &mut dyn Machine,
    notebook: &mut dyn Notebook,
    request: &Request<'_>,
    planned: Planned,
) -> Result<(), BindError> {
    let address = planned.address;
    let failed = |step: &'static str, reason: String| BindError::Step { address, step, reason };
    let (mut last, mut network) = (None, request.networks.get(&address));
    for _ in 0..STEPS_MAX {
        let seen = Seen::of(machine, address).ok_or(Refusal::NotThere(address))?;
        let binding = notebook.bindings().get(&address).cloned();
        // Before a guest can have it, and while its driver of the host still may: what a function is told moves nothing.
        if let Some(binding) = binding.as_ref()
            && let Some(network) = network.take()
        {
            set_up(machine, notebook, binding, network)
                .map_err(|SettingFailed { step, reason }| failed(step, reason))?;
            continue;
        }
        let Some(step) = next_to_guest(&seen, binding.as_ref()) else { return Ok(()) };
        let name = step.name();
        if last.as_ref() == Some(&step) {
            return Err(failed(name, "it had no effect".to_owned()));
        }
        match step.writes(address) {
            Some((path, text)) => {
                machine.write(&path, &text).map_err(|error| failed(name, format!("{path} {error}")))?
            }
            None => {
                let stage = if step == Step::MarkGiven { Stage::Given } else { Stage::Taken };
                let binding = binding.unwrap_or(Binding {
                    address,
                    pod: request.pod,
                    companion_of: planned.companion_of,
                    driver: seen.driver,
                    driver_override: seen.driver_override,
                    stage,
                    boot_id: request.boot_id.clone(),
                    vf: None,
                });
                notebook.put(Binding { stage, ..binding }).map_err(|reason| failed(name, reason))?;
            }
        }
        last = Some(step);
    }
    Err(failed("bind", "it takes no end".to_owned()))
}

/// Tells a function what its network wants; where it was before is noted first, and kept from an earlier attempt.
fn set_up(
    machine: &mut dyn Machine,
    notebook: &mut dyn Notebook,
    binding: &Binding,
    network: &NetworkAttachment,
) -> Result<(), SettingFailed> {
    let found = vf_settings::note_of(machine, binding.address, network)?;
    let note = match binding.vf {
        Some(known) => VfNote { back_to: known.back_to.or(found.back_to), ..found },
        None => found,
    };
    if binding.vf != Some(note) {
        let kept = notebook.put(Binding { vf: Some(note), ..binding.clone() });
        kept.map_err(|reason| SettingFailed { step: "vf remember", reason })?;
    }
    vf_settings::set_up(machine, &note, network)
}

/// Takes back what no guest has had.
fn undo(machine: &mut dyn Machine, notebook: &mut dyn Notebook, address: Bdf) -> Result<bool, String> {
    if let Some(binding) = notebook.bindings().get(&address).cloned() {
        notebook.put(Binding { stage: Stage::Clean, ..binding })?;
    }
    to_host(machine, notebook, address)
}

/// Whether it is as it was; false when it is in quarantine.
fn to_host(machine: &mut dyn Machine, notebook: &mut dyn Notebook, address: Bdf) -> Result<bool, String> {
    let mut last = None;
    for _ in 0..STEPS_MAX {
        let Some(binding) = notebook.bindings().get(&address).cloned() else { return Ok(true) };
        let seen = Seen::of(machine, address);
        // After the reset, and before a driver of the host looks at what it is told.
        if let Some(note) = binding.vf.filter(|_| binding.stage != Stage::Given && seen.is_some()) {
            match vf_settings::go_back(machine, &note) {
                Ok(()) => notebook.put(Binding { vf: None, ..binding })?,
                Err(SettingFailed { step, reason }) => {
                    let message = format!("{step} failed: {reason}");
                    notebook.quarantine(address, SETTINGS_NOT_RESTORED, &message)?;
                    notebook.remove(address)?;
                    return Ok(false);
                }
            }
            continue;
        }
        let step = next_to_host(seen.as_ref(), &binding);
        if step == Step::Reset {
            return Err(format!("device {address}: it was not reset yet"));
        }
        let outcome = if last.as_ref() == Some(&step) {
            Err("it had no effect".to_owned())
        } else {
            back(machine, notebook, &step, &binding)
        };
        if let Err(reason) = outcome {
            return given_up(machine, notebook, &step, &binding, &reason);
        }
        last = Some(step);
    }
    Err(format!("device {address}: giving it back takes no end"))
}

/// One step back.
fn back(
    machine: &mut dyn Machine,
    notebook: &mut dyn Notebook,
    step: &Step,
    binding: &Binding,
) -> Result<(), String> {
    match step.writes(binding.address) {
        Some((path, text)) => machine.write(&path, &text).map_err(|error| format!("{path} {error}")),
        None => notebook.remove(binding.address),
    }
}

/// A step back failed. What cannot be given back goes to nobody; a binding is not needed for that any more.
fn given_up(
    machine: &mut dyn Machine,
    notebook: &mut dyn Notebook,
    step: &Step,
    binding: &Binding,
    reason: &str,
) -> Result<bool, String> {
    let address = binding.address;
    if !is_there(machine, address) {
        return notebook.remove(address).map(|()| true);
    }
    if matches!(step, Step::Forget) {
        return Err(format!("device {address}: {} failed: {reason}", step.name()));
    }
    let message = format!("{} failed: {reason}", step.name());
    notebook.quarantine(address, DRIVER_NOT_RESTORED, &message)?;
    notebook.remove(address)?;
    Ok(false)
}
