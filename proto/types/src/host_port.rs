//! Ports of containers that the pod's node publishes as its own.
//!
//! Source: `hostPort` and `hostIP` of "ContainerPort v1 core" in the Kubernetes API reference, and the scheduler's plugin
//! `NodePorts`, by whose rule two pods of a node may not publish the same port.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::{ContainerPort, PodSpec, Protocol};

/// The label of a node whose agent can publish ports of guests (`true`): see [`crate::NodeFacts::publishes_ports`].
pub const LABEL_HOST_PORTS: &str = "node.bulkhead.io/host-ports";

/// Where a node publishes a container's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HostPort {
    /// 1 to 65535.
    pub port: u16,
    /// On this address of the node; unset: on all.
    pub ip: Option<IpAddr>,
}

/// A port of a node that a pod has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublishedPort {
    /// Its protocol.
    pub protocol: Protocol,
    /// 1 to 65535.
    pub port: u16,
    /// The address; unspecified (`0.0.0.0`) when it is published on all. IPv4 addresses are never written as IPv6 ones.
    pub ip: IpAddr,
}

impl PublishedPort {
    /// Whether two pods of one node cannot both have theirs: same protocol and port, and the same address, or one of them on
    /// all addresses.
    #[must_use]
    pub fn conflicts_with(&self, other: &Self) -> bool {
        let is_same_port = (self.protocol, self.port) == (other.protocol, other.port);
        is_same_port && (self.ip == other.ip || self.ip.is_unspecified() || other.ip.is_unspecified())
    }
}

impl ContainerPort {
    /// The port of the node that it is to be, if any.
    #[must_use]
    pub fn published(&self) -> Option<PublishedPort> {
        let host = self.host.get()?;
        let ip = host.ip.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ip| ip.to_canonical());
        Some(PublishedPort { protocol: self.protocol, port: host.port, ip })
    }
}

impl PodSpec {
    /// The ports of its node that it wants, those of init containers too; none for nearly all pods.
    pub fn host_ports(&self) -> impl Iterator<Item = PublishedPort> + '_ {
        let containers = self.init_containers.iter().chain(&self.containers);
        containers.flat_map(|container| &container.ports).filter_map(ContainerPort::published)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_conflict_by_protocol_number_and_address() {
        let port =
            |protocol, port, ip: &str| PublishedPort { protocol, port, ip: ip.parse().expect("an address") };
        let check = |a: PublishedPort, b: PublishedPort, expected: bool| {
            assert_eq!((a.conflicts_with(&b), b.conflicts_with(&a)), (expected, expected), "{a:?} {b:?}");
        };
        let tcp = |number, ip| port(Protocol::Tcp, number, ip);
        check(tcp(80, "0.0.0.0"), tcp(80, "0.0.0.0"), true);
        check(tcp(80, "0.0.0.0"), tcp(80, "10.0.0.1"), true);
        check(tcp(80, "::"), tcp(80, "10.0.0.1"), true);
        check(tcp(80, "10.0.0.1"), tcp(80, "10.0.0.1"), true);
        check(tcp(80, "10.0.0.2"), tcp(80, "10.0.0.1"), false);
        check(tcp(80, "0.0.0.0"), tcp(81, "0.0.0.0"), false);
        check(tcp(80, "0.0.0.0"), port(Protocol::Udp, 80, "0.0.0.0"), false);
    }
}
