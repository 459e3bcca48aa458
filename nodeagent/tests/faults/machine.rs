//! A node with an agent that can be killed, and everything that could be left on it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use bulkhead_nodeagent_core::network::{LinkNames, Ruleset};
use bulkhead_types::{Name, ObjectId, PodIntent, PodReport, RestartPolicy};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};

use super::host::{Change, Host};
use super::stub_files;
use crate::server::FakeServer;
use crate::{DEADLINE, deleting, import_busybox, pod};

/// The variable with an agent's settings.
pub const AGENT: &str = "BULKHEAD_TEST_AGENT";
/// Where control groups are: version 2's, or a folder for each of version 1's.
const CGROUPS: &str = "/sys/fs/cgroup";

/// What an agent's process is told.
#[derive(Clone, Serialize, Deserialize)]
pub struct Settings {
    pub data: PathBuf,
    pub server: String,
    pub stubs: PathBuf,
    pub cgroup_parent: String,
    pub boot_deadline_ms: u64,
    pub silence_ms: u64,
    pub backoff_ms: (u64, u64),
    /// What was done to a machine in memory that the agent has instead of this one's devices and network.
    pub host: Option<PathBuf>,
    /// Where guests' network is, if they have one.
    pub network: Option<NetworkOf>,
    /// Guests are shut in: not those with devices that there are in memory only.
    pub is_confined: bool,
    /// Guests are copies of templates.
    #[serde(default)]
    pub templates: bool,
    /// Guests like [`web`]'s that wait for pods.
    #[serde(default)]
    pub vm_pool: u32,
}

/// Whose network guests have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkOf {
    /// The machine in memory's.
    Memory,
    /// This machine's kernel's: a bridge, taps and rules of the agent's own.
    Kernel,
}

/// A node.
pub struct Machine {
    dir: tempfile::TempDir,
    pub server: FakeServer,
    pub settings: Settings,
    agent: Option<Child>,
    /// Changes with every boot.
    boot: u32,
    /// Its data directory is a file system of its own.
    is_mounted: bool,
    /// The machine in memory, as this test knows it.
    host: Option<Host>,
}

/// The agent has a mount namespace of its own: what other tests of this machine mount meanwhile is not counted as its own. Only root
/// can have that, and no agent of others can mount anything.
fn has_mounts_of_its_own() -> bool {
    rustix::process::geteuid().is_root()
}

/// Everything that a run could leave: what it is, and how often it is there.
pub type Inventory = BTreeMap<String, usize>;

impl Machine {
    /// `None`, with a word on what is missing, where it cannot be.
    pub async fn new() -> Option<Self> {
        Self::with_disk(None).await
    }

    /// The same, with a small disk of its own: of so many MiB.
    pub async fn with_disk(mib: Option<u32>) -> Option<Self> {
        if !Path::new("/bin/busybox").exists() {
            eprintln!("skipped: there is no /bin/busybox (apt-get install busybox-static)");
            return None;
        }
        let dir = tempfile::tempdir().expect("temporary directory");
        let stubs = dir.path().join("stubs");
        stub_files::make(&stubs);
        let server = FakeServer::start().await;
        let name = dir.path().file_name().and_then(|name| name.to_str()).expect("a name");
        let settings = Settings {
            data: dir.path().join("data"),
            server: format!("http://{}", server.address),
            stubs,
            cgroup_parent: format!("/bulkhead/test-{}", name.trim_start_matches('.')),
            boot_deadline_ms: 20_000,
            silence_ms: 60_000,
            backoff_ms: (50, 200),
            host: None,
            network: None,
            is_confined: true,
            templates: false,
            vm_pool: 0,
        };
        if let Some(mib) = mib {
            std::fs::create_dir(&settings.data).expect("a folder");
            let mut mount = std::process::Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]).arg(&settings.data);
            if !mount.status().is_ok_and(|status| status.success()) {
                eprintln!("skipped: no file system can be mounted here");
                return None;
            }
        }
        // From here on it is unmounted, whatever happens.
        let machine =
            Self { dir, server, settings, agent: None, boot: 1, is_mounted: mib.is_some(), host: None };
        import_busybox(machine.dir.path(), &machine.settings.data).await;
        Some(machine)
    }

    /// From now on the agent has a machine in memory, which outlives it.
    pub fn have_host(&mut self) {
        let log = self.dir.path().join("host");
        let _ = std::fs::remove_file(&log);
        self.host = Some(Host::open(&log, &self.settings.data));
        self.settings.host = Some(log);
        self.settings.network.get_or_insert(NetworkOf::Memory);
    }

    /// From now on guests have a network of this machine's kernel.
    pub fn have_network(&mut self) {
        self.settings.network = Some(NetworkOf::Kernel);
    }

    /// What the agent's links and tables are called.
    fn links(&self) -> LinkNames {
        let data = std::fs::canonicalize(&self.settings.data).unwrap_or_else(|_| self.settings.data.clone());
        let own = format!("node-1-{:08x}", crc32c::crc32c(data.as_os_str().as_encoded_bytes()));
        LinkNames::new(crc32c::crc32c(own.as_bytes()))
    }

    /// Lines of the packet filter that name something of the agent's.
    fn rules(&self) -> Vec<String> {
        let listed = std::process::Command::new("nft").args(["list", "ruleset"]).output();
        let listed =
            listed.map(|listed| String::from_utf8_lossy(&listed.stdout).into_owned()).unwrap_or_default();
        let (bridge, taps) = (self.links().bridge(), self.links().tap_prefix());
        let is_own = |line: &&str| line.contains(&bridge) || line.contains(&taps);
        listed.lines().filter(is_own).map(|line| line.trim().to_owned()).collect()
    }

    /// Everything that the kernel has of the agent's network goes.
    fn remove_network(&self) {
        let names = self.links();
        let links = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
        let links = links.map(|entry| entry.file_name().to_string_lossy().into_owned());
        for link in links.filter(|link| *link == names.bridge() || link.starts_with(&names.tap_prefix())) {
            let _ = std::process::Command::new("ip").args(["link", "delete", &link]).status();
        }
        let nft = std::process::Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn();
        if let Ok(mut nft) = nft {
            let rules = Ruleset::remove(names);
            let _ = nft.stdin.take().map(|mut stdin| stdin.write_all(rules.as_bytes()));
            let _ = nft.wait();
        }
    }

    /// The agent's machine as it is now.
    pub fn host(&self) -> Host {
        let host = self.host.as_ref().expect("it has one");
        host.catch_up();
        host.clone()
    }

    /// What the agent that runs, or ran last, has reached: steps, and whether they may fail.
    pub fn reached(&self) -> Vec<(String, bool)> {
        let text = std::fs::read_to_string(self.dir.path().join("reached")).unwrap_or_default();
        let step = |line: &str| line.split_once(' ').map(|(step, fails)| (step.to_owned(), fails == "true"));
        text.lines().filter_map(step).collect()
    }

    /// Starts the agent with a wish for its steps, and waits until it has a session.
    pub async fn start(&mut self, wish: Option<&str>) {
        let ended = self.begin(wish).await;
        assert!(ended.is_none(), "the agent ended before it had a session: {ended:?}");
    }

    /// The same of an agent that may be killed before it has one: how it ended then. An agent that was killed while it started a
    /// process holds the data directory until that has executed its program: then it is tried again, as a service manager does.
    pub async fn begin(&mut self, wish: Option<&str>) -> Option<ExitStatus> {
        assert!(self.agent.is_none(), "it runs");
        let before = self.server.incarnation();
        loop {
            let _ = std::fs::remove_file(self.dir.path().join("reached"));
            let mut agent = self.spawn(wish);
            tokio::select! {
                () = self.server.joined(before) => {
                    self.agent = Some(agent);
                    return None;
                }
                ended = agent.wait() => {
                    let ended = ended.expect("ours");
                    if ended.signal().is_some() {
                        return Some(ended);
                    }
                }
            }
        }
    }

    /// The agent's process, for whoever waits for its end.
    pub fn take_agent(&mut self) -> Child {
        self.agent.take().expect("it runs")
    }

    fn spawn(&self, wish: Option<&str>) -> Child {
        let log = format!("log:{}", self.dir.path().join("reached").display());
        let wishes = wish.map_or_else(|| log.clone(), |wish| format!("{log},{wish}"));
        let path = std::env::var("PATH").unwrap_or_default();
        let settings = serde_json::to_string(&self.settings).expect("JSON");
        let program = std::env::current_exe().expect("a test has a path");
        let mut command = Command::new(if has_mounts_of_its_own() { Path::new("unshare") } else { &program });
        if has_mounts_of_its_own() {
            command.args(["--mount", "--propagation", "private", "--"]).arg(&program);
        }
        command
            .args(["--exact", "faults::agent_process", "--nocapture"])
            .env("PATH", format!("{}:{path}", self.settings.stubs.join("bin").display()))
            .env(AGENT, settings)
            .env("BULKHEAD_TEST_CLOCK", self.dir.path().join("clock"))
            .env("BULKHEAD_TEST_BOOT_ID", format!("boot-{}", self.boot))
            .env("BULKHEAD_TEST_STEP", wishes)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        command.spawn().expect("the agent starts")
    }

    /// SIGKILL.
    pub async fn kill_agent(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.kill().await.expect("ours");
        }
    }

    /// The agent's calendar is so far from what is true.
    pub fn jump(&self, calendar_ms: i64) {
        let file = self.dir.path().join("clock");
        let fresh = file.with_extension("new");
        std::fs::write(&fresh, format!("0 {calendar_ms}")).expect("written");
        std::fs::rename(fresh, file).expect("replaced");
    }

    /// The machine boots: every process of this agent is gone at once.
    pub async fn reboot(&mut self) {
        self.kill_agent().await;
        self.kill_all();
        self.boot += 1;
        if let Some(host) = &self.settings.host {
            Host::change(host, &[Change::Boot]);
        }
    }

    /// Whether it was booted since its first agent.
    pub fn has_booted(&self) -> bool {
        self.boot > 1
    }

    fn kill_all(&self) {
        let processes = || self.guests().into_iter().chain(self.guards());
        while processes().next().is_some() {
            for pid in processes() {
                let _ = kill_process(Pid::from_raw(pid).expect("not 0"), Signal::KILL);
            }
        }
    }

    /// The processes of guests.
    pub fn guests(&self) -> Vec<i32> {
        let data = self.settings.data.display().to_string();
        processes(|words| {
            words.iter().any(|word| word == "-pidfile") && words.iter().any(|w| w.contains(&data))
        })
    }

    /// The processes of guards.
    pub fn guards(&self) -> Vec<i32> {
        let data = self.settings.data.display().to_string();
        processes(|words| {
            words.iter().any(|word| word.contains("fence-guard")) && words.iter().any(|w| w.contains(&data))
        })
    }

    /// A pod is intended, and serves; by the agent that runs now.
    pub async fn ready(&self, pod: u64) -> PodReport {
        let session = self.server.incarnation();
        let ready = |report: &PodReport| report.status.ready && report.sequence >> 32 >= session;
        self.server.report(pod, "a ready pod", ready).await
    }

    /// Deletes pods and waits until nothing of them is left, whatever became of them before.
    pub async fn delete(&self, pods: &[PodIntent], grace_ms: u64) {
        self.server.intend(pods.iter().map(|pod| deleting(pod.clone(), grace_ms)).collect());
        let session = self.server.incarnation();
        for pod in pods {
            let gone = |report: &PodReport| report.gone && report.sequence >> 32 >= session;
            self.server.report(pod.id.0, "the end", gone).await;
        }
        self.server.intend(vec![]);
        // What is told is told before the last folder goes.
        self.until("the end of all folders", || self.pod_folders().is_empty()).await;
    }

    /// Waits until something is true that nobody tells of.
    pub async fn until(&self, what: &str, is_true: impl Fn() -> bool) {
        let look = async {
            while !is_true() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(DEADLINE, look).await.is_err() {
            panic!("{what} never came: {:#?}", self.inventory());
        }
    }

    fn pod_folders(&self) -> Vec<PathBuf> {
        let found = std::fs::read_dir(self.settings.data.join("pods"));
        found.map(|found| found.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
    }

    /// Folders of guests, of all pods.
    pub fn guest_folders(&self) -> usize {
        let below =
            |dir: PathBuf| std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
        let is_guest = |path: &PathBuf| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.parse::<u32>().is_ok())
        };
        self.pod_folders().into_iter().flat_map(below).filter(is_guest).count()
    }

    /// What the machines of guests have that got other sizes.
    pub fn hardware(&self) -> Vec<serde_json::Value> {
        let mut files = Vec::new();
        files_below(&self.settings.data.join("pods"), &mut files);
        let files = files.iter().filter(|path| path.ends_with("machine.json"));
        let read = |path: &PathBuf| serde_json::from_slice(&std::fs::read(path).ok()?).ok();
        files.filter_map(read).collect()
    }

    /// Limits of memory of guests' control groups, in bytes.
    pub fn memory_limits(&self) -> Vec<u64> {
        let files = self
            .groups()
            .into_iter()
            .filter(|group| is_guest_group(group))
            .flat_map(|group| ["memory.max", "memory.limit_in_bytes"].map(|file| group.join(file)));
        let texts = files.filter_map(|file| std::fs::read_to_string(file).ok());
        texts.filter_map(|text| text.trim().parse().ok()).collect()
    }

    /// Control groups of guests.
    pub fn guest_groups(&self) -> usize {
        self.groups().iter().filter(|group| is_guest_group(group)).count()
    }

    fn groups(&self) -> Vec<PathBuf> {
        let root = PathBuf::from(CGROUPS);
        let hierarchies = std::fs::read_dir(&root).into_iter().flatten().flatten().map(|entry| entry.path());
        let parent = self.settings.cgroup_parent.trim_start_matches('/');
        let mut found = Vec::new();
        for hierarchy in hierarchies.chain([root.clone()]) {
            folders_below(&hierarchy.join(parent), &mut found);
        }
        found
    }

    /// Everything that there is of the agent's, and nothing of what others of this machine have at the moment: files, control groups,
    /// processes, what the agent's process has open and mounted, loop devices, taps and rules, functions with their drivers and what
    /// virtual ones are told.
    pub fn inventory(&self) -> Inventory {
        let mut found = Inventory::new();
        let mut count = |what: String| *found.entry(what).or_default() += 1;
        let mut files = Vec::new();
        files_below(&self.settings.data, &mut files);
        files.iter().for_each(|path| count(format!("file {}", path.display())));
        self.groups().iter().for_each(|group| count(format!("cgroup {}", group.display())));
        self.guests().iter().for_each(|_| count("guest".to_owned()));
        self.guards().iter().for_each(|_| count("guard".to_owned()));
        let links = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
        let (names, prefix) = (links.map(|entry| entry.file_name()), self.links().tap_prefix());
        // Others of this machine come and go.
        let own = names.filter(|name| name.to_string_lossy().starts_with(&prefix));
        own.for_each(|name| count(format!("tap {}", name.display())));
        if self.settings.network == Some(NetworkOf::Kernel) {
            self.rules().into_iter().for_each(|rule| count(format!("rule {rule}")));
        }
        if self.settings.host.is_some() {
            let host = self.host();
            host.functions().lines().for_each(|function| count(format!("function {function}")));
            let (links, rules) = host.network();
            links.iter().for_each(|link| count(format!("link in memory {link:?}")));
            rules.lines().for_each(|rule| count(format!("rule in memory {rule}")));
        }
        let blocks = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
        blocks
            .filter_map(|entry| std::fs::read_to_string(entry.path().join("loop/backing_file")).ok())
            .filter(|file| Path::new(file.trim_end()).starts_with(&self.settings.data))
            .for_each(|file| count(format!("loop device of {}", file.trim_end())));
        if let Some(agent) = self.agent.as_ref().and_then(Child::id) {
            let open = std::fs::read_dir(format!("/proc/{agent}/fd")).into_iter().flatten().flatten();
            open.for_each(|_| count("descriptor".to_owned()));
            if has_mounts_of_its_own() {
                let mounts = std::fs::read_to_string(format!("/proc/{agent}/mountinfo")).unwrap_or_default();
                mounts.lines().for_each(|mount| count(format!("mount {mount}")));
            }
            let ended = children(agent);
            ended.iter().for_each(|state| count(format!("child in state {state}")));
        }
        found
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The agent first, it would start its guests again; its end is waited for, because groups are removed below.
        if let Some(agent) = self.agent.as_mut() {
            let _ = agent.start_kill();
            while let Ok(None) = agent.try_wait() {
                std::thread::yield_now();
            }
        }
        self.kill_all();
        if self.settings.network == Some(NetworkOf::Kernel) {
            self.remove_network();
        }
        if self.is_mounted {
            let _ = std::process::Command::new("umount").arg("--lazy").arg(&self.settings.data).status();
        }
        let mut groups = self.groups();
        groups.sort_by_key(|group| std::cmp::Reverse(group.components().count()));
        for group in groups {
            // What was killed is in its group until it is reaped; by init, perhaps.
            for _ in 0..1000 {
                match std::fs::remove_dir(&group) {
                    Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                        std::thread::sleep(std::time::Duration::from_millis(5));
                    }
                    _ => break,
                }
            }
        }
    }
}

/// A pod that stays.
pub fn web(id: u64) -> PodIntent {
    pod(id, "sleep 1000", RestartPolicy::Always)
}

/// The same with a name: the stand-in's guest misbehaves as that says.
pub fn named(pod: PodIntent, name: &str) -> PodIntent {
    PodIntent { name: Name::new(name).expect("valid"), ..pod }
}

/// What the report of a pod is known by.
pub fn id(pod: &PodIntent) -> u64 {
    let ObjectId(id) = pod.id;
    id
}

fn is_guest_group(group: &Path) -> bool {
    group.file_name().is_some_and(|name| name.to_string_lossy().contains('.'))
}

pub fn processes(is_wanted: impl Fn(&[String]) -> bool) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<String> =
            line.split(|&byte| byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        is_wanted(&words)
    })
    .collect()
}

/// The states of a process' children (proc(5)); `Z` was not reaped.
fn children(parent: u32) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    let state = |stat: String| {
        let mut words = stat.rsplit_once(") ")?.1.split(' ');
        let state = words.next()?.to_owned();
        (words.next()?.parse() == Ok(parent)).then_some(state)
    };
    stats.filter_map(state).collect()
}

fn files_below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        found.push(entry.path());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            files_below(&entry.path(), found);
        }
    }
}

fn folders_below(dir: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    found.push(dir.to_owned());
    let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.for_each(|entry| folders_below(&entry.path(), found));
}
