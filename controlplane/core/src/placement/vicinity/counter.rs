//! Pods of one sort, by domain.

use bulkhead_types::{Node, digest128};
use imbl::OrdMap;
use smol_str::SmolStr;

use crate::placement::rules::{Matcher, NodeFilter};

/// Identifies a counter by what it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CounterKey(u128);

/// What is counted where.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CounterSpec {
    pub(crate) counted: Counted,
    pub(crate) topology_key: SmolStr,
    /// Only on these nodes; then domains without pods count too.
    pub(crate) filter: Option<NodeFilter>,
}

impl CounterSpec {
    pub(crate) fn key(&self) -> CounterKey {
        CounterKey(digest128(self))
    }
}

/// Which pods are counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Counted {
    /// Those that all of these mean.
    Matching { all: Vec<Matcher>, with_ending: bool },
    /// Those that say this about others: they keep them off, or wish them near or far.
    Saying { matcher: Matcher, weight: Option<i64> },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Domain {
    pods: u32,
    /// Nodes, where they are counted.
    nodes: u32,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Counter {
    pub(super) spec: CounterSpec,
    /// Kinds of pods that need it.
    pub(super) kinds: u32,
    domains: OrdMap<SmolStr, Domain>,
    /// Of domains with nodes: how many have so many pods.
    histogram: OrdMap<u32, u32>,
    total: u64,
}

impl Counter {
    pub(super) fn new(spec: CounterSpec) -> Self {
        Self { spec, kinds: 1, domains: OrdMap::new(), histogram: OrdMap::new(), total: 0 }
    }

    pub(super) fn counts_ending(&self) -> bool {
        !matches!(self.spec.counted, Counted::Matching { with_ending: false, .. })
    }

    pub(super) fn selects_namespaces(&self) -> bool {
        match &self.spec.counted {
            Counted::Matching { all, .. } => all.iter().any(Matcher::selects_namespaces),
            Counted::Saying { matcher, .. } => matcher.selects_namespaces(),
        }
    }

    fn domain_of<'n>(&self, node: &'n Node) -> Option<&'n str> {
        let domain = node.label(&self.spec.topology_key)?;
        self.spec.filter.as_ref().is_none_or(|filter| filter.admits(node)).then_some(domain)
    }

    /// So many more, or fewer, pods are on a node.
    pub(super) fn add_pods(&mut self, node: &Node, pods: u32, is_more: bool) {
        let Some(domain) = self.domain_of(node).filter(|_| pods > 0) else { return };
        self.change(domain, |found| {
            found.pods = if is_more { found.pods + pods } else { found.pods - pods };
        });
        self.total = if is_more { self.total + u64::from(pods) } else { self.total - u64::from(pods) };
    }

    /// A node comes, or goes.
    pub(super) fn add_node(&mut self, node: &Node, is_more: bool) {
        if self.spec.filter.is_none() {
            return;
        }
        let Some(domain) = self.domain_of(node) else { return };
        self.change(domain, |found| {
            found.nodes = if is_more { found.nodes + 1 } else { found.nodes - 1 };
        });
    }

    fn change(&mut self, name: &str, change: impl FnOnce(&mut Domain)) {
        let (former, present) = match self.domains.get_mut(name) {
            Some(domain) => {
                let former = *domain;
                change(domain);
                (former, *domain)
            }
            None => {
                let mut present = Domain::default();
                change(&mut present);
                self.domains.insert(SmolStr::new(name), present);
                (Domain::default(), present)
            }
        };
        if present == Domain::default() {
            self.domains.remove(name);
        }
        self.recount(former, present);
    }

    /// A domain has other figures than before.
    fn recount(&mut self, former: Domain, present: Domain) {
        let place = |domain: Domain| (domain.nodes > 0).then_some(domain.pods);
        let (former, present) = (place(former), place(present));
        if former == present {
            return;
        }
        if let Some(pods) = former {
            let domains = self.histogram.get_mut(&pods).expect("a count that some domain has");
            *domains -= 1;
            if *domains == 0 {
                self.histogram.remove(&pods);
            }
        }
        if let Some(pods) = present {
            *self.histogram.entry(pods).or_insert(0) += 1;
        }
    }

    pub(super) fn count(&self, domain: &str) -> u32 {
        self.domains.get(domain).map_or(0, |domain| domain.pods)
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// The fewest pods of any domain with nodes; 0 when those domains are fewer than wanted.
    pub(super) fn fewest(&self, min_domains: u32) -> u32 {
        if (self.domains_len() as u64) < u64::from(min_domains) {
            return 0;
        }
        self.histogram.get_min().map_or(0, |(pods, _)| *pods)
    }

    pub(super) fn domains_len(&self) -> usize {
        // Where nodes are counted no pods are without one.
        self.domains.len()
    }
}
