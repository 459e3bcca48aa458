//! The node agent's core: what should run and what does run become a plan, step by step.
//!
//! ```text
//!              Joined · Intent · Ack                     ImageReady · VmStarted · GuestHello · VmExited …
//!  session ───────────────────────┐                ┌──────────────────────────────────────────── executors
//!                                 ▼                ▼
//!                         ┌─ Agent::handle(now, Input) ─┐
//!                         │  Session: lease, reports    │   one phase machine per pod,
//!                         │  Pod × n: want vs. phase    │   level-triggered: each step looks at
//!                         │  admission: what guests hold│   want, phase and time only
//!                         └─ Agent::poll_action() ──────┘
//!  session ◄─ Join · Report ──────┘                └──────► Prepare · PersistRecord · StartVm · StopVm · KillVm …
//! ```
//!
//! Entry point: [`Agent`]. [`Guard`] ends a guest that must be unique when nobody else does. [`qemu`] builds QEMU's command line, [`Jail`] and
//! [`HostLimits`] say how it is shut in, [`hardware`] finds what a machine has, [`vf_settings`] says what virtual functions are told.
//!
//! Promises, kept by tests: no two guests of one pod live at a time; guests never hold more than the node allows to be
//! held by new ones; what is not intended ends; when the lease runs out, pods that must be unique are killed.
//!
//! This crate does no IO, reads no clock, and holds no thread. The same code runs on real nodes and in the simulator.

mod action;
mod agent;
mod backlog;
mod cgroup;
mod config;
mod confine;
mod damping;
mod device_damping;
mod devices;
mod guard;
mod guest_times;
pub mod hardware;
mod images;
mod input;
mod keyring;
pub mod network;
mod note;
mod numa;
pub mod passthrough;
mod pod;
mod processes;
pub mod qemu;
mod readiness;
pub mod reason;
mod record;
mod resize;
mod session;
mod start_phases;
pub mod text;
pub mod vf_settings;
mod vm_pool;
mod vm_templates;
mod volume_tasks;
mod volumes;

pub use action::*;
pub use agent::*;
pub use cgroup::*;
pub use config::*;
pub use confine::*;
pub use guard::*;
pub use guest_times::*;
pub use input::*;
pub use keyring::*;
pub use note::*;
pub use numa::*;
pub use processes::*;
pub use readiness::*;
pub use record::*;
pub use resize::*;
pub use start_phases::*;
pub use vm_pool::*;
pub use vm_templates::*;
