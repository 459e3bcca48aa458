//! What a node has from its pool: the one answer that the reconciler and `decide` give.
//!
//! ```text
//!            what the node has     what of that is from its pool     what the pool gives now
//!  labels ┐        present               owned (NodePoolRecord)              wanted
//!  taints ┼──► an entry that is owned and unchanged follows the pool; one that the pool wants and the node lacks is added;
//!  mode   ┘    everything else is the node's own and stays, whatever the pool wants
//! ```
//!
//! Source: "Edit a node pool" of ACK: labels and taints that a user sets on one node are not affected by the pool's.

use std::sync::Arc;

use bulkhead_types::{
    Kind, NODE_POOL_DEFAULT, Name, Node, NodeGpu, NodePool, NodePoolRecord, NodePoolSpec, NodeSpec,
    POOLS_LEVEL, Rare, Rejection, StringMap, Taint, TaintEffect,
};
use smol_str::SmolStr;

use crate::State;
use crate::decide::check_gpu_mode;

/// A node made alike to its pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Synced {
    pub(crate) labels: StringMap,
    pub(crate) spec: NodeSpec,
    pub(crate) record: Rare<NodePoolRecord>,
}

/// The pool of a name, if there is one.
pub(crate) fn find<'a>(state: &'a State, name: &str) -> Option<&'a Arc<NodePool>> {
    let id = state.find(Kind::NodePool, None, &Name::new(name).ok()?)?;
    state.node_pools.get(id)
}

/// The nodes that name a pool, or that name none if it is the default one, oldest first.
pub(crate) fn members<'a>(state: &'a State, pool: &'a str) -> impl Iterator<Item = &'a Arc<Node>> {
    state.nodes.iter().filter(move |node| node.pool() == pool)
}

/// What a node would be if it had from its pool what that gives now; `None` when it is so already, or when the pool leaves
/// its present nodes as they are.
pub(crate) fn synced(state: &State, node: &Node) -> Option<Synced> {
    if state.feature_level() < POOLS_LEVEL {
        return None;
    }
    let pool = find(state, node.pool());
    let record = node.status.pool.get();
    let known = record.map_or(NODE_POOL_DEFAULT, |record| record.pool.as_str());
    if pool.is_some_and(|pool| pool.meta.name.as_str() == known && !pool.spec.sync_existing) {
        return None;
    }
    let synced = made_alike(state, node, pool.map(|pool| &**pool));
    let is_so =
        synced.labels == node.meta.labels && synced.spec == node.spec && synced.record == node.status.pool;
    (!is_so).then_some(synced)
}

/// A node that joins for the first time gets everything from its pool at once: nothing is placed on it before.
pub(crate) fn join(state: &State, node: &mut Node) {
    if state.feature_level() < POOLS_LEVEL {
        return;
    }
    let Some(pool) = find(state, node.pool()) else { return };
    let Synced { labels, spec, record } = made_alike(state, node, Some(pool));
    node.meta.labels = labels;
    node.spec = NodeSpec { unschedulable: pool.spec.unschedulable_on_join, ..spec };
    node.status.pool = record;
}

/// Why a node cannot have its pool's mode of cards now; `None` when it has it, need not, or can.
pub(crate) fn refused_mode(state: &State, node: &Node, pool: &NodePool) -> Option<Rejection> {
    let wanted = pool.spec.gpu.get()?;
    let owned = node.status.pool.get().and_then(|record| record.gpu.get());
    match node.spec.gpu.get() {
        Some(present) if present == wanted || owned != Some(present) => None,
        _ => check_gpu_mode(state, node, Some(wanted)).err(),
    }
}

fn made_alike(state: &State, node: &Node, pool: Option<&NodePool>) -> Synced {
    static NOTHING: std::sync::OnceLock<NodePoolSpec> = std::sync::OnceLock::new();
    let wanted = pool.map_or_else(|| NOTHING.get_or_init(NodePoolSpec::default), |pool| &pool.spec);
    let record = node.status.pool.get();
    let facts = &node.status.facts.labels;
    let labels = merge(
        &entries(&node.meta.labels),
        &record.map(|record| entries(&record.labels)).unwrap_or_default(),
        &entries(&wanted.labels),
        |key| facts.get(key).cloned(),
    );
    let taints = merge(
        &keyed(&node.spec.taints),
        &record.map(|record| keyed(&record.taints)).unwrap_or_default(),
        &keyed(&wanted.taints),
        |_| None,
    );
    let (gpu, gpu_owned) = mode(state, node, wanted.gpu.get());
    let record = pool.map(|pool| NodePoolRecord {
        pool: pool.meta.name.clone(),
        labels: labels.owned.into_iter().collect(),
        taints: taints.owned.into_iter().map(taint).collect(),
        gpu: Rare::from(gpu_owned),
    });
    // Whoever has nothing from the default pool is as it was before there were pools.
    let says_nothing = |record: &NodePoolRecord| {
        record.pool.as_str() == NODE_POOL_DEFAULT
            && record.labels.is_empty()
            && record.taints.is_empty()
            && record.gpu.get().is_none()
    };
    Synced {
        labels: labels.present.into_iter().collect(),
        spec: NodeSpec {
            unschedulable: node.spec.unschedulable,
            taints: taints.present.into_iter().map(taint).collect(),
            gpu: Rare::from(gpu),
        },
        record: Rare::from(record.filter(|record| !says_nothing(record))),
    }
}

/// The mode that a node's cards shall be in, and what of it is its pool's. A mode that they cannot have now is not taken.
fn mode(state: &State, node: &Node, wanted: Option<&NodeGpu>) -> (Option<NodeGpu>, Option<NodeGpu>) {
    let present = node.spec.gpu.get();
    let owned = node.status.pool.get().and_then(|record| record.gpu.get());
    let is_ours = present.is_some() && present == owned;
    if present.is_some() && !is_ours {
        return (present.cloned(), None);
    }
    if wanted != present && check_gpu_mode(state, node, wanted).is_err() {
        return (present.cloned(), owned.filter(|_| is_ours).cloned());
    }
    (wanted.cloned(), wanted.cloned())
}

/// See [`merge`].
struct Merged<K, V> {
    present: Vec<(K, V)>,
    owned: Vec<(K, V)>,
}

/// Three ways: what is there, what of it is the pool's, what the pool wants. `beneath` says what shows when an entry of the
/// pool goes.
fn merge<K: Clone + PartialEq, V: Clone + PartialEq>(
    present: &[(K, V)],
    owned: &[(K, V)],
    wanted: &[(K, V)],
    beneath: impl Fn(&K) -> Option<V>,
) -> Merged<K, V> {
    let mut merged = Merged { present: Vec::with_capacity(present.len()), owned: Vec::new() };
    for entry in present {
        if !owned.contains(entry) {
            merged.present.push(entry.clone());
            continue;
        }
        match wanted.iter().find(|(key, _)| *key == entry.0) {
            Some(wanted) => {
                merged.present.push(wanted.clone());
                merged.owned.push(wanted.clone());
            }
            None => merged.present.extend(beneath(&entry.0).map(|value| (entry.0.clone(), value))),
        }
    }
    for entry in wanted {
        if !present.iter().any(|(key, _)| *key == entry.0) {
            merged.present.push(entry.clone());
            merged.owned.push(entry.clone());
        }
    }
    merged
}

fn entries(map: &StringMap) -> Vec<(SmolStr, SmolStr)> {
    map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

type TaintKey = (SmolStr, TaintEffect);

fn keyed(taints: &[Taint]) -> Vec<(TaintKey, SmolStr)> {
    taints.iter().map(|taint| ((taint.key.clone(), taint.effect), taint.value.clone())).collect()
}

fn taint(((key, effect), value): (TaintKey, SmolStr)) -> Taint {
    Taint { key, value, effect }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries as `key=value`, those of the pool with a star.
    fn check(present: &str, owned: &str, wanted: &str, beneath: &str, expected: &str) {
        let read = |text: &str| -> Vec<(String, String)> {
            let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
            pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
        };
        let beneath = read(beneath);
        let below = |key: &String| beneath.iter().find(|(k, _)| k == key).map(|(_, value)| value.clone());
        let merged = merge(&read(present), &read(owned), &read(wanted), below);
        let shown = merged.present.iter().map(|entry| {
            let star = if merged.owned.contains(entry) { "*" } else { "" };
            format!("{}={}{star}", entry.0, entry.1)
        });
        let shown = shown.collect::<Vec<_>>().join(" ");
        assert_eq!(shown, expected, "{present} | {owned} | {wanted}");
    }

    #[test]
    fn what_is_a_nodes_own_stays() {
        check("", "", "a=1", "", "a=1*");
        check("a=1", "a=1", "a=2", "", "a=2*");
        check("a=1", "a=1", "", "", "");
        // What the agent says shows again.
        check("a=1", "a=1", "", "a=0", "a=0");
        // Changed by an operator, with the pool as it was, changed, and silent.
        check("a=9", "a=1", "a=1", "", "a=9");
        check("a=9", "a=1", "a=2", "", "a=9");
        check("a=9", "a=1", "", "", "a=9");
        // An operator set the same before the pool did.
        check("a=1", "", "a=1", "", "a=1");
        check("a=1", "", "", "", "a=1");
        // Taken away by an operator: the pool gives it again.
        check("b=1", "a=1", "a=1", "", "b=1 a=1*");
        check("c=3 a=1 b=2", "a=1", "a=7 d=4", "", "c=3 a=7* b=2 d=4*");
    }
}
