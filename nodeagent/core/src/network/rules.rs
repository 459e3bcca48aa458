//! What the packet filter is told: one ruleset for all guests of an agent, replaced as a whole.
//!
//! | from | to | |
//! |---|---|---|
//! | a guest | anywhere | dropped unless tap, MAC address and IPv4 address belong together, in ARP as well |
//! | a guest | another guest of the node | passes |
//! | a guest | the node itself, at any of its addresses | dropped, but for answers and name servers there that guests are told of |
//! | a guest | 169.254.0.0/16 | dropped: what clouds tell their machines is none of a guest's business |
//! | a guest | everybody else | masqueraded, or dropped without egress |
//! | the node itself | a guest | passes |
//! | everybody else | a guest | dropped, but for answers |
//!
//! Source: nft(8).

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use bulkhead_types::PodBandwidth;

use super::{LinkNames, PodRange, mac_of};

/// A guest's tap with its address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TapAddress {
    /// The tap's name.
    pub tap: String,
    /// The guest's address.
    pub address: Ipv4Addr,
    /// How fast the guest may send and receive.
    pub bandwidth: PodBandwidth,
}

/// All rules of one agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    /// What its links are called.
    pub names: LinkNames,
    /// Its guests' addresses.
    pub range: PodRange,
    /// Whether guests reach anybody but each other.
    pub egress: bool,
    /// Name servers that guests are told of.
    pub nameservers: Vec<Ipv4Addr>,
    /// Its guests.
    pub guests: Vec<TapAddress>,
}

impl Ruleset {
    /// A file for `nft -f` that puts these rules in place of those that the agent had, in one transaction. Limits stay as they are:
    /// [`Self::replace_rates`].
    #[must_use]
    pub fn replace(&self) -> String {
        let mut text = Self::begin(self.names);
        self.bridge_table(&mut text);
        self.ip_table(&mut text);
        text
    }

    /// A file for `nft -f` that takes away all rules of an agent.
    #[must_use]
    pub fn remove(names: LinkNames) -> String {
        Self::begin(names) + &Self::remove_rates(names)
    }

    /// A table can be deleted only where it is; one that is there may be added.
    fn begin(names: LinkNames) -> String {
        let name = names.bridge();
        ["bridge", "ip"]
            .map(|family| format!("add table {family} {name}\ndelete table {family} {name}\n"))
            .concat()
    }

    /// Frames of taps that are no guest's, or not from whom they say, go nowhere; nor does what is neither IPv4 nor ARP.
    fn bridge_table(&self, text: &mut String) {
        let (name, prefix) = (self.names.bridge(), self.names.tap_prefix());
        let mut guests = self.guests.clone();
        guests.sort();
        let mut elements = String::new();
        for (n, guest) in guests.iter().enumerate() {
            let separator = if n == 0 { "elements = { " } else { ", " };
            let (tap, address) = (&guest.tap, guest.address);
            let _ = write!(elements, "{separator}\"{tap}\" . {} . {address}", mac_of(address));
        }
        if !elements.is_empty() {
            elements.push_str(" }\n");
        }
        let _ = write!(
            text,
            "table bridge {name} {{\n\
             set guests {{\n\
             typeof iifname . ether saddr . ip saddr\n\
             {elements}}}\n\
             chain prerouting {{\n\
             type filter hook prerouting priority -300; policy accept;\n\
             iifname != \"{prefix}*\" accept\n\
             ether type ip iifname . ether saddr . ip saddr @guests accept\n\
             ether type arp iifname . ether saddr . arp saddr ip @guests \
             iifname . arp saddr ether . arp saddr ip @guests accept\n\
             drop\n\
             }}\n\
             }}\n"
        );
    }

    fn ip_table(&self, text: &mut String) {
        let (bridge, range) = (self.names.bridge(), self.range);
        let names: String = self
            .nameservers
            .iter()
            .map(|server| {
                format!("ip daddr {server} udp dport 53 accept\nip daddr {server} tcp dport 53 accept\n")
            })
            .collect();
        let egress = if self.egress { "accept" } else { "drop" };
        let _ = write!(
            text,
            "table ip {bridge} {{\n\
             chain input {{\n\
             type filter hook input priority -10; policy accept;\n\
             iifname != \"{bridge}\" accept\n\
             ct state established,related accept\n\
             {names}\
             drop\n\
             }}\n\
             chain forward {{\n\
             type filter hook forward priority -10; policy accept;\n\
             iifname \"{bridge}\" oifname \"{bridge}\" accept\n\
             iifname \"{bridge}\" jump leaving\n\
             oifname \"{bridge}\" ct state established,related accept\n\
             oifname \"{bridge}\" drop\n\
             }}\n\
             chain leaving {{\n\
             ip saddr != {range} drop\n\
             ct state established,related accept\n\
             ip daddr 169.254.0.0/16 drop\n\
             {egress}\n\
             }}\n\
             chain postrouting {{\n\
             type nat hook postrouting priority 100; policy accept;\n\
             ip saddr {range} oifname != \"{bridge}\" masquerade\n\
             }}\n\
             }}\n"
        );
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(egress: bool, nameservers: &[Ipv4Addr], guests: &[(&str, [u8; 4])], expected: Expect) {
        let guest = |(tap, address): &(&str, [u8; 4])| TapAddress {
            tap: (*tap).to_owned(),
            address: Ipv4Addr::from(*address),
            bandwidth: PodBandwidth::default(),
        };
        let ruleset = Ruleset {
            names: LinkNames::new(0xabc),
            range: "10.128.7.0/24".parse().expect("a range"),
            egress,
            nameservers: nameservers.to_vec(),
            guests: guests.iter().map(guest).collect(),
        };
        expected.assert_eq(&ruleset.replace());
        assert!(ruleset.replace().starts_with(&Ruleset::begin(ruleset.names)));
    }

    #[test]
    fn without_guests_and_egress() {
        check(
            false,
            &[],
            &[],
            expect![[r#"
            add table bridge bulkhead0000abc
            delete table bridge bulkhead0000abc
            add table ip bulkhead0000abc
            delete table ip bulkhead0000abc
            table bridge bulkhead0000abc {
            set guests {
            typeof iifname . ether saddr . ip saddr
            }
            chain prerouting {
            type filter hook prerouting priority -300; policy accept;
            iifname != "b0000abc*" accept
            ether type ip iifname . ether saddr . ip saddr @guests accept
            ether type arp iifname . ether saddr . arp saddr ip @guests iifname . arp saddr ether . arp saddr ip @guests accept
            drop
            }
            }
            table ip bulkhead0000abc {
            chain input {
            type filter hook input priority -10; policy accept;
            iifname != "bulkhead0000abc" accept
            ct state established,related accept
            drop
            }
            chain forward {
            type filter hook forward priority -10; policy accept;
            iifname "bulkhead0000abc" oifname "bulkhead0000abc" accept
            iifname "bulkhead0000abc" jump leaving
            oifname "bulkhead0000abc" ct state established,related accept
            oifname "bulkhead0000abc" drop
            }
            chain leaving {
            ip saddr != 10.128.7.0/24 drop
            ct state established,related accept
            ip daddr 169.254.0.0/16 drop
            drop
            }
            chain postrouting {
            type nat hook postrouting priority 100; policy accept;
            ip saddr 10.128.7.0/24 oifname != "bulkhead0000abc" masquerade
            }
            }
        "#]],
        );
    }

    #[test]
    fn with_guests_in_order() {
        let guests = [("b0000abcbbbbbbb", [10, 128, 7, 3]), ("b0000abcaaaaaaa", [10, 128, 7, 2])];
        check(
            true,
            &[Ipv4Addr::new(192, 0, 2, 1)],
            &guests,
            expect![[r#"
            add table bridge bulkhead0000abc
            delete table bridge bulkhead0000abc
            add table ip bulkhead0000abc
            delete table ip bulkhead0000abc
            table bridge bulkhead0000abc {
            set guests {
            typeof iifname . ether saddr . ip saddr
            elements = { "b0000abcaaaaaaa" . 0a:58:0a:80:07:02 . 10.128.7.2, "b0000abcbbbbbbb" . 0a:58:0a:80:07:03 . 10.128.7.3 }
            }
            chain prerouting {
            type filter hook prerouting priority -300; policy accept;
            iifname != "b0000abc*" accept
            ether type ip iifname . ether saddr . ip saddr @guests accept
            ether type arp iifname . ether saddr . arp saddr ip @guests iifname . arp saddr ether . arp saddr ip @guests accept
            drop
            }
            }
            table ip bulkhead0000abc {
            chain input {
            type filter hook input priority -10; policy accept;
            iifname != "bulkhead0000abc" accept
            ct state established,related accept
            ip daddr 192.0.2.1 udp dport 53 accept
            ip daddr 192.0.2.1 tcp dport 53 accept
            drop
            }
            chain forward {
            type filter hook forward priority -10; policy accept;
            iifname "bulkhead0000abc" oifname "bulkhead0000abc" accept
            iifname "bulkhead0000abc" jump leaving
            oifname "bulkhead0000abc" ct state established,related accept
            oifname "bulkhead0000abc" drop
            }
            chain leaving {
            ip saddr != 10.128.7.0/24 drop
            ct state established,related accept
            ip daddr 169.254.0.0/16 drop
            accept
            }
            chain postrouting {
            type nat hook postrouting priority 100; policy accept;
            ip saddr 10.128.7.0/24 oifname != "bulkhead0000abc" masquerade
            }
            }
        "#]],
        );
    }
}
