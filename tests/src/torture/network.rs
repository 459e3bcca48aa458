//! Where servers live: a network namespace each, joined by a bridge, or 127.0.0.1 where the machine allows no more.
//!
//! ```text
//!   this process ── bridge bh<pid>b 10.a.b.254 ──┬── veth ── namespace bh<pid>s1: 10.a.b.1
//!                                                ├── veth ── namespace bh<pid>s2: 10.a.b.2
//!                                                └── …
//! ```
//! A link is cut by taking its veth down; one direction between two servers is cut by teaching the sender a hardware
//! address that nobody has, so that its packets vanish as on a broken wire. Only `ip` and `tc` are needed.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::cluster::free_addresses;

/// The port of every server in its own namespace.
const PORT: u16 = 7400;
/// A locally administered address of no machine.
const NOBODY: &str = "02:00:00:00:00:99";

/// The network of one run.
#[derive(Debug)]
pub(crate) struct Network {
    /// `None`: everything is on 127.0.0.1.
    namespaces: Option<Namespaces>,
    loopback: Vec<String>,
}

#[derive(Debug)]
struct Namespaces {
    prefix: String,
    subnet: String,
    hosts: usize,
}

/// Runs a command; its complaint when it fails.
pub(super) fn run(line: &str) -> Result<String, String> {
    let mut words = line.split_whitespace();
    let program = words.next().expect("a command");
    let output = Command::new(program).args(words).stdin(Stdio::null()).output();
    let output = output.map_err(|e| format!("{line}: {e}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{line}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

impl Network {
    /// Hosts from 1 to `hosts`. Falls back to loopback, with the reason.
    pub(crate) fn new(hosts: usize) -> (Self, Option<String>) {
        sweep();
        let id = std::process::id();
        let namespaces = Namespaces {
            prefix: format!("bh{id}"),
            subnet: format!("10.{}.{}", 64 + id / 250 % 128, 1 + id % 250),
            hosts,
        };
        match namespaces.build() {
            Ok(()) => (Self { namespaces: Some(namespaces), loopback: Vec::new() }, None),
            Err(reason) => {
                namespaces.remove();
                (Self { namespaces: None, loopback: free_addresses(hosts) }, Some(reason))
            }
        }
    }

    pub(crate) fn is_isolated(&self) -> bool {
        self.namespaces.is_some()
    }

    /// Where a server on a host listens.
    pub(crate) fn address(&self, host: usize) -> String {
        match &self.namespaces {
            Some(namespaces) => format!("{}.{host}:{PORT}", namespaces.subnet),
            None => self.loopback[host - 1].clone(),
        }
    }

    /// A command that runs on a host.
    pub(crate) fn command(&self, host: usize, program: &Path) -> Command {
        match &self.namespaces {
            Some(namespaces) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &namespaces.namespace(host)]).arg(program);
                command
            }
            None => Command::new(program),
        }
    }

    fn isolated(&self) -> &Namespaces {
        self.namespaces.as_ref().expect("links are only cut where there are links")
    }

    /// Takes a host's link down or up.
    pub(crate) fn set_link(&self, host: usize, up: bool) -> Result<(), String> {
        let state = if up { "up" } else { "down" };
        run(&format!("ip link set {} {state}", self.isolated().link(host))).map(drop)
    }

    /// Lets what one host sends to another vanish.
    pub(crate) fn cut(&self, from: usize, to: usize) -> Result<(), String> {
        let net = self.isolated();
        run(&format!(
            "ip -n {} neigh replace {}.{to} lladdr {NOBODY} dev eth0 nud permanent",
            net.namespace(from),
            net.subnet
        ))
        .map(drop)
    }

    /// Squeezes what a host sends to a trickle.
    pub(crate) fn squeeze(&self, host: usize) -> Result<(), String> {
        let namespace = self.isolated().namespace(host);
        run(&format!(
            "tc -n {namespace} qdisc replace dev eth0 root tbf rate 256kbit burst 8kb latency 400ms"
        ))
        .map(drop)
    }

    /// Everything as it was. What was not changed is no failure.
    pub(crate) fn heal(&self) {
        let Some(net) = &self.namespaces else { return };
        for host in 1..=net.hosts {
            let _ = self.set_link(host, true);
            let namespace = net.namespace(host);
            let _ = run(&format!("tc -n {namespace} qdisc del dev eth0 root"));
            for to in (1..=net.hosts).filter(|to| *to != host) {
                let _ = run(&format!("ip -n {namespace} neigh del {}.{to} dev eth0", net.subnet));
            }
        }
    }

    /// What is left of it on this machine, by name.
    pub(crate) fn leftovers() -> Vec<String> {
        let prefix = format!("bh{}", std::process::id());
        let namespaces = run("ip netns list").unwrap_or_default();
        let links = run("ip -o link").unwrap_or_default();
        let found = namespaces.lines().chain(links.lines()).filter(|line| line.contains(&prefix));
        found.map(str::to_owned).collect()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Some(namespaces) = &self.namespaces {
            namespaces.remove();
        }
    }
}

impl Namespaces {
    fn namespace(&self, host: usize) -> String {
        format!("{}s{host}", self.prefix)
    }

    fn link(&self, host: usize) -> String {
        format!("{}v{host}", self.prefix)
    }

    fn build(&self) -> Result<(), String> {
        let (bridge, subnet) = (format!("{}b", self.prefix), &self.subnet);
        let all = |lines: &[String]| lines.iter().try_for_each(|line| run(line).map(drop));
        all(&[
            format!("ip link add {bridge} type bridge"),
            format!("ip addr add {subnet}.254/24 dev {bridge}"),
            format!("ip link set {bridge} up"),
        ])?;
        for host in 1..=self.hosts {
            let (namespace, link) = (self.namespace(host), self.link(host));
            all(&[
                format!("ip netns add {namespace}"),
                format!("ip link add {link} type veth peer name eth0 netns {namespace}"),
                format!("ip link set {link} master {bridge} up"),
                format!("ip -n {namespace} addr add {subnet}.{host}/24 dev eth0"),
                format!("ip -n {namespace} link set eth0 up"),
                format!("ip -n {namespace} link set lo up"),
            ])?;
        }
        Ok(())
    }

    fn remove(&self) {
        remove(&self.prefix, self.hosts);
    }
}

fn remove(prefix: &str, hosts: usize) {
    for host in 1..=hosts {
        let _ = run(&format!("ip link del {prefix}v{host}"));
        let _ = run(&format!("ip netns del {prefix}s{host}"));
    }
    let _ = run(&format!("ip link del {prefix}b"));
}

/// Removes what runs left that were killed: their process is gone.
fn sweep() {
    let namespaces = run("ip netns list").unwrap_or_default();
    for name in namespaces.lines().filter_map(|line| line.split_whitespace().next()) {
        let Some((pid, host)) = name.strip_prefix("bh").and_then(|rest| rest.split_once('s')) else {
            continue;
        };
        let (Ok(pid), Ok(host)) = (pid.parse::<u32>(), host.parse::<usize>()) else { continue };
        if !Path::new(&format!("/proc/{pid}")).exists() {
            remove(&format!("bh{pid}"), host);
        }
    }
}
