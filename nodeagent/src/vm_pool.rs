//! Guests that are booted before there are pods for them.
//!
//! ```text
//!  <data>/vm-pool/<number>/        a guest's folder, as those of pods; a pod that has it has a link to it: pods/<pod>/<instance>
//! ```
//!
//! What to boot and when is decided by [`VmPool`] in the core; this boots it, holds it, and gives it away. A guest of the pool is shut in as
//! those of pods are, as a user of its own, and knows nothing of any pod. It gets its disks by descriptor (`nodeagent/src/pod/pooled.rs`), so
//! no path has to come into its jail. Guests that wait end with their agent: those that one left which crashed are killed by the
//! next, as all guests are that nobody knows.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bulkhead_nodeagent_core::qemu::{Accel, Ram};
use bulkhead_nodeagent_core::{GuestSize, HostLimits, VM_POOL_DISKS_MAX, VmPool};
use bulkhead_types::ObjectId;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::channel::first_word;
use crate::confinement::{Inmate, resolve};
use crate::error::chain;
use crate::host::Host;
use crate::qmp::Qmp;
use crate::vm::command::{GUEST_SOCKET, Machinery, QMP_SOCKET, build};
use crate::vm::process::{Launch, Process};
use crate::vm::socket::connect_when_there;
use crate::{clock, disk};

/// The folder of all of them, below the data directory.
const FOLDER: &str = "vm-pool";
/// In the folder of one that waits for a pod, for people to see.
const READY: &str = "ready";
/// How long one may take from its process' start to its first word.
const BOOT_TIMEOUT: Duration = Duration::from_secs(180);
/// Pods that wait for an answer.
const ASKED_MAX: usize = 64;

/// What an operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmPoolConfig {
    /// Guests that wait for pods.
    pub guests: u32,
    /// How large each is: only pods whose guest would be of this size get one.
    pub size: GuestSize,
}

/// A guest that has booted and belongs to nobody. Its process is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct PooledVm {
    number: u64,
    /// Its folder.
    pub(crate) dir: PathBuf,
    process: Option<Process>,
    /// Its control socket; taken by who furnishes it.
    pub(crate) qmp: Option<Qmp>,
}

impl PooledVm {
    /// It belongs to a pod from now on.
    pub(crate) fn into_process(mut self) -> Process {
        self.process.take().expect("it is taken once")
    }

    /// Its control group.
    pub(crate) fn group(&self) -> String {
        group(self.number)
    }
}

impl Drop for PooledVm {
    fn drop(&mut self) {
        self.kill();
    }
}

impl PooledVm {
    /// Kills it and waits for its end.
    pub(crate) async fn end(self) {
        self.kill();
        self.into_process().wait().await;
    }

    fn kill(&self) {
        if let Some(Err(error)) = self.process.as_ref().map(|process| process.killer()?.kill()) {
            tracing::error!(guest = self.number, %error, "a guest of the pool cannot be killed");
        }
    }
}

/// Asks for guests.
#[derive(Debug, Default)]
pub(crate) struct VmPoolHandle {
    size: Option<GuestSize>,
    asked: Option<mpsc::Sender<oneshot::Sender<PooledVm>>>,
}

/// What [`run`] listens to.
pub(crate) type Asked = mpsc::Receiver<oneshot::Sender<PooledVm>>;

impl VmPoolHandle {
    /// A handle for a pool, and what [`run`] needs to keep it; without one, a handle for none.
    pub(crate) fn of(config: Option<VmPoolConfig>) -> (Self, Option<(VmPoolConfig, Asked)>) {
        let Some(pool) = config else { return (Self::default(), None) };
        let (asked, receiver) = mpsc::channel(ASKED_MAX);
        (Self { size: Some(pool.size), asked: Some(asked) }, Some((pool, receiver)))
    }

    /// How large its guests are, if there is a pool.
    pub(crate) fn size(&self) -> Option<GuestSize> {
        self.size
    }

    /// A guest that has booted, if there is one now.
    pub(crate) async fn take(&self) -> Option<PooledVm> {
        let (answer, given) = oneshot::channel();
        self.asked.as_ref()?.send(answer).await.ok()?;
        given.await.ok()
    }
}

/// The control group of a pool's guest.
fn group(number: u64) -> String {
    format!("pool.{number}")
}

/// The control group of the guest in this folder, if it was one of the pool.
pub(crate) fn group_of(data: &Path, dir: &Path) -> Option<String> {
    let number = dir.strip_prefix(data.join(FOLDER)).ok()?.to_str()?.parse().ok()?;
    Some(group(number))
}

/// Keeps the pool until `stop`; then its guests that wait end. Must begin after all guests of pods were found.
pub(crate) async fn run(host: Arc<Host>, config: VmPoolConfig, mut asked: Asked, stop: CancellationToken) {
    let first = match clear(&host) {
        Ok(first) => first,
        Err(error) => return tracing::error!(%error, "there is no pool of guests: its folder cannot be used"),
    };
    let mut pool = VmPool::new(config.size, config.guests, first);
    let mut waiting: BTreeMap<u64, PooledVm> = BTreeMap::new();
    let mut boots = JoinSet::new();
    loop {
        while let Some(number) = pool.want(clock::boot_ms()) {
            let (host, stop, size) = (Arc::clone(&host), stop.clone(), pool.size());
            boots.spawn(async move { (number, boot(&host, number, size, &stop).await) });
        }
        let retry = pool.deadline_ms().map(|at| Duration::from_millis(at.saturating_sub(clock::boot_ms())));
        let retry = async {
            match retry {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => break,
            answer = asked.recv() => match answer {
                Some(answer) => {
                    let vm = pool.take().and_then(|number| waiting.remove(&number));
                    // Without one the answer is dropped, which is an answer.
                    if let Some(vm) = vm {
                        let _ = disk::remove_file(&vm.dir.join(READY));
                        drop(answer.send(vm));
                    }
                }
                None => break,
            },
            Some(booted) = boots.join_next() => match booted {
                Ok((number, Ok(vm))) => {
                    tracing::info!(guest = number, "a guest of the pool waits for a pod");
                    pool.booted(number);
                    // Nothing depends on it.
                    let _ = fs::File::create_new(vm.dir.join(READY));
                    waiting.insert(number, vm);
                }
                Ok((number, Err(reason))) => {
                    tracing::warn!(guest = number, reason, "a guest of the pool did not boot");
                    pool.failed(number, clock::boot_ms());
                    discard(&host, number);
                }
                Err(error) => return tracing::error!(%error, "the pool of guests has ended"),
            },
            () = retry => {}
        }
    }
    while let Some(booted) = boots.join_next().await {
        match booted {
            Ok((number, Ok(vm))) => _ = waiting.insert(number, vm),
            Ok((number, Err(_))) => discard(&host, number),
            Err(_) => {}
        }
    }
    for (number, vm) in waiting {
        vm.end().await;
        discard(&host, number);
    }
}

/// Removes what guests left that are no pod's, and says which number is free.
fn clear(host: &Host) -> io::Result<u64> {
    let base = host.data.join(FOLDER);
    fs::create_dir_all(&base)?;
    let kept: Vec<PathBuf> = host.records.links()?;
    let mut first = 0;
    for entry in fs::read_dir(&base)? {
        let path = entry?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.parse::<u64>().ok());
        first = first.max(number.map_or(0, |number| number + 1));
        if !kept.contains(&path) {
            disk::remove_dir(&path)?;
        }
    }
    Ok(first)
}

/// Removes what is left of a guest that has ended, or is about to.
fn discard(host: &Host, number: u64) {
    let dir = host.data.join(FOLDER).join(number.to_string());
    let removed = disk::remove_dir(&dir).and(host.cgroups.remove(&group(number)));
    if let Err(error) = removed {
        tracing::debug!(guest = number, %error, "what a guest of the pool left is removed by the next agent");
    }
}

/// Boots a guest up to its first word.
async fn boot(
    host: &Host,
    number: u64,
    size: GuestSize,
    stop: &CancellationToken,
) -> Result<PooledVm, String> {
    if let Some(missing) = host.confinement.refusal() {
        return Err(missing);
    }
    let assets = host.boot.assets().await.map_err(|error| chain(&error))?;
    let dir = host.data.join(FOLDER).join(number.to_string());
    let mut command = build(&Machinery {
        name: format!("vm-pool/{number}"),
        uuid: Uuid::new_v4(),
        accel: host.accel,
        size,
        boot: &assets,
        disks: Vec::new(),
        devices: Vec::new(),
        dir: &dir,
        ram: Ram::Board,
        sandbox: host.sandbox,
        grows: true,
    });
    command.add_spare_ports(VM_POOL_DISKS_MAX + 1);
    let started = || -> io::Result<Process> {
        fs::create_dir(&dir)?;
        let limits = HostLimits::of_size(size, host.accel != Accel::Kvm);
        let groups = host.cgroups.create(&group(number), limits)?;
        let program = resolve(&host.qemu).ok_or(io::ErrorKind::NotFound)?;
        // Another user than any pod's: those count from the other end.
        let pod = ObjectId(u64::MAX - number);
        let inmate =
            Inmate { pod, dir: &dir, program: &program, command: &command, images: Vec::new(), groups };
        let jail = host.confinement.jail(&inmate)?;
        host.confinement.hand_over(&jail, &[])?;
        Process::start(&Launch { program, args: command.to_args(), jail }, &dir)
    };
    let process = started().map_err(|error| chain(&error))?;
    let mut vm = PooledVm { number, dir: dir.clone(), process: Some(process), qmp: None };
    let up = async {
        let qmp = Qmp::negotiate(connect_when_there(&dir.join(QMP_SOCKET)).await).await;
        let qmp = qmp.map_err(|error| chain(&error))?;
        let word = first_word(connect_when_there(&dir.join(GUEST_SOCKET)).await).await;
        word.map_err(|error| chain(&error)).map(|()| qmp)
    };
    let ended = async {
        if let Some(process) = &vm.process {
            // One that cannot be watched is waited for as long as a boot may take.
            if process.ended().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let up = tokio::select! {
        up = tokio::time::timeout(BOOT_TIMEOUT, up) => {
            up.unwrap_or_else(|_| Err(format!("it said nothing for {BOOT_TIMEOUT:?}")))
        }
        () = ended => Err("its process ended".to_owned()),
        () = stop.cancelled() => Err("the agent ends".to_owned()),
    };
    match up {
        Ok(qmp) => {
            vm.qmp = Some(qmp);
            Ok(vm)
        }
        Err(reason) => {
            vm.end().await;
            Err(reason)
        }
    }
}
