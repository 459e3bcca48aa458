//! From nothing to a guest that is nobody's: booted, as a copy of a template, or to become one.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use bulkhead_nodeagent_core::qemu::{Accel, Ram};
use bulkhead_nodeagent_core::{GuestSize, HostLimits, NO_LEASE_MS, VM_POOL_DISKS_MAX};
use bulkhead_types::ObjectId;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{FOLDER, PooledVm, group};
use crate::boot::BootAssets;
use crate::channel::first_word;
use crate::confinement::{Inmate, resolve};
use crate::error::chain;
use crate::guard::Orders;
use crate::host::Host;
use crate::qmp::Qmp;
use crate::steps::{Step, passed, reached};
use crate::vm::command::{GUEST_SOCKET, Machinery, QMP_SOCKET, build};
use crate::vm::guarded;
use crate::vm::process::{Launch, Process, QEMU_LOG};
use crate::vm::socket::connect_when_there;
use crate::vm_template::{Blank, MadeOf, Template, seed};

/// How long one may take from its process' start to its first word.
const BOOT_TIMEOUT: Duration = Duration::from_secs(180);
/// The same for a copy: its pod waits, and could boot meanwhile.
const COPY_TIMEOUT: Duration = Duration::from_secs(30);
/// Why a guest does not run.
pub(super) enum Failure {
    /// The template is not of what guests are made of now.
    Outdated,
    /// No copy of the template runs.
    Copy(String),
    /// It did not boot.
    Boot(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Outdated => f.write_str("the template of its size was of another kernel, guest or QEMU"),
            Self::Copy(why) => write!(f, "the copy of a template did not run: {why}"),
            Self::Boot(why) => f.write_str(why),
        }
    }
}

/// How a guest begins.
struct Beginning {
    size: GuestSize,
    ram: Ram,
    /// In a state that it is given.
    incoming: bool,
    guarded: bool,
}

/// Starts the process of a guest that is nobody's.
async fn start(host: &Host, number: u64, boot: &BootAssets, how: Beginning) -> Result<PooledVm, String> {
    if let Some(missing) = host.confinement.refusal() {
        return Err(missing);
    }
    let Beginning { size, ram, incoming, guarded } = how;
    let dir = host.data.join(FOLDER).join(number.to_string());
    let mut command = build(&Machinery {
        name: format!("vm-pool/{number}"),
        uuid: Uuid::new_v4(),
        accel: host.accel,
        size,
        boot,
        disks: Vec::new(),
        devices: Vec::new(),
        dir: &dir,
        ram,
        mem_merge: host.mem_merge,
        sandbox: host.sandbox,
        grows: true,
    });
    command.incoming = incoming;
    command.add_spare_ports(VM_POOL_DISKS_MAX + 1);
    let prepare = || -> io::Result<Launch> {
        fs::create_dir(&dir)?;
        reached(Step::PooledFolderMade)?;
        let limits = HostLimits::of_size(size, host.accel != Accel::Kvm);
        let groups = host.cgroups.create(&group(number), limits)?;
        passed(Step::PooledCgroupMade);
        let program = resolve(&host.qemu).ok_or(io::ErrorKind::NotFound)?;
        // Another user than any pod's: those count from the other end.
        let pod = ObjectId(u64::MAX - number);
        let inmate =
            Inmate { pod, dir: &dir, program: &program, command: &command, images: Vec::new(), groups };
        let jail = host.confinement.jail(&inmate)?;
        host.confinement.hand_over(&jail, &[])?;
        reached(Step::PooledJailMade)?;
        Ok(Launch { program, args: command.to_args(), jail })
    };
    let launch = prepare().map_err(|error| chain(&error))?;
    let process = if guarded {
        let Launch { program, args, jail } = launch;
        let orders = Orders { until_ms: NO_LEASE_MS, program, args, jail: Some(jail) };
        guarded::start(&host.guard, &orders, &dir).await.map_err(|refusal| refusal.to_string())?
    } else {
        Process::start(&launch, &dir).map_err(|error| chain(&error))?
    };
    passed(Step::PooledStarted);
    Ok(PooledVm { number, dir, process: Some(process), qmp: None, guarded, copied: false })
}

/// Has a guest do something after its start, unless it ends before, or the agent does; then it ends.
async fn bring_up<T>(
    vm: PooledVm,
    limit: Duration,
    stop: &CancellationToken,
    work: impl Future<Output = Result<T, String>>,
) -> Result<(PooledVm, T), String> {
    let ended = async {
        if let Some(process) = &vm.process {
            // One that cannot be watched is waited for as long as it may take.
            if process.ended().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let up = tokio::select! {
        up = tokio::time::timeout(limit, work) => {
            up.unwrap_or_else(|_| Err(format!("it said nothing for {limit:?}")))
        }
        () = ended => Err(format!("its process ended{}", last_words(&vm.dir))),
        () = stop.cancelled() => Err("the agent ends".to_owned()),
    };
    match up {
        Ok(result) => Ok((vm, result)),
        Err(reason) => {
            vm.end().await;
            Err(reason)
        }
    }
}

/// What QEMU said last, for people.
pub(super) fn last_words(dir: &Path) -> String {
    let said = fs::read_to_string(dir.join(QEMU_LOG)).unwrap_or_default();
    said.lines()
        .last()
        .map_or_else(String::new, |line| format!(": {}", bulkhead_nodeagent_core::text::message(line)))
}

async fn control(dir: &Path) -> Result<Qmp, String> {
    let qmp = Qmp::negotiate(connect_when_there(&dir.join(QMP_SOCKET)).await).await;
    qmp.map_err(|error| chain(&error))
}

/// Boots a guest up to its first word.
pub(super) async fn boot(
    host: &Host,
    number: u64,
    size: GuestSize,
    stop: &CancellationToken,
) -> Result<PooledVm, String> {
    let assets = host.boot.assets().await.map_err(|error| chain(&error))?;
    let how = Beginning { size, ram: Ram::Board, incoming: false, guarded: true };
    let vm = start(host, number, &assets, how).await?;
    let dir = vm.dir.clone();
    let up = async {
        let qmp = control(&dir).await?;
        let word = first_word(connect_when_there(&dir.join(GUEST_SOCKET)).await, None).await;
        passed(Step::PooledGreeted);
        word.map_err(|error| chain(&error)).map(|_| qmp)
    };
    let (mut vm, qmp) = bring_up(vm, BOOT_TIMEOUT, stop, up).await?;
    vm.qmp = Some(qmp);
    Ok(vm)
}

/// Boots a guest, takes down what it is then, and ends it.
pub(super) async fn make(
    host: &Host,
    number: u64,
    size: GuestSize,
    stop: &CancellationToken,
) -> Result<Template, String> {
    let assets = host.boot.assets().await.map_err(|error| chain(&error))?;
    let made_of = MadeOf::now(host, &assets, size).map_err(|error| chain(&error))?;
    let blank = Blank::new(made_of).map_err(|error| chain(&error))?;
    let how = Beginning { size, ram: blank.ram(), incoming: false, guarded: false };
    let vm = start(host, number, &assets, how).await?;
    let dir = vm.dir.clone();
    let up = async {
        let mut qmp = control(&dir).await?;
        let word = first_word(connect_when_there(&dir.join(GUEST_SOCKET)).await, None).await;
        passed(Step::PooledGreeted);
        if !word.map_err(|error| chain(&error))?.reseeds {
            return Err("this guest program cannot become one of its own: --guest is of an earlier version"
                .to_owned());
        }
        blank.take_down(&mut qmp).await.map_err(|error| chain(&error))
    };
    let (vm, ()) = bring_up(vm, BOOT_TIMEOUT, stop, up).await?;
    vm.end().await;
    blank.seal().map_err(|error| chain(&error))
}

/// A copy of a template, made a guest of its own.
pub(super) async fn copy(
    host: &Host,
    number: u64,
    (template, size): (&Template, GuestSize),
    guarded: bool,
    stop: &CancellationToken,
) -> Result<PooledVm, Failure> {
    let assets = host.boot.assets().await.map_err(|error| Failure::Boot(chain(&error)))?;
    let now = MadeOf::now(host, &assets, size).map_err(|error| Failure::Boot(chain(&error)))?;
    if !template.is_of(&now) {
        return Err(Failure::Outdated);
    }
    let how = Beginning { size, ram: template.ram(), incoming: true, guarded };
    let vm = start(host, number, &assets, how).await.map_err(Failure::Copy)?;
    let dir = vm.dir.clone();
    let up = async {
        let mut qmp = control(&dir).await?;
        template.restore(&mut qmp).await.map_err(|error| chain(&error))?;
        let stream = connect_when_there(&dir.join(GUEST_SOCKET)).await;
        first_word(stream, Some(seed()?)).await.map_err(|error| chain(&error))?;
        passed(Step::CopyReseeded);
        Ok(qmp)
    };
    let (mut vm, qmp) = bring_up(vm, COPY_TIMEOUT, stop, up).await.map_err(Failure::Copy)?;
    (vm.qmp, vm.copied) = (Some(qmp), true);
    Ok(vm)
}
