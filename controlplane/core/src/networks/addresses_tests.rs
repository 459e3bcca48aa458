//! Tests of [`super`]: fixtures of whereabouts' rules, and a model.

use std::collections::BTreeMap;

use bulkhead_types::IpCidr;
use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn cidr(text: &str) -> IpCidr {
    IpCidr::parse(text).expect("a network")
}

fn ipam(range: &str, start: &str, end: &str, exclude: &[&str], gateway: &str) -> Ipam {
    let optional = |text: &str| (!text.is_empty()).then(|| ip(text));
    Ipam {
        range: cidr(range),
        range_start: optional(start),
        range_end: optional(end),
        exclude: exclude.iter().map(|text| cidr(text)).collect(),
        gateway: optional(gateway),
        routes: Default::default(),
    }
}

/// What is given out, one after the other: the first three, the last, and how many.
fn check(ipam: &Ipam, first: &[&str], last: &str, count: usize) {
    let mut addresses = Addresses::default();
    let mut given = Vec::new();
    while let Some(address) = addresses.lowest_free(ipam) {
        assert!(may_give(ipam, address), "{address}");
        assert!(addresses.take(address, ObjectId(1)), "{address} twice");
        given.push(address.to_string());
        assert!(given.len() <= count, "more than {count}: {address}");
    }
    assert_eq!(given.len(), count);
    assert_eq!(given.iter().take(first.len()).collect::<Vec<_>>(), first);
    assert_eq!(given.last().map_or("", String::as_str), last);
    assert!(addresses.runs.len() <= 1 + ipam.exclude.len() + 1, "runs without gaps are one");
}

#[test]
fn ranges_give_out_what_whereabouts_would() {
    // The product's sample.
    let sample = ipam("192.168.100.0/24", "", "", &["192.168.100.0/26"], "192.168.100.1");
    check(&sample, &["192.168.100.64", "192.168.100.65"], "192.168.100.254", 191);
    check(&ipam("10.0.0.0/30", "", "", &[], ""), &["10.0.0.1", "10.0.0.2"], "10.0.0.2", 2);
    check(&ipam("10.0.0.0/30", "", "", &[], "10.0.0.1"), &["10.0.0.2"], "10.0.0.2", 1);
    check(&ipam("10.0.0.0/30", "", "", &["10.0.0.0/30"], ""), &[], "", 0);
    let part = ipam("10.0.0.0/24", "10.0.0.10", "10.0.0.13", &["10.0.0.12/32"], "");
    check(&part, &["10.0.0.10", "10.0.0.11", "10.0.0.13"], "10.0.0.13", 3);
    // The bounds may be the network's own and its broadcast: those are never given out.
    check(&ipam("10.0.0.0/29", "10.0.0.0", "10.0.0.7", &[], ""), &["10.0.0.1"], "10.0.0.6", 6);
    check(&ipam("fd00::/126", "", "", &[], ""), &["fd00::1", "fd00::2"], "fd00::2", 2);
    let nested = ipam("10.0.0.0/24", "", "", &["10.0.0.0/25", "10.0.0.64/26", "10.0.0.128/26"], "10.0.0.200");
    check(&nested, &["10.0.0.192"], "10.0.0.254", 62);
    let top = ipam("255.255.255.248/29", "", "", &["255.255.255.252/30"], "");
    check(&top, &["255.255.255.249"], "255.255.255.251", 3);
}

#[test]
fn the_size_of_a_range_costs_nothing() {
    for range in ["10.0.0.0/8", "fd00::/64", "0.0.0.0/0", "::/0"] {
        let ipam = ipam(range, "", "", &[], "");
        let mut addresses = Addresses::default();
        for pod in 1..=2000 {
            let address = addresses.lowest_free(&ipam).expect("it is large");
            addresses.take(address, ObjectId(pod));
        }
        assert_eq!((addresses.runs.len(), addresses.len()), (1, 2000), "{range}");
    }
}

/// Networks that overlap, of both families.
fn networks() -> Vec<Ipam> {
    vec![
        ipam("10.0.0.0/28", "", "", &["10.0.0.4/31"], "10.0.0.1"),
        ipam("10.0.0.0/27", "10.0.0.8", "", &[], ""),
        ipam("fd00::/124", "", "fd00::9", &["fd00::2/127"], "fd00::5"),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// The model is a map of who has what, and a walk over every address of a range.
    #[test]
    fn law_never_double_never_excluded_never_lost(steps in proptest::collection::vec((0usize..3, any::<u8>(), any::<bool>()), 1..120)) {
        let networks = networks();
        let (mut addresses, mut model) = (Addresses::default(), BTreeMap::<IpAddr, ObjectId>::new());
        for (number, (network, which, takes)) in (1u64..).zip(steps) {
            let ipam = &networks[network];
            if takes {
                let (first, last) = (ip_to_bits(ipam.range.first()), ip_to_bits(ipam.range.last()));
                let mut walk = (first..=last).map(|bits| ip_from_bits(bits, ipam.range.first()));
                let expected = walk.find(|address| {
                    let is_in = |start: Option<IpAddr>, end: Option<IpAddr>| {
                        start.is_none_or(|start| start <= *address) && end.is_none_or(|end| *address <= end)
                    };
                    *address != ipam.range.first()
                        && *address != ipam.range.last()
                        && is_in(ipam.range_start, ipam.range_end)
                        && ipam.gateway != Some(*address)
                        && !ipam.exclude.iter().any(|cidr| cidr.contains(*address))
                        && !model.contains_key(address)
                });
                prop_assert_eq!(addresses.lowest_free(ipam), expected);
                if let Some(address) = expected {
                    prop_assert!(addresses.take(address, ObjectId(number)));
                    prop_assert!(!addresses.take(address, ObjectId(0)));
                    model.insert(address, ObjectId(number));
                }
            } else if let Some((address, pod)) = model.iter().nth(which as usize % model.len().max(1)).map(|(a, p)| (*a, *p)) {
                addresses.release(address, ObjectId(0));
                prop_assert_eq!(addresses.holder(address), Some(pod), "it is another pod's");
                addresses.release(address, pod);
                model.remove(&address);
            }
            prop_assert_eq!(addresses.len(), model.len());
            for (address, pod) in &model {
                prop_assert_eq!(addresses.holder(*address), Some(*pod));
            }
            let held: u128 = addresses.runs.iter().map(|((_, first), last)| last - first + 1).sum();
            prop_assert_eq!(held, model.len() as u128);
        }
        for (address, pod) in model {
            addresses.release(address, pod);
        }
        prop_assert_eq!(addresses, Addresses::default());
    }
}
