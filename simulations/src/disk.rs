//! One server's disk: the simulated disk of the storage crate behind a device that takes its time.
//!
//! Requests are written together and flushed together, as many as wait when the device becomes free; only then
//! the server hears that they are durable. A crash in between leaves what the simulated disk says.

use std::collections::VecDeque;

use bulkhead_controlplane_core::replica::Persist;
use bulkhead_controlplane_disk::{DiskError, Loaded, bootstrap, load, to_batch};
use bulkhead_storage::{CrashChoice, Fault, FaultPlan, Identity, MemDisk, Operation, StorageError, Stores};
use bulkhead_types::{LogCodec, MemberId};
use serde::{Deserialize, Serialize};

use crate::clock::Micros;
use crate::options::DiskOptions;
use crate::rng::Rng;

/// What becomes of writes that were not flushed when the power fails. Numbers beyond what there is wrap around.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// All are lost.
    All,
    /// So many survive.
    Kept(usize),
    /// So many survive, and the next one in so many of its bytes.
    Torn(usize, usize),
    /// None is lost: the process died, the machine did not.
    Nothing,
}

impl Loss {
    /// Any of them, power failures that lose everything most often.
    #[must_use]
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        const ANY: u64 = 1 << 20;
        match rng.range(0, 4) {
            0 | 1 => Self::All,
            2 => Self::Kept(rng.range(0, ANY) as usize),
            3 => Self::Nothing,
            _ => Self::Torn(rng.range(0, ANY) as usize, rng.range(0, ANY) as usize),
        }
    }
}

/// What is wrong with a durable record. Numbers beyond what there is wrap around.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Damage {
    /// Bits of one byte changed.
    Flip {
        /// Which byte.
        byte: usize,
        /// Which bits.
        mask: u8,
    },
    /// Another record's content was written in its place.
    Misdirected {
        /// Which other record.
        other: usize,
    },
    /// It ends too early.
    Cut {
        /// How many bytes are left.
        bytes: usize,
    },
}

/// A server's disk, over all its lives.
pub(crate) struct ServerDisk {
    disk: MemDisk,
    identity: Identity,
    options: DiskOptions,
    rng: Rng,
    /// Slower than usual by so much, until then.
    slow: Option<(Micros, Micros)>,
    /// Something in it was damaged behind the server's back.
    pub(crate) damaged: bool,
}

/// The requests of one life.
#[derive(Default)]
pub(crate) struct Requests {
    waiting: VecDeque<Persist>,
    /// The highest number that is being flushed.
    flushing: Option<u64>,
}

/// What follows what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// Nothing: there was nothing to write, or the device is busy.
    Nothing,
    /// A flush.
    Flush,
    /// An answer for this request, at once: nothing of it must survive.
    Answer(u64),
}

impl ServerDisk {
    /// An empty disk that belongs to this member.
    #[must_use]
    pub(crate) fn new(identity: Identity, options: DiskOptions, seed: u64) -> Self {
        let rng = Rng::child(seed, "disk", identity.member_id);
        Self { disk: MemDisk::new(), identity, options, rng, slow: None, damaged: false }
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
    pub(crate) fn flush_us(&mut self, now_us: Micros) -> Micros {
        let usual = self.rng.range(self.options.flush_us_min, self.options.flush_us_max);
        let extra_us =
            self.slow.filter(|(_, until_us)| now_us < *until_us).map_or(0, |(extra_us, _)| extra_us);
        if self.rng.chance(self.options.slow_permille) {
            return usual + extra_us + self.rng.range(0, self.options.slow_us_max);
        }
        usual + extra_us
    }

    /// Each flush takes longer until then.
    pub(crate) fn slow_down(&mut self, extra_us: Micros, until_us: Micros) {
        self.slow = Some((extra_us, until_us));
    }

    /// How long the device takes for a snapshot, or a part of one, in microseconds.
    pub(crate) fn snapshot_us(&mut self) -> u64 {
        self.rng.range(self.options.flush_us_min, self.options.flush_us_min + self.options.snapshot_us_max)
    }

    /// Power fails by itself: what was not flushed is lost, kept in part, or torn.
    pub(crate) fn crash(&mut self) -> CrashChoice {
        let loss = Loss::draw(&mut self.rng);
        self.lose(loss)
    }

    /// Power fails, with this loss. Failures to come are forgotten.
    pub(crate) fn lose(&mut self, loss: Loss) -> CrashChoice {
        let unsynced = self.disk.unsynced_batches();
        let choice = match loss {
            Loss::All => CrashChoice::LoseUnsynced,
            Loss::Kept(batches) => CrashChoice::KeepUnsynced { batches: batches % (unsynced + 1) },
            Loss::Nothing => CrashChoice::KeepUnsynced { batches: unsynced },
            Loss::Torn(batches, bytes) => {
                let batches = batches % (unsynced + 1);
                let bytes = bytes % (self.disk.unsynced_bytes(batches) + 1);
                CrashChoice::TearLast { batches, bytes }
            }
        };
        self.disk.crash(choice);
        self.disk.set_faults(FaultPlan::none());
        choice
    }

    /// Everything on it is gone. Ends the process that uses it.
    pub(crate) fn wipe(&mut self) {
        self.disk.wipe();
    }

    /// Damages one durable record; tells which, if there is one.
    pub(crate) fn damage(&mut self, record: usize, damage: Damage) -> Option<String> {
        let records = self.disk.records();
        let (tree, key, length) = records.get(record.checked_rem(records.len())?)?;
        let present = self.disk.read(*tree, key)?;
        let mut value = present.clone();
        match damage {
            Damage::Flip { byte, mask } => value[byte.checked_rem(*length)?] ^= mask.max(1),
            Damage::Misdirected { other } => {
                let (tree, key, _) = &records[other % records.len()];
                value = self.disk.read(*tree, key)?;
            }
            Damage::Cut { bytes } => value.truncate(bytes.checked_rem(*length)?),
        }
        if value == present {
            return None;
        }
        self.damaged = true;
        self.disk.overwrite(*tree, key, Some(&value));
        Some(format!("{tree:?} {key:02x?}"))
    }

    /// An operation of one kind fails, after some that pass.
    pub(crate) fn fail_one(&mut self, operation: Operation, skip: u64) {
        self.disk.set_faults(FaultPlan::none().with(operation, skip, 1, Fault::Io));
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

    /// Writes everything that waits, if the device is free. As on a real disk only what must survive is flushed.
    ///
    /// # Errors
    /// What the disk says. When it is full, what it did not take waits on.
    pub(crate) fn write(&mut self, stores: &mut Stores) -> Result<Written, StorageError> {
        if self.flushing.is_some() || self.waiting.is_empty() {
            return Ok(Written::Nothing);
        }
        let (mut written, mut must_sync) = (None, false);
        while let Some(persist) = self.waiting.front() {
            match stores.log.write(&to_batch(persist)) {
                Ok(()) => {
                    written = written.max(Some(persist.number));
                    must_sync |= persist.must_sync;
                }
                Err(error) if error.is_full() && written.is_some() => break,
                Err(error) => return Err(error),
            }
            self.waiting.pop_front();
        }
        match written {
            Some(number) if !must_sync => Ok(Written::Answer(number)),
            _ => {
                self.flushing = written;
                Ok(Written::Flush)
            }
        }
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
