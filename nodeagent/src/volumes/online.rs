//! What is done with a volume while a guest has it.
//!
//! ```text
//!  copy      guest: FIFREEZE ─► QMP stop ─► the driver copies ─► QMP cont ─► guest: FITHAW
//!                                      QEMU has written out everything when it stands still, and the guest all that was
//!                                      written to the volume. A guest that cannot do that in time, or at all, is copied
//!                                      as a power failure would leave it
//!  growing   the driver, if it does that ─► QMP block_resize ─► guest: EXT4_IOC_RESIZE_FS
//! ```
//!
//! An agent that ends meanwhile leaves a guest that stands still: the next one lets it go on (`pod/supervise.rs`).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bulkhead_types::{VolumeOrder, VolumeTask};
use serde_json::{Value, json};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::{VolumeError, Volumes, offline};
use crate::qmp::QmpError;
use crate::steps::{Step, passed};

/// A guest stands still at most while so much is copied, in bytes, where a copy shares no blocks: a second or a few.
const COPIED_PAUSED_BYTES_MAX: u64 = 1 << 30;
/// How long a guest may take to write out a volume and hold it still, or to let it go on.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it holds a volume still at most, by its own clock, which stands still with it.
const FROZEN_MAX: Duration = Duration::from_secs(20);
/// How long a guest may take to make a file system larger.
const GROW_TIMEOUT: Duration = Duration::from_secs(30);

/// A command for QEMU, and where its answer goes.
#[derive(Debug)]
pub(crate) struct MachineCall {
    pub(crate) command: &'static str,
    pub(crate) arguments: Value,
    pub(crate) answer: oneshot::Sender<Result<Value, QmpError>>,
}

/// What a guest shall do with a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GuestTask {
    /// Its file system shall fill its disk, which has so many bytes.
    Grow { disk_bytes: u64 },
    /// Everything is to be written out, and it is to stand still for so long at most.
    Freeze { for_ms: u64 },
    /// It shall go on.
    Thaw,
}

/// A volume with which a guest shall do something, and where the answer goes.
#[derive(Debug)]
pub(crate) struct GuestOrder {
    /// Its name in the pod.
    pub(crate) volume: String,
    pub(crate) task: GuestTask,
    pub(crate) answer: oneshot::Sender<Result<(), String>>,
}

/// Why a guest may stand still, so that it answers nothing and is well all the same.
#[derive(Debug, Default)]
pub(crate) struct Still {
    /// Held while the agent has it stand still, for a copy: it must not go on under another's.
    pub(crate) for_copy: Mutex<()>,
    /// QEMU stopped it, because what it wrote found no room.
    pub(crate) without_room: AtomicBool,
}

impl Still {
    /// Whether it does now.
    pub(crate) fn stands(&self) -> bool {
        self.for_copy.try_lock().is_err() || self.without_room.load(Ordering::Relaxed)
    }
}

/// The way to a guest that has volumes.
#[derive(Clone, Debug)]
pub(crate) struct VolumePort {
    pub(crate) machine: mpsc::Sender<MachineCall>,
    pub(crate) guest: mpsc::Sender<GuestOrder>,
    pub(crate) still: Arc<Still>,
    /// What each disk is of: the volume's name, or nothing for those of containers.
    pub(crate) disks: Vec<Option<String>>,
}

impl VolumePort {
    /// Has QEMU do something, once it can be controlled.
    pub(crate) async fn call(&self, command: &'static str, arguments: Value) -> Result<Value, VolumeError> {
        let (answer, answered) = oneshot::channel();
        let gone = || VolumeError::NotNow("the guest has ended".to_owned());
        self.machine.send(MachineCall { command, arguments, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?.map_err(|error| VolumeError::NotNow(error.to_string()))
    }

    /// Has the guest do something with a volume.
    async fn ask(&self, volume: &str, task: GuestTask, within: Duration) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        let order = GuestOrder { volume: volume.to_owned(), task, answer };
        let lost = || "the connection to the guest was lost".to_owned();
        self.guest.send(order).await.map_err(|_| lost())?;
        match tokio::time::timeout(within, answered).await {
            Ok(answer) => answer.map_err(|_| lost())?,
            Err(_) => Err(format!("the guest did not do it within {} s", within.as_secs())),
        }
    }

    /// Which of QEMU's nodes has a file, by its number.
    async fn node_of(&self, file: &Path) -> Result<usize, VolumeError> {
        let nodes = self.call("query-named-block-nodes", json!({"flat": true})).await?;
        // A guest that was booted before its pod has it as a descriptor.
        let sets = self.call("query-fdsets", json!({})).await?;
        let given = given_as(&sets, file);
        let number = |node: &Value| {
            let name = node.get("node-name")?.as_str()?.strip_prefix("file")?;
            let of = node.get("file")?.as_str()?;
            (Some(of) == file.to_str() || Some(of) == given.as_deref()).then(|| name.parse().ok()).flatten()
        };
        let found = nodes.as_array().into_iter().flatten().find_map(number);
        found.ok_or_else(|| VolumeError::NotNow("the guest does not have the volume".to_owned()))
    }
}

/// By which path QEMU opened a file that it was given open, of what `query-fdsets` returns.
fn given_as(sets: &Value, file: &Path) -> Option<String> {
    let is_it =
        |fd: &Value| fd.get("opaque").and_then(Value::as_str).is_some_and(|text| Some(text) == file.to_str());
    let set = sets
        .as_array()?
        .iter()
        .find(|set| set.get("fds").and_then(Value::as_array).is_some_and(|fds| fds.iter().any(is_it)))?;
    Some(format!("/dev/fdset/{}", set.get("fdset-id")?.as_u64()?))
}

/// Does what is wanted.
pub(super) async fn run(
    volumes: &Volumes,
    order: &VolumeOrder,
    port: &VolumePort,
) -> Result<(), VolumeError> {
    match order.task {
        VolumeTask::Expand => grow(volumes, order, port).await,
        VolumeTask::Snapshot | VolumeTask::Restore | VolumeTask::Clone => copy(volumes, order, port).await,
    }
}

async fn grow(volumes: &Volumes, order: &VolumeOrder, port: &VolumePort) -> Result<(), VolumeError> {
    let driver = volumes.of(order.volume)?;
    if driver.capabilities().grows_beside_guest {
        let (volumes, order) = (volumes.clone(), *order);
        let work = tokio::task::spawn_blocking(move || {
            volumes.of(order.volume)?.expand_volume(order.volume, order.size_bytes)
        });
        work.await.unwrap_or_else(|error| Err(std::io::Error::other(error).into()))?;
    }
    // It may have more already: from an earlier try, or because it is a copy of what had.
    let disk_bytes = driver.disk_bytes(order.size_bytes).max(driver.length(order.volume)?);
    let node = port.node_of(&driver.publish(order.volume).file).await?;
    let Some(Some(volume)) = port.disks.get(node) else {
        return Err(VolumeError::NotNow("the guest does not have the volume".to_owned()));
    };
    let arguments = json!({"node-name": format!("file{node}"), "size": disk_bytes});
    port.call("block_resize", arguments).await?;
    passed(Step::DiskLengthened);
    let task = GuestTask::Grow { disk_bytes };
    port.ask(volume, task, GROW_TIMEOUT).await.map_err(VolumeError::NotNow)?;
    passed(Step::FileSystemGrown);
    Ok(())
}

/// Has the guest write out a volume and hold it still, if it can; the volume's name then.
async fn freeze(volumes: &Volumes, order: &VolumeOrder, port: &VolumePort) -> Option<String> {
    let node = port.node_of(&volumes.of(order.source).ok()?.publish(order.source).file).await.ok()?;
    let volume = port.disks.get(node).cloned().flatten()?;
    let for_ms = u64::try_from(FROZEN_MAX.as_millis()).expect("some seconds");
    match port.ask(&volume, GuestTask::Freeze { for_ms }, FREEZE_TIMEOUT).await {
        Ok(()) => Some(volume),
        Err(error) => {
            tracing::warn!(id = %order.id, volume, error, "copied as a power failure would leave it");
            // It may stand still later than it should have.
            let _ = port.ask(&volume, GuestTask::Thaw, FREEZE_TIMEOUT).await;
            None
        }
    }
}

async fn copy(volumes: &Volumes, order: &VolumeOrder, port: &VolumePort) -> Result<(), VolumeError> {
    let driver = volumes.of(order.source)?;
    let is_slow = !driver.capabilities().copies_at_once;
    let bytes = if is_slow { driver.written_bytes(order.source)? } else { 0 };
    if bytes > COPIED_PAUSED_BYTES_MAX {
        return Err(VolumeError::NotNow(format!(
            "the volume has {} MiB, and its guest would stand still while they are copied, because the file system below the \
             agent's data directory shares no blocks (XFS and Btrfs do): stop the pod, and it is done",
            bytes >> 20
        )));
    }
    let _still = port.still.for_copy.lock().await;
    let frozen = freeze(volumes, order, port).await;
    passed(Step::VolumeHeld);
    let stopped = port.call("stop", json!({})).await;
    passed(Step::GuestPaused);
    let copied = match stopped {
        Ok(_) => {
            let (volumes, order) = (volumes.clone(), *order);
            let work = tokio::task::spawn_blocking(move || offline(&volumes, &order));
            work.await.unwrap_or_else(|error| Err(std::io::Error::other(error).into()))
        }
        Err(error) => Err(error),
    };
    // Whatever became of it; QEMU may have stopped although its answer came too late.
    let resumed = port.call("cont", json!({})).await;
    passed(Step::GuestResumed);
    if let Some(volume) = frozen
        && let Err(error) = port.ask(&volume, GuestTask::Thaw, FREEZE_TIMEOUT).await
    {
        // It goes on by itself; the copy may hold what came in between.
        tracing::warn!(id = %order.id, volume, error, "the guest did not hold the volume still until the end of the copy");
    }
    passed(Step::VolumeLetGo);
    resumed?;
    copied
}
