//! Ranges of IPv4 addresses, and the lowest that nobody has.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Shortest prefix of a node's range: 65,534 addresses are more than any node has guests.
const PREFIX_MIN: u8 = 16;
/// Longest prefix of a node's range: gateway and one guest.
const PREFIX_MAX: u8 = 30;
/// Where ranges lie that agents choose for themselves: 10.128.0.0/9, with room for 32,768 ranges of a /24.
const CHOSEN_FROM: u32 = 0x0a80_0000;
/// How many there are.
const CHOICES: u32 = 1 << 15;

/// Text that is no range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct NetworkError(String);

/// A block of IPv4 addresses with a common prefix, such as a route leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ipv4Network {
    base: u32,
    prefix_len: u8,
}

impl Ipv4Network {
    /// The block that an address is in; `None` with a prefix of more than 32 bits.
    #[must_use]
    pub fn around(address: Ipv4Addr, prefix_len: u8) -> Option<Self> {
        let mask = mask(prefix_len)?;
        Some(Self { base: u32::from(address) & mask, prefix_len })
    }

    /// Whether some address is in both.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        let shorter = self.prefix_len.min(other.prefix_len);
        mask(shorter).is_some_and(|mask| self.base & mask == other.base & mask)
    }

    /// Every address: a default route, which says of no range that it is taken.
    #[must_use]
    pub fn is_everything(self) -> bool {
        self.prefix_len == 0
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        Self::around(address, self.prefix_len) == Some(self)
    }

    /// How many bits its addresses share.
    #[must_use]
    pub fn prefix_len(self) -> u8 {
        self.prefix_len
    }
}

impl fmt::Display for Ipv4Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix_len)
    }
}

fn mask(prefix_len: u8) -> Option<u32> {
    (prefix_len <= 32).then(|| u32::MAX.checked_shl(32 - u32::from(prefix_len)).unwrap_or(0))
}

/// The addresses of one node's guests: all of a block but the first (the network), the second (the gateway, which is the
/// node) and the last (the broadcast).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PodRange(Ipv4Network);

impl PodRange {
    /// The block.
    #[must_use]
    pub fn network(self) -> Ipv4Network {
        self.0
    }

    /// The node's own address among its guests.
    #[must_use]
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(self.0.base + 1)
    }

    /// How many bits the addresses share.
    #[must_use]
    pub fn prefix_len(self) -> u8 {
        self.0.prefix_len
    }

    fn last(self) -> u32 {
        self.0.base | !mask(self.0.prefix_len).unwrap_or(0)
    }

    /// How many guests can have one.
    #[must_use]
    pub fn capacity(self) -> u32 {
        self.last() - self.0.base - 2
    }

    /// Whether a guest may have this address.
    #[must_use]
    pub fn offers(self, address: Ipv4Addr) -> bool {
        let address = u32::from(address);
        address > self.0.base + 1 && address < self.last()
    }

    /// The lowest address that is not taken; `None` when all are.
    #[must_use]
    pub fn lowest_free(self, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
        (self.0.base + 2..self.last()).map(Ipv4Addr::from).find(|address| !taken.contains(address))
    }

    /// The range of an agent that was not given one: the first from a place that follows from `key` on of which nothing is
    /// in use. `None` when there is none.
    #[must_use]
    pub fn choose(key: u32, in_use: &[Ipv4Network]) -> Option<Self> {
        let candidate = |n: u32| {
            let number = key.wrapping_add(n) % CHOICES;
            Self(Ipv4Network { base: CHOSEN_FROM + (number << 8), prefix_len: 24 })
        };
        (0..CHOICES).map(candidate).find(|range| range.conflict(in_use).is_none())
    }

    /// The first block in use of which an address is in this one too.
    #[must_use]
    pub fn conflict(self, in_use: &[Ipv4Network]) -> Option<Ipv4Network> {
        in_use.iter().copied().find(|other| !other.is_everything() && other.overlaps(self.0))
    }
}

impl fmt::Display for PodRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for PodRange {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let wrong = |why: &str| NetworkError(format!("{text:?} {why}"));
        let parts = text.split_once('/').and_then(|(address, prefix)| {
            Some((address.parse::<Ipv4Addr>().ok()?, prefix.parse::<u8>().ok()?))
        });
        let (address, prefix_len) =
            parts.ok_or_else(|| wrong("is no range of IPv4 addresses such as 10.128.3.0/24"))?;
        if !(PREFIX_MIN..=PREFIX_MAX).contains(&prefix_len) {
            return Err(wrong(&format!("must have a prefix of {PREFIX_MIN} to {PREFIX_MAX} bits")));
        }
        let network = Ipv4Network::around(address, prefix_len).expect("at most 30 bits");
        if network.base != u32::from(address) {
            return Err(wrong(&format!("has bits beyond its prefix: {network} may be meant")));
        }
        let special = [address, Ipv4Addr::from(network.base | !mask(prefix_len).unwrap_or(0))];
        if special.iter().any(|ip| ip.is_loopback() || ip.is_multicast() || ip.is_link_local())
            || address.octets()[0] == 0
            || address.octets()[0] >= 240
        {
            return Err(wrong("has addresses that no guest can have"));
        }
        Ok(Self(network))
    }
}

impl TryFrom<String> for PodRange {
    type Error = NetworkError;

    fn try_from(text: String) -> Result<Self, NetworkError> {
        text.parse()
    }
}

impl From<PodRange> for String {
    fn from(range: PodRange) -> Self {
        range.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(text: &str) -> PodRange {
        text.parse().expect("a range")
    }

    #[test]
    fn ranges_are_read() {
        for right in ["10.1.2.0/24", "192.168.0.0/16", "10.0.0.4/30"] {
            assert_eq!(range(right).to_string(), right);
        }
        for (wrong, why) in [
            ("10.1.2.0", "such as"),
            ("fd00::/64", "such as"),
            ("10.1.2.0/31", "16 to 30"),
            ("10.0.0.0/8", "16 to 30"),
            ("10.1.2.3/24", "10.1.2.0/24 may be meant"),
            ("127.0.0.0/24", "no guest can have"),
            ("224.1.0.0/16", "no guest can have"),
            ("169.254.0.0/16", "no guest can have"),
            ("0.1.0.0/16", "no guest can have"),
        ] {
            let error = wrong.parse::<PodRange>().expect_err(wrong).to_string();
            assert!(error.contains(why), "{error}");
        }
        let smallest = range("10.0.0.4/30");
        assert_eq!((smallest.gateway(), smallest.capacity()), (Ipv4Addr::new(10, 0, 0, 5), 1));
        assert_eq!(smallest.lowest_free(&BTreeSet::new()), Some(Ipv4Addr::new(10, 0, 0, 6)));
    }

    #[test]
    fn a_default_route_takes_nothing_and_any_other_overlap_does() {
        let block = |a, b, c, d, len| Ipv4Network::around(Ipv4Addr::new(a, b, c, d), len).expect("a block");
        let own = range("10.128.7.0/24");
        assert_eq!(own.conflict(&[block(0, 0, 0, 0, 0), block(10, 128, 8, 0, 24)]), None);
        for other in [block(10, 0, 0, 0, 8), block(10, 128, 7, 9, 32), block(10, 128, 7, 0, 24)] {
            assert_eq!(own.conflict(&[other]), Some(other));
        }
        assert_eq!(PodRange::choose(7, &[]), Some(own));
        assert_eq!(PodRange::choose(7, &[block(10, 128, 7, 9, 32)]), Some(range("10.128.8.0/24")));
        assert_eq!(PodRange::choose(7, &[block(10, 0, 0, 0, 8)]), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Whatever is taken and given back: what is given is nobody's, never the network, gateway or broadcast, and the
        /// lowest; nothing is given only when all are taken.
        #[test]
        fn addresses_are_given_once(
            prefix in 24u8..=30,
            steps in proptest::collection::vec(any::<Option<u8>>(), 1..300),
        ) {
            let network = Ipv4Network::around(Ipv4Addr::new(10, 9, 8, 0), prefix).expect("a block");
            let range = PodRange(network);
            let broadcast = Ipv4Addr::from(range.last());
            let mut taken = BTreeSet::new();
            for step in steps {
                match step {
                    Some(back) => {
                        let one = taken.iter().nth(usize::from(back) % taken.len().max(1)).copied();
                        taken.retain(|address| Some(*address) != one);
                    }
                    None => match range.lowest_free(&taken) {
                        None => prop_assert_eq!(taken.len(), range.capacity() as usize),
                        Some(given) => {
                            prop_assert!(network.contains(given) && range.offers(given));
                            prop_assert!(![Ipv4Addr::from(network.base), range.gateway(), broadcast].contains(&given));
                            let lower = (network.base + 2..u32::from(given)).map(Ipv4Addr::from);
                            prop_assert!(lower.into_iter().all(|one| taken.contains(&one)));
                            prop_assert!(taken.insert(given));
                        }
                    },
                }
            }
        }
    }
}
