//! Torture of real servers: separate processes, real disks and sockets, under load and under faults from a seed.
//!
//! ```text
//!  Nemesis (faults drawn from the seed) ─► Fleet: servers, agents ── Network: namespaces, links
//!                                            ▲    │               └─ Disk: a small file system per server
//!                                            │    └─ Pods: a Deployment that is scaled and rolled, stand-in guests
//!  Load: clients, watchers ── gRPC ──────────┘
//!    └─► History ─► check: nothing lost, nothing twice, one order that respects real time, watches without gaps
//!  then: heal, equal digests, `debug check`, histories of all servers, a guest for each pod, nothing left on the machine
//! ```
//!
//! Entry point: [`run`]. A run with too little work is void, which is a failure: it shows nothing.
//!
//! The faults and their order follow from the seed; processes and disks have their own timing, so the same seed gives
//! the same faults, not the same run.

mod disk;
mod faults;
mod fleet;
pub mod history;
mod load;
mod network;
mod pods;
mod rng;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bulkhead_proto::v1;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use v1::queries_client::QueriesClient;

use crate::process::pids_with;
use disk::Disk;
use faults::Nemesis;
use fleet::{Fleet, SERVERS};
use history::History;
use load::{Load, connect, read_object};
use network::Network;
use pods::{Parts, REPLICAS_LAST};
use rng::Rng;

/// Clients and watchers.
const CLIENTS: usize = 8;
const WATCHERS: usize = 3;
/// How long the healed cluster may take to answer what is open, and to be of one state.
const SETTLE_SECONDS: u64 = 120;
/// How long processes may take to be gone when everything was told to end.
const PROCESSES_END_SECONDS: u64 = 30;
/// Fewer acknowledged operations per second, or seconds per fault beyond this, make a run void.
const OPERATIONS_PER_SECOND_MIN: u64 = 5;
const SECONDS_PER_FAULT_MAX: u64 = 15;
/// A run whose faults were of fewer kinds is void as well, and one in which fewer pods had a guest.
const KINDS_MIN: usize = 4;
const PODS_MIN: usize = 3;

/// What to do.
#[derive(Clone, Debug)]
pub struct Config {
    /// Draws the faults.
    pub seed: u64,
    /// How long faults go on.
    pub duration: Duration,
    /// The previous build, for rolling upgrades; the same build when there is none.
    pub previous: Option<PathBuf>,
}

/// What was done and found.
#[derive(Debug)]
pub struct Report {
    /// How the run was: work, faults by kind, what this machine could not do.
    pub lines: Vec<String>,
    /// What is wrong. Empty when all is well.
    pub findings: Vec<String>,
    /// Why the run shows nothing, when it did too little.
    pub void: Option<String>,
}

/// Prints at once: a run takes minutes.
#[allow(clippy::print_stdout)]
fn say(line: &str) {
    println!("torture: {line}");
}

/// Objects by name: revision and value.
type Objects = BTreeMap<String, (u64, String)>;

struct Run {
    fleet: Fleet,
    load: Arc<Load>,
    runtime: Runtime,
    /// What changes the cluster: clients, and who churns the pods.
    tasks: Vec<JoinHandle<()>>,
    watchers: Vec<JoinHandle<()>>,
    notes: Vec<String>,
}

/// Runs to the end.
///
/// # Panics
/// When this machine cannot start the processes, or the healed cluster does not come to rest.
#[must_use]
pub fn run(config: &Config) -> Report {
    let dir = tempfile::Builder::new().prefix("bulkhead-torture.").tempdir().expect("a folder");
    say(&format!("seed {}, {} s, in {}", config.seed, config.duration.as_secs(), dir.path().display()));
    let mut rng = Rng::new(config.seed);
    let mut run = Run::start(config, dir.path(), &mut rng);
    let (nemesis, mut findings) = run.torture(config, &mut rng);
    let history = run.settle(&mut findings);
    let mut report = run.judge(config, &nemesis, &history, findings);
    report.findings.extend(leftovers(dir.path()));
    if !report.findings.is_empty() || report.void.is_some() {
        say(&format!("logs are kept in {}", dir.keep().display()));
    }
    report
}

impl Run {
    fn start(config: &Config, dir: &Path, rng: &mut Rng) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let mut notes = Vec::new();
        let (network, reason) = Network::new(SERVERS);
        notes.push(reason.map_or_else(
            || "each server has a network namespace of its own".to_owned(),
            |reason| format!("all servers are on 127.0.0.1, links stay whole ({reason})"),
        ));
        let (disks, reasons): (Vec<_>, Vec<_>) = (1..=SERVERS).map(|host| Disk::new(dir, host)).unzip();
        notes.push(reasons.into_iter().flatten().next().map_or_else(
            || "each server has a file system of its own".to_owned(),
            |reason| format!("servers share a file system, disks stay sound ({reason})"),
        ));
        notes.push(match &config.previous {
            Some(path) => format!("the previous build is {}", path.display()),
            None => "upgrades are from this build to itself: no PREVIOUS was given".to_owned(),
        });
        notes.iter().for_each(|note| say(note));
        let parts = Parts::prepare(dir).expect("what guests are made of");
        let mut fleet =
            Fleet::new(dir, network, disks, config.previous.clone(), parts.clone(), runtime.handle().clone());
        for agent in fleet.agents() {
            parts.import(&fleet.agent_dir(agent)).expect("an image");
        }
        fleet.heal();
        let load = Arc::clone(&fleet.load);
        let from = runtime.block_on(load::prepare(&load, rng.fork()));
        fleet.cli().apply(dir, &pods::manifest());
        let mut tasks = Vec::new();
        for number in 0..CLIENTS {
            tasks.push(runtime.spawn(load::client(number, Arc::clone(&load), rng.fork())));
        }
        let mut watchers = Vec::new();
        for _ in 0..WATCHERS {
            watchers.push(runtime.spawn(load::watcher(Arc::clone(&load), from, rng.fork())));
        }
        tasks.push(runtime.spawn(pods::churn(Arc::clone(&load), rng.fork())));
        Self { fleet, load, runtime, tasks, watchers, notes }
    }

    /// The part with the faults. Ends early when an operator's command does not work.
    fn torture(&mut self, config: &Config, rng: &mut Rng) -> (Nemesis, Vec<String>) {
        let mut nemesis = Nemesis::new(rng.fork(), &self.fleet);
        say(&format!("faults: {:?}", nemesis.kinds()));
        let began = Instant::now();
        let mut findings = Vec::new();
        while began.elapsed() < config.duration && findings.is_empty() {
            let at = began.elapsed().as_secs_f64();
            match nemesis.strike(&mut self.fleet) {
                Ok(done) => {
                    let acknowledged = self.load.acknowledged.load(Ordering::Relaxed);
                    say(&format!("{at:6.1} s, {acknowledged:6} answers: {done}"));
                }
                Err(error) => findings.push(error),
            }
            findings.append(&mut self.fleet.findings);
            nemesis.rest();
        }
        (nemesis, findings)
    }

    /// Heals everything, lets clients and watchers come to their end, and takes what they saw.
    fn settle(&mut self, findings: &mut Vec<String>) -> History {
        self.fleet.heal();
        self.load.stop();
        let deadline = Instant::now() + Duration::from_secs(SETTLE_SECONDS);
        let changing = std::mem::take(&mut self.tasks);
        self.join(changing, deadline);
        match self.final_revision() {
            Some(revision) => self.load.watch_until(revision),
            None => findings.push("the healed cluster cannot be read".to_owned()),
        }
        let watchers = std::mem::take(&mut self.watchers);
        self.join(watchers, Instant::now() + Duration::from_secs(SETTLE_SECONDS));
        findings.extend(self.load.take_findings());
        self.load.take_history()
    }

    /// Waits for tasks; those that are not done in time are told to give up.
    fn join(&self, tasks: Vec<JoinHandle<()>>, deadline: Instant) {
        for mut task in tasks {
            let left = deadline.saturating_duration_since(Instant::now());
            let done = self.runtime.block_on(async { tokio::time::timeout(left, &mut task).await.is_ok() });
            if !done {
                self.load.give_up();
                self.runtime.block_on(task).expect("tasks do not panic");
            }
        }
    }

    /// All objects of the load by name, as a linearizable read has them, with the revision.
    fn list(&self, address: &str) -> Result<(u64, Objects), tonic::Status> {
        self.runtime.block_on(async {
            let mut client = QueriesClient::new(connect(address));
            let (mut objects, mut token) = (BTreeMap::new(), String::new());
            loop {
                let request = v1::ListRequest {
                    kind: v1::Kind::Namespace.into(),
                    limit: 10_000,
                    continue_token: token,
                    ..Default::default()
                };
                let mut request = tonic::Request::new(request);
                request.set_timeout(Duration::from_secs(20));
                let page = client.list(request).await?.into_inner();
                for (name, revision, value) in page.items.into_iter().filter_map(read_object) {
                    objects.insert(name, (revision, value));
                }
                if page.continue_token.is_empty() {
                    return Ok((page.revision, objects));
                }
                token = page.continue_token;
            }
        })
    }

    fn final_revision(&self) -> Option<u64> {
        let deadline = Instant::now() + Duration::from_secs(SETTLE_SECONDS);
        while Instant::now() < deadline {
            for address in self.fleet.addresses() {
                if let Ok((revision, _)) = self.list(&address) {
                    return Some(revision);
                }
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        None
    }

    /// Holds everything against the promises, and ends the processes.
    fn judge(
        mut self,
        config: &Config,
        nemesis: &Nemesis,
        history: &History,
        mut findings: Vec<String>,
    ) -> Report {
        findings.extend(history.check());
        findings.extend(self.objects(history));
        findings.extend(self.chronicles(history));
        findings.extend(self.digests());
        let checked = self.fleet.cli().run(&["debug", "check"]);
        if checked.code != 0 {
            findings.push(format!("debug check: {}{}", checked.stdout, checked.stderr));
        }
        findings.extend(self.nodes());
        findings.extend(self.pods().err());
        self.fleet.end();
        findings.append(&mut self.fleet.findings);
        let (lines, void) = self.summary(config, nemesis, history);
        Report { lines, findings, void }
    }

    /// What every server has in the end: each object at its newest known revision, those made once included.
    fn objects(&self, history: &History) -> Vec<String> {
        let newest = history.newest();
        let mut findings = Vec::new();
        for address in self.fleet.addresses() {
            let found = match self.list(&address) {
                Ok((_, found)) => found,
                Err(status) => {
                    findings.push(format!("{address} cannot be read in the end: {status}"));
                    continue;
                }
            };
            for (key, (revision, value)) in &newest {
                match found.get(key) {
                    Some((r, v)) if r == revision && v == value => {}
                    other => {
                        findings.push(format!("{address} has {key} as {other:?}, not {value} at {revision}"))
                    }
                }
            }
            let strangers = found.keys().filter(|key| !newest.contains_key(*key));
            findings.extend(strangers.map(|key| format!("{address} has {key}, which nobody saw being made")));
        }
        findings.truncate(10);
        findings
    }

    /// The events that every server keeps: from its oldest one on nothing is missing, nothing is there twice.
    fn chronicles(&self, history: &History) -> Vec<String> {
        let changes = history.changes();
        let mut findings = Vec::new();
        for address in self.fleet.addresses() {
            let kept = match self.runtime.block_on(events(&address)) {
                Ok(kept) => kept,
                Err(status) => {
                    findings.push(format!("the events of {address} cannot be read: {status}"));
                    continue;
                }
            };
            let revisions: Vec<u64> = kept.iter().map(|(revision, _)| *revision).collect();
            let gap = revisions.windows(2).find(|two| two[1] != two[0] + 1);
            findings.extend(
                gap.map(|two| format!("{address} has events {} and {} side by side", two[0], two[1])),
            );
            let oldest = revisions.first().copied().unwrap_or(u64::MAX);
            let newest = changes.keys().next_back().copied().unwrap_or(0);
            if oldest > newest {
                findings.push(format!("{address} keeps no event of revision {newest} or before"));
            }
            let found: BTreeMap<u64, String> = kept.into_iter().collect();
            let missing = changes.range(oldest..).find(|(revision, key)| found.get(revision) != Some(key));
            findings.extend(missing.map(|(revision, key)| {
                format!("{address} has {:?} at revision {revision}, not {key}", found.get(revision))
            }));
        }
        findings
    }

    fn digests(&self) -> Vec<String> {
        let mut seen = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(SETTLE_SECONDS);
        while Instant::now() < deadline {
            seen = self.fleet.hosts().into_iter().filter_map(|host| self.fleet.status(host)).collect();
            let equal = seen.windows(2).all(|two| two[0].applied_index == two[1].applied_index);
            if seen.len() == SERVERS && equal {
                let differ = seen.windows(2).any(|two| two[0].digest != two[1].digest);
                let differ = differ.then(|| format!("digests differ at the same index: {seen:#?}"));
                return differ.into_iter().collect();
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        vec![format!("the servers never were at the same index: {seen:#?}")]
    }

    /// Agents with clocks that jumped are back.
    fn nodes(&self) -> Vec<String> {
        let cli = self.fleet.cli();
        let is_ready = |agent: &usize| {
            let node = cli.object("node", &format!("node-{agent}"));
            node.is_some_and(|node| node.to_string().contains("\"Ready\""))
        };
        let deadline = Instant::now() + Duration::from_secs(SETTLE_SECONDS);
        let mut missing = self.fleet.agents();
        while !missing.is_empty() && Instant::now() < deadline {
            missing.retain(|agent| !is_ready(agent));
            std::thread::sleep(Duration::from_millis(100));
        }
        missing.into_iter().map(|agent| format!("node-{agent} does not become ready")).collect()
    }

    /// Agents run what they should and keep nothing else: while there are pods, and when there are none any more.
    fn pods(&mut self) -> Result<(), String> {
        let replicas = REPLICAS_LAST.to_string();
        let is_complete = |pods: &[pods::Pod]| {
            pods.len() == REPLICAS_LAST as usize && pods.iter().all(|pod| pod.is_running)
        };
        // New pods: those of before may wait for their next attempt.
        self.fleet.operate(&["rollout", "restart", pods::TARGET])?;
        self.fleet.operate(&["scale", pods::TARGET, "--replicas", &replicas])?;
        self.fleet.operate(&["rollout", "status", pods::TARGET])?;
        self.come_to_rest(is_complete)?;
        // Whatever was drawn: adoption is seen in every run.
        let mut kept = 0;
        for agent in self.fleet.agents() {
            kept += self.fleet.kill_agent(agent, Duration::ZERO)?;
        }
        if kept < REPLICAS_LAST as usize {
            return Err(format!("{kept} of {REPLICAS_LAST} guests went on when all agents were killed"));
        }
        self.come_to_rest(is_complete)?;
        self.fleet.operate(&["delete", pods::TARGET, "--wait=false", "--ignore-not-found"])?;
        self.come_to_rest(|pods| pods.is_empty())
    }

    /// Waits until the pods are as they should be, and the agents have exactly their guests.
    fn come_to_rest(&mut self, is_right: impl Fn(&[pods::Pod]) -> bool) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_secs(SETTLE_SECONDS);
        loop {
            let pods = self.fleet.pods()?;
            let mut wrong = self.agent_differences(&pods);
            if !is_right(&pods) {
                wrong.push(format!("the pods are {pods:#?}"));
            }
            if wrong.is_empty() {
                self.fleet.started.extend(pods.iter().map(|pod| pod.id));
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(wrong.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn agent_differences(&self, pods: &[pods::Pod]) -> Vec<String> {
        let of = |agent| pods::differences(&format!("node-{agent}"), &self.fleet.agent_dir(agent), pods);
        self.fleet.agents().into_iter().flat_map(of).collect()
    }

    fn summary(
        &self,
        config: &Config,
        nemesis: &Nemesis,
        history: &History,
    ) -> (Vec<String>, Option<String>) {
        let load = &self.load;
        let get = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let seconds = config.duration.as_secs();
        let (answers, faults) = (get(&load.acknowledged), nemesis.counts.values().sum::<u64>());
        let mut lines = self.notes.clone();
        lines.push(format!(
            "{answers} answers to {} attempts in {seconds} s, {} unknown; {} operations in the history",
            get(&load.attempts),
            get(&load.unknown),
            history.operations.len()
        ));
        lines.push(format!(
            "{} watch events in {} stretches, {} resumptions, {} lists",
            get(&load.watched),
            history.stretches.len(),
            get(&load.resumed),
            get(&load.relists)
        ));
        lines.push(format!("{faults} faults: {:?}", nemesis.counts));
        let pods = self.fleet.started.len();
        lines.push(format!("{pods} pods had a guest, {} guests were adopted", self.fleet.adopted));
        let void = if answers < seconds * OPERATIONS_PER_SECOND_MIN {
            Some(format!("{answers} answers are too few"))
        } else if faults < seconds / SECONDS_PER_FAULT_MAX || nemesis.counts.len() < KINDS_MIN {
            Some(format!("{faults} faults of {} kinds are too few", nemesis.counts.len()))
        } else if get(&load.watched) == 0 {
            Some("no watch saw anything".to_owned())
        } else if pods < PODS_MIN {
            Some(format!("{pods} pods with a guest are too few"))
        } else {
            None
        };
        (lines, void)
    }
}

/// Revision and object's name of every event that a server keeps.
async fn events(address: &str) -> Result<Vec<(u64, String)>, tonic::Status> {
    let request = v1::ListEventsRequest { limit: 100_000, ..Default::default() };
    let mut client = QueriesClient::new(connect(address));
    let mut entries = client.list_events(request).await?.into_inner();
    let mut all = Vec::new();
    while let Some(entry) = entries.message().await? {
        all.push((entry.revision, entry.object.map(|object| object.name).unwrap_or_default()));
    }
    Ok(all)
}

/// What a run must not leave on the machine: processes, namespaces, links, mounts.
fn leftovers(dir: &Path) -> Vec<String> {
    let text = dir.display().to_string();
    let deadline = Instant::now() + Duration::from_secs(PROCESSES_END_SECONDS);
    let mut left = pids_with(&[&text]);
    while !left.is_empty() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
        left = pids_with(&[&text]);
    }
    let mut found: Vec<String> = left.iter().map(|pid| format!("process {pid}")).collect();
    // They were named; the next run shall not find them.
    for pid in left {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    found.extend(Network::leftovers());
    found.extend(disk::mounts_below(dir));
    found.into_iter().map(|what| format!("left on this machine: {what}")).collect()
}
