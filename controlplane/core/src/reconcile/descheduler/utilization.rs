//! Nodes above their targets, beside nodes that are below all thresholds.
//!
//! Source: LowNodeUtilization of the descheduler. A node is underutilized when it is below every threshold, overutilized when
//! it is above any target. Pods leave overutilized nodes until none of the targets is exceeded, as long as an underutilized
//! node takes them and stays within its own targets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bulkhead_types::{Node, NodePhase, ObjectId, Pod, UtilizationThresholds};

use super::Run;

/// What is used of a node's processor time, memory and places for pods; and what there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Used {
    cpu_millis: u64,
    memory_bytes: u64,
    pods: u64,
}

impl Used {
    fn plus(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_add(other.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
            pods: self.pods.saturating_add(other.pods),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_sub(other.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
            pods: self.pods.saturating_sub(other.pods),
        }
    }

    fn of_node(node: &Node) -> Self {
        let all = node.status.facts.allocatable;
        Self {
            cpu_millis: all.cpu_millis,
            memory_bytes: all.memory_bytes,
            pods: node.status.facts.pods_max.into(),
        }
    }

    /// The parts that thresholds name, as what is used, what there is, and the threshold in per cent.
    fn parts(self, all: Self, of: &UtilizationThresholds) -> [Option<(u64, u64, u32)>; 3] {
        [
            of.cpu.map(|percent| (self.cpu_millis, all.cpu_millis, percent)),
            of.memory.map(|percent| (self.memory_bytes, all.memory_bytes, percent)),
            of.pods.map(|percent| (self.pods, all.pods, percent)),
        ]
    }

    fn is_below_all(self, all: Self, of: &UtilizationThresholds) -> bool {
        let mut parts = self.parts(all, of).into_iter().flatten();
        parts.all(|(used, all, percent)| u128::from(used) * 100 < u128::from(all) * u128::from(percent))
    }

    /// The first that is above, in per cent.
    fn above(self, all: Self, of: &UtilizationThresholds) -> Option<String> {
        let names = ["cpu", "memory", "pods"];
        let parts = self.parts(all, of).into_iter().zip(names);
        let above = |(part, name): (Option<(u64, u64, u32)>, &str)| {
            let (used, all, percent) = part?;
            let is_above = u128::from(used) * 100 > u128::from(all) * u128::from(percent);
            is_above.then(|| {
                let found = u128::from(used) * 100 / u128::from(all.max(1));
                format!("{name} is at {found} %, above {percent} %")
            })
        };
        parts.into_iter().find_map(above)
    }
}

/// What a pod uses: as measured, or as it requests.
fn of_pod(run: &Run<'_, '_>, pod: &Pod, measured: bool) -> Option<Used> {
    if measured {
        let sample = run.view.soft.usage(pod, run.view.now_ms)?;
        return Some(Used { cpu_millis: sample.cpu_millis, memory_bytes: sample.memory_bytes, pods: 1 });
    }
    let request = pod.spec.scheduling_request();
    Some(Used { cpu_millis: request.cpu_millis, memory_bytes: request.memory_bytes, pods: 1 })
}

pub(super) fn run(
    run: &mut Run<'_, '_>,
    thresholds: &UtilizationThresholds,
    targets: &UtilizationThresholds,
    measured: bool,
    number_of_nodes: u32,
) {
    let is_usable = |node: &&Arc<Node>| node.status.phase == NodePhase::Ready && !node.spec.unschedulable;
    let mut used: BTreeMap<ObjectId, Used> = BTreeMap::new();
    for node in run.nodes().filter(is_usable) {
        let pods = run.plan.pods_on(node.meta.id);
        // A node of which anything is unknown is neither.
        let parts: Option<Vec<Used>> = pods.iter().map(|pod| of_pod(run, pod, measured)).collect();
        if let Some(parts) = parts {
            used.insert(node.meta.id, parts.into_iter().fold(Used::default(), Used::plus));
        }
    }
    let all = |node: &Node| Used::of_node(node);
    let known: Vec<&Arc<Node>> = run.nodes().filter(|node| used.contains_key(&node.meta.id)).collect();
    let low: BTreeSet<ObjectId> = known
        .iter()
        .filter(|node| used[&node.meta.id].is_below_all(all(node), thresholds))
        .map(|node| node.meta.id)
        .collect();
    let mut high: Vec<&Arc<Node>> = known
        .iter()
        .copied()
        .filter(|node| used[&node.meta.id].above(all(node), targets).is_some())
        .collect();
    if low.is_empty() || low.len() <= number_of_nodes as usize || high.is_empty() {
        return;
    }
    // The fullest first, by the share of its processor time and memory.
    high.sort_by_key(|node| {
        let (used, all) = (used[&node.meta.id], all(node));
        let share = |used: u64, all: u64| u128::from(used) * 1_000_000 / u128::from(all.max(1));
        let fullness = share(used.cpu_millis, all.cpu_millis) + share(used.memory_bytes, all.memory_bytes);
        (std::cmp::Reverse(fullness), node.meta.id)
    });
    for node in high {
        for pod in run.plan.pods_on(node.meta.id) {
            if run.plan.is_full() {
                return;
            }
            let Some(reason) = used[&node.meta.id].above(all(node), targets) else { break };
            let Some(part) = of_pod(run, pod, measured) else { continue };
            let takes = |to: &Node| {
                low.contains(&to.meta.id) && used[&to.meta.id].plus(part).above(all(to), targets).is_none()
            };
            let room: BTreeSet<ObjectId> = known.iter().filter(|to| takes(to)).map(|to| to.meta.id).collect();
            if run.evict_to(node, pod, reason, |_, to| room.contains(&to.meta.id)) {
                let left = used[&node.meta.id].minus(part);
                used.insert(node.meta.id, left);
                if let Some(to) = run.plan.last_target() {
                    let more = used[&to].plus(part);
                    used.insert(to, more);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a node with 100 of everything.
    fn check(cpu: u64, memory: u64, pods: u64, is_low: bool, is_high: bool) {
        let of = |percent| UtilizationThresholds { cpu: percent, memory: percent, pods: percent };
        let used = Used { cpu_millis: cpu, memory_bytes: memory, pods };
        let all = Used { cpu_millis: 100, memory_bytes: 100, pods: 100 };
        let found = (used.is_below_all(all, &of(Some(20))), used.above(all, &of(Some(50))).is_some());
        assert_eq!(found, (is_low, is_high), "{used:?}");
    }

    /// The document's: below 20 % of everything is underutilized, above 50 % of anything overutilized.
    #[test]
    fn nodes_are_low_by_everything_and_high_by_anything() {
        check(15, 18, 10, true, false);
        check(60, 10, 10, false, true);
        check(15, 30, 10, false, false);
        check(20, 0, 0, false, false);
        check(50, 50, 50, false, false);
        check(0, 0, 51, false, true);
    }
}
