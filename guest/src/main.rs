//! The init process of a guest VM: runs the containers of one pod and tells the node agent about them.
//!
//! ```text
//!  kernel ─► /init (this program, static, in the initramfs)
//!             setup: mounts, modules, virtio-serial port
//!             agent: one epoll loop ◄──frames──► node agent on the host
//!               supervisor  decides (pure)         channel  frames over the port
//!               container   disk, cgroup, process  logs     bounded store of output
//!               sandbox     the child, from clone to execve
//!               task        probes and hooks, a process each; request  what they ask over loopback
//!               streams     commands, archives, connections and attachments for the host's clients
//!               freeze      a process that holds a volume still while the host copies it
//!               stdio       input, output and terminal of a container's own process
//! ```
//!
//! It is PID 1 and never returns: at the end, and when something is broken beyond repair, the guest powers off. It
//! has one thread, trusts the host, and trusts nothing that a container does. It never reaches beyond
//! the guest's own loopback interface, never chooses an image and never talks to the control plane.

mod agent;
mod cgroup;
mod channel;
mod container;
mod devices;
mod freeze;
mod handed_over;
mod logs;
mod message;
mod mounts;
mod network;
mod ownership;
mod pages;
mod request;
mod reseed;
mod resize;
mod sandbox;
mod seccomp;
mod setup;
mod stdio;
mod streams;
mod supervisor;
mod sys;
mod sysctl;
mod tail;
mod task;
mod volumes;

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;

/// Set in the child of a clone: its failure ends one container, not the guest.
pub(crate) static IS_CONTAINER_CHILD: AtomicBool = AtomicBool::new(false);

fn main() {
    if std::process::id() != 1 {
        eprintln!(
            "bulkhead-guest is the init process of a guest VM (QEMU: -initrd); it does nothing elsewhere"
        );
        std::process::exit(1);
    }
    std::panic::set_hook(Box::new(|info| {
        eprintln!("bulkhead-guest: {info}");
        if !IS_CONTAINER_CHILD.load(Ordering::Relaxed) {
            setup::power_off();
        }
    }));
    if let Err(error) = run() {
        eprintln!("bulkhead-guest: {error:#}");
    }
    setup::power_off();
}

fn run() -> Result<()> {
    let boot_ms = agent::read_clocks().monotonic_ms;
    setup::open_console()?;
    setup::mount_system()?;
    let devices = setup::DeviceEvents::open()?;
    setup::load_modules();
    resize::keep_modules();
    setup::leave_initramfs()?;
    let port = devices.wait_for_port()?;
    drop(devices);
    // Children begin as copies of this program and are in a container's sight before they execute something else:
    // nobody in there may look into them, however much root it is.
    nix::sys::prctl::set_dumpable(false)?;
    let mut agent = agent::Agent::open(&port, boot_ms)?;
    let now = agent::read_clocks().monotonic_ms;
    eprintln!(
        "bulkhead-guest: listening on {} {now} ms after the kernel's start (init {boot_ms} ms)",
        port.display()
    );
    agent.run()
}
