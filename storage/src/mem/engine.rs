//! The simulated disk as an engine.

use super::MemDisk;
use crate::{
    Operation, StorageError,
    acknowledged::{Acknowledged, Position},
    engine::{Batch, Engine, KeyRange, Pair},
    keys::Tree,
};

/// Longer and higher than every key.
const HIGHEST_KEY: [u8; 16] = [0xff; 16];

/// One process's use of a disk.
pub(super) struct MemEngine {
    disk: MemDisk,
    epoch: u64,
}

impl MemEngine {
    pub(super) fn new(disk: MemDisk, epoch: u64) -> Self {
        Self { disk, epoch }
    }
}

impl Drop for MemEngine {
    fn drop(&mut self) {
        self.disk.lock().close(self.epoch);
    }
}

impl Engine for MemEngine {
    fn apply(&self, operation: Operation, tree: Tree, batch: Batch) -> Result<(), StorageError> {
        let mut state = self.disk.lock();
        state.check_epoch(self.epoch)?;
        state.apply(operation, tree, batch)
    }

    fn get(&self, operation: Operation, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        let mut state = self.disk.lock();
        state.check_epoch(self.epoch)?;
        state.check_fault(operation)?;
        Ok(state.written.get(&(tree, key.to_vec())).map(|value| value.to_vec()))
    }

    fn scan(
        &self,
        operation: Operation,
        tree: Tree,
        range: &KeyRange,
        limit: usize,
    ) -> Result<Vec<Pair>, StorageError> {
        let mut state = self.disk.lock();
        state.check_epoch(self.epoch)?;
        state.check_fault(operation)?;
        Ok(state.range(tree, range).take(limit).map(|(key, value)| (key.to_vec(), value.to_vec())).collect())
    }

    fn keys(
        &self,
        operation: Operation,
        tree: Tree,
        range: &KeyRange,
        limit: usize,
    ) -> Result<Vec<Vec<u8>>, StorageError> {
        let mut state = self.disk.lock();
        state.check_epoch(self.epoch)?;
        state.check_fault(operation)?;
        Ok(state.range(tree, range).take(limit).map(|(key, _)| key.to_vec()).collect())
    }

    fn last(&self, operation: Operation, tree: Tree) -> Result<Option<Pair>, StorageError> {
        let mut state = self.disk.lock();
        state.check_epoch(self.epoch)?;
        state.check_fault(operation)?;
        let range = (tree, Vec::new())..=(tree, HIGHEST_KEY.to_vec());
        let last = state.written.range(range).next_back();
        Ok(last.map(|((_, key), value)| (key.clone(), value.to_vec())))
    }

    fn flush(&self, operation: Operation) -> Result<(), StorageError> {
        let mut state = self.disk.lock();
        state.check_epoch(self.epoch)?;
        state.flush(operation)
    }

    fn acknowledged(&self) -> Result<Acknowledged, StorageError> {
        let state = self.disk.lock();
        state.check_epoch(self.epoch)?;
        Ok(state.acknowledged)
    }

    fn acknowledge(&self, _operation: Operation, position: Position) -> Result<(), StorageError> {
        let mut state = self.disk.lock();
        state.check_epoch(self.epoch)?;
        state.acknowledge(position)
    }

    fn check_space(&self) -> Result<(), StorageError> {
        let state = self.disk.lock();
        state.check_epoch(self.epoch)?;
        state.check_space()
    }
}
