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

use bulkhead_types::{Node, PodSpec, Shared};
use smol_str::SmolStr;

use super::candidates::{Candidates, CellView};
use super::index::{NodeEntry, Slot};
use super::score::{self, SCORE_MAX};
use crate::placement::{Outlook, Spread, Term, Vicinity, is_over};

/// Keys with so few domains are always wide.
const WIDE_ALWAYS: usize = 3;
/// Keys with more domains never are.
const WIDE_MAX: usize = 256;
/// Nodes per domain from which on a key with some more domains is wide.
const WIDE_NODES: usize = 8;
/// What a wish of nothing is as a coordinate.
const WISH_ZERO: i64 = 1 << 20;
/// How much each of these scores counts beside those of resources (Kubernetes' weights).
const WEIGHT: u32 = 2;

/// A key with few domains.
#[derive(Clone, Debug, Default)]
struct Wide {
    domains: BTreeMap<SmolStr, u32>,
    /// By coordinate, from 1.
    names: Vec<SmolStr>,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    spec: Shared<PodSpec>,
    outlook: Outlook,
    wide: BTreeMap<SmolStr, Wide>,
    narrow: BTreeSet<SmolStr>,
    /// The nodes of narrow domains with more than one.
    peers: BTreeMap<(SmolStr, SmolStr), Vec<Slot>>,
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
        let (wide, narrow, peers) = Default::default();
        Some(Self { spec: spec.clone(), outlook: outlook.unwrap_or_default(), wide, narrow, peers })
    }

    pub(crate) fn outlook(&self) -> &Outlook {
        &self.outlook
    }

    /// Whether what is on a node decides where the node stands.
    pub(crate) fn is_narrow(&self) -> bool {
        !self.narrow.is_empty()
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
    pub(crate) fn survey<'e>(&mut self, nodes: impl Iterator<Item = (Slot, &'e NodeEntry)> + Clone) {
        let mut keys: BTreeSet<SmolStr> = self.terms().map(|term| term.topology_key.clone()).collect();
        keys.extend(self.spreads().map(|spread| spread.topology_key.clone()));
        (self.wide, self.narrow, self.peers) = Default::default();
        for key in keys {
            let mut domains = BTreeMap::<SmolStr, Vec<Slot>>::new();
            let mut len = 0;
            for (slot, entry) in nodes.clone() {
                if let Some(domain) = entry.node.meta.labels.get(&key) {
                    domains.entry(domain.clone()).or_default().push(slot);
                    len += 1;
                }
            }
            let is_wide = domains.len() <= WIDE_ALWAYS
                || (domains.len() <= WIDE_MAX && len >= WIDE_NODES * domains.len());
            if is_wide {
                let names: Vec<_> = domains.into_keys().collect();
                let domains = names.iter().cloned().zip(1..).collect();
                self.wide.insert(key, Wide { domains, names });
            } else {
                let shared = domains.into_iter().filter(|(_, slots)| slots.len() > 1);
                self.peers.extend(shared.map(|(domain, slots)| ((key.clone(), domain), slots)));
                self.narrow.insert(key);
            }
        }
    }

    /// The other nodes that stand elsewhere when what is on this one changes.
    pub(crate) fn peers(&self, node: &Node) -> Vec<Slot> {
        let domains =
            self.narrow.iter().filter_map(|key| Some((key.clone(), node.meta.labels.get(key)?.clone())));
        domains.filter_map(|domain| self.peers.get(&domain)).flatten().copied().collect()
    }

    /// Where a node stands; `None` when other pods keep this one off whatever happens elsewhere.
    pub(crate) fn coordinates(&self, node: &Node, vicinity: &Vicinity) -> Option<Vec<u32>> {
        let rules = self.outlook.rules();
        let mut found = Vec::with_capacity(self.wide.len() + 4);
        for (key, wide) in &self.wide {
            let domain = node.label(key).and_then(|domain| wide.domains.get(domain));
            found.push(domain.copied().unwrap_or(0));
        }
        found.push(score::node_affinity::sum(&self.spec, node));
        let is_narrow = |key: &SmolStr| self.narrow.contains(key);
        let count = |counter, key: &str| node.label(key).map(|domain| vicinity.count(counter, domain));
        for spread in &rules.spread {
            let count = count(spread.counter, &spread.topology_key)?;
            if is_narrow(&spread.topology_key) {
                found.push(count);
            }
        }
        for term in &rules.affinity {
            let count = count(term.counter, &term.topology_key)?;
            if is_narrow(&term.topology_key) {
                found.push(count.min(1));
            }
        }
        let mut wish = 0i64;
        for (term, keeps_off) in self.others().filter(|(term, _)| is_narrow(&term.topology_key)) {
            let count = count(term.counter, &term.topology_key).unwrap_or(0);
            if keeps_off && count > 0 {
                return None;
            }
            wish += term.weight * i64::from(count);
        }
        found.push((wish + WISH_ZERO).clamp(0, 2 * WISH_ZERO) as u32);
        for spread in rules.spread_wishes.iter().filter(|spread| is_narrow(&spread.topology_key)) {
            // One more than the count: 0 without the label.
            found
                .push(count(spread.counter, &spread.topology_key).map_or(0, |count| count.saturating_add(1)));
        }
        Some(found)
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
        let fewest: Vec<_> = self.outlook.rules().spread.iter().map(|one| vicinity.fewest(one)).collect();
        let may_be_first = vicinity.may_be_first(&self.outlook);
        let judged: Vec<(CellView<'_>, Merit)> = candidates
            .cells()
            .filter_map(|cell| Some((cell, self.merit(cell.coordinates, vicinity, &fewest, may_be_first)?)))
            .collect();
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

    /// How good a cell is; `None` when the pod may not be there.
    fn merit(
        &self,
        coordinates: &[u32],
        vicinity: &Vicinity,
        fewest: &[u32],
        may_be_first: bool,
    ) -> Option<Merit> {
        let rules = self.outlook.rules();
        let (wide, mut rest) = coordinates.split_at(self.wide.len());
        let mut next = || {
            let (first, left) = rest.split_first().expect("as many coordinates as were made");
            rest = left;
            *first
        };
        let domain = |key: &SmolStr| {
            let at = self.wide.range::<SmolStr, _>(..key).count();
            wide[at].checked_sub(1).map(|place| self.wide[key].names[place as usize].as_str())
        };
        let by_node = next();
        for (spread, fewest) in rules.spread.iter().zip(fewest) {
            let count = match self.wide.contains_key(&spread.topology_key) {
                true => vicinity.count(spread.counter, domain(&spread.topology_key)?),
                false => next(),
            };
            if is_over(spread, count, *fewest) {
                return None;
            }
        }
        let mut all_near = true;
        for term in &rules.affinity {
            all_near &= match self.wide.contains_key(&term.topology_key) {
                true => vicinity.count(term.counter, domain(&term.topology_key)?) > 0,
                false => next() > 0,
            };
        }
        if !all_near && !may_be_first {
            return None;
        }
        let mut wish = i64::from(next()) - WISH_ZERO;
        for (term, keeps_off) in self.others().filter(|(term, _)| self.wide.contains_key(&term.topology_key))
        {
            let count = domain(&term.topology_key).map_or(0, |domain| vicinity.count(term.counter, domain));
            if keeps_off && count > 0 {
                return None;
            }
            wish += term.weight * i64::from(count);
        }
        let mut cost = Some(0);
        for spread in &rules.spread_wishes {
            let count = match self.wide.contains_key(&spread.topology_key) {
                true => domain(&spread.topology_key).map(|domain| vicinity.count(spread.counter, domain)),
                false => next().checked_sub(1),
            };
            let domains = vicinity.domains_len(spread.counter);
            let of_one = count.map(|count| score::topology_spread::cost(count, domains, spread.max_skew));
            cost = cost.zip(of_one).map(|(sum, one)| sum + one);
        }
        Some(Merit { by_node, wish, cost })
    }
}
