//! The simulated disk and its handle.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{
    CrashChoice, CrashReport, FaultPlan,
    crash::{self, Image, Written},
    engine::MemEngine,
    fault::Fault,
};
use crate::{
    Identity, Operation, StorageError, Stores,
    acknowledged::{Acknowledged, Position},
    engine::{Batch, Engine, KeyRange},
    keys::{IDENTITY_KEY, Tree},
};

/// Name of a simulated disk in errors.
const DISK_NAME: &str = "simulated disk";

/// A disk in memory. Clones are handles of the same disk; [`fork`](Self::fork) makes another disk.
///
/// It outlives the [`Stores`] opened on it. A crash ends them: they answer [`StorageError::Closed`] from then on.
#[derive(Clone, Default)]
pub struct MemDisk {
    state: Arc<Mutex<DiskState>>,
}

#[derive(Clone, Default)]
pub(super) struct DiskState {
    /// What survives everything.
    synced: Image,
    /// What reads see: the synced image with the pending batches.
    pub(super) written: Image,
    /// Batches since the last flush.
    pending: Vec<(Tree, Written)>,
    acknowledged_synced: Acknowledged,
    pub(super) acknowledged: Acknowledged,
    /// Raised by each crash; a handle of another epoch is dead.
    epoch: u64,
    open: bool,
    faults: FaultPlan,
    delay_ms: u64,
    /// Writes and syncs so far, and how many more the process lives to see; `None` for all.
    steps: u64,
    steps_left: Option<u64>,
}

impl MemDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, DiskState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the stores on it, with the same refusals as a data directory ([`open`](crate::open)).
    ///
    /// # Errors
    /// As [`open`](crate::open).
    pub fn open(&self, expected: Option<Identity>) -> Result<Stores, StorageError> {
        let epoch = {
            let mut state = self.lock();
            state.check_fault(Operation::Open)?;
            if state.open {
                return Err(StorageError::Locked { path: DISK_NAME.to_owned() });
            }
            state.open = true;
            state.epoch
        };
        // From here on a failure closes the disk again by dropping the engine.
        let engine: Arc<dyn Engine> = Arc::new(MemEngine::new(self.clone(), epoch));
        let identity = own(&*engine, expected)?;
        Stores::assemble(identity, &engine)
    }

    /// Ends the process that uses the disk and leaves what the choice says.
    pub fn crash(&self, choice: CrashChoice) -> CrashReport {
        let mut state = self.lock();
        let (image, report) = crash::crash(&state.synced, &state.pending, choice);
        if choice.loses_positions() {
            state.acknowledged = state.acknowledged_synced;
        }
        state.acknowledged_synced = state.acknowledged;
        state.synced = image.clone();
        state.written = image;
        state.pending.clear();
        state.epoch += 1;
        state.open = false;
        state.steps_left = None;
        report
    }

    /// Replaces the disk by an empty one: a lost disk. Ends the process that uses it.
    pub fn wipe(&self) {
        let mut state = self.lock();
        let epoch = state.epoch + 1;
        *state = DiskState { epoch, ..DiskState::default() };
    }

    /// Another disk with the same content and the same faults to come, used by nobody.
    #[must_use]
    pub fn fork(&self) -> Self {
        let mut state = self.lock().clone();
        state.epoch += 1;
        state.open = false;
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Stops the process that uses the disk right before its write or sync number `steps` from now on, counted from
    /// 0: from there its handles answer [`StorageError::Closed`], until a crash. Writes of batches, syncs and
    /// changes of the acknowledged positions count, inside every operation of every store.
    pub fn stop_after(&self, steps: u64) {
        self.lock().steps_left = Some(steps);
    }

    /// Writes and syncs since the disk was made, those of every process that used it. A process that was stopped
    /// does none.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.lock().steps
    }

    /// Replaces the faults to come.
    pub fn set_faults(&self, faults: FaultPlan) {
        self.lock().faults = faults;
    }

    /// Virtual time that slow operations took since the last call, in milliseconds. The caller lets it pass.
    #[must_use]
    pub fn take_delay_ms(&self) -> u64 {
        std::mem::take(&mut self.lock().delay_ms)
    }

    /// Number of batches that a crash could lose now.
    #[must_use]
    pub fn unsynced_batches(&self) -> usize {
        self.lock().pending.len()
    }

    /// Sum of the value bytes in the first unsynced batch after `batches` others: how far it can be torn.
    #[must_use]
    pub fn unsynced_bytes(&self, batches: usize) -> usize {
        let state = self.lock();
        state.pending.get(batches).map_or(0, |(_, batch)| batch.value_bytes())
    }

    /// All durable records: tree, key, length of the value. For choosing what to corrupt.
    #[must_use]
    pub fn records(&self) -> Vec<(Tree, Vec<u8>, usize)> {
        self.lock().synced.iter().map(|((tree, key), value)| (*tree, key.clone(), value.len())).collect()
    }

    /// The content of one durable record.
    #[must_use]
    pub fn read(&self, tree: Tree, key: &[u8]) -> Option<Vec<u8>> {
        self.lock().synced.get(&(tree, key.to_vec())).map(|value| value.to_vec())
    }

    /// Replaces or removes one durable record, past all checks: damage that a crash does not do.
    pub fn overwrite(&self, tree: Tree, key: &[u8], value: Option<&[u8]>) {
        let mut state = self.lock();
        let state = &mut *state;
        for image in [&mut state.synced, &mut state.written] {
            match value {
                Some(value) => image.insert((tree, key.to_vec()), value.into()),
                None => image.remove(&(tree, key.to_vec())),
            };
        }
    }
}

impl DiskState {
    /// Refuses a handle from before a crash.
    pub(super) fn check_epoch(&self, epoch: u64) -> Result<(), StorageError> {
        if self.epoch == epoch { Ok(()) } else { Err(StorageError::Closed) }
    }

    pub(super) fn close(&mut self, epoch: u64) {
        if self.epoch == epoch {
            self.open = false;
        }
    }

    /// Counts a write or a sync, unless the process was stopped before it.
    fn step(&mut self) -> Result<(), StorageError> {
        if let Some(left) = &mut self.steps_left {
            *left = left.checked_sub(1).ok_or(StorageError::Closed)?;
        }
        self.steps += 1;
        Ok(())
    }

    pub(super) fn check_fault(&mut self, operation: Operation) -> Result<(), StorageError> {
        self.check_fault_of(operation, false)
    }

    fn check_fault_of(&mut self, operation: Operation, is_maintenance: bool) -> Result<(), StorageError> {
        let (delay_ms, failure) = self.faults.hit(operation);
        self.delay_ms = self.delay_ms.saturating_add(delay_ms);
        let operation = operation.name();
        match failure {
            Some(Fault::Full) if !is_maintenance => {
                Err(StorageError::Full { operation, detail: "simulated".to_owned() })
            }
            Some(Fault::Io) => Err(StorageError::Io { operation, detail: "simulated".to_owned() }),
            _ => Ok(()),
        }
    }

    pub(super) fn check_space(&self) -> Result<(), StorageError> {
        let operation = Operation::LogWrite;
        if self.faults.is_full(operation) {
            return Err(StorageError::Full { operation: operation.name(), detail: "simulated".to_owned() });
        }
        Ok(())
    }

    pub(super) fn range(&self, tree: Tree, range: &KeyRange) -> impl Iterator<Item = (&[u8], &[u8])> {
        let (start, end) = range;
        let end = end.clone();
        let inside =
            move |key: &(Tree, Vec<u8>)| key.0 == tree && end.as_ref().is_none_or(|end| key.1 < *end);
        let records = self.written.range((tree, start.clone())..).take_while(move |(key, _)| inside(key));
        records.map(|((_, key), value)| (key.as_slice(), &**value))
    }

    pub(super) fn apply(
        &mut self,
        operation: Operation,
        tree: Tree,
        batch: Batch,
    ) -> Result<(), StorageError> {
        self.check_fault_of(operation, batch.is_maintenance())?;
        self.step()?;
        let batch = Written::from(batch);
        batch.add_to(&mut self.written, tree);
        self.pending.push((tree, batch));
        Ok(())
    }

    pub(super) fn flush(&mut self, operation: Operation) -> Result<(), StorageError> {
        self.check_fault(operation)?;
        self.step()?;
        for (tree, batch) in std::mem::take(&mut self.pending) {
            crash::settle(&mut self.synced, tree, batch);
        }
        self.acknowledged_synced = self.acknowledged;
        Ok(())
    }

    pub(super) fn acknowledge(&mut self, position: Position) -> Result<(), StorageError> {
        self.step()?;
        let next = self.acknowledged.with(position);
        if self.acknowledged.is_lowered_by(next) {
            self.acknowledged_synced = next;
        }
        self.acknowledged = next;
        Ok(())
    }
}

/// Checks the owner of the disk, or makes it the owner of an empty one.
fn own(engine: &dyn Engine, expected: Option<Identity>) -> Result<Identity, StorageError> {
    match engine.get(Operation::Open, Tree::Meta, IDENTITY_KEY)? {
        Some(text) => {
            let found = Identity::decode(DISK_NAME, &text)?;
            if let Some(expected) = expected {
                found.check_owner(DISK_NAME, &expected)?;
            }
            Ok(found)
        }
        None => {
            let Some(identity) = expected else {
                return Err(StorageError::NotInitialised { path: DISK_NAME.to_owned() });
            };
            let mut batch = Batch::default();
            batch.put(IDENTITY_KEY.to_vec(), identity.encode().into_bytes());
            engine.apply(Operation::Open, Tree::Meta, batch)?;
            engine.flush(Operation::Open)?;
            Ok(identity)
        }
    }
}
