//! What is where: data directories and addresses, kept so that the next start finds its members again.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use super::DevArgs;
use crate::commands::agent::Accelerator;

const STATE_FILE: &str = "dev.json";

/// What is kept.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) servers: Vec<Server>,
    pub(super) agents: Vec<Agent>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Server {
    pub(super) id: u64,
    pub(super) address: String,
    metrics: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Agent {
    pub(super) name: String,
    pub(super) address: String,
}

pub(super) struct Layout {
    pub(super) root: PathBuf,
    pub(super) state: State,
}

impl Layout {
    /// Reads what is kept, or chooses free ports and keeps them. Agents may come and go; servers may not.
    pub(super) fn open(root: &Path, servers: u16, agents: u16) -> anyhow::Result<Self> {
        std::fs::create_dir_all(root).with_context(|| format!("cannot make {}", root.display()))?;
        let root = root.canonicalize().with_context(|| format!("cannot find {}", root.display()))?;
        let file = root.join(STATE_FILE);
        let mut ports = Ports::default();
        let mut state = match std::fs::read(&file) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", file.display()))?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let servers = (1..=u64::from(servers))
                    .map(|id| Ok(Server { id, address: ports.free()?, metrics: ports.free()? }))
                    .collect::<anyhow::Result<_>>()?;
                State { servers, agents: Vec::new() }
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
        };
        ensure!(
            state.servers.len() == usize::from(servers),
            "{} holds a cluster of {} servers: start it with --servers {}, or choose another --data-dir",
            root.display(),
            state.servers.len(),
            state.servers.len()
        );
        for number in state.agents.len() + 1..=usize::from(agents) {
            state.agents.push(Agent { name: format!("node-{number}"), address: ports.free()? });
        }
        let text = serde_json::to_vec_pretty(&state).context("cannot write the addresses down")?;
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        state.agents.truncate(usize::from(agents));
        Ok(Self { root, state })
    }

    /// Where clients reach the servers.
    pub(super) fn servers(&self) -> Vec<String> {
        self.state.servers.iter().map(|s| s.address.clone()).collect()
    }

    pub(super) fn server_arguments(&self, server: &Server, args: &DevArgs) -> Vec<String> {
        let members: Vec<String> =
            self.state.servers.iter().map(|s| format!("{}={}", s.id, s.address)).collect();
        let mut arguments = Arguments::new("server");
        arguments.add("id", server.id.to_string());
        arguments.path("data-dir", &self.root.join(format!("server-{}", server.id)));
        arguments.add("listen", server.address.clone());
        arguments.add("advertise", server.address.clone());
        arguments.add("initial-cluster", members.join(","));
        arguments.add("metrics-listen", server.metrics.clone());
        arguments.optional("otlp-endpoint", args.otlp_endpoint.as_deref());
        arguments.0
    }

    pub(super) fn agent_arguments(&self, agent: &Agent, args: &DevArgs) -> Vec<String> {
        let mut arguments = Arguments::new("agent");
        arguments.add("name", agent.name.clone());
        arguments.add("server", self.servers().join(","));
        arguments.path("data-dir", &self.root.join(&agent.name));
        arguments.add("listen", agent.address.clone());
        let accel = match args.accel {
            Accelerator::Auto => "auto",
            Accelerator::Tcg => "tcg",
            Accelerator::Kvm => "kvm",
        };
        arguments.add("accel", accel.to_owned());
        let paths = [("kernel-dir", &args.kernel_dir), ("guest", &args.guest), ("qemu", &args.qemu)];
        for (name, path) in paths {
            if let Some(path) = path {
                arguments.path(name, path);
            }
        }
        arguments.optional("cpu", args.cpu.as_deref());
        arguments.optional("memory", args.memory.as_deref());
        arguments.optional("otlp-endpoint", args.otlp_endpoint.as_deref());
        if !args.insecure_registry.is_empty() {
            arguments.add("insecure-registry", args.insecure_registry.join(","));
        }
        arguments.0
    }
}

struct Arguments(Vec<String>);

impl Arguments {
    fn new(verb: &str) -> Self {
        Self(vec![verb.to_owned(), "--end-with-parent".to_owned()])
    }

    fn add(&mut self, name: &str, value: String) {
        self.0.push(format!("--{name}={value}"));
    }

    fn path(&mut self, name: &str, path: &Path) {
        self.add(name, path.display().to_string());
    }

    fn optional(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.add(name, value.to_owned());
        }
    }
}

/// Chooses ports that are free now. Listeners are held until all are chosen, so that none is chosen twice.
#[derive(Default)]
struct Ports(Vec<TcpListener>);

impl Ports {
    fn free(&mut self) -> anyhow::Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").context("no port is free on 127.0.0.1")?;
        let address = listener.local_addr().context("a listener has no address")?.to_string();
        self.0.push(listener);
        Ok(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_kept_from_start_to_start() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = Layout::open(dir.path(), 3, 1).expect("a new layout");
        let again = Layout::open(dir.path(), 3, 2).expect("the same layout");
        assert_eq!(first.servers(), again.servers());
        assert_eq!(first.state.agents[0].address, again.state.agents[0].address);
        assert_eq!(again.state.agents.len(), 2);
        let mut all: Vec<&String> =
            again.state.servers.iter().flat_map(|s| [&s.address, &s.metrics]).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 6, "no port is chosen twice");
        assert!(Layout::open(dir.path(), 1, 0).is_err(), "the number of servers is fixed");
    }
}
