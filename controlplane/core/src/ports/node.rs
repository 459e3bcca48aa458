//! The ledger of one node: its ports, and which pod has which.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bulkhead_types::{ObjectId, Protocol, PublishedPort};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodePorts {
    /// By protocol and number: the addresses, and who has the port there. No entry is empty.
    held: BTreeMap<(Protocol, u16), BTreeSet<(IpAddr, ObjectId)>>,
}

impl NodePorts {
    /// Whether nobody has a port.
    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether a pod may have all of these: none conflicts with another pod's.
    pub fn are_free(&self, ports: impl IntoIterator<Item = PublishedPort>) -> bool {
        ports.into_iter().all(|wanted| {
            let key = (wanted.protocol, wanted.port);
            let held = self.held.get(&key).into_iter().flatten();
            !held.map(|(ip, _)| PublishedPort { ip: *ip, ..wanted }).any(|held| held.conflicts_with(&wanted))
        })
    }

    /// A pod has these from now on.
    pub(crate) fn take(&mut self, pod: ObjectId, ports: impl IntoIterator<Item = PublishedPort>) {
        for port in ports {
            self.held.entry((port.protocol, port.port)).or_default().insert((port.ip, pod));
        }
    }

    /// A pod has these no more.
    pub(crate) fn release(&mut self, pod: ObjectId, ports: impl IntoIterator<Item = PublishedPort>) {
        for port in ports {
            let key = (port.protocol, port.port);
            let Some(holders) = self.held.get_mut(&key) else { continue };
            holders.remove(&(port.ip, pod));
            if holders.is_empty() {
                self.held.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(port: u16, ip: &str) -> PublishedPort {
        PublishedPort { protocol: Protocol::Tcp, port, ip: ip.parse().expect("an address") }
    }

    #[test]
    fn a_port_is_free_again_when_all_who_have_it_have_gone() {
        let mut ports = NodePorts::default();
        let check = |ports: &NodePorts, wanted: PublishedPort, expected: bool| {
            assert_eq!(ports.are_free([wanted]), expected, "{wanted:?} beside {ports:?}");
        };
        ports.take(ObjectId(1), [tcp(80, "10.0.0.1"), tcp(443, "0.0.0.0")]);
        ports.take(ObjectId(2), [tcp(80, "10.0.0.2")]);
        check(&ports, tcp(80, "10.0.0.3"), true);
        check(&ports, tcp(80, "10.0.0.2"), false);
        check(&ports, tcp(80, "0.0.0.0"), false);
        check(&ports, tcp(443, "10.0.0.3"), false);
        check(&ports, PublishedPort { protocol: Protocol::Udp, ..tcp(443, "0.0.0.0") }, true);
        ports.release(ObjectId(2), [tcp(80, "10.0.0.2")]);
        check(&ports, tcp(80, "0.0.0.0"), false);
        ports.release(ObjectId(1), [tcp(80, "10.0.0.1"), tcp(443, "0.0.0.0")]);
        check(&ports, tcp(80, "0.0.0.0"), true);
        assert!(ports.is_empty());
    }
}
