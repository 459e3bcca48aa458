//! How other pods divide the nodes for one shape.
//!
//! ```text
//!  a topology key with few domains  ──► the node's domain is a coordinate; whether it may be there is asked per cell, by counters
//!  one with nearly as many domains  ──► what the domain counts is the coordinate (or keeps the node out): it changes with the
//!  as nodes (hostname)                  domain's own pods only
//! ```
//!
//! So a pod that comes or goes moves only the nodes of its own narrow domains, and a placement costs a look at every cell: at
//! most as many as there are domains, or different counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bulkhead_types::{Node, PodSpec, Shared};
use smol_str::SmolStr;

use super::candidates::{Candidates, CellView};
use super::index::{NodeIndex, Slot};
use super::score::{self, SCORE_MAX};
use super::topology::Topology;
use crate::placement::{CounterKey, Mover, Outlook, Spread, Term, Vicinity, is_over};

/// Keys with so few domains are always wide.
const WIDE_ALWAYS: usize = 3;
/// Keys with more domains never are.
const WIDE_MAX: usize = 256;
/// Nodes per domain from which on a key with some more domains is wide.
const WIDE_NODES: usize = 8;
/// What a wish of nothing is as a coordinate.
const WISH_ZERO: i64 = 1 << 20;
/// Movers that are remembered before they are asked for afresh.
const MOVERS_MAX: usize = 1 << 12;
/// How much each of these scores counts beside those of resources (Kubernetes' weights).
const WEIGHT: u32 = 2;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    spec: Shared<PodSpec>,
    outlook: Outlook,
    /// Keys with few domains: the number of a domain is the coordinate.
    wide: BTreeMap<SmolStr, Arc<Topology>>,
    narrow: BTreeMap<SmolStr, Arc<Topology>>,
    /// Everything that is counted for it, in order.
    counters: Vec<CounterKey>,
    /// Whose pods are among that, as far as it was asked.
    movers: BTreeMap<Mover, bool>,
}

/// What is known of a cell before it is compared with others.
#[derive(Clone, Copy, Debug)]
struct Merit {
    by_node: u32,
    wish: i64,
    cost: Option<u64>,
}

/// Where a pod may go best.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    pub(crate) cell: u32,
    /// The scores that the cell has beside those of its nodes.
    pub(crate) score: u32,
    /// How many nodes may take the pod.
    pub(crate) nodes: u32,
}

impl Plan {
    /// `None` when neither other pods nor preferences for nodes matter.
    pub(crate) fn new(spec: &Shared<PodSpec>, outlook: Option<Outlook>) -> Option<Self> {
        let prefers = spec.node_affinity().is_some_and(|affinity| !affinity.preferred.is_empty());
        if outlook.is_none() && !prefers {
            return None;
        }
        let (wide, narrow, movers) = Default::default();
        let outlook = outlook.unwrap_or_default();
        let mut plan = Self { spec: spec.clone(), outlook, wide, narrow, counters: Vec::new(), movers };
        plan.counters = plan.terms().map(|term| term.counter).collect();
        plan.counters.extend(plan.spreads().map(|spread| spread.counter).collect::<Vec<_>>());
        plan.counters.sort_unstable();
        Some(plan)
    }

    pub(crate) fn outlook(&self) -> &Outlook {
        &self.outlook
    }

    /// Whether a pod that is bound to a node may decide where the node stands.
    pub(crate) fn is_moved_by(&mut self, mover: Option<Mover>, vicinity: &Vicinity) -> bool {
        if self.narrow.is_empty() {
            return false;
        }
        let Some(mover) = mover else { return true };
        if self.movers.len() >= MOVERS_MAX {
            self.movers.clear();
        }
        let counters = &self.counters;
        *self.movers.entry(mover).or_insert_with(|| vicinity.counts_any(mover, counters))
    }

    fn terms(&self) -> impl Iterator<Item = &Term> {
        let rules = self.outlook.rules();
        let own = rules.affinity.iter().chain(&rules.anti_affinity).chain(&rules.wishes);
        own.chain(self.outlook.met_by())
    }

    fn spreads(&self) -> impl Iterator<Item = &Spread> {
        let rules = self.outlook.rules();
        rules.spread.iter().chain(&rules.spread_wishes)
    }

    /// Looks at the nodes that there are, to divide them.
    pub(crate) fn survey(&mut self, index: &NodeIndex) {
        let mut keys: BTreeSet<SmolStr> = self.terms().map(|term| term.topology_key.clone()).collect();
        keys.extend(self.spreads().map(|spread| spread.topology_key.clone()));
        (self.wide, self.narrow) = Default::default();
        for key in keys {
            let topology = index.topology(&key);
            let (domains, nodes) = (topology.len(), topology.nodes_len());
            let is_wide = domains <= WIDE_ALWAYS || (domains <= WIDE_MAX && nodes >= WIDE_NODES * domains);
            if is_wide { &mut self.wide } else { &mut self.narrow }.insert(key, topology);
        }
    }

    /// The other nodes that stand elsewhere when what is on this one changes.
    pub(crate) fn peers(&self, slot: Slot) -> Vec<Slot> {
        let domains = self.narrow.values().flat_map(|topology| topology.neighbours(slot));
        domains.copied().filter(|peer| *peer != slot).collect()
    }

    /// Finds where a node stands; `None` when other pods keep this one off whatever happens elsewhere.
    pub(crate) fn stand(
        &self,
        slot: Slot,
        node: &Node,
        vicinity: &Vicinity,
        found: &mut Vec<u32>,
    ) -> Option<()> {
        let rules = self.outlook.rules();
        found.clear();
        found.extend(self.wide.values().map(|topology| topology.domain(slot)));
        found.push(score::node_affinity::sum(&self.spec, node));
        let narrow = |key: &SmolStr| self.narrow.get(key);
        let count =
            |topology: &Topology, counter| topology.name(slot).map(|domain| vicinity.count(counter, domain));
        let has = |key: &SmolStr| self.wide.get(key).is_some_and(|topology| topology.domain(slot) > 0);
        for spread in &rules.spread {
            match narrow(&spread.topology_key) {
                Some(topology) => found.push(count(topology, spread.counter)?),
                None if has(&spread.topology_key) => {}
                None => return None,
            }
        }
        for term in &rules.affinity {
            match narrow(&term.topology_key) {
                Some(topology) => found.push(count(topology, term.counter)?.min(1)),
                None if has(&term.topology_key) => {}
                None => return None,
            }
        }
        let mut wish = 0i64;
        for (term, keeps_off) in self.others() {
            let Some(topology) = narrow(&term.topology_key) else { continue };
            let count = count(topology, term.counter).unwrap_or(0);
            if keeps_off && count > 0 {
                return None;
            }
            wish += term.weight * i64::from(count);
        }
        found.push((wish + WISH_ZERO).clamp(0, 2 * WISH_ZERO) as u32);
        for spread in &rules.spread_wishes {
            let Some(topology) = narrow(&spread.topology_key) else { continue };
            // One more than the count: 0 without the label.
            found.push(count(topology, spread.counter).map_or(0, |count| count.saturating_add(1)));
        }
        Some(())
    }

    /// Terms that keep the pod off, or wish it near or far, and which of both.
    fn others(&self) -> impl Iterator<Item = (&Term, bool)> {
        let rules = self.outlook.rules();
        let own = rules.anti_affinity.iter().map(|term| (term, true));
        let wishes = rules.wishes.iter().map(|term| (term, false));
        own.chain(wishes).chain(self.outlook.met_by().iter().map(|term| (term, term.weight == 0)))
    }

    /// The best cell that other pods let the pod be in. The hash of the pod decides among equals.
    pub(crate) fn choose(&self, candidates: &Candidates, vicinity: &Vicinity, hash: u64) -> Option<Choice> {
        let sight = self.look(vicinity);
        let judged: Vec<(CellView<'_>, Merit)> =
            candidates.cells().filter_map(|cell| Some((cell, sight.merit(cell.coordinates)?))).collect();
        let by_node = judged.iter().map(|(_, merit)| merit.by_node).max()?;
        let wishes = || judged.iter().map(|(_, merit)| merit.wish);
        let (least, most) = (wishes().min()?, wishes().max()?);
        let costs = || judged.iter().filter_map(|(_, merit)| merit.cost);
        let (cheapest, dearest) = (costs().min().unwrap_or(0), costs().max().unwrap_or(0));
        let is_spread = !self.outlook.rules().spread_wishes.is_empty();
        let total = |merit: &Merit| {
            let spread = score::topology_spread::score(merit.cost, cheapest, dearest);
            let node = score::node_affinity::score(merit.by_node, by_node);
            let pod = score::pod_affinity::score(merit.wish, least, most);
            WEIGHT * (node + pod + if is_spread { spread } else { 0 })
        };
        // A node with a taint to avoid never wins by these.
        let key = |cell: &CellView<'_>, merit: &Merit| {
            (cell.top > 2 * SCORE_MAX, score::sum_of(cell.top) + total(merit))
        };
        let best = judged.iter().map(|(cell, merit)| key(cell, merit)).max()?;
        let equal: Vec<_> = judged.iter().filter(|(cell, merit)| key(cell, merit) == best).collect();
        let (cell, merit) = equal[(hash % equal.len() as u64) as usize];
        let nodes = judged.iter().map(|(cell, _)| cell.len).sum();
        Some(Choice { cell: cell.cell, score: total(merit), nodes })
    }

    /// Counts the domains, once for all cells.
    fn look(&self, vicinity: &Vicinity) -> Sight<'_> {
        let rules = self.outlook.rules();
        let side = |counter: CounterKey, key: &SmolStr| {
            let Some(wide) = self.wide.get(key) else { return Side::Narrow };
            let at = self.wide.range::<SmolStr, _>(..key).count();
            let counts = vicinity.counts(counter, wide.names());
            Side::Wide { at, counts }
        };
        let of_spread = |one: &Spread| side(one.counter, &one.topology_key);
        let of_term = |term: &Term| side(term.counter, &term.topology_key);
        let is_wide = |term: &Term| self.wide.contains_key(&term.topology_key);
        Sight {
            wide: self.wide.len(),
            spread: rules.spread.iter().map(|one| (one, of_spread(one), vicinity.fewest(one))).collect(),
            affinity: rules.affinity.iter().map(of_term).collect(),
            may_be_first: vicinity.may_be_first(&self.outlook),
            others: self
                .others()
                .filter(|(term, _)| is_wide(term))
                .map(|(term, keeps_off)| (of_term(term), (!keeps_off).then_some(term.weight)))
                .collect(),
            wishes: rules
                .spread_wishes
                .iter()
                .map(|one| (one, of_spread(one), vicinity.domains_len(one.counter)))
                .collect(),
        }
    }
}

/// Where the count of a node's domain is found.
enum Side {
    /// By its coordinate: the counts of all domains.
    Wide { at: usize, counts: Vec<u32> },
    /// It is the next coordinate.
    Narrow,
}

/// What the domains count at one moment.
struct Sight<'a> {
    /// How many coordinates are domains.
    wide: usize,
    /// With the fewest pods of any domain.
    spread: Vec<(&'a Spread, Side, u32)>,
    affinity: Vec<Side>,
    may_be_first: bool,
    /// What each pod is worth; `None` keeps off.
    others: Vec<(Side, Option<i64>)>,
    /// With the number of domains.
    wishes: Vec<(&'a Spread, Side, usize)>,
}

/// Reads a cell's coordinates.
struct Reader<'c> {
    wide: &'c [u32],
    rest: std::slice::Iter<'c, u32>,
}

impl Reader<'_> {
    fn next(&mut self) -> u32 {
        *self.rest.next().expect("as many coordinates as were made")
    }

    /// The count of the cell's domain; `None` without a domain.
    fn wide(&self, side: &Side) -> Option<u32> {
        match side {
            Side::Wide { at, counts } => Some(counts[self.wide[*at].checked_sub(1)? as usize]),
            Side::Narrow => None,
        }
    }
}

impl Sight<'_> {
    /// How good a cell is; `None` when the pod may not be there.
    fn merit(&self, coordinates: &[u32]) -> Option<Merit> {
        let (wide, rest) = coordinates.split_at(self.wide);
        let mut cell = Reader { wide, rest: rest.iter() };
        let by_node = cell.next();
        for (spread, side, fewest) in &self.spread {
            let count = match side {
                Side::Wide { .. } => cell.wide(side)?,
                Side::Narrow => cell.next(),
            };
            if is_over(spread, count, *fewest) {
                return None;
            }
        }
        let mut all_near = true;
        for side in &self.affinity {
            all_near &= match side {
                Side::Wide { .. } => cell.wide(side)? > 0,
                Side::Narrow => cell.next() > 0,
            };
        }
        if !all_near && !self.may_be_first {
            return None;
        }
        let mut wish = i64::from(cell.next()) - WISH_ZERO;
        for (side, weight) in &self.others {
            let count = cell.wide(side).unwrap_or(0);
            match weight {
                None if count > 0 => return None,
                weight => wish += weight.unwrap_or(0) * i64::from(count),
            }
        }
        let mut cost = Some(0);
        for (spread, side, domains) in &self.wishes {
            let count = match side {
                Side::Wide { .. } => cell.wide(side),
                Side::Narrow => cell.next().checked_sub(1),
            };
            let of_one = count.map(|count| score::topology_spread::cost(count, *domains, spread.max_skew));
            cost = cost.zip(of_one).map(|(sum, one)| sum + one);
        }
        Some(Merit { by_node, wish, cost })
    }
}
