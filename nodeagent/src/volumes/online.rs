//! What is done with a volume while a guest has it.
//!
//! ```text
//!  copy      QMP stop ─► the driver copies ─► QMP cont     QEMU has written out everything when it stands still; the guest
//!                                                          is not asked: the copy is what a power failure would leave
//!  growing   QMP block_resize ─► guest: EXT4_IOC_RESIZE_FS
//! ```
//!
//! An agent that ends meanwhile leaves a guest that stands still: the next one lets it go on (`pod/supervise.rs`).

use std::path::Path;
use std::time::Duration;

use bulkhead_types::{VolumeOrder, VolumeTask};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::{VolumeError, Volumes, offline};
use crate::qmp::QmpError;

/// A guest stands still at most while so much is copied, in bytes, where a copy shares no blocks: a second or a few.
const COPIED_PAUSED_BYTES_MAX: u64 = 1 << 30;
/// How long a guest may take to make a file system larger.
const GROW_TIMEOUT: Duration = Duration::from_secs(30);

/// A command for QEMU, and where its answer goes.
#[derive(Debug)]
pub(crate) struct MachineCall {
    pub(crate) command: &'static str,
    pub(crate) arguments: Value,
    pub(crate) answer: oneshot::Sender<Result<Value, QmpError>>,
}

/// A volume whose file system shall fill its disk, and where the answer goes.
#[derive(Debug)]
pub(crate) struct GrowOrder {
    /// Its name in the pod.
    pub(crate) volume: String,
    /// What the disk has, in bytes.
    pub(crate) disk_bytes: u64,
    pub(crate) answer: oneshot::Sender<Result<(), String>>,
}

/// The way to a guest that has volumes.
#[derive(Clone, Debug)]
pub(crate) struct VolumePort {
    pub(crate) machine: mpsc::Sender<MachineCall>,
    pub(crate) grow: mpsc::Sender<GrowOrder>,
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
    let driver = volumes.driver();
    // It may have more already: from an earlier try, or because it is a copy of what had.
    let disk_bytes = driver.disk_bytes(order.size_bytes).max(driver.length(order.volume)?);
    let node = port.node_of(&driver.publish(order.volume).file).await?;
    let Some(Some(volume)) = port.disks.get(node) else {
        return Err(VolumeError::NotNow("the guest does not have the volume".to_owned()));
    };
    let arguments = json!({"node-name": format!("file{node}"), "size": disk_bytes});
    port.call("block_resize", arguments).await?;
    let (answer, answered) = oneshot::channel();
    let wish = GrowOrder { volume: volume.clone(), disk_bytes, answer };
    let lost = || VolumeError::NotNow("the connection to the guest was lost".to_owned());
    port.grow.send(wish).await.map_err(|_| lost())?;
    match tokio::time::timeout(GROW_TIMEOUT, answered).await {
        Ok(answer) => answer.map_err(|_| lost())?.map_err(VolumeError::NotNow),
        Err(_) => Err(VolumeError::NotNow(format!(
            "the guest did not make its file system larger within {} s",
            GROW_TIMEOUT.as_secs()
        ))),
    }
}

async fn copy(volumes: &Volumes, order: &VolumeOrder, port: &VolumePort) -> Result<(), VolumeError> {
    let driver = volumes.driver();
    let bytes = driver.written_bytes(order.source)?;
    if !driver.capabilities().copies_at_once && bytes > COPIED_PAUSED_BYTES_MAX {
        return Err(VolumeError::NotNow(format!(
            "the volume has {} MiB, and its guest would stand still while they are copied, because the file system below the \
             agent's data directory shares no blocks (XFS and Btrfs do): stop the pod, and it is done",
            bytes >> 20
        )));
    }
    let stopped = port.call("stop", json!({})).await;
    let copied = match stopped {
        Ok(_) => {
            let (driver, order) = (std::sync::Arc::clone(&volumes.0), *order);
            let work = tokio::task::spawn_blocking(move || offline(&*driver, &order));
            work.await.unwrap_or_else(|error| Err(std::io::Error::other(error).into()))
        }
        Err(error) => Err(error),
    };
    // Whatever became of it; QEMU may have stopped although its answer came too late.
    port.call("cont", json!({})).await?;
    copied
}
