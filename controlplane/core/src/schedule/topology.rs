//! The nodes by the values of one label, for all shapes that ask.

use smol_str::SmolStr;

use super::index::{NodeEntry, Slot};

/// The number of a domain; 0 is that of nodes without the label.
pub(crate) type Domain = u32;

/// See the module. Domains are numbered from 1, in order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Topology {
    names: Vec<SmolStr>,
    /// By slot.
    domains: Vec<Domain>,
    /// The slots of all domains, one domain after the other.
    slots: Vec<Slot>,
    /// By domain: where its slots end.
    ends: Vec<u32>,
}

impl Topology {
    pub(crate) fn of<'e>(key: &str, nodes: impl Iterator<Item = (Slot, &'e NodeEntry)>) -> Self {
        let mut labelled: Vec<(&str, Slot)> =
            nodes.filter_map(|(slot, entry)| Some((entry.node.label(key)?, slot))).collect();
        labelled.sort_unstable();
        let mut found = Self::default();
        for (name, slot) in labelled {
            if found.names.last().is_none_or(|last| last != name) {
                found.names.push(SmolStr::new(name));
                found.ends.push(found.slots.len() as u32);
            }
            found.slots.push(slot);
            *found.ends.last_mut().expect("the domain that was just begun") += 1;
            let at = slot as usize;
            if at >= found.domains.len() {
                found.domains.resize(at + 1, 0);
            }
            found.domains[at] = found.names.len() as Domain;
        }
        found
    }

    /// How many domains there are.
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    /// How many nodes have the label.
    pub(crate) fn nodes_len(&self) -> usize {
        self.slots.len()
    }

    /// The names of the domains, the first is that of domain 1.
    pub(crate) fn names(&self) -> &[SmolStr] {
        &self.names
    }

    /// The domain of a slot.
    pub(crate) fn domain(&self, slot: Slot) -> Domain {
        self.domains.get(slot as usize).copied().unwrap_or(0)
    }

    /// The name of the domain of a slot.
    pub(crate) fn name(&self, slot: Slot) -> Option<&str> {
        let at = self.domain(slot).checked_sub(1)?;
        Some(self.names[at as usize].as_str())
    }

    /// The slots of the same domain, its own included; none without one.
    pub(crate) fn neighbours(&self, slot: Slot) -> &[Slot] {
        let Some(at) = self.domain(slot).checked_sub(1).map(|at| at as usize) else { return &[] };
        let start = at.checked_sub(1).map_or(0, |former| self.ends[former]);
        &self.slots[start as usize..self.ends[at] as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bulkhead_types::{Name, Node, NodeFacts, NodePhase, NodeSpec, NodeStatus, ObjectMeta};

    use super::*;
    use crate::NodeUsage;

    #[test]
    fn nodes_are_found_by_their_label() {
        let entry = |zone: Option<&str>| {
            let mut meta = ObjectMeta::new(None, Name::new("n").expect("a name"));
            meta.labels.extend(zone.map(|zone| (SmolStr::new("zone"), SmolStr::new(zone))));
            let facts = NodeFacts::default();
            let status = NodeStatus {
                phase: NodePhase::Ready,
                phase_since_ms: 0,
                incarnation: 1,
                facts,
                pool: Default::default(),
                images: Default::default(),
                device_labels: Default::default(),
            };
            NodeEntry::new(Arc::new(Node { meta, spec: NodeSpec::default(), status }), NodeUsage::default())
        };
        let entries = [Some("b"), None, Some("a"), Some("b")].map(entry);
        let found = Topology::of("zone", (0..).zip(&entries));
        assert_eq!((found.len(), found.nodes_len(), found.names()), (2, 3, &["a".into(), "b".into()][..]));
        let check = |slot: Slot, domain: Domain, name: Option<&str>, neighbours: &[Slot]| {
            assert_eq!(
                (found.domain(slot), found.name(slot), found.neighbours(slot)),
                (domain, name, neighbours)
            );
        };
        check(0, 2, Some("b"), &[0, 3]);
        check(1, 0, None, &[]);
        check(2, 1, Some("a"), &[2]);
        check(3, 2, Some("b"), &[0, 3]);
        check(4, 0, None, &[]);
        assert_eq!(Topology::of("rack", (0..).zip(&entries)), Topology::default());
    }
}
