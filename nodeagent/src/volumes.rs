//! The volumes of claims, and their snapshots: what outlives pods, guests and this agent.
//!
//! ```text
//!  Volumes ── VolumeDriver ──┬── FileDriver   sparse files below the data directory
//!     │                      └── FakeDriver   in memory, for tests; one suite (conformance) for both
//!     └── online.rs   what is done while a guest has the volume: QEMU is paused for a copy, or grows the disk and the guest
//!                     its file system
//! ```

mod driver;
#[cfg(test)]
mod fake;
mod file;
mod online;

use std::io;
use std::path::Path;
use std::sync::Arc;

use bulkhead_types::{VolumeOrder, VolumeResult, VolumeTask};
use uuid::Uuid;

pub(crate) use driver::{Content, VolumeDriver, VolumeError};
use file::FileDriver;
pub(crate) use online::{GuestOrder, GuestTask, MachineCall, VolumePort};

/// The volumes of this node.
#[derive(Clone, Debug)]
pub(crate) struct Volumes(Arc<dyn VolumeDriver>);

impl Volumes {
    /// Those below a data directory.
    pub(crate) fn new(data: &Path) -> Self {
        Self(Arc::new(FileDriver::new(data)))
    }

    /// What makes and keeps them.
    pub(crate) fn driver(&self) -> &dyn VolumeDriver {
        &*self.0
    }

    /// Removes a volume or snapshot for good; one that is not there is fine.
    pub(crate) fn delete(&self, volume: Uuid) -> io::Result<()> {
        self.0.delete_volume(volume)?;
        self.0.delete_snapshot(volume)
    }

    /// Does what is wanted with a volume, beside the guest that has it if there is one.
    pub(crate) async fn run(&self, order: VolumeOrder, guest: Option<VolumePort>) -> VolumeResult {
        let done = match &guest {
            Some(port) => online::run(self, &order, port).await,
            None => {
                let (driver, order) = (Arc::clone(&self.0), order);
                let work = tokio::task::spawn_blocking(move || offline(&*driver, &order));
                work.await.unwrap_or_else(|error| Err(io::Error::other(error).into()))
            }
        };
        let VolumeOrder { id, task, size_bytes, .. } = order;
        match done {
            // A file system grows in a guest only: what is in the file may be hostile to the host's tools.
            Ok(()) => {
                let done = task != VolumeTask::Expand || guest.is_some();
                tracing::info!(%id, task = task.as_str(), volume = %order.volume, done, "volume task done");
                VolumeResult { id, task, size_bytes, done, message: Default::default() }
            }
            Err(error) => {
                let message = error.to_string();
                tracing::warn!(%id, task = task.as_str(), volume = %order.volume, message, "volume task failed");
                VolumeResult { id, task, size_bytes: 0, done: false, message: message.into() }
            }
        }
    }
}

/// Does it while no guest has the volume, or none that writes.
fn offline(driver: &dyn VolumeDriver, order: &VolumeOrder) -> Result<(), VolumeError> {
    let VolumeOrder { volume, source, size_bytes, .. } = *order;
    match order.task {
        VolumeTask::Expand => driver.expand_volume(volume, size_bytes),
        VolumeTask::Snapshot => driver.create_snapshot(source, volume),
        VolumeTask::Restore => driver.create_volume(volume, size_bytes, Content::Snapshot(source)),
        VolumeTask::Clone => driver.create_volume(volume, size_bytes, Content::Volume(source)),
    }
}

#[cfg(test)]
mod conformance;
