//! From an order to a running QEMU: disks, configuration, process.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use bulkhead_guest_protocol::host::{ContainerConfig, PodConfig, RestartPolicy};
use bulkhead_nodeagent_core::{StartVm, reason};
use bulkhead_types::Container;
use prost::Message as _;
use tracing::{Instrument as _, Span};

use super::blocking;
use crate::boot::BootError;
use crate::error::chain;
use crate::guard::Orders;
use crate::host::Host;
use crate::image::{Image, ImageError, ProcessOverrides, create_overlay, resolve_process};
use crate::vm::command::{Disk, Machinery, build};
use crate::vm::process::Process;
use crate::vm::{console, guarded};
use crate::{disk, trace};

/// The guest's configuration, in the instance's folder: an agent that restarts may have to tell it.
pub(super) const POD_CONFIG: &str = "pod.bin";

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
        Self::new(reason::GUEST_START_FAILED, chain(&error))
    }
}

impl From<ImageError> for StartError {
    fn from(error: ImageError) -> Self {
        let why = match &error {
            ImageError::ProgramMissing { .. } => reason::QEMU_MISSING,
            _ => reason::GUEST_START_FAILED,
        };
        Self::new(why, chain(&error))
    }
}

impl From<BootError> for StartError {
    fn from(error: BootError) -> Self {
        let why = match &error {
            BootError::KernelMissing { .. } | BootError::ModuleMissing { .. } => reason::KERNEL_MISSING,
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
}

impl Launched {
    /// A guest of the agent's last life, if its process lives.
    pub(crate) fn find(
        host: &Host,
        pod: bulkhead_types::ObjectId,
        instance: u32,
    ) -> io::Result<Option<Self>> {
        let dir = host.records.instance_dir(pod, instance);
        let Some(process) = Process::find(&dir)? else { return Ok(None) };
        let bytes = std::fs::read(dir.join(POD_CONFIG))?;
        let config = PodConfig::decode(bytes.as_slice()).map_err(io::Error::other)?;
        Ok(Some(Self { process, instance, pod, dir, config }))
    }
}

/// Starts a guest.
pub(super) async fn run(
    host: &Host,
    start: StartVm,
    images: &BTreeMap<String, Image>,
    span: &Span,
) -> Result<Launched, StartError> {
    let boot = host.boot.assets().instrument(span.clone()).await?;
    let (config, disks) = configure(host, &start, images, span)?;
    let pod_dir = host.records.pod_dir(start.pod.id);
    let dir = host.records.instance_dir(start.pod.id, start.instance);
    let command = build(&Machinery {
        name: format!("{}/{}", start.pod.namespace, start.pod.name),
        uuid: start.pod.uid,
        accel: host.accel,
        size: start.size,
        boot: &boot,
        disks: disks.iter().map(|disk| disk.disk.clone()).collect(),
        dir: &dir,
        sandbox: host.sandbox,
    });
    let encoded = config.encode_to_vec();
    let made = dir.clone();
    blocking(move || Ok(make_files(&pod_dir, &made, &disks, &encoded))).instrument(span.clone()).await??;
    let process = match start.lease_until_ms {
        Some(until_ms) => start_guarded(host, until_ms, command.to_args(), &dir).await?,
        None => Process::start(&host.qemu, &command.to_args(), &dir).map_err(|e| qemu_error(host, e))?,
    };
    tracing::info!(parent: span, pid = process.pid, "guest started");
    Ok(Launched { process, instance: start.instance, pod: start.pod.id, dir, config })
}

/// Starts a guest that must be unique, under its guard, with the newest lease that there is.
async fn start_guarded(
    host: &Host,
    until_ms: u64,
    args: Vec<String>,
    dir: &Path,
) -> Result<Process, StartError> {
    let until_ms = until_ms.max(*host.lease_until_ms.borrow());
    let orders = Orders { until_ms, program: host.qemu.clone(), args };
    guarded::start(&host.guard, &orders, dir).await.map_err(|refusal| match refusal {
        guarded::Refusal::LeaseOver => {
            StartError::new(reason::LEASE_EXPIRED, "the node's lease ran out before the guest could start")
        }
        guarded::Refusal::Guest(error) => qemu_error(host, error),
        guarded::Refusal::Guard(error) => StartError::new(
            reason::GUEST_START_FAILED,
            format!("the guest must be unique, and its guard {:?} fails: {error}", host.guard),
        ),
    })
}

fn qemu_error(host: &Host, error: io::Error) -> StartError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => StartError::new(
            reason::QEMU_MISSING,
            format!("{} cannot be run ({error}); run: apt-get install qemu-system-x86", host.qemu.display()),
        ),
        _ => StartError::from(error),
    }
}

/// A disk to make.
struct Plan {
    disk: Disk,
    base: PathBuf,
    size_bytes: u64,
}

fn make_files(pod_dir: &Path, dir: &Path, disks: &[Plan], config: &[u8]) -> Result<(), StartError> {
    // What an earlier guest left: its process is gone.
    for entry in std::fs::read_dir(pod_dir)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok()) {
            disk::remove_dir(&entry.path())?;
        }
    }
    console::start_over(pod_dir)?;
    std::fs::create_dir(dir)?;
    for plan in disks {
        create_overlay(&plan.base, &dir.join(&plan.disk.file), plan.size_bytes)?;
    }
    std::fs::write(dir.join(POD_CONFIG), config)?;
    Ok(())
}

/// What the guest is told, and the disks that it gets.
fn configure(
    host: &Host,
    start: &StartVm,
    images: &BTreeMap<String, Image>,
    span: &Span,
) -> Result<(PodConfig, Vec<Plan>), StartError> {
    let spec = &start.pod.spec;
    let hostname = spec.hostname.as_deref().unwrap_or(start.pod.name.as_str());
    let mut disks = Vec::new();
    let mut container = |container: &Container| {
        let image = images.get(container.name.as_str()).ok_or_else(|| {
            StartError::new(
                reason::GUEST_START_FAILED,
                format!("the image of {} is not held", container.name),
            )
        })?;
        let serial = format!("c{}", disks.len());
        disks.push(Plan {
            disk: Disk { file: format!("{serial}.qcow2"), serial: serial.clone() },
            base: image.path.clone(),
            size_bytes: container.limits.ephemeral_storage_bytes.unwrap_or(0),
        });
        container_config(container, image, hostname, serial)
    };
    let init_containers = spec.init_containers.iter().map(&mut container).collect::<Result<Vec<_>, _>>()?;
    let containers = spec.containers.iter().map(&mut container).collect::<Result<Vec<_>, _>>()?;
    let restart_policy = match spec.restart_policy {
        bulkhead_types::RestartPolicy::Always => RestartPolicy::Always,
        bulkhead_types::RestartPolicy::OnFailure => RestartPolicy::OnFailure,
        bulkhead_types::RestartPolicy::Never => RestartPolicy::Never,
    };
    let config = PodConfig {
        hostname: hostname.to_owned(),
        sandbox_id: start.pod.uid.to_string(),
        trace_context: trace::traceparent(span).unwrap_or_default(),
        init_containers,
        containers,
        restart_policy: restart_policy.into(),
        termination_grace_ms: spec.termination_grace_ms,
        backoff_base_ms: host.container_backoff_ms.0,
        backoff_max_ms: host.container_backoff_ms.1,
        ..PodConfig::default()
    };
    config.validate().map_err(|error| StartError::new(reason::GUEST_START_FAILED, error.to_string()))?;
    Ok((config, disks))
}

fn container_config(
    container: &Container,
    image: &Image,
    hostname: &str,
    disk_serial: String,
) -> Result<ContainerConfig, StartError> {
    let overrides = ProcessOverrides {
        command: container.command.clone(),
        args: container.args.clone(),
        env: container.env.iter().map(|var| (var.name.clone(), var.value.clone())).collect(),
        working_dir: container.working_dir.clone(),
        hostname: hostname.to_owned(),
        ..ProcessOverrides::default()
    };
    let process = resolve_process(&image.config, &overrides).map_err(|error| {
        // Kubernetes' word for a container that cannot be made from its image and spec.
        StartError::new("CreateContainerConfigError", format!("container {}: {error}", container.name))
    })?;
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
        read_only_root: false,
    })
}
