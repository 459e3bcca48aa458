//! The node agent: runs every pod of its node in a guest VM of its own.
//!
//! ```text
//!  servers ◄── session ──┐                               ┌── podio ◄── servers (logs, exec, port-forward)
//!                        ▼                               ▼
//!                   driver: owns the core           logs on disk
//!                   Input ─► Agent ─► Action             ▲
//!                        │                               │
//!                 pod ×n ┴─ image · vm (QEMU) · channel ─┘◄── guest
//! ```
//!
//! Entry point: [`run`]. What to do is decided in `bulkhead-nodeagent-core`; this crate only does it and tells what
//! happened. Guests outlive the agent: the next one adopts them. Those that must be unique do so only until the
//! node's lease is over: each has a guard ([`run_guard`]), a process of its own.
//!
//! Nothing here decides where a pod runs, and nothing of a guest is ever trusted.

mod accelerators;
mod belonging;
pub mod boot;
mod cgroup;
mod channel;
mod clock;
mod config;
mod confinement;
mod devices;
mod disk;
mod driver;
mod error;
mod facts;
mod guard;
mod host;
pub mod host_ports;
mod https;
pub mod image;
mod kernel_watch;
#[cfg(debug_assertions)]
mod lab;
mod logs;
mod machine;
mod network;
mod nics_kept;
mod numa;
mod nvml;
mod passthrough;
mod pod;
mod podio;
mod probe;
mod qmp;
mod recheck;
mod records;
mod session;
mod starts;
pub mod steps;
mod streams;
mod trace;
mod undying;
mod vf_settings;
#[allow(unsafe_code)]
mod vfio;
mod vm;
mod vm_pool;
mod vm_template;
mod volumes;

use std::sync::Arc;

use bulkhead_nodeagent_core::hardware::KernelWatch;
use bulkhead_nodeagent_core::passthrough::Machine;
use bulkhead_nodeagent_core::qemu::Accel;
use bulkhead_nodeagent_core::{Agent, Deadlines, text};
use bulkhead_proto::v1::pod_io_server::PodIoServer;
use bulkhead_types::LABEL_POD_NETWORK;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;

pub use bulkhead_nodeagent_core::network::PodRange;
pub use bulkhead_nodeagent_core::{GuestSize, QemuUser, VM_POOL_GUESTS_MAX, hardware};
pub use cgroup::CGROUP_PARENT_DEFAULT;
pub use config::{
    AccelChoice, AgentConfig, ConfinementChoice, KernelSource, MemorySharing, POD_PIDS_LIMIT_DEFAULT,
    PODS_MAX_DEFAULT,
};
pub use confinement::parse_qemu_user;
pub use error::AgentError;
use error::At as _;
pub use guard::run_guard;
#[cfg(debug_assertions)]
pub use lab::run_lab;
pub use logs::LogLimits;
pub use machine::MachineTree;
pub use network::{HostNetwork, InUse, Link, NetworkChoice, NetworkOptions};
pub use nvml::NvmlLibrary;
pub use streams::{GuestStream, GuestStreams};
pub use vm_pool::VmPoolConfig;
pub use volumes::{ThinPoolName, thin_pool_precondition};

// No planted bug is in this build: it would not compile.
bulkhead_canary::unarmed!();

/// Most inputs that wait for the driver; who tells more waits.
const INPUTS_MAX: usize = 1024;
/// Most orders that wait for the session's task.
const ORDERS_MAX: usize = 64;

/// Longest warning of a node that servers take (`decide/nodes.rs`), in bytes.
const WARNING_LENGTH_MAX: usize = 1024;

/// Makes what every guest boots from before the first pod waits for it.
async fn make_assets(host: Arc<host::Host>) {
    if let Err(error) = host.boot.assets().await {
        tracing::warn!(error = error::chain(&error), "no guest can start");
    }
}

/// What the agent changes of its machine besides files and processes.
pub struct MachineParts {
    /// PCI functions, and what NICs tell their virtual ones.
    pub devices: Box<dyn Machine + Send>,
    /// Links, addresses and the packet filter.
    pub network: Arc<dyn HostNetwork>,
    /// What its kernel says while it happens: uevents, and its log.
    pub kernel: Arc<dyn KernelWatch>,
}

impl std::fmt::Debug for MachineParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MachineParts").field("network", &self.network).finish_non_exhaustive()
    }
}

impl MachineParts {
    /// Those of the machine that this runs on.
    #[must_use]
    pub fn own() -> Self {
        Self {
            devices: Box::new(MachineTree::new("/")),
            network: Arc::new(network::KernelNetwork::default()),
            kernel: Arc::new(kernel_watch::RunningKernel),
        }
    }
}

/// Runs the agent until `shutdown` is done. Guests go on.
///
/// # Errors
/// [`AgentError`] when it cannot start: the configuration, the data directory, KVM or the listening address. Once it
/// runs, nothing but `shutdown` ends it.
pub async fn run(config: AgentConfig, shutdown: impl Future<Output = ()>) -> Result<(), AgentError> {
    run_on(MachineParts::own(), config, shutdown).await
}

/// [`run`], with other parts of a machine: tests have some in memory, which no kernel has to be asked for.
///
/// # Errors
/// As [`run`].
pub async fn run_on(
    parts: MachineParts,
    config: AgentConfig,
    shutdown: impl Future<Output = ()>,
) -> Result<(), AgentError> {
    let name = bulkhead_types::Name::new(&config.name)
        .map_err(|_| AgentError::InvalidName { name: config.name.clone() })?;
    let data = disk::DataDir::open(&config.data_dir)?;
    let config = AgentConfig { data_dir: data.path.clone(), ..config };
    let boot_id = facts::boot_id();
    let templates = config.memory_sharing == MemorySharing::Template;
    let (pool, asked) = vm_pool::VmPoolHandle::of(config.vm_pool, templates);
    let (host, accelerator) = open_host(parts, &config, &data.path, &boot_id, pool).await?;
    let (listener, address) = listen(&config).await?;
    let (facts, range) = facts_of(&config, &host, &address, &accelerator);
    let names = podio::Names::default();
    let (inputs, events) = mpsc::channel(INPUTS_MAX);
    let (orders, ordered) = mpsc::channel(ORDERS_MAX);
    let core = core_config(&config, &facts, accelerator.accel);
    let agent = Agent::new(bulkhead_nodeagent_core::AgentConfig {
        pod_range: range,
        host_ip: network::ip_of(&address),
        ..core
    });
    let belonging = belonging::Belonging::open(&data.path, config.adopt_cluster.as_deref())
        .map_err(|source| AgentError::Belonging { path: data.path.clone(), source })?;
    let (memory, told) = (facts::OrdinaryMemory::now(&config), inputs.clone());
    let (recheck, facts) =
        recheck::Recheck::new(Arc::clone(&host), accelerator.kvm.clone(), &boot_id, facts, memory, told);
    let session =
        session::Session::new(name.as_str(), &config.servers, facts, belonging, ordered, inputs.clone())?;
    let found = inputs.clone();
    let (nics, nics_wanted) = watch::channel(None);
    let nics_kept = nics_kept::NicsKept::open(&data.path);
    let outlets = driver::Outlets { orders, inputs, nics };
    let mut driver = driver::Driver::new(agent, Arc::clone(&host), boot_id, names.clone(), outlets);
    let _stepping = host.passthrough.watch_steps();
    driver.recover().await?;
    let listing = tokio::spawn(image::watch(host.images.clone(), found.clone()));
    let rechecking = tokio::spawn(recheck.run());
    let (devices, kernel) = (host.passthrough.clone(), Arc::clone(&host.kernel));
    let looking = tokio::spawn(devices::watch(devices, kernel, nics_wanted, nics_kept, found));

    tokio::spawn(make_assets(Arc::clone(&host)));
    let stopping = CancellationToken::new();
    let pooling = asked.map(|asked| tokio::spawn(vm_pool::run(Arc::clone(&host), asked, stopping.clone())));
    if pooling.is_none() {
        vm_pool::forget(&host).await;
    }
    let ended = Arc::clone(&host);
    let served = tokio::spawn(serve(podio::Service { host, names }, listener, stopping.clone()));
    let session = tokio::spawn(session.run());
    tracing::info!(node = %name, %address, accelerator = accelerator.name(), "agent is up");
    driver.run(events, shutdown).await;
    stopping.cancel();
    session.abort();
    served.abort();
    looking.abort();
    rechecking.abort();
    ended.passthrough.cards.stop();
    listing.abort();
    let _ = session.await;
    let _ = served.await;
    if let Some(pooling) = pooling {
        let _ = pooling.await;
    }
    close(&ended).await;
    drop(data);
    Ok(())
}

/// Serves what clients want of pods, until it is to stop.
async fn serve(
    service: podio::Service,
    listener: TcpListener,
    stopping: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let service = PodIoServer::new(service).max_decoding_message_size(podio::REQUEST_LENGTH_MAX);
    // The first lines of a log must not wait for the delayed acknowledgement of the answer's head.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = tonic::transport::Server::builder().add_service(service);
    server.serve_with_incoming_shutdown(incoming, stopping.cancelled_owned()).await
}

/// Where the agent's own services listen, and where servers reach that.
async fn listen(config: &AgentConfig) -> Result<(TcpListener, String), AgentError> {
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|source| AgentError::Listen { address: config.listen, source })?;
    let address = match &config.advertise {
        Some(address) => address.clone(),
        None => listener.local_addr().unwrap_or(config.listen).to_string(),
    };
    Ok((listener, address))
}

/// What is told of the node, and where its pods' addresses are from.
fn facts_of(
    config: &AgentConfig,
    host: &host::Host,
    address: &str,
    accelerator: &probe::Accelerator,
) -> (bulkhead_types::NodeFacts, Option<PodRange>) {
    let mut facts = facts::gather(config, address, accelerator);
    if host.network.is_some() {
        facts.labels.insert(LABEL_POD_NETWORK.into(), "true".into());
    }
    // No pod comes here that could get no address.
    let range = host.network.as_ref().map(|network| network.range());
    facts.pods_max = range.map_or(facts.pods_max, |range| facts.pods_max.min(range.capacity()));
    (facts, range)
}

/// What only guests need that are still there stays.
async fn close(host: &host::Host) {
    host.cgroups.close();
    if let Some(network) = host.network.clone() {
        let closed = tokio::task::spawn_blocking(move || network.close()).await;
        if let Ok(Err(error)) = closed {
            tracing::warn!(%error, "the guests' network is left as it is");
        }
    }
}

/// Finds out what this machine lets the agent do, and opens what the agent keeps.
async fn open_host(
    parts: MachineParts,
    config: &AgentConfig,
    data: &std::path::Path,
    boot_id: &str,
    pool: vm_pool::VmPoolHandle,
) -> Result<(Arc<host::Host>, probe::Accelerator), AgentError> {
    let boot = host::Boot::new(data.to_owned(), config.kernel.clone(), config.guest.clone());
    let confinement =
        confinement::Confinement::find_out(config, data).await.at("try to shut guests in below", data)?;
    let (mut accelerator, sandbox) = accelerator(config, &boot, boot_id, &confinement).await?;
    let (numa, problem) = numa::Numa::find_out(facts::topology(), &config.qemu, sandbox).await;
    // A QEMU that is not there is warned of already.
    let is_there = confinement::resolve(&config.qemu).is_some();
    problem.iter().filter(|_| is_there).for_each(|problem| warn(&mut accelerator, problem));
    if config.memory_sharing == MemorySharing::Ksm {
        hardware::page_merging_problem(&MachineTree::new("/"))
            .iter()
            .for_each(|problem| warn(&mut accelerator, problem));
    }
    let cgroups = control_groups(config, &confinement, &mut accelerator);
    let network = open_network(parts.network, config, &mut accelerator).await?;
    let volumes = open_volumes(data, config, &mut accelerator).await;
    let passthrough = passthrough::Passthrough::open(data, parts.devices, boot_id, &config.take_devices_from)
        .map(|passthrough| passthrough.with_sriov_devices(&config.sriov_devices));
    let host = host::Host {
        data: data.to_owned(),
        records: records::Records::new(data),
        images: open_images(config)?,
        registry_config: registry_config(config).await?,
        logs: logs::LogStore::new(config.log_limits),
        streams: streams::StreamStore::default(),
        starts: starts::Starts::default(),
        boot,
        qemu: config.qemu.clone(),
        confinement,
        volumes,
        pool,
        mem_merge: config.memory_sharing == MemorySharing::Ksm,
        cgroups,
        guard: config.guard.clone(),
        lease_until_ms: watch::Sender::new(0),
        undying: undying::Undying::default(),
        passthrough: passthrough.at("read the notes on devices below", data)?,
        kernel: parts.kernel,
        network,
        accel: accelerator.accel,
        trial_deadline: probe::deadline(config.boot_deadline_ms),
        numa,
        sandbox,
        container_backoff_ms: config.backoff_ms.unwrap_or_default(),
        pod_pids_limit: config.pod_pids_limit,
        silence_ms: config.silence_ms.unwrap_or(Deadlines::of(accelerator.accel).silence_ms),
    };
    Ok((Arc::new(host), accelerator))
}

/// The volumes of claims. A pool that cannot be used, or is nearly full, becomes a warning.
async fn open_volumes(
    data: &std::path::Path,
    config: &AgentConfig,
    accelerator: &mut probe::Accelerator,
) -> volumes::Volumes {
    let volumes = volumes::Volumes::new(data, config.volume_group.clone());
    let asked = volumes.clone();
    match tokio::task::spawn_blocking(move || asked.warning()).await {
        Ok(warning) => warning.iter().for_each(|warning| warn(accelerator, warning)),
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
    volumes
}

/// The guests' network, as far as it was asked for. What the machine does not permit becomes a warning, unless it was demanded.
async fn open_network(
    host: Arc<dyn HostNetwork>,
    config: &AgentConfig,
    accelerator: &mut probe::Accelerator,
) -> Result<Option<Arc<network::Network>>, AgentError> {
    let (options, key) = (config.network.clone(), crc32c::crc32c(own_name(config).as_bytes()));
    let opened = tokio::task::spawn_blocking(move || network::Network::of_host(host, &options, key));
    match opened.await {
        Ok(Ok(opened)) => {
            let (network, problems) = opened.unzip();
            problems.into_iter().flatten().for_each(|problem| warn(accelerator, &problem));
            Ok(network.map(Arc::new))
        }
        Ok(Err(error)) if config.network.is_demanded() => {
            Err(AgentError::NoNetwork { reason: error::chain(&error) })
        }
        Ok(Err(error)) => {
            warn(accelerator, &format!("guests have no network: the agent {error}"));
            Ok(None)
        }
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// What tells agents of one machine apart.
fn own_name(config: &AgentConfig) -> String {
    format!("{}-{:08x}", config.name, crc32c::crc32c(config.data_dir.as_os_str().as_encoded_bytes()))
}

/// Warns of something, in the log and of the node.
fn warn(accelerator: &mut probe::Accelerator, warning: &str) {
    tracing::warn!("{warning}");
    let mut warning = text::message(warning);
    warning.truncate(warning.floor_char_boundary(WARNING_LENGTH_MAX));
    accelerator.warnings.push(warning);
}

fn open_images(config: &AgentConfig) -> Result<image::ImageStore, AgentError> {
    let options = image::ImageStoreOptions {
        insecure_registries: config.insecure_registries.clone(),
        ..image::ImageStoreOptions::default()
    };
    Ok(image::ImageStore::open(&config.data_dir, options)?)
}

/// The file of the node's credentials. It is read for every pod; what is wrong with it at the beginning is a mistake of the start.
async fn registry_config(config: &AgentConfig) -> Result<Option<std::path::PathBuf>, AgentError> {
    let Some(path) = &config.registry_config else { return Ok(None) };
    match image::read_registry_config(path).await {
        Ok(_) => Ok(Some(path.clone())),
        Err(reason) => Err(AgentError::RegistryConfig { reason }),
    }
}

/// The control groups of this agent's guests. What the machine does not permit, of them or of the confinement, becomes a warning.
fn control_groups(
    config: &AgentConfig,
    confinement: &confinement::Confinement,
    accelerator: &mut probe::Accelerator,
) -> cgroup::Cgroups {
    // Several agents of one machine have groups of their own.
    let own = own_name(config);
    let files = Arc::new(cgroup::KernelFiles);
    let cgroups = cgroup::Cgroups::open(files, config.cgroup_parent.as_deref(), &own);
    for warning in confinement.warnings().iter().chain(cgroups.problems()) {
        warn(accelerator, warning);
    }
    cgroups
}

/// Puts an image from an OCI layout (a directory, or a tar of one) into the store of an agent of this machine, whether
/// it runs or not, and calls it `name`: as a whole, or not at all. Without `tag`, the layout must hold one image. The
/// answer is the image's digest.
///
/// # Errors
/// What is wrong with the layout or with this machine.
pub async fn import_image(
    data_dir: &std::path::Path,
    layout: &std::path::Path,
    tag: Option<&str>,
    name: &str,
) -> Result<image::ImageDigest, AgentError> {
    let store = image::ImageStore::open_beside(data_dir, image::ImageStoreOptions::default())?;
    Ok(store.import_layout(layout, tag, name).await?.digest)
}

/// Finds out what runs guests. A missing QEMU or kernel does not end the agent: pods say what is missing.
async fn accelerator(
    config: &AgentConfig,
    boot: &host::Boot,
    boot_id: &str,
    confinement: &confinement::Confinement,
) -> Result<(probe::Accelerator, bool), AgentError> {
    let version = host::qemu_version(&config.qemu).await;
    let sandbox = version.is_ok() && host::sandbox_works(&config.qemu).await;
    let assets = match &version {
        Ok(_) if config.accel != AccelChoice::Tcg => boot.assets().await.ok(),
        _ => None,
    };
    let trial = match (&version, &assets) {
        (Ok(version), Some(assets)) => Some(probe::Trial {
            data: &config.data_dir,
            qemu: &config.qemu,
            qemu_version: version,
            boot_id,
            boot: assets,
            sandbox,
            confinement,
            deadline: probe::deadline(config.boot_deadline_ms),
        }),
        _ => None,
    };
    let chosen = probe::choose(config.accel, trial).await;
    let mut chosen = chosen.map_err(|reason| AgentError::NoKvm { reason })?;
    if let Err(error) = version {
        let qemu = config.qemu.display();
        chosen.warnings.push(format!("{qemu} cannot be run ({error}); run: apt-get install qemu-system-x86"));
    } else if !sandbox {
        chosen
            .warnings
            .push("QEMU's system call filter does not work here; guests run without it".to_owned());
    }
    Ok((chosen, sandbox))
}

fn core_config(
    config: &AgentConfig,
    facts: &bulkhead_types::NodeFacts,
    accel: Accel,
) -> bulkhead_nodeagent_core::AgentConfig {
    let mut core =
        bulkhead_nodeagent_core::AgentConfig::new(config.name.as_str(), facts.allocatable, config.pods_max);
    if let Some((base_ms, max_ms)) = config.backoff_ms {
        (core.backoff_base_ms, core.backoff_max_ms) = (base_ms, max_ms);
    }
    let deadlines = Deadlines::of(accel);
    core.boot_deadline_ms = config.boot_deadline_ms.unwrap_or(deadlines.boot_ms);
    core.silence_ms = config.silence_ms.unwrap_or(deadlines.silence_ms);
    core
}
