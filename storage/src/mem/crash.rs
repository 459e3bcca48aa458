//! What a crash leaves of a simulated disk.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    engine::Batch,
    keys::{self, Tree},
};

/// All records of a disk. Values are shared between images.
pub(super) type Image = BTreeMap<(Tree, Vec<u8>), Arc<[u8]>>;

/// A batch as the disk keeps it: its values are those of the images.
#[derive(Debug, Clone)]
pub(super) struct Written {
    puts: Vec<(Vec<u8>, Arc<[u8]>)>,
    deletes: Vec<Vec<u8>>,
}

impl From<Batch> for Written {
    fn from(batch: Batch) -> Self {
        let puts = batch.puts.into_iter().map(|(key, value)| (key, value.into())).collect();
        Self { puts, deletes: batch.deletes }
    }
}

impl Written {
    /// Sum of its values' bytes: how far it can be torn.
    pub(super) fn value_bytes(&self) -> usize {
        self.puts.iter().map(|(_, value)| value.len()).sum()
    }

    /// Adds it to an image.
    ///
    /// # Panics
    /// When a key is present already.
    pub(super) fn add_to(&self, image: &mut Image, tree: Tree) {
        for (key, value) in &self.puts {
            let former = image.insert((tree, key.clone()), value.clone());
            assert!(former.is_none(), "no store puts a key that is present: a torn put would damage it");
        }
        for key in &self.deletes {
            image.remove(&(tree, key.clone()));
        }
    }
}

/// What survives a crash. Numbers out of range are brought into range, so that any drawn numbers are a valid choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashChoice {
    /// Power failure: nothing unsynced survives, and the acknowledged positions fall back to the last sync as well.
    LoseUnsynced,
    /// The first batches written since the last sync survive, at most as many as there are.
    KeepUnsynced {
        /// How many.
        batches: usize,
    },
    /// As above, and the next batch is torn after this many bytes of its values (at least one byte is missing).
    TearLast {
        /// How many batches survive whole.
        batches: usize,
        /// How many bytes of the next one.
        bytes: usize,
    },
    /// Any of the batches written since the last sync survive, later ones without earlier ones as well: a disk that
    /// reorders writes under an engine that does not notice. sled does notice, so this is more than the stores
    /// promise to stand: what they cannot repair they must at least refuse by name.
    KeepSome {
        /// Bit n is set when batch n survives; those from 64 on are lost.
        batches: u64,
        /// Whether the acknowledged positions since the last sync survive.
        positions: bool,
    },
    /// Nothing unsynced survives, and one byte of what was durable has changed.
    CorruptByte {
        /// Which record, counted over the whole disk, modulo their number.
        record: usize,
        /// Which byte of its value, modulo its length.
        byte: usize,
        /// Bits to flip; 0 counts as 1.
        mask: u8,
    },
}

impl CrashChoice {
    /// Whether the acknowledged positions fall back to the last sync.
    pub(super) fn loses_positions(self) -> bool {
        matches!(self, Self::LoseUnsynced | Self::KeepSome { positions: false, .. })
    }
}

/// What a crash did, for traces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CrashReport {
    /// Unsynced batches that are gone, the torn one included.
    pub lost_batches: usize,
    /// The record that was torn.
    pub torn: Option<String>,
    /// The record that was corrupted.
    pub corrupted: Option<String>,
}

/// Applies a whole batch to an image.
fn apply(image: &mut Image, tree: Tree, batch: &Written) {
    for (key, value) in &batch.puts {
        image.insert((tree, key.clone()), value.clone());
    }
    for key in &batch.deletes {
        image.remove(&(tree, key.clone()));
    }
}

/// Applies a batch that is needed no more.
pub(super) fn settle(image: &mut Image, tree: Tree, batch: Written) {
    image.extend(batch.puts.into_iter().map(|(key, value)| ((tree, key), value)));
    for key in batch.deletes {
        image.remove(&(tree, key));
    }
}

/// Makes the image that a crash leaves of the synced one and the batches since.
pub(super) fn crash(
    synced: &Image,
    pending: &[(Tree, Written)],
    choice: CrashChoice,
) -> (Image, CrashReport) {
    let mut image = synced.clone();
    let mut report = CrashReport::default();
    if let CrashChoice::KeepSome { batches, .. } = choice {
        let survives = |nth: usize| nth < 64 && batches >> nth & 1 == 1;
        let survivors = pending.iter().enumerate().filter(|(nth, _)| survives(*nth)).map(|(_, batch)| batch);
        let mut kept = 0;
        for (tree, batch) in survivors {
            apply(&mut image, *tree, batch);
            kept += 1;
        }
        report.lost_batches = pending.len() - kept;
        return (image, report);
    }
    let kept = match choice {
        CrashChoice::LoseUnsynced | CrashChoice::KeepSome { .. } | CrashChoice::CorruptByte { .. } => 0,
        CrashChoice::KeepUnsynced { batches } | CrashChoice::TearLast { batches, .. } => {
            batches.min(pending.len())
        }
    };
    for (tree, batch) in &pending[..kept] {
        apply(&mut image, *tree, batch);
    }
    report.lost_batches = pending.len() - kept;
    match choice {
        CrashChoice::TearLast { bytes, .. } => {
            if let Some((tree, batch)) = pending.get(kept) {
                report.torn = tear(&mut image, *tree, batch, bytes);
            }
        }
        CrashChoice::CorruptByte { record, byte, mask } => {
            report.corrupted = corrupt(&mut image, record, byte, mask);
        }
        CrashChoice::LoseUnsynced | CrashChoice::KeepUnsynced { .. } | CrashChoice::KeepSome { .. } => {}
    }
    (image, report)
}

fn tear(image: &mut Image, tree: Tree, batch: &Written, bytes: usize) -> Option<String> {
    let mut left = bytes.min(batch.value_bytes().checked_sub(1)?);
    for (key, value) in &batch.puts {
        let whole = left >= value.len();
        let end = left.min(value.len());
        image.insert((tree, key.clone()), value[..end].into());
        if !whole {
            return Some(keys::describe(tree, key));
        }
        left -= end;
    }
    None
}

fn corrupt(image: &mut Image, record: usize, byte: usize, mask: u8) -> Option<String> {
    let at = record.checked_rem(image.len())?;
    let ((tree, key), value) = image.iter_mut().nth(at)?;
    let mut bytes = value.to_vec();
    let at = byte.checked_rem(bytes.len())?;
    bytes[at] ^= mask.max(1);
    *value = bytes.into();
    Some(format!("{} {}", tree.name(), keys::describe(*tree, key)))
}
