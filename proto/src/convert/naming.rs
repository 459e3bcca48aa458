//! How pods are called, and whom they ask for names.

use bulkhead_types::{DnsConfig, DnsOption, DnsPolicy, HostAlias, PodNaming};

use super::{wire_enum, wire_field, wire_struct};
use crate::v1;

wire_enum!(DnsPolicy { ClusterFirst, Default, None, ClusterFirstWithHostNet });

wire_struct!(PodNaming => v1::PodNaming {
    dns_policy, dns_config, host_aliases, subdomain, hostname_is_fqdn,
});
wire_struct!(DnsConfig => v1::DnsConfig { nameservers, searches, options });
wire_struct!(DnsOption => v1::DnsOption { name, value });
wire_struct!(HostAlias => v1::HostAlias { ip, hostnames });

wire_field! {
    PodNaming => v1::PodNaming,
    DnsConfig => v1::DnsConfig,
    DnsOption => v1::DnsOption,
    HostAlias => v1::HostAlias,
}
