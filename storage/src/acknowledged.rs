//! The acknowledged positions: how far the stores have promised that data is durable.
//!
//! A log engine that finds a damaged tail at start cuts it off, and cannot know whether the tail was still in flight
//! or had been promised long ago. So the promise is kept *outside* of the engine's own log: after each sync the new
//! positions are written to a place of their own, without waiting for that write. They may lag after a power
//! failure, they are never ahead, and whatever is found missing below them is corruption, not a torn write. (A mark
//! inside the log, written with the next batch, would vanish together with the tail that it should protect.)
//!
//! ```text
//! file: slot 0 at byte 0, slot 1 at byte 4096; generation picks the slot; the newest valid slot counts
//! slot: generation u64 | log_seq u64 | event_revision u64 | snapshot_index u64 | crc32c u32
//! ```

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

use crate::{StorageError, codec::Reader};

const SLOT_BYTES: usize = 36;
const CRC_AT: usize = SLOT_BYTES - 4;
const SLOT_DISTANCE: u64 = 4096;

/// How far data was promised to be durable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    /// Sequence number of the newest synced log record; 0 when there is none.
    pub(crate) log_seq: u64,
    /// Last revision of the newest synced event record; 0 when there is none.
    pub(crate) event_revision: u64,
    /// Index of the newest finished snapshot; 0 when there is none.
    pub(crate) snapshot_index: u64,
}

/// A change of one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Position {
    /// The log is durable up to this record.
    LogSeq(u64),
    /// The events are durable up to this revision.
    EventRevision(u64),
    /// A snapshot at this index is durable.
    SnapshotIndex(u64),
}

impl Acknowledged {
    pub(crate) fn with(self, position: Position) -> Self {
        match position {
            Position::LogSeq(log_seq) => Self { log_seq, ..self },
            Position::EventRevision(event_revision) => Self { event_revision, ..self },
            Position::SnapshotIndex(snapshot_index) => Self { snapshot_index, ..self },
        }
    }

    /// Whether `next` promises less in any way.
    pub(crate) fn is_lowered_by(self, next: Self) -> bool {
        next.log_seq < self.log_seq
            || next.event_revision < self.event_revision
            || next.snapshot_index < self.snapshot_index
    }
}

/// The file that keeps them beside a sled database.
#[derive(Debug)]
pub(crate) struct AcknowledgedFile {
    file: File,
    generation: u64,
    positions: Acknowledged,
}

impl AcknowledgedFile {
    /// Makes the file, durably, with nothing promised.
    pub(crate) fn create(path: &Path) -> Result<Self, io::Error> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        let mut created = Self { file, generation: 0, positions: Acknowledged::default() };
        // Both slots, so that a later damaged one is always noticed.
        created.write(Acknowledged::default())?;
        created.write(Acknowledged::default())?;
        created.file.sync_all()?;
        Ok(created)
    }

    /// Opens the file and reads the newest valid slot.
    pub(crate) fn open(path: &Path) -> Result<Self, StorageError> {
        let failed = |error: io::Error| StorageError::from_io("open", &error);
        let corrupt = |reason: &str| StorageError::Corrupt {
            tree: "meta",
            record: path.display().to_string(),
            reason: reason.to_owned(),
        };
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(corrupt("the file is missing"));
            }
            other => other.map_err(failed)?,
        };
        let mut newest: Option<(u64, Acknowledged)> = None;
        for slot in 0..2 {
            let mut bytes = [0; SLOT_BYTES];
            match file.read_exact_at(&mut bytes, slot * SLOT_DISTANCE) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
                other => other.map_err(failed)?,
            }
            newest = newest.max_by_generation(decode(&bytes));
        }
        let (generation, positions) = newest.ok_or_else(|| corrupt("neither of its slots is valid"))?;
        // What is promised from here on builds on what was read.
        file.sync_all().map_err(failed)?;
        Ok(Self { file, generation, positions })
    }

    pub(crate) fn positions(&self) -> Acknowledged {
        self.positions
    }

    /// Writes new positions; waits for the disk only when one of them goes back.
    pub(crate) fn advance(&mut self, positions: Acknowledged) -> Result<(), io::Error> {
        let old = self.positions;
        if positions == old {
            return Ok(());
        }
        self.write(positions)?;
        if old.is_lowered_by(positions) {
            self.file.sync_data()?;
        }
        Ok(())
    }

    fn write(&mut self, positions: Acknowledged) -> Result<(), io::Error> {
        let generation = self.generation + 1;
        self.file.write_all_at(&encode(generation, positions), generation % 2 * SLOT_DISTANCE)?;
        self.generation = generation;
        self.positions = positions;
        Ok(())
    }
}

trait Newest {
    fn max_by_generation(self, other: Self) -> Self;
}

impl Newest for Option<(u64, Acknowledged)> {
    fn max_by_generation(self, other: Self) -> Self {
        match (self, other) {
            (Some(a), Some(b)) => Some(if a.0 >= b.0 { a } else { b }),
            (a, b) => a.or(b),
        }
    }
}

fn encode(generation: u64, positions: Acknowledged) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    slot[..8].copy_from_slice(&generation.to_le_bytes());
    slot[8..16].copy_from_slice(&positions.log_seq.to_le_bytes());
    slot[16..24].copy_from_slice(&positions.event_revision.to_le_bytes());
    slot[24..32].copy_from_slice(&positions.snapshot_index.to_le_bytes());
    let crc = crc32c::crc32c(&slot[..CRC_AT]);
    slot[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    slot
}

fn decode(slot: &[u8; SLOT_BYTES]) -> Option<(u64, Acknowledged)> {
    let mut reader = Reader(slot);
    let generation = reader.u64()?;
    let (log_seq, event_revision, snapshot_index) = (reader.u64()?, reader.u64()?, reader.u64()?);
    let positions = Acknowledged { log_seq, event_revision, snapshot_index };
    (crc32c::crc32c(&slot[..CRC_AT]) == reader.u32()?).then_some((generation, positions))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_slot_falls_back_to_the_one_before_and_two_are_refused() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("acknowledged");
        let mut file = AcknowledgedFile::create(&path).expect("create");
        for log_seq in 1..=7 {
            file.advance(Acknowledged { log_seq, event_revision: 2 * log_seq, snapshot_index: log_seq / 2 })
                .expect("advance");
        }
        let newest_slot = file.generation % 2 * SLOT_DISTANCE;
        drop(file);
        let reopened = AcknowledgedFile::open(&path).expect("open");
        assert_eq!(reopened.positions(), Acknowledged { log_seq: 7, event_revision: 14, snapshot_index: 3 });
        let raw = OpenOptions::new().write(true).open(&path).expect("open raw");
        raw.write_all_at(b"torn", newest_slot + 6).expect("damage");
        assert_eq!(AcknowledgedFile::open(&path).expect("open").positions().log_seq, 6);
        raw.write_all_at(b"torn", SLOT_DISTANCE - newest_slot + 6).expect("damage");
        assert!(AcknowledgedFile::open(&path).expect_err("both slots damaged").is_fatal());
        std::fs::remove_file(&path).expect("remove");
        assert!(AcknowledgedFile::open(&path).expect_err("missing").is_fatal());
    }
}
