//! Which addresses pods have, of all networks together: no address is given twice, whatever ranges overlap.
//!
//! Held addresses are kept as runs without gaps, so the lowest free one of any range is found by skipping runs and what is
//! excluded. The cost grows with the excluded networks and the logarithm of the number of runs, never with the size of a range;
//! memory with the number of held addresses. Cloning is O(1).

use std::net::IpAddr;

use bulkhead_types::{Ipam, ObjectId, ip_from_bits, ip_to_bits};
use imbl::OrdMap;

/// A family, and an address of it as a number.
type Key = (bool, u128);

fn key(address: IpAddr) -> Key {
    (address.is_ipv6(), ip_to_bits(address))
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// The last address of each run, by its first.
    runs: OrdMap<Key, u128>,
    holders: OrdMap<Key, ObjectId>,
}

impl Addresses {
    /// Who has an address.
    pub(crate) fn holder(&self, address: IpAddr) -> Option<ObjectId> {
        self.holders.get(&key(address)).copied()
    }

    /// How many are held.
    pub(crate) fn len(&self) -> usize {
        self.holders.len()
    }

    /// A pod takes an address; `false` when somebody has it.
    pub(crate) fn take(&mut self, address: IpAddr, pod: ObjectId) -> bool {
        let (family, at) = key(address);
        if self.holders.contains_key(&(family, at)) {
            return false;
        }
        self.holders.insert((family, at), pod);
        let before = at.checked_sub(1).and_then(|left| self.run_with(family, left));
        let after = at.checked_add(1).and_then(|right| Some((right, *self.runs.get(&(family, right))?)));
        let first = before.map_or(at, |(first, _)| first);
        if let Some((right, _)) = after {
            self.runs.remove(&(family, right));
        }
        self.runs.insert((family, first), after.map_or(at, |(_, last)| last));
        true
    }

    /// A pod has an address no more. What another pod has by now stays its own.
    pub(crate) fn release(&mut self, address: IpAddr, pod: ObjectId) {
        let (family, at) = key(address);
        if self.holders.get(&(family, at)) != Some(&pod) {
            return;
        }
        self.holders.remove(&(family, at));
        let Some((first, last)) = self.run_with(family, at) else { return };
        self.runs.remove(&(family, first));
        if first < at {
            self.runs.insert((family, first), at - 1);
        }
        if at < last {
            self.runs.insert((family, at + 1), last);
        }
    }

    /// The run that an address is in.
    fn run_with(&self, family: bool, at: u128) -> Option<(u128, u128)> {
        let ((found, first), last) = self.runs.get_prev(&(family, at))?;
        (*found == family && *last >= at).then_some((*first, *last))
    }

    /// The lowest address that a network may give out and nobody has.
    pub(crate) fn lowest_free(&self, ipam: &Ipam) -> Option<IpAddr> {
        let family = ipam.range.first().is_ipv6();
        let (mut at, end) = bounds(ipam);
        let excluded = excluded(ipam);
        let mut excluded = excluded.iter().peekable();
        while at <= end {
            // Excluded networks come in order, so each is passed once.
            while excluded.next_if(|(_, last)| *last < at).is_some() {}
            let taken = match excluded.peek() {
                Some((first, last)) if *first <= at => Some(*last),
                _ => self.run_with(family, at).map(|(_, last)| last),
            };
            match taken {
                None => return Some(ip_from_bits(at, ipam.range.first())),
                Some(last) => at = last.checked_add(1)?,
            }
        }
        None
    }
}

/// The first and last address that a network may give out, what is excluded aside: never the network's own and the last one.
fn bounds(ipam: &Ipam) -> (u128, u128) {
    let (first, last) = (ip_to_bits(ipam.range.first()), ip_to_bits(ipam.range.last()));
    let first = ipam.range_start.map_or(0, ip_to_bits).max(first.saturating_add(1));
    let last = ipam.range_end.map_or(u128::MAX, ip_to_bits).min(last.saturating_sub(1));
    (first, last)
}

/// What a network never gives out, in order: its excluded networks and its gateway.
fn excluded(ipam: &Ipam) -> Vec<(u128, u128)> {
    let is_same_family = |address: IpAddr| address.is_ipv4() == ipam.range.first().is_ipv4();
    let networks = ipam.exclude.iter().map(|cidr| (cidr.first(), cidr.last()));
    let gateway = ipam.gateway.into_iter().map(|gateway| (gateway, gateway));
    let mut all: Vec<(u128, u128)> = (networks.chain(gateway).filter(|(first, _)| is_same_family(*first)))
        .map(|(first, last)| (ip_to_bits(first), ip_to_bits(last)))
        .collect();
    all.sort_unstable();
    // One that lies in the one before says nothing more.
    let mut merged: Vec<(u128, u128)> = Vec::with_capacity(all.len());
    for (first, last) in all {
        match merged.last_mut() {
            Some((_, end)) if first <= *end => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    merged
}

/// Whether a network may give out an address.
pub(crate) fn may_give(ipam: &Ipam, address: IpAddr) -> bool {
    let (first, last) = bounds(ipam);
    let at = ip_to_bits(address);
    ipam.range.contains(address)
        && (first..=last).contains(&at)
        && ipam.gateway != Some(address)
        && !ipam.exclude.iter().any(|cidr| cidr.contains(address))
}

#[cfg(test)]
#[path = "addresses_tests.rs"]
mod tests;
