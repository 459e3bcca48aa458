//! Which name servers a node asks, and so its guests: resolv.conf(5).

use std::net::{IpAddr, Ipv4Addr};

use bulkhead_types::{
    DNS_NAMESERVERS_MAX as NAMESERVERS_MAX, DNS_SEARCH_BYTES_MAX as SEARCH_BYTES_MAX,
    DNS_SEARCHES_MAX as SEARCHES_MAX, DnsPolicy, PodNaming,
};

/// Longest file that is looked at, in lines, and most options of it.
const LINES_MAX: usize = 1024;
const OPTIONS_MAX: usize = 16;

/// What a resolver does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolver {
    /// Whom it asks.
    pub nameservers: Vec<Ipv4Addr>,
    /// What it tries to append to names.
    pub searches: Vec<String>,
    /// Further options, such as `ndots:5`.
    pub options: Vec<String>,
    /// Name servers that guests cannot ask: of the host's own loopback, or by IPv6.
    pub unusable: Vec<IpAddr>,
}

impl Resolver {
    /// What a resolv.conf says, without what a guest has no use for. Lines that say nothing are passed over, as the resolver does.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines().take(LINES_MAX) {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let address = words.next().unwrap_or_default();
                    // fe80::1%eth0 has a zone, which means nothing in a guest.
                    let address = address.split('%').next().unwrap_or_default();
                    found.add_server(address.parse().ok());
                }
                // The last one counts.
                Some("search") => found.searches = bounded(words),
                Some("domain") => found.searches = bounded(words.take(1)),
                Some("options") => {
                    let room = OPTIONS_MAX.saturating_sub(found.options.len());
                    found.options.extend(words.take(room).map(str::to_owned));
                }
                _ => {}
            }
        }
        found
    }

    fn add_server(&mut self, address: Option<IpAddr>) {
        let Some(address) = address else { return };
        let usable = match address {
            IpAddr::V4(address) if !address.is_loopback() && !address.is_unspecified() => address,
            other => return self.unusable.push(other),
        };
        if self.nameservers.len() < NAMESERVERS_MAX && !self.nameservers.contains(&usable) {
            self.nameservers.push(usable);
        }
    }
}

/// What a pod's containers do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodResolver {
    /// Whom they ask.
    pub nameservers: Vec<IpAddr>,
    /// What they try to append to names.
    pub searches: Vec<String>,
    /// Further options, such as `ndots:5`.
    pub options: Vec<String>,
}

impl PodResolver {
    /// What the policy gives, and what the pod adds to it, as the kubelet puts it together: without repetitions, a pod's option in
    /// the place of the node's of that name, and no more than resolvers take. There is no DNS of the cluster, so that the policies
    /// that want it get the node's, as with a kubelet that knows none. `node` is `None` for a guest that cannot reach the node's.
    #[must_use]
    pub fn of(node: Option<&Resolver>, naming: Option<&PodNaming>) -> Self {
        let is_none = naming.is_some_and(|naming| naming.dns_policy == Some(DnsPolicy::None));
        let mut found = node.filter(|_| !is_none).map(Self::from).unwrap_or_default();
        if let Some(config) = naming.and_then(|naming| naming.dns_config.as_ref()) {
            add(&mut found.nameservers, &config.nameservers);
            add(&mut found.searches, &config.searches);
            for option in &config.options {
                found.options.retain(|word| word.split(':').next() != Some(option.name.as_str()));
                let value = option.value.iter().map(|value| format!(":{value}"));
                found.options.push(option.name.clone() + &value.collect::<String>());
            }
        }
        found.nameservers.truncate(NAMESERVERS_MAX);
        found.searches = bounded(found.searches.iter().map(String::as_str));
        found
    }
}

impl From<&Resolver> for PodResolver {
    fn from(node: &Resolver) -> Self {
        Self {
            nameservers: node.nameservers.iter().copied().map(IpAddr::V4).collect(),
            searches: node.searches.clone(),
            options: node.options.clone(),
        }
    }
}

/// Adds what is not there yet.
fn add<T: Clone + PartialEq>(all: &mut Vec<T>, further: &[T]) {
    for one in further {
        if !all.contains(one) {
            all.push(one.clone());
        }
    }
}

fn bounded<'a>(words: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut bytes = 0;
    let fits = |word: &&str| {
        bytes += word.len() + 1;
        bytes <= SEARCH_BYTES_MAX
    };
    words.take(SEARCHES_MAX).take_while(fits).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, nameservers: &[[u8; 4]], searches: &[&str], options: &[&str], unusable: usize) {
        let found = Resolver::parse(text);
        let expected: Vec<_> = nameservers.iter().map(|ip| Ipv4Addr::from(*ip)).collect();
        assert_eq!(found.nameservers, expected, "{text}");
        assert_eq!(
            (found.searches, found.options),
            (
                searches.iter().map(|s| (*s).to_owned()).collect(),
                options.iter().map(|s| (*s).to_owned()).collect()
            ),
            "{text}"
        );
        assert_eq!(found.unusable.len(), unusable, "{text}");
    }

    #[test]
    fn what_a_guest_can_use_of_the_hosts_file() {
        check("", &[], &[], &[], 0);
        check(
            "# made by\nnameserver 10.0.0.2 # first\nnameserver 10.0.0.2\nsearch a.b b\noptions ndots:5 rotate\n",
            &[[10, 0, 0, 2]],
            &["a.b", "b"],
            &["ndots:5", "rotate"],
            0,
        );
        // systemd-resolved's stub, and one by IPv6.
        check("nameserver 127.0.0.53\nnameserver fe80::1%eth0\noptions edns0", &[], &[], &["edns0"], 2);
        check("search a\ndomain b c\nnameserver x\nnameserver", &[], &["b"], &[], 0);
        check(
            "nameserver 1.1.1.1\nnameserver 2.2.2.2\nnameserver 3.3.3.3\nnameserver 4.4.4.4",
            &[[1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]],
            &[],
            &[],
            0,
        );
        let many = format!("search {}", "x".repeat(3000));
        check(&many, &[], &[], &[], 0);
    }

    /// From this node and what the pod says, to the lines of its file.
    fn check_pod(policy: Option<DnsPolicy>, config: (&[&str], &[&str], &[&str]), expected: &[&str]) {
        let node = Resolver::parse(
            "nameserver 10.0.0.2\nnameserver 10.0.0.3\nsearch a.b b\noptions ndots:5 rotate\n",
        );
        let (nameservers, searches, options) = config;
        let option = |word: &&str| {
            let (name, value) =
                word.split_once(':').map_or((*word, None), |(name, value)| (name, Some(value)));
            bulkhead_types::DnsOption { name: name.to_owned(), value: value.map(str::to_owned) }
        };
        let config = bulkhead_types::DnsConfig {
            nameservers: nameservers.iter().map(|ip| ip.parse().expect("an address")).collect(),
            searches: searches.iter().map(|one| (*one).to_owned()).collect(),
            options: options.iter().map(option).collect(),
        };
        let naming = PodNaming { dns_policy: policy, dns_config: Some(config), ..PodNaming::default() };
        let found = PodResolver::of(Some(&node), Some(&naming));
        let servers: Vec<String> = found.nameservers.iter().map(ToString::to_string).collect();
        let lines = [servers.join(" "), found.searches.join(" "), found.options.join(" ")];
        assert_eq!(lines, expected, "{policy:?}");
    }

    #[test]
    fn a_pods_resolver_is_put_together_as_the_kubelet_does() {
        use DnsPolicy::{ClusterFirst, ClusterFirstWithHostNet, Default, None as Nothing};
        let node = ["10.0.0.2 10.0.0.3", "a.b b", "ndots:5 rotate"];
        for policy in [None, Some(ClusterFirst), Some(Default), Some(ClusterFirstWithHostNet)] {
            check_pod(policy, (&[], &[], &[]), &node);
        }
        check_pod(Some(Nothing), (&["fd00::2"], &["c"], &["ndots:2"]), &["fd00::2", "c", "ndots:2"]);
        check_pod(
            None,
            (&["10.0.0.3", "1.1.1.1", "8.8.8.8"], &["b", "c"], &["ndots:1", "timeout:2", "edns0"]),
            &["10.0.0.2 10.0.0.3 1.1.1.1", "a.b b c", "rotate ndots:1 timeout:2 edns0"],
        );
        // A guest without a network of its node asks only whom the pod names.
        assert_eq!(PodResolver::of(None, None), PodResolver::default());
    }
}
