//! `preflight --gpu`: what can be checked of NVIDIA's cards on this machine, each precondition, and what could not be done here.

use std::path::Path;

use bulkhead_nodeagent::NvmlLibrary;
use bulkhead_nodeagent::hardware::{
    Accelerators, Cards, GpuCheck, Inventory, Precondition, Unavailable, gpu_check,
};

use super::Format;
use crate::failure::{Class, Failure};
use crate::output::{emit, emit_line};

/// The library of another machine, of which only files are here.
struct Elsewhere;

impl Accelerators for Elsewhere {
    fn open(&mut self, _: &mut dyn FnMut(&mut dyn Cards)) -> Result<(), Unavailable> {
        let reason = "NVML: it knows this machine's cards, and these are another one's files".to_owned();
        Err(Unavailable { reason, remedy: "run it there, without --root".to_owned() })
    }
}

/// Does what can be done on a machine whose files these are.
pub(super) fn check(root: &Path, inventory: &Inventory, preconditions: &[Precondition]) -> GpuCheck {
    match root == Path::new("/") {
        true => gpu_check(inventory, preconditions, &mut NvmlLibrary),
        false => gpu_check(inventory, preconditions, &mut Elsewhere),
    }
}

/// Shows it.
///
/// # Errors
/// `NotFound` when there is no card, failed when a check did, `Unavailable` when some could not be done.
pub(super) fn run(done: &GpuCheck, format: Format) -> Result<(), Failure> {
    match format {
        Format::Table => emit(&done.to_string())?,
        Format::Json => emit_line(&serde_json::to_string_pretty(done).map_err(anyhow::Error::from)?)?,
    }
    if done.cards.is_empty() {
        return Err(Failure::new(Class::NotFound, "this machine has no NVIDIA GPU: no card was checked"));
    }
    match (done.failed(), done.undone()) {
        (0, 0) => Ok(()),
        (0, count) => Err(Failure::new(Class::Unavailable, format!("{count} checks could not be done"))),
        (count, _) => Err(Failure::failed(format!("{count} of the checks failed"))),
    }
}
