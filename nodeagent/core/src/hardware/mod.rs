//! What a machine has: PCI functions, and whether it is ready to run guests with them.
//!
//! ```text
//!  Tree (sysfs, procfs) ──► discover ──► Inventory ──┬─► changes_since   what came, went or changed
//!        │                     ▲                     ├─► DeviceClasses   which of them can be attached, by data
//!                              │                     └─► preconditions   what is missing, each with its remedy
//!        └─► cpu_topology      NUMA nodes, cores, threads
//!  driver's library, kernel's log, uevents ─► KnownCards   which card is where, and whether it works
//!       a folder, or a map in memory
//! ```
//!
//! All of it is pure: what is read comes through [`Tree`], what is told to the whole machine goes through [`MachineSettings`], and what the kernel
//! says while it happens comes through [`KernelMessages`]. Of each the agent has one over the real kernel, and tests have one in memory.
//! Both pass the same suite.
//!
//! What a function says may be anything: texts are cut, numbers checked, folders bounded, and a function that cannot be read is
//! told apart from one that is not there.

mod accelerators;
mod bdf;

mod card_usage;
mod changes;
mod config_space;
mod cpus;
mod devices;
mod discover;
mod function;
mod gpu_check;
mod huge_pages;
mod kernel_log;
mod kernel_messages;
mod kind;
mod known_cards;
mod machine_settings;
mod network_preconditions;
mod pci_facts;
mod pci_id;
mod preconditions;
mod system;
mod tree;
mod uevent;

pub use accelerators::*;
pub use bdf::*;
pub use card_usage::card_usage;
pub use changes::*;
pub use config_space::Acs;
pub(crate) use config_space::standard_header;
pub use cpus::{CpuProblem, cpu_topology};
pub use devices::report_nics;
pub(crate) use discover::function_at;
pub use discover::{Inventory, Problem, discover};
pub use function::*;
pub use gpu_check::{CardCheck, CheckedCard, GpuCheck, NotDone, gpu_check};
pub use huge_pages::*;
pub use kernel_log::*;
pub use kernel_messages::*;
pub use kind::*;
pub use known_cards::{AER_FATAL, KnownCards, LastReset, NOT_ANSWERING, Replaced};
pub use machine_settings::*;
pub use pci_id::*;
pub use preconditions::*;
pub use system::*;
pub use tree::*;
pub use uevent::*;
