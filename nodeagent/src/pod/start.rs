//! From an order to a running QEMU: disks, configuration, process.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulkhead_guest_protocol::FRAME_LENGTH_MAX;
use bulkhead_guest_protocol::host::{
    ContainerConfig, MountConfig, PodConfig, RestartPolicy, VolumeConfig, VolumeKind,
};
use bulkhead_nodeagent_core::hardware::meminfo;
use bulkhead_nodeagent_core::qemu::{Accel, GuestPages, HostDevice, PortPlan, QemuCommand, check_pinned};
use bulkhead_nodeagent_core::{HostLimits, Jail, StartPhase, StartVm, TAP_FD, group_name, reason};
use bulkhead_types::{
    Container, DeviceIntent, PodIntent, PodSpec, ResolvedContainer, Sensitive, VolumeFiles, VolumeSource,
};
use prost::Message as _;
use tracing::{Instrument as _, Span};

use super::disks::PlannedDisk;
use super::{blocking, host_pages, network, networks, pooled, running};
use crate::boot::BootError;
use crate::confinement::{Inmate, resolve};
use crate::error::chain;
use crate::guard::Orders;
use crate::host::Host;
use crate::host_ports::{BoundPorts, HostPort, published};
use crate::image::{Image, ImageError, ProcessOverrides, resolve_process, signal_number};
use crate::machine::MachineTree;
use crate::steps::{Step, passed, reached};
use crate::vm::command::{Machinery, build};
use crate::vm::process::{Launch, PID_FILE, Process, confinement_failure};
use crate::vm::{console, guarded};
use crate::{disk, trace};

/// Size of an emptyDir on disk that names no limit, in bytes. Its file is sparse.
const EMPTY_DIR_BYTES_DEFAULT: u64 = 2 << 30;

/// A guest runs as many containers as it has disks for.
const _: () = assert!(bulkhead_types::GUEST_DISKS_MAX <= bulkhead_guest_protocol::CONTAINERS_MAX);

/// The guest's configuration, in the instance's folder: an agent that restarts may have to tell it. Where it may hold
/// secrets it is written without them ([`redacted`]).
pub(super) const POD_CONFIG: &str = "pod.bin";

/// The node's ports that lead into the guest, as JSON, in the instance's folder; not there when there are none.
const HOST_PORTS: &str = "host-ports.json";

/// Why a guest could not be started.
#[derive(Debug)]
pub(super) struct StartError {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl StartError {
    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::new(
            if is_full(&error) { reason::DISK_PRESSURE } else { reason::GUEST_START_FAILED },
            chain(&error),
        )
    }
}

/// Whether the disk has no room left, or the agent's user may not have more of it.
pub(super) fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    const NO_SPACE: &str = "No space left on device";
    let is_full =
        |error: &io::Error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    std::iter::successors(Some(error), |error| error.source())
        // What a program that makes a disk says is known by its text only (strerror(3) of ENOSPC).
        .any(|error| {
            error.downcast_ref::<io::Error>().is_some_and(is_full) || error.to_string().contains(NO_SPACE)
        })
}

impl From<ImageError> for StartError {
    fn from(error: ImageError) -> Self {
        let why = match &error {
            ImageError::ProgramMissing { .. } => reason::QEMU_MISSING,
            _ if is_full(&error) => reason::DISK_PRESSURE,
            _ => reason::GUEST_START_FAILED,
        };
        Self::new(why, chain(&error))
    }
}

impl From<BootError> for StartError {
    fn from(error: BootError) -> Self {
        let why = match &error {
            BootError::KernelMissing { .. } | BootError::ModuleMissing { .. } => reason::KERNEL_MISSING,
            BootError::NoDriver { .. } | BootError::DriverModuleMissing { .. } => reason::DEVICE_NOT_ATTACHED,
            _ if is_full(&error) => reason::DISK_PRESSURE,
            _ => reason::GUEST_START_FAILED,
        };
        Self::new(why, chain(&error))
    }
}

/// A guest that was started or found.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) process: Process,
    pub(crate) instance: u32,
    pub(crate) pod: bulkhead_types::ObjectId,
    pub(crate) dir: PathBuf,
    pub(crate) config: PodConfig,
    /// The files of its volumes, for a guest that was just started.
    pub(crate) files: Vec<VolumeFiles>,
    /// The node's ports that lead into it; bound, for a guest that was just started.
    pub(crate) ports: Vec<HostPort>,
    pub(crate) bound: Option<BoundPorts>,
}

impl Launched {
    /// A guest of the agent's last life, if its process lives.
    pub(crate) fn find(
        host: &Host,
        pod: bulkhead_types::ObjectId,
        instance: u32,
    ) -> io::Result<Option<Self>> {
        let dir = host.records.instance_dir(pod, instance);
        // Nobody else can make a file in the guest's folder.
        let owner = std::fs::symlink_metadata(dir.join(PID_FILE)).ok().map(|meta| meta.uid());
        let is_user = |user| owner == Some(user) || host.confinement.may_be_user_of(pod, user);
        let Some(process) = Process::find(&dir, is_user)? else { return Ok(None) };
        let bytes = std::fs::read(dir.join(POD_CONFIG))?;
        let config = PodConfig::decode(bytes.as_slice()).map_err(io::Error::other)?;
        let ports = match std::fs::read(dir.join(HOST_PORTS)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            bytes => serde_json::from_slice(&bytes?).map_err(io::Error::other)?,
        };
        Ok(Some(Self { process, instance, pod, dir, config, files: Vec::new(), ports, bound: None }))
    }
}

/// Starts a guest.
pub(super) async fn run(
    host: &Host,
    start: StartVm,
    images: &BTreeMap<String, Image>,
    span: &Span,
) -> Result<Launched, StartError> {
    if let Some(missing) = host.confinement.refusal() {
        return Err(StartError::new(reason::CONFINEMENT_MISSING, missing));
    }
    let ports = published(&start.pod.spec);
    let bound = BoundPorts::bind(&ports).await;
    let bound = bound.map_err(|error| StartError::new(reason::HOST_PORT_NOT_BOUND, chain(&error)))?;
    passed(Step::PortsBound);
    let nics = networks::nics(host, &start.pod).await;
    let boot = host.boot.assets_for(nics).instrument(span.clone()).await?;
    reached(Step::BootAssetsReady)?;
    let ram = host.numa.ram(&start);
    let pci_ports = networks::ports(host, &start.pod, &ram).await;
    let (config, disks) = configure(host, &start, (images, &pci_ports), span)?;
    passed(Step::DisksPlanned);
    let connection = network::connection(host, &start);
    let pod_dir = host.records.pod_dir(start.pod.id);
    let dir = host.records.instance_dir(start.pod.id, start.instance);
    let files = start.pod.resolved.get().map(|resolved| resolved.volumes.clone()).unwrap_or_default();
    let kept = if start.pod.resolved.get().is_some() { redacted(&config) } else { config.clone() };
    let encoded = kept.encode_to_vec();
    let on_disk: Vec<_> = disks.iter().map(|disk| disk.disk.clone()).collect();
    let (disks, written) = (Arc::new(disks), Arc::new(Written { config: encoded, ports: ports.clone() }));
    let (instance, pod) = (start.instance, start.pod.id);
    let pooled = pooled::take(host, &start, &disks, &written).instrument(span.clone()).await;
    if let Some((dir, process)) = pooled {
        let bound = Some(bound);
        return Ok(Launched { process, instance, pod, dir, config, files, ports, bound });
    }
    let devices = prepare(host, &start, &pod_dir, &dir, (Arc::clone(&disks), written), span).await?;
    let images = disks.iter().filter_map(PlannedDisk::image).collect();
    let pages = GuestPages::of(&start.pod.spec);
    check_memory(&devices, &pages, start.size.memory_bytes)?;
    let mut command = build(&Machinery {
        name: format!("{}/{}", start.pod.namespace, start.pod.name),
        uuid: start.pod.uid,
        accel: host.accel,
        size: start.size,
        boot: &boot,
        disks: on_disk,
        devices,
        dir: &dir,
        ram,
        mem_merge: host.mem_merge,
        sandbox: host.sandbox,
        grows: pages.is_none(),
    });
    command.back_with_huge_pages(&pages, host_pages::free_of_node);
    host.starts.start(start.pod.id, StartPhase::Qemu);
    if let Some(connection) = &connection {
        command.connect(TAP_FD, &connection.mac);
    }
    command.check_places().map_err(|reason| StartError::new(reason::GUEST_START_FAILED, reason))?;
    let tap = connection.and_then(|connection| host.network.as_ref()?.to_open(connection.tap));
    let process = launch(host, &start, &dir, &command, images, tap).await?;
    tracing::info!(parent: span, pid = process.pid, "guest started");
    let bound = Some(bound);
    Ok(Launched { process, instance, pod, dir, config, files, ports, bound })
}

/// Disks, devices and network of a guest, side by side; the devices that it gets.
async fn prepare(
    host: &Host,
    start: &StartVm,
    pod_dir: &Path,
    dir: &Path,
    (disks, written): (Arc<Vec<PlannedDisk>>, Arc<Written>),
    span: &Span,
) -> Result<Vec<HostDevice>, StartError> {
    let (pod_dir, made) = (pod_dir.to_owned(), dir.to_owned());
    let making = move || Ok(make_files(&pod_dir, &made, &disks, &written));
    let making = blocking(making).instrument(span.clone());
    let making = host.starts.over(start.pod.id, StartPhase::Disks, making);
    let attaching = host
        .passthrough
        .attach_to(&start.pod.networks, start.pod.id, &start.pod.devices)
        .instrument(span.clone());
    let attaching = async {
        match start.pod.devices.as_slice() {
            [] => attaching.await,
            _ => host.starts.over(start.pod.id, StartPhase::Devices, attaching).await,
        }
    };
    let connecting = network::connect(host, start).instrument(span.clone());
    let (made, devices, connected) = tokio::join!(making, attaching, connecting);
    made??;
    connected?;
    let devices = devices.map_err(|reason| StartError::new(reason::DEVICE_NOT_ATTACHED, reason))?;
    passed(Step::DevicesAttached);
    Ok(devices)
}

/// QEMU's process, in its control groups and shut in.
async fn launch(
    host: &Host,
    start: &StartVm,
    dir: &Path,
    command: &QemuCommand,
    images: Vec<PathBuf>,
    tap: Option<String>,
) -> Result<Process, StartError> {
    let group = group_name(start.pod.id, start.instance);
    let limits = HostLimits::new(&start.pod, start.size, host.accel != Accel::Kvm);
    let groups = host.cgroups.create(&group, limits)?;
    passed(Step::CgroupMade);
    let launch = shut_in(host, start.pod.id, dir, command, images, groups, tap);
    let process = match (launch, start.lease_until_ms) {
        (Ok(launch), Some(until_ms)) => start_guarded(host, until_ms, launch, dir).await,
        (Ok(launch), None) => Process::start(&launch, dir).map_err(|error| qemu_error(host, error, dir)),
        (Err(error), _) => Err(error),
    };
    let process = process.inspect_err(|_| {
        // Whatever is left is found by the next start of the guest, or of the agent.
        let _ = host.cgroups.remove(&group);
    })?;
    passed(Step::ProcessStarted);
    Ok(process)
}

/// Whether the machine has the memory that a guest takes at its start: with devices all of its ordinary memory, and its huge
/// pages.
fn check_memory(devices: &[HostDevice], pages: &GuestPages, memory_bytes: u64) -> Result<(), StartError> {
    host_pages::check(pages, memory_bytes)
        .map_err(|reason| StartError::new(reason::HUGE_PAGES_NOT_ALLOCATED, reason))?;
    if devices.is_empty() {
        return Ok(());
    }
    let meminfo = meminfo(&MachineTree::new("/"));
    let ordinary = if pages.whole { 0 } else { memory_bytes };
    check_pinned(&meminfo, ordinary).map_err(|reason| StartError::new(reason::MEMORY_NOT_PINNED, reason))
}

/// QEMU with its arguments, and where it is shut in; its files are its user's from now on.
fn shut_in(
    host: &Host,
    pod: bulkhead_types::ObjectId,
    dir: &Path,
    command: &QemuCommand,
    images: Vec<PathBuf>,
    groups: Vec<PathBuf>,
    tap: Option<String>,
) -> Result<Launch, StartError> {
    let missing = || qemu_error(host, io::ErrorKind::NotFound.into(), dir);
    let program = resolve(&host.qemu).ok_or_else(missing)?;
    let inmate = Inmate { pod, dir, program: &program, command, images, groups };
    let jail = Jail { tap, ..host.confinement.jail(&inmate)? };
    let disks = command.blockdevs.iter().filter(|disk| !disk.read_only);
    let disks: Vec<PathBuf> = disks.map(|disk| dir.join(&disk.filename)).collect();
    host.confinement.hand_over(&jail, &disks)?;
    reached(Step::JailMade)?;
    Ok(Launch { program, args: command.to_args(), jail })
}

/// The configuration without what may be secret: an agent that finds it cannot configure a guest with it.
fn redacted(config: &PodConfig) -> PodConfig {
    let mut kept = PodConfig { incomplete: true, ..config.clone() };
    for container in kept.init_containers.iter_mut().chain(&mut kept.containers) {
        container.argv.clear();
        container.env.clear();
    }
    kept
}

/// Starts a guest that must be unique, under its guard, with the newest lease that there is.
async fn start_guarded(
    host: &Host,
    until_ms: u64,
    launch: Launch,
    dir: &Path,
) -> Result<Process, StartError> {
    let until_ms = until_ms.max(*host.lease_until_ms.borrow());
    let Launch { program, args, jail } = launch;
    let orders = Orders { until_ms, program, args, jail: Some(jail) };
    guarded::start(&host.guard, &orders, dir).await.map_err(|refusal| match refusal {
        guarded::Refusal::LeaseOver => {
            StartError::new(reason::LEASE_EXPIRED, "the node's lease ran out before the guest could start")
        }
        guarded::Refusal::Guest(error) => qemu_error(host, error, dir),
        guarded::Refusal::Guard(error) => StartError::new(
            reason::GUEST_START_FAILED,
            format!("the guest must be unique, and its guard {:?} fails: {error}", host.guard),
        ),
    })
}

fn qemu_error(host: &Host, error: io::Error, dir: &Path) -> StartError {
    if let Some(failure) = confinement_failure(dir) {
        return StartError::new(reason::GUEST_START_FAILED, format!("{failure}: {error}"));
    }
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => StartError::new(
            reason::QEMU_MISSING,
            format!("{} cannot be run ({error}); run: apt-get install qemu-system-x86", host.qemu.display()),
        ),
        _ => StartError::from(error),
    }
}

/// What is kept in a guest's folder beside its disks.
#[derive(Debug)]
pub(super) struct Written {
    /// The guest's configuration, encoded.
    config: Vec<u8>,
    ports: Vec<HostPort>,
}

fn make_files(
    pod_dir: &Path,
    dir: &Path,
    disks: &[PlannedDisk],
    written: &Written,
) -> Result<(), StartError> {
    clear_pod(pod_dir)?;
    std::fs::create_dir(dir)?;
    reached(Step::FolderMade)?;
    fill(dir, disks, written)
}

/// Removes what an earlier guest left: its process is gone.
pub(super) fn clear_pod(pod_dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(pod_dir)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok()) {
            disk::remove_linked_dir(&entry.path())?;
        }
    }
    reached(Step::EarlierGuestsRemoved)?;
    console::start_over(pod_dir)
}

/// Makes everything in a guest's folder.
pub(super) fn fill(dir: &Path, disks: &[PlannedDisk], written: &Written) -> Result<(), StartError> {
    disks.iter().try_for_each(|disk| disk.make(dir).and_then(|()| Ok(reached(Step::DiskMade)?)))?;
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)
    };
    write(POD_CONFIG, &written.config)?;
    reached(Step::ConfigWritten)?;
    if !written.ports.is_empty() {
        write(HOST_PORTS, &serde_json::to_vec(&written.ports).map_err(io::Error::other)?)?;
        reached(Step::HostPortsWritten)?;
    }
    Ok(())
}

/// What the guest is told, and the disks that it gets.
fn configure(
    host: &Host,
    start: &StartVm,
    (images, pci_ports): (&BTreeMap<String, Image>, &PortPlan),
    span: &Span,
) -> Result<(PodConfig, Vec<PlannedDisk>), StartError> {
    let spec = &start.pod.spec;
    let hostname = spec.host_name(start.pod.namespace.as_str(), start.pod.name.as_str());
    let hostname = &hostname.map_err(|error| StartError::new(reason::GUEST_START_FAILED, error))?;
    let mut disks = Vec::new();
    let mut container = |container: &Container| {
        let image = images.get(container.name.as_str()).ok_or_else(|| {
            StartError::new(
                reason::GUEST_START_FAILED,
                format!("the image of {} is not held", container.name),
            )
        })?;
        let serial = format!("c{}", disks.len());
        let limit_bytes = container.limits.ephemeral_storage_bytes;
        disks.push(PlannedDisk::overlay(&image.path, serial.clone(), limit_bytes));
        let resolved = start.pod.resolved.get().map(|resolved| &resolved.containers);
        let resolved = resolved.and_then(|all| all.iter().find(|one| one.name == container.name));
        let mut config = container_config(spec, container, resolved, image, hostname, serial)?;
        show_devices(&start.pod, container, &mut config.env);
        Ok::<_, StartError>(config)
    };
    let init_containers = spec.init_containers.iter().map(&mut container).collect::<Result<Vec<_>, _>>()?;
    let containers = spec.containers.iter().map(&mut container).collect::<Result<Vec<_>, _>>()?;
    let volumes = volumes(host, &start.pod, &mut disks)?;
    let restart_policy = match spec.restart_policy {
        bulkhead_types::RestartPolicy::Always => RestartPolicy::Always,
        bulkhead_types::RestartPolicy::OnFailure => RestartPolicy::OnFailure,
        bulkhead_types::RestartPolicy::Never => RestartPolicy::Never,
    };
    let mut config = PodConfig {
        hostname: hostname.to_owned(),
        sandbox_id: start.pod.uid.to_string(),
        trace_context: trace::traceparent(span).unwrap_or_default(),
        init_containers,
        containers,
        restart_policy: restart_policy.into(),
        termination_grace_ms: spec.termination_grace_ms,
        backoff_base_ms: host.container_backoff_ms.0,
        backoff_max_ms: host.container_backoff_ms.1,
        pids_max: host.pod_pids_limit,
        volumes,
        fs_group: spec.security().and_then(|security| security.fs_group),
        fs_group_policy: running::fs_group_policy(spec).into(),
        interfaces: networks::interfaces(&start.pod, pci_ports)
            .map_err(|reason| StartError::new(reason::DEVICE_NOT_ATTACHED, reason))?,
        sysctls: running::sysctls(spec),
        two_mib_pages_bytes: spec.huge_pages().two_mib_bytes,
        one_gib_pages_bytes: spec.huge_pages().one_gib_bytes,
        ..PodConfig::default()
    };
    network::configure(host, start, &mut config);
    config.validate().map_err(|error| StartError::new(reason::GUEST_START_FAILED, error.to_string()))?;
    check_length(&config)?;
    Ok((config, disks))
}

/// Whether a guest can be told of its pod, which is one message.
pub(super) fn check_length(config: &PodConfig) -> Result<(), StartError> {
    // What is around it on the channel.
    const ENVELOPE_BYTES: usize = 64;
    let (most, length) = (FRAME_LENGTH_MAX - ENVELOPE_BYTES, config.encoded_len());
    if length <= most {
        return Ok(());
    }
    let message = format!(
        "the commands, arguments and variables of its containers, with all that its guest is told, have {length} bytes, and a guest can be \
         told of {most}: put what is large into files (volumes of ConfigMaps and Secrets)"
    );
    Err(StartError::new(reason::CREATE_CONTAINER_CONFIG_ERROR, message))
}

/// Sets the variables by which a container knows its devices: those of one variable in order, with commas.
pub(super) fn show_devices(pod: &PodIntent, container: &Container, env: &mut Vec<String>) {
    let mut shown = BTreeMap::<&str, Vec<&str>>::new();
    let named = |one: &&DeviceIntent| one.container == container.name && !one.visible_env.is_empty();
    for device in pod.devices.iter().filter(named) {
        shown.entry(device.visible_env.as_str()).or_default().push(device.visible_as.as_str());
    }
    for (name, values) in shown {
        env.retain(|entry| entry.split_once('=').is_none_or(|(other, _)| other != name));
        env.push(format!("{name}={}", values.join(",")));
    }
}

/// The volumes of a pod, and a disk for each that needs one.
fn volumes(
    host: &Host,
    pod: &PodIntent,
    disks: &mut Vec<PlannedDisk>,
) -> Result<Vec<VolumeConfig>, StartError> {
    let mut volumes = Vec::new();
    for volume in pod.spec.volumes() {
        let mut config = VolumeConfig { name: volume.name.to_string(), ..VolumeConfig::default() };
        let kind = match &volume.source {
            VolumeSource::EmptyDir { size_limit_bytes, huge_pages, .. } if huge_pages.get().is_some() => {
                host_pages::volume(&pod.spec, volume, size_limit_bytes.unwrap_or(0), &mut config)?;
                VolumeKind::HugePages
            }
            VolumeSource::EmptyDir { memory: true, size_limit_bytes, .. } => {
                config.size_bytes = size_limit_bytes.unwrap_or(0);
                VolumeKind::Memory
            }
            VolumeSource::EmptyDir { memory: false, size_limit_bytes, .. } => {
                let serial = format!("v{}", volumes.len());
                config.disk_serial.clone_from(&serial);
                disks.push(PlannedDisk::empty(serial, size_limit_bytes.unwrap_or(EMPTY_DIR_BYTES_DEFAULT)));
                VolumeKind::Disk
            }
            VolumeSource::PersistentVolumeClaim { claim_name, .. } => {
                let serial = format!("v{}", volumes.len());
                config.disk_serial.clone_from(&serial);
                disks.push(PlannedDisk::of_claim(&host.volumes(), pod, claim_name, serial)?);
                config.read_only =
                    pod.claims.iter().any(|one| one.claim_name == *claim_name && one.read_only);
                VolumeKind::Disk
            }
            VolumeSource::Files { .. } | VolumeSource::Projected { .. } => VolumeKind::Files,
        };
        config.set_kind(kind);
        volumes.push(config);
    }
    Ok(volumes)
}

/// Whether nobody may write into a volume of a pod.
fn is_read_only(spec: &PodSpec, volume: &str) -> bool {
    spec.volumes().iter().any(|one| {
        one.name == volume
            && matches!(one.source, VolumeSource::PersistentVolumeClaim { read_only: true, .. })
    })
}

/// What the pod says of a container's process; what was resolved for it is final.
fn overrides(
    spec: &PodSpec,
    container: &Container,
    resolved: Option<&ResolvedContainer>,
    hostname: &str,
) -> Result<ProcessOverrides, std::str::Utf8Error> {
    let text = |value: &Sensitive| std::str::from_utf8(value.reveal()).map(str::to_owned);
    let words = |words: &[Sensitive]| words.iter().map(text).collect::<Result<Vec<_>, _>>();
    let security = spec.security_of(container);
    let own = ProcessOverrides {
        working_dir: container.working_dir.clone(),
        run_as_user: security.run_as_user,
        run_as_group: security.run_as_group,
        additional_gids: running::further_groups(spec),
        hostname: hostname.to_owned(),
        ..ProcessOverrides::default()
    };
    Ok(match resolved {
        Some(resolved) => ProcessOverrides {
            command: words(&resolved.command)?,
            args: words(&resolved.args)?,
            env: resolved
                .env
                .iter()
                .map(|var| Ok::<_, std::str::Utf8Error>((var.name.clone(), text(&var.value)?)))
                .collect::<Result<_, _>>()?,
            is_resolved: true,
            ..own
        },
        None => ProcessOverrides {
            command: container.command.clone(),
            args: container.args.clone(),
            env: container.env.iter().map(|var| (var.name.clone(), var.value.clone())).collect(),
            ..own
        },
    })
}

fn container_config(
    spec: &PodSpec,
    container: &Container,
    resolved: Option<&ResolvedContainer>,
    image: &Image,
    hostname: &str,
    disk_serial: String,
) -> Result<ContainerConfig, StartError> {
    let failed = |error: &dyn std::fmt::Display| {
        // Kubernetes' word for a container that cannot be made from its image and spec.
        let message = format!("container {}: {error}", container.name);
        StartError::new(reason::CREATE_CONTAINER_CONFIG_ERROR, message)
    };
    let overrides = overrides(spec, container, resolved, hostname).map_err(|error| failed(&error))?;
    let process = resolve_process(&image.config, &overrides).map_err(|error| failed(&error))?;
    running::check_user(spec, container, process.uid).map_err(|error| failed(&error))?;
    let mounts = container.volume_mounts().iter().map(|mount| MountConfig {
        volume: mount.name.to_string(),
        path: mount.mount_path.trim_end_matches('/').to_owned(),
        sub_path: mount.sub_path.clone().unwrap_or_default(),
        read_only: mount.read_only || is_read_only(spec, &mount.name),
    });
    Ok(ContainerConfig {
        name: container.name.to_string(),
        disk_serial,
        argv: process.argv,
        env: process.env,
        working_dir: process.working_dir,
        uid: process.uid,
        gid: process.gid,
        additional_gids: process.additional_gids,
        cpu_millis: container.limits.cpu_millis.unwrap_or(0),
        memory_bytes: container.limits.memory_bytes.unwrap_or(0),
        cpu_request_millis: container.requests.or(container.limits).cpu_millis.unwrap_or(0),
        ephemeral_storage_bytes: container.limits.ephemeral_storage_bytes.unwrap_or(0),
        two_mib_pages_bytes: container.huge_pages().two_mib_bytes,
        one_gib_pages_bytes: container.huge_pages().one_gib_bytes,
        mounts: mounts.collect(),
        stop_signal: signal_number(&image.config.stop_signal).map_err(|error| failed(&error))?,
        ..running::config(spec, container)
    })
}
