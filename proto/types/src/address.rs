//! IP networks in CIDR form.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// A network: an address without host bits, and how many bits of it are the network's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IpCidr {
    address: IpAddr,
    prefix: u8,
}

/// An address as a number; those of the two families are never compared.
#[must_use]
pub fn ip_to_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// The address of a number, of the family of another address. Of IPv4 the low 32 bits count.
#[must_use]
pub fn ip_from_bits(bits: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(bits as u32)),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(bits)),
    }
}

/// How many bits addresses of a family have.
fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl IpCidr {
    /// A network; host bits of the address are cleared. `None` when the prefix is longer than the address.
    #[must_use]
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        if prefix > width(address) {
            return None;
        }
        let cidr = Self { address, prefix };
        Some(Self { address: ip_from_bits(ip_to_bits(address) & !cidr.host_mask(), address), prefix })
    }

    fn host_mask(self) -> u128 {
        let bits = u32::from(width(self.address) - self.prefix);
        if bits == 128 { u128::MAX } else { (1 << bits) - 1 }
    }

    /// Reads `ADDRESS/PREFIX`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no network: expected ADDRESS/PREFIX, such as 192.168.100.0/24");
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let is_number = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().ok().filter(|_| is_number).ok_or_else(bad)?;
        Self::new(address, prefix).ok_or_else(bad)
    }

    /// The first address: the network's own.
    #[must_use]
    pub fn first(self) -> IpAddr {
        self.address
    }

    /// The last address: of IPv4 the broadcast.
    #[must_use]
    pub fn last(self) -> IpAddr {
        ip_from_bits(ip_to_bits(self.address) | self.host_mask(), self.address)
    }

    /// How many bits are the network's.
    #[must_use]
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// How many bits are left for hosts.
    #[must_use]
    pub fn host_bits(self) -> u8 {
        width(self.address) - self.prefix
    }

    /// Whether an address is of the network.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4()
            && ip_to_bits(address) & !self.host_mask() == ip_to_bits(self.address)
    }
}

impl std::fmt::Display for IpCidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl TryFrom<String> for IpCidr {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<IpCidr> for String {
    fn from(value: IpCidr) -> Self {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_with_their_bounds() {
        let check = |text: &str, expected: Option<(&str, &str, &str)>| {
            let found = IpCidr::parse(text).ok();
            let found = found.map(|c| (c.to_string(), c.first().to_string(), c.last().to_string()));
            let expected = expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()));
            assert_eq!(found, expected, "{text}");
        };
        check("192.168.100.7/24", Some(("192.168.100.0/24", "192.168.100.0", "192.168.100.255")));
        check("0.0.0.0/0", Some(("0.0.0.0/0", "0.0.0.0", "255.255.255.255")));
        check("10.0.0.1/32", Some(("10.0.0.1/32", "10.0.0.1", "10.0.0.1")));
        check("fd00::1/64", Some(("fd00::/64", "fd00::", "fd00::ffff:ffff:ffff:ffff")));
        check("::/0", Some(("::/0", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")));
        for bad in ["10.0.0.0", "10.0.0.0/33", "10.0.0/8", "fd00::/129", "10.0.0.0/+8", "10.0.0.0/", "/8"] {
            check(bad, None);
        }
        let cidr = IpCidr::parse("10.1.0.0/16").expect("a network");
        assert!(cidr.contains("10.1.255.255".parse().expect("an address")));
        assert!(!cidr.contains("10.2.0.0".parse().expect("an address")));
        assert!(!cidr.contains("::a01:0".parse().expect("an address")));
    }
}
