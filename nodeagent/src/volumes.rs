//! The volumes of claims, and their snapshots: what outlives pods, guests and this agent.
//!
//! ```text
//!  Volumes ── VolumeDriver ──┬── FileDriver   sparse files below the data directory
//!     │                      ├── ThinDriver   thin logical volumes of LVM, where the operator names a pool
//!     │                      └── FakeDriver   in memory, for tests; one suite (conformance) for all
//!     └── online.rs   what is done while a guest has the volume: QEMU is paused for a copy, or grows the disk and the guest
//!                     its file system
//! ```
//!
//! A volume is its driver's from its making to its end, and so are its snapshots and copies; only new ones follow the options.

mod driver;
#[cfg(test)]
mod fake;
mod file;
mod lvm;
mod online;

use std::io;
use std::path::Path;
use std::sync::Arc;

use bulkhead_nodeagent_core::text::message;
use bulkhead_types::{VolumeOrder, VolumeResult, VolumeTask};
use uuid::Uuid;

pub(crate) use driver::{Content, VolumeDriver, VolumeError};
use file::FileDriver;
use lvm::ThinDriver;
pub use lvm::{ThinPoolName, thin_pool_precondition};
pub(crate) use online::{GuestOrder, GuestTask, MachineCall, Still, VolumePort};

/// How a warning begins that is about the pool of volumes.
pub(crate) const POOL_WARNING: &str = "volumes are not made, or soon will not be: ";

/// The volumes of this node.
#[derive(Clone, Debug)]
pub(crate) struct Volumes(Arc<Drivers>);

#[derive(Debug)]
struct Drivers {
    /// Whoever keeps a volume already: there is one at most.
    all: Vec<Arc<dyn VolumeDriver>>,
    /// Which of them makes new ones.
    fresh: usize,
    /// What is wrong with where those are made.
    pool: Option<Arc<ThinDriver>>,
}

impl Volumes {
    /// Those below a data directory and, if a pool is named, new ones as thin logical volumes of that.
    pub(crate) fn new(data: &Path, pool: Option<ThinPoolName>) -> Self {
        let fresh = usize::from(pool.is_some());
        Self::with(data, Arc::new(ThinDriver::new(data, pool)), fresh)
    }

    fn with(data: &Path, thin: Arc<ThinDriver>, fresh: usize) -> Self {
        let all: Vec<Arc<dyn VolumeDriver>> = vec![Arc::new(FileDriver::new(data)), thin.clone()];
        Self(Arc::new(Drivers { all, fresh, pool: Some(thin) }))
    }

    /// Of one driver.
    #[cfg(test)]
    fn only(driver: Arc<dyn VolumeDriver>) -> Self {
        Self(Arc::new(Drivers { all: vec![driver], fresh: 0, pool: None }))
    }

    /// The driver of a volume; of one that is not there, that which makes it.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub(crate) fn of(&self, volume: Uuid) -> io::Result<&dyn VolumeDriver> {
        self.find(|driver| driver.keeps_volume(volume))
    }

    /// The driver of a snapshot.
    fn of_snapshot(&self, snapshot: Uuid) -> io::Result<&dyn VolumeDriver> {
        self.find(|driver| driver.keeps_snapshot(snapshot))
    }

    fn find(&self, keeps: impl Fn(&dyn VolumeDriver) -> io::Result<bool>) -> io::Result<&dyn VolumeDriver> {
        Ok(self.keeper(keeps)?.unwrap_or(&*self.0.all[self.0.fresh]))
    }

    fn keeper(
        &self,
        keeps: impl Fn(&dyn VolumeDriver) -> io::Result<bool>,
    ) -> io::Result<Option<&dyn VolumeDriver>> {
        for driver in &self.0.all {
            if keeps(&**driver)? {
                return Ok(Some(&**driver));
            }
        }
        Ok(None)
    }

    /// What an operator does to bring a volume back that was in use and is not there.
    pub(crate) fn way_back(&self, volume: Uuid) -> String {
        let keeper = self.keeper(|driver| driver.keeps_volume(volume)).ok().flatten();
        let all = self.0.all.iter().map(|driver| &**driver);
        let ways = keeper.into_iter().chain(all.filter(|_| keeper.is_none()));
        ways.filter_map(|driver| driver.way_back(volume)).collect::<Vec<_>>().join(", or ")
    }

    /// What an operator should know of where volumes are made. It looks at the machine.
    pub(crate) fn warning(&self) -> Option<String> {
        Some(message(&format!("{POOL_WARNING}{}", self.0.pool.as_ref()?.warning()?)))
    }

    /// Removes a volume or snapshot for good; one that is not there is fine.
    pub(crate) fn delete(&self, volume: Uuid) -> io::Result<()> {
        let keeps =
            |driver: &dyn VolumeDriver| Ok(driver.keeps_volume(volume)? || driver.keeps_snapshot(volume)?);
        let keeper = self.keeper(keeps)?;
        // Where nobody knows of it, something may be left all the same.
        let all = self.0.all.iter().map(|driver| &**driver);
        for driver in keeper.into_iter().chain(all.filter(|_| keeper.is_none())) {
            driver.delete_volume(volume)?;
            driver.delete_snapshot(volume)?;
        }
        Ok(())
    }

    /// Does what is wanted with a volume, beside the guest that has it if there is one.
    pub(crate) async fn run(&self, order: VolumeOrder, guest: Option<VolumePort>) -> VolumeResult {
        let done = match &guest {
            Some(port) => online::run(self, &order, port).await,
            None => {
                let volumes = self.clone();
                let work = tokio::task::spawn_blocking(move || offline(&volumes, &order));
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
fn offline(volumes: &Volumes, order: &VolumeOrder) -> Result<(), VolumeError> {
    let VolumeOrder { volume, source, size_bytes, .. } = *order;
    match order.task {
        VolumeTask::Expand => volumes.of(volume)?.expand_volume(volume, size_bytes),
        VolumeTask::Snapshot => volumes.of(source)?.create_snapshot(source, volume),
        VolumeTask::Restore => {
            volumes.of_snapshot(source)?.create_volume(volume, size_bytes, Content::Snapshot(source))
        }
        VolumeTask::Clone => volumes.of(source)?.create_volume(volume, size_bytes, Content::Volume(source)),
    }
}

#[cfg(any(test, debug_assertions))]
mod conformance;
#[cfg(debug_assertions)]
pub(crate) use conformance::check_thin_pool;
