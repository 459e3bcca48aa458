//! Servers as processes.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bulkhead_proto::v1;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use crate::cli::Cli;
use crate::process::{Process, bulkhead};
use crate::wait;

/// How long a cluster may take to have a leader.
const LEADER_SECONDS: u64 = 120;
/// How long replicas may take to be at the same entry.
const EQUAL_SECONDS: u64 = 120;

/// Free ports below those that the kernel gives to outgoing connections, so that a server that is started again
/// still finds its own free.
///
/// # Panics
/// When there are none.
#[must_use]
pub fn free_addresses(count: usize) -> Vec<String> {
    const FIRST: u32 = 12_000;
    const PORTS: u32 = 20_000;
    // Every call begins further on: what the last one gave may not be in use yet.
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let start = std::process::id().wrapping_mul(7919).wrapping_add(call.wrapping_mul(64)) % PORTS;
    let ports = (0..PORTS).map(|n| FIRST + (start + n) % PORTS);
    let mut held = Vec::new();
    for port in ports {
        if held.len() == count {
            break;
        }
        let port = u16::try_from(port).expect("32000 at most");
        held.extend(TcpListener::bind(("127.0.0.1", port)));
    }
    assert_eq!(held.len(), count, "there are free ports");
    held.iter().map(|l| l.local_addr().expect("bound").to_string()).collect()
}

/// Servers of one cluster, in a folder of their own.
pub struct Cluster {
    /// `None` once it is kept for somebody to look at.
    dir: Option<TempDir>,
    addresses: BTreeMap<u64, String>,
    founders: String,
    /// More options for servers that are started from now on.
    pub options: Vec<String>,
    /// Gives each server that is started from now on a file system of its own for its data, of so many MiB. It is seen by
    /// that server only, and gone with it.
    pub disk_mib: Option<u64>,
    running: BTreeMap<u64, Process>,
}

impl Cluster {
    /// A cluster of `count` servers, none of which runs yet.
    ///
    /// # Panics
    /// When there is no room for it.
    #[must_use]
    pub fn prepare(count: u64) -> Self {
        let dir = tempfile::Builder::new().prefix("bulkhead-e2e.").tempdir().expect("a folder");
        let addresses: BTreeMap<u64, String> = (1..=count).zip(free_addresses(count as usize)).collect();
        let founders: Vec<String> = addresses.iter().map(|(id, a)| format!("{id}={a}")).collect();
        let options = ["--tick-ms", "50"].map(str::to_owned).to_vec();
        Self {
            dir: Some(dir),
            addresses,
            founders: founders.join(","),
            options,
            disk_mib: None,
            running: BTreeMap::new(),
        }
    }

    /// A cluster of `count` servers with a leader.
    #[must_use]
    pub fn start(count: u64) -> Self {
        let mut cluster = Self::prepare(count);
        for id in 1..=count {
            cluster.start_server(id);
        }
        cluster.await_all();
        cluster
    }

    /// Waits until every server that runs serves confirmed reads: two of three elect a leader before the third is up.
    ///
    /// # Panics
    /// When that takes too long.
    pub fn await_all(&self) {
        for id in self.running.keys() {
            let cli = Cli::new(std::slice::from_ref(&self.addresses[id]));
            let serves = || (cli.run(&["--timeout", "5s", "member", "list"]).code == 0).then_some(());
            wait::until_or(&format!("server {id}"), LEADER_SECONDS, serves, || self.logs());
        }
    }

    /// What the leader knows of a member, once that is so.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn await_member(&self, of: u64, is_so: impl Fn(&v1::Member) -> bool) -> v1::Member {
        let deadline = Instant::now() + Duration::from_secs(LEADER_SECONDS);
        let mut seen = None;
        while Instant::now() < deadline {
            for id in self.running.keys() {
                let mut client = v1::cluster_client::ClusterClient::new(self.channel(*id));
                let Ok(answer) = client.members(v1::MembersRequest::default()).await else { continue };
                // Only the leader knows how far the others are.
                let found = answer.into_inner().members.into_iter().find(|m| m.id == of);
                seen = found.filter(|m| m.match_index.is_some() || m.leader && m.id == *id).or(seen);
                if let Some(member) = seen.take_if(|member| is_so(member)) {
                    return member;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("member {of} is not as it should be: {seen:?}{}", self.logs());
    }

    /// The folder of everything.
    ///
    /// # Panics
    /// Never while the cluster lives.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.as_ref().expect("there until the end").path()
    }

    /// Where a server keeps its data.
    #[must_use]
    pub fn data_dir(&self, id: u64) -> PathBuf {
        self.dir().join(format!("server-{id}"))
    }

    /// Where a server listens.
    #[must_use]
    pub fn address(&self, id: u64) -> &str {
        &self.addresses[&id]
    }

    /// Those that were started and not ended since.
    #[must_use]
    pub fn running(&self) -> Vec<u64> {
        self.running.keys().copied().collect()
    }

    /// The addresses of those that run.
    #[must_use]
    pub fn servers(&self) -> Vec<String> {
        self.running.keys().map(|id| self.addresses[id].clone()).collect()
    }

    /// The command that starts a server on a data directory.
    #[must_use]
    pub fn server_command(&self, id: u64, address: &str, data_dir: &Path) -> Command {
        let mut command = Command::new(bulkhead());
        command.args(["server", "--id", &id.to_string(), "--listen", address, "--data-dir"]);
        command.arg(data_dir).args(&self.options);
        command
    }

    /// Starts a founder, for the first time or again.
    pub fn start_server(&mut self, id: u64) {
        let founders = self.founders.clone();
        self.start_with(id, &["--initial-cluster", &founders]);
    }

    /// Starts a server with more options.
    ///
    /// # Panics
    /// When it runs already.
    pub fn start_with(&mut self, id: u64, options: &[&str]) {
        assert!(!self.running.contains_key(&id), "server {id} runs");
        let process = self.try_server(id, options);
        self.running.insert(id, process);
    }

    /// Starts a server that is new at an address, with an empty data directory. What had the address before must
    /// not run any more.
    ///
    /// # Panics
    /// When a server of this id runs already.
    pub fn start_new(&mut self, id: u64, address: &str, options: &[&str]) {
        self.addresses.insert(id, address.to_owned());
        self.start_with(id, options);
    }

    /// Starts a server that is expected to refuse; the caller looks after it.
    #[must_use]
    pub fn try_server(&self, id: u64, options: &[&str]) -> Process {
        let mut command = self.server_command(id, &self.addresses[&id], &self.data_dir(id));
        if let Some(mib) = self.disk_mib {
            command = self.with_own_disk(&command, id, mib);
        }
        Process::start(self.dir(), &format!("server-{id}"), command.args(options))
    }

    /// The same command, with a new file system of `mib` MiB where the data directory is.
    fn with_own_disk(&self, command: &Command, id: u64, mib: u64) -> Command {
        let data_dir = self.data_dir(id);
        std::fs::create_dir_all(&data_dir).expect("a folder to mount at");
        let mut own = Command::new("unshare");
        own.args(["--mount", "--propagation", "private", "sh", "-ec"]);
        own.arg("mount -t tmpfs -o \"size=$1m\" bulkhead-test \"$2\"; shift 2; exec \"$@\"");
        own.arg("sh").arg(mib.to_string()).arg(data_dir);
        own.arg(command.get_program()).args(command.get_args());
        own
    }

    /// The process id of a server.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn pid(&self, id: u64) -> u32 {
        self.running[&id].pid()
    }

    /// Tells the cluster of a new server and starts it as a learner. Gives its id.
    ///
    /// # Panics
    /// When it is refused.
    pub fn join(&mut self) -> u64 {
        let id = self.addresses.keys().max().map_or(1, |max| max + 1);
        let address = free_addresses(1).remove(0);
        let others = self.servers().join(",");
        let _ =
            self.cli().run(&["--timeout", "90s", "member", "add", &address, "--id", &id.to_string()]).ok();
        self.addresses.insert(id, address);
        self.start_with(id, &["--join", &others]);
        id
    }

    /// The process of a server, which is the caller's from now on.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn take(&mut self, id: u64) -> Process {
        self.running.remove(&id).unwrap_or_else(|| panic!("server {id} runs"))
    }

    /// The command line, with the servers that run now.
    #[must_use]
    pub fn cli(&self) -> Cli {
        Cli::new(&self.servers())
    }

    /// A connection to one server.
    ///
    /// # Panics
    /// When the address is none.
    #[must_use]
    pub fn channel(&self, id: u64) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.addresses[&id])).expect("an address");
        endpoint.timeout(Duration::from_secs(20)).connect_lazy()
    }

    /// What a server says of itself; `None` when it does not answer.
    pub async fn status(&self, id: u64) -> Option<v1::StatusResponse> {
        let mut client = v1::cluster_client::ClusterClient::new(self.channel(id));
        client.status(v1::StatusRequest {}).await.ok().map(tonic::Response::into_inner)
    }

    /// Waits until a leader confirms a read, and gives its id.
    ///
    /// # Panics
    /// When that takes too long.
    pub fn await_leader(&self) -> u64 {
        let cli = self.cli();
        let leader = || {
            let done = cli.run(&["--timeout", "5s", "member", "list", "-o", "json"]);
            let list: serde_json::Value = serde_json::from_str(&done.stdout).ok()?;
            let members = list
                .as_array()
                .or_else(|| list["items"].as_array())
                .or_else(|| list["members"].as_array())?;
            members.iter().find(|m| m["leader"] == true)?["id"].as_u64()
        };
        wait::until_or("a leader", LEADER_SECONDS, leader, || self.logs())
    }

    /// Waits until all that run have applied the same entries, and insists that their states are the same.
    ///
    /// # Panics
    /// When they do not get there, or differ.
    pub async fn await_equal_digests(&self) {
        let deadline = Instant::now() + Duration::from_secs(EQUAL_SECONDS);
        let mut seen = Vec::new();
        while Instant::now() < deadline {
            seen.clear();
            for id in self.running.keys() {
                seen.extend(self.status(*id).await);
            }
            let equal = seen.windows(2).all(|two| two[0].applied_index == two[1].applied_index);
            if equal && seen.len() == self.running.len() {
                let digests: Vec<&str> = seen.iter().map(|s| s.digest.as_str()).collect();
                assert!(digests.iter().all(|d| d.len() == 32 && *d == digests[0]), "{digests:?}");
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the servers never were at the same index: {seen:#?}{}", self.logs());
    }

    /// What the servers printed last.
    fn logs(&self) -> String {
        self.running.iter().map(|(id, p)| format!("\n--- server {id}\n{}", p.output())).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.running.clear();
        if std::thread::panicking()
            && let Some(dir) = self.dir.take()
        {
            let kept = dir.keep();
            #[allow(clippy::print_stderr)]
            {
                eprintln!("data and logs are kept in {}", kept.display());
            }
        }
    }
}
