//! Functions of the host that guests get: bound to vfio-pci, reset and given back as they were; and virtual functions, made.
//!
//! ```text
//!  sysfs ──► Seen ──┐
//!  Binding ─────────┼─► next step ─► Machine, Notebook ─► looked at again, until nothing is left to do
//!  what is wanted ──┘
//!
//!  group.rs       which functions go together, and what forbids it: the rules of IOMMU groups
//!  step.rs        one function: what is seen and what is remembered say which step is next
//!  work.rs        the steps are done, and looked at; what an agent that died left half done is finished or undone
//!  reset.rs       how a function is reset, and whether it is well afterwards
//!  resets.rs      everything of a pod is reset, before any of it goes back
//!  functions.rs   the virtual functions of a NIC: how many, with which driver
//!  nic_links.rs   its interfaces: their MTU, and that the NIC's own is up
//!  nic_report.rs  how far that is, and what is told of it
//!  foreign.rs     what somebody else on the host uses
//!  kernel.rs      a kernel in memory, for tests: it does what Linux does
//!  conformance.rs what both do alike
//! ```
//!
//! Every step is found from what is seen, so it does not matter how far another agent came. What sysfs cannot say — which
//! driver a function had, and that a guest may have had it — is remembered durably before it is needed. What was remembered
//! in another boot of the machine means nothing: the kernel has bound everything anew.
//!
//! A function of a NIC that attaches a pod to a network is told what the network wants ([`crate::vf_settings`]) before it is bound,
//! and goes back to what it was told before once it was reset.
//!
//! A function that cannot be reset after a guest had it, or is not well afterwards, goes to nobody any more (`Quarantine`), not to the host either.
//!
//! Source: "VFIO" (`driver-api/vfio.rst`), "sysfs-bus-pci" of Linux.

mod conformance;
mod foreign;
mod functions;
mod group;
mod kernel;
mod machine;
mod nic_links;
mod nic_report;
mod notes;
mod reset;
mod resets;
mod step;
mod work;
mod wrapped;

pub use conformance::check_machine;
pub use foreign::*;
pub use functions::*;
pub use group::*;
pub use kernel::KernelModel;
pub use machine::*;
pub use nic_report::*;
pub use notes::*;
pub use reset::*;
pub use step::*;
pub use work::*;
pub use wrapped::{Before, Wrapped};

#[cfg(test)]
mod tests;
