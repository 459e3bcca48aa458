//! Which networks a pod names in its annotation (Multus' network selection), as text or as JSON.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::Deserialize;
use smol_str::SmolStr;

use crate::{NETWORKS_PER_POD_MAX, Name, is_mac_address};

/// Longest name of an interface in a guest: what the Linux kernel allows.
const INTERFACE_BYTES_MAX: usize = 15;

/// One network that a pod wants to be attached to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NetworkSelection {
    /// The namespace whose pods may attach; the pod's own when unset.
    pub namespace: Option<Name>,
    /// The network's name.
    pub name: Name,
    /// What the NIC is called in the guest: `net1` and so on unless it says.
    pub interface: SmolStr,
    /// The MAC address that it wants; lower case.
    pub mac: Option<SmolStr>,
    /// The guest's default routes lead by it, over these gateways: at most one of each family of all networks of a pod. Needs
    /// [`crate::DEFAULT_ROUTE_LEVEL`].
    pub default_route: Vec<IpAddr>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Element {
    name: String,
    namespace: Option<String>,
    interface: Option<String>,
    mac: Option<String>,
    #[serde(rename = "default-route")]
    default_route: Option<Vec<IpAddr>>,
}

/// Reads the annotation: `[NAMESPACE/]NAME[@INTERFACE]` with commas between, or a JSON list of objects with `name`, `namespace`,
/// `interface`, `mac` and `default-route`. Nothing is no network.
///
/// # Errors
/// What is wrong with it.
pub fn parse_network_selections(text: &str) -> Result<Vec<NetworkSelection>, String> {
    let text = text.trim();
    let elements = match text.starts_with('[') {
        _ if text.is_empty() => Vec::new(),
        true => serde_json::from_str(text).map_err(|error| format!("is no list of networks: {error}"))?,
        false => text.split(',').map(element).collect(),
    };
    if elements.len() > NETWORKS_PER_POD_MAX {
        return Err(format!("names {} networks: at most {NETWORKS_PER_POD_MAX} are allowed", elements.len()));
    }
    let (mut selections, mut interfaces) = (Vec::with_capacity(elements.len()), BTreeSet::new());
    for (element, number) in elements.into_iter().zip(1..) {
        let name = |text: &str| Name::new(text).map_err(|error| format!("network {text:?}: {error}"));
        let interface = element.interface.unwrap_or_else(|| format!("net{number}"));
        let is_name = (1..=INTERFACE_BYTES_MAX).contains(&interface.len())
            && interface.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !is_name || interface == "lo" || interface == "eth0" {
            return Err(format!(
                "interface {interface:?} must have 1 to {INTERFACE_BYTES_MAX} letters, digits, dashes or dots, and be neither lo nor eth0"
            ));
        }
        let interface = SmolStr::from(interface);
        if !interfaces.insert(interface.clone()) {
            return Err(format!("names interface {interface} twice"));
        }
        let mac = element.mac.map(|mac| mac.to_ascii_lowercase());
        if let Some(mac) = mac.as_deref().filter(|mac| !is_mac_address(mac)) {
            return Err(format!(
                "{mac:?} is no MAC address of one device: expected such as 02:00:00:00:00:01"
            ));
        }
        selections.push(NetworkSelection {
            namespace: element.namespace.as_deref().map(name).transpose()?,
            name: name(&element.name)?,
            interface,
            mac: mac.map(Into::into),
            default_route: element.default_route.unwrap_or_default(),
        });
    }
    for (family, is_four) in [("IPv4", true), ("IPv6", false)] {
        let gateways = selections.iter().flat_map(|one: &NetworkSelection| &one.default_route);
        if gateways.filter(|gateway| gateway.is_ipv4() == is_four).count() > 1 {
            return Err(format!("names more than one default-route of {family}: a guest has one"));
        }
    }
    Ok(selections)
}

fn element(text: &str) -> Element {
    let text = text.trim();
    let (path, interface) = match text.split_once('@') {
        None => (text, None),
        Some((path, interface)) => (path, Some(interface.to_owned())),
    };
    let (namespace, name) = match path.split_once('/') {
        None => (None, path),
        Some((namespace, name)) => (Some(namespace.to_owned()), name),
    };
    Element { name: name.to_owned(), namespace, interface, mac: None, default_route: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let check = |text: &str, expected: Result<&str, &str>| {
            let found = parse_network_selections(text).map(|all| {
                let one = |s: &NetworkSelection| {
                    let namespace = s.namespace.as_ref().map_or("-", Name::as_str);
                    let mac = s.mac.as_deref().unwrap_or("-");
                    let routes: String = s.default_route.iter().map(|ip| format!(">{ip}")).collect();
                    format!("{namespace}/{}@{}={mac}{routes}", s.name, s.interface)
                };
                all.iter().map(one).collect::<Vec<_>>().join(" ")
            });
            match expected {
                Ok(expected) => assert_eq!(found.as_deref(), Ok(expected), "{text}"),
                Err(part) => {
                    let error = found.expect_err(text);
                    assert!(error.contains(part), "{text}: {error}");
                }
            }
        };
        check("", Ok(""));
        check("default/net", Ok("default/net@net1=-"));
        check(" a/b@ib0 , c", Ok("a/b@ib0=- -/c@net2=-"));
        check(
            r#"[{"name": "b", "namespace": "a", "mac": "02:AA:00:00:00:01"}, {"name": "c", "interface": "x"}]"#,
            Ok("a/b@net1=02:aa:00:00:00:01 -/c@x=-"),
        );
        check(
            r#"[{"name": "b", "default-route": ["10.9.0.1", "fd00::1"]}, {"name": "c", "default-route": []}]"#,
            Ok("-/b@net1=->10.9.0.1>fd00::1 -/c@net2=-"),
        );
        check(
            r#"[{"name": "b", "default-route": ["10.9.0.1"]}, {"name": "c", "default-route": ["10.8.0.1"]}]"#,
            Err("more than one default-route of IPv4"),
        );
        check(r#"[{"name": "b", "default-route": ["x"]}]"#, Err("invalid IP address"));
        check("a/b,", Err("network"));
        check("a/b/c", Err("b/c"));
        check("a/B", Err("network \"B\""));
        check("b@net2,c", Err("net2 twice"));
        check("b@eth0", Err("neither lo nor eth0"));
        check(r#"[{"name": "b", "ips": ["10.0.0.1"]}]"#, Err("ips"));
        check(r#"[{"name": "b", "mac": "03:00:00:00:00:01"}]"#, Err("no MAC address of one device"));
        check(r#"{"name": "b"}"#, Err("network"));
        check(&["a"; 17].join(","), Err("at most 16"));
    }
}
