//! The guest's network interfaces and the files about names that containers see.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, bail};
use bulkhead_guest_protocol::host::{InterfaceConfig, PodConfig};

use crate::sys::InterfaceSocket;

/// Brings up the loopback interface and the configured ones.
pub(crate) fn configure(pod: &PodConfig) -> Result<()> {
    let socket = InterfaceSocket::open().context("open a socket for the interfaces")?;
    socket.bring_up("lo").context("bring up lo")?;
    for config in &pod.interfaces {
        configure_one(&socket, config).with_context(|| format!("interface {}", config.mac))?;
    }
    Ok(())
}

fn configure_one(socket: &InterfaceSocket, config: &InterfaceConfig) -> Result<()> {
    let (address, prefix) = parse_cidr(&config.address)?;
    let name = find_by_mac(&config.mac)?;
    if config.mtu > 0 {
        socket.set_mtu(&name, i32::try_from(config.mtu)?).context("set the MTU")?;
    }
    socket.set_address(&name, address, netmask(prefix)).context("set the address")?;
    socket.bring_up(&name).context("bring it up")?;
    if !config.gateway.is_empty() {
        let gateway = config.gateway.parse().context("the gateway is no IPv4 address")?;
        socket.add_default_route(gateway).context("add the default route")?;
    }
    Ok(())
}

fn find_by_mac(mac: &str) -> Result<String> {
    for entry in fs::read_dir("/sys/class/net")?.flatten() {
        let address = fs::read_to_string(entry.path().join("address")).unwrap_or_default();
        if address.trim().eq_ignore_ascii_case(mac) {
            return Ok(entry.file_name().to_string_lossy().into_owned());
        }
    }
    bail!(
        "no device with this MAC address; is the virtio_net module loaded and the device in QEMU's arguments?"
    )
}

fn parse_cidr(text: &str) -> Result<(Ipv4Addr, u32)> {
    let (address, prefix) = text.split_once('/').with_context(|| format!("{text} has no prefix length"))?;
    let prefix: u32 = prefix.parse().with_context(|| format!("{text} has a bad prefix length"))?;
    if prefix > 32 {
        bail!("{text} has a prefix length over 32");
    }
    Ok((address.parse().with_context(|| format!("{text} is no IPv4 address"))?, prefix))
}

fn netmask(prefix: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - prefix).unwrap_or(0))
}

/// Content of /etc/hosts.
pub(crate) fn hosts_file(pod: &PodConfig) -> String {
    let mut text = String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    let own = pod.interfaces.first().and_then(|i| i.address.split('/').next()).unwrap_or("127.0.1.1");
    if !pod.hostname.is_empty() {
        let _ = writeln!(text, "{own}\t{}", pod.hostname);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cidr() {
        assert_eq!(parse_cidr("10.0.2.15/24").expect("valid"), (Ipv4Addr::new(10, 0, 2, 15), 24));
        for bad in ["10.0.2.15", "10.0.2.15/33", "10.0.2/24", "x/8"] {
            parse_cidr(bad).expect_err(bad);
        }
        assert_eq!(netmask(24), Ipv4Addr::new(255, 255, 255, 0));
        assert_eq!(netmask(0), Ipv4Addr::UNSPECIFIED);
        assert_eq!(netmask(32), Ipv4Addr::BROADCAST);
    }

    #[test]
    fn name_files() {
        let pod = PodConfig {
            hostname: "web-0".into(),
            interfaces: vec![InterfaceConfig { address: "10.1.0.7/16".into(), ..Default::default() }],
            nameservers: vec!["10.0.0.2".into()],
            search_domains: vec!["a.b".into(), "b".into()],
            host_aliases: vec!["10.9.9.9 db".into()],
            resolver_options: vec!["ndots:5".into(), "rotate".into()],
            ..Default::default()
        };
        assert!(hosts_file(&pod).ends_with("10.1.0.7\tweb-0\n10.9.9.9 db\n"));
        assert_eq!(resolv_conf(&pod), "nameserver 10.0.0.2\nsearch a.b b\noptions ndots:5 rotate\n");
    }
}
