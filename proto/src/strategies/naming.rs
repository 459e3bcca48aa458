//! How pods are called, and whom they ask for names.

use std::net::IpAddr;

use super::*;

fn dns_policy() -> impl Strategy<Value = DnsPolicy> + Clone {
    use DnsPolicy::{ClusterFirst, ClusterFirstWithHostNet, Default, None};
    select(vec![ClusterFirst, Default, None, ClusterFirstWithHostNet])
}

record!(/// Any option of a resolver.
    dns_option: DnsOption { name: text(), value: of(text()) });
record!(/// Any resolver.
    dns_config: DnsConfig { nameservers: vec(any::<IpAddr>(), 0..2), searches: vec(text(), 0..2),
    options: vec(dns_option(), 0..2) });
record!(/// Any names of an address.
    host_alias: HostAlias { ip: any::<IpAddr>(), hostnames: vec(small(), 0..2) });
record!(/// Any naming.
    pod_naming: PodNaming { dns_policy: of(dns_policy()), dns_config: of(dns_config()),
    host_aliases: vec(host_alias(), 0..2), subdomain: of(small()), hostname_is_fqdn: any::<bool>() });
