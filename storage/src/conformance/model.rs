//! The log as its documentation describes it, in the plainest form: what the stores are compared with.

use std::collections::BTreeMap;

use crate::{LoadedLog, LogBatch};

/// State of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogModel {
    /// Newest hard state.
    pub hard_state: Option<Vec<u8>>,
    /// First index.
    pub first_index: u64,
    /// Entries by index.
    pub entries: BTreeMap<u64, Vec<u8>>,
}

impl Default for LogModel {
    fn default() -> Self {
        Self { hard_state: None, first_index: 1, entries: BTreeMap::new() }
    }
}

impl LogModel {
    /// Index of the last entry.
    #[must_use]
    pub fn last_index(&self) -> u64 {
        self.entries.keys().next_back().copied().unwrap_or(self.first_index - 1)
    }

    /// The state after a batch; `None` when the batch is invalid.
    #[must_use]
    pub fn after(&self, batch: &LogBatch) -> Option<Self> {
        let mut next = self.clone();
        if let Some(index) = batch.reset_to {
            next.entries.clear();
            next.first_index = index + 1;
        }
        if let Some(from) = batch.truncate_from {
            if from < next.first_index {
                return None;
            }
            next.entries.retain(|index, _| *index < from);
        }
        for entry in &batch.entries {
            if entry.index != next.last_index() + 1 {
                return None;
            }
            next.entries.insert(entry.index, entry.bytes.clone());
        }
        if let Some(to) = batch.compact_to {
            if to > next.last_index() {
                return None;
            }
            next.first_index = next.first_index.max(to + 1);
            next.entries.retain(|index, _| *index > to);
        }
        if batch.hard_state.is_some() {
            next.hard_state.clone_from(&batch.hard_state);
        }
        Some(next)
    }

    /// Whether a disk gave exactly this state.
    #[must_use]
    pub fn matches(&self, loaded: &LoadedLog) -> bool {
        let indexes = self.first_index..;
        self.hard_state == loaded.hard_state
            && self.first_index == loaded.first_index
            && self.entries.len() == loaded.entries.len()
            && indexes
                .zip(&loaded.entries)
                .all(|(index, entry)| entry.index == index && self.entries.get(&index) == Some(&entry.bytes))
    }
}

/// The states that a crash may leave: the synced one, and each one written since, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogHistory(Vec<LogModel>);

impl Default for LogHistory {
    fn default() -> Self {
        Self(vec![LogModel::default()])
    }
}

impl LogHistory {
    /// The newest written state.
    #[must_use]
    pub fn newest(&self) -> &LogModel {
        self.0.last().expect("never empty")
    }

    /// Notes a write that succeeded.
    pub fn written(&mut self, model: LogModel) {
        self.0.push(model);
    }

    /// Notes a sync that succeeded.
    pub fn synced(&mut self) {
        self.0 = vec![self.newest().clone()];
    }

    /// Notes what a disk gave after a restart.
    ///
    /// # Panics
    /// When it is none of the states it may be.
    pub fn restarted(&mut self, loaded: &LoadedLog) {
        let found = self.0.iter().rfind(|model| model.matches(loaded)).cloned();
        let found = found.unwrap_or_else(|| panic!("loaded {loaded:#?}\nis none of {:#?}", self.0));
        self.0 = vec![found];
    }
}
