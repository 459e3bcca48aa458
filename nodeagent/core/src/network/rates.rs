//! How fast guests may send and receive: a table of the packet filter of its own, so that it is replaced only when a limit comes
//! or goes. With each replacement every limited guest has its first burst again.
//!
//! ```text
//!  from a tap ─► prerouting  ─ by the tap's name ─► its chain: what is over the rate is dropped
//!  to a tap   ─► postrouting ─ by the tap's name ─► its chain: what is over the rate is dropped
//! ```
//! A guest without limits has no chain, and costs one look at a map. Whom a frame of a wrong address pretends to come from is not
//! charged for it: those are dropped before.
//!
//! Sources: nft(8), "LIMIT STATEMENT"; the kernel's `nft_limit`: what may come at once is a second's worth and the burst.

use std::fmt::Write as _;

use bulkhead_types::PodBandwidth;

use super::{LinkNames, Ruleset, TapAddress};

/// What may come at once beside a second's worth, in bytes: the largest packet that a guest's card hands over, or none of these
/// would ever pass a low limit.
pub const BURST_BYTES: u64 = 64 << 10;
/// From this rate on there is no limit, in bytes per second: the kernel counts nanoseconds times bytes in 64 bits. No tap comes near it.
pub const UNLIMITED_BYTES_PER_SECOND: u64 = 10_000_000_000;

/// One direction.
struct Direction {
    /// What the names of its chains end with.
    suffix: &'static str,
    /// Its base chain.
    hook: &'static str,
    /// After the check of addresses, and after what others of the machine do.
    priority: i32,
    /// Which side of a frame's way the tap is on.
    side: &'static str,
    /// What is said of it, in bits per second.
    limit: fn(PodBandwidth) -> Option<u64>,
}

const DIRECTIONS: [Direction; 2] = [
    Direction {
        suffix: "from",
        hook: "prerouting",
        priority: -290,
        side: "iifname",
        limit: |bandwidth| bandwidth.egress_bits_per_second,
    },
    Direction {
        suffix: "to",
        hook: "postrouting",
        priority: 290,
        side: "oifname",
        limit: |bandwidth| bandwidth.ingress_bits_per_second,
    },
];

impl LinkNames {
    /// The table of limits.
    #[must_use]
    pub fn rates_table(self) -> String {
        format!("{}-rates", self.bridge())
    }
}

impl Ruleset {
    /// A file for `nft -f` that puts these limits in place of those that the agent had, in one transaction.
    #[must_use]
    pub fn replace_rates(&self) -> String {
        let mut text = Self::remove_rates(self.names);
        let mut guests = self.guests.clone();
        guests.sort();
        let limits = DIRECTIONS.map(|direction| {
            let limit = |guest: &'_ TapAddress| bytes_per_second((direction.limit)(guest.bandwidth)?);
            guests.iter().filter_map(|guest| Some((guest.tap.clone(), limit(guest)?))).collect::<Vec<_>>()
        });
        if limits.iter().all(Vec::is_empty) {
            return text;
        }
        let _ = writeln!(text, "table bridge {} {{", self.names.rates_table());
        for (direction, limits) in DIRECTIONS.iter().zip(&limits).filter(|(_, limits)| !limits.is_empty()) {
            direction.chains(limits, &mut text);
        }
        text.push_str("}\n");
        text
    }

    /// A table can be deleted only where it is; one that is there may be added.
    pub(super) fn remove_rates(names: LinkNames) -> String {
        let table = names.rates_table();
        format!("add table bridge {table}\ndelete table bridge {table}\n")
    }
}

impl Direction {
    fn chains(&self, limits: &[(String, u64)], text: &mut String) {
        let Self { suffix, hook, priority, side, limit: _ } = self;
        for (tap, rate) in limits {
            let _ = write!(
                text,
                "chain {tap}-{suffix} {{\nlimit rate over {rate} bytes/second burst {BURST_BYTES} bytes drop\n}}\n"
            );
        }
        let jumps: Vec<String> =
            limits.iter().map(|(tap, _)| format!("\"{tap}\" : jump {tap}-{suffix}")).collect();
        let _ = write!(
            text,
            "chain {hook} {{\ntype filter hook {hook} priority {priority}; policy accept;\n\
             {side} vmap {{ {} }}\n}}\n",
            jumps.join(", ")
        );
    }
}

/// The filter's measure, rounded up; `None` where there is no limit.
fn bytes_per_second(bits_per_second: u64) -> Option<u64> {
    Some(bits_per_second.div_ceil(8)).filter(|bytes| *bytes < UNLIMITED_BYTES_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(guests: &[(&str, Option<u64>, Option<u64>)], expected: Expect) {
        let guest = |(tap, ingress, egress): &(&str, Option<u64>, Option<u64>)| TapAddress {
            tap: (*tap).to_owned(),
            address: [10, 128, 7, 2].into(),
            bandwidth: PodBandwidth { ingress_bits_per_second: *ingress, egress_bits_per_second: *egress },
        };
        let ruleset = Ruleset {
            names: LinkNames::new(0xabc),
            range: "10.128.7.0/24".parse().expect("a range"),
            egress: true,
            nameservers: vec![],
            guests: guests.iter().map(guest).collect(),
        };
        expected.assert_eq(&ruleset.replace_rates());
        let unlimited = Ruleset { guests: vec![], ..ruleset.clone() };
        assert!(ruleset.replace_rates().starts_with(&unlimited.replace_rates()));
        assert!(Ruleset::remove(ruleset.names).ends_with(&unlimited.replace_rates()));
    }

    #[test]
    fn nobody_is_limited() {
        let far_beyond = ("b0000abcaaaaaaa", Some(80_000_000_000), Some(1_000_000_000_000_000));
        for guests in [vec![], vec![("b0000abcaaaaaaa", None, None)], vec![far_beyond]] {
            check(
                &guests,
                expect![[r#"
                add table bridge bulkhead0000abc-rates
                delete table bridge bulkhead0000abc-rates
            "#]],
            );
        }
    }

    #[test]
    fn each_direction_has_its_limits() {
        check(
            &[
                ("b0000abcccccccc", Some(10_000_000), Some(1_001)),
                ("b0000abcbbbbbbb", None, None),
                ("b0000abcaaaaaaa", Some(79_000_000_000), None),
            ],
            expect![[r#"
                add table bridge bulkhead0000abc-rates
                delete table bridge bulkhead0000abc-rates
                table bridge bulkhead0000abc-rates {
                chain b0000abcccccccc-from {
                limit rate over 126 bytes/second burst 65536 bytes drop
                }
                chain prerouting {
                type filter hook prerouting priority -290; policy accept;
                iifname vmap { "b0000abcccccccc" : jump b0000abcccccccc-from }
                }
                chain b0000abcaaaaaaa-to {
                limit rate over 9875000000 bytes/second burst 65536 bytes drop
                }
                chain b0000abcccccccc-to {
                limit rate over 1250000 bytes/second burst 65536 bytes drop
                }
                chain postrouting {
                type filter hook postrouting priority 290; policy accept;
                oifname vmap { "b0000abcaaaaaaa" : jump b0000abcaaaaaaa-to, "b0000abcccccccc" : jump b0000abcccccccc-to }
                }
                }
            "#]],
        );
    }

    #[test]
    fn one_direction_has_one_chain() {
        check(
            &[("b0000abcaaaaaaa", None, Some(1_000))],
            expect![[r#"
            add table bridge bulkhead0000abc-rates
            delete table bridge bulkhead0000abc-rates
            table bridge bulkhead0000abc-rates {
            chain b0000abcaaaaaaa-from {
            limit rate over 125 bytes/second burst 65536 bytes drop
            }
            chain prerouting {
            type filter hook prerouting priority -290; policy accept;
            iifname vmap { "b0000abcaaaaaaa" : jump b0000abcaaaaaaa-from }
            }
            }
        "#]],
        );
    }

    #[test]
    fn the_kernel_can_count_what_is_limited() {
        // nft_limit's own sum: nanoseconds of a second times what may come at once.
        let bucket = UNLIMITED_BYTES_PER_SECOND - 1 + BURST_BYTES;
        assert!(bucket.checked_mul(1_000_000_000).is_some());
        assert_eq!(bytes_per_second(u64::MAX), None);
    }
}
