//! How a pod is called, and whom it asks for names.

use std::net::IpAddr;

use bulkhead_types::{DnsConfig, DnsOption, DnsPolicy, HostAlias, PodNaming, Rare};

use super::decoder::{Decoder, Fields, Schema};
use crate::tree::Node;

const POLICIES: [(&str, DnsPolicy); 4] = [
    ("ClusterFirst", DnsPolicy::ClusterFirst),
    ("Default", DnsPolicy::Default),
    ("None", DnsPolicy::None),
    ("ClusterFirstWithHostNet", DnsPolicy::ClusterFirstWithHostNet),
];
const CONFIG: Schema = Schema { known: &["nameservers", "searches", "options"], ..Schema::EMPTY };
const OPTION: Schema = Schema { known: &["name", "value"], ..Schema::EMPTY };
const ALIAS: Schema = Schema { known: &["ip", "hostnames"], ..Schema::EMPTY };

/// What a pod's spec says of names beside its host name.
pub(super) fn naming(d: &mut Decoder<'_>, pod: &Fields<'_>) -> Rare<PodNaming> {
    let policy = d.choice(pod, "dnsPolicy", &POLICIES);
    let config = pod.get("dnsConfig").and_then(|node| dns_config(d, node, &pod.path("dnsConfig")));
    Rare::unless_default(PodNaming {
        // The default is not written down, so that a manifest that says it is one that does not.
        dns_policy: policy.filter(|policy| *policy != DnsPolicy::ClusterFirst),
        dns_config: config,
        host_aliases: d.each(pod, "hostAliases", alias),
        subdomain: d.text(pod, "subdomain").filter(|name| !name.is_empty()).map(Into::into),
        hostname_is_fqdn: d.boolean(pod, "setHostnameAsFQDN").unwrap_or_default(),
    })
}

fn dns_config(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<DnsConfig> {
    let fields = d.fields(node, path, &CONFIG)?;
    let mut nameservers = Vec::new();
    let list_path = fields.path("nameservers");
    for (index, item) in d.list(&fields, "nameservers").unwrap_or_default().iter().enumerate() {
        nameservers.extend(address(d, item, &format!("{list_path}[{index}]")));
    }
    Some(DnsConfig {
        nameservers,
        searches: d.texts(&fields, "searches"),
        options: d.each(&fields, "options", |d, node, path| {
            let fields = d.fields(node, path, &OPTION)?;
            let value = d.text(&fields, "value");
            // Whether there is a name is for the validation to say.
            Some(DnsOption { name: d.text(&fields, "name").unwrap_or_default(), value })
        }),
    })
}

fn alias(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<HostAlias> {
    let fields = d.fields(node, path, &ALIAS)?;
    let hostnames = d.texts(&fields, "hostnames").into_iter().map(Into::into).collect();
    let Some(ip) = fields.get("ip") else {
        d.missing(&fields, "ip");
        return None;
    };
    Some(HostAlias { ip: address(d, ip, &fields.path("ip"))?, hostnames })
}

/// An address, or Kubernetes' word that it is none.
fn address(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<IpAddr> {
    let text = d.text_of(node, path)?;
    let found = text.parse().ok();
    if found.is_none() {
        d.fail(node.place, path, format!("{text:?} must be valid IP address"));
    }
    found
}
