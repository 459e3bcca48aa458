//! A pod's part of the network: its card, its address and what it is told of names.

use bulkhead_guest_protocol::host::{InterfaceConfig, PodConfig};
use bulkhead_nodeagent_core::network::PodResolver;
use bulkhead_nodeagent_core::{StartVm, reason};
use bulkhead_types::{HOST_IP_PLACE, HostAlias, ObjectId, POD_IP_PLACE, PodIntent};

use super::start::StartError;
use crate::host::Host;
use crate::network::{Change, Connection, GuestCard};

/// What connects the guest that is to start; nothing when it has no network.
pub(super) fn connection(host: &Host, start: &StartVm) -> Option<Connection> {
    let network = host.network.as_ref()?;
    Some(network.connection(start.pod.id, start.instance, start.address?))
}

/// Tells the guest its address and name servers, and its containers where they ask for addresses.
pub(super) fn configure(host: &Host, start: &StartVm, config: &mut PodConfig) {
    if let Some(connection) = connection(host, start) {
        config.interfaces.push(InterfaceConfig {
            mac: connection.mac,
            address: connection.cidr,
            gateway: if super::networks::take_default_route(&start.pod) {
                String::new()
            } else {
                connection.gateway.to_string()
            },
            mtu: connection.mtu,
            ..InterfaceConfig::default()
        });
    }
    let node = host.network.as_ref().filter(|_| start.address.is_some()).map(|network| &network.resolver);
    name(&start.pod, PodResolver::of(node, start.pod.spec.naming()), config);
    let text = |address: Option<std::net::IpAddr>| address.map(|ip| ip.to_string()).unwrap_or_default();
    let places = [(POD_IP_PLACE, text(start.address.map(Into::into))), (HOST_IP_PLACE, text(start.host_ip))];
    for container in config.init_containers.iter_mut().chain(&mut config.containers) {
        for word in container.env.iter_mut().chain(&mut container.argv) {
            fill(word, &places);
        }
    }
}

/// Tells the guest whom to ask for names, and which it has itself.
fn name(pod: &PodIntent, resolver: PodResolver, config: &mut PodConfig) {
    config.nameservers = resolver.nameservers.iter().map(ToString::to_string).collect();
    config.search_domains = resolver.searches;
    config.resolver_options = resolver.options;
    config.fqdn = pod.spec.fqdn(pod.namespace.as_str(), pod.name.as_str()).unwrap_or_default();
    let aliases = pod.spec.naming().map_or(&[][..], |naming| &naming.host_aliases);
    let line = |alias: &HostAlias| {
        let ip = std::iter::once(alias.ip.to_string());
        ip.chain(alias.hostnames.iter().map(ToString::to_string)).collect::<Vec<_>>().join("\t")
    };
    // The kubelet's heading.
    let heading = aliases.first().map(|_| "# Entries added by HostAliases.".to_owned());
    config.host_aliases = heading.into_iter().chain(aliases.iter().map(line)).collect();
}

/// Puts addresses where they are wanted.
fn fill(word: &mut String, places: &[(&str, String)]) {
    if word.contains('\0') {
        for (place, address) in places {
            *word = word.replace(place, address);
        }
    }
}

/// Connects the guest that is about to start, if it has a network.
pub(super) async fn connect(host: &Host, start: &StartVm) -> Result<(), StartError> {
    let (Some(network), Some(address)) = (&host.network, start.address) else { return Ok(()) };
    let (pod, instance) = (start.pod.id, start.instance);
    let card = GuestCard { address, bandwidth: start.pod.bandwidth.unwrap_or_default() };
    let connected = network.change(Change::Attach { pod, instance, card }).await?;
    connected.map_err(|error| StartError::new(reason::NETWORK_NOT_READY, error.to_string()))
}

/// Takes away what connected the guests of a pod, whose processes are gone.
pub(super) async fn release(host: &Host, pod: ObjectId) -> Result<(), String> {
    let Some(network) = &host.network else { return Ok(()) };
    let released = network.change(Change::Release { pod }).await;
    released.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use bulkhead_types::{PodNaming, PodOptions, Rare, Shared};

    use super::*;
    use crate::pod::tests::pod_with_card;

    #[test]
    fn a_guest_is_told_its_names() {
        let mut pod = pod_with_card();
        let alias = |ip: &str, names: &[&str]| HostAlias {
            ip: ip.parse().expect("an address"),
            hostnames: names.iter().map(|name| (*name).into()).collect(),
        };
        let naming = PodNaming {
            host_aliases: vec![alias("10.1.2.3", &["db", "db.example"]), alias("fd00::3", &["six"])],
            subdomain: Some("front".into()),
            ..PodNaming::default()
        };
        let mut spec = (*pod.spec).clone();
        spec.options = Rare::some(PodOptions { naming: Rare::some(naming), ..PodOptions::default() });
        spec.hostname = Some("web".into());
        pod.spec = Shared::new(spec);
        let mut config = PodConfig::default();
        let resolver = PodResolver {
            nameservers: vec!["fd00::53".parse().expect("an address")],
            searches: vec!["example".to_owned()],
            options: vec!["ndots:2".to_owned()],
        };
        name(&pod, resolver, &mut config);
        assert_eq!(config.fqdn, format!("web.front.{}.svc.cluster.local", pod.namespace));
        let aliases = ["# Entries added by HostAliases.", "10.1.2.3\tdb\tdb.example", "fd00::3\tsix"];
        assert_eq!(config.host_aliases, aliases);
        let told = (config.nameservers, config.search_domains, config.resolver_options);
        assert_eq!(
            told,
            (vec!["fd00::53".to_owned()], vec!["example".to_owned()], vec!["ndots:2".to_owned()])
        );
    }

    #[test]
    fn addresses_come_where_their_places_are() {
        let places = [(POD_IP_PLACE, "10.1.0.2".to_owned()), (HOST_IP_PLACE, String::new())];
        let check = |word: &str, expected: &str| {
            let mut word = word.to_owned();
            fill(&mut word, &places);
            assert_eq!(word, expected);
        };
        check("A=b", "A=b");
        check(&format!("A={POD_IP_PLACE}"), "A=10.1.0.2");
        check(
            &format!("--listen={POD_IP_PLACE}:80,{POD_IP_PLACE}:81,{HOST_IP_PLACE}"),
            "--listen=10.1.0.2:80,10.1.0.2:81,",
        );
    }
}
