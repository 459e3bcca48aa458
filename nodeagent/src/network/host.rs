//! What the network asks of the host.

use std::fmt::Debug;
use std::io;
use std::net::Ipv4Addr;

use bulkhead_nodeagent_core::network::Ipv4Network;

/// A link of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) name: String,
    /// The bridge that it is on.
    pub(crate) bridge: Option<String>,
    pub(crate) is_up: bool,
    pub(crate) mtu: u32,
    /// IPv4 addresses with their prefix lengths.
    pub(crate) addresses: Vec<(Ipv4Addr, u8)>,
}

/// Addresses that the host knows the way to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InUse {
    pub(crate) network: Ipv4Network,
    /// By which link.
    pub(crate) link: String,
}

/// Links, addresses and packet filter of the host. Calls block, and remember nothing.
pub(crate) trait HostNetwork: Debug + Send + Sync {
    /// All links.
    fn links(&self) -> io::Result<Vec<Link>>;
    /// All addresses of links and destinations of routes, IPv4.
    fn networks(&self) -> io::Result<Vec<InUse>>;
    /// Adds a bridge with this MAC address, which stays when links come and go.
    fn add_bridge(&self, name: &str, mac: &str) -> io::Result<()>;
    /// Gives an address to a link.
    fn add_address(&self, link: &str, address: Ipv4Addr, prefix_len: u8) -> io::Result<()>;
    /// Takes an address from a link.
    fn remove_address(&self, link: &str, address: Ipv4Addr, prefix_len: u8) -> io::Result<()>;
    /// Brings a link up.
    fn bring_up(&self, link: &str, mtu: u32) -> io::Result<()>;
    /// Adds a tap that nobody has open, and that stays.
    fn add_tap(&self, name: &str) -> io::Result<()>;
    /// Puts a tap on a bridge and brings it up.
    fn attach(&self, tap: &str, bridge: &str, mtu: u32) -> io::Result<()>;
    /// Removes a link; one that is not there is fine.
    fn remove(&self, link: &str) -> io::Result<()>;
    /// Lets the host forward IPv4 packets.
    fn forward(&self) -> io::Result<()>;
    /// Runs a file of the packet filter, as a whole or not at all.
    fn set_rules(&self, rules: &str) -> io::Result<()>;
    /// Whether such a file could be run; changes nothing.
    fn check_rules(&self, rules: &str) -> io::Result<()>;
}
