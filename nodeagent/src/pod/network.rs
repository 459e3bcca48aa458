//! A pod's part of the network: its card, its address and what it is told of names.

use std::sync::Arc;

use bulkhead_guest_protocol::host::{InterfaceConfig, PodConfig};
use bulkhead_nodeagent_core::{StartVm, reason};
use bulkhead_types::{HOST_IP_PLACE, ObjectId, POD_IP_PLACE};

use super::start::StartError;
use crate::host::Host;
use crate::network::{Connection, GuestCard};

/// What connects the guest that is to start; nothing when it has no network.
pub(super) fn connection(host: &Host, start: &StartVm) -> Option<Connection> {
    let network = host.network.as_ref()?;
    Some(network.connection(start.pod.id, start.instance, start.address?))
}

/// Tells the guest its address and name servers, and its containers where they ask for addresses.
pub(super) fn configure(host: &Host, start: &StartVm, config: &mut PodConfig) {
    if let (Some(network), Some(connection)) = (&host.network, connection(host, start)) {
        config.interfaces.push(InterfaceConfig {
            mac: connection.mac,
            address: connection.cidr,
            gateway: connection.gateway.to_string(),
            mtu: connection.mtu,
            ..InterfaceConfig::default()
        });
        config.nameservers = network.resolver.nameservers.iter().map(ToString::to_string).collect();
        config.search_domains.clone_from(&network.resolver.searches);
        config.resolver_options.clone_from(&network.resolver.options);
    }
    let text = |address: Option<std::net::IpAddr>| address.map(|ip| ip.to_string()).unwrap_or_default();
    let places = [(POD_IP_PLACE, text(start.address.map(Into::into))), (HOST_IP_PLACE, text(start.host_ip))];
    for container in config.init_containers.iter_mut().chain(&mut config.containers) {
        for word in container.env.iter_mut().chain(&mut container.argv) {
            fill(word, &places);
        }
    }
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
    let (network, pod, instance) = (Arc::clone(network), start.pod.id, start.instance);
    let card = GuestCard { address, bandwidth: start.pod.bandwidth.unwrap_or_default() };
    let connected = tokio::task::spawn_blocking(move || network.attach(pod, instance, card)).await;
    let connected = connected.map_err(std::io::Error::other)?;
    connected.map(drop).map_err(|error| StartError::new(reason::NETWORK_NOT_READY, error.to_string()))
}

/// Takes away what connected the guests of a pod, whose processes are gone.
pub(super) async fn release(host: &Host, pod: ObjectId) -> Result<(), String> {
    let Some(network) = host.network.clone() else { return Ok(()) };
    let released = tokio::task::spawn_blocking(move || network.release(pod)).await;
    released.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

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
