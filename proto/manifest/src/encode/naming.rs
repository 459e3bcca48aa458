//! How pods are called, and whom they ask for names, as values.

use bulkhead_types::{DnsConfig, DnsOption, DnsPolicy, HostAlias, PodNaming};
use serde_json::Value;

use super::Fields;

/// What a pod's spec says of names beside its host name, set in its map.
pub(super) fn naming(fields: Fields, naming: Option<&PodNaming>) -> Fields {
    let Some(naming) = naming else { return fields };
    let policy = naming.dns_policy.map(|policy| match policy {
        DnsPolicy::ClusterFirst => "ClusterFirst",
        DnsPolicy::Default => "Default",
        DnsPolicy::None => "None",
        DnsPolicy::ClusterFirstWithHostNet => "ClusterFirstWithHostNet",
    });
    let alias = |alias: &HostAlias| {
        Fields::new()
            .text("ip", &alias.ip.to_string())
            .list("hostnames", alias.hostnames.iter().map(|name| name.as_str().into()))
            .finish()
    };
    fields
        .optional("dnsPolicy", policy)
        .maybe("dnsConfig", naming.dns_config.as_ref().map(dns_config))
        .list("hostAliases", naming.host_aliases.iter().map(alias))
        .optional("subdomain", naming.subdomain.as_deref())
        .maybe("setHostnameAsFQDN", naming.hostname_is_fqdn.then_some(Value::Bool(true)))
}

fn dns_config(config: &DnsConfig) -> Value {
    let option = |option: &DnsOption| {
        Fields::new().text("name", &option.name).optional("value", option.value.as_deref()).finish()
    };
    Fields::new()
        .list("nameservers", config.nameservers.iter().map(|ip| ip.to_string().into()))
        .list("searches", config.searches.iter().map(|one| one.as_str().into()))
        .list("options", config.options.iter().map(option))
        .finish()
}
