//! The networks of a pod: what its guest is told of them, and which drivers it needs.

use std::net::IpAddr;

use bulkhead_guest_protocol::host::{InterfaceConfig, RouteConfig};
use bulkhead_nodeagent_core::passthrough::{addresses, networks};
use bulkhead_nodeagent_core::qemu::{PortPlan, Ram};
use bulkhead_types::{NetworkAttachment, NetworkRoute, PodIntent, SriovLinkType};

use crate::boot::GuestNic;
use crate::host::Host;

/// The interfaces by which a pod is attached to its networks. Each is found by the root port that its function is behind, as a
/// function of InfiniBand has no MAC address to be known by. The default route is the primary's,
/// unless the pod says that it leads by one of these.
///
/// # Errors
/// A network by a device that the pod has not, for people.
pub(super) fn interfaces(pod: &PodIntent, ports: &PortPlan) -> Result<Vec<InterfaceConfig>, String> {
    let attached = networks(&pod.networks, &pod.devices)?;
    let places = addresses(&pod.devices)?;
    let interface = |(at, network): (&_, &NetworkAttachment)| {
        let place = places.iter().position(|address| address == at).expect("a network's device is the pod's");
        let full = |address: IpAddr| if address.is_ipv4() { 32 } else { 128 };
        let cidr = |address: IpAddr| match network.prefix {
            0 => format!("{address}/{}", full(address)),
            prefix => format!("{address}/{prefix}"),
        };
        let is_ethernet = network.link_type == SriovLinkType::Eth;
        InterfaceConfig {
            mac: if is_ethernet { network.mac.to_string() } else { String::new() },
            address: network.address.map(cidr).unwrap_or_default(),
            mtu: network.mtu.unwrap_or_default(),
            pci_port: ports.guest_port(place),
            name: network.interface.to_string(),
            ..routed(network)
        }
    };
    Ok(attached.iter().map(interface).collect())
}

/// The root ports of a pod's devices, in a guest with this memory.
pub(super) async fn ports(host: &Host, pod: &PodIntent, ram: &Ram) -> PortPlan {
    // What is wrong with them is said when they are attached.
    let places = addresses(&pod.devices).unwrap_or_default();
    let numa_nodes = match ram {
        Ram::Nodes(_) if !places.is_empty() => {
            let found = host.passthrough.inventory().await;
            places.iter().map(|at| found.functions.get(at)?.numa_node).collect()
        }
        _ => vec![None; places.len()],
    };
    PortPlan::new(&numa_nodes, ram)
}

/// What an interface routes: its default routes, and those of its network.
fn routed(network: &NetworkAttachment) -> InterfaceConfig {
    let everything = |gateway: &IpAddr| RouteConfig {
        destination: if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" }.to_owned(),
        gateway: gateway.to_string(),
    };
    let route = |route: &NetworkRoute| RouteConfig {
        destination: format!("{}/{}", route.destination.first(), route.destination.prefix()),
        gateway: route.gateway.map(|gateway| gateway.to_string()).unwrap_or_default(),
    };
    let own = network.routes.get().into_iter().flat_map(|routes| &routes.routes);
    let mut gateways = network.default_gateways().iter();
    InterfaceConfig {
        gateway: gateways.next().map(ToString::to_string).unwrap_or_default(),
        routes: gateways.map(everything).chain(own.map(route)).collect(),
        ..InterfaceConfig::default()
    }
}

/// Whether a pod's default route leads by one of its networks, so that the primary interface has none (Multus' rule); of IPv4, which
/// is what the primary interface has.
pub(super) fn take_default_route(pod: &PodIntent) -> bool {
    pod.networks.iter().flat_map(|network| network.default_gateways()).any(IpAddr::is_ipv4)
}

/// The NICs among a pod's devices.
pub(super) async fn nics(host: &Host, pod: &PodIntent) -> Vec<GuestNic> {
    if pod.devices.is_empty() {
        return Vec::new();
    }
    // What is wrong with them is said when they are attached.
    let (Ok(attached), Ok(places)) = (networks(&pod.networks, &pod.devices), addresses(&pod.devices)) else {
        return Vec::new();
    };
    let found = host.passthrough.inventory().await;
    let functions =
        places.iter().filter_map(|at| found.functions.get(at)).filter(|one| one.class >> 16 == CLASS_NETWORK);
    let mut nics: Vec<GuestNic> = functions
        .map(|function| {
            let network = attached.get(&function.address);
            let is_infiniband = network.is_some_and(|network| network.link_type == SriovLinkType::Ib);
            GuestNic::new(function, is_infiniband, network.is_some())
        })
        .collect();
    nics.sort();
    nics.dedup();
    nics
}

/// Base class of network controllers. PCI Code and ID Assignment Specification, section 1.
const CLASS_NETWORK: u32 = 0x02;

#[cfg(test)]
mod tests {
    use bulkhead_types::{AttachmentRoutes, DeviceIntent, IpCidr, Rare, VfLinkState};

    use super::*;
    use crate::pod::tests::pod_with_card;

    fn device(address: &str) -> DeviceIntent {
        DeviceIntent {
            container: "main".into(),
            resource: "ecnf.io/blue".into(),
            device: address.into(),
            address: address.into(),
            share: None,
            lost: false,
            visible_env: Default::default(),
            visible_as: Default::default(),
        }
    }

    fn network(device: &str, interface: &str, link_type: SriovLinkType) -> NetworkAttachment {
        NetworkAttachment {
            network: format!("default/{interface}").into(),
            interface: interface.into(),
            device: device.into(),
            address: Some("10.9.0.2".parse().expect("an address")),
            prefix: 16,
            gateway: Some("10.9.255.1".parse().expect("an address")),
            mac: "02:aa:00:00:00:01".into(),
            vlan: 100,
            vlan_qos: 0,
            spoof_chk: None,
            trust: None,
            min_tx_rate: None,
            max_tx_rate: None,
            link_state: VfLinkState::Auto,
            link_type,
            mtu: Some(9000),
            routes: Default::default(),
        }
    }

    #[test]
    fn interfaces_are_behind_the_ports_of_their_devices() {
        let mut pod = pod_with_card();
        // A card, and two functions: ports are given in the order of addresses.
        pod.devices = ["0000:86:00.3", "0000:3b:00.0", "0000:86:00.2"].map(device).into();
        pod.networks = vec![
            network("0000:86:00.3", "ib0", SriovLinkType::Ib),
            network("0000:86:00.2", "net1", SriovLinkType::Eth),
        ];
        pod.networks[0].address = None;
        let ports = PortPlan::new(&[None; 3], &Ram::Board);
        let found = interfaces(&pod, &ports).expect("they are the pod's");
        let told = |one: &InterfaceConfig| {
            format!(
                "{} {} [{}] [{}] {} {:?}",
                one.name, one.pci_port, one.mac, one.address, one.mtu, one.gateway
            )
        };
        let told: Vec<String> = found.iter().map(told).collect();
        assert_eq!(
            told,
            [
                "net1 0000:00:10.1 [02:aa:00:00:00:01] [10.9.0.2/16] 9000 \"\"",
                "ib0 0000:00:10.2 [] [] 9000 \"\""
            ]
        );
        // The pod asks for its default routes by the second network, which has a route of its own.
        assert!(!take_default_route(&pod));
        let ip = |text: &str| text.parse().expect("an address");
        let route = |destination: &str, gateway: Option<&str>| NetworkRoute {
            destination: IpCidr::parse(destination).expect("a network"),
            gateway: gateway.map(ip),
        };
        pod.networks[1].routes = Rare::some(AttachmentRoutes {
            default_gateways: vec![ip("10.9.255.1"), ip("fd00::1")],
            routes: vec![route("10.8.0.0/16", Some("10.9.255.2")), route("10.7.0.0/16", None)],
        });
        let found = interfaces(&pod, &ports).expect("they are the pod's");
        let routes: Vec<String> =
            found[0].routes.iter().map(|one| format!("{} {}", one.destination, one.gateway)).collect();
        assert_eq!(found[0].gateway, "10.9.255.1");
        assert_eq!(routes, ["::/0 fd00::1", "10.8.0.0/16 10.9.255.2", "10.7.0.0/16 "]);
        assert_eq!((found[1].gateway.as_str(), found[1].routes.len()), ("", 0));
        assert!(take_default_route(&pod));
        // IPv6's alone leaves the primary interface its own, which is IPv4's.
        let only_six = AttachmentRoutes { default_gateways: vec![ip("fd00::1")], routes: Vec::new() };
        pod.networks[1].routes = Rare::some(only_six);
        assert!(!take_default_route(&pod));
        assert_eq!(interfaces(&pod, &ports).expect("they are the pod's")[0].gateway, "fd00::1");
        pod.networks[0].device = "0000:99:00.0".into();
        let refused = interfaces(&pod, &ports).expect_err("no device of the pod");
        assert_eq!(refused, "network default/ib0: the pod has no device 0000:99:00.0");
    }
}
