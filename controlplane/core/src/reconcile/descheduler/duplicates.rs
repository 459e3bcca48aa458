//! More than one pod of an owner on a node, while there are nodes with fewer.
//!
//! Source: RemoveDuplicates of the descheduler: a node keeps its even share of an owner's pods, rounded up, over the nodes
//! that they could be on.

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_types::{Node, ObjectId, Pod};

use super::Run;
use crate::placement::check_node;

pub(super) fn run(run: &mut Run<'_, '_>) {
    let mut owners: BTreeMap<ObjectId, BTreeMap<ObjectId, Vec<&Arc<Pod>>>> = BTreeMap::new();
    for node in run.nodes() {
        for pod in run.plan.pods_on(node.meta.id) {
            if let Some(owner) = pod.meta.owner.filter(|_| run.plan.is_evictable(pod)) {
                owners.entry(owner.id).or_default().entry(node.meta.id).or_default().push(pod);
            }
        }
    }
    for on_nodes in owners.into_values() {
        let pods: usize = on_nodes.values().map(Vec::len).sum();
        // With one on each node there is no duplicate.
        let Some(first) = on_nodes.values().flatten().next().filter(|_| pods > on_nodes.len()) else {
            continue;
        };
        let nodes: Vec<&Arc<Node>> =
            run.nodes().filter(|node| check_node(&first.spec, node).is_ok()).collect();
        let share = pods.div_ceil(nodes.len().max(1));
        let mut left: BTreeMap<ObjectId, usize> =
            on_nodes.iter().map(|(node, pods)| (*node, pods.len())).collect();
        for (from, pods) in &on_nodes {
            let Some(node) = run.plan.state.nodes().get(*from) else { continue };
            for pod in pods.iter().take(pods.len().saturating_sub(share)) {
                // Not to a node that has its share already: it would be a duplicate there.
                let has_room = |node: &Node| left.get(&node.meta.id).copied().unwrap_or(0) < share;
                let reason = format!(
                    "{} of its owner's pods are on {}: {share} would be even",
                    pods.len(),
                    node.meta.name
                );
                let rooms: Vec<ObjectId> =
                    nodes.iter().filter(|node| has_room(node)).map(|node| node.meta.id).collect();
                if run.evict_to(node, pod, reason, |_, to| rooms.contains(&to.meta.id)) {
                    *left.entry(*from).or_default() -= 1;
                    run.plan.last_target().into_iter().for_each(|to| *left.entry(to).or_default() += 1);
                }
            }
        }
    }
}
