//! One server's disk: the simulated disk of the storage crate behind a device that takes its time.
//!
//! Requests are written together and flushed together, as many as wait when the device becomes free; only then
//! the server hears that they are durable. A crash in between leaves what the simulated disk says.

use std::collections::VecDeque;

use bulkhead_controlplane_core::replica::Persist;
use bulkhead_controlplane_disk::{DiskError, Loaded, bootstrap, load, to_batch};
use bulkhead_storage::{CrashChoice, Fault, FaultPlan, Identity, MemDisk, Operation, StorageError, Stores};
use bulkhead_types::{LogCodec, MemberId};

use crate::options::DiskOptions;
use crate::rng::Rng;

/// A server's disk, over all its lives.
pub(crate) struct ServerDisk {
    disk: MemDisk,
    identity: Identity,
    options: DiskOptions,
    rng: Rng,
}

/// The requests of one life.
#[derive(Default)]
pub(crate) struct Requests {
    waiting: VecDeque<Persist>,
    /// The highest number that is being flushed.
    flushing: Option<u64>,
}

impl ServerDisk {
    /// An empty disk that belongs to this member.
    #[must_use]
    pub(crate) fn new(identity: Identity, options: DiskOptions, seed: u64) -> Self {
        Self { disk: MemDisk::new(), identity, options, rng: Rng::child(seed, "disk", identity.member_id) }
    }

    /// The id of the data directory.
    #[must_use]
    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// Opens the disk as a server does when it starts.
    ///
    /// # Errors
    /// When the disk cannot be used.
    pub(crate) fn open(
        &self,
        codec: &dyn LogCodec,
        voters: Option<&[MemberId]>,
    ) -> Result<(Stores, Loaded), DiskError> {
        let mut stores = self.disk.open(Some(self.identity))?;
        if let Some(voters) = voters {
            bootstrap(&stores, codec, voters)?;
        }
        let loaded = load(&mut stores, codec)?;
        Ok((stores, loaded))
    }

    /// How long the device takes for a flush, in microseconds.
    pub(crate) fn flush_us(&mut self) -> u64 {
        let usual = self.rng.range(self.options.flush_us_min, self.options.flush_us_max);
        if self.rng.chance(self.options.slow_permille) {
            return usual + self.rng.range(0, self.options.slow_us_max);
        }
        usual
    }

    /// How long the device takes for a snapshot, or a part of one, in microseconds.
    pub(crate) fn snapshot_us(&mut self) -> u64 {
        self.rng.range(self.options.flush_us_min, self.options.flush_us_min + self.options.snapshot_us_max)
    }

    /// Power fails: what was not flushed is lost, kept in part, or torn.
    pub(crate) fn crash(&mut self) -> CrashChoice {
        let unsynced = self.disk.unsynced_batches();
        let choice = match self.rng.range(0, 3) {
            0 | 1 => CrashChoice::LoseUnsynced,
            2 => CrashChoice::KeepUnsynced { batches: self.rng.below(unsynced + 1) },
            _ => {
                let batches = self.rng.below(unsynced + 1);
                let bytes = self.rng.below(self.disk.unsynced_bytes(batches) + 1);
                CrashChoice::TearLast { batches, bytes }
            }
        };
        self.disk.crash(choice);
        self.disk.set_faults(FaultPlan::none());
        choice
    }

    /// The next operation of one kind, or a later one, fails.
    pub(crate) fn fail_one(&mut self, operations: &[Operation], skip_max: u64) -> Operation {
        let operation = *self.rng.pick(operations);
        let skip = self.rng.range(0, skip_max);
        self.disk.set_faults(FaultPlan::none().with(operation, skip, 1, Fault::Io));
        operation
    }

    /// The disk has no room, or has room again. Failures to come are forgotten.
    pub(crate) fn set_full(&mut self, full: bool) {
        self.disk.set_faults(if full { FaultPlan::full() } else { FaultPlan::none() });
    }
}

impl Requests {
    /// Takes a request.
    pub(crate) fn push(&mut self, persist: Persist) {
        self.waiting.push_back(persist);
    }

    /// Writes everything that waits, if the device is free. Tells whether a flush is to follow.
    ///
    /// # Errors
    /// What the disk says. When it is full, what it did not take waits on.
    pub(crate) fn write(&mut self, stores: &mut Stores) -> Result<bool, StorageError> {
        if self.flushing.is_some() || self.waiting.is_empty() {
            return Ok(false);
        }
        let mut written = None;
        while let Some(persist) = self.waiting.front() {
            match stores.log.write(&to_batch(persist)) {
                Ok(()) => written = written.max(Some(persist.number)),
                Err(error) if error.is_full() && written.is_some() => break,
                Err(error) => return Err(error),
            }
            self.waiting.pop_front();
        }
        self.flushing = written;
        Ok(written.is_some())
    }

    /// Flushes what was written: the highest number that is durable now, if one is waited for.
    ///
    /// # Errors
    /// What the disk says: nothing is known to be durable then.
    pub(crate) fn flush(&mut self, stores: &mut Stores) -> Result<Option<u64>, StorageError> {
        stores.log.sync()?;
        Ok(self.flushing.take().filter(|number| *number > 0))
    }
}
