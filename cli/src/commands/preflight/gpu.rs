//! `preflight --gpu`: what can be checked of NVIDIA's cards on this machine, and what could not be.

use bulkhead_nodeagent::hardware::{Accelerators, Inventory, Precondition, gpu_check};

use crate::failure::{Class, Failure};
use crate::output::emit;

/// # Errors
/// `NotFound` when there is no card, failed when a check did, `Unavailable` when some could not be done.
pub(super) fn run(
    inventory: &Inventory,
    preconditions: &[Precondition],
    library: &mut dyn Accelerators,
) -> Result<(), Failure> {
    let done = gpu_check(inventory, preconditions, library);
    if done.cards == 0 {
        return Err(Failure::new(Class::NotFound, "this machine has no NVIDIA GPU: nothing was checked"));
    }
    emit(&done.text)?;
    match (done.failed, done.undone) {
        (0, 0) => Ok(()),
        (0, count) => Err(Failure::new(Class::Unavailable, format!("{count} checks could not be done"))),
        (count, _) => Err(Failure::failed(format!("{count} of the checks failed"))),
    }
}
