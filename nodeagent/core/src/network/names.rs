//! What links are called: nothing has to be remembered to find them again.

use std::net::Ipv4Addr;

use bulkhead_types::ObjectId;

/// Longest name of a link, in bytes (IFNAMSIZ without its NUL).
const NAME_LENGTH_MAX: usize = 15;
/// Bits of an agent's key: what a bridge's name has room for.
const KEY_BITS: u32 = 28;
/// Digits of the part of a tap's name that tells guests apart.
const GUEST_DIGITS: u32 = 7;
/// Digits of a number in base 32, as RFC 4648 writes it, in lower case.
const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The names of one agent's links: agents of one machine have different ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkNames {
    key: u32,
}

impl LinkNames {
    /// Of the agent with this key; what counts of it are the lowest 28 bits.
    #[must_use]
    pub fn new(key: u32) -> Self {
        Self { key: key & ((1 << KEY_BITS) - 1) }
    }

    /// The key.
    #[must_use]
    pub fn key(self) -> u32 {
        self.key
    }

    /// The bridge; the tables of the packet filter have the same name.
    #[must_use]
    pub fn bridge(self) -> String {
        format!("bulkhead{:07x}", self.key)
    }

    /// What the names of all taps of this agent begin with, and of no other.
    #[must_use]
    pub fn tap_prefix(self) -> String {
        format!("b{:07x}", self.key)
    }

    /// The tap of a guest. Two guests of a node with the same are as likely as a collision of 35 bits; the second cannot start then.
    #[must_use]
    pub fn tap(self, pod: ObjectId, instance: u32) -> String {
        let mut bits = mix(pod.0 ^ mix(instance.into()));
        let mut name = self.tap_prefix();
        for _ in 0..GUEST_DIGITS {
            name.push(char::from(DIGITS[(bits % 32) as usize]));
            bits /= 32;
        }
        debug_assert!(name.len() <= NAME_LENGTH_MAX);
        name
    }
}

/// A permutation of numbers that changes about half of the bits when one is changed (the last step of splitmix64).
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// The MAC address of the guest with an address: locally administered, and different wherever the address is (as CNI's
/// bridge plugin makes it: `0a:58` and the address).
#[must_use]
pub fn mac_of(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("0a:58:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_fit_and_differ() {
        let (one, other) = (LinkNames::new(0xf234_5678), LinkNames::new(0x0fff_ffff));
        assert_eq!(one.bridge(), "bulkhead2345678");
        assert_eq!(LinkNames::new(0x0234_5678), one);
        let mut seen = BTreeSet::new();
        for pod in 0..100 {
            for instance in 1..10 {
                let name = one.tap(ObjectId(pod), instance);
                assert!(name.len() <= NAME_LENGTH_MAX && name.starts_with(&one.tap_prefix()), "{name}");
                assert!(!name.starts_with(&other.tap_prefix()) && seen.insert(name));
            }
        }
        assert!(!one.bridge().starts_with(&one.tap_prefix()));
        assert_eq!(mac_of(Ipv4Addr::new(10, 128, 7, 2)), "0a:58:0a:80:07:02");
    }
}
