//! Resets everything of a pod whose guest is gone, before any of it goes back to the host.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_types::ObjectId;

use super::machine::is_there;
use super::reset::reset_file;
use super::{Binding, Machine, NoReset, Notebook, RESET_FAILED, ResetWay, Stage, check_after, way_to_reset};
use crate::hardware::{Bdf, Inventory, discover};
use crate::vf_settings::VfNote;

/// How each function of a pod is reset.
type Ways = BTreeMap<Bdf, Result<ResetWay, NoReset>>;

/// The functions of a pod, companions first: the reset of the bus that one of them needs is the main function's as well.
pub(super) fn in_order(notebook: &dyn Notebook, pod: ObjectId) -> Vec<Bdf> {
    let of_pod = notebook.bindings().values().filter(|binding| binding.pod == pod);
    let mut addresses: Vec<(bool, Bdf)> =
        of_pod.map(|binding| (binding.companion_of.is_none(), binding.address)).collect();
    addresses.sort_unstable();
    addresses.into_iter().map(|(_, address)| address).collect()
}

/// Resets everything of a pod that a guest may have had. Tells what is in quarantine now, because it cannot be reset or is not well
/// afterwards.
///
/// # Errors
/// When what must be remembered cannot be written.
pub(super) fn reset_all(
    machine: &mut dyn Machine,
    notebook: &mut dyn Notebook,
    pod: ObjectId,
) -> Result<Vec<Bdf>, String> {
    let all = in_order(notebook, pod);
    if !all.iter().any(|address| is_given(notebook, *address)) {
        return Ok(Vec::new());
    }
    let inventory = discover(machine);
    let ways = ways(machine, &inventory, &all);
    let mut lost = Vec::new();
    for address in all {
        // What is gone has nothing to be undone, and a reset of its bus may have been its own, too.
        let Some(way) = ways.get(&address).filter(|_| is_given(notebook, address)) else { continue };
        let outcome = match way {
            Ok(way) => reset(machine, &inventory, address, way),
            Err(reason) => Err(reason.to_string()),
        };
        let name = way.as_ref().map(ResetWay::name).unwrap_or_default();
        let reached: BTreeSet<Bdf> = way.iter().flat_map(ResetWay::below).chain([address]).collect();
        for one in reached.into_iter().filter(|one| ways.contains_key(one)) {
            // Its own way comes yet.
            if outcome.is_err() && ways.get(&one) != Some(way) {
                continue;
            }
            let outcome = outcome.clone().and_then(|()| check_after(machine, &inventory.functions[&one]));
            if !settle(machine, notebook, one, &name, outcome)? {
                lost.push(one);
            }
        }
    }
    Ok(lost)
}

fn is_given(notebook: &dyn Notebook, address: Bdf) -> bool {
    notebook.bindings().get(&address).is_some_and(|binding| binding.stage == Stage::Given)
}

/// How each of a pod's functions that are there is reset.
fn ways(machine: &dyn Machine, inventory: &Inventory, all: &[Bdf]) -> Ways {
    let ours: BTreeSet<Bdf> = all.iter().copied().collect();
    let way = |address: &Bdf| {
        let function = inventory.functions.get(address)?;
        Some((*address, way_to_reset(machine, inventory, function, &ours)))
    };
    all.iter().filter_map(way).collect()
}

/// One reset.
fn reset(
    machine: &mut dyn Machine,
    inventory: &Inventory,
    address: Bdf,
    way: &ResetWay,
) -> Result<(), String> {
    match (way, reset_file(way, address)) {
        (_, Some(path)) => machine.write(&path, "1\n").map_err(|error| format!("{path} {error}")),
        (ResetWay::HotReset { below }, None) => {
            let groups = below.iter().filter_map(|at| inventory.functions.get(at)?.iommu_group).collect();
            machine.hot_reset(address, &groups).map_err(|error| format!("VFIO_DEVICE_PCI_HOT_RESET: {error}"))
        }
        _ => Ok(()),
    }
}

/// Notes what became of a function; false when it is in quarantine.
fn settle(
    machine: &dyn Machine,
    notebook: &mut dyn Notebook,
    address: Bdf,
    method: &str,
    outcome: Result<(), String>,
) -> Result<bool, String> {
    let binding = notebook.bindings().get(&address).filter(|binding| binding.stage == Stage::Given);
    let Some(binding) = binding.cloned() else { return Ok(true) };
    match outcome {
        Ok(()) => {
            let vf = binding.vf.map(VfNote::neutral);
            notebook.put(Binding { stage: Stage::Clean, vf, ..binding })?;
            notebook.note_reset(address, method);
        }
        // It went away meanwhile.
        Err(_) if !is_there(machine, address) => {}
        Err(reason) => {
            let by = if method.is_empty() { String::new() } else { format!(" ({method})") };
            notebook.quarantine(address, RESET_FAILED, &format!("reset{by} failed: {reason}"))?;
            notebook.remove(address)?;
            return Ok(false);
        }
    }
    Ok(true)
}
