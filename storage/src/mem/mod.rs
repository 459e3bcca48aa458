//! A disk in memory that survives the simulated process that used it, with crashes and faults chosen by the caller.

mod crash;
mod disk;
mod engine;
mod fault;

pub use crash::{CrashChoice, CrashReport};
pub use disk::MemDisk;
pub use fault::{Fault, FaultPlan, FaultRule};
