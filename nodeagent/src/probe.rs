//! Which accelerator runs guests: found by running one.
//!
//! A `/dev/kvm` that opens may still not run a guest (nested virtualisation that crawls, a processor model that KVM
//! refuses), so a guest is started with it and must say a word before the deadline. The result holds for this boot of
//! the machine, this QEMU and this kernel.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bulkhead_nodeagent_core::hardware::{KvmTrial, has_kvm_file};
use bulkhead_nodeagent_core::qemu::{Accel, QemuCommand, Ram};
use bulkhead_nodeagent_core::{GuestSize, kvm_warning};
use bulkhead_types::ObjectId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::boot::BootAssets;
use crate::channel;
use crate::confinement::{Confinement, Inmate, resolve};
use crate::machine::MachineTree;
use crate::vm::command::{GUEST_SOCKET, Machinery, build};
use crate::vm::process::{self, Launch, Process};
use crate::vm::socket;
use crate::{AccelChoice, disk};

/// A guest that KVM runs says its first word after about a second.
const DEADLINE_DEFAULT_MS: u64 = 10_000;
/// How a warning begins that says why guests are emulated.
pub(crate) const EMULATED: &str = "guests run by emulation (TCG) and are slow";
/// Memory of the guest that is tried, in bytes.
const PROBE_MEMORY_BYTES: u64 = 160 << 20;

/// What runs guests here, and what an operator should know about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Accelerator {
    pub(crate) accel: Accel,
    pub(crate) warnings: Vec<String>,
    /// What trying KVM told.
    pub(crate) kvm: KvmTrial,
}

impl Accelerator {
    pub(crate) fn tcg(warning: Option<String>, kvm: KvmTrial) -> Self {
        Self { accel: Accel::Tcg { multi: true }, warnings: warning.into_iter().collect(), kvm }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self.accel {
            Accel::Kvm => "kvm",
            Accel::Tcg { .. } => "tcg",
        }
    }
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    boot_id: String,
    qemu: String,
    kernel: String,
    /// Why KVM runs no guest; `None` when it does.
    kvm_fails: Option<String>,
}

/// Where and with what a guest is tried.
pub(crate) struct Trial<'a> {
    pub(crate) data: &'a Path,
    pub(crate) qemu: &'a Path,
    pub(crate) qemu_version: &'a str,
    pub(crate) boot_id: &'a str,
    pub(crate) boot: &'a BootAssets,
    pub(crate) sandbox: bool,
    pub(crate) confinement: &'a Confinement,
    /// From [`deadline`].
    pub(crate) deadline: Duration,
}

/// How long a guest that is tried has for its first word: as long as any guest, where an operator says how long that is.
pub(crate) fn deadline(boot_deadline_ms: Option<u64>) -> Duration {
    Duration::from_millis(boot_deadline_ms.unwrap_or(DEADLINE_DEFAULT_MS))
}

/// Chooses the accelerator.
///
/// # Errors
/// The reason, when KVM is demanded and runs no guest.
pub(crate) async fn choose(choice: AccelChoice, trial: Option<Trial<'_>>) -> Result<Accelerator, String> {
    if choice == AccelChoice::Tcg {
        return Ok(Accelerator::tcg(None, KvmTrial::NotWanted));
    }
    let fails = match trial {
        _ if !has_kvm() => Some("there is no /dev/kvm".to_owned()),
        None => Some("it could not be tried, QEMU or the guest kernel is missing".to_owned()),
        Some(trial) => trial.remembered_or_run().await,
    };
    match (choice, fails) {
        (_, None) => Ok(Accelerator { accel: Accel::Kvm, warnings: Vec::new(), kvm: KvmTrial::Runs }),
        (AccelChoice::Kvm, Some(reason)) => Err(reason),
        (_, Some(reason)) => {
            let warning = kvm_warning(false, Some(&reason));
            tracing::warn!("{}", warning.as_deref().unwrap_or_default());
            Ok(Accelerator::tcg(warning, KvmTrial::Fails(reason)))
        }
    }
}

/// Runs a guest with KVM whatever is remembered; why it failed. The next start of the agent knows the result.
pub(crate) async fn try_again(trial: Trial<'_>) -> Option<String> {
    if !has_kvm() {
        return Some("there is no /dev/kvm".to_owned());
    }
    trial.run_and_remember().await
}

/// Whether there is anything that could be tried.
pub(crate) fn has_kvm() -> bool {
    has_kvm_file(&MachineTree::new("/"))
}

impl Trial<'_> {
    fn seen(&self, kvm_fails: Option<String>) -> Seen {
        Seen {
            boot_id: self.boot_id.to_owned(),
            qemu: self.qemu_version.to_owned(),
            kernel: self.boot.digest.clone(),
            kvm_fails,
        }
    }

    fn path(&self) -> PathBuf {
        self.data.join("accelerator.json")
    }

    async fn remembered_or_run(&self) -> Option<String> {
        let known = fs::read(self.path()).ok();
        let known: Option<Seen> = known.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        if let Some(known) = known.filter(|known| *known == self.seen(known.kvm_fails.clone())) {
            return known.kvm_fails;
        }
        self.run_and_remember().await
    }

    async fn run_and_remember(&self) -> Option<String> {
        let fails = self.run().await;
        let bytes = serde_json::to_vec(&self.seen(fails.clone())).expect("strings always fit in JSON");
        if let Err(error) = disk::replace(&self.path(), &bytes) {
            tracing::warn!(%error, "the accelerator that was found is not remembered");
        }
        fails
    }

    /// Runs a guest with KVM; why it failed.
    async fn run(&self) -> Option<String> {
        let dir = self.data.join("probe");
        let _ = disk::remove_dir(&dir);
        if let Err(error) = fs::create_dir_all(&dir) {
            return Some(error.to_string());
        }
        let command = build(&Machinery {
            name: "bulkhead-probe".to_owned(),
            uuid: Uuid::new_v4(),
            accel: Accel::Kvm,
            size: GuestSize { cpus: 1, memory_bytes: PROBE_MEMORY_BYTES },
            boot: self.boot,
            disks: Vec::new(),
            devices: Vec::new(),
            dir: &dir,
            ram: Ram::Board,
            mem_merge: false,
            sandbox: self.sandbox,
            grows: false,
        });
        let fails = match self.start(&command, &dir) {
            Err(error) => Some(format!("{error} {}", process::confinement_failure(&dir).unwrap_or_default())),
            Ok(process) => self.await_word(process, &dir).await,
        };
        let _ = disk::remove_dir(&dir);
        fails
    }

    fn start(&self, command: &QemuCommand, dir: &Path) -> io::Result<Process> {
        let program = resolve(self.qemu).ok_or(io::ErrorKind::NotFound)?;
        let (images, groups) = (Vec::new(), Vec::new());
        let inmate = Inmate { pod: ObjectId(0), dir, program: &program, command, images, groups };
        let jail = self.confinement.jail(&inmate)?;
        self.confinement.hand_over(&jail, &[])?;
        Process::start(&Launch { program, args: command.to_args(), jail }, dir)
    }

    async fn await_word(&self, process: Process, dir: &Path) -> Option<String> {
        let Ok(killer) = process.killer() else { return Some("the trial's process is gone".to_owned()) };
        let word = async {
            let stream = socket::connect_when_there(&dir.join(GUEST_SOCKET)).await;
            channel::first_word(stream, None).await
        };
        let ended = process.wait();
        tokio::pin!(ended);
        let fails = tokio::select! {
            word = tokio::time::timeout(self.deadline, word) => match word {
                Ok(Ok(_)) => None,
                Ok(Err(error)) => Some(format!("the guest channel failed: {error}")),
                Err(_) => Some(format!("a guest said nothing for {} s", self.deadline.as_secs())),
            },
            status = &mut ended => {
                let said = fs::read_to_string(dir.join(crate::vm::process::QEMU_LOG)).unwrap_or_default();
                return Some(format!("QEMU ended with {status}: {}", bulkhead_nodeagent_core::text::console_tail(&said)));
            }
        };
        if let Err(error) = killer.kill() {
            tracing::warn!(%error, "the trial's guest cannot be killed");
        }
        ended.await;
        fails
    }
}
