//! The labels that a node has by its devices: one pure merge of what is there, what of it is theirs, and what they mean now,
//! for the reconciler that proposes and for `decide` that does.

use bulkhead_types::{DEVICE_RULES_LEVEL, Device, DeviceLabels, Node, Rare, StringMap};

use super::Classes;
use crate::State;

/// What a node gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SyncedLabels {
    /// All its labels.
    pub(crate) labels: StringMap,
    /// Those of them that it has by its devices.
    pub(crate) record: Rare<DeviceLabels>,
}

/// What a node lacks; `None` when it has what its devices mean. A label that somebody else gave it stays.
pub(crate) fn synced(state: &State, node: &Node) -> Option<SyncedLabels> {
    if state.feature_level() < DEVICE_RULES_LEVEL {
        return None;
    }
    let wanted = wanted(state, node);
    let former = node.status.device_labels.get();
    // Whoever writes a whole node writes what he has read of them, and that may be old: they stay the devices'.
    let is_theirs = |key: &str| former.is_some_and(|record| record.labels.contains_key(key));
    let others = node.meta.labels.iter().filter(|(key, _)| !is_theirs(key));
    let mut labels: StringMap = others.map(|(key, value)| (key.clone(), value.clone())).collect();
    let mut record = DeviceLabels::default();
    for (key, value) in &wanted {
        if !labels.contains_key(key) {
            labels.insert(key.clone(), value.clone());
            record.labels.insert(key.clone(), value.clone());
        }
    }
    let record = Rare::unless_default(record);
    let is_same = labels == node.meta.labels && record == node.status.device_labels;
    (!is_same).then_some(SyncedLabels { labels, record })
}

/// The labels that a node's devices mean. Of classes with the same keys the first by name counts.
fn wanted(state: &State, node: &Node) -> StringMap {
    let Some(slice) = state.resource_slice_of(node.meta.id) else { return StringMap::new() };
    let classes: &Classes = &state.devices.classes;
    let is_card = |device: &&Device| device.parent.is_none() && !device.is_lost();
    let cards: Vec<&Device> = slice.devices.iter().filter(is_card).collect();
    let mut found = StringMap::new();
    for spec in classes.specs() {
        let Some(rule) = spec.node_labels.get() else { continue };
        let is_own = |card: &&&Device| classes.spec_of(card).is_some_and(|own| std::ptr::eq(own, spec));
        let own: Vec<&Device> = cards.iter().filter(is_own).copied().collect();
        for (key, value) in &rule.of(&own) {
            if !found.contains_key(key) {
                found.insert(key.clone(), value.clone());
            }
        }
    }
    found
}
