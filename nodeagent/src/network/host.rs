//! What the network asks of the host.

use std::fmt::Debug;
use std::io;
use std::net::Ipv4Addr;

use bulkhead_nodeagent_core::network::Ipv4Network;

/// A link of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// The bridge that it is on.
    pub bridge: Option<String>,
    /// Whether it is switched on.
    pub is_up: bool,
    /// The largest packet, in bytes.
    pub mtu: u32,
    /// IPv4 addresses with their prefix lengths.
    pub addresses: Vec<(Ipv4Addr, u8)>,
}

/// Addresses that the host knows the way to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InUse {
    /// Which.
    pub network: Ipv4Network,
    /// By which link.
    pub link: String,
}

/// Links, addresses and packet filter of the host. Calls block, and remember nothing.
pub trait HostNetwork: Debug + Send + Sync {
    /// All links.
    ///
    /// # Errors
    /// What the host says.
    fn links(&self) -> io::Result<Vec<Link>>;
    /// All addresses of links and destinations of routes, IPv4.
    ///
    /// # Errors
    /// What the host says.
    fn networks(&self) -> io::Result<Vec<InUse>>;
    /// Adds a bridge with this MAC address, which stays when links come and go.
    ///
    /// # Errors
    /// What the host says.
    fn add_bridge(&self, name: &str, mac: &str) -> io::Result<()>;
    /// Gives an address to a link.
    ///
    /// # Errors
    /// What the host says.
    fn add_address(&self, link: &str, address: Ipv4Addr, prefix_len: u8) -> io::Result<()>;
    /// Takes an address from a link.
    ///
    /// # Errors
    /// What the host says.
    fn remove_address(&self, link: &str, address: Ipv4Addr, prefix_len: u8) -> io::Result<()>;
    /// Brings a link up.
    ///
    /// # Errors
    /// What the host says.
    fn bring_up(&self, link: &str, mtu: u32) -> io::Result<()>;
    /// Adds a tap that nobody has open, and that stays.
    ///
    /// # Errors
    /// What the host says.
    fn add_tap(&self, name: &str) -> io::Result<()>;
    /// Puts a tap on a bridge and brings it up.
    ///
    /// # Errors
    /// What the host says.
    fn attach(&self, tap: &str, bridge: &str, mtu: u32) -> io::Result<()>;
    /// Removes a link; one that is not there is fine.
    ///
    /// # Errors
    /// What the host says.
    fn remove(&self, link: &str) -> io::Result<()>;
    /// Lets the host forward IPv4 packets.
    ///
    /// # Errors
    /// What the host says.
    fn forward(&self) -> io::Result<()>;
    /// Runs a file of the packet filter, as a whole or not at all.
    ///
    /// # Errors
    /// What the host says.
    fn set_rules(&self, rules: &str) -> io::Result<()>;
    /// Whether such a file could be run; changes nothing.
    ///
    /// # Errors
    /// What the host says.
    fn check_rules(&self, rules: &str) -> io::Result<()>;

    /// The tap that a guest's process opens to be connected by this one: a host in memory has none to open.
    fn to_open(&self, tap: String) -> Option<String> {
        Some(tap)
    }
}
