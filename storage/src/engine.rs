//! What the stores need of an ordered key-value engine. Two engines exist: sled and the simulated disk.

use crate::{
    Operation, StorageError,
    acknowledged::{Acknowledged, Position},
    keys::Tree,
};

/// One key and its value.
pub(crate) type Pair = (Vec<u8>, Vec<u8>);
/// Half-open range of keys: start, and end when bounded.
pub(crate) type KeyRange = (Vec<u8>, Option<Vec<u8>>);

/// Changes to one tree.
///
/// No store ever puts a key that is present: a torn put can then never damage an older record.
#[derive(Debug, Clone, Default)]
pub(crate) struct Batch {
    pub(crate) puts: Vec<Pair>,
    pub(crate) deletes: Vec<Vec<u8>>,
}

/// Puts up to this many bytes that come with deletes may use the last part of the space reserve.
const MAINTENANCE_PUT_BYTES: usize = 64 * 1024;

impl Batch {
    pub(crate) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.puts.push((key, value));
    }

    pub(crate) fn delete(&mut self, key: Vec<u8>) {
        self.deletes.push(key);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.deletes.is_empty()
    }

    pub(crate) fn put_bytes(&self) -> usize {
        self.puts.iter().map(|(key, value)| key.len() + value.len()).sum()
    }

    /// Whether the batch frees more than it takes, so that it should still work on a nearly full disk.
    pub(crate) fn is_maintenance(&self) -> bool {
        !self.deletes.is_empty() && self.put_bytes() <= MAINTENANCE_PUT_BYTES
    }
}

/// An ordered key-value engine with several trees and one write-ahead order over all of them.
///
/// Contract on a crash: of the batches applied since the last `flush` a prefix survives, whole. The batch right after
/// that prefix may be torn: some of its first puts are there, the next put is there in its first bytes, none of its
/// deletes happened. (sled never tears; the simulated disk does.)
pub(crate) trait Engine: Send + Sync {
    /// Applies a batch atomically. An error that is a refusal changed nothing.
    fn apply(&self, operation: Operation, tree: Tree, batch: Batch) -> Result<(), StorageError>;

    /// Reads one value.
    fn get(&self, operation: Operation, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError>;

    /// Reads up to `limit` pairs of a range in order of keys.
    fn scan(
        &self,
        operation: Operation,
        tree: Tree,
        range: &KeyRange,
        limit: usize,
    ) -> Result<Vec<Pair>, StorageError>;

    /// Reads up to `limit` keys of a range in order.
    fn keys(
        &self,
        operation: Operation,
        tree: Tree,
        range: &KeyRange,
        limit: usize,
    ) -> Result<Vec<Vec<u8>>, StorageError>;

    /// The pair with the highest key.
    fn last(&self, operation: Operation, tree: Tree) -> Result<Option<Pair>, StorageError>;

    /// Makes everything applied so far durable.
    fn flush(&self, operation: Operation) -> Result<(), StorageError>;

    /// The acknowledged positions.
    fn acknowledged(&self) -> Result<Acknowledged, StorageError>;

    /// Moves one acknowledged position. It may be lost in a power failure when raised, and is durable on return when
    /// lowered.
    fn acknowledge(&self, operation: Operation, position: Position) -> Result<(), StorageError>;

    /// The file that holds the records, for messages; `None` when there is none.
    fn file(&self) -> Option<&str> {
        None
    }

    /// Whether there is room for writes.
    fn check_space(&self) -> Result<(), StorageError>;
}
