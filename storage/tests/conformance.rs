//! The conformance suite on every disk there is.

use std::cell::Cell;

use bulkhead_storage::{
    CrashChoice, Fault, FaultPlan, Identity, MemDisk, Operation, StorageError, Stores,
    conformance::{self, Disk},
};

/// A data directory on a real disk, closed in order.
struct Directory(tempfile::TempDir);

impl Disk for Directory {
    fn open(&self, expected: Option<Identity>) -> Result<Stores, StorageError> {
        bulkhead_storage::open(self.0.path().join("data"), expected)
    }
}

/// A simulated disk, closed in order.
struct Simulated(MemDisk);

impl Disk for Simulated {
    fn open(&self, expected: Option<Identity>) -> Result<Stores, StorageError> {
        self.0.open(expected)
    }
}

/// A simulated disk that is slow, and whose process ends in a crash each time, another kind every time.
struct Crashing {
    disk: MemDisk,
    kind: usize,
    crashes: Cell<usize>,
}

impl Disk for Crashing {
    fn open(&self, expected: Option<Identity>) -> Result<Stores, StorageError> {
        let nth = self.crashes.replace(self.crashes.get() + 1);
        self.disk.crash(match self.kind {
            0 => CrashChoice::LoseUnsynced,
            1 => CrashChoice::KeepUnsynced { batches: nth % 5 },
            _ => CrashChoice::TearLast { batches: nth % 4, bytes: nth * 13 % 90 },
        });
        let slow = Fault::Slow { delay_ms: 3 };
        self.disk.set_faults(FaultPlan::none().with(Operation::LogSync, 0, u64::MAX, slow));
        self.disk.open(expected)
    }
}

#[test]
fn sled_keeps_the_laws() {
    conformance::run(|| Directory(tempfile::tempdir().expect("temporary directory")));
}

#[test]
fn the_model_keeps_the_laws() {
    conformance::run(|| Simulated(MemDisk::new()));
}

#[test]
fn the_model_keeps_the_laws_when_every_process_ends_in_a_crash() {
    for kind in 0..3 {
        conformance::run(|| Crashing { disk: MemDisk::new(), kind, crashes: Cell::new(0) });
    }
}
