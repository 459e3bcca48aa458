//! Whole clusters in one thread, under faults, from one seed.
//!
//! ```text
//!   seed ─► Options (everything is drawn) ─► World
//!                                             │  one queue of events, one clock
//!      clients ─► network ─► ServerHost ──────┤  the real server core over a simulated disk
//!                    ▲          ▲  │          │
//!                    │     nemesis │ applied  │  crashes, partitions, full and failing disks, clocks
//!                    ▼             ▼          │
//!                AgentHost      Chronicle ────┤  one history, replayed; every replica is held against it
//!             the real agent    invariants    │
//!                core           Oracle        │  what clients were told
//!                    │                        │
//!                Hypervisor ── physical truth ┘
//!   safety: faults, and nothing bad may happen ─► liveness: no faults, and everything must come to rest
//! ```
//!
//! Entry point: [`run`]. The same seed gives the same run, bit by bit: nothing here reads a clock, draws from the
//! operating system, or iterates in an order that is not its own.
//!
//! It never judges by the code under test alone: what clients were told, what guests physically do and what
//! was replayed are kept apart from it.

mod agent_host;
pub mod canaries;
mod chronicle;
mod client;
mod clock;
mod cpus;
mod devices;
mod disk;
mod fencing;
mod guest_life;
mod history_host;
mod hypervisor;
mod images;
mod inject;
pub mod invariants;
pub mod linearize;
mod liveness;
mod lost;
mod message;
mod nemesis;
mod network;
mod operator;
pub mod options;
mod oracle;
mod queue;
mod registers;
mod report;
mod rng;
mod safety;
pub mod script;
mod server_host;
pub mod shrink;
mod snapshot_transfer;
pub mod timeline;
mod trace;
mod usage;
mod volumes;
mod watching;
mod workload;
mod workload_sets;
mod world;

pub use options::{Options, Shape};
pub use report::{Outcome, Report};
pub use safety::{RunConfig, Tripwire, run};
pub use script::Script;
pub use trace::Detail;
