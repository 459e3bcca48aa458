//! Faults of the agent and of its guests: the agent is a process of its own, guests are stand-ins.
//!
//! ```text
//!  test ── FakeServer ◄──── agent (this executable again, `agent_process`) ──► bulkhead-stand-in-qemu ×n
//!    └── spawns, kills, looks: processes, folders, control groups, descriptors, mounts
//! ```

mod cycles;
mod guests;
mod host;
mod life;
mod machine;
mod reboots;
mod steps;
mod stored;
#[path = "../../../tests/src/stub_files.rs"]
mod stub_files;
mod templates;

use std::sync::Arc;

use bulkhead_nodeagent::{
    AccelChoice, AgentConfig, ConfinementChoice, GuestSize, KernelSource, MachineParts, MemorySharing,
    NetworkChoice, VmPoolConfig,
};
use host::Host;
use machine::{AGENT, NetworkOf, Settings, web};

/// The agent's process, when this executable is started as one; otherwise nothing.
#[test]
fn agent_process() {
    let Ok(settings) = std::env::var(AGENT) else { return };
    // A test that is ended leaves no agent behind.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).expect("asked");
    let settings: Settings = serde_json::from_str(&settings).expect("settings");
    let mut config = AgentConfig::new("node-1", vec![settings.server], settings.data);
    config.kernel = KernelSource::Folder(settings.stubs.join("kernel"));
    config.guest = settings.stubs.join("guest");
    config.qemu = env!("CARGO_BIN_EXE_bulkhead-stand-in-qemu").into();
    config.guard = vec![env!("CARGO_BIN_EXE_bulkhead-fence-guard").into()];
    config.cgroup_parent = Some(settings.cgroup_parent);
    config.accel = AccelChoice::Tcg;
    config.backoff_ms = Some(settings.backoff_ms);
    config.memory_bytes = Some(64 << 30);
    config.cpu_millis = Some(256_000);
    config.boot_deadline_ms = Some(settings.boot_deadline_ms);
    config.silence_ms = Some(settings.silence_ms);
    config.take_devices_from = vec!["nvidia".to_owned()];
    if !settings.is_confined {
        config.confinement = ConfinementChoice::Off;
    }
    let mut parts = MachineParts::own();
    if let Some(log) = settings.host {
        let host = Host::open(&log, &config.data_dir);
        if settings.network == Some(NetworkOf::Memory) {
            parts.network = Arc::new(host.clone());
        }
        parts.devices = Box::new(host);
    }
    if settings.network.is_some() {
        config.network.choice = NetworkChoice::Bridge;
    }
    if settings.templates {
        config.memory_sharing = MemorySharing::Template;
    }
    let size = GuestSize::new(&web(0).spec);
    config.vm_pool = (settings.vm_pool > 0).then_some(VmPoolConfig { guests: settings.vm_pool, size });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let ended = runtime.expect("a runtime").block_on(bulkhead_nodeagent::run_on(
        parts,
        config,
        std::future::pending(),
    ));
    ended.expect("it runs until it is killed");
}
