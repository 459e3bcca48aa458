//! What an operator says of the guests' network.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use bulkhead_nodeagent_core::network::{PodRange, Resolver};

/// Least MTU of a link with IPv4 that does more than 576 bytes at once (IPv6's least, so that it can come), in bytes.
pub(super) const MTU_MIN: u32 = 1280;
/// Largest MTU of a tap, in bytes.
pub(super) const MTU_MAX: u32 = 65_521;

/// Whether guests have a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetworkChoice {
    /// Where this host lets the agent make it; elsewhere none, with a warning of the node.
    Auto,
    /// A card on the agent's bridge; the agent does not start where it cannot make that.
    Bridge,
    /// No card.
    #[default]
    None,
}

/// The guests' network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkOptions {
    /// Whether there is one.
    pub choice: NetworkChoice,
    /// The guests' addresses; unset: a /24 below 10.128.0.0/9 that the host does not use, the same in the next life of the agent
    /// while guests have addresses of it.
    pub pod_cidr: Option<PodRange>,
    /// MTU of the bridge, in bytes; unset: that of the host's default route.
    pub mtu: Option<u32>,
    /// Whether guests reach anybody but each other.
    pub egress: bool,
    /// Name servers of guests instead of the host's.
    pub cluster_dns: Vec<Ipv4Addr>,
    /// Where the host's name servers stand.
    pub resolv_conf: PathBuf,
}

impl Default for NetworkOptions {
    fn default() -> Self {
        Self {
            choice: NetworkChoice::None,
            pod_cidr: None,
            mtu: None,
            egress: true,
            cluster_dns: Vec::new(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
        }
    }
}

impl NetworkOptions {
    /// Whether the agent does not start without what these say.
    pub(crate) fn is_demanded(&self) -> bool {
        self.choice == NetworkChoice::Bridge
            || (self.choice == NetworkChoice::Auto && self.pod_cidr.is_some())
    }

    /// What guests are told of names: the file's content, with other servers where the operator says so.
    pub(crate) fn resolver(&self) -> Resolver {
        let text = std::fs::read_to_string(&self.resolv_conf).unwrap_or_default();
        let mut resolver = Resolver::parse(&text);
        if !self.cluster_dns.is_empty() {
            resolver.nameservers.clone_from(&self.cluster_dns);
            resolver.unusable.clear();
        }
        resolver
    }
}
