//! How a pod is called, and whom it asks for names.
//!
//! Source: "DNS for Services and Pods" and "Adding entries to Pod /etc/hosts with HostAliases" in the Kubernetes documentation; the
//! kubelet's `dns.Configurer` for how the parts are put together.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::PodSpec;

/// The domain in whose names pods with a subdomain are: `HOSTNAME.SUBDOMAIN.NAMESPACE.svc.cluster.local`.
pub const CLUSTER_DOMAIN: &str = "cluster.local";
/// Longest host name that a kernel takes, in bytes (`HOST_NAME_MAX`).
pub const HOST_NAME_BYTES_MAX: usize = 64;
/// Most name servers of a pod (Kubernetes' `MaxDNSNameservers`).
pub const DNS_NAMESERVERS_MAX: usize = 3;
/// Most search domains of a pod (Kubernetes' `MaxDNSSearchPaths`).
pub const DNS_SEARCHES_MAX: usize = 32;
/// Most bytes of all search domains with the blanks between them (Kubernetes' `MaxDNSSearchListChars`).
pub const DNS_SEARCH_BYTES_MAX: usize = 2048;
/// Most options of a resolver.
pub const DNS_OPTIONS_MAX: usize = 16;
/// Most entries of a pod's `hostAliases`, and most names of each.
pub const HOST_ALIASES_MAX: usize = 64;

/// Where a pod's resolver comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DnsPolicy {
    /// The cluster's; there is none, so the node's, as in a Kubernetes cluster whose kubelets are told none.
    ClusterFirst = 1,
    /// The node's.
    Default = 2,
    /// Only what the pod says.
    None = 3,
    /// As `ClusterFirst`: no pod is in its node's network.
    ClusterFirstWithHostNet = 4,
}

/// An option of a resolver.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DnsOption {
    /// Its name, such as `ndots`.
    pub name: String,
    /// Its value, where it has one.
    pub value: Option<String>,
}

/// What is added to a pod's resolver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DnsConfig {
    /// Asked after those of the policy.
    pub nameservers: Vec<IpAddr>,
    /// Tried after those of the policy.
    pub searches: Vec<String>,
    /// One of a name that the policy has too takes its place.
    pub options: Vec<DnsOption>,
}

/// Names of an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HostAlias {
    /// The address.
    pub ip: IpAddr,
    /// Its names.
    pub hostnames: Vec<SmolStr>,
}

/// How a pod is called, and whom it asks for names. Needs [`crate::POD_DNS_LEVEL`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodNaming {
    /// Where its resolver comes from; `ClusterFirst` when unset.
    pub dns_policy: Option<DnsPolicy>,
    /// What is added to that.
    pub dns_config: Option<DnsConfig>,
    /// Lines of its containers' /etc/hosts.
    pub host_aliases: Vec<HostAlias>,
    /// With it the pod has a domain, and so a full name.
    pub subdomain: Option<SmolStr>,
    /// The host name is the full name.
    pub hostname_is_fqdn: bool,
}

impl PodSpec {
    /// How the pod is called, as far as it says more than its host name.
    #[must_use]
    pub fn naming(&self) -> Option<&PodNaming> {
        self.options.get()?.naming.get()
    }

    /// The full name of a pod; none without a subdomain.
    #[must_use]
    pub fn fqdn(&self, namespace: &str, pod: &str) -> Option<String> {
        let subdomain = self.naming()?.subdomain.as_ref()?;
        let hostname = self.hostname.as_deref().unwrap_or(pod);
        Some(format!("{hostname}.{subdomain}.{namespace}.svc.{CLUSTER_DOMAIN}"))
    }

    /// The host name of a pod.
    ///
    /// # Errors
    /// It shall be the full name, and that is too long for a kernel; in Kubernetes' words.
    pub fn host_name(&self, namespace: &str, pod: &str) -> Result<String, String> {
        let short = self.hostname.as_deref().unwrap_or(pod);
        let is_full = self.naming().is_some_and(|naming| naming.hostname_is_fqdn);
        let Some(full) = self.fqdn(namespace, pod).filter(|_| is_full) else { return Ok(short.to_owned()) };
        if full.len() > HOST_NAME_BYTES_MAX {
            return Err(format!(
                "Failed to construct FQDN from Pod hostname and cluster domain, FQDN {full} is too long \
                 ({HOST_NAME_BYTES_MAX} characters is the max, {} characters requested)",
                full.len()
            ));
        }
        Ok(full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PodOptions, Rare};

    fn check(hostname: Option<&str>, subdomain: Option<&str>, is_fqdn: bool, expected: (&str, Option<&str>)) {
        let naming = PodNaming {
            subdomain: subdomain.map(Into::into),
            hostname_is_fqdn: is_fqdn,
            ..PodNaming::default()
        };
        let options = PodOptions { naming: Rare::some(naming), ..PodOptions::default() };
        let spec = PodSpec {
            hostname: hostname.map(Into::into),
            options: Rare::some(options),
            ..PodSpec::default()
        };
        let found = spec.host_name("shop", "web-0").unwrap_or_else(|error| format!("! {error}"));
        assert_eq!((found.as_str(), spec.fqdn("shop", "web-0").as_deref()), expected);
    }

    #[test]
    fn names_are_kubernetes() {
        check(None, None, false, ("web-0", None));
        check(None, None, true, ("web-0", None));
        check(Some("a"), Some("front"), false, ("a", Some("a.front.shop.svc.cluster.local")));
        let full = "web-0.front.shop.svc.cluster.local";
        check(None, Some("front"), true, (full, Some(full)));
        let long = format!("{}.front.shop.svc.cluster.local", "a".repeat(36));
        check(
            Some(&"a".repeat(36)),
            Some("front"),
            true,
            (
                &format!(
                    "! Failed to construct FQDN from Pod hostname and cluster domain, FQDN {long} is too long \
                     (64 characters is the max, 65 characters requested)"
                ),
                Some(&long),
            ),
        );
    }
}
