//! The guest's network interfaces and the files about names that containers see.
//!
//! ```text
//!  InterfaceConfig ─► find: by the root port it is behind, or by MAC address; awaited, as its driver takes its time
//!                  ─► all have their names ─► each: MAC, MTU, up, addresses, routes
//! ```

mod find;
mod link;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use bulkhead_guest_protocol::host::{InterfaceConfig, PRIMARY_INTERFACE, PodConfig};

use find::Found;
use link::LinkSocket;

/// Where interfaces are looked for.
const SYSFS: &str = "/sys";

/// Brings up the loopback interface and the configured ones.
pub(crate) fn configure(pod: &PodConfig) -> Result<()> {
    let links = LinkSocket::open().context("open a socket for the interfaces")?;
    links.bring_up(links.index_of("lo")?).context("bring up lo")?;
    let mut found = Vec::with_capacity(pod.interfaces.len());
    if !pod.interfaces.is_empty() {
        let waiting = find::Waiting::begin().context("listen to what the kernel says of devices")?;
        for config in &pod.interfaces {
            let one = waiting.find(Path::new(SYSFS), config).with_context(|| describe(config))?;
            found.push((one, config));
        }
    }
    name_all(&links, &found)?;
    found
        .iter()
        .try_for_each(|(one, config)| configure_one(&links, one, config).with_context(|| describe(config)))
}

/// What an interface is called in errors.
fn describe(config: &InterfaceConfig) -> String {
    let by = if config.pci_port.is_empty() { &config.mac } else { &config.pci_port };
    format!("interface {} ({by})", name_of(config))
}

fn name_of(config: &InterfaceConfig) -> &str {
    if config.name.is_empty() { PRIMARY_INTERFACE } else { &config.name }
}

/// Gives all interfaces their names. What has such a name and is not meant by it gets another one first, so that no order of
/// drivers matters.
fn name_all(links: &LinkSocket, found: &[(Found, &InterfaceConfig)]) -> Result<()> {
    for (_, config) in found {
        let name = name_of(config);
        let Ok(holder) = links.index_of(name) else { continue };
        if !found.iter().any(|(one, config)| one.index == holder && name_of(config) == name) {
            links.rename(holder, &format!("was{holder}")).with_context(|| format!("rename {name}"))?;
        }
    }
    for (one, config) in found {
        let name = name_of(config);
        if links.index_of(name).ok() != Some(one.index) {
            links.rename(one.index, name).with_context(|| format!("call an interface {name}"))?;
        }
    }
    Ok(())
}

fn configure_one(links: &LinkSocket, one: &Found, config: &InterfaceConfig) -> Result<()> {
    let index = one.index;
    // Found by its port, it has to have the address that the network knows it by.
    if !config.mac.is_empty() && !config.mac.eq_ignore_ascii_case(&one.mac) {
        let mac =
            find::parse_mac(&config.mac).with_context(|| format!("{} is no MAC address", config.mac))?;
        links.set_mac(index, &mac).with_context(|| format!("change its MAC address from {}", one.mac))?;
    }
    if config.mtu > 0 {
        links.set_mtu(index, config.mtu).context("set the MTU")?;
    }
    let own = std::iter::once(&config.address).filter(|text| !text.is_empty());
    for text in own.chain(&config.more_addresses) {
        let (address, prefix) = parse_cidr(text)?;
        links.add_address(index, address, prefix).with_context(|| format!("add the address {text}"))?;
    }
    links.bring_up(index).context("bring it up")?;
    if !config.gateway.is_empty() {
        let gateway: IpAddr = config.gateway.parse().context("the gateway is no address")?;
        links.add_route(index, None, Some(gateway)).context("add the default route")?;
    }
    for route in &config.routes {
        let destination = parse_cidr(&route.destination)?;
        let gateway = (!route.gateway.is_empty()).then(|| route.gateway.parse::<IpAddr>());
        let gateway = gateway.transpose().with_context(|| format!("{} is no address", route.gateway))?;
        let added = links.add_route(index, Some(destination), gateway);
        added.with_context(|| format!("add the route to {}", route.destination))?;
    }
    Ok(())
}

fn parse_cidr(text: &str) -> Result<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/').with_context(|| format!("{text} has no prefix length"))?;
    let address: IpAddr = address.parse().with_context(|| format!("{text} is no address"))?;
    let prefix: u8 = prefix.parse().with_context(|| format!("{text} has a bad prefix length"))?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    if prefix > most {
        bail!("{text} has a prefix length over {most}");
    }
    Ok((address, prefix))
}

/// Content of /etc/hosts.
pub(crate) fn hosts_file(pod: &PodConfig) -> String {
    let mut text = String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    if !pod.hostname.is_empty() {
        let own = pod.own_address().unwrap_or(Ipv4Addr::new(127, 0, 1, 1).into());
        let _ = match pod.fqdn.split('.').next().filter(|short| !short.is_empty()) {
            Some(short) => writeln!(text, "{own}\t{}\t{short}", pod.fqdn),
            None => writeln!(text, "{own}\t{}", pod.hostname),
        };
    }
    for line in &pod.host_aliases {
        let _ = writeln!(text, "{line}");
    }
    text
}

/// Content of /etc/resolv.conf.
pub(crate) fn resolv_conf(pod: &PodConfig) -> String {
    let mut text = String::new();
    for server in &pod.nameservers {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !pod.search_domains.is_empty() {
        let _ = writeln!(text, "search {}", pod.search_domains.join(" "));
    }
    if !pod.resolver_options.is_empty() {
        let _ = writeln!(text, "options {}", pod.resolver_options.join(" "));
    }
    text
}
