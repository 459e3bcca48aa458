//! Pods of one namespace with the same labels.

use std::sync::Arc;

use bulkhead_types::{ObjectId, StringMap};
use imbl::OrdMap;
use smol_str::SmolStr;

use super::CounterKey;
use crate::placement::Term;

/// Pods on one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// Those that are not asked to end.
    pub(super) staying: u32,
    pub(super) ending: u32,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Class {
    pub(super) namespace: SmolStr,
    pub(super) labels: StringMap,
    /// Pods, waiting ones included.
    pub(super) pods: u32,
    pub(super) on: OrdMap<ObjectId, Count>,
    /// Counters that count such pods, in order.
    pub(super) counted_by: Vec<CounterKey>,
    /// Pods that say something about such pods, in order of their counters.
    pub(super) met_by: Arc<Vec<Term>>,
}

impl Class {
    pub(super) fn add(&mut self, node: ObjectId, is_ending: bool, is_more: bool) {
        let change = |count: &mut Count| {
            let figure = if is_ending { &mut count.ending } else { &mut count.staying };
            *figure = if is_more { *figure + 1 } else { *figure - 1 };
            *count
        };
        let present = match self.on.get_mut(&node) {
            Some(count) => change(count),
            None => {
                let mut count = Count::default();
                let present = change(&mut count);
                self.on.insert(node, present);
                present
            }
        };
        if present == Count::default() {
            self.on.remove(&node);
        }
    }

    pub(super) fn is_counted_by(&mut self, counter: CounterKey) {
        if let Err(at) = self.counted_by.binary_search(&counter) {
            self.counted_by.insert(at, counter);
        }
    }

    pub(super) fn is_met_by(&mut self, term: Term) {
        if let Err(at) = self.met_by.binary_search_by_key(&term.counter, |one| one.counter) {
            Arc::make_mut(&mut self.met_by).insert(at, term);
        }
    }

    pub(super) fn knows(&self, counter: CounterKey) -> bool {
        self.counted_by.binary_search(&counter).is_ok()
            || self.met_by.binary_search_by_key(&counter, |one| one.counter).is_ok()
    }

    pub(super) fn forget(&mut self, counter: CounterKey) {
        self.counted_by.retain(|one| *one != counter);
        if self.met_by.iter().any(|one| one.counter == counter) {
            Arc::make_mut(&mut self.met_by).retain(|one| one.counter != counter);
        }
    }
}
