//! The server of the control plane: sockets, disk, threads and time around the sans-IO core.
//!
//! ```text
//!   gRPC (api/) ──► Handle ──► node thread: Server (core) ──► log thread ──► sled, one fsync per request
//!     ▲   ▲                      │        │      │
//!     │   └── View, WatchHub ◄───┘        │      └────────► history thread ──► events, snapshots
//!     └────── replies                     └──► peer links (transport/) ──► other servers
//! ```
//!
//! Entry point: [`run`]. One thread owns the core and everything that it decides; the others only carry bytes.
//! Reads, watches and intents are served from an O(1) copy of the State that the node thread publishes after
//! every step, on leaders and followers alike.
//!
//! What it never does: decide. What may happen to an object, who leads and where a pod runs is the core's.

mod api;
mod backups;
mod bootstrap;
mod config;
mod damage;
mod deadline;
mod error;
mod forward;
mod handle;
mod history;
mod intents;
mod metric_source;
mod metrics;
mod no_room;
mod node;
pub mod offline;
mod past;
mod persist;
mod propose;
mod run;
pub mod telemetry;
mod transport;
mod view;
mod watch;

pub use bulkhead_controlplane_disk::Backup;
pub use config::{BackupOptions, DEFAULT_PORT, ServerOptions};
pub use metric_source::EndpointError;
pub use offline::{
    OfflineError, RecoverOptions, Recovered, RestoreOptions, Restored, recover, restore, verify_backup,
};
pub use run::{RunError, run};

// No planted bug is in this build: it would not compile.
bulkhead_canary::unarmed!();

/// The version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
