//! How fast pods of lost nodes are replaced: when many nodes fall silent at once, it is more likely the network that failed
//! than they, and what runs on them still runs.
//!
//! Source: "Nodes", Rate limits on eviction, in the Kubernetes documentation; figures are its defaults.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_types::{Node, NodePhase, ObjectId, Revision};
use smol_str::SmolStr;

use crate::State;

/// The labels that say in which zone a node is.
const LABELS_ZONE: [&str; 2] = ["topology.kubernetes.io/region", "topology.kubernetes.io/zone"];
/// So many lost nodes of a zone are never many.
const FEW_NODES: u32 = 2;
/// How often a zone in which nothing is evicted is looked at again, in milliseconds.
const RECHECK_MS: u64 = 5000;

/// How fast nodes are given up, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvictionRates {
    /// Time between two nodes of one zone, in milliseconds (0.1 nodes a second).
    pub interval_ms: u64,
    /// The same in a large zone that is unhealthy (0.01 nodes a second).
    pub interval_unhealthy_ms: u64,
    /// A zone is unhealthy from this share of lost nodes on, in hundredths.
    pub unhealthy_percent: u32,
    /// A zone with more nodes is large: in a smaller one that is unhealthy nothing is evicted.
    pub large_zone_nodes: u32,
}

impl Default for EvictionRates {
    fn default() -> Self {
        Self {
            interval_ms: 10_000,
            interval_unhealthy_ms: 100_000,
            unhealthy_percent: 55,
            large_zone_nodes: 50,
        }
    }
}

type Zone = [SmolStr; 2];

fn zone_of(node: &Node) -> Zone {
    LABELS_ZONE.map(|key| SmolStr::new(node.label(key).unwrap_or_default()))
}

/// Nodes of a zone, and how many of them are lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Health {
    nodes: u32,
    lost: u32,
}

impl Health {
    fn is_lost(self) -> bool {
        self.lost == self.nodes
    }

    /// Time between two nodes that are given up; `None` for none at all.
    fn interval_ms(self, rates: &EvictionRates) -> Option<u64> {
        let is_unhealthy = self.lost > FEW_NODES
            && u64::from(self.lost) * 100 >= u64::from(self.nodes) * u64::from(rates.unhealthy_percent);
        // A zone that is gone as a whole has failed by itself: others take its pods.
        if self.is_lost() || !is_unhealthy {
            return Some(rates.interval_ms);
        }
        (self.nodes > rates.large_zone_nodes).then_some(rates.interval_unhealthy_ms)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct EvictionPace {
    /// By zone, as of a revision.
    health: Option<(Revision, BTreeMap<Zone, Health>)>,
    /// When the last node of a zone was given up.
    last_ms: BTreeMap<Zone, u64>,
    /// Nodes that were given up.
    given_up: BTreeSet<ObjectId>,
}

impl EvictionPace {
    /// The node is heard again, or gone.
    pub(super) fn forget(&mut self, node: ObjectId) {
        self.given_up.remove(&node);
    }

    /// Whether a lost node's pods are replaced now.
    ///
    /// # Errors
    /// When to ask again.
    pub(super) fn give_up(
        &mut self,
        state: &State,
        node: &Node,
        now_ms: u64,
        rates: &EvictionRates,
    ) -> Result<(), u64> {
        if self.given_up.contains(&node.meta.id) {
            return Ok(());
        }
        let zone = zone_of(node);
        let zones = self.zones(state);
        let health = zones.get(&zone).copied().unwrap_or_default();
        // When nobody is heard, it is this side that is cut off.
        let all_lost = zones.values().all(|health| health.is_lost());
        let Some(interval_ms) = health.interval_ms(rates).filter(|_| !all_lost) else {
            return Err(now_ms.saturating_add(RECHECK_MS));
        };
        let next_ms = self.last_ms.get(&zone).map_or(0, |last_ms| last_ms.saturating_add(interval_ms));
        if now_ms < next_ms {
            return Err(next_ms.min(now_ms.saturating_add(RECHECK_MS)));
        }
        self.last_ms.insert(zone, now_ms);
        self.given_up.insert(node.meta.id);
        Ok(())
    }

    fn zones(&mut self, state: &State) -> &BTreeMap<Zone, Health> {
        if self.health.as_ref().is_none_or(|(revision, _)| *revision != state.revision()) {
            let mut zones = BTreeMap::<Zone, Health>::new();
            for node in state.nodes().iter() {
                let health = zones.entry(zone_of(node)).or_default();
                health.nodes += 1;
                health.lost += u32::from(node.status.phase != NodePhase::Ready);
            }
            self.last_ms.retain(|zone, _| zones.contains_key(zone));
            self.health = Some((state.revision(), zones));
        }
        &self.health.as_ref().expect("just counted").1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_kubernetes() {
        let check = |nodes, lost, expected| {
            let health = Health { nodes, lost };
            assert_eq!(health.interval_ms(&EvictionRates::default()), expected, "{lost} of {nodes}");
        };
        check(100, 1, Some(10_000));
        check(100, 54, Some(10_000));
        check(100, 55, Some(100_000));
        check(51, 50, Some(100_000));
        check(50, 28, None);
        check(3, 2, Some(10_000));
        check(4, 3, None);
        check(5, 2, Some(10_000));
        check(4, 4, Some(10_000));
    }
}
