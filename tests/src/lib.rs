//! End-to-end tests of Bulkhead: the real program, in real processes, with real sockets, disks and guests.
//!
//! ```text
//!  test ─┬─► Cluster ─► Process (bulkhead server) × n ─┐
//!        ├─► Agent ───► Process (bulkhead agent) ──────┼─► TempDir: data, logs; kept when a test fails
//!        │                 └─► qemu-system-x86_64 …    │
//!        └─► Cli (bulkhead get, apply, …), tonic ◄─────┘
//! ```
//!
//! Entry points: [`Cluster`], [`Agent`], [`Cli`], the waits of [`wait`], and [`torture`].
//!
//! This crate never runs Bulkhead's code in its own process, never ends a process that it did not start or that
//! does not use its own folder, and never waits without a bound.

mod agent;
mod cgroups;
mod cli;
mod cluster;
mod image;
mod process;
#[allow(unreachable_pub, reason = "shared with other tests")]
mod stub_files;
mod stubs;
pub mod torture;
pub mod wait;

pub use agent::{Agent, guest_environment};
pub use cli::{Cli, Done};
pub use cluster::{Cluster, free_addresses};
pub use image::{IMAGE_NAME, build_layout, layout};
pub use process::{Process, bulkhead, find_program, pids_with};
pub use stubs::Stubs;

/// Why a test cannot run here, said once. In CI a missing tool is a failure: nothing may pass unseen.
///
/// # Panics
/// When `CI` is set to anything but nothing or `false`.
pub fn skip(reason: &str) {
    let ci = std::env::var("CI").unwrap_or_default();
    assert!(ci.is_empty() || ci == "false", "in CI nothing is left out: {reason}");
    #[allow(clippy::print_stdout)]
    {
        println!("left out: {reason}");
    }
}
