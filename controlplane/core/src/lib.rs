//! The control plane's core: everything that decides, as synchronous functions over data.
//!
//! ```text
//!  Input (client, peer, agent, disk, time)
//!    │
//!    ▼
//!  Server ── Replica (Raft) ──► committed entries ──► Machine: decide ─► events ─► evolve ─► State
//!    │                                                                              │
//!    │ leader only: reconcilers (State, time) -> commands ◄─────── changes ─────────┤
//!    ▼                                                                              ▼
//!  Output (persist, send, reply)                                     watches, intents, read views
//! ```
//!
//! Entry points: [`server::Server`] for a whole server, [`Machine`] for the replicated state machine alone,
//! [`decide()`] and [`evolve::evolve`] for one step of it.
//!
//! This crate never reads a clock, draws a random number, iterates a hash map, spawns a thread or touches a
//! file: time, ids and seeds are parameters. The simulator runs exactly this code.

mod admission;
pub mod autoscale;
mod claims;
mod conditions;
pub mod cpus;
pub mod decide;
mod descheduler;
pub mod devices;
pub mod disruption;
mod elastic;
mod elastic_quota;
pub mod evolve;
pub mod intent;
pub mod invariant;
mod job_pods;
mod machine;
mod networks;
mod node_operation;
mod node_pool;
mod owned_pod;
pub mod placement;
mod pod_group;
pub mod ports;
mod priority;
pub mod query;
mod queue;
mod quota;
pub mod reconcile;
pub mod replica;
mod resize;
pub mod schedule;
pub mod server;
mod snapshots;
mod state;
pub mod vertical;
pub mod watch;
pub mod what_if;
mod workload;

pub use decide::decide;
pub use evolve::{Change, ChangeType};
pub use machine::{Applied, Machine};
pub use state::{
    NodeUsage, QuotaLevel, QuotaUse, REQUEST_RETENTION_MS, REQUESTS_MAX, REVISION_JUMP, RestoreError,
    Restorer, State, Stored, Table,
};
