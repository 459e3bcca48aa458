//! Whether a machine is ready for the network of guests: what the agent's bridge, taps and rules need, one by one.
//!
//! Only looked at, so nothing of the host changes: what only trying tells, the agent tries when it starts, and refuses or warns with
//! the step. Source: `Documentation/networking/tuntap.rst` of Linux for the device, proc(5) for routes.

use std::net::Ipv4Addr;

use super::preconditions::{Need, Outcome, Precondition, answer};
use super::tree::Tree;
use crate::network::{IP_FORWARD, Ipv4Network, PodRange};

const INTERFACES: &str = "/sys/class/net";
/// Where the packet filter's program is looked for.
const PROGRAMS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
/// The bounds of the bridge's MTU, in bytes: IPv6's least, and what a tap takes.
const MTU: std::ops::RangeInclusive<u32> = 1280..=65_521;
/// Most routes that are looked at.
const ROUTES_MAX: usize = 4096;

/// All of them, in the order in which the agent needs them.
pub(super) fn network_preconditions(tree: &dyn Tree) -> Vec<Precondition> {
    let routes = routes(tree);
    vec![tun(tree), bridge(tree), packet_filter(tree), forwarding(tree), range(&routes), mtu(tree, &routes)]
}

fn told(name: &'static str, outcome: Outcome, found: impl Into<String>, remedy: &str) -> Precondition {
    answer(name, Need::Network, outcome, found, remedy)
}

fn has(tree: &dyn Tree, folder: &str, name: &str) -> bool {
    tree.list(folder).is_ok_and(|names| names.iter().any(|one| one == name))
}

fn text(tree: &dyn Tree, path: &str) -> Option<String> {
    tree.read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned())
}

fn tun(tree: &dyn Tree) -> Precondition {
    let (outcome, found) = match has(tree, "/dev/net", "tun") {
        true => (Outcome::Met, "/dev/net/tun is there"),
        false => (Outcome::Missing, "there is no /dev/net/tun: guests have no card"),
    };
    let remedy =
        "modprobe tun; in a container give it the device: mkdir -p /dev/net && mknod /dev/net/tun c 10 200";
    told("network-tun", outcome, found, remedy)
}

fn bridge(tree: &dyn Tree) -> Precondition {
    let is_bridge = |name: &String| has(tree, &format!("{INTERFACES}/{name}"), "bridge");
    let there = tree.list(INTERFACES).unwrap_or_default().iter().any(is_bridge);
    let (outcome, found) = match there || has(tree, "/sys/module", "bridge") {
        true => (Outcome::Met, "the kernel has bridges"),
        false => (Outcome::Unknown, "no bridge is there: the kernel loads them when the agent makes its own"),
    };
    told(
        "network-bridge",
        outcome,
        found,
        "modprobe bridge, and look at the node's warnings once it has joined",
    )
}

fn packet_filter(tree: &dyn Tree) -> Precondition {
    let program = PROGRAMS.into_iter().any(|folder| has(tree, folder, "nft"));
    let (outcome, found, remedy) = match (program, has(tree, "/sys/module", "nf_tables")) {
        (false, _) => (Outcome::Missing, "there is no program nft", "apt-get install nftables"),
        (true, true) => (Outcome::Met, "nft and nf_tables are there", ""),
        (true, false) => (
            Outcome::Unknown,
            "nft is there; the kernel loads nf_tables when it is used first",
            "modprobe nf_tables, and look at the node's warnings once it has joined",
        ),
    };
    told("network-packet-filter", outcome, found, remedy)
}

fn forwarding(tree: &dyn Tree) -> Precondition {
    let (outcome, found) = match text(tree, IP_FORWARD).as_deref() {
        Some("1") => (Outcome::Met, "the host forwards packets"),
        Some(_) => (Outcome::Unknown, "the host forwards no packets yet: the agent switches it on"),
        None => (Outcome::Missing, "whether the host forwards packets cannot be read"),
    };
    let remedy = "where /proc/sys is read-only to the agent: sysctl -w net.ipv4.ip_forward=1; or run it with --egress false";
    told("network-forwarding", outcome, found, remedy)
}

fn range(routes: &[(Ipv4Network, String)]) -> Precondition {
    let networks: Vec<_> = routes.iter().map(|(network, _)| *network).collect();
    let (outcome, found) = match PodRange::choose(0, &networks) {
        Some(_) => (Outcome::Met, "addresses below 10.128.0.0/9 are free".to_owned()),
        None => {
            let all: Ipv4Network =
                Ipv4Network::around(Ipv4Addr::new(10, 128, 0, 0), 9).expect("a short prefix");
            let taken = routes.iter().find(|(network, _)| !network.is_everything() && network.overlaps(all));
            let whose = taken.map_or_else(String::new, |(network, link)| format!(", as {network} of {link}"));
            (Outcome::Missing, format!("the host's routes lead to all of 10.128.0.0/9{whose}"))
        }
    };
    told("network-range", outcome, found, "give guests other addresses: agent --pod-cidr NETWORK/24")
}

fn mtu(tree: &dyn Tree, routes: &[(Ipv4Network, String)]) -> Precondition {
    let default = routes.iter().find(|(network, _)| network.is_everything());
    let Some((_, link)) = default else {
        return told("network-mtu", Outcome::Met, "no default route: guests' cards have 1500 bytes", "");
    };
    let bytes = text(tree, &format!("{INTERFACES}/{link}/mtu")).and_then(|text| text.parse().ok());
    let (outcome, found) = match bytes {
        Some(bytes) if MTU.contains(&bytes) => (Outcome::Met, format!("{bytes} bytes, as {link} has")),
        Some(bytes) => (Outcome::Missing, format!("{link} has {bytes} bytes")),
        None => (Outcome::Unknown, format!("that of {link} cannot be read")),
    };
    told("network-mtu", outcome, found, "ip link set LINK mtu 1500, or say guests' own: agent --network-mtu")
}

/// The host's routes, as `/proc/net/route` tells them: addresses in hexadecimal, in the machine's order of bytes, which is that of x86
/// and Arm.
fn routes(tree: &dyn Tree) -> Vec<(Ipv4Network, String)> {
    let text = text(tree, "/proc/net/route").unwrap_or_default();
    let address =
        |word: &str| u32::from_str_radix(word, 16).ok().map(|bits| Ipv4Addr::from(bits.swap_bytes()));
    let route = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (link, destination, mask) = (words.first()?, address(words.get(1)?)?, address(words.get(7)?)?);
        let prefix = u8::try_from(u32::from(mask).leading_ones()).ok()?;
        Some((Ipv4Network::around(destination, prefix)?, (*link).to_owned()))
    };
    text.lines().skip(1).take(ROUTES_MAX).filter_map(route).collect()
}

#[cfg(test)]
mod tests {
    use super::super::MemoryTree;
    use super::*;

    fn check(tree: &MemoryTree, expected: &[(&str, Outcome, &str)]) {
        let found = network_preconditions(tree);
        for one in &found {
            let needs_remedy = matches!(one.outcome, Outcome::Missing | Outcome::Unknown);
            assert_eq!(one.remedy.is_empty(), !needs_remedy, "{one:?}");
            assert_eq!(one.need, Need::Network);
        }
        let found: Vec<_> = found.iter().map(|one| (one.name, one.outcome, one.found.as_str())).collect();
        assert_eq!(found, expected);
    }

    const HEADING: &str =
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";

    #[test]
    fn each_is_told_with_what_to_do() {
        use Outcome::{Met, Missing, Unknown};
        check(
            &MemoryTree::new(),
            &[
                ("network-tun", Missing, "there is no /dev/net/tun: guests have no card"),
                (
                    "network-bridge",
                    Unknown,
                    "no bridge is there: the kernel loads them when the agent makes its own",
                ),
                ("network-packet-filter", Missing, "there is no program nft"),
                ("network-forwarding", Missing, "whether the host forwards packets cannot be read"),
                ("network-range", Met, "addresses below 10.128.0.0/9 are free"),
                ("network-mtu", Met, "no default route: guests' cards have 1500 bytes"),
            ],
        );
        let mut tree = MemoryTree::new();
        let route = |link: &str, to: &str, mask: &str| {
            format!("{link}\t{to}\t00000000\t0003\t0\t0\t0\t{mask}\t0\t0\t0\n")
        };
        // Everything, and 10.200.0.0/16.
        let few = HEADING.to_owned()
            + &route("eth0", "00000000", "00000000")
            + &route("vpn0", "0000C80A", "0000FFFF");
        tree.file("/dev/net/tun", "")
            .file("/sys/class/net/docker0/bridge/bridge_id", "8000\n")
            .file("/sys/class/net/eth0/mtu", "9000\n")
            .file("/usr/sbin/nft", "")
            .file("/proc/sys/net/ipv4/ip_forward", "0\n")
            .file("/proc/net/route", &few);
        check(
            &tree,
            &[
                ("network-tun", Met, "/dev/net/tun is there"),
                ("network-bridge", Met, "the kernel has bridges"),
                (
                    "network-packet-filter",
                    Unknown,
                    "nft is there; the kernel loads nf_tables when it is used first",
                ),
                ("network-forwarding", Unknown, "the host forwards no packets yet: the agent switches it on"),
                ("network-range", Met, "addresses below 10.128.0.0/9 are free"),
                ("network-mtu", Met, "9000 bytes, as eth0 has"),
            ],
        );
        // 10.0.0.0/8 by one route.
        let all = few + &route("corp0", "0000000A", "000000FF");
        tree.file("/sys/module/nf_tables/refcnt", "1\n")
            .file("/sys/class/net/eth0/mtu", "576\n")
            .file("/proc/sys/net/ipv4/ip_forward", "1\n")
            .file("/proc/net/route", &all);
        check(
            &tree,
            &[
                ("network-tun", Met, "/dev/net/tun is there"),
                ("network-bridge", Met, "the kernel has bridges"),
                ("network-packet-filter", Met, "nft and nf_tables are there"),
                ("network-forwarding", Met, "the host forwards packets"),
                (
                    "network-range",
                    Missing,
                    "the host's routes lead to all of 10.128.0.0/9, as 10.200.0.0/16 of vpn0",
                ),
                ("network-mtu", Missing, "eth0 has 576 bytes"),
            ],
        );
    }
}
