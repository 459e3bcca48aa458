//! The servers and agents of a run, as processes that may be killed, stopped, replaced and upgraded.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bulkhead_proto::v1;
use nix::sys::signal::Signal;
use tokio::runtime::Handle;
use v1::cluster_client::ClusterClient;

use super::disk::Disk;
use super::load::{Load, connect};
use super::network::Network;
use super::pods::{self, Guest, Parts, Pod};
use crate::cgroups::Cgroups;
use crate::cli::Cli;
use crate::process::{Process, bulkhead};

/// Servers of the cluster.
pub(crate) const SERVERS: usize = 3;
/// Agents, on the bridge's own host.
const AGENTS: usize = 2;
/// Entries from one snapshot to the next: low, so that snapshots are written, sent and installed all the time.
const SNAPSHOT_ENTRIES: &str = "400";
/// How long an operator tries before the run is given up.
const OPERATOR_SECONDS: u64 = 90;
/// What a server logs once it serves.
const UP: &str = "server started";
/// What an agent logs once it has found its guests again.
const AGENT_UP: &str = "agent is up";
/// How long a process may take to end.
const END_SECONDS: u64 = 60;

/// A host's server.
struct Slot {
    host: usize,
    id: u64,
    process: Option<Process>,
    /// It came later, under a new id.
    joined: bool,
    paused: bool,
    /// Somebody sent it a signal that ends it.
    is_ended: bool,
    previous: bool,
}

/// Everything that runs.
pub(crate) struct Fleet {
    dir: PathBuf,
    pub(crate) network: Network,
    pub(crate) disks: Vec<Disk>,
    slots: Vec<Slot>,
    agents: BTreeMap<usize, Process>,
    agent_addresses: Vec<String>,
    /// What guests are made of.
    parts: Parts,
    /// Pods that were seen with a guest.
    pub(crate) started: BTreeSet<u64>,
    /// Guests that went on after their agent was killed.
    pub(crate) adopted: u64,
    founders: String,
    next_id: u64,
    previous: PathBuf,
    pub(crate) load: Arc<Load>,
    runtime: Handle,
    pub(crate) findings: Vec<String>,
    /// After all processes.
    cgroups: Cgroups,
}

impl Fleet {
    pub(crate) fn new(
        dir: &Path,
        network: Network,
        disks: Vec<Disk>,
        previous: Option<PathBuf>,
        parts: Parts,
        runtime: Handle,
    ) -> Self {
        // A cluster of the previous build: a newer one would begin at a feature level that it does not know.
        let begins_previous = previous.is_some();
        let slots: Vec<Slot> = (1..=SERVERS)
            .map(|host| Slot {
                host,
                id: host as u64,
                process: None,
                joined: false,
                paused: false,
                is_ended: false,
                previous: begins_previous,
            })
            .collect();
        let addresses: Vec<String> = (1..=SERVERS).map(|host| network.address(host)).collect();
        let founders: Vec<String> =
            addresses.iter().enumerate().map(|(n, a)| format!("{}={a}", n + 1)).collect();
        Self {
            dir: dir.to_owned(),
            network,
            disks,
            slots,
            agents: BTreeMap::new(),
            agent_addresses: crate::cluster::free_addresses(AGENTS),
            parts,
            started: BTreeSet::new(),
            adopted: 0,
            founders: founders.join(","),
            next_id: SERVERS as u64 + 1,
            previous: previous.unwrap_or_else(bulkhead),
            load: Load::new(addresses),
            runtime,
            findings: Vec::new(),
            cgroups: Cgroups::new(),
        }
    }

    pub(crate) fn hosts(&self) -> Vec<usize> {
        self.slots.iter().map(|slot| slot.host).collect()
    }

    fn slot(&mut self, host: usize) -> &mut Slot {
        &mut self.slots[host - 1]
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        self.hosts().into_iter().map(|host| self.network.address(host)).collect()
    }

    pub(crate) fn cli(&self) -> Cli {
        Cli::new(&self.addresses())
    }

    fn data_dir(&self, host: usize) -> PathBuf {
        self.disks[host - 1].path().join("data")
    }

    pub(crate) fn start(&mut self, host: usize) {
        let address = self.network.address(host);
        let others: Vec<String> = self
            .hosts()
            .into_iter()
            .filter(|other| *other != host)
            .map(|h| self.network.address(h))
            .collect();
        let slot = &self.slots[host - 1];
        let program = if slot.previous { self.previous.clone() } else { bulkhead() };
        let mut command = self.network.command(host, &program);
        command.args(["server", "--id", &slot.id.to_string(), "--listen", &address, "--data-dir"]);
        command.arg(self.data_dir(host)).args(["--tick-ms", "50", "--election-ticks", "12"]);
        command.args(["--snapshot-entries", SNAPSHOT_ENTRIES, "--lease-ms", "3000", "--end-with-parent"]);
        match slot.joined {
            true => command.args(["--join", &others.join(",")]),
            false => command.args(["--initial-cluster", &self.founders]),
        };
        let process = Process::start(&self.dir, &format!("host-{host}"), &mut command);
        let slot = self.slot(host);
        assert!(slot.process.is_none(), "host {host} has a server");
        (slot.process, slot.is_ended, slot.paused) = (Some(process), false, false);
    }

    pub(crate) fn signal(&mut self, host: usize, signal: Signal) {
        let slot = self.slot(host);
        if let Some(process) = &mut slot.process {
            process.signal(signal);
            match signal {
                Signal::SIGSTOP => slot.paused = true,
                Signal::SIGCONT => slot.paused = false,
                _ => slot.is_ended = true,
            }
        }
    }

    /// Waits for a server that was sent a signal to end.
    fn reap(&mut self, host: usize) {
        let slot = self.slot(host);
        if let Some(mut process) = slot.process.take() {
            process.wait(END_SECONDS);
        }
    }

    /// Everything runs again, on sound disks and links.
    pub(crate) fn heal(&mut self) {
        self.disks.iter().for_each(Disk::heal);
        self.network.heal();
        for host in self.hosts() {
            if self.slot(host).paused {
                self.signal(host, Signal::SIGCONT);
            }
            self.check_alive(host);
            if self.slot(host).is_ended {
                self.reap(host);
            }
            if self.slot(host).process.is_none() {
                self.start(host);
            }
        }
        for agent in 0..AGENTS {
            if self.agents.get_mut(&agent).is_some_and(|process| process.ended().is_some()) {
                self.findings.push(format!("agent {agent} ended by itself"));
                self.agents.remove(&agent);
            }
            if !self.agents.contains_key(&agent) {
                self.start_agent(agent);
            }
            self.started.extend(self.guests(agent).iter().map(|guest| guest.pod));
        }
    }

    pub(crate) fn fill_disk(&self, host: usize) -> Result<(), String> {
        self.disks[host - 1].fill()
    }

    /// A server that nobody told to end must not have ended.
    fn check_alive(&mut self, host: usize) {
        let slot = &mut self.slots[host - 1];
        let Some(process) = &mut slot.process else { return };
        if slot.is_ended {
            return;
        }
        if let Some(status) = process.ended() {
            let output = process.output();
            let lines: Vec<&str> = output.lines().rev().take(12).collect();
            let last: Vec<&str> = lines.into_iter().rev().collect();
            let finding =
                format!("the server on host {host} ended by itself: {status}\n    {}", last.join("\n    "));
            slot.process = None;
            self.findings.push(finding);
        }
    }

    /// Ends a server and starts it again at once.
    pub(crate) fn restart(&mut self, host: usize, signal: Signal) {
        self.check_alive(host);
        self.signal(host, signal);
        self.reap(host);
        self.start(host);
    }

    /// The server is of the other build from its next start on.
    pub(crate) fn change_build(&mut self, host: usize) {
        let slot = self.slot(host);
        slot.previous = !slot.previous;
    }

    pub(crate) fn status(&self, host: usize) -> Option<v1::StatusResponse> {
        let address = self.network.address(host);
        let asked = async move {
            let mut request = tonic::Request::new(v1::StatusRequest {});
            request.set_timeout(Duration::from_secs(2));
            let mut client = ClusterClient::new(connect(&address));
            tokio::time::timeout(Duration::from_secs(2), client.status(request)).await
        };
        self.runtime.block_on(asked).ok()?.ok().map(tonic::Response::into_inner)
    }

    /// The host that leads, as the servers see it.
    pub(crate) fn leader(&self) -> Option<usize> {
        let found = self.hosts().into_iter().filter_map(|host| Some((host, self.status(host)?)));
        let leading = found.filter(|(_, status)| status.role() == v1::RaftRole::Leader);
        leading.max_by_key(|(_, status)| status.term).map(|(host, _)| host)
    }

    /// Repeats an operator's command until it succeeds.
    pub(crate) fn operate(&self, args: &[&str]) -> Result<String, String> {
        let deadline = Instant::now() + Duration::from_secs(OPERATOR_SECONDS);
        loop {
            let all = [&["--timeout", "5s"], args].concat();
            let done = self.cli().run(&all);
            if done.code == 0 {
                return Ok(done.stdout);
            }
            if Instant::now() >= deadline {
                return Err(format!("{args:?} does not succeed: {}", done.stderr.trim()));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Waits until a server has what the leader had when this was called.
    pub(crate) fn await_caught_up(&mut self, host: usize) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_secs(OPERATOR_SECONDS);
        let mut wanted = None;
        while Instant::now() < deadline {
            if wanted.is_none() {
                wanted = self.leader().and_then(|leader| self.status(leader)).map(|s| s.committed_index);
            }
            if let (Some(wanted), Some(status)) = (wanted, self.status(host))
                && status.applied_index >= wanted
            {
                return Ok(());
            }
            self.check_alive(host);
            if self.slot(host).process.is_none() {
                return Err(format!("host {host} ends instead of catching up"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err(format!("host {host} does not catch up"))
    }

    /// Loses a server with its disk, and puts a new member in its place.
    pub(crate) fn replace(&mut self, host: usize) -> Result<(), String> {
        self.signal(host, Signal::SIGKILL);
        self.reap(host);
        fs::remove_dir_all(self.data_dir(host)).map_err(|e| format!("wipe host {host}: {e}"))?;
        let (old, new) = (self.slot(host).id, self.next_id);
        self.next_id += 1;
        self.operate(&["member", "remove", &old.to_string()])?;
        self.add(&self.network.address(host), new)?;
        let slot = self.slot(host);
        (slot.id, slot.joined) = (new, true);
        self.start(host);
        self.operate(&["member", "promote", &new.to_string()])?;
        self.await_caught_up(host)
    }

    /// Power fails on some hosts at once: their servers end, and what was not synced is gone.
    pub(crate) fn lose_power(&mut self, hosts: &[usize]) -> Result<(), String> {
        hosts.iter().for_each(|host| self.signal(*host, Signal::SIGKILL));
        for host in hosts {
            self.reap(*host);
            self.disks[host - 1].lose_power()?;
        }
        hosts.iter().for_each(|host| self.start(*host));
        Ok(())
    }

    /// Damages a byte of a server's database while it is down. It says so when it starts, or goes on as if nothing had
    /// happened (a byte that nothing needs); its disk is not trusted any more either way, and it is replaced.
    pub(crate) fn corrupt(
        &mut self,
        host: usize,
        at: impl FnOnce(usize) -> usize,
    ) -> Result<&'static str, String> {
        self.signal(host, Signal::SIGKILL);
        self.reap(host);
        let file = self.data_dir(host).join("db/db");
        let mut bytes = fs::read(&file).map_err(|e| e.to_string())?;
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
        bytes[at(used)] ^= 0x20;
        fs::write(&file, bytes).map_err(|e| e.to_string())?;
        let log = self.dir.join(format!("host-{host}.log"));
        let begun = fs::read(&log).map_err(|e| e.to_string())?.len();
        let output = || {
            let bytes = fs::read(&log).unwrap_or_default();
            String::from_utf8_lossy(bytes.get(begun..).unwrap_or_default()).into_owned()
        };
        self.start(host);
        let deadline = Instant::now() + Duration::from_secs(OPERATOR_SECONDS);
        let slot = self.slot(host);
        let process = slot.process.as_mut().expect("started above");
        let noticed = loop {
            if process.ended().is_some() {
                let output = output();
                if !output.contains("remedy") {
                    return Err(format!("host {host} ended over a damaged byte, without a remedy: {output}"));
                }
                slot.process = None;
                break "noticed";
            }
            if Instant::now() >= deadline || output().contains(UP) {
                break "harmless";
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        self.replace(host)?;
        Ok(noticed)
    }

    /// Adds a learner. A command whose answer was lost finds it there when it is repeated.
    fn add(&self, address: &str, id: u64) -> Result<(), String> {
        let text = id.to_string();
        let deadline = Instant::now() + Duration::from_secs(OPERATOR_SECONDS);
        loop {
            let done = self.cli().run(&["--timeout", "5s", "member", "add", address, "--id", &text]);
            let listed = self.cli().run(&["--timeout", "5s", "member", "list", "-o", "json"]);
            let list: serde_json::Value = serde_json::from_str(&listed.stdout).unwrap_or_default();
            let members = list["members"].as_array().cloned().unwrap_or_default();
            if done.code == 0 || members.iter().any(|member| member["id"] == id) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(format!("member {id} cannot be added: {}", done.stderr.trim()));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Asks every server for a snapshot; those that are down or busy do without.
    pub(crate) fn snapshot_all(&self) {
        for host in self.hosts() {
            let address = self.network.address(host);
            let asked = async move {
                let mut client = ClusterClient::new(connect(&address));
                tokio::time::timeout(Duration::from_secs(5), client.take_snapshot(v1::TakeSnapshotRequest {}))
                    .await
            };
            let _ = self.runtime.block_on(asked);
        }
    }

    fn clock_file(&self, agent: usize) -> PathBuf {
        self.dir.join(format!("agent-{agent}.clock"))
    }

    /// Moves an agent's clocks: the one since boot only forward, as a machine's sleep does.
    pub(crate) fn jump_clock(&self, agent: usize, boot_ms: u64, unix_ms: i64) -> Result<(), String> {
        let unfinished = self.dir.join(format!("agent-{agent}.clock.new"));
        let text = format!("{boot_ms} {unix_ms}\n");
        fs::write(&unfinished, text)
            .and_then(|()| fs::rename(&unfinished, self.clock_file(agent)))
            .map_err(|e| e.to_string())
    }

    pub(crate) fn agents(&self) -> Vec<usize> {
        (0..AGENTS).collect()
    }

    /// Where an agent keeps its data.
    pub(crate) fn agent_dir(&self, agent: usize) -> PathBuf {
        self.dir.join(format!("agent-{agent}"))
    }

    pub(crate) fn guests(&self, agent: usize) -> Vec<Guest> {
        pods::guests(&self.agent_dir(agent))
    }

    /// All pods, from whichever server answers first.
    pub(crate) fn pods(&self) -> Result<Vec<Pod>, String> {
        let deadline = Instant::now() + Duration::from_secs(OPERATOR_SECONDS);
        loop {
            for address in self.addresses() {
                match self.runtime.block_on(pods::list(&address)) {
                    Ok(pods) => return Ok(pods),
                    Err(error) if Instant::now() >= deadline => return Err(format!("no pods: {error}")),
                    Err(_) => {}
                }
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// An agent whose guests are stand-ins.
    fn start_agent(&mut self, agent: usize) {
        let mut command = Command::new(bulkhead());
        command.args(["--server", &self.addresses().join(","), "agent", "--name", &format!("node-{agent}")]);
        command.args([
            "--listen",
            &self.agent_addresses[agent],
            "--accel",
            "tcg",
            "--cpu",
            "4",
            "--memory",
            "2Gi",
        ]);
        self.parts.equip(&mut command);
        command.args(["--cgroup-parent", &self.cgroups.parent, "--network", "none"]);
        command.arg("--end-with-parent").arg("--data-dir").arg(self.agent_dir(agent));
        command.env("BULKHEAD_TEST_CLOCK", self.clock_file(agent));
        let process = Process::start(&self.dir, &format!("agent-{agent}"), &mut command);
        self.agents.insert(agent, process);
    }

    /// Kills an agent and starts it again after a while: its guests go on, unless their pods go.
    pub(crate) fn kill_agent(&mut self, agent: usize, down: Duration) -> Result<usize, String> {
        let Some(process) = self.agents.remove(&agent) else { return Ok(0) };
        let before = self.guests(agent);
        process.kill();
        std::thread::sleep(down);
        self.start_agent(agent);
        let deadline = Instant::now() + Duration::from_secs(END_SECONDS);
        let process = self.agents.get_mut(&agent).expect("started above");
        while !process.output().contains(AGENT_UP) {
            if process.ended().is_some() || Instant::now() >= deadline {
                return Err(format!("agent {agent} does not come back: {}", process.output()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let after = self.guests(agent);
        let (kept, lost): (Vec<Guest>, Vec<Guest>) =
            before.into_iter().partition(|guest| after.contains(guest));
        self.adopted += kept.len() as u64;
        // Asked after the look at the processes: a pod that is to stay was to stay then.
        let stays = |pods: &[Pod], id| pods.iter().any(|pod| pod.id == id && !pod.is_leaving);
        if !lost.is_empty() {
            let pods = self.pods()?;
            let lost = lost.into_iter().filter(|guest| stays(&pods, guest.pod));
            self.findings.extend(lost.map(|guest| format!("agent {agent} was killed, and {guest:?} ended")));
        }
        Ok(kept.len())
    }

    /// Ends everything in order, and reports who did not end well.
    pub(crate) fn end(&mut self) {
        for (agent, mut process) in std::mem::take(&mut self.agents) {
            process.signal(Signal::SIGTERM);
            let status = process.wait(END_SECONDS);
            if !status.success() {
                self.findings.push(format!("agent {agent} ended with {status}"));
            }
        }
        for host in self.hosts() {
            self.check_alive(host);
            self.signal(host, Signal::SIGTERM);
            if let Some(mut process) = self.slot(host).process.take() {
                let status = process.wait(END_SECONDS);
                if !status.success() {
                    self.findings.push(format!("the server on host {host} ended with {status}"));
                }
            }
        }
    }
}
