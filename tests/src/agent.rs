//! An agent as a process, and the guests that outlive it.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cgroups::Cgroups;
use crate::cluster::free_addresses;
use crate::process::{Process, bulkhead, find_program, pids_with};
use crate::stubs::Stubs;
use crate::wait;

/// How long a killed guest may take to be gone.
const GONE_SECONDS: u64 = 90;

/// What guests need on this machine: the kernel's folder and the guest program.
///
/// # Errors
/// What is missing, and what brings it.
pub fn guest_environment() -> Result<(PathBuf, PathBuf), String> {
    let set = |name: &str| {
        let value = std::env::var_os(name).map(PathBuf::from);
        value
            .filter(|p| p.exists())
            .ok_or_else(|| format!("{name} names nothing that is there; remedy: run make test"))
    };
    if find_program("qemu-system-x86_64").is_none() {
        return Err("qemu-system-x86_64 is missing; remedy: make deps".to_owned());
    }
    Ok((set("BULKHEAD_KERNEL_DIR")?, set("BULKHEAD_GUEST")?))
}

/// An agent. Its guests end with it.
pub struct Agent {
    /// The node's name.
    pub name: String,
    dir: PathBuf,
    listen: String,
    servers: String,
    options: Vec<String>,
    process: Option<Process>,
    cgroups: Cgroups,
}

impl Agent {
    /// An agent that does not run yet, with its data and log below `dir`.
    #[must_use]
    pub fn prepare(dir: &Path, name: &str, servers: &[String], options: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            dir: dir.to_path_buf(),
            listen: free_addresses(1).remove(0),
            servers: servers.join(","),
            options: options.iter().map(|&o| o.to_owned()).collect(),
            process: None,
            cgroups: Cgroups::new(),
        }
    }

    /// Where it keeps its data.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join(&self.name)
    }

    /// Puts an image of a layout into its store, while it does not run.
    ///
    /// # Panics
    /// When that fails.
    pub fn import(&self, layout: &Path, tag: &str, name: &str) {
        let mut command = Command::new(bulkhead());
        command.args(["image", "import", "--tag", tag, "--name", name, "--data-dir"]).arg(self.data_dir());
        let output = command.arg(layout).output().expect("the program starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts it, for the first time or again.
    ///
    /// # Panics
    /// When the machine cannot run guests, or it runs already.
    pub fn start(&mut self) {
        let (kernel_dir, guest) = guest_environment().expect("guests can run here");
        self.start_in(&kernel_dir, &guest, None);
    }

    /// Starts it, for the first time or again, with processes for guests that do nothing but live: see [`Stubs`].
    ///
    /// # Panics
    /// When it runs already.
    pub fn start_with(&mut self, stubs: &Stubs) {
        self.start_in(&stubs.kernel_dir, &stubs.guest, Some(&stubs.programs));
    }

    fn start_in(&mut self, kernel_dir: &Path, guest: &Path, programs: Option<&Path>) {
        assert!(self.process.is_none(), "{} runs", self.name);
        let mut command = Command::new(bulkhead());
        if let Some(programs) = programs {
            let path = std::env::var("PATH").unwrap_or_default();
            command.env("PATH", format!("{}:{path}", programs.display()));
        }
        command.args(["--server", &self.servers, "agent", "--name", &self.name, "--listen", &self.listen]);
        command.args(["--cpu", "4", "--memory", "2Gi", "--data-dir"]).arg(self.data_dir());
        command.args(["--cgroup-parent", &self.cgroups.parent]);
        if !self.options.iter().any(|option| option.starts_with("--network")) {
            // Who is killed leaves a bridge behind for its next life.
            command.args(["--network", "none"]);
        }
        command.arg("--kernel-dir").arg(kernel_dir).arg("--guest").arg(guest).args(&self.options);
        self.process = Some(Process::start(&self.dir, &self.name, &mut command));
    }

    /// Its process, which is the caller's from now on.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn take(&mut self) -> Process {
        self.process.take().unwrap_or_else(|| panic!("{} runs", self.name))
    }

    /// The processes of its guests.
    #[must_use]
    pub fn guests(&self) -> Vec<i32> {
        let data_dir = self.data_dir();
        pids_with(&["qemu-system", &format!("{}/pods/", data_dir.display())])
    }

    /// The folders of its pods.
    #[must_use]
    pub fn pod_dirs(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.data_dir().join("pods"));
        entries.map(|e| e.flatten().map(|e| e.path()).collect()).unwrap_or_default()
    }

    /// Ends one of its guests with SIGKILL.
    ///
    /// # Panics
    /// When it is not there.
    pub fn kill_guest(&self, pid: i32) {
        assert!(self.guests().contains(&pid), "{pid} is a guest of {}", self.name);
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("killed");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // The agent first: it would start its guests again.
        self.process = None;
        for pid in self.guests() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if !std::thread::panicking() {
            wait::until_true("the end of all guests", GONE_SECONDS, || self.guests().is_empty());
        }
    }
}
