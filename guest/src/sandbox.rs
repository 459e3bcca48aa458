//! What the child process does between clone and execve: it builds the container around itself.
//!
//! Everything here runs in the child, in its own mount, pid, ipc and uts namespaces. Paths of the image are only
//! touched after pivot_root, so that a link in the image cannot lead out of the container.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use bulkhead_guest_protocol::host::{ContainerConfig, MountConfig, SysctlConfig};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_no_new_privs;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid};

use crate::cgroup::Cgroup;
use crate::setup::mount_at;
use crate::stdio::{DEVPTS_OPTIONS, Stdio, Terminal, with_term};
use crate::sys;
use crate::volumes::Volumes;
use crate::{devices, mounts, seccomp, sysctl};

/// Exit code when the command is not there (as shells have it).
const EXIT_NOT_FOUND: i32 = 127;
/// Exit code when the command, or the container around it, cannot be run (as shells have it).
const EXIT_CANNOT_RUN: i32 = 126;

/// The capabilities of a container of which the host says nothing: those of container runtimes (CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID,
/// SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, AUDIT_WRITE, SETFCAP) without MKNOD: there is no device
/// filter in this guest, so a node would open the disks of the pod's other containers.
const CAPABILITIES: u64 = bits(&[0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 29, 31]);

/// Limit on open files, soft and hard, as container runtimes set it.
const OPEN_FILES_MAX: u64 = 1 << 20;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Parts of /proc and /sys that tell or change too much about the guest.
const MASKED: &[&str] = &["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"];
const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

const fn bits(numbers: &[u32]) -> u64 {
    let mut set = 0;
    let mut at = 0;
    while at < numbers.len() {
        set |= 1 << numbers[at];
        at += 1;
    }
    set
}

/// Everything the child needs; made by the parent before it clones.
#[derive(Debug)]
pub(crate) struct Sandbox<'a> {
    pub(crate) config: &'a ContainerConfig,
    pub(crate) cgroup: &'a Cgroup,
    /// Where the container's disk is mounted.
    pub(crate) root: &'a Path,
    pub(crate) volumes: &'a Volumes,
    /// The file for its last words, and where it finds it.
    pub(crate) message: Option<(&'a Path, &'a MountConfig)>,
    pub(crate) hostname: &'a str,
    pub(crate) hosts: &'a str,
    pub(crate) resolv_conf: &'a str,
    pub(crate) sysctls: &'a [SysctlConfig],
    pub(crate) stdio: &'a Stdio,
}

/// Why the command does not run.
#[derive(Debug)]
pub(crate) struct SetupFailure {
    pub(crate) exit_code: i32,
    pub(crate) message: String,
}

impl From<anyhow::Error> for SetupFailure {
    fn from(error: anyhow::Error) -> Self {
        Self { exit_code: EXIT_CANNOT_RUN, message: format!("{error:#}") }
    }
}

impl Sandbox<'_> {
    /// Builds the container around the calling process and executes the command. Returns only if it cannot.
    pub(crate) fn enter(&self) -> Result<Infallible, SetupFailure> {
        self.build()?;
        rights(self.config)?;
        if self.stdio.terminal.is_some() {
            sys::control_terminal().context("take the terminal")?;
        }
        Err(execute(&self.config.argv, &with_term(&self.config.env, self.config.tty)))
    }

    fn build(&self) -> Result<()> {
        self.cgroup.join().context("join the cgroup")?;
        unshare(CloneFlags::CLONE_NEWCGROUP).context("make a cgroup namespace")?;
        nix::unistd::sethostname(self.hostname).context("set the hostname")?;
        umask(Mode::from_bits_truncate(0o022));
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
            .context("make all mounts private")?;
        let mut trees = mounts::take(&self.config.mounts, self.volumes)?;
        if let Some((file, config)) = self.message {
            trees.push(mounts::take_file(file, config).context("take the file for the last words")?);
        }
        let terminal = self.stdio.terminal.as_ref().map(Terminal::take).transpose()?;
        let nodes = if self.config.privileged { devices::list(Path::new("/dev")) } else { Vec::new() };
        nix::unistd::chdir(self.root).context("enter the root file system")?;
        nix::unistd::pivot_root(".", ".").context("make the disk the root")?;
        umount2(".", MntFlags::MNT_DETACH).context("let go of the guest's root")?;
        nix::unistd::chdir("/")?;
        self.mount_kernel_filesystems(terminal)?;
        devices::make()?;
        devices::make_all(&nodes).context("make the guest's devices")?;
        if let Some(terminal) = &self.stdio.terminal {
            terminal.become_console()?;
        }
        self.write_name_files()?;
        sysctl::set_own(self.sysctls)?;
        if !self.config.privileged {
            hide_kernel_files()?;
        }
        mounts::put(&trees)?;
        self.enter_working_dir()?;
        self.restrict_root()?;
        self.stdio.redirect()
    }

    /// Devices in its root file system are of use to a privileged container only.
    fn restrict_root(&self) -> Result<()> {
        let nodev = if self.config.privileged { MsFlags::empty() } else { MsFlags::MS_NODEV };
        let read_only = if self.config.read_only_root { MsFlags::MS_RDONLY } else { MsFlags::empty() };
        if self.config.privileged || self.config.read_only_root {
            let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | nodev | read_only;
            mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).context("restrict the root")?;
        }
        Ok(())
    }

    fn mount_kernel_filesystems(&self, terminal: Option<OwnedFd>) -> Result<()> {
        let strict = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let of_kernel = if self.config.privileged { strict } else { strict | MsFlags::MS_RDONLY };
        mount_at("proc", "/proc", strict, "")?;
        mount_at("sysfs", "/sys", of_kernel, "")?;
        mount_at("cgroup2", "/sys/fs/cgroup", of_kernel, "")?;
        mount_at("tmpfs", "/dev", MsFlags::MS_NOSUID | MsFlags::MS_STRICTATIME, "mode=0755,size=64k")?;
        match terminal {
            None => {
                mount_at("devpts", "/dev/pts", MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, DEVPTS_OPTIONS)?;
            }
            Some(tree) => {
                fs::create_dir("/dev/pts").context("make /dev/pts")?;
                sys::move_tree(tree.as_fd(), AT_FDCWD, Path::new("/dev/pts")).context("mount /dev/pts")?;
            }
        }
        mount_at("tmpfs", "/dev/shm", strict, "mode=1777,size=64m")?;
        mount_at("mqueue", "/dev/mqueue", strict, "")
    }

    /// /etc/hosts and its kin. The image's own file or link is replaced, never followed.
    fn write_name_files(&self) -> Result<()> {
        fs::create_dir_all("/etc").context("make /etc")?;
        let hostname = format!("{}\n", self.hostname);
        for (path, text) in
            [("/etc/hosts", self.hosts), ("/etc/hostname", &hostname), ("/etc/resolv.conf", self.resolv_conf)]
        {
            let _ = fs::remove_file(path);
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).mode(0o644);
            options.open(path).and_then(|mut file| file.write_all(text.as_bytes())).context(path)?;
        }
        Ok(())
    }

    fn enter_working_dir(&self) -> Result<()> {
        let directory = if self.config.working_dir.is_empty() { "/" } else { &self.config.working_dir };
        fs::create_dir_all(directory).with_context(|| format!("make the working directory {directory}"))?;
        nix::unistd::chdir(directory).with_context(|| format!("enter the working directory {directory}"))
    }
}

/// Nothing to read, and everything that is written goes there.
pub(crate) fn redirect_stdio(stdout: &OwnedFd, stderr: &OwnedFd) -> Result<()> {
    let null = nix::fcntl::open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(stdout)?;
    nix::unistd::dup2_stderr(stderr)?;
    Ok(())
}

/// The calling process becomes the container's user, with its rights.
pub(crate) fn rights(config: &ContainerConfig) -> Result<()> {
    nix::unistd::setsid().context("start a session")?;
    sys::reset_signals().context("reset signals")?;
    setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES_MAX, OPEN_FILES_MAX)
        .context("set the limit on open files")?;
    if config.filters_system_calls {
        seccomp::confine().context("filter system calls")?;
    }
    let capabilities = config.capabilities.unwrap_or(CAPABILITIES);
    sys::limit_bounding_set(capabilities).context("limit the capabilities")?;
    let (uid, gid) = (Uid::from_raw(config.uid), Gid::from_raw(config.gid));
    let groups: Vec<Gid> = config.additional_gids.iter().map(|gid| Gid::from_raw(*gid)).collect();
    nix::unistd::setgroups(&groups).context("set the groups")?;
    nix::unistd::setresgid(gid, gid, gid).with_context(|| format!("become group {gid}"))?;
    nix::unistd::setresuid(uid, uid, uid).with_context(|| format!("become user {uid}"))?;
    sys::set_capabilities(if uid.is_root() { capabilities } else { 0 }).context("set the capabilities")?;
    if config.no_new_privileges {
        set_no_new_privs().context("give up new privileges")?;
    }
    Ok(())
}

/// Looks the command up as execvp(3) does, in the container's PATH, and executes it. Returns only if it cannot.
pub(crate) fn execute(argv: &[String], env: &[String]) -> SetupFailure {
    let c_string = |text: &String| CString::new(text.as_str()).expect("checked for NUL when it was received");
    let words: Vec<CString> = argv.iter().map(c_string).collect();
    let variables: Vec<CString> = env.iter().map(c_string).collect();
    let command = &argv[0];
    let mut failure = Errno::ENOENT;
    for path in candidates(command, env) {
        let path = c_string(&path);
        let Err(error) = nix::unistd::execve(&path, &words, &variables);
        // A later directory may hold one that works; of the errors the most telling one is kept.
        if !matches!(error, Errno::ENOENT | Errno::ENOTDIR) {
            failure = error;
        }
    }
    let exit_code = if failure == Errno::ENOENT { EXIT_NOT_FOUND } else { EXIT_CANNOT_RUN };
    let message = match failure {
        Errno::ENOENT if command.contains('/') => {
            format!("{command}: no such file, or its interpreter is missing")
        }
        Errno::ENOENT => format!("{command}: not found in the container's PATH"),
        other => format!("{command}: {}", other.desc()),
    };
    SetupFailure { exit_code, message }
}

/// The files that `command` may mean.
fn candidates(command: &str, env: &[String]) -> Vec<String> {
    if command.contains('/') {
        return vec![command.into()];
    }
    let path = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    path.split(':').map(|dir| format!("{}/{command}", if dir.is_empty() { "." } else { dir })).collect()
}

fn hide_kernel_files() -> Result<()> {
    for path in READ_ONLY {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let bound = mount(Some(*path), *path, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>);
        ignore_missing(bound)?;
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | flags;
        if bound.is_ok() {
            mount(None::<&str>, *path, None::<&str>, flags, None::<&str>).context(*path)?;
        }
    }
    for path in MASKED {
        if Path::new(path).is_dir() {
            mount(Some("tmpfs"), *path, Some("tmpfs"), MsFlags::MS_RDONLY, None::<&str>).context(*path)?;
        } else {
            ignore_missing(mount(Some("/dev/null"), *path, None::<&str>, MsFlags::MS_BIND, None::<&str>))?;
        }
    }
    Ok(())
}

/// Not every kernel has every file.
fn ignore_missing(result: nix::Result<()>) -> Result<()> {
    match result {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(error) => Err(io::Error::from(error)).context("hide kernel files"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(command: &str, env: &[&str], expected: &[&str]) {
        let env: Vec<String> = env.iter().map(ToString::to_string).collect();
        assert_eq!(candidates(command, &env), expected);
    }

    #[test]
    fn commands_are_looked_up_in_the_containers_path() {
        check("/bin/sh", &["PATH=/x"], &["/bin/sh"]);
        check("./run", &[], &["./run"]);
        check("sh", &["PATH=/bin", "A=b", "PATH=/a:/b"], &["/a/sh", "/b/sh"]);
        check("sh", &["PATH=:/b"], &["./sh", "/b/sh"]);
        assert_eq!(candidates("sh", &[]).len(), 6);
    }

    #[test]
    fn default_capabilities_hold_no_way_out() {
        assert_eq!(CAPABILITIES.count_ones(), 13);
        let (sys_module, sys_admin, mknod, sys_ptrace) = (16, 21, 27, 19);
        assert_eq!(CAPABILITIES & bits(&[sys_module, sys_admin, mknod, sys_ptrace]), 0);
    }
}
