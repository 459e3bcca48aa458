//! What all pods of this node share.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bulkhead_nodeagent_core::hardware::KernelWatch;
use bulkhead_nodeagent_core::qemu::{Accel, Sandbox};
use bulkhead_nodeagent_core::{SILENT_QUESTIONS, group_name};
use bulkhead_types::ObjectId;
use tokio::sync::{Mutex, watch};

use crate::KernelSource;
use crate::boot::{BootAssets, BootError, BootSources, Compression, GuestNic};
use crate::cgroup::Cgroups;
use crate::confinement::Confinement;
use crate::image::ImageStore;
use crate::logs::LogStore;
use crate::network::Network;
use crate::numa::Numa;
use crate::passthrough::Passthrough;
use crate::records::Records;
use crate::starts::Starts;
use crate::streams::StreamStore;
use crate::undying::Undying;
use crate::vm_pool::{self, VmPoolHandle};
use crate::volumes::Volumes;

/// The host, as pods need it.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) data: PathBuf,
    pub(crate) records: Records,
    pub(crate) images: ImageStore,
    /// The node's own credentials for registries, read when a pod's images are pulled.
    pub(crate) registry_config: Option<PathBuf>,
    pub(crate) logs: LogStore,
    /// What clients have with guests.
    pub(crate) streams: StreamStore,
    /// What starts of guests spend their time with.
    pub(crate) starts: Starts,
    pub(crate) boot: Boot,
    pub(crate) qemu: PathBuf,
    /// How guests are shut in.
    pub(crate) confinement: Confinement,
    /// The volumes of claims.
    pub(crate) volumes: Volumes,
    /// Guests that were booted in advance.
    pub(crate) pool: VmPoolHandle,
    /// Whether the host's kernel may merge pages of guests that are alike.
    pub(crate) mem_merge: bool,
    /// What guests' processes may use.
    pub(crate) cgroups: Cgroups,
    /// The program that becomes a guard, with what it needs to be told for that.
    pub(crate) guard: Vec<OsString>,
    /// Until when the node's lease runs, on the clock since boot, in milliseconds; 0 before the first.
    pub(crate) lease_until_ms: watch::Sender<u64>,
    /// Processes of earlier guests that do not end.
    pub(crate) undying: Undying,
    /// The devices of guests.
    pub(crate) passthrough: Passthrough,
    /// Where devices that come and go, and their faults, are told of.
    pub(crate) kernel: Arc<dyn KernelWatch>,
    /// The guests' network; unset: they have none.
    pub(crate) network: Option<Arc<Network>>,
    pub(crate) accel: Accel,
    /// How long a guest that is tried with KVM has for its first word.
    pub(crate) trial_deadline: Duration,
    /// Where guests with CPUs of their own are.
    pub(crate) numa: Numa,
    /// QEMU's system call filter works here.
    pub(crate) sandbox: bool,
    /// First and longest wait before a container is started again, in milliseconds; 0: the guest's defaults.
    pub(crate) container_backoff_ms: (u64, u64),
    /// Most processes of a pod.
    pub(crate) pod_pids_limit: u32,
    /// How long a guest, or its QEMU, may leave all questions unanswered, in milliseconds.
    pub(crate) silence_ms: u64,
}

impl Host {
    /// How often guests and their QEMUs are asked.
    pub(crate) fn look_every(&self) -> Duration {
        Duration::from_millis(self.silence_ms.div_ceil(SILENT_QUESTIONS.into()).max(1))
    }

    /// The volumes of claims.
    pub(crate) fn volumes(&self) -> Volumes {
        self.volumes.clone()
    }

    /// The control group of a pod's guest, whose folder is `dir`.
    pub(crate) fn group_of(&self, dir: &Path, pod: ObjectId, instance: u32) -> String {
        vm_pool::group_of(&self.data, dir).unwrap_or_else(|| group_name(pod, instance))
    }
}

/// Kernel and initramfs, made when they are first needed: an operator may bring a missing kernel while the agent runs.
#[derive(Debug)]
pub(crate) struct Boot {
    data: PathBuf,
    kernel: KernelSource,
    guest: PathBuf,
    /// By the NICs whose drivers are in them; first those of guests without any.
    assets: Mutex<BTreeMap<Vec<GuestNic>, Arc<BootAssets>>>,
}

/// Most combinations of NICs that are remembered.
const KINDS_MAX: usize = 64;

impl Boot {
    pub(crate) fn new(data: PathBuf, kernel: KernelSource, guest: PathBuf) -> Self {
        Self { data, kernel, guest, assets: Mutex::new(BTreeMap::new()) }
    }

    pub(crate) async fn assets(&self) -> Result<Arc<BootAssets>, BootError> {
        self.assets_for(Vec::new()).await
    }

    /// The same with the drivers of a guest's own NICs.
    pub(crate) async fn assets_for(&self, nics: Vec<GuestNic>) -> Result<Arc<BootAssets>, BootError> {
        let mut known = self.assets.lock().await;
        if let Some(assets) =
            known.get(&nics).filter(|assets| assets.kernel.exists() && assets.initramfs.exists())
        {
            return Ok(Arc::clone(assets));
        }
        let (data, kernel, guest) = (self.data.clone(), self.kernel.clone(), self.guest.clone());
        let for_nics = nics.clone();
        let made = tokio::task::spawn_blocking(move || {
            let sources = match kernel {
                KernelSource::Folder(dir) => BootSources::from_kernel_dir(&dir, &guest)?,
                KernelSource::Files { kernel, modules_dir } => BootSources { kernel, modules_dir, guest },
            };
            BootAssets::prepare_for(&data, &sources, &for_nics, Compression::default())
        });
        let assets = match made.await {
            Ok(result) => Arc::new(result?),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        if known.len() >= KINDS_MAX {
            known.clear();
        }
        known.insert(nics, Arc::clone(&assets));
        Ok(assets)
    }
}

/// The first line of `qemu -version`, or why there is none.
pub(crate) async fn qemu_version(qemu: &std::path::Path) -> std::io::Result<String> {
    let output = tokio::process::Command::new(qemu).arg("-version").kill_on_drop(true).output().await?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().next().filter(|_| output.status.success());
    line.map(str::to_owned)
        .ok_or_else(|| std::io::Error::other(format!("-version ended with {}", output.status)))
}

/// Whether QEMU's system call filter works on this machine.
pub(crate) async fn sandbox_works(qemu: &std::path::Path) -> bool {
    empty_machine_works(qemu, true, &[]).await
}

/// Whether QEMU starts an empty machine with these arguments more on this machine; it is ended again.
pub(crate) async fn empty_machine_works(qemu: &std::path::Path, sandbox: bool, more: &[String]) -> bool {
    let rest = ["-machine", "none", "-nodefaults", "-display", "none", "-S", "-qmp", "stdio"];
    let child = tokio::process::Command::new(qemu)
        .args(sandbox.then(|| Sandbox::STRICT.to_args()).into_iter().flatten())
        .args(rest)
        .args(more)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let Ok(mut child) = child else { return false };
    let words = b"{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"quit\"}\n";
    if let Some(mut stdin) = child.stdin.take() {
        let _ = tokio::io::AsyncWriteExt::write_all(&mut stdin, words).await;
        let ended = tokio::time::timeout(SANDBOX_TIMEOUT, child.wait()).await;
        return matches!(ended, Ok(Ok(status)) if status.success());
    }
    false
}

/// How long the trial of [`empty_machine_works`] may take.
const SANDBOX_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);
